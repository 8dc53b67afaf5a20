//! The exported functions, called as a runtime calls them, with errors in place of statuses. Tests
//! and proofs do with a map, by way of these, all that users do, and count each call, so that the
//! proof's table says what was really called (tests/proof/calls.mjs).

const std = @import("std");
const abi = @import("../root.zig").abi;
const counts_of = @import("../map/count.zig");
const entries = @import("../stripe/entry.zig");
const handles = @import("../abi/handles.zig");
const entry_abi = @import("../abi/entry.zig");
const layout = @import("../layout.zig");
const maps = @import("../map/map.zig");
const marshal = @import("../abi/marshal.zig");
const scans = @import("../map/scan.zig");
const stats_of = @import("../map/stats.zig");
const status = @import("../status.zig");
const verify_of = @import("../map/verify.zig");
const write = @import("../map/write.zig");

const Error = status.Error;
const Map = maps.Map;
const Meta = entries.Meta;

/// The exported functions by name.
pub const Function = blk: {
    @setEvalBranchQuota(100_000);
    var names: []const []const u8 = &.{};
    for (abi.symbols.nouns) |noun| {
        for (@typeInfo(noun).@"struct".decls) |declaration| {
            if (@typeInfo(@TypeOf(@field(noun, declaration.name))) == .@"fn")
                names = names ++ .{declaration.name};
        }
    }
    var values: [names.len]u16 = undefined;
    for (&values, 0..) |*value, i| value.* = i;
    break :blk @Enum(u16, .exhaustive, names, &values);
};

/// What a call was made on.
pub const On = enum { none, robust, kernel, reading };

const Counts = [std.enums.values(Function).len][std.enums.values(On).len]u64;

var own_counts: Counts = @splat(@splat(0));
var counts: *Counts = &own_counts;

/// From here on calls are counted in memory that children forked later share. Call once, early.
pub fn share() !void {
    const memory = try std.posix.mmap(
        null,
        std.mem.alignForward(usize, @sizeOf(Counts), layout.page_bytes),
        .{ .READ = true, .WRITE = true },
        .{ .TYPE = .SHARED, .ANONYMOUS = true },
        -1,
        0,
    );
    counts = @ptrCast(@alignCast(memory.ptr));
}

/// How often a function was called on such a handle.
pub fn count(function: Function, on: On) u64 {
    return @atomicLoad(u64, &counts[@intFromEnum(function)][@intFromEnum(on)], .monotonic);
}

/// Counts a call that was made in another way.
pub fn note(function: Function, on: On) void {
    _ = @atomicRmw(u64, &counts[@intFromEnum(function)][@intFromEnum(on)], .Add, 1, .monotonic);
}

/// What a call with these arguments is made on: a handle comes first.
fn onOf(arguments: anytype) On {
    if (arguments.len == 0 or @TypeOf(arguments[0]) != u32) return .none;
    const map = handles.maps.get(arguments[0]) orelse return .none;
    if (map.segment.readonly) return .reading;
    return if (map.segment.lock_kind == .kernel) .kernel else .robust;
}

fn Result(comptime function: Function) type {
    inline for (abi.symbols.nouns) |noun| {
        if (@hasDecl(noun, @tagName(function)))
            return @typeInfo(@TypeOf(@field(noun, @tagName(function)))).@"fn".return_type.?;
    }
    unreachable;
}

/// Calls an exported function and counts it.
pub fn call(comptime function: Function, arguments: anytype) Result(function) {
    note(function, onOf(arguments));
    inline for (abi.symbols.nouns) |noun| {
        if (@hasDecl(noun, @tagName(function)))
            return @call(.auto, @field(noun, @tagName(function)), arguments);
    }
    unreachable;
}

/// A number as it crosses: a handle, or a length.
pub fn word(number: anytype) u32 {
    return @intCast(number);
}

/// The handle of a map that was opened without the boundary; it becomes one.
pub fn handleOf(map: *Map) u32 {
    const place = recentOf(map);
    if (handles.maps.get(place.*) != map) {
        place.* = handles.maps.find(map) orelse handles.maps.add(map, 0) orelse
            @panic("more maps than handles");
    }
    return place.*;
}

/// The handles that were asked for last: to find one takes a look at all.
threadlocal var recent: [64]u32 = @splat(0);

fn recentOf(map: *const Map) *u32 {
    return &recent[@intFromPtr(map) / layout.page_bytes % recent.len];
}

/// Gives back the memory of a map that is closed, and its handle if it has one.
pub fn discard(map: *Map) void {
    const place = recentOf(map);
    const known: ?u32 = if (handles.maps.get(place.*) == map) place.* else handles.maps.find(map);
    if (known) |handle| _ = handles.maps.remove(handle);
    handles.maps.discard(map);
}

/// The answer, or the error that a status stands for. Null: absent.
fn answerOf(result: anytype) Error!?u64 {
    if (result >= 0) return switch (@typeInfo(@TypeOf(result))) {
        .float => @intFromFloat(result),
        else => @intCast(result),
    };
    const code: i32 = switch (@typeInfo(@TypeOf(result))) {
        .float => @intFromFloat(result),
        else => result,
    };
    if (code == @intFromEnum(status.Status.absent)) return null;
    return errorOf(code);
}

/// The error of a status.
pub fn errorOf(code: i32) Error {
    inline for (@typeInfo(Error).error_set.?) |one| {
        const err = @field(Error, one.name);
        if (status.status(err) == code) return err;
    }
    @panic("a status that is no error");
}

/// Values are read through this. Larger than any that tests and proofs store.
threadlocal var room: []u8 = &.{};

fn roomFor(bytes: usize) []u8 {
    if (room.len < bytes) {
        const gpa = std.heap.page_allocator;
        gpa.free(room);
        room = gpa.alloc(u8, @max(bytes, 1 << 16)) catch @panic("out of memory");
    }
    return room;
}

/// As `read.get`, by way of `shm_map_get_version`.
pub fn get(map: *Map, key: []const u8, target: []u8, reserve: u32) Error!?Meta {
    const handle = handleOf(map);
    const key_len: u32 = @intCast(key.len);
    var bytes = roomFor(1 << 16);
    while (true) {
        const room_len: u32 = @intCast(bytes.len);
        const arguments = .{ handle, key.ptr, key_len, bytes.ptr, room_len };
        const result = call(.shm_map_get_version, arguments);
        const len = try answerOf(result) orelse return null;
        if (len + @sizeOf(marshal.ValueTail) > bytes.len) {
            bytes = roomFor(len + @sizeOf(marshal.ValueTail));
            continue;
        }
        const tail = std.mem.bytesToValue(marshal.ValueTail, bytes[len..][0..9]);
        if (len + reserve <= target.len) @memcpy(target[0..len], bytes[0..len]);
        const version: u64 = @intFromFloat(tail.version);
        return .{ .len = @intCast(len), .kind = tail.kind, .version = version };
    }
}

pub const Value = struct { len: u32, kind: u8 };

/// The value of a key as `shm_map_get` gives it, with its kind.
pub fn getValue(map: *Map, key: []const u8, target: []u8) Error!?Value {
    const handle = handleOf(map);
    const bytes = roomFor(target.len + 1);
    const room_len: u32 = @intCast(bytes.len);
    const arguments = .{ handle, key.ptr, @as(u32, @intCast(key.len)), bytes.ptr, room_len };
    const len = try answerOf(call(.shm_map_get, arguments)) orelse return null;
    if (len >= bytes.len) return .{ .len = @intCast(len), .kind = 0 };
    if (len <= target.len) @memcpy(target[0..len], bytes[0..len]);
    return .{ .len = @intCast(len), .kind = bytes[len] };
}

pub fn has(map: *Map, key: []const u8) Error!bool {
    const arguments = .{ handleOf(map), key.ptr, @as(u32, @intCast(key.len)) };
    return (try answerOf(call(.shm_map_has, arguments))).? == 1;
}

/// As `write.put`.
pub fn put(
    map: *Map,
    key: []const u8,
    value: []const u8,
    kind: u8,
    condition: write.Condition,
) Error!bool {
    const handle = handleOf(map);
    const key_len: u32 = @intCast(key.len);
    const len: u32 = @intCast(value.len);
    const only_if_absent = 256;
    const result = switch (condition) {
        .present => return replace(map, key, value, kind, null),
        .none => call(.shm_map_put, .{ handle, key.ptr, key_len, value.ptr, len, kind }),
        .absent => call(.shm_map_put, .{
            handle, key.ptr, key_len, value.ptr, len, @as(u32, kind) | only_if_absent,
        }),
        .version => |version| call(.shm_map_put_version, .{
            handle, key.ptr, key_len, value.ptr, len, kind, @as(f64, @floatFromInt(version)), 0,
        }),
    };
    return (try answerOf(result)).? == 1;
}

/// As `put`, with an end; 0 for never, null for the one that the entry has.
pub fn putUntil(
    map: *Map,
    key: []const u8,
    value: []const u8,
    kind: u8,
    condition: write.Condition,
    expires: ?u64,
) Error!bool {
    const handle = handleOf(map);
    const key_len = word(key.len);
    const len = word(value.len);
    const end: f64 = if (expires) |ms| @floatFromInt(ms) else -1;
    const flags: u32 = if (condition == .absent) @as(u32, kind) | 256 else kind;
    const result = switch (condition) {
        .present => return replaceUntil(map, key, .{
            .value = value,
            .kind = kind,
            .expires = expires orelse 0,
        }, null),
        .none, .absent => call(.shm_map_put_until, .{
            handle, key.ptr, key_len, value.ptr, len, flags, end,
        }),
        .version => |version| call(.shm_map_put_version, .{
            handle, key.ptr, key_len, value.ptr, len, kind, @as(f64, @floatFromInt(version)), end,
        }),
    };
    return (try answerOf(result)).? == 1;
}

/// Gives an entry another end, 0 for never. False: there is none.
pub fn touch(map: *Map, key: []const u8, expires: u64) Error!bool {
    const end: f64 = @floatFromInt(expires);
    const arguments = .{ handleOf(map), key.ptr, word(key.len), end };
    return (try answerOf(call(.shm_map_touch, arguments))).? == 1;
}

pub fn prune(map: *Map) Error!u64 {
    return (try answerOf(call(.shm_map_prune, .{handleOf(map)}))).?;
}

/// In how many milliseconds to call again; null: no entry ends.
pub fn sweep(map: *Map) Error!?u64 {
    return answerOf(call(.shm_map_sweep, .{handleOf(map)}));
}

pub fn delete(map: *Map, key: []const u8) Error!bool {
    const arguments = .{ handleOf(map), key.ptr, @as(u32, @intCast(key.len)) };
    return (try answerOf(call(.shm_map_delete, arguments))).? == 1;
}

pub fn clear(map: *Map) Error!void {
    _ = try answerOf(call(.shm_map_clear, .{handleOf(map)}));
}

/// As `compact.compact`.
pub fn compact(map: *Map) Error!u64 {
    return (try answerOf(call(.shm_map_compact, .{handleOf(map)}))).?;
}

pub fn size(map: *Map) Error!u64 {
    return (try answerOf(call(.shm_map_size, .{handleOf(map)}))).?;
}

pub fn gatherStripe(map: *Map, index: u32, keys_only: bool) Error!u64 {
    return gatherPrefix(map, index, "", keys_only);
}

pub fn gatherPrefix(map: *Map, index: u32, prefix: []const u8, keys_only: bool) Error!u64 {
    const flags: u32 = if (keys_only) @intFromEnum(marshal.Flags.keysOnly) else 0;
    const arguments = .{ handleOf(map), index, prefix.ptr, word(prefix.len), flags };
    return (try answerOf(call(.shm_map_gather, arguments))).?;
}

/// As `scan.scan`.
pub fn scan(map: *Map, prefix: []const u8, cursor: *scans.Cursor, limit: u32) Error!u64 {
    const bytes = std.mem.asBytes(cursor);
    const arguments = .{
        handleOf(map), prefix.ptr, word(prefix.len), limit, bytes, word(bytes.len),
    };
    return (try answerOf(call(.shm_map_scan, arguments))).?;
}

pub fn clearPrefix(map: *Map, prefix: []const u8) Error!void {
    const arguments = .{ handleOf(map), prefix.ptr, word(prefix.len) };
    _ = try answerOf(call(.shm_map_clear_prefix, arguments));
}

/// Value, version and end of a key, as `shm_map_get_entry` gives them.
pub fn getEntry(map: *Map, key: []const u8, target: []u8) Error!?Meta {
    const arguments = .{ handleOf(map), key.ptr, word(key.len), target.ptr, word(target.len) };
    const len = try answerOf(call(.shm_map_get_entry, arguments)) orelse return null;
    const tail_bytes = @sizeOf(entry_abi.EntryTail);
    if (len + tail_bytes > target.len) return error.TooLarge;
    const tail = std.mem.bytesToValue(entry_abi.EntryTail, target[len..][0..tail_bytes]);
    return .{
        .len = @intCast(len),
        .kind = tail.kind,
        .version = @intFromFloat(tail.version),
        .expires = @intFromFloat(tail.expires),
    };
}

/// As `conditions.take`; the value is copied where `target` has room for it and its kind.
pub fn take(map: *Map, key: []const u8, target: []u8) Error!?Value {
    const arguments = .{ handleOf(map), key.ptr, word(key.len), target.ptr, word(target.len) };
    const len = try answerOf(call(.shm_map_take, arguments)) orelse return null;
    return .{ .len = @intCast(len), .kind = if (len < target.len) target[len] else 0 };
}

/// As `conditions.swap`, in the same way.
pub fn swap(map: *Map, key: []const u8, value: []const u8, kind: u8, target: []u8) Error!?Value {
    return swapUntil(map, key, .{ .value = value, .kind = kind }, target);
}

pub fn swapUntil(map: *Map, key: []const u8, item: write.Item, target: []u8) Error!?Value {
    const value = item.value;
    const end: f64 = @floatFromInt(item.expires);
    const arguments = .{
        handleOf(map),       key.ptr, word(key.len), value.ptr,        word(value.len),
        @as(u32, item.kind), end,     target.ptr,    word(target.len),
    };
    const len = try answerOf(call(.shm_map_swap, arguments)) orelse return null;
    return .{ .len = @intCast(len), .kind = if (len < target.len) target[len] else 0 };
}

/// Stores a value if there is one; with a version, if that is its version.
pub fn replace(map: *Map, key: []const u8, value: []const u8, kind: u8, version: ?u64) Error!bool {
    return replaceUntil(map, key, .{ .value = value, .kind = kind }, version);
}

pub fn replaceUntil(map: *Map, key: []const u8, item: write.Item, version: ?u64) Error!bool {
    const value = item.value;
    const end: f64 = @floatFromInt(item.expires);
    const wanted: f64 = if (version) |number| @floatFromInt(number) else -1;
    const arguments = .{
        handleOf(map), key.ptr, word(key.len), value.ptr, word(value.len), @as(u32, item.kind),
        wanted,        end,
    };
    return (try answerOf(call(.shm_map_replace, arguments))).? == 1;
}

pub fn deleteVersion(map: *Map, key: []const u8, version: u64) Error!bool {
    const wanted: f64 = @floatFromInt(version);
    const arguments = .{ handleOf(map), key.ptr, word(key.len), wanted };
    return (try answerOf(call(.shm_map_delete_version, arguments))).? == 1;
}

/// As `count.add`.
pub fn increment(
    map: *Map,
    key: []const u8,
    by: f64,
    initial: f64,
    result: *counts_of.Counted,
) Error!counts_of.Outcome {
    return incrementUntil(map, key, by, .{ .initial = initial }, result);
}

pub fn incrementUntil(
    map: *Map,
    key: []const u8,
    by: f64,
    beginning: counts_of.Beginning(f64),
    result: *counts_of.Counted,
) Error!counts_of.Outcome {
    const bytes = std.mem.asBytes(result);
    const end: f64 = @floatFromInt(beginning.expires);
    const arguments = .{
        handleOf(map), key.ptr, word(key.len), by, beginning.initial, end, bytes, word(bytes.len),
    };
    return @enumFromInt((try answerOf(call(.shm_map_increment, arguments))).?);
}

/// As `count.addBig`.
pub fn incrementBig(
    map: *Map,
    key: []const u8,
    by: counts_of.Operand,
    initial: counts_of.Operand,
    target: []u8,
) Error!counts_of.Outcome {
    var operands: [4096]u8 = undefined;
    const len = by.bytes.len + initial.bytes.len;
    @memcpy(operands[0..by.bytes.len], by.bytes);
    @memcpy(operands[by.bytes.len..len], initial.bytes);
    const arguments = .{
        handleOf(map),                         key.ptr,     word(key.len),
        &operands,                             word(len),   word(by.bytes.len),
        by.kind | @as(u32, initial.kind) << 8, @as(f64, 0), target.ptr,
        word(target.len),
    };
    return @enumFromInt((try answerOf(call(.shm_map_increment_big, arguments))).?);
}

pub fn snapshot(map: *Map) Error!u64 {
    return (try answerOf(call(.shm_map_snapshot, .{handleOf(map)}))).?;
}

/// As `bulk.getBatch`: how many keys were answered.
pub fn getBatch(map: *Map, keys: []const u8, key_count: u32, target: []u8) Error!u64 {
    const arguments = .{
        handleOf(map), keys.ptr, word(keys.len), key_count, target.ptr, word(target.len),
    };
    return (try answerOf(call(.shm_map_get_batch, arguments))).?;
}

/// As `bulk.putMany`.
pub fn putMany(map: *Map, records: []const u8, record_count: u32, stored: *u32) Error!void {
    const arguments = .{ handleOf(map), records.ptr, word(records.len), record_count, 0 };
    const result = call(.shm_map_put_many, arguments);
    stored.* = if (result < 0) @intFromFloat(map.fault.stored_count) else @intCast(result);
    _ = try answerOf(result);
}

/// Copies gathered bytes from `offset` on.
pub fn takeGathered(map: *Map, offset: u64, target: []u8) usize {
    const arguments = .{
        handleOf(map), @as(f64, @floatFromInt(offset)), target.ptr, @as(u32, @intCast(target.len)),
    };
    return @intCast(call(.shm_map_gathered, arguments));
}

pub fn verify(map: *Map) Error!verify_of.Verdict {
    return verdictOf(map, 0);
}

pub fn repair(map: *Map) Error!verify_of.Verdict {
    return verdictOf(map, 1);
}

fn verdictOf(map: *Map, repairs: u32) Error!verify_of.Verdict {
    var verdict: verify_of.Verdict = undefined;
    const bytes = std.mem.asBytes(&verdict);
    const arguments = .{ handleOf(map), repairs, bytes, @as(u32, bytes.len) };
    _ = try answerOf(call(.shm_map_verify, arguments));
    return verdict;
}

pub fn stats(map: *Map) Error!stats_of.Stats {
    var answer: stats_of.Stats = undefined;
    const bytes = std.mem.asBytes(&answer);
    const arguments = .{ handleOf(map), bytes, @as(u32, bytes.len) };
    _ = try answerOf(call(.shm_segment_stats, arguments));
    return answer;
}

/// Waits for the user's lock. True: its last holder died.
pub fn acquire(map: *Map, timeout_ms: f64) Error!bool {
    const arguments = .{ handleOf(map), @as(u32, 0), timeout_ms };
    return (try answerOf(call(.shm_lock_acquire, arguments))).? == 1;
}

/// One attempt at the user's lock. Null: another handle has it, or goes first.
pub fn attempt(map: *Map, waited_ms: f64) Error!?bool {
    const arguments = .{ handleOf(map), @as(u32, 0), waited_ms };
    const got = try answerOf(call(.shm_lock_try, arguments)) orelse return null;
    return got == 1;
}

pub fn release(map: *Map, stays_owed: bool) void {
    _ = call(.shm_lock_release, .{ handleOf(map), @as(u32, @intFromBool(stays_owed)) });
}

pub fn cancel(map: *Map) void {
    _ = call(.shm_lock_cancel, .{handleOf(map)});
}

pub fn isHeld(map: *Map) Error!bool {
    return (try answerOf(call(.shm_lock_held, .{handleOf(map)}))).? == 1;
}

pub fn unlinkOwn(map: *Map) Error!bool {
    return (try answerOf(call(.shm_segment_unlink, .{handleOf(map)}))).? == 1;
}

/// The token, in `target`, which has room for it.
pub fn token(map: *Map, target: []u8) Error![]u8 {
    const arguments = .{ handleOf(map), target.ptr, @as(u32, @intCast(target.len)) };
    const len = (try answerOf(call(.shm_segment_token, arguments))).?;
    return target[0..len];
}
