//! The entries of one stripe, for iteration. They are copied without a lock first and validated
//! afterwards; the stripe's lock is only the way out when writers never leave a moment between.

const std = @import("std");
const atomics = @import("../atomics.zig");
const gathered = @import("gathered.zig");
const layout = @import("../layout.zig");
const status = @import("../status.zig");
const write = @import("write.zig");
const Map = @import("map.zig").Map;
const StripeOp = @import("stripe_op.zig").StripeOp;

const Detail = gathered.Detail;
const Error = status.Error;
const Slot = layout.Slot;

/// A stripe whose table is replaced this often during one pass is copied under its lock.
const passes_max = 16;

/// The entries of one stripe, each whole; every key present throughout once, none twice. Returns
/// the gathered bytes.
pub fn gatherStripe(map: *Map, index: u32, keys_only: bool) Error!u64 {
    try map.segment.check();
    if (index >= map.segment.view.stripeCount()) return error.InvalidArgument;
    const stripe = map.segment.view.stripe(index);
    const detail: Detail = if (keys_only) .keys else .small_values;
    for (0..passes_max) |_| {
        map.gathered_len = 0;
        const begin = atomics.loadAcquire(&stripe.begin);
        const is_quiet = atomics.loadAcquire(&stripe.end) == begin;
        if (!try gatherPass(map, stripe, detail)) continue;
        atomics.loadFence();
        // If a process wrote meanwhile, a key may have moved to a second slot.
        if (!is_quiet or atomics.load(&stripe.begin) != begin) try gathered.dropDuplicates(map);
        return map.gathered_len;
    }
    if (map.segment.readonly) return error.Timeout;
    var op = try StripeOp.lock(map, index);
    defer op.unlock();
    map.gathered_len = 0;
    const table = try gathered.openTable(map, stripe) orelse return 0;
    for (0..table.slotCount()) |i| {
        const slot = atomics.load(&table.slots[i]);
        if (slot > Slot.tombstone) try gathered.append(map, slot, detail);
    }
    return map.gathered_len;
}

/// False: the table was replaced under us.
fn gatherPass(map: *Map, stripe: *layout.Stripe, detail: Detail) Error!bool {
    const word = atomics.loadAcquire(&stripe.table);
    const table = try gathered.openTable(map, stripe) orelse return true;
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
        const generation = atomics.loadAcquire(&stripe.generation);
        const word = atomics.loadAcquire(slot);
        const result = if (word > Slot.tombstone) gathered.append(map, word, detail);
        atomics.loadFence(); // pairs with the fence in `heap.advance`
        if (atomics.load(&stripe.table) != table) return false;
        if (atomics.load(&stripe.generation) -% generation > 1) continue;
        result catch |err| {
            if (err == error.Corrupt)
                return map.segment.fault.withReason(.entryDamaged, error.Corrupt);
            return err;
        };
        return true;
    }
    return false;
}

test "a key met twice is kept once, also with its value left out" {
    const calls = @import("../testing/calls.zig");
    const support = @import("../testing/support.zig");
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    const large: [100_000]u8 = @splat('l');
    _ = try calls.put(map, "large", &large, 1, .none);
    _ = try calls.put(map, "small", "s", 1, .none);
    const table = (try gathered.openTable(map, map.segment.view.stripe(0))).?;
    map.gathered_len = 0;
    // As if both had been deleted and stored again in later slots while the pass went on.
    for (0..2) |_| {
        for (0..table.slotCount()) |i| {
            const slot = atomics.load(&table.slots[i]);
            if (slot > Slot.tombstone) try gathered.append(map, slot, .small_values);
        }
    }
    try std.testing.expectEqual(@as(u64, 4), gathered.countRecords(map, map.gathered_len));
    try gathered.dropDuplicates(map);
    try std.testing.expectEqual(@as(u64, 2), gathered.countRecords(map, map.gathered_len));
}
