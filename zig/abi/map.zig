//! The exported functions for maps. What all exported functions have in common is said in
//! `symbols.zig`.

const std = @import("std");
const bulk = @import("../map/bulk.zig");
const compact = @import("../map/compact.zig");
const expiry = @import("../map/expiry.zig");
const gathered = @import("../map/gathered.zig");
const handles = @import("handles.zig");
const iterate = @import("../map/iterate.zig");
const marshal = @import("marshal.zig");
const put_fast = @import("../map/put_fast.zig");
const read = @import("../map/read.zig");
const read_into = @import("../map/read_into.zig");
const scan = @import("../map/scan.zig");
const snapshot = @import("../map/snapshot.zig");
const status = @import("../status.zig");
const verify = @import("../map/verify.zig");
const write = @import("../map/write.zig");
const Error = status.Error;
const Flags = marshal.Flags;
const Map = @import("../map/map.zig").Map;
const Meta = @import("../stripe/entry.zig").Meta;

/// In the flags of a put, beside the kind: store only if the key is absent.
const only_if_absent = 256;

/// The length of the value of `key`, `absent` if there is none. If it is less than `target_len`,
/// the value is copied and the byte behind it is its kind.
pub export fn shm_map_get(
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
    var meta: Meta = undefined;
    switch (read.getFast(map, key_bytes, room, &meta, .call)) {
        .hit => room[meta.len] = meta.kind,
        .miss => return @intFromEnum(status.Status.absent),
        .retry => return getSlow(map, key_bytes, room),
    }
    return @intCast(meta.len);
}

noinline fn getSlow(map: *Map, key: []const u8, room: []u8) i32 {
    map.startCall();
    const found = read.getSlow(map, key, room, 1) catch |err| return status.status(err);
    const value = found orelse return @intFromEnum(status.Status.absent);
    if (value.len < room.len) room[value.len] = value.kind;
    return @intCast(value.len);
}

/// As `shm_map_get`; behind the value lies the record `ValueTail`, so nine bytes more are needed.
pub export fn shm_map_get_version(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    return marshal.valueWithTail(map, key_bytes, marshal.mutable(target, target_len));
}

/// Stores a value: `put_flags` is its kind, plus 256 for only if absent. 1, or 0: it was there.
pub export fn shm_map_put(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    value: ?[*]const u8,
    value_len: u32,
    put_flags: u32,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    const bytes = marshal.slice(value, value_len);
    if (put_flags & only_if_absent != 0)
        return putSlow(map, key_bytes, bytes, put_flags, .absent);
    if (put_fast.putFast(map, key_bytes, bytes, @truncate(put_flags), 0, .call)) return 1;
    return putSlow(map, key_bytes, bytes, put_flags, .none);
}

/// As `shm_map_put`, with an end: milliseconds since 1970, 0 for never, -1 for the end that the
/// entry has. One that has passed leaves the key absent.
pub export fn shm_map_put_until(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    value: ?[*]const u8,
    value_len: u32,
    put_flags: u32,
    expires: f64,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    const bytes = marshal.slice(value, value_len);
    const end = marshal.endOf(expires) catch |err| return status.status(err);
    const kind: u8 = @truncate(put_flags);
    const item: write.Item = .{ .value = bytes, .kind = kind, .expires = end };
    if (put_flags & only_if_absent != 0) return putItem(map, key_bytes, item, .absent);
    if (item.isPlain() and
        put_fast.putFast(map, key_bytes, bytes, kind, end, .call)) return 1;
    return putItem(map, key_bytes, item, .none);
}

/// Separate, so that the fast path spills no registers.
noinline fn putSlow(
    map: *Map,
    key: []const u8,
    value: []const u8,
    put_flags: u32,
    condition: write.Condition,
) i32 {
    return putItem(map, key, .{ .value = value, .kind = @truncate(put_flags) }, condition);
}

inline fn putItem(
    map: *Map,
    key: []const u8,
    item: write.Item,
    condition: write.Condition,
) i32 {
    map.startQuickCall();
    const stored = write.putSlow(map, key, item, condition) catch |err| {
        map.segment.deadline.is_used = true;
        return status.status(err);
    };
    return @intFromBool(stored);
}

/// Stores a value if the key's version is still `version` (0: if it is absent). 1, or 0: it is not.
/// `expires` as in `shm_map_put_until`.
pub export fn shm_map_put_version(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    value: ?[*]const u8,
    value_len: u32,
    put_flags: u32,
    version: f64,
    expires: f64,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    const wanted = marshal.wholeOf(version) catch |err| return status.status(err);
    const condition: write.Condition = if (wanted == 0) .absent else .{ .version = wanted };
    return putItem(map, key_bytes, .{
        .value = marshal.slice(value, value_len),
        .kind = @truncate(put_flags),
        .expires = marshal.endOf(expires) catch |err| return status.status(err),
    }, condition);
}

/// Gives the entry of `key` another end (`expiry.touch`): milliseconds since 1970, 0 for never. 1,
/// or 0: there is none.
pub export fn shm_map_touch(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    expires: f64,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    const end = marshal.wholeOf(expires) catch |err| return status.status(err);
    map.startQuickCall();
    const was = expiry.touch(map, key_bytes, end) catch |err| {
        map.segment.deadline.is_used = true;
        return status.status(err);
    };
    return @intFromBool(was);
}

/// Removes every entry that has ended. How many.
pub export fn shm_map_prune(handle: u32) f64 {
    const map = handles.maps.begin(handle) orelse return marshal.long(error.Closed);
    return marshal.long(expiry.prune(map));
}

/// Removes entries that have ended, if no process has looked for them within the last second
/// (`expiry.sweep`). In how many milliseconds to call again, or `absent`: no entry ends.
pub export fn shm_map_sweep(handle: u32) i32 {
    const map = handles.maps.begin(handle) orelse return status.status(error.Closed);
    const after_ms = expiry.sweep(map) catch |err| return status.status(err);
    // What is busy, or cannot be done now, is for the next tick: no timer waits. The next call
    // does, so it gets the deadline back.
    const deadline = map.segment.deadline;
    defer map.segment.deadline.goBackTo(deadline);
    map.segment.deadline = .in(0);
    const has_more = compact.upkeep(map) catch true;
    if (after_ms) |ms| return @intCast(ms);
    return if (has_more) expiry.sweep_every_ms else @intFromEnum(status.Status.absent);
}

pub export fn shm_map_has(handle: u32, key: ?[*]const u8, key_len: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    const meta = marshal.metaOf(map, key_bytes) catch |err| return status.status(err);
    return @intFromBool(meta != null);
}

/// 1, or 0: there was none.
pub export fn shm_map_delete(handle: u32, key: ?[*]const u8, key_len: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    map.startQuickCall();
    const was = write.delete(map, key_bytes) catch |err| {
        map.segment.deadline.is_used = true;
        return status.status(err);
    };
    return @intFromBool(was);
}

pub export fn shm_map_clear(handle: u32) i32 {
    const map = handles.maps.begin(handle) orelse return status.status(error.Closed);
    return marshal.done(write.clear(map));
}

/// Removes the entries whose keys begin with `prefix`.
pub export fn shm_map_clear_prefix(handle: u32, prefix: ?[*]const u8, prefix_len: u32) i32 {
    const map = handles.maps.begin(handle) orelse return status.status(error.Closed);
    const result = write.clearPrefix(map, marshal.slice(prefix, prefix_len));
    if (result) |_| {} else |_| gathered.giveBack(map);
    return marshal.done(result);
}

pub export fn shm_map_size(handle: u32) f64 {
    const map = handles.maps.begin(handle) orelse return marshal.long(error.Closed);
    return marshal.long(read.size(map));
}

/// Answers as many of `count` keys as fit into `target` (`bulk.getBatch`). How many.
pub export fn shm_map_get_batch(
    handle: u32,
    keys: ?[*]const u8,
    keys_len: u32,
    count: u32,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.maps.begin(handle) orelse return status.status(error.Closed);
    const room = marshal.mutable(target, target_len);
    const answered = bulk.getBatch(map, marshal.slice(keys, keys_len), count, room) catch |err|
        return status.status(err);
    return @intCast(answered);
}

/// Copies the value of `key`, exactly, if it fits and its kind is among `kinds`, a bit for each.
/// Its length, and 2^32 times its kind; or `absent`.
pub export fn shm_map_get_into(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    kinds: u32,
    target: ?[*]u8,
    target_len: u32,
) f64 {
    const map = handles.maps.begin(handle) orelse return marshal.long(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return marshal.long(error.InvalidArgument);
    const room = marshal.mutable(target, target_len);
    const found = read_into.getInto(map, key_bytes, kinds, room) catch |err|
        return marshal.long(err);
    const meta = found orelse return @floatFromInt(@intFromEnum(status.Status.absent));
    return @floatFromInt(@as(u64, meta.kind) << 32 | meta.len);
}

/// Says for each of `count` keys whether it is there (`bulk.hasMany`).
pub export fn shm_map_has_many(
    handle: u32,
    keys: ?[*]const u8,
    keys_len: u32,
    count: u32,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.maps.begin(handle) orelse return status.status(error.Closed);
    const room = marshal.mutable(target, target_len);
    return marshal.done(bulk.hasMany(map, marshal.slice(keys, keys_len), count, room));
}

/// Deletes `count` keys, and says for each whether it was there (`bulk.deleteMany`).
pub export fn shm_map_delete_many(
    handle: u32,
    keys: ?[*]const u8,
    keys_len: u32,
    count: u32,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.maps.begin(handle) orelse return status.status(error.Closed);
    const room = marshal.mutable(target, target_len);
    return marshal.done(bulk.deleteMany(map, marshal.slice(keys, keys_len), count, room));
}

/// As `shm_map_get_version`; `unchanged`, and no copy, if the version is still `version`, which is
/// not 0.
pub export fn shm_map_get_unless(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    version: f64,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = marshal.keyOf(key, key_len) orelse
        return status.status(error.InvalidArgument);
    var meta: Meta = undefined;
    if (version > 0 and read.getFast(map, key_bytes, null, &meta, .call) == .hit and
        @as(f64, @floatFromInt(meta.version)) == version)
        return @intFromEnum(status.Status.unchanged);
    return marshal.valueWithTail(map, key_bytes, marshal.mutable(target, target_len));
}

/// Stores `count` records (`Record`). How many were stored; after an error the fault says.
/// `continues` 1: this is a further part of the call before, within the same deadline.
pub export fn shm_map_put_many(
    handle: u32,
    entries: ?[*]const u8,
    entries_len: u32,
    count: u32,
    continues: u32,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    if (continues == 1) map.fault.clear() else map.startCall();
    var stored: u32 = 0;
    bulk.putMany(map, marshal.slice(entries, entries_len), count, &stored) catch |err| {
        map.fault.stored_count = @floatFromInt(stored);
        return status.status(err);
    };
    return @intCast(stored);
}

/// Gathers the records of one stripe whose keys begin with `prefix`; `flags` may say keysOnly. The
/// bytes gathered.
pub export fn shm_map_gather(
    handle: u32,
    stripe: u32,
    prefix: ?[*]const u8,
    prefix_len: u32,
    flags: u32,
) f64 {
    const map = handles.maps.begin(handle) orelse return marshal.long(error.Closed);
    const wanted: iterate.Wanted = .{
        .detail = if (Flags.keysOnly.in(flags)) .keys else .small_values,
        .prefix = marshal.slice(prefix, prefix_len),
    };
    return gatheredLen(map, iterate.gatherStripe(map, stripe, wanted));
}

/// Gathers the next keys that begin with `prefix`, `limit` at most. `cursor` is a record `Cursor`,
/// all zeros for the first page, and is moved to the next one. The bytes gathered.
pub export fn shm_map_scan(
    handle: u32,
    prefix: ?[*]const u8,
    prefix_len: u32,
    limit: u32,
    cursor: ?[*]u8,
    cursor_len: u32,
) f64 {
    const map = handles.maps.begin(handle) orelse return marshal.long(error.Closed);
    const bytes = marshal.mutable(cursor, cursor_len);
    const record_bytes = @sizeOf(scan.Cursor);
    if (bytes.len < record_bytes) return marshal.long(error.InvalidArgument);
    var place = std.mem.bytesToValue(scan.Cursor, bytes[0..record_bytes]);
    const result = scan.scan(map, marshal.slice(prefix, prefix_len), &place, limit);
    if (result) |_| @memcpy(bytes[0..record_bytes], std.mem.asBytes(&place)) else |_| {}
    return gatheredLen(map, result);
}

/// Gathers the records of the whole map as they were at one instant. The bytes gathered.
pub export fn shm_map_snapshot(handle: u32) f64 {
    const map = handles.maps.begin(handle) orelse return marshal.long(error.Closed);
    return gatheredLen(map, snapshot.snapshot(map));
}

/// The bytes gathered. What a failed call had gathered is given back: no other call takes it.
fn gatheredLen(map: *Map, result: Error!u64) f64 {
    if (result) |_| {} else |_| gathered.giveBack(map);
    return marshal.long(result);
}

/// Copies gathered bytes from `offset` on. How many.
pub export fn shm_map_gathered(handle: u32, offset: f64, target: ?[*]u8, target_len: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const from = marshal.wholeOf(offset) catch |err| return status.status(err);
    return @intCast(gathered.takeGathered(map, from, marshal.mutable(target, target_len)));
}

/// Gives memory back to the system (`compact.compact`). How many bytes.
pub export fn shm_map_compact(handle: u32) f64 {
    const map = handles.maps.begin(handle) orelse return marshal.long(error.Closed);
    return marshal.long(compact.compact(map));
}

/// The record `Verdict`, after repairing what can be if `repair` is 1.
pub export fn shm_map_verify(handle: u32, repair: u32, target: ?[*]u8, target_len: u32) i32 {
    const map = handles.maps.begin(handle) orelse return status.status(error.Closed);
    const verdict = (if (repair == 0) verify.verify(map) else verify.repair(map)) catch |err|
        return status.status(err);
    return marshal.answer(std.mem.asBytes(&verdict), target, target_len);
}
