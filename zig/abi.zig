//! The C ABI. Every `pub export fn` in this file is a symbol TypeScript may call, and there are no
//! others: this file is the symbol table, and `zig build abi` writes `src/_abi.ts` from it.
//!
//! Words: `u32`, `i32`, `f64`, bytes (a pointer, null for nothing, and a `u32` length). Results:
//! zero and up is the answer, below zero a `Status`. Lengths follow snprintf: a result that does
//! not fit its target is not copied, and its length is returned all the same. `fault` is always
//! 128 bytes, see `status.Fault`.

const std = @import("std");
const directory = @import("directory.zig");
const gather = @import("gather.zig");
const handles = @import("handles.zig");
const inspect = @import("inspect.zig");
const layout = @import("layout.zig");
const maps = @import("map.zig");
const os = @import("os.zig");
const segments = @import("segment.zig");
const status = @import("status.zig");

const Error = status.Error;
const Fault = status.Fault;
const Map = maps.Map;
const Options = segments.Options;

/// What an open may ask for, a bit each.
pub const Flags = enum(u32) {
    value = 1,
    modeCreate = 2,
    modeAttach = 4,
    modeExclusive = 8,
    readonly = 16,
    allowForeignOwner = 32,
    lockStated = 64,
    lockKernel = 128,
    keysOnly = 256,

    fn in(flag: Flags, flags: u32) bool {
        return flags & @intFromEnum(flag) != 0;
    }
};

/// What this library speaks; `src/_native.ts` refuses any other.
pub export fn shm_fingerprint() u32 {
    return comptime fingerprint();
}

/// Opens the segment `name` in `directory` (empty: the platform's). A handle.
pub export fn shm_segment_open(
    directory_bytes: ?[*]const u8,
    directory_len: u32,
    name: ?[*]const u8,
    name_len: u32,
    codec: ?[*]const u8,
    codec_len: u32,
    flags: u32,
    permissions: u32,
    max_bytes: f64,
    timeout_ms: f64,
    fault: ?[*]u8,
) i32 {
    var options = optionsOf(flags, codec, codec_len, max_bytes, timeout_ms) catch |err|
        return status.status(err);
    options.permissions = permissions & 0o777;
    const mode: directory.Mode = if (Flags.modeCreate.in(flags))
        .create
    else if (Flags.modeAttach.in(flags) or options.readonly)
        .attach
    else if (Flags.modeExclusive.in(flags)) .exclusive else .shared;
    const Opening = struct {
        mode: directory.Mode,
        directory: []const u8,
        name: []const u8,

        fn run(opening: @This(), map: *Map, asked: *Options) Error!void {
            map.segment.directory = try directory.resolve(&map.fault, opening.directory);
            try directory.setName(&map.segment, opening.name);
            try directory.open(&map.segment, opening.mode, asked);
        }
    };
    return opened(Opening{
        .mode = mode,
        .directory = slice(directory_bytes, directory_len),
        .name = slice(name, name_len),
    }, &options, fault);
}

/// A new segment without a name. A handle.
pub export fn shm_segment_anonymous(
    codec: ?[*]const u8,
    codec_len: u32,
    flags: u32,
    max_bytes: f64,
    timeout_ms: f64,
    fault: ?[*]u8,
) i32 {
    var options = optionsOf(flags, codec, codec_len, max_bytes, timeout_ms) catch |err|
        return status.status(err);
    const Opening = struct {
        fn run(_: @This(), map: *Map, asked: *Options) Error!void {
            try directory.anonymous(&map.segment, asked);
        }
    };
    return opened(Opening{}, &options, fault);
}

/// Attaches to the segment a token names. A handle.
pub export fn shm_segment_attach(
    token: ?[*]const u8,
    token_len: u32,
    codec: ?[*]const u8,
    codec_len: u32,
    flags: u32,
    timeout_ms: f64,
    fault: ?[*]u8,
) i32 {
    var options = optionsOf(flags, codec, codec_len, 0, timeout_ms) catch |err|
        return status.status(err);
    const Opening = struct {
        token: []const u8,

        fn run(opening: @This(), map: *Map, asked: *Options) Error!void {
            try directory.attachToken(&map.segment, opening.token, asked);
        }
    };
    return opened(Opening{ .token = slice(token, token_len) }, &options, fault);
}

/// Takes the name away from whatever segment of ours has it. 1, or 0: there was none.
pub export fn shm_segment_unlink_name(
    directory_bytes: ?[*]const u8,
    directory_len: u32,
    name: ?[*]const u8,
    name_len: u32,
    flags: u32,
    timeout_ms: f64,
    fault: ?[*]u8,
) i32 {
    var options = optionsOf(flags, null, 0, 0, timeout_ms) catch |err| return status.status(err);
    var record: Fault = .{};
    const map = handles.create(&record) catch |err| return failed(fault, &record, err);
    defer handles.discard(map);
    prepare(map, &options);
    const path = slice(directory_bytes, directory_len);
    const was = unlinkName(map, path, slice(name, name_len), &options) catch |err|
        return failed(fault, &map.fault, err);
    return @intFromBool(was);
}

/// Lists the segments of a directory: `directory.Listed` and a name for each.
pub export fn shm_segment_list(
    directory_bytes: ?[*]const u8,
    directory_len: u32,
    target: ?[*]u8,
    target_len: u32,
    fault: ?[*]u8,
) i32 {
    var record: Fault = .{};
    const path = directory.resolve(&record, slice(directory_bytes, directory_len)) catch |err|
        return failed(fault, &record, err);
    const len = directory.list(&record, &path, mutable(target, target_len)) catch |err|
        return failed(fault, &record, err);
    return @intCast(len);
}

/// Takes this segment's own name away. 1, or 0: it had none any more.
pub export fn shm_segment_unlink(handle: u32) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    if (map.segment.readonly) return status.status(error.ReadOnly);
    const was = directory.unlinkOwn(&map.segment) catch |err| return status.status(err);
    return @intFromBool(was);
}

pub export fn shm_segment_close(handle: u32) i32 {
    const map = handles.remove(handle) orelse return status.status(error.Closed);
    map.close();
    handles.discard(map);
    return 0;
}

/// The token of this handle, ASCII but for the directory's own bytes.
pub export fn shm_segment_token(handle: u32, target: ?[*]u8, target_len: u32) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    const len = map.segment.token(mutable(target, target_len)) catch |err|
        return status.status(err);
    return @intCast(len);
}

/// The numbers of this handle's last failure; reading clears them.
pub export fn shm_segment_fault(handle: u32, target: ?[*]u8) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    const bytes = target orelse return status.status(error.InvalidArgument);
    @memcpy(bytes[0..@sizeOf(Fault)], std.mem.asBytes(&map.fault));
    map.fault = .{};
    return 0;
}

/// `inspect.Stats`.
pub export fn shm_segment_stats(handle: u32, target: ?[*]u8, target_len: u32) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    const stats = inspect.stats(map) catch |err| return status.status(err);
    return answer(std.mem.asBytes(&stats), target, target_len);
}

/// The length of the value of `key`, `absent` if there is none. If it is less than `target_len`,
/// the value is copied and the byte behind it is its kind.
pub export fn shm_map_get(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    const key_bytes = keyOf(key, key_len) orelse return status.status(error.InvalidArgument);
    const room = mutable(target, target_len);
    const value = map.get(key_bytes, room, 1) catch |err| return status.status(err);
    const found = value orelse return @intFromEnum(status.Status.absent);
    if (found.len < room.len) room[found.len] = found.kind;
    return @intCast(found.len);
}

/// As `shm_map_get`; behind the kind lies the version, an `f64`, so nine bytes more are needed.
pub export fn shm_map_get_version(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    const key_bytes = keyOf(key, key_len) orelse return status.status(error.InvalidArgument);
    const room = mutable(target, target_len);
    const value = map.get(key_bytes, room, 9) catch |err| return status.status(err);
    const found = value orelse return @intFromEnum(status.Status.absent);
    if (@as(u64, found.len) + 9 <= room.len) {
        room[found.len] = found.kind;
        const version: f64 = @floatFromInt(found.version);
        @memcpy(room[found.len + 1 ..][0..8], std.mem.asBytes(&version));
    }
    return @intCast(found.len);
}

/// Stores a value: `how` is its kind, plus 256 for only if absent. 1, or 0: it was there.
pub export fn shm_map_put(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    value: ?[*]const u8,
    value_len: u32,
    how: u32,
) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    const key_bytes = keyOf(key, key_len) orelse return status.status(error.InvalidArgument);
    const condition: maps.Condition = if (how & 256 != 0) .absent else .none;
    const bytes = slice(value, value_len);
    const stored = map.put(key_bytes, bytes, @truncate(how), condition) catch |err|
        return status.status(err);
    return @intFromBool(stored);
}

/// Stores a value if the key's version is still `version` (0: if it is absent). 1, or 0: it is not.
pub export fn shm_map_put_version(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    value: ?[*]const u8,
    value_len: u32,
    how: u32,
    version: f64,
) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    const key_bytes = keyOf(key, key_len) orelse return status.status(error.InvalidArgument);
    if (!(version >= 0 and version < 1 << 53)) return status.status(error.InvalidArgument);
    const condition: maps.Condition = if (version == 0)
        .absent
    else
        .{ .version = @intFromFloat(version) };
    const bytes = slice(value, value_len);
    const stored = map.put(key_bytes, bytes, @truncate(how), condition) catch |err|
        return status.status(err);
    return @intFromBool(stored);
}

pub export fn shm_map_has(handle: u32, key: ?[*]const u8, key_len: u32) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    const key_bytes = keyOf(key, key_len) orelse return status.status(error.InvalidArgument);
    const value = map.get(key_bytes, &.{}, 1) catch |err| return status.status(err);
    return @intFromBool(value != null);
}

/// 1, or 0: there was none.
pub export fn shm_map_delete(handle: u32, key: ?[*]const u8, key_len: u32) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    const key_bytes = keyOf(key, key_len) orelse return status.status(error.InvalidArgument);
    const was = map.delete(key_bytes) catch |err| return status.status(err);
    return @intFromBool(was);
}

pub export fn shm_map_clear(handle: u32) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    map.clear() catch |err| return status.status(err);
    return 0;
}

pub export fn shm_map_size(handle: u32) f64 {
    const map = handles.get(handle) orelse return @floatFromInt(status.status(error.Closed));
    return long(map.size());
}

/// Gathers the values of `count` keys (`gather.getMany`). The bytes gathered.
pub export fn shm_map_get_many(handle: u32, keys: ?[*]const u8, keys_len: u32, count: u32) f64 {
    const map = handles.get(handle) orelse return @floatFromInt(status.status(error.Closed));
    return long(gather.getMany(map, slice(keys, keys_len), count));
}

/// Stores `count` records (`gather.Record`). How many were stored; after an error the fault says.
pub export fn shm_map_put_many(
    handle: u32,
    entries: ?[*]const u8,
    entries_len: u32,
    count: u32,
) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    var stored: u32 = 0;
    gather.putMany(map, slice(entries, entries_len), count, &stored) catch |err| {
        map.fault.stored_count = @floatFromInt(stored);
        return status.status(err);
    };
    return @intCast(stored);
}

/// Gathers the records of one stripe; `flags` may say keysOnly. The bytes gathered.
pub export fn shm_map_gather(handle: u32, stripe: u32, flags: u32) f64 {
    const map = handles.get(handle) orelse return @floatFromInt(status.status(error.Closed));
    return long(gather.gatherStripe(map, stripe, Flags.keysOnly.in(flags)));
}

/// Gathers the records of the whole map as they were at one instant. The bytes gathered.
pub export fn shm_map_snapshot(handle: u32) f64 {
    const map = handles.get(handle) orelse return @floatFromInt(status.status(error.Closed));
    return long(gather.snapshot(map));
}

/// Copies gathered bytes from `offset` on. How many.
pub export fn shm_map_gathered(handle: u32, offset: f64, target: ?[*]u8, target_len: u32) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    if (!(offset >= 0 and offset < 1 << 53)) return status.status(error.InvalidArgument);
    return @intCast(gather.takeGathered(map, @intFromFloat(offset), mutable(target, target_len)));
}

/// `inspect.Verdict`, after repairing what can be if `repair` is 1.
pub export fn shm_map_verify(handle: u32, repair: u32, target: ?[*]u8, target_len: u32) i32 {
    const map = handles.get(handle) orelse return status.status(error.Closed);
    const verdict = (if (repair == 0) inspect.verify(map) else inspect.repair(map)) catch |err|
        return status.status(err);
    return answer(std.mem.asBytes(&verdict), target, target_len);
}

inline fn slice(bytes: ?[*]const u8, len: u32) []const u8 {
    return (bytes orelse return &.{})[0..len];
}

inline fn mutable(bytes: ?[*]u8, len: u32) []u8 {
    return (bytes orelse return &.{})[0..len];
}

inline fn keyOf(key: ?[*]const u8, key_len: u32) ?[]const u8 {
    if (key_len == 0 or key_len > layout.key_bytes_max) return null;
    return (key orelse return null)[0..key_len];
}

fn long(result: Error!u64) f64 {
    return if (result) |n| @floatFromInt(n) else |err| @floatFromInt(status.status(err));
}

fn answer(bytes: []const u8, target: ?[*]u8, target_len: u32) i32 {
    if (bytes.len <= target_len) @memcpy(mutable(target, target_len)[0..bytes.len], bytes);
    return @intCast(bytes.len);
}

/// Hands out the numbers of a failure with its status.
fn failed(target: ?[*]u8, fault: *const Fault, err: Error) i32 {
    if (target) |bytes| @memcpy(bytes[0..@sizeOf(Fault)], std.mem.asBytes(fault));
    return status.status(err);
}

fn optionsOf(
    flags: u32,
    codec: ?[*]const u8,
    codec_len: u32,
    max_bytes: f64,
    timeout_ms: f64,
) Error!Options {
    if (codec_len > layout.codec_bytes_max or !(timeout_ms >= 0)) return error.InvalidArgument;
    if (!(max_bytes >= 0 and max_bytes < 1 << 53)) return error.InvalidArgument;
    if (Flags.lockKernel.in(flags)) return error.Unsupported;
    return .{
        .kind = if (Flags.value.in(flags)) .value else .map,
        .readonly = Flags.readonly.in(flags),
        .allow_foreign_owner = Flags.allowForeignOwner.in(flags),
        .lock = if (Flags.lockStated.in(flags)) .robust else null,
        .max_bytes = @intFromFloat(max_bytes),
        .timeout_ms = timeout_ms,
        .codec = slice(codec, codec_len),
        .recover = maps.recoverSegment,
    };
}

fn prepare(map: *Map, options: *const Options) void {
    map.segment.readonly = options.readonly;
    map.segment.timeout_ms = options.timeout_ms;
    map.segment.me = @as(u64, os.pid()) << 32 | 1;
}

fn unlinkName(
    map: *Map,
    directory_bytes: []const u8,
    name: []const u8,
    options: *Options,
) Error!bool {
    map.segment.directory = try directory.resolve(&map.fault, directory_bytes);
    try directory.setName(&map.segment, name);
    return directory.unlinkName(&map.segment, options);
}

/// Runs one of the three ways to open, and turns the outcome into a handle or a status.
fn opened(opening: anytype, options: *Options, fault: ?[*]u8) i32 {
    var record: Fault = .{};
    const map = handles.create(&record) catch |err| return failed(fault, &record, err);
    prepare(map, options);
    opening.run(map, options) catch |err| {
        record = map.fault;
        handles.discard(map);
        return failed(fault, &record, err);
    };
    map.begin();
    map.fault = .{};
    return @intCast(handles.add(map) orelse {
        map.close();
        handles.discard(map);
        return status.status(error.System);
    });
}

/// A hash of every symbol's name and type, of every status, reason and flag.
fn fingerprint() u32 {
    @setEvalBranchQuota(200_000);
    var hash = std.hash.Fnv1a_32.init();
    for (@typeInfo(@This()).@"struct".decls) |symbol| {
        hash.update(symbol.name);
        if (@typeInfo(@TypeOf(@field(@This(), symbol.name))) == .@"fn")
            hash.update(@typeName(@TypeOf(@field(@This(), symbol.name))));
    }
    for (.{ status.Status, status.Reason, Flags }) |Numbers| {
        for (@typeInfo(Numbers).@"enum".fields) |field|
            hash.update(std.fmt.comptimePrint("{s}={d}", .{ field.name, field.value }));
    }
    return hash.final();
}

test "the boundary takes nulls, empty and short buffers, and stale handles" {
    const expect = std.testing.expectEqual;
    var fault: [128]u8 = undefined;
    var target: [16]u8 = undefined;
    const handle: u32 = @intCast(shm_segment_anonymous("test", 4, 0, 0, 100, &fault));
    try expect(@as(i32, -17), shm_map_get(handle, null, 0, null, 0));
    try expect(@as(i32, -1), shm_map_get(handle, "k", 1, null, 0));
    try expect(@as(i32, 1), shm_map_put(handle, "k", 1, null, 0, 5));
    try expect(@as(i32, 0), shm_map_get(handle, "k", 1, null, 0));
    try expect(@as(i32, 0), shm_map_get(handle, "k", 1, &target, 1));
    try expect(@as(u8, 5), target[0]);
    try expect(@as(i32, 1), shm_map_put(handle, "k", 1, "sixteen bytes...", 16, 6));
    target[0] = 'x';
    try expect(@as(i32, 16), shm_map_get(handle, "k", 1, &target, 16)); // no room for the kind
    try expect(@as(u8, 'x'), target[0]);
    try expect(@as(i32, 0), shm_map_put(handle, "k", 1, "other", 5, 256 | 6));
    try expect(@as(i32, 0), shm_map_put_version(handle, "k", 1, "other", 5, 6, 0));
    const nan = std.math.nan(f64);
    try expect(@as(i32, -17), shm_map_put_version(handle, "k", 1, "other", 5, 6, nan));
    try expect(@as(i32, -17), shm_map_put_many(handle, "short", 5, 1));
    try expect(@as(f64, -17), shm_map_get_many(handle, "\xff\xff\xff\xff", 4, 1));
    try expect(@as(f64, -17), shm_map_gather(handle, 64, 0));
    try expect(@as(f64, 1), shm_map_size(handle));
    try expect(@as(i32, 0), shm_segment_close(handle));
    try expect(@as(i32, -12), shm_segment_close(handle));
    try expect(@as(i32, -12), shm_map_get(handle, "k", 1, &target, 16));
    try expect(@as(f64, -12), shm_map_size(handle));
    try expect(@as(i32, -17), shm_segment_attach("nonsense", 8, "test", 4, 0, 100, &fault));
    const up = shm_segment_open(null, 0, "../up", 5, "test", 4, 0, 0o600, 0, 100, &fault);
    try expect(@as(i32, -17), up);
}

test "a versioned read gives what a versioned store asks for" {
    const expect = std.testing.expectEqual;
    var fault: [128]u8 = undefined;
    var target: [32]u8 = undefined;
    const handle: u32 = @intCast(shm_segment_anonymous("test", 4, 0, 0, 100, &fault));
    defer _ = shm_segment_close(handle);
    try expect(@as(i32, 1), shm_map_put_version(handle, "k", 1, "one", 3, 6, 0));
    try expect(@as(i32, 3), shm_map_get_version(handle, "k", 1, &target, 12));
    const version: f64 = @bitCast(target[4..12].*);
    try expect(@as(i32, 1), shm_map_put_version(handle, "k", 1, "two", 3, 6, version));
    try expect(@as(i32, 0), shm_map_put_version(handle, "k", 1, "three", 5, 6, version));
    try expect(@as(i32, 3), shm_map_get(handle, "k", 1, &target, 32));
    try std.testing.expectEqualStrings("two", target[0..3]);
}
