//! The fast path of storing a value: the stripe's lock is free and its last owner left in good
//! order, a block of the right size lies ready, and the key, or an empty slot for it, is near its
//! home.
//!
//! What takes longest in a large map is to wait for the slot and then for the entry that is
//! replaced. A processor waits for several things at once if they are no more than a few hundred
//! instructions apart; so here is nothing but what must be, no call on the way, and everything that
//! does not depend on the old entry comes before it is looked at. Anything unusual goes to the slow
//! path (`write.zig`, `stripe_op.zig`), which ends with the same stores.

const std = @import("std");
const atomics = @import("../atomics.zig");
const entries = @import("../stripe/entry.zig");
const hash = @import("../stripe/hash.zig");
const expiry = @import("expiry.zig");
const ends = @import("../stripe/ends.zig");
const heap = @import("../stripe/heap.zig");
const layout = @import("../layout.zig");
const recovery = @import("../stripe/recovery.zig");
const stripe_lock = @import("../lock/stripe_lock.zig");
const tables = @import("../stripe/table.zig");
const stripe_ops = @import("stripe_op.zig");
const Map = @import("map.zig").Map;

const StripeOp = stripe_ops.StripeOp;

/// How a visit ended. `refused`: nothing happened that any other process could tell. `dirty`: the
/// value is stored, and the writer word stays set, so that the next holder of the lock recovers.
const Outcome = enum { stored, refused, dirty };

/// Whether a put is a call of its own, which begins here (`Map.startCall`), or a part of one.
pub const Role = enum { call, part };

/// Stores a value, whether or not there is one, with its end, 0 for none. False: not on this path;
/// call `write.putSlow`.
pub inline fn putFast(
    map: *Map,
    key: []const u8,
    value: []const u8,
    kind: u8,
    expires: u64,
    comptime role: Role,
) bool {
    const segment = &map.segment;
    // A copy, which no store to the segment can change: nothing of it is loaded twice.
    const view = segment.view;
    const bytes = layout.Entry.bytesFor(key.len, value.len);
    if (segment.readonly or segment.lock_kind != .robust) return false;
    if (!segment.isCurrent() or !heap.isSmall(bytes)) return false;
    const key_hash = map.hashOf(key);
    const stripe = view.stripe(key_hash.stripe);
    const cached = map.cachedTable(key_hash.stripe).*;
    cached.prefetch(key_hash.fast);
    const attempt = stripe_lock.attempt(&stripe.mutex);
    if (attempt == .busy) return false;
    const lock: stripe_lock.StripeLock = .{ .robust = &stripe.mutex };
    if (attempt == .owner_died or atomics.load(&stripe.writer) != 0)
        return recover(map, key_hash.stripe, stripe, attempt == .owner_died);
    // As in `StripeOp.lockToWrite`: pairs with `UserLock.grant`.
    if (!map.lock.admits(atomics.loadAcquire(&segment.header().lock_word))) {
        lock.unlock();
        return false;
    }
    const count = recovery.beginWriting(stripe, segment.writer_id);

    // Up to the commit a crash leaves a block that nothing reaches, which recovery finds free.
    var offset = heap.takeReclaimable(&view, stripe, bytes);
    if (offset == 0) offset = allocSlow(map, key_hash.stripe, bytes);
    var outcome: Outcome = .refused;
    if (offset != 0) {
        if (expires != 0) ends.lower(stripe, expires);
        entries.write(view.at(offset), count, key, value, kind, expires);
        const word = atomics.load(&stripe.table);
        const slot = entries.slotWord(hash.tagOf(key_hash.fast), offset);
        var probe: tables.Probe = undefined;
        const max = layout.value_bytes_max;
        const lookup = tables.lookupFast(&view, cached, word, key_hash.fast, key, max, &probe);
        if (lookup == .hit) {
            // Commit, as in `StripeOp.commit`; a crash behind it leaves a block to be retired,
            // which recovery finds free.
            atomics.storeRelease(&cached.slots[probe.index], slot);
            const old_bytes = probe.entry.bytes();
            const is_full = heap.retire(stripe, probe.entry.offset, old_bytes);
            outcome = if (atomics.load(&stripe.next_end) != 0)
                finishReplacing(map, key_hash.stripe, probe.entry, expires, is_full, role)
            else if (is_full)
                advance(map, key_hash.stripe, old_bytes, role)
            else
                .stored;
        } else if (lookup == .miss and heap.hasSpare(stripe, bytes) and
            !StripeOp.isFull(stripe, cached.slotCount()))
        {
            // Commit, as there; a crash behind it leaves a counter to be rebuilt.
            atomics.storeRelease(&cached.slots[probe.index], slot);
            atomics.store(&stripe.live, atomics.load(&stripe.live) +% 1);
            outcome = if (atomics.load(&stripe.next_end) != 0)
                finish(map, key_hash.stripe, 0, expires, role)
            else
                .stored;
        } else outcome = commitSlow(map, key_hash.fast, key, offset, bytes, expires, role);
    }
    if (outcome != .dirty) recovery.endWriting(stripe, count);
    lock.unlock();
    return outcome != .refused;
}

/// Recovers what a dead owner left and gives the lock back. Always false: the slow path stores the
/// value, and if the recovery failed, it fails there in the same way and is reported. So nothing is
/// waited for here: the slow path has the whole of the call's time.
noinline fn recover(map: *Map, index: u32, stripe: *layout.Stripe, has_died: bool) bool {
    const deadline = map.segment.deadline;
    defer map.segment.deadline.goBackTo(deadline);
    map.segment.deadline = .in(0);
    var op: StripeOp = .of(map, index);
    op.stripe = stripe; // at the address at which its mutex was taken
    if (op.recoverIfNeeded(if (has_died) .owner_died else .clean)) op.unlock() else |_| {}
    return false;
}

/// A block from the free lists or the unused rest; 0: there is none, or damage, which the slow path
/// finds in the same way and reports; or it lies behind what the caller's copy of the view covers.
noinline fn allocSlow(map: *Map, index: u32, bytes: u64) u64 {
    const view = &map.segment.view;
    return (heap.takeNow(view, view.stripe(index), bytes) catch null) orelse 0;
}

noinline fn advance(map: *Map, index: u32, old_bytes: u64, comptime role: Role) Outcome {
    if (role == .call) map.startQuickCall();
    map.spaceOf(index).advanceAndTrim(old_bytes) catch {
        map.segment.deadline.is_used = true;
        return .dirty;
    };
    return .stored;
}

/// Behind a put that replaced an entry, in a stripe with entries that end.
noinline fn finishReplacing(
    map: *Map,
    index: u32,
    replaced: entries.EntryView,
    expires: u64,
    is_full: bool,
    comptime role: Role,
) Outcome {
    const before = replaced.expires(); // its block is not given out before the generation advances
    const outcome = if (is_full) advance(map, index, replaced.bytes(), role) else .stored;
    if (outcome != .stored) return outcome;
    return finish(map, index, before, expires, role);
}

/// Behind a put in a stripe with entries that end: counts them, and removes some that have ended.
noinline fn finish(map: *Map, index: u32, before: u64, after: u64, comptime role: Role) Outcome {
    if (role == .call) map.startQuickCall();
    var op: StripeOp = .of(map, index);
    op.is_writing = true; // `putFast` has set the writer word
    std.debug.assert(op.stripe.writer == map.segment.writer_id);
    expiry.afterPut(&op, before, after);
    return if (op.is_dirty) .dirty else .stored;
}

/// Commits the entry at `offset` wherever its key is, or, if the key is new and nothing has to be
/// moved for it, where it belongs. Else the block goes back.
noinline fn commitSlow(
    map: *Map,
    fast: u64,
    key: []const u8,
    offset: u64,
    bytes: u64,
    expires: u64,
    comptime role: Role,
) Outcome {
    if (role == .call) map.startQuickCall();
    var op: StripeOp = .of(map, map.hashFrom(fast).stripe);
    op.is_writing = true; // `putFast` has set the writer word
    std.debug.assert(op.stripe.writer == map.segment.writer_id);
    var cursor: stripe_ops.Cursor = .{
        .key = key,
        .key_hash = map.hashFrom(fast),
        .table_word = atomics.load(&op.stripe.table),
        .is_found = false,
        .probe = .none,
    };
    // If the table is damaged, the slow path finds that in the same way and reports it.
    const is_sound = if (op.findSlow(&cursor)) true else |_| false;
    if (is_sound and (cursor.is_found or op.hasRoom(&cursor, bytes))) {
        op.commit(&cursor, offset, expires);
        expiry.removeSome(&op);
        return if (op.is_dirty) .dirty else .stored;
    }
    heap.give(&map.segment.view, op.stripe, offset, heap.blockBytes(bytes));
    return .refused;
}
