//! Records: entries copied one behind another into memory private to the handle, from where the
//! caller of a bulk operation takes them in one crossing (`shm_map_gathered`).

const std = @import("std");
const atomics = @import("../atomics.zig");
const entries = @import("../stripe/entry.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const status = @import("../status.zig");
const tables = @import("../stripe/table.zig");
const Map = @import("map.zig").Map;

const Error = status.Error;

/// How an entry is written here and read by TypeScript; the key and the value follow, together
/// zero-padded to 8.
/// `expires`: milliseconds since 1970, 0 for never.
pub const Record = extern struct { value_len: u32, key_len: u16, kind: u16, expires: f64 = 0 };

/// A value not included because of its size: fetch it by its key.
pub const left_out = 256;

/// What a record has of a value: nothing, not even its length; all of it, unless it is large; or
/// room only, if it is large, for `snapshot.zig` to copy it later.
pub const Detail = enum { keys, small_values, room_for_large };

pub fn isLarge(value_len: u64) bool {
    return value_len > tables.fast_value_max;
}

/// Makes room for so many more gathered bytes.
pub fn reserve(map: *Map, bytes: u64) Error![]u8 {
    const needed = map.gathered_len + bytes;
    if (needed > map.gathered.len) {
        const more = @max(needed, map.gathered.len + map.gathered.len / 2);
        map.gathered = try os.growPages(map.segment.fault, map.gathered, more);
    }
    const room = map.gathered[map.gathered_len..][0..bytes];
    map.gathered_len = needed;
    return room;
}

/// Adds an entry; what it says may be anything until the caller has validated it.
pub fn appendEntry(
    map: *Map,
    entry: entries.EntryView,
    expires: u64,
    detail: Detail,
) Error!void {
    const key_len = entry.sizes.key_len;
    const value_len = entry.sizes.value_len;
    const is_copied = detail != .keys and !isLarge(value_len);
    const has_room = is_copied or detail == .room_for_large;
    const body = key_len + if (has_room) @as(u64, value_len) else 0;
    const room = try reserve(map, @sizeOf(Record) + std.mem.alignForward(u64, body, 8));
    const kind: u16 = entry.sizes.kind;
    const record: Record = switch (detail) {
        .keys => .{ .key_len = key_len, .value_len = 0, .kind = 0 },
        else => .{
            .key_len = key_len,
            .value_len = value_len,
            .kind = if (has_room) kind else kind | left_out,
            .expires = @floatFromInt(expires),
        },
    };
    @memcpy(room[0..@sizeOf(Record)], std.mem.asBytes(&record));
    const rest = room[@sizeOf(Record)..];
    atomics.copyOut(rest, entry.keyWords(), key_len);
    if (is_copied) atomics.copyOut(rest[key_len..], entry.valueWords(), value_len);
    @memset(rest[body..], 0);
}

/// Forgets what was gathered from `len` on, because a writer overtook the look it was gathered by;
/// and what that look seemed to have failed of.
pub fn discard(map: *Map, len: usize) void {
    map.gathered_len = len;
    map.segment.fault.* = .{};
}

/// The table that a table word names; null: there is none.
pub fn openTable(map: *Map, word: u64) Error!?tables.Table {
    return tables.Table.open(&map.segment.view, word) catch |err|
        return map.segment.refused(.tableDamaged, err);
}

/// Whether one of the records between two places has this key.
pub fn hasKey(map: *Map, from: usize, to: usize, key: []const u8) bool {
    var at = from;
    while (at < to) : (at += recordBytes(map.gathered, at)) {
        if (std.mem.eql(u8, keyOf(map.gathered, at), key)) return true;
    }
    return false;
}

/// Removes all but the last of records with the same key, among those from `from` on. They are few:
/// each is compared with each.
pub fn dropDuplicates(map: *Map, from: usize) void {
    var at = from;
    while (at < map.gathered_len) {
        const next = at + recordBytes(map.gathered, at);
        if (hasKey(map, next, map.gathered_len, keyOf(map.gathered, at)))
            removeRange(map, at, next)
        else
            at = next;
    }
}

/// Takes the bytes between two places out; what lies behind them moves down.
pub fn removeRange(map: *Map, from: usize, to: usize) void {
    const rest = map.gathered[to..map.gathered_len];
    std.mem.copyForwards(u8, map.gathered[from..], rest);
    map.gathered_len -= to - from;
}

pub fn countRecords(map: *Map, bytes: u64) u64 {
    var count: u64 = 0;
    var at: usize = 0;
    while (at < bytes) : (at += recordBytes(map.gathered, at)) count += 1;
    return count;
}

fn recordAt(bytes: []u8, at: usize) *align(8) Record {
    return @ptrCast(@alignCast(bytes[at..].ptr));
}

pub fn recordBytes(bytes: []u8, at: usize) usize {
    const record = recordAt(bytes, at);
    const value_len: u64 = if (record.kind & left_out != 0) 0 else record.value_len;
    return @sizeOf(Record) + std.mem.alignForward(u64, value_len + record.key_len, 8);
}

pub fn keyOf(bytes: []u8, at: usize) []const u8 {
    return bytes[at + @sizeOf(Record) ..][0..recordAt(bytes, at).key_len];
}

/// Copies gathered bytes out.
pub fn takeGathered(map: *Map, offset: u64, target: []u8) usize {
    if (offset >= map.gathered_len) return 0;
    const bytes = map.gathered[offset..map.gathered_len];
    const len = @min(bytes.len, target.len, 1 << 30); // the answer is an `i32`
    @memcpy(target[0..len], bytes[0..len]);
    if (offset + len == map.gathered_len) giveBack(map);
    return len;
}

/// Private memory that a huge value needed is not kept.
pub fn giveBack(map: *Map) void {
    if (map.gathered.len <= 4 << 20) return;
    os.freePages(map.gathered);
    map.gathered = &.{};
    map.gathered_len = 0;
}
