//! The whole map at one instant. Everything is copied without a lock first and validated
//! afterwards; the stripe locks are only the way out when writers never leave a moment between.

const std = @import("std");
const atomics = @import("../atomics.zig");
const gathered = @import("gathered.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const status = @import("../status.zig");
const tables = @import("../stripe/table.zig");
const Map = @import("map.zig").Map;
const StripeOp = @import("stripe_op.zig").StripeOp;

const Error = status.Error;
const Slot = layout.Slot;

/// How often a writing handle copies without locks before it takes them.
const tries_max = 3;

/// The whole map at one instant. Returns the gathered bytes.
pub fn snapshot(map: *Map) Error!u64 {
    try map.segment.check();
    var tries: u32 = 0;
    while (true) : (tries += 1) {
        map.gathered_len = 0;
        if (try snapshotOnce(map)) return map.gathered_len;
        if (map.segment.readonly) {
            if (map.segment.deadline.left(1) == 0) return error.Timeout;
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
        count.end = atomics.loadAcquire(&stripe.end);
        count.begin = atomics.loadAcquire(&stripe.begin);
    }
    var slots: Slots = .{ .map = map };
    defer slots.free();
    for (counts[0..stripe_count], 0..) |*count, i| {
        if (!try copyStripe(map, view.stripe(@intCast(i)), count, &slots)) return false;
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
        for (copy, 0..) |*word, i| word.* = atomics.loadAcquire(&table.slots[i]);
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
    const generation = atomics.loadAcquire(&stripe.generation);
    count.table = atomics.loadAcquire(&stripe.table);
    count.slots_at = slots.len;
    var result: Error!void = {};
    if (tables.Table.open(&map.segment.view, count.table)) |opened| {
        if (opened) |table| {
            for (try slots.add(table)) |slot| {
                if (slot <= Slot.tombstone) continue;
                gathered.append(map, slot, .all_values) catch |err| {
                    result = err;
                    break;
                };
            }
        }
    } else |err| result = err;
    atomics.loadFence(); // pairs with the fence in `heap.advance`
    if (atomics.load(&stripe.generation) -% generation > 1) return false;
    result catch |err| {
        if (err == error.Corrupt) return map.segment.fault.withReason(.entryDamaged, error.Corrupt);
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
    if (atomics.loadAcquire(&stripe.table) != count.table) return false;
    // The very word the copy was made by: the stripe's may have changed since the line above.
    const opened = tables.Table.open(&map.segment.view, count.table) catch |err|
        return map.segment.refused(.tableDamaged, err);
    const table = opened orelse return true;
    const copy = slots.words()[count.slots_at..][0..table.slotCount()];
    for (copy, 0..) |word, i| {
        if (atomics.loadAcquire(&table.slots[i]) != word) return false;
    }
    return true;
}

/// With every stripe's lock, in ascending order, for the copy alone: the only place that holds
/// more than one. The kernel passes on at most 2,048 locks of a dead thread; there are 1,024.
fn snapshotLocked(map: *Map) Error!u64 {
    const count = map.segment.view.stripeCount();
    var locked: u32 = 0;
    defer for (0..locked) |i|
        map.segment.lockOf(@intCast(i)).unlock();
    while (locked < count) : (locked += 1) _ = try StripeOp.lock(map, locked);
    map.gathered_len = 0;
    for (0..count) |i| {
        const stripe = map.segment.view.stripe(@intCast(i));
        const table = try gathered.openTable(map, stripe) orelse continue;
        for (0..table.slotCount()) |k| {
            const slot = atomics.load(&table.slots[k]);
            if (slot <= Slot.tombstone) continue;
            gathered.append(map, slot, .all_values) catch |err| {
                if (err == error.Corrupt)
                    return map.segment.fault.withReason(.entryDamaged, error.Corrupt);
                return err;
            };
        }
    }
    return map.gathered_len;
}
