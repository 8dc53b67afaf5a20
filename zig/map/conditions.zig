//! What reads an entry and changes it in one step: each a single visit to the key's stripe, and one
//! commit. Whether the change takes place is decided under the stripe's lock, so of any number of
//! callers one is the first.

const std = @import("std");
const atomics = @import("../atomics.zig");
const entries = @import("../stripe/entry.zig");
const expiry = @import("expiry.zig");
const layout = @import("../layout.zig");
const status = @import("../status.zig");
const stripe_ops = @import("stripe_op.zig");
const write = @import("write.zig");
const Map = @import("map.zig").Map;

const Cursor = stripe_ops.Cursor;
const Error = status.Error;
const Meta = entries.Meta;
const StripeOp = stripe_ops.StripeOp;

/// Removes an entry and copies its value, if it fits with `reserve` bytes to spare; else nothing
/// changes. Null: there was none.
pub fn take(map: *Map, key: []const u8, target: []u8, reserve: u32) Error!?Meta {
    try map.segment.checkWritable();
    const key_hash = map.hashOf(key);
    map.cachedTable(key_hash.stripe).prefetch(key_hash.fast);
    var op: StripeOp = .of(map, key_hash.stripe);
    try op.lockToWrite();
    defer op.unlock();
    var cursor: Cursor = undefined;
    try op.find(&cursor, key_hash, key);
    if (!op.isThere(&cursor)) return null;
    const meta = cursor.probe.entry.meta();
    if (!fits(meta, target, reserve)) return meta;
    // Before the commit: the block may be given out again behind it.
    cursor.probe.entry.copyOut(target, reserve);
    remove(&op, &cursor);
    return meta;
}

/// Removes the entry that `find` found.
pub inline fn remove(op: *StripeOp, cursor: *const Cursor) void {
    if (atomics.load(&op.stripe.next_end) != 0) {
        _ = expiry.deleteAmongEnding(op, cursor);
        return;
    }
    op.begin();
    op.remove(cursor);
}

/// Whether a value fits with so many bytes to spare.
pub fn fits(meta: Meta, target: []const u8, reserve: u32) bool {
    return @as(u64, meta.len) + reserve <= target.len;
}

/// Removes an entry if it has this version, which is not 0. False: there is none that has.
pub fn deleteVersion(map: *Map, key: []const u8, version: u64) Error!bool {
    try map.segment.checkWritable();
    const key_hash = map.hashOf(key);
    map.cachedTable(key_hash.stripe).prefetch(key_hash.fast);
    var op: StripeOp = .of(map, key_hash.stripe);
    try op.lockToWrite();
    defer op.unlock();
    var cursor: Cursor = undefined;
    try op.find(&cursor, key_hash, key);
    if (op.versionOf(&cursor) != version) return false;
    remove(&op, &cursor);
    return true;
}

/// Stores a value and copies the one it replaces, if that fits with `reserve` bytes to spare; else
/// nothing changes. Null: there was none, and the value is stored. With an end that has passed the
/// key is absent afterwards.
pub fn swap(
    map: *Map,
    key: []const u8,
    item: write.Item,
    target: []u8,
    reserve: u32,
) Error!?Meta {
    return swapOnce(map, key, &item, target, reserve) catch |err| {
        if (err != error.NoSpace) return err;
        try write.reclaimed(map);
        return swapOnce(map, key, &item, target, reserve);
    };
}

fn swapOnce(
    map: *Map,
    key: []const u8,
    item: *const write.Item,
    target: []u8,
    reserve: u32,
) Error!?Meta {
    const value = item.value;
    try map.segment.checkWritable();
    try write.checkSize(map, layout.Entry.bytesFor(key.len, value.len), value.len);
    const key_hash = map.hashOf(key);
    map.cachedTable(key_hash.stripe).prefetch(key_hash.fast);
    var op: StripeOp = .of(map, key_hash.stripe);
    try op.lockToWrite();
    defer op.unlock();
    var cursor: Cursor = undefined;
    try op.find(&cursor, key_hash, key);
    const before: ?Meta = if (op.isThere(&cursor)) cursor.probe.entry.meta() else null;
    if (before) |meta| {
        if (!fits(meta, target, reserve)) return meta;
        cursor.probe.entry.copyOut(target, reserve); // before the commit, as in `take`
    }
    if (map.isOver(item.expires)) {
        if (cursor.is_found) remove(&op, &cursor);
        return before;
    }
    op.begin();
    try op.insert(&cursor, value, item.kind, item.expires);
    expiry.removeSome(&op);
    return before;
}
