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
pub const Record = extern struct { key_len: u32, value_len: u32, kind: u32, _unused: u32 = 0 };

/// A value not included because of its size: fetch it by its key.
pub const left_out: u32 = 256;
const value_bytes_included = 64 * 1024;

/// What to leave out of a record.
pub const Detail = enum { keys, small_values, all_values };

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

/// Adds an entry. `Corrupt` may only mean that its block was reused: the caller validates.
pub fn append(map: *Map, slot: u64, detail: Detail) Error!void {
    const entry = try entries.ofSlot(&map.segment.view, slot);
    const key_len = entry.sizes.key_len;
    const value_len = entry.sizes.value_len;
    const with_value = detail == .all_values or
        (detail == .small_values and value_len <= value_bytes_included);
    const body = key_len + if (with_value) @as(u64, value_len) else 0;
    const room = try reserve(map, @sizeOf(Record) + std.mem.alignForward(u64, body, 8));
    const kind: u32 = entry.sizes.kind;
    const record: Record = switch (detail) {
        .keys => .{ .key_len = key_len, .value_len = 0, .kind = 0 },
        else => .{
            .key_len = key_len,
            .value_len = value_len,
            .kind = if (with_value) kind else kind | left_out,
        },
    };
    @memcpy(room[0..@sizeOf(Record)], std.mem.asBytes(&record));
    const rest = room[@sizeOf(Record)..];
    atomics.copyOut(rest, entry.keyWords(), key_len);
    if (with_value) atomics.copyOut(rest[key_len..], entry.valueWords(), value_len);
    @memset(rest[body..], 0);
}

/// The stripe's table; null: it has none.
pub fn openTable(map: *Map, stripe: *layout.Stripe) Error!?tables.Table {
    return tables.Table.open(&map.segment.view, atomics.loadAcquire(&stripe.table)) catch
        return map.segment.fault.withReason(.tableDamaged, error.Corrupt);
}

/// Removes all but the last of records with the same key. They are few, if any.
pub fn dropDuplicates(map: *Map) Error!void {
    const len = map.gathered_len;
    const count = countRecords(map, len);
    const slots = std.math.ceilPowerOfTwo(u64, count * 2 + 1) catch return error.NoSpace;
    const scratch = try os.pages(map.segment.fault, slots * 8);
    defer os.freePages(scratch);
    const seen: [*]u64 = @ptrCast(scratch.ptr);
    var at: usize = 0;
    while (at < len) : (at += recordBytes(map.gathered, at)) {
        const key = keyOf(map.gathered, at);
        var i = std.hash.Wyhash.hash(map.secrets.fast[0], key) & (slots - 1);
        while (seen[i] != 0) : (i = (i + 1) & (slots - 1)) {
            const duplicate = seen[i] - 1;
            if (!std.mem.eql(u8, keyOf(map.gathered, duplicate), key)) continue;
            recordAt(map.gathered, duplicate).kind |= dropped;
            break;
        }
        seen[i] = at + 1;
    }
    closeGaps(map);
}

pub fn countRecords(map: *Map, bytes: u64) u64 {
    var count: u64 = 0;
    var at: usize = 0;
    while (at < bytes) : (at += recordBytes(map.gathered, at)) count += 1;
    return count;
}

/// Beside the kind, until `closeGaps`.
const dropped: u32 = 1 << 31;

fn closeGaps(map: *Map) void {
    var from: usize = 0;
    var to: usize = 0;
    while (from < map.gathered_len) {
        const bytes = recordBytes(map.gathered, from);
        if (recordAt(map.gathered, from).kind & dropped == 0) {
            std.mem.copyForwards(u8, map.gathered[to..], map.gathered[from .. from + bytes]);
            to += bytes;
        }
        from += bytes;
    }
    map.gathered_len = to;
}

fn recordAt(bytes: []u8, at: usize) *align(8) Record {
    return @ptrCast(@alignCast(bytes[at..].ptr));
}

fn recordBytes(bytes: []u8, at: usize) usize {
    const record = recordAt(bytes, at);
    const value_len: u64 = if (record.kind & left_out != 0) 0 else record.value_len;
    return @sizeOf(Record) + std.mem.alignForward(u64, record.key_len + value_len, 8);
}

fn keyOf(bytes: []u8, at: usize) []const u8 {
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
