//! Storing and removing single entries, and emptying the map: each a visit to one stripe, or to one
//! stripe after another (`stripe_op.zig`).

const atomics = @import("../atomics.zig");
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
pub const Condition = union(enum) { none, absent, version: u64 };

/// Stores a value, as a part of a call. False: the condition did not hold, and nothing changed.
pub fn put(
    map: *Map,
    key: []const u8,
    value: []const u8,
    kind: u8,
    condition: Condition,
) Error!bool {
    if (condition == .none and put_fast.putFast(map, key, value, kind, .part)) return true;
    return putSlow(map, key, value, kind, condition);
}

/// As `put`, on the slow path.
pub fn putSlow(
    map: *Map,
    key: []const u8,
    value: []const u8,
    kind: u8,
    condition: Condition,
) Error!bool {
    return putOnce(map, key, value, kind, condition) catch |err| {
        if (err != error.NoSpace) return err;
        return putReclaiming(map, key, value, kind, condition);
    };
}

/// The second try: what other stripes hold free may be all that was missing.
noinline fn putReclaiming(
    map: *Map,
    key: []const u8,
    value: []const u8,
    kind: u8,
    condition: Condition,
) Error!bool {
    map.segment.deadline.is_used = true;
    const why = map.fault;
    if (!try reclaim(map)) {
        map.fault = why;
        return error.NoSpace;
    }
    return putOnce(map, key, value, kind, condition);
}

fn putOnce(
    map: *Map,
    key: []const u8,
    value: []const u8,
    kind: u8,
    condition: Condition,
) Error!bool {
    try map.segment.checkWritable();
    try checkSize(map, layout.Entry.bytesFor(key.len, value.len), value.len);
    const key_hash = map.hashOf(key);
    var op: StripeOp = .of(map, key_hash.stripe);
    try op.lockToWrite();
    defer op.unlock();
    var cursor: Cursor = undefined;
    try op.find(&cursor, key_hash, key);
    switch (condition) {
        .none => {},
        .absent => if (cursor.is_found) return false,
        .version => |wanted| if (cursor.version() != wanted) return false,
    }
    op.begin();
    try op.insert(&cursor, value, kind);
    return true;
}

/// Refuses what could never be stored.
inline fn checkSize(map: *Map, bytes: u64, value_len: usize) Error!void {
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

/// Gives back to the pool what any stripe can spare. False: none could.
fn reclaim(map: *Map) Error!bool {
    var any = false;
    for (0..map.segment.view.stripeCount()) |i| {
        const stripe = map.segment.view.stripe(@intCast(i));
        const is_empty = atomics.load(&stripe.live) == 0 and atomics.load(&stripe.owned) > 0;
        if (!is_empty and !map.spaceOf(@intCast(i)).holdsReusable()) continue;
        // A stripe that is busy, stopped or damaged has nothing to spare; others may.
        var op = StripeOp.tryLock(map, @intCast(i)) catch continue;
        defer op.unlock();
        op.begin();
        if (is_empty) op.dropEmptyTable();
        op.afterCommit(op.space.rebuild());
        any = true;
    }
    if (any) spaces.coalescePool(&map.segment);
    return any;
}
