//! Reading single entries, and how many there are. No read takes a lock or stores anything, but for
//! the last resort of a writing handle (`getSlow`).

const std = @import("std");
const atomics = @import("../atomics.zig");
const entries = @import("../stripe/entry.zig");
const status = @import("../status.zig");
const tables = @import("../stripe/table.zig");
const maps = @import("map.zig");
const StripeOp = @import("stripe_op.zig").StripeOp;

const Error = status.Error;
const KeyHash = maps.KeyHash;
const Map = maps.Map;
const Meta = entries.Meta;
const Stripe = @import("../layout.zig").Stripe;

/// How often a read is tried again when its blocks were reused under it, before it waits for the
/// stripe's lock. Each needs two advances of the generation during one read.
const tries_max = 8;

/// Copies the value of `key` into `target` if it fits with `reserve` bytes to spare. Null: there is
/// none.
pub fn get(map: *Map, key: []const u8, target: []u8, reserve: u32) Error!?Meta {
    std.debug.assert(reserve <= atomics.step_bytes);
    var meta: Meta = undefined;
    return switch (getFast(map, key, target, &meta)) {
        .hit => meta,
        .miss => null,
        .retry => getSlow(map, key, target, reserve),
    };
}

/// As `get`, without a copy.
pub fn getMeta(map: *Map, key: []const u8) Error!?Meta {
    var meta: Meta = undefined;
    return switch (getFast(map, key, null, &meta)) {
        .hit => meta,
        .miss => null,
        .retry => getSlow(map, key, &.{}, 1),
    };
}

/// Fast path. Returns `.retry` when the cached table, the probe's length or the buffer do not fit;
/// then call `getSlow`. Separate, so that the fast path spills no registers. The value must fit
/// with `atomics.step_bytes` to spare; without a target it is not copied.
pub inline fn getFast(map: *Map, key: []const u8, target: ?[]u8, meta: *Meta) tables.Lookup {
    const key_hash = map.hashOf(key);
    const stripe = map.segment.view.stripe(key_hash.stripe);
    const generation = atomics.loadAcquire(&stripe.generation);
    const word = atomics.loadAcquire(&stripe.table);
    const cached = map.cachedTable(key_hash.stripe).*;
    var probe: tables.Probe = undefined;
    if (!map.segment.isCurrent()) return .retry;
    const view = &map.segment.view;
    const lookup = tables.lookupFast(view, cached, word, key_hash.fast, key, &probe);
    if (lookup == .retry) return .retry;
    if (lookup == .hit) {
        if (target) |room| if (!probe.entry.copyFast(key.len, room)) return .retry;
        meta.* = probe.entry.meta();
    }
    return if (isStill(stripe, generation)) lookup else .retry;
}

/// Whether what was read since the generation was `generation` is whole. Pairs with the fence in
/// `heap.advance`: if a block was reused while we read it, the generation shows. One advance is
/// harmless: a block is reused after two.
inline fn isStill(stripe: *const Stripe, generation: u64) bool {
    atomics.loadFence();
    return atomics.load(&stripe.generation) -% generation <= 1;
}

/// Slow path. After some tries, which means a large value under constant change, a writing handle
/// takes the stripe's lock; a reading one goes on trying until `timeout`.
pub noinline fn getSlow(map: *Map, key: []const u8, target: []u8, reserve: u32) Error!?Meta {
    try map.segment.check();
    const key_hash = map.hashOf(key);
    const stripe = map.segment.view.stripe(key_hash.stripe);
    var tries: u32 = 0;
    while (true) : (tries += 1) {
        const generation = atomics.loadAcquire(&stripe.generation);
        const result = probeAndCopy(map, stripe, key_hash, key, target, reserve);
        if (isStill(stripe, generation)) return result;
        map.segment.fault.reason = 0; // what looked damaged was only being reused
        if (tries < tries_max) continue;
        if (!map.segment.readonly) break;
        if (map.segment.deadline.left(1) == 0) return error.Timeout;
    }
    var op = try StripeOp.lock(map, key_hash.stripe);
    defer op.unlock();
    return probeAndCopy(map, stripe, key_hash, key, target, reserve);
}

fn probeAndCopy(
    map: *Map,
    stripe: *Stripe,
    key_hash: KeyHash,
    key: []const u8,
    target: []u8,
    reserve: u32,
) Error!?Meta {
    const view = &map.segment.view;
    const fault = map.segment.fault;
    const word = atomics.loadAcquire(&stripe.table);
    const opened = tables.Table.open(view, word) catch |err|
        return map.segment.refused(.tableDamaged, err);
    const table = opened orelse return null;
    map.cachedTable(key_hash.stripe).remember(word, table);
    var probe: tables.Probe = undefined;
    switch (tables.find(view, table, map.tagFor(table, key_hash, key), key, &probe)) {
        .found => {
            probe.entry.copyOut(target, reserve);
            return probe.entry.meta();
        },
        .absent, .full => return null, // full: no such key in a table without a gap
        .unmapped => return error.NoSpace,
        .corrupt => return fault.withReason(.entryDamaged, error.Corrupt),
    }
}

/// Exact whenever no write is in progress; a stripe whose writer died is counted slot by slot.
pub fn size(map: *Map) Error!u64 {
    try map.segment.check();
    var total: u64 = 0;
    for (0..map.segment.view.stripeCount()) |i| {
        const stripe = map.segment.view.stripe(@intCast(i));
        if (atomics.loadAcquire(&stripe.writer) == 0) {
            total +|= atomics.load(&stripe.live);
        } else total +|= try countSlots(map, stripe);
    }
    return total;
}

fn countSlots(map: *Map, stripe: *Stripe) Error!u64 {
    while (true) {
        const generation = atomics.loadAcquire(&stripe.generation);
        const word = atomics.loadAcquire(&stripe.table);
        const opened = tables.Table.open(&map.segment.view, word) catch |err|
            return map.segment.refused(.tableDamaged, err);
        const count = if (opened) |table| table.entryCount() else 0;
        // As in `getFast`: was the table still one when we had counted it?
        if (isStill(stripe, generation)) return count;
        if (map.segment.deadline.left(1) == 0) return error.Timeout;
    }
}
