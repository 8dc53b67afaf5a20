//! Storing and removing single entries, and emptying the map: each a visit to one stripe, or to one
//! stripe after another (`stripe_op.zig`).

const std = @import("std");
const atomics = @import("../atomics.zig");
const ends = @import("../stripe/ends.zig");
const expiry = @import("expiry.zig");
const gathered = @import("gathered.zig");
const iterate = @import("iterate.zig");
const layout = @import("../layout.zig");
const maps = @import("map.zig");
const put_fast = @import("put_fast.zig");
const spaces = @import("../stripe/space.zig");
const status = @import("../status.zig");
const stripe_ops = @import("stripe_op.zig");

const Error = status.Error;
const Cursor = stripe_ops.Cursor;
const Map = maps.Map;
const StripeOp = stripe_ops.StripeOp;

/// What a put asks of the entry it replaces.
pub const Condition = union(enum) { none, absent, present, version: u64 };

/// What a put stores. `expires`: 0 for no end; `kept` for that of the entry it replaces, if there
/// is one. With an end that has passed the key is absent afterwards.
pub const Item = struct {
    value: []const u8,
    kind: u8,
    expires: u64 = 0,

    pub const kept: u64 = std.math.maxInt(u64);

    /// Whether the fast path stores it: it asks neither a clock nor the entry before.
    pub inline fn isPlain(item: Item) bool {
        return item.expires != kept and item.expires != 1;
    }
};

/// Stores a value, as a part of a call. False: the condition did not hold, and nothing changed.
pub fn put(map: *Map, key: []const u8, item: Item, condition: Condition) Error!bool {
    if (condition == .none and item.isPlain() and
        put_fast.putFast(map, key, item.value, item.kind, item.expires, .part)) return true;
    return putSlow(map, key, item, condition);
}

/// As `put`, on the slow path.
pub fn putSlow(map: *Map, key: []const u8, item: Item, condition: Condition) Error!bool {
    return putOnce(map, key, &item, condition) catch |err| {
        if (err != error.NoSpace) return err;
        return putReclaiming(map, key, &item, condition);
    };
}

/// The second try.
noinline fn putReclaiming(
    map: *Map,
    key: []const u8,
    item: *const Item,
    condition: Condition,
) Error!bool {
    try reclaimed(map);
    return putOnce(map, key, item, condition);
}

/// What other stripes hold free may be all that was missing: has it given back, or fails as before.
pub noinline fn reclaimed(map: *Map) Error!void {
    map.segment.deadline.is_used = true;
    const why = map.fault;
    if (try reclaim(map)) return;
    map.fault = why;
    return error.NoSpace;
}

fn putOnce(map: *Map, key: []const u8, item: *const Item, condition: Condition) Error!bool {
    const value = item.value;
    try map.segment.checkWritable();
    try checkSize(map, layout.Entry.bytesFor(key.len, value.len), value.len);
    const key_hash = map.hashOf(key);
    var op: StripeOp = .of(map, key_hash.stripe);
    try op.lockToWrite();
    defer op.unlock();
    var cursor: Cursor = undefined;
    try op.find(&cursor, key_hash, key);
    if (condition != .none and !holds(&op, &cursor, condition)) return false;
    var expires: u64 = 0;
    if (item.expires != 0) {
        expires = endOf(&op, &cursor, item);
        if (map.isOver(expires)) {
            if (cursor.is_found) {
                op.begin();
                op.remove(&cursor);
            }
            return true;
        }
    }
    op.begin();
    try op.insert(&cursor, value, item.kind, expires);
    expiry.removeSome(&op);
    return true;
}

noinline fn holds(op: *const StripeOp, cursor: *const Cursor, condition: Condition) bool {
    return switch (condition) {
        .none => true,
        .absent => !op.isThere(cursor),
        .present => op.isThere(cursor),
        .version => |wanted| op.versionOf(cursor) == wanted,
    };
}

noinline fn endOf(op: *const StripeOp, cursor: *const Cursor, item: *const Item) u64 {
    if (item.expires != Item.kept) return item.expires;
    return if (op.isThere(cursor)) cursor.probe.entry.expires() else 0;
}

/// Refuses what could never be stored.
pub inline fn checkSize(map: *Map, bytes: u64, value_len: usize) Error!void {
    const view = &map.segment.view;
    const fits = bytes + layout.unit_bytes <= map.segment.block_limit -| view.data_start;
    if (fits and value_len <= layout.value_bytes_max) return;
    map.segment.noteSpace(bytes);
    if (fits) map.fault.ceiling_bytes = layout.value_bytes_max;
    return error.TooLarge;
}

/// Removes an entry. False: there was none. Written out for one key and for many, or the first
/// would pay for the second.
pub inline fn delete(map: *Map, key: []const u8) Error!bool {
    try map.segment.checkWritable();
    const key_hash = map.hashOf(key);
    map.cachedTable(key_hash.stripe).prefetch(key_hash.fast);
    var op: StripeOp = .of(map, key_hash.stripe);
    try op.lockToWrite();
    defer op.unlock();
    var cursor: Cursor = undefined;
    try op.find(&cursor, key_hash, key);
    if (!cursor.is_found) return false;
    if (atomics.load(&op.stripe.next_end) != 0) return expiry.deleteAmongEnding(&op, &cursor);
    op.begin();
    op.remove(&cursor);
    return true;
}

/// Empties stripe after stripe; each is a commit of its own.
pub fn clear(map: *Map) Error!void {
    try map.segment.checkWritable();
    for (0..map.segment.view.stripeCount()) |i| {
        var op: StripeOp = .of(map, @intCast(i));
        try op.lockToWrite();
        defer op.unlock();
        if (atomics.load(&op.stripe.table) == 0) continue;
        op.begin();
        // Commit. What the table reached is found free by the rebuild, now or by recovery.
        atomics.storeRelease(&op.stripe.table, 0);
        op.afterCommit(op.space.rebuild());
    }
    spaces.coalescePool(&map.segment);
}

/// Empties the map of the keys that begin with `prefix`, each a commit of its own.
pub fn clearPrefix(map: *Map, prefix: []const u8) Error!void {
    try map.segment.checkWritable();
    for (0..map.segment.view.stripeCount()) |i| {
        const wanted: iterate.Wanted = .{ .detail = .keys, .prefix = prefix };
        const bytes = try iterate.gatherStripe(map, @intCast(i), wanted);
        var at: usize = 0;
        while (at < bytes) : (at += gathered.recordBytes(map.gathered, at))
            _ = try delete(map, gathered.keyOf(map.gathered, at));
    }
    gathered.giveBack(map);
}

/// Gives back to the pool what any stripe can spare. False: none could.
pub fn reclaim(map: *Map) Error!bool {
    var any = false;
    for (0..map.segment.view.stripeCount()) |i| {
        const stripe = map.segment.view.stripe(@intCast(i));
        const is_empty = atomics.load(&stripe.live) == 0 and atomics.load(&stripe.owned) > 0;
        const is_due = atomics.load(&stripe.next_end) != 0 and ends.isDue(stripe, map.now());
        if (!is_empty and !is_due and !map.spaceOf(@intCast(i)).holdsReusable()) continue;
        // A stripe that is busy, stopped or damaged has nothing to spare; others may.
        var op = StripeOp.tryLock(map, @intCast(i)) catch continue;
        defer op.unlock();
        op.begin();
        // As in `StripeOp.lockToWrite`: what has ended is removed by those who may write.
        if (is_due and map.lock.admits(atomics.loadAcquire(&map.segment.header().lock_word)))
            expiry.pruneHere(&op);
        if (is_empty) op.dropEmptyTable();
        op.afterCommit(op.space.rebuild());
        any = true;
    }
    if (any) spaces.coalescePool(&map.segment);
    return any;
}
