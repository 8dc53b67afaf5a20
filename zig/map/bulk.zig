//! Copies of many entries at once, in memory private to the handle: one stripe for iteration, the
//! whole map at one instant, many keys at one crossing.
//!
//! Everything is copied without a lock first and validated afterwards; the stripe locks are only
//! the way out when writers never leave a moment between.

const std = @import("std");
const layout = @import("../layout.zig");
const crash = @import("../atomics.zig");
const tables = @import("../stripe/table.zig");
const status = @import("../status.zig");
const os = @import("../os/os.zig");
const maps = @import("map.zig");

const Error = status.Error;
const Map = maps.Map;
const Operation = maps.Operation;
const Slot = layout.Slot;

/// How an entry is written here and read by TypeScript; the key and the value follow, together
/// zero-padded to 8.
pub const Record = extern struct { key_len: u32, value_len: u32, kind: u32, _unused: u32 = 0 };

/// A value not included because of its size: fetch it by its key.
pub const left_out: u32 = 256;
const value_bytes_included = 64 * 1024;

/// What to leave out of a record.
const Detail = enum { keys, small_values, all_values };

const tries_max = 3;
/// A stripe whose table is replaced this often during one pass is copied under its lock.
const passes_max = 16;

fn reserve(map: *Map, bytes: u64) Error![]u8 {
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
fn append(map: *Map, slot: u64, detail: Detail) Error!void {
    const found = try tables.entryAt(&map.segment.view, slot);
    const key_len = found.sizes.key_len;
    const value_len = found.sizes.value_len;
    const with_value = detail == .all_values or
        (detail == .small_values and value_len <= value_bytes_included);
    const body = key_len + if (with_value) @as(u64, value_len) else 0;
    const room = try reserve(map, @sizeOf(Record) + std.mem.alignForward(u64, body, 8));
    const kind: u32 = found.sizes.kind;
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
    crash.copyOut(rest, found.key(), key_len);
    if (with_value) crash.copyOut(rest[key_len..], found.value(), value_len);
    @memset(rest[body..], 0);
}

fn openTable(map: *Map, stripe: *layout.Stripe) Error!?tables.Table {
    return tables.Table.open(&map.segment.view, crash.acquire(&stripe.table)) catch
        return map.segment.fault.because(.tableDamaged, error.Corrupt);
}

/// The entries of one stripe, each whole; every key present throughout once, none twice. Returns
/// the gathered bytes.
pub fn gatherStripe(map: *Map, index: u32, keys_only: bool) Error!u64 {
    try map.segment.check();
    if (index >= map.segment.view.stripeCount()) return error.InvalidArgument;
    const stripe = map.segment.view.stripe(index);
    const detail: Detail = if (keys_only) .keys else .small_values;
    for (0..passes_max) |_| {
        map.gathered_len = 0;
        const begin = crash.acquire(&stripe.begin);
        const settled = crash.acquire(&stripe.end) == begin;
        if (!try gatherPass(map, stripe, detail)) continue;
        crash.loadFence();
        // Nobody wrote meanwhile, or somebody did, and a key may have moved to a second slot.
        if (!settled or crash.load(&stripe.begin) != begin) try dropTwins(map);
        return map.gathered_len;
    }
    if (map.segment.readonly) return error.Timeout;
    var op = try Operation.lock(map, index);
    defer op.unlock();
    map.gathered_len = 0;
    const table = try openTable(map, stripe) orelse return 0;
    for (0..table.slotCount()) |i| {
        const slot = crash.load(&table.slots[i]);
        if (slot > Slot.tombstone) try append(map, slot, detail);
    }
    return map.gathered_len;
}

/// False: the table was replaced under us.
fn gatherPass(map: *Map, stripe: *layout.Stripe, detail: Detail) Error!bool {
    const word = crash.acquire(&stripe.table);
    const table = try openTable(map, stripe) orelse return true;
    for (0..table.slotCount()) |i| {
        if (!try gatherSlot(map, stripe, word, &table.slots[i], detail)) return false;
    }
    return true;
}

/// False: `table` is not the stripe's table any more, so `slot` may be anything.
fn gatherSlot(
    map: *Map,
    stripe: *layout.Stripe,
    table: u64,
    slot: *const u64,
    detail: Detail,
) Error!bool {
    const len_before = map.gathered_len;
    for (0..passes_max) |_| {
        map.gathered_len = len_before;
        const generation = crash.acquire(&stripe.generation);
        const word = crash.acquire(slot);
        const result = if (word > Slot.tombstone) append(map, word, detail);
        crash.loadFence(); // pairs with the fence in `heap.promote`
        if (crash.load(&stripe.table) != table) return false;
        if (crash.load(&stripe.generation) -% generation > 1) continue;
        result catch |err| {
            if (err == error.Corrupt)
                return map.segment.fault.because(.entryDamaged, error.Corrupt);
            return err;
        };
        return true;
    }
    return false;
}

/// Removes all but the last of records with the same key. They are few, if any.
fn dropTwins(map: *Map) Error!void {
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
            const twin = seen[i] - 1;
            if (!std.mem.eql(u8, keyOf(map.gathered, twin), key)) continue;
            recordAt(map.gathered, twin).kind |= dropped;
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

/// The whole map at one instant. Returns the gathered bytes.
pub fn snapshot(map: *Map) Error!u64 {
    try map.segment.check();
    const deadline = os.Deadline.in(map.segment.timeout_ms);
    var tries: u32 = 0;
    while (true) : (tries += 1) {
        map.gathered_len = 0;
        if (try snapshotOnce(map)) return map.gathered_len;
        if (map.segment.readonly) {
            if (deadline.left(1) == 0) return error.Timeout;
        } else if (tries + 1 >= tries_max) return snapshotLocked(map);
    }
}

const Counts = struct { begin: u64, end: u64, table: u64, slots_at: u64 };

/// Double collect with begin and end counts (docs/design.md, Snapshot): the copy is one instant if
/// no stripe began an operation meanwhile, and those in the middle of one look after the copy as
/// they looked in it. False: it was not.
fn snapshotOnce(map: *Map) Error!bool {
    const view = &map.segment.view;
    const stripe_count = view.stripeCount();
    var counts: [1024]Counts = undefined;
    for (counts[0..stripe_count], 0..) |*count, i| {
        const stripe = view.stripe(@intCast(i));
        count.end = crash.acquire(&stripe.end);
        count.begin = crash.acquire(&stripe.begin);
    }
    var slots: Slots = .{ .map = map };
    defer slots.free();
    for (counts[0..stripe_count], 0..) |*count, i| {
        if (!try copyStripe(map, view.stripe(@intCast(i)), count, &slots)) return false;
    }
    crash.loadFence();
    for (counts[0..stripe_count], 0..) |*count, i| {
        if (count.begin == count.end) continue;
        if (!try sameSlots(map, view.stripe(@intCast(i)), count, &slots)) return false;
    }
    crash.loadFence();
    for (counts[0..stripe_count], 0..) |*count, i| {
        if (crash.load(&view.stripe(@intCast(i)).begin) != count.begin) return false;
    }
    return true;
}

/// Private copies of slot words.
const Slots = struct {
    map: *Map,
    memory: []align(os.page_bytes) u8 = &.{},
    len: u64 = 0,

    fn add(slots: *Slots, table: tables.Table) Error![]u64 {
        const bytes = tables.bytesFor(table.log2);
        if ((slots.len * 8) + bytes > slots.memory.len) {
            const more = (slots.len * 8 + bytes) * 2;
            slots.memory = try os.growPages(slots.map.segment.fault, slots.memory, more);
        }
        const copy = slots.words()[slots.len..][0..table.slotCount()];
        for (copy, 0..) |*word, i| word.* = crash.acquire(&table.slots[i]);
        slots.len += table.slotCount();
        return copy;
    }

    fn words(slots: *const Slots) [*]u64 {
        return @ptrCast(slots.memory.ptr);
    }

    fn free(slots: *Slots) void {
        os.freePages(slots.memory);
    }
};

fn copyStripe(map: *Map, stripe: *layout.Stripe, count: *Counts, slots: *Slots) Error!bool {
    const generation = crash.acquire(&stripe.generation);
    count.table = crash.acquire(&stripe.table);
    count.slots_at = slots.len;
    var result: Error!void = {};
    if (tables.Table.open(&map.segment.view, count.table)) |opened| {
        if (opened) |table| {
            for (try slots.add(table)) |slot| {
                if (slot <= Slot.tombstone) continue;
                append(map, slot, .all_values) catch |err| {
                    result = err;
                    break;
                };
            }
        }
    } else |err| result = err;
    crash.loadFence(); // pairs with the fence in `heap.promote`
    if (crash.load(&stripe.generation) -% generation > 1) return false;
    result catch |err| {
        if (err == error.Corrupt) return map.segment.fault.because(.entryDamaged, error.Corrupt);
        return err;
    };
    return true;
}

/// Whether a stripe that was in the middle of an operation still looks as it was copied.
fn sameSlots(
    map: *Map,
    stripe: *layout.Stripe,
    count: *const Counts,
    slots: *const Slots,
) Error!bool {
    if (crash.acquire(&stripe.table) != count.table) return false;
    // The very word the copy was made by: the stripe's may have changed since the line above.
    const opened = tables.Table.open(&map.segment.view, count.table) catch
        return map.segment.fault.because(.tableDamaged, error.Corrupt);
    const table = opened orelse return true;
    const copy = slots.words()[count.slots_at..][0..table.slotCount()];
    for (copy, 0..) |word, i| {
        if (crash.acquire(&table.slots[i]) != word) return false;
    }
    return true;
}

/// With every stripe's lock, in ascending order, for the copy alone: the only place that holds
/// more than one. The kernel passes on at most 2,048 locks of a dead thread; there are 1,024.
fn snapshotLocked(map: *Map) Error!u64 {
    const count = map.segment.view.stripeCount();
    var locked: u32 = 0;
    defer for (0..locked) |i|
        map.segment.guardOf(@intCast(i)).unlock();
    while (locked < count) : (locked += 1) _ = try Operation.lock(map, locked);
    map.gathered_len = 0;
    for (0..count) |i| {
        const table = try openTable(map, map.segment.view.stripe(@intCast(i))) orelse continue;
        for (0..table.slotCount()) |k| {
            const slot = crash.load(&table.slots[k]);
            if (slot <= Slot.tombstone) continue;
            append(map, slot, .all_values) catch |err| {
                if (err == error.Corrupt)
                    return map.segment.fault.because(.entryDamaged, error.Corrupt);
                return err;
            };
        }
    }
    return map.gathered_len;
}

/// Reads `count` keys, each `u32` length and bytes. For each: value length and kind (`u32` each;
/// a length of all ones: there is none), and the value, zero-padded to 8.
pub fn getMany(map: *Map, keys: []const u8, count: u32) Error!u64 {
    map.gathered_len = 0;
    var at: usize = 0;
    for (0..count) |_| {
        const key = try takeKey(keys, &at);
        try appendValue(map, key);
    }
    return map.gathered_len;
}

fn takeKey(keys: []const u8, at: *usize) Error![]const u8 {
    if (at.* + 4 > keys.len) return error.InvalidArgument;
    const len = std.mem.readInt(u32, keys[at.*..][0..4], .little);
    const from = at.* + 4;
    if (len == 0 or len > layout.key_bytes_max or from + len > keys.len)
        return error.InvalidArgument;
    at.* = from + len;
    return keys[from..at.*];
}

fn appendValue(map: *Map, key: []const u8) Error!void {
    const start = map.gathered_len;
    var guess: u64 = 256;
    while (true) {
        map.gathered_len = start;
        const room = try reserve(map, 8 + guess);
        const value = try map.get(key, room[8..], 0) orelse {
            std.mem.writeInt(u32, room[0..4], std.math.maxInt(u32), .little);
            std.mem.writeInt(u32, room[4..8], 0, .little);
            map.gathered_len = start + 8;
            return;
        };
        const padded = std.mem.alignForward(u64, value.len, 8);
        if (padded > guess) {
            guess = padded;
            continue;
        }
        std.mem.writeInt(u32, room[0..4], value.len, .little);
        std.mem.writeInt(u32, room[4..8], value.kind, .little);
        @memset(room[8 + value.len .. 8 + padded], 0);
        map.gathered_len = start + 8 + padded;
        return;
    }
}

/// Stores `count` records one after the other, each a commit of its own; `stored` counts them,
/// also when one fails.
pub fn putMany(map: *Map, entries: []const u8, count: u32, stored: *u32) Error!void {
    stored.* = 0;
    var at: usize = 0;
    for (0..count) |_| {
        if (at + @sizeOf(Record) > entries.len) return error.InvalidArgument;
        const record = std.mem.bytesToValue(Record, entries[at..][0..@sizeOf(Record)]);
        const key_at = at + @sizeOf(Record);
        const body = @as(u64, record.key_len) + record.value_len;
        if (record.key_len == 0 or record.key_len > layout.key_bytes_max or
            key_at + body > entries.len or record.kind > 255) return error.InvalidArgument;
        const key = entries[key_at..][0..record.key_len];
        const value = entries[key_at + record.key_len ..][0..record.value_len];
        _ = try map.put(key, value, @intCast(record.kind), .none);
        stored.* += 1;
        at = @min(key_at + std.mem.alignForward(u64, body, 8), entries.len);
    }
}

/// Copies gathered bytes out.
pub fn takeGathered(map: *Map, offset: u64, target: []u8) usize {
    if (offset >= map.gathered_len) return 0;
    const bytes = map.gathered[offset..map.gathered_len];
    const len = @min(bytes.len, target.len, 1 << 30); // the answer is an `i32`
    @memcpy(target[0..len], bytes[0..len]);
    // Private memory that a huge value needed is not kept.
    if (offset + len == map.gathered_len and map.gathered.len > 4 << 20) {
        os.freePages(map.gathered);
        map.gathered = &.{};
        map.gathered_len = 0;
    }
    return len;
}

test "a key met twice is kept once, also with its value left out" {
    const support = @import("../testing/support.zig");
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    const large: [100_000]u8 = @splat('l');
    _ = try map.put("large", &large, 1, .none);
    _ = try map.put("small", "s", 1, .none);
    const table = (try openTable(map, map.segment.view.stripe(0))).?;
    map.gathered_len = 0;
    // As if both had been deleted and stored again in later slots while the pass went on.
    for (0..2) |_| {
        for (0..table.slotCount()) |i| {
            const slot = crash.load(&table.slots[i]);
            if (slot > Slot.tombstone) try append(map, slot, .small_values);
        }
    }
    try std.testing.expectEqual(@as(u64, 4), countRecords(map, map.gathered_len));
    try dropTwins(map);
    try std.testing.expectEqual(@as(u64, 2), countRecords(map, map.gathered_len));
}
