//! Storing a value the way it nearly always goes: the stripe's lock is free and its last owner left
//! in good order, a block of the right size lies ready, and the key, or an empty slot for it, is
//! near its home.
//!
//! What takes longest in a large map is to wait for the slot and then for the entry that is
//! replaced. A processor waits for several things at once if they are no more than a few hundred
//! instructions apart; so here is nothing but what must be, no call on the way, and everything that
//! does not depend on the old entry comes before it is looked at. Whatever is not as it nearly
//! always is goes the way of `stripe_op.zig`, which ends with the same stores.

const layout = @import("../layout.zig");
const crash = @import("../atomics.zig");
const heap = @import("../stripe/heap.zig");
const tables = @import("../stripe/table.zig");
const recovery = @import("../stripe/recovery.zig");
const stripe_lock = @import("../lock/stripe_lock.zig");
const operations = @import("stripe_op.zig");
const maps = @import("map.zig");

const Map = maps.Map;
const Operation = operations.Operation;

/// How a visit ended. `refused`: nothing happened that anybody could tell. `distrusted`: the value
/// is stored, and the writer word stays set, so that the next visitor recovers.
const Outcome = enum { stored, refused, distrusted };

/// Stores a value, whatever was there. False: not this way; then `Map.putAnyway` decides.
pub inline fn quickly(map: *Map, key: []const u8, value: []const u8, kind: u8) bool {
    const segment = &map.segment;
    // A copy, which no store to the segment can change: nothing of it is loaded twice.
    const view = segment.view;
    const bytes = layout.Entry.bytesFor(key.len, value.len);
    if (segment.readonly or segment.lock_kind != .robust) return false;
    if (!segment.isCurrent() or !heap.isSmall(bytes)) return false;
    const place = map.placeOf(key);
    const stripe = view.stripe(place.index);
    const known = map.knownTable(place.index).*;
    known.prefetch(place.fast);
    const attempt = stripe_lock.attempt(&stripe.mutex);
    if (attempt == .busy) return false;
    const entrance: stripe_lock.Guard = .{ .robust = &stripe.mutex };
    if (attempt == .owner_died or crash.load(&stripe.writer) != 0)
        return recover(map, place.index, attempt == .owner_died);
    // As in `Operation.lockToWrite`: pairs with `UserLock.grant`.
    if (!map.lock.admits(crash.acquire(&segment.header().lock_word))) {
        entrance.unlock();
        return false;
    }
    const count = operations.beginWriting(stripe, segment.me);

    // Up to the commit a crash leaves a block that nothing reaches, which recovery finds free.
    var offset = heap.takeRipe(&view, stripe, bytes);
    if (offset == 0) offset = takeAny(map, place.index, bytes);
    var outcome: Outcome = .refused;
    if (offset != 0) {
        fill(view.at(offset), count, key, value, kind);
        const word = crash.load(&stripe.table);
        const slot = tables.slotWord(recovery.tagOf(place.fast), offset);
        var probe: tables.Probe = undefined;
        const sight = tables.glance(&view, known, word, place.fast, key, &probe);
        if (sight == .found) {
            // Commit, as in `Operation.commit`; a crash behind it leaves a block to be retired,
            // which recovery finds free.
            crash.publish(&known.slots[probe.index], slot);
            const is_full = heap.retire(stripe, probe.found.offset, probe.found.bytes());
            outcome = if (is_full) promote(map, place.index) else .stored;
        } else if (sight == .absent and heap.hasSpare(stripe, bytes) and
            !Operation.isFull(stripe, known.slotCount()))
        {
            // Commit, as there; a crash behind it leaves a counter to be rebuilt.
            crash.publish(&known.slots[probe.index], slot);
            crash.store(&stripe.live, crash.load(&stripe.live) +% 1);
            outcome = .stored;
        } else outcome = commitAnywhere(map, place.fast, key, offset, bytes);
    }
    if (outcome != .distrusted) operations.endWriting(stripe, count);
    entrance.unlock();
    return outcome != .refused;
}

/// Writes an entry into a block nobody can reach yet. `version`: the stripe's begin count.
pub inline fn fill(
    entry: [*]u64,
    version: u64,
    key: []const u8,
    value: []const u8,
    kind: u8,
) void {
    crash.store(&entry[0], version);
    crash.store(&entry[1], @bitCast(layout.Entry.Sizes{
        .value_len = @intCast(value.len),
        .key_len = @intCast(key.len),
        .kind = kind,
    }));
    crash.store(&entry[2], 0);
    crash.fill(entry + 3, key);
    crash.fill(entry + 3 + layout.words(key.len), value);
}

/// False, always: what was left is recovered, and the lock let go.
noinline fn recover(map: *Map, index: u32, has_died: bool) bool {
    var op: Operation = .of(map, index);
    // Whether it worked is told to who comes the other way.
    if (op.settle(if (has_died) .owner_died else .clean)) op.unlock() else |_| {}
    return false;
}

/// A block from the lists or the unused rest; 0: there is none, or damage, which an allocation
/// meets again.
noinline fn takeAny(map: *Map, index: u32, bytes: u64) u64 {
    const view = &map.segment.view;
    return (heap.take(view, view.stripe(index), bytes) catch null) orelse 0;
}

noinline fn promote(map: *Map, index: u32) Outcome {
    map.spaceOf(index).promoteAndTrim() catch return .distrusted;
    return .stored;
}

/// Commits the entry at `offset` wherever its key is, or, if it is new and nothing has to be moved
/// for it, where it belongs. Else the block goes back.
noinline fn commitAnywhere(
    map: *Map,
    fast: u64,
    key: []const u8,
    offset: u64,
    bytes: u64,
) Outcome {
    const place = map.placeAt(fast);
    var op: Operation = .of(map, place.index);
    op.writing = true;
    // Damage is met again by who comes the other way, and told of there.
    op.table_word = crash.load(&op.stripe.table);
    op.probe = .none;
    op.found = false;
    const is_sound = if (op.findAnyway(place, key)) true else |_| false;
    if (is_sound and (op.found or op.hasRoom(bytes))) {
        op.commit(place, key, offset);
        return if (op.healthy) .stored else .distrusted;
    }
    heap.give(&map.segment.view, op.stripe, offset, heap.blockBytes(bytes));
    return .refused;
}
