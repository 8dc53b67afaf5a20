//! Reading single entries, and how many there are. No read takes a lock or stores anything, but for
//! the last resort of a writing handle (`lockAsLastResort`).
//!
//! What writers do to other keys never makes a read start again. A pair of an entry's place and its
//! version, read while the generation stood still, is that of an entry which was published; and no
//! version is published twice in a stripe. So if the key's slot still leads to the same pair after
//! a copy, the block was not given out meanwhile, however far the generation moved
//! (docs/design.md, Read).

const std = @import("std");
const atomics = @import("../atomics.zig");
const entries = @import("../stripe/entry.zig");
const layout = @import("../layout.zig");
const status = @import("../status.zig");
const tables = @import("../stripe/table.zig");
const maps = @import("map.zig");
const os = @import("../os/os.zig");
const parked = @import("../stripe/parked.zig");
const StripeOp = @import("stripe_op.zig").StripeOp;

const Error = status.Error;
const KeyHash = maps.KeyHash;
const Map = maps.Map;
const Meta = entries.Meta;
const Stripe = layout.Stripe;

/// How often a read starts again because its very key was changed while it copied, before it takes
/// the stripe's lock or waits until `timeout`.
const starts_max = 8;
/// How often a reader looks at a stripe again whose blocks are given out so quickly that no look is
/// over in time. A look takes less than a microsecond.
pub const looks_max = 1000;
/// Whenever so much of a value is copied, the reader looks whether the entry is still there.
const piece_bytes = 1 << 20;

/// How often a read of this thread took a stripe's lock. Recording builds only.
pub threadlocal var last_resorts: if (atomics.recording) u64 else void =
    if (atomics.recording) 0 else {};

/// The lock of a stripe, for a read whose tries all failed.
pub fn lockAsLastResort(map: *Map, index: u32) Error!StripeOp {
    std.debug.assert(!map.segment.readonly);
    if (atomics.recording) last_resorts += 1;
    return StripeOp.lock(map, index);
}

/// Copies the value of `key` into `target` if it fits with `reserve` bytes to spare. Null: there is
/// none.
pub inline fn get(map: *Map, key: []const u8, target: []u8, reserve: u32) Error!?Meta {
    return getHashed(map, map.hashOf(key), key, target, reserve);
}

/// As `get`, for a caller that has the hash of the key.
pub inline fn getHashed(
    map: *Map,
    key_hash: KeyHash,
    key: []const u8,
    target: []u8,
    reserve: u32,
) Error!?Meta {
    std.debug.assert(reserve <= atomics.step_bytes);
    var meta: Meta = undefined;
    return switch (getFastHashed(map, key_hash, key, target, &meta, .part)) {
        .hit => meta,
        .miss => null,
        .retry => getSlow(map, key, target, reserve),
    };
}

/// As `get`, without a copy.
pub fn getMeta(map: *Map, key: []const u8) Error!?Meta {
    var meta: Meta = undefined;
    return switch (getFast(map, key, null, &meta, .part)) {
        .hit => meta,
        .miss => null,
        .retry => getSlow(map, key, &.{}, 1),
    };
}

/// Whether a read is a call of its own, which has no *now* yet, or a part of one.
pub const Role = enum { call, part };

/// Fast path. Returns `.retry` when the cached table, the probe's length or the buffer do not fit,
/// or the value is large; then call `getSlow`. Separate, so that the fast path spills no registers.
/// The value must fit with `atomics.step_bytes` to spare; without a target it is not copied.
pub inline fn getFast(
    map: *Map,
    key: []const u8,
    target: ?[]u8,
    meta: *Meta,
    comptime role: Role,
) tables.Lookup {
    return getFastHashed(map, map.hashOf(key), key, target, meta, role);
}

inline fn getFastHashed(
    map: *Map,
    key_hash: KeyHash,
    key: []const u8,
    target: ?[]u8,
    meta: *Meta,
    comptime role: Role,
) tables.Lookup {
    const stripe = map.segment.view.stripe(key_hash.stripe);
    const generation = atomics.loadAcquire(&stripe.generation);
    const word = atomics.loadAcquire(&stripe.table);
    const cached = map.cachedTable(key_hash.stripe).*;
    var probe: tables.Probe = undefined;
    if (!map.segment.isCurrent()) return .retry;
    const view = &map.segment.view;
    const max: u32 = if (target == null) layout.value_bytes_max else tables.fast_value_max;
    const lookup = tables.lookupFast(view, cached, word, key_hash.fast, key, max, &probe);
    if (lookup == .retry) return .retry;
    if (lookup == .hit) {
        if (probe.entry.expires() != 0) {
            // In the same way, but for the clock; and out of the way of all other entries.
            const ending: Ending = .{
                .stripe = stripe,
                .generation = generation,
                .entry = probe.entry,
                .key_len = key.len,
                .target = target,
            };
            meta.* = probe.entry.meta();
            return if (ending.isRead(map, meta.expires, role)) .hit else .retry;
        }
        if (target) |room| if (!probe.entry.copyFast(key.len, room)) return .retry;
        meta.* = probe.entry.meta();
    }
    return if (isStill(stripe, generation)) lookup else .retry;
}

/// An entry with an end that the fast path has found.
const Ending = struct {
    stripe: *const Stripe,
    generation: u64,
    entry: entries.EntryView,
    key_len: usize,
    target: ?[]u8,

    /// Copies the value. An end that is yet to come counts: the entry had it when it was loaded.
    /// One that has passed was loaded before the clock was read, and the entry may have another by
    /// now: `getSlow` decides.
    noinline fn isRead(ending: *const Ending, map: *Map, expires: u64, comptime role: Role) bool {
        if (ending.target) |room|
            if (!ending.entry.copyFast(ending.key_len, room)) return false;
        if (!isStill(ending.stripe, ending.generation)) return false;
        return expires > if (role == .call) map.takeNow() else map.now();
    }
};

/// Whether what was read since the generation was `generation` is whole. Pairs with the fence in
/// `heap.advance`: if a block was reused while we read it, the generation shows. One advance is
/// harmless: a block is reused after two.
pub inline fn isStill(stripe: *const Stripe, generation: u64) bool {
    atomics.loadFence();
    return atomics.load(&stripe.generation) -% generation <= 1;
}

/// Slow path. First a try that costs no more than it must: nearly always nothing moves meanwhile.
pub noinline fn getSlow(map: *Map, key: []const u8, target: []u8, reserve: u32) Error!?Meta {
    try map.segment.check();
    const key_hash = map.hashOf(key);
    const stripe = map.segment.view.stripe(key_hash.stripe);
    const generation = atomics.loadAcquire(&stripe.generation);
    var seen: Seen = undefined;
    const looked = look(map, stripe, key_hash, key, &seen);
    if (looked != .found or seen.meta.len <= tables.fast_value_max) {
        if (looked == .found) seen.entry.copyOut(target, reserve);
        if (isStill(stripe, generation)) return answer(map, looked, &seen);
    }
    return getLarge(map, key_hash, key, target, reserve);
}

/// What is large, or was overtaken.
noinline fn getLarge(
    map: *Map,
    key_hash: KeyHash,
    key: []const u8,
    target: []u8,
    reserve: u32,
) Error!?Meta {
    const stripe = map.segment.view.stripe(key_hash.stripe);
    var starts: u32 = 0;
    while (true) {
        if (try readOnce(map, stripe, key_hash, key, target, reserve)) |read|
            return read.meta;
        starts += 1;
        map.segment.deadline.begin();
        if (starts < starts_max) continue;
        if (!map.segment.readonly) break;
        if (map.segment.deadline.left(1) == 0) return error.Timeout;
    }
    var op = try lockAsLastResort(map, key_hash.stripe);
    defer op.unlock();
    var seen: Seen = undefined;
    const looked = look(map, stripe, key_hash, key, &seen);
    if (looked == .found) seen.entry.copyOut(target, reserve);
    return answer(map, looked, &seen);
}

const Read = struct { meta: ?Meta };

/// One start. Null: the key itself was changed meanwhile.
fn readOnce(
    map: *Map,
    stripe: *const Stripe,
    key_hash: KeyHash,
    key: []const u8,
    target: []u8,
    reserve: u32,
) Error!?Read {
    for (0..looks_max) |_| {
        const generation = atomics.loadAcquire(&stripe.generation);
        var seen: Seen = undefined;
        const looked = look(map, stripe, key_hash, key, &seen);
        // Before anything of it counts: in a block that was given out again, the version may be
        // that of an entry which is still being written, and comes to the key's slot later.
        if (!isStill(stripe, generation)) continue;
        const meta = try answer(map, looked, &seen) orelse return .{ .meta = null };
        if (@as(u64, meta.len) + reserve > target.len) return .{ .meta = meta };
        const pair: Pair = .{
            .offset = seen.entry.offset,
            .version = meta.version, // the one that was there before the check
            .len = meta.len,
        };
        return switch (try copyValue(map, key_hash, key, pair, generation, target)) {
            .whole => .{ .meta = meta },
            .gone => .{ .meta = null },
            .changed => null,
        };
    }
    return null;
}

/// What a look came to. Damage may have been met only because a block was reused: it counts if the
/// generation stood still, and no record of a failure is made of it before.
const Looked = enum { found, absent, table_damaged, entry_damaged, unmapped };

/// An entry as one look saw it.
const Seen = struct { entry: entries.EntryView, meta: Meta };

/// Looks a key up. A caller without the stripe's lock checks the generation afterwards.
inline fn look(
    map: *Map,
    stripe: *const Stripe,
    key_hash: KeyHash,
    key: []const u8,
    seen: *Seen,
) Looked {
    const view = &map.segment.view;
    const word = atomics.loadAcquire(&stripe.table);
    const opened = tables.Table.open(view, word) catch |err|
        return if (err == error.NoSpace) .unmapped else .table_damaged;
    const table = opened orelse return .absent;
    map.cachedTable(key_hash.stripe).remember(word, table);
    var probe: tables.Probe = undefined;
    switch (tables.find(view, table, map.tagFor(table, key_hash, key), key, &probe)) {
        .found => {
            seen.* = .{ .entry = probe.entry, .meta = probe.entry.meta() };
            if (seen.meta.expires == 0) return .found;
            // Loaded once more, behind the clock, unless this call has read it before.
            if (map.now_ms == 0) {
                _ = map.takeNow();
                atomics.reached(.clock_read);
                seen.meta.expires = probe.entry.expires();
            }
            return if (map.isOver(seen.meta.expires)) .absent else .found;
        },
        .absent, .full => return .absent, // full: no such key in a table without a gap
        .unmapped => return .unmapped,
        .corrupt => return .entry_damaged,
    }
}

/// What a look that counts means for the caller. Null: there is no such key.
inline fn answer(map: *Map, looked: Looked, seen: *const Seen) Error!?Meta {
    const fault = map.segment.fault;
    return switch (looked) {
        .found => seen.meta,
        .absent => null,
        .table_damaged => fault.withReason(.tableDamaged, error.Corrupt),
        .entry_damaged => fault.withReason(.entryDamaged, error.Corrupt),
        .unmapped => error.NoSpace, // `refresh` has noted why
    };
}

/// Which entry of a key it was: its place, and its version.
pub const Pair = struct {
    offset: u64,
    version: u64,
    len: u32,

    pub fn of(entry: entries.EntryView) Pair {
        return .{
            .offset = entry.offset,
            .version = entry.version(),
            .len = entry.sizes.value_len,
        };
    }
};

/// What became of a copy. `changed`: the key has another entry; `gone`: it has none.
pub const Copied = enum { whole, changed, gone };

/// Copies the value of an entry that was published under `key`, piece by piece. `generation` is
/// that in which the key led to this pair of place and version; if a block may have been reused
/// since, the key is looked up once more: if it leads to the same pair, what was copied is whole.
pub fn copyValue(
    map: *Map,
    key_hash: KeyHash,
    key: []const u8,
    pair: Pair,
    generation: u64,
    target: []u8,
) Error!Copied {
    const stripe = map.segment.view.stripe(key_hash.stripe);
    const value_offset = pair.offset + layout.Entry.bytesFor(key.len, 0);
    const has_holes = mayHaveHoles(map, key.len, pair.len);
    var since = generation;
    var done: u64 = 0;
    while (true) {
        const bytes = @min(pair.len - done, piece_bytes);
        if (has_holes) {
            try copyByKernel(map, target[done..][0..bytes], value_offset + done);
        } else {
            const words: [*]const u64 = map.segment.view.at(value_offset + done);
            atomics.copyOut(target[done..], words, bytes);
        }
        done += bytes;
        atomics.reached(.piece_copied);
        if (!isStill(stripe, since)) {
            switch (lookAgain(map, stripe, key_hash, key, pair)) {
                .same => |seen_at| since = seen_at,
                .changed => return .changed,
                .gone => return .gone,
            }
        }
        if (done == pair.len) return .whole;
        if (map.segment.deadline.hasPassed()) return error.Timeout;
    }
}

/// Whether the pages of a value may be given back to the system while a late reader copies it, and
/// a load of what is no more could end this process.
fn mayHaveHoles(map: *Map, key_len: usize, value_len: u64) bool {
    if (!os.has_holes) return false;
    if (!parked.isLarge(layout.Entry.bytesFor(key_len, value_len), key_len)) return false;
    if (parked.areSmall()) return true; // so that the tests go this way
    const segment = &map.segment;
    if (segment.holes_are_safe == null) segment.holes_are_safe = os.areHolesSafe(segment.file);
    return !segment.holes_are_safe.?;
}

/// A piece of a value by way of the kernel, which has zeros for a hole, and takes no page for it.
/// What is there by now may be of a later use, as with loads: the caller looks again. The fence of
/// that look orders these loads, too: the kernel makes them on this thread.
noinline fn copyByKernel(map: *Map, target: []u8, offset: u64) Error!void {
    atomics.beginCopy();
    const segment = &map.segment;
    const len = try os.readAt(segment.fault, segment.file, target, offset);
    // Only if the file was cut short by hand: `committed` covers the value.
    if (len < target.len) return segment.fault.withReason(.truncated, error.Corrupt);
}

const Again = union(enum) {
    /// The key leads to the same entry, in this generation.
    same: u64,
    changed,
    gone,
};

/// The second look: what the key leads to now. It counts only if the generation stood still, as the
/// first one does; where that does not come about, the entry counts as changed.
fn lookAgain(
    map: *Map,
    stripe: *const Stripe,
    key_hash: KeyHash,
    key: []const u8,
    pair: Pair,
) Again {
    for (0..looks_max) |_| {
        const generation = atomics.loadAcquire(&stripe.generation);
        var seen: Seen = undefined;
        const looked = look(map, stripe, key_hash, key, &seen);
        if (!isStill(stripe, generation)) continue;
        if (looked == .absent) return .gone;
        if (looked != .found) return .changed; // the next start reports it
        if (seen.entry.offset != pair.offset) return .changed;
        if (seen.meta.version != pair.version) return .changed;
        return .{ .same = generation };
    }
    return .changed;
}

/// Whether `key` is one of this stripe and leads to this pair. What was copied of the key, if it
/// did once, is then whole.
pub fn isStillThere(map: *Map, stripe_index: u32, key: []const u8, pair: Pair) bool {
    const key_hash = map.hashOf(key);
    if (key_hash.stripe != stripe_index) return false;
    const stripe = map.segment.view.stripe(stripe_index);
    return lookAgain(map, stripe, key_hash, key, pair) == .same;
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
