//! The exported functions that read an entry and change it in one step. What all exported functions
//! have in common is said in `symbols.zig`.

const std = @import("std");
const conditions = @import("../map/conditions.zig");
const count = @import("../map/count.zig");
const handles = @import("handles.zig");
const marshal = @import("marshal.zig");
const read = @import("../map/read.zig");
const status = @import("../status.zig");
const write = @import("../map/write.zig");
const Error = status.Error;
const Map = @import("../map/map.zig").Map;
const Meta = @import("../stripe/entry.zig").Meta;

/// How a call that began with `startQuickCall` ends in a failure: the next one has to clear it.
fn failed(map: *Map, err: Error) i32 {
    map.segment.deadline.is_used = true;
    return status.status(err);
}

/// Removes the entry of `key` and copies its value: the answer of `shm_map_get`. A value that does
/// not fit stays where it is.
pub export fn shm_map_take(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    const room = marshal.mutable(target, target_len);
    map.startQuickCall();
    const meta = conditions.take(map, key_bytes, room, 1) catch |err| return failed(map, err);
    return answerWith(meta, room);
}

fn answerWith(meta: ?Meta, room: []u8) i32 {
    const found = meta orelse return @intFromEnum(status.Status.absent);
    if (found.len < room.len) room[found.len] = found.kind;
    return @intCast(found.len);
}

/// What follows the value of an entry: its kind and version, and when it ends, 0 for never.
pub const EntryTail = extern struct { kind: u8, version: f64 align(1), expires: f64 align(1) };

/// As `shm_map_get`; behind the value lies the record `EntryTail`.
pub export fn shm_map_get_entry(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.maps.begin(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    const room = marshal.mutable(target, target_len);
    const found = read.get(map, key_bytes, room, @sizeOf(EntryTail)) catch |err|
        return status.status(err);
    const meta = found orelse return @intFromEnum(status.Status.absent);
    if (@as(u64, meta.len) + @sizeOf(EntryTail) <= room.len) {
        const tail: EntryTail = .{
            .kind = meta.kind,
            .version = @floatFromInt(meta.version),
            .expires = @floatFromInt(meta.expires),
        };
        @memcpy(room[meta.len..][0..@sizeOf(EntryTail)], std.mem.asBytes(&tail));
    }
    return @intCast(meta.len);
}

/// Stores a value with an end, 0 for never, and copies the one it replaces, as `shm_map_take` does:
/// if that does not fit, nothing is stored.
pub export fn shm_map_swap(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    value: ?[*]const u8,
    value_len: u32,
    kind: u32,
    expires: f64,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    const room = marshal.mutable(target, target_len);
    const item = itemOf(value, value_len, kind, expires) catch |err| return status.status(err);
    map.startQuickCall();
    const meta = conditions.swap(map, key_bytes, item, room, 1) catch |err|
        return failed(map, err);
    return answerWith(meta, room);
}

fn itemOf(value: ?[*]const u8, value_len: u32, kind: u32, expires: f64) Error!write.Item {
    return .{
        .value = marshal.slice(value, value_len),
        .kind = @truncate(kind),
        .expires = try marshal.wholeOf(expires),
    };
}

/// Stores a value with an end, 0 for never, if there is one, and, unless `version` is below zero,
/// if that has this version. 1, or 0: not so.
pub export fn shm_map_replace(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    value: ?[*]const u8,
    value_len: u32,
    kind: u32,
    version: f64,
    expires: f64,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    const condition: write.Condition = if (version < 0) .present else .{
        .version = versionOf(version) catch |err| return status.status(err),
    };
    const item = itemOf(value, value_len, kind, expires) catch |err| return status.status(err);
    map.startQuickCall();
    const stored = write.putSlow(map, key_bytes, item, condition) catch |err|
        return failed(map, err);
    return @intFromBool(stored);
}

/// The version that an entry must have. Zero, that of no entry, becomes one that none has.
fn versionOf(version: f64) Error!u64 {
    const wanted = try marshal.wholeOf(version);
    return if (wanted == 0) std.math.maxInt(u64) else wanted;
}

/// Removes the entry of `key` if it has this version. 1, or 0: there is none that has.
pub export fn shm_map_delete_version(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    version: f64,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    const wanted = versionOf(version) catch |err| return status.status(err);
    map.startQuickCall();
    const was = conditions.deleteVersion(map, key_bytes, wanted) catch |err|
        return failed(map, err);
    return @intFromBool(was);
}

/// Adds `by` to the number under `key`, or to `initial` if there is none, which then ends at
/// `expires`, 0 for never. An `Outcome`; if it is `counted`, `target` has the record `Counted`.
pub export fn shm_map_increment(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    by: f64,
    initial: f64,
    expires: f64,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    const room = marshal.mutable(target, target_len);
    if (room.len < @sizeOf(count.Counted)) return status.status(error.InvalidArgument);
    const end = marshal.wholeOf(expires) catch |err| return status.status(err);
    map.startQuickCall();
    var counted: count.Counted = undefined;
    const beginning: count.Beginning(f64) = .{ .initial = initial, .expires = end };
    const outcome = count.add(map, key_bytes, by, beginning, &counted) catch |err|
        return failed(map, err);
    if (outcome == .counted) @memcpy(room[0..@sizeOf(count.Counted)], std.mem.asBytes(&counted));
    return @intCast(@intFromEnum(outcome));
}

/// As `shm_map_increment`, for bigints: `operands` are the bytes of `by`, `by_len` of them, and
/// those of `initial`; `kinds` the kind of `by`, plus 256 times that of `initial`. The sum's bytes
/// follow behind the record.
pub export fn shm_map_increment_big(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    operands: ?[*]const u8,
    operands_len: u32,
    by_len: u32,
    kinds: u32,
    expires: f64,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.maps.begin(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    const bytes = marshal.slice(operands, operands_len);
    if (by_len > bytes.len) return status.status(error.InvalidArgument);
    const by: count.Operand = .{ .bytes = bytes[0..by_len], .kind = @truncate(kinds) };
    const initial: count.Operand = .{ .bytes = bytes[by_len..], .kind = @truncate(kinds >> 8) };
    const room = marshal.mutable(target, target_len);
    const beginning: count.Beginning(count.Operand) = .{
        .initial = initial,
        .expires = marshal.wholeOf(expires) catch |err| return status.status(err),
    };
    const outcome = count.addBig(map, key_bytes, by, beginning, room) catch |err|
        return status.status(err);
    return @intCast(@intFromEnum(outcome));
}
