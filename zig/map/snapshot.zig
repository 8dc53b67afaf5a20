//! The whole map at one instant. Everything but large values is copied without a lock first and
//! validated afterwards; the stripe locks are only the way out when writers never leave a moment
//! between. Large values are copied last, without a lock: each is still the one that was there at
//! that instant if its key leads to the same place and version afterwards (`read.zig`).

const std = @import("std");
const atomics = @import("../atomics.zig");
const entries = @import("../stripe/entry.zig");
const gathered = @import("gathered.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const read = @import("read.zig");
const status = @import("../status.zig");
const tables = @import("../stripe/table.zig");
const Map = @import("map.zig").Map;

const Error = status.Error;
const Slot = layout.Slot;

/// How often a writing handle copies without locks before it takes them.
const tries_max = 3;
/// How often it takes them for all but the large values. If one of those changed each time it keeps
/// them for the large values as well.
const locked_tries_max = 8;

/// The whole map at one instant. Returns the gathered bytes.
pub fn snapshot(map: *Map) Error!u64 {
    try map.segment.check();
    const deadline = &map.segment.deadline;
    var large: List(Large) = .{ .map = map };
    defer large.free();
    var tries: u32 = 0;
    while (true) : (tries += 1) {
        gathered.discard(map, 0);
        large.len = 0;
        if (map.segment.readonly or tries < tries_max) {
            if (try snapshotOnce(map, &large) and try copyLarge(map, &large)) break;
        } else {
            const keeps_locks = tries >= tries_max + locked_tries_max;
            if (try snapshotLocked(map, &large, keeps_locks)) break;
        }
        deadline.begin();
        if (map.segment.readonly and deadline.left(1) == 0) return error.Timeout;
    }
    return map.gathered_len;
}

/// A large value that the record at `at` has room for, and where it was: in this generation the
/// record's key led to this pair.
const Large = struct { at: usize, pair: read.Pair, generation: u64 };

/// Copies the large values. False: one of them has changed.
fn copyLarge(map: *Map, large: *const List(Large)) Error!bool {
    for (large.slice()) |one| {
        const key = gathered.keyOf(map.gathered, one.at);
        const key_end = one.at + @sizeOf(gathered.Record) + key.len;
        const room = map.gathered[key_end..][0..one.pair.len];
        const hash = map.hashOf(key);
        const copied = try read.copyValue(map, hash, key, one.pair, one.generation, room);
        if (copied != .whole) return false;
    }
    return true;
}

const Counts = struct { begin: u64, end: u64, table: u64, slots_at: u64 };

/// Double collect with begin and end counts (docs/design.md, Snapshot): the copy is one instant if
/// no stripe began an operation meanwhile, and those in the middle of one look after the copy as
/// they looked in it. False: it was not.
fn snapshotOnce(map: *Map, large: *List(Large)) Error!bool {
    const view = &map.segment.view;
    const stripe_count = view.stripeCount();
    var counts: [1024]Counts = undefined;
    for (counts[0..stripe_count], 0..) |*count, i| {
        const stripe = view.stripe(@intCast(i));
        count.end = atomics.loadAcquire(&stripe.end);
        count.begin = atomics.loadAcquire(&stripe.begin);
    }
    // Behind the counts, so that a removal of what has ended by now shows in them; before any end
    // is loaded (docs/design.md, Expiry).
    _ = map.takeNow();
    atomics.loadFence();
    var slots: List(u64) = .{ .map = map };
    defer slots.free();
    for (counts[0..stripe_count], 0..) |*count, i| {
        if (!try copyStripe(map, view.stripe(@intCast(i)), count, &slots, large)) return false;
    }
    atomics.loadFence();
    for (counts[0..stripe_count], 0..) |*count, i| {
        if (count.begin == count.end) continue;
        if (!try sameSlots(map, view.stripe(@intCast(i)), count, &slots)) return false;
    }
    atomics.loadFence();
    for (counts[0..stripe_count], 0..) |*count, i| {
        if (atomics.load(&view.stripe(@intCast(i)).begin) != count.begin) return false;
    }
    return true;
}

/// A list in private memory.
fn List(comptime Item: type) type {
    return struct {
        map: *Map,
        memory: []align(os.page_bytes) u8 = &.{},
        len: usize = 0,

        const Self = @This();

        fn addMany(list: *Self, count: usize) Error![]Item {
            const bytes = (list.len + count) * @sizeOf(Item);
            if (bytes > list.memory.len)
                list.memory = try os.growPages(list.map.segment.fault, list.memory, bytes * 2);
            list.len += count;
            return list.all()[list.len - count .. list.len];
        }

        fn add(list: *Self, item: Item) Error!void {
            (try list.addMany(1))[0] = item;
        }

        fn slice(list: *const Self) []const Item {
            return list.all()[0..list.len];
        }

        fn all(list: *const Self) [*]Item {
            return @ptrCast(list.memory.ptr);
        }

        fn free(list: *Self) void {
            os.freePages(list.memory);
        }
    };
}

fn copyStripe(
    map: *Map,
    stripe: *layout.Stripe,
    count: *Counts,
    slots: *List(u64),
    large: *List(Large),
) Error!bool {
    const generation = atomics.loadAcquire(&stripe.generation);
    count.table = atomics.loadAcquire(&stripe.table);
    count.slots_at = slots.len;
    var result: Error!void = {};
    if (tables.Table.open(&map.segment.view, count.table)) |opened| {
        if (opened) |table| {
            const copy = try slots.addMany(table.slotCount());
            for (copy, 0..) |*word, i| word.* = atomics.loadAcquire(&table.slots[i]);
            for (copy) |slot| {
                if (slot <= Slot.tombstone) continue;
                append(map, slot, generation, large) catch |err| {
                    result = err;
                    break;
                };
            }
        }
    } else |err| result = err;
    // With the versions of the large values among it.
    if (!read.isStill(stripe, generation)) return false;
    result catch |err| return damaged(map, err);
    return true;
}

/// Adds the entry that a slot names, a large one without its value.
fn append(map: *Map, slot: u64, generation: u64, large: *List(Large)) Error!void {
    const at = map.gathered_len;
    const entry = try entries.ofSlot(&map.segment.view, slot);
    const expires = entry.expires();
    if (map.isOver(expires)) return;
    try gathered.appendEntry(map, entry, expires, .room_for_large);
    if (!gathered.isLarge(entry.sizes.value_len)) return;
    try large.add(.{ .at = at, .pair = .of(entry), .generation = generation });
}

fn damaged(map: *Map, err: Error) Error {
    if (err != error.Corrupt) return err;
    return map.segment.fault.withReason(.entryDamaged, error.Corrupt);
}

/// Whether a stripe that was in the middle of an operation still looks as it was copied.
fn sameSlots(
    map: *Map,
    stripe: *layout.Stripe,
    count: *const Counts,
    slots: *const List(u64),
) Error!bool {
    if (atomics.loadAcquire(&stripe.table) != count.table) return false;
    // The very word the copy was made by: the stripe's may have changed since the line above.
    const opened = tables.Table.open(&map.segment.view, count.table) catch |err|
        return map.segment.refused(.tableDamaged, err);
    const table = opened orelse return true;
    const copy = slots.slice()[count.slots_at..][0..table.slotCount()];
    for (copy, 0..) |word, i| {
        if (atomics.loadAcquire(&table.slots[i]) != word) return false;
    }
    return true;
}

/// With every stripe's lock, in ascending order, for the copy of all but the large values, or of
/// all: the only place that holds more than one. The kernel passes on at most 2,048 locks of a dead
/// thread; there are 1,024. False: a large value has changed behind the locks.
fn snapshotLocked(
    map: *Map,
    large: *List(Large),
    keeps_locks: bool,
) Error!bool {
    const count = map.segment.view.stripeCount();
    var locked: u32 = 0;
    defer unlockAll(map, locked);
    while (locked < count) : (locked += 1) _ = try read.lockAsLastResort(map, locked);
    _ = map.takeNow();
    for (0..count) |i| {
        const stripe = map.segment.view.stripe(@intCast(i));
        const table = try gathered.openTable(map, atomics.load(&stripe.table)) orelse continue;
        const generation = atomics.loadAcquire(&stripe.generation);
        for (0..table.slotCount()) |k| {
            const slot = atomics.load(&table.slots[k]);
            if (slot <= Slot.tombstone) continue;
            append(map, slot, generation, large) catch |err| return damaged(map, err);
        }
    }
    if (!keeps_locks) {
        unlockAll(map, locked);
        locked = 0;
    }
    return copyLarge(map, large);
}

fn unlockAll(map: *Map, count: u32) void {
    for (0..count) |i| map.segment.lockOf(@intCast(i)).unlock();
}
