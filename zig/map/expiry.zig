//! Entries that end. An entry that has ended is absent for every call, by the clock of that call;
//! what is here gives its space back: writers, a few slots behind each commit; `prune`, all of it;
//! and `sweep`, which one of all processes calls about once a second, so that a map that no process
//! writes to gives space back as well.
//!
//! To remove an ended entry is a delete: a tombstone, by one store.

const std = @import("std");
const atomics = @import("../atomics.zig");
const ends = @import("../stripe/ends.zig");
const entries = @import("../stripe/entry.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const recovery = @import("../stripe/recovery.zig");
const status = @import("../status.zig");
const stripe_ops = @import("stripe_op.zig");
const tables = @import("../stripe/table.zig");
const Map = @import("map.zig").Map;

const Cursor = stripe_ops.Cursor;
const Error = status.Error;
const Slot = layout.Slot;
const Stripe = layout.Stripe;
const StripeOp = stripe_ops.StripeOp;

/// How many slots a writer looks at behind its commit. With their entries far from the processor
/// they take two microseconds.
const step_slots = 32;

/// Gives the entry of `key` another end, 0 for none. One that has passed removes the entry. False:
/// there is none. Value and version stay, and so *begin* does: readers and snapshots need not learn
/// of it. Why that is enough: the entry had not ended by this call's clock, and its new end is yet
/// to come by it as well, so a reader whose clock was read before it loads the end decides rightly
/// by the old one and by the new one (docs/design.md, Expiry).
pub fn touch(map: *Map, key: []const u8, expires: u64) Error!bool {
    try map.segment.checkWritable();
    const key_hash = map.hashOf(key);
    var op: StripeOp = .of(map, key_hash.stripe);
    try op.lockToWrite();
    defer op.unlock();
    var cursor: Cursor = undefined;
    try op.find(&cursor, key_hash, key);
    if (!op.isThere(&cursor)) return false;
    if (map.isOver(expires)) {
        op.begin();
        op.remove(&cursor);
        return true;
    }
    const before = cursor.probe.entry.expires();
    // The mark alone: a crash from here on makes the next owner count the ends anew.
    op.beginUncounted();
    if (expires != 0) ends.lower(op.stripe, expires);
    // Commit: readers see the old end or the new one.
    const words = map.segment.view.at(cursor.probe.entry.offset);
    atomics.storeRelease(&words[2], expires);
    ends.noteChange(op.stripe, before, expires);
    return true;
}

/// Behind a put's commit in a stripe with entries that end: `before` is the end of the entry that
/// was replaced, `after` the new one's; 0: none.
pub fn afterPut(op: *StripeOp, before: u64, after: u64) void {
    ends.noteChange(op.stripe, before, after);
    removeSome(op);
}

/// Deletes the entry of a cursor in a stripe with entries that end. False: it had ended.
pub noinline fn deleteAmongEnding(op: *StripeOp, cursor: *const Cursor) bool {
    const was_there = op.isThere(cursor);
    op.begin();
    op.remove(cursor);
    if (!was_there) countExpiration(op.stripe);
    removeSome(op);
    return was_there;
}

/// A writer's share of the search for ended entries, behind its commit.
pub inline fn removeSome(op: *StripeOp) void {
    if (atomics.load(&op.stripe.next_end) != 0) removeSomeOfEnding(op);
}

noinline fn removeSomeOfEnding(op: *StripeOp) void {
    if (!ends.isDue(op.stripe, op.map.now())) return;
    _ = step(op, step_slots);
}

fn countExpiration(stripe: *Stripe) void {
    atomics.store(&stripe.expirations, atomics.load(&stripe.expirations) +% 1);
}

/// Looks at some slots from where the last step ended, and removes the entries that have ended:
/// each by a commit of its own; a crash behind one leaves what it leaves behind a delete. True: the
/// round is over, each slot was looked at once.
fn step(op: *StripeOp, slots: u64) bool {
    const stripe = op.stripe;
    const view = &op.map.segment.view;
    const opened = tables.Table.open(view, atomics.load(&stripe.table)) catch |err|
        return stopped(op, err);
    const table = opened orelse return true;
    const count = table.slotCount();
    const hand = atomics.load(&stripe.sweep_slot);
    const from = if (hand < count) hand else 0;
    if (from == 0) atomics.store(&stripe.sweep_least, ends.latest);
    const end = @min(from + slots, count);
    for (table.slots[from..end]) |*word| {
        // Wherever a damaged slot leads: a prefetch of any address does no harm.
        const offset = @as(u64, @as(Slot, @bitCast(atomics.load(word))).granule) *%
            layout.granule_bytes;
        @prefetch(@as([*]const u8, @ptrFromInt(@intFromPtr(view.base) +% offset)), .{});
    }
    for (from..end) |i| {
        const word = atomics.load(&table.slots[i]);
        if (word <= Slot.tombstone) continue;
        const entry = entries.ofSlot(view, word) catch |err| return stopped(op, err);
        const until = entry.keptUntil();
        if (until == 0) continue;
        if (until > op.map.now()) {
            if (until < atomics.load(&stripe.sweep_least))
                atomics.store(&stripe.sweep_least, until);
            continue;
        }
        op.takeOut(table, i, entry);
        countExpiration(stripe);
    }
    const is_over = end == count or atomics.load(&stripe.live) == 0;
    if (!is_over) {
        atomics.store(&stripe.sweep_slot, end);
        return false;
    }
    // Slots of this round that writers came to before it did are in its least end (`ends.lower`).
    const least = atomics.load(&stripe.sweep_least);
    const ends_left = atomics.load(&stripe.expiring) != 0;
    atomics.store(&stripe.next_end, if (ends_left) least else 0);
    atomics.store(&stripe.sweep_slot, 0);
    op.shrink(table);
    return true;
}

/// A search that goes no further: recovery sees to damage; an entry for which this process has no
/// address space waits for another one.
fn stopped(op: *StripeOp, err: Error) bool {
    if (err != error.NoSpace) op.afterCommit(err);
    return true;
}

/// Removes every entry that has ended. How many these were.
pub fn prune(map: *Map) Error!u64 {
    try map.segment.checkWritable();
    var removed: u64 = 0;
    for (0..map.segment.view.stripeCount()) |i| {
        if (!ends.isDue(map.segment.view.stripe(@intCast(i)), map.now())) continue;
        var is_begun = false;
        while (true) {
            var op: StripeOp = .of(map, @intCast(i));
            try op.lockToWrite();
            defer op.unlock();
            op.begin();
            if (!is_begun) ends.restart(op.stripe);
            is_begun = true;
            const before = atomics.load(&op.stripe.expirations);
            const is_over = step(&op, step_slots);
            removed += atomics.load(&op.stripe.expirations) -% before;
            if (is_over) break;
        }
    }
    return removed;
}

/// As the holder of a stripe's lock, where space has run out: all that has ended in it goes.
pub fn pruneHere(op: *StripeOp) void {
    ends.restart(op.stripe);
    while (!step(op, std.math.maxInt(u32))) {}
}

/// How often all processes together look for ended entries, and how long one look takes at most
/// before its process does something else, and how soon it then goes on.
pub const sweep_every_ms = 1000;
const sweep_budget_ns = 4 * std.time.ns_per_ms;
const sweep_pause_ms = 20;

/// Removes ended entries where another process has not done so within the last second: stripes that
/// are busy, or that another handle keeps from being written to, are passed by. In how many
/// milliseconds to call again; null: no entry ends.
pub fn sweep(map: *Map) Error!?u64 {
    try map.segment.checkWritable();
    if (!endsAny(map)) {
        map.is_sweeping = false;
        return null;
    }
    const word = &map.segment.header().swept_ms;
    const swept = atomics.load(word);
    const now = map.now();
    const since = now -% swept;
    if (!map.is_sweeping) {
        // A time that lies far ahead is of a clock that was set back since: it counts as long past.
        if (since < sweep_every_ms) return sweep_every_ms - since;
        if (swept -% now < sweep_every_ms) return sweep_every_ms;
        // Of those that come at the same time, one goes on.
        if (!atomics.compareAndSwap(word, swept, now)) return sweep_every_ms;
    } else atomics.store(word, now);
    map.is_sweeping = !try sweepStripes(map);
    return if (map.is_sweeping) sweep_pause_ms else sweep_every_ms;
}

fn endsAny(map: *Map) bool {
    for (0..map.segment.view.stripeCount()) |i| {
        if (atomics.load(&map.segment.view.stripe(@intCast(i)).next_end) != 0) return true;
    }
    return false;
}

/// True: all stripes were seen to. False: there was not enough time.
fn sweepStripes(map: *Map) Error!bool {
    const end = os.monotonicNs() + sweep_budget_ns;
    for (0..map.segment.view.stripeCount()) |i| {
        while (ends.isDue(map.segment.view.stripe(@intCast(i)), map.now())) {
            if (os.monotonicNs() >= end) return false;
            if (try sweepStep(map, @intCast(i))) break;
        }
    }
    return true;
}

/// True: the round through this stripe is over, or is another's to go on with.
fn sweepStep(map: *Map, index: u32) Error!bool {
    var op = StripeOp.tryLock(map, index) catch |err| return switch (err) {
        error.Timeout, error.Corrupt => true,
        else => err,
    };
    defer op.unlock();
    // As in `StripeOp.lockToWrite`.
    if (!map.lock.admits(atomics.loadAcquire(&map.segment.header().lock_word))) return true;
    op.begin();
    return step(&op, step_slots);
}
