//! What a stripe knows of the ends of its entries: how many end, from when on a search for ended
//! ones can find any, and how far such a search has come. All of it is derived: a rebuild makes it
//! anew. A stripe without an entry that ends has zeros here, and its writers pay one load.
//!
//! The caller holds the stripe's lock and has set its writer word.

const std = @import("std");
const atomics = @import("../atomics.zig");
const layout = @import("../layout.zig");

const Stripe = layout.Stripe;

/// What `Stripe.next_end` and `Stripe.sweep_least` are lowered from.
pub const latest: u64 = std.math.maxInt(u64);

/// Before an end is stored in an entry of this stripe, be it one that no slot names yet: so a crash
/// between the two leaves a `next_end` that is too early, which costs a search, and never one that
/// is too late, with which nothing would remove the entry.
pub fn lower(stripe: *Stripe, expires: u64) void {
    std.debug.assert(expires != 0 and stripe.writer != 0);
    // The round that goes on may have passed the entry's slot; its least end becomes `next_end`.
    if (expires < atomics.load(&stripe.sweep_least)) atomics.store(&stripe.sweep_least, expires);
    const next = atomics.load(&stripe.next_end);
    if (next == 0 or expires < next) atomics.store(&stripe.next_end, expires);
}

/// Behind a commit that replaced an end by another; 0: none, or no entry.
pub fn noteChange(stripe: *Stripe, before: u64, after: u64) void {
    std.debug.assert(stripe.writer != 0);
    if ((before == 0) == (after == 0)) return;
    const expiring = atomics.load(&stripe.expiring);
    if (after != 0) return atomics.store(&stripe.expiring, expiring +% 1);
    atomics.store(&stripe.expiring, expiring -% 1);
    if (expiring != 1) return;
    // It was the last one: writers need not look here any more.
    atomics.store(&stripe.sweep_slot, 0);
    atomics.store(&stripe.next_end, 0);
}

/// Has the next step of a search begin at the first slot. Before slots move.
pub fn restart(stripe: *Stripe) void {
    if (atomics.load(&stripe.sweep_slot) != 0) atomics.store(&stripe.sweep_slot, 0);
}

/// Whether a search in this stripe may find an ended entry. A hint without the stripe's lock.
pub fn isDue(stripe: *const Stripe, now_ms: u64) bool {
    const next = atomics.load(&stripe.next_end);
    return next != 0 and next <= now_ms;
}

test lower {
    var stripe: Stripe = std.mem.zeroes(Stripe);
    stripe.writer = 1;
    lower(&stripe, 70);
    try std.testing.expect(stripe.next_end == 70 and stripe.sweep_least == 0);
    stripe.sweep_slot = 8; // a round goes on, and has met nothing that ends before 90
    stripe.sweep_least = 90;
    lower(&stripe, 80);
    try std.testing.expect(stripe.next_end == 70 and stripe.sweep_least == 80);
    try std.testing.expect(isDue(&stripe, 70) and !isDue(&stripe, 69));
}

test noteChange {
    var stripe: Stripe = std.mem.zeroes(Stripe);
    stripe.writer = 1;
    lower(&stripe, 70);
    noteChange(&stripe, 0, 70);
    noteChange(&stripe, 0, 90);
    noteChange(&stripe, 90, 80);
    noteChange(&stripe, 70, 0);
    try std.testing.expect(stripe.expiring == 1 and stripe.next_end == 70);
    noteChange(&stripe, 80, 0);
    try std.testing.expect(stripe.expiring == 0 and stripe.next_end == 0);
    try std.testing.expect(!isDue(&stripe, latest));
}
