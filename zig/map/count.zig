//! Counters: a number is read, added to and stored in one visit to its stripe and by one commit. A
//! counter is an ordinary entry. Nothing is added in place: value and version would need one store.

const std = @import("std");
const atomics = @import("../atomics.zig");
const bigint = @import("bigint.zig");
const conditions = @import("conditions.zig");
const expiry = @import("expiry.zig");
const gathered = @import("gathered.zig");
const layout = @import("../layout.zig");
const status = @import("../status.zig");
const stripe_ops = @import("stripe_op.zig");
const write = @import("write.zig");
const Map = @import("map.zig").Map;

const Cursor = stripe_ops.Cursor;
const Error = status.Error;
const StripeOp = stripe_ops.StripeOp;
const Whole = bigint.Whole;

/// What an increment came to. But for `counted`, nothing has changed.
pub const Outcome = enum(u32) {
    counted = 0,
    /// The value is no number of this type.
    otherType = 1,
    /// The sum is no number, or beyond what a `f64` counts exactly.
    outOfRange = 2,
    /// The sum does not fit into the caller's memory; `Counted.len` says how long it is.
    noRoom = 3,
};

/// An increment's result; behind it, the bytes of a bigint.
pub const Counted = extern struct {
    /// The sum, of numbers.
    value: f64 = 0,
    /// The version of the new entry; 0: its end has passed, and nothing is stored.
    version: f64 = 0,
    /// When it ends, 0 for never.
    expires: f64 = 0,
    /// The length and the kind of the sum's bytes.
    len: u32 = 0,
    kind: u32 = 0,
};

/// As far as a `f64` counts without a gap.
const most: f64 = (1 << 53) - 1;

/// How a counter begins that is absent: what is added to, and when it ends, 0 for never. One that
/// is there keeps its end. With an end that has passed the key is absent afterwards.
pub fn Beginning(comptime Number: type) type {
    return struct { initial: Number, expires: u64 = 0 };
}

/// Adds to the number under `key`.
pub fn add(
    map: *Map,
    key: []const u8,
    by: f64,
    beginning: Beginning(f64),
    result: *Counted,
) Error!Outcome {
    return addOnce(map, key, by, &beginning, result) catch |err| {
        if (err != error.NoSpace) return err;
        try write.reclaimed(map);
        return addOnce(map, key, by, &beginning, result);
    };
}

fn addOnce(
    map: *Map,
    key: []const u8,
    by: f64,
    beginning: *const Beginning(f64),
    result: *Counted,
) Error!Outcome {
    try map.segment.checkWritable();
    try write.checkSize(map, layout.Entry.bytesFor(key.len, @sizeOf(f64)), @sizeOf(f64));
    const key_hash = map.hashOf(key);
    map.cachedTable(key_hash.stripe).prefetch(key_hash.fast);
    var op: StripeOp = .of(map, key_hash.stripe);
    try op.lockToWrite();
    defer op.unlock();
    var cursor: Cursor = undefined;
    try op.find(&cursor, key_hash, key);
    var before = beginning.initial;
    const is_there = op.isThere(&cursor);
    if (is_there) {
        const entry = cursor.probe.entry;
        const kind = @intFromEnum(bigint.Kind.number);
        if (entry.sizes.kind != kind or entry.sizes.value_len != @sizeOf(f64)) return .otherType;
        before = @bitCast(atomics.load(&entry.valueWords()[0]));
    }
    const sum = before + by;
    if (!(@abs(sum) <= most)) return .outOfRange;
    result.* = .{
        .value = sum,
        .len = @sizeOf(f64),
        .kind = @intFromEnum(bigint.Kind.number),
    };
    const bytes = std.mem.asBytes(&sum);
    try store(&op, &cursor, bytes, if (is_there) null else beginning.expires, result);
    return .counted;
}

/// Stores a sum, whose kind `result` has, and completes the record. `expires`: null to keep the end
/// that the entry has.
inline fn store(
    op: *StripeOp,
    cursor: *Cursor,
    bytes: []const u8,
    expires: ?u64,
    result: *Counted,
) Error!void {
    const end = expires orelse cursor.probe.entry.expires();
    result.expires = @floatFromInt(end);
    if (expires != null and op.map.isOver(end)) {
        if (cursor.is_found) conditions.remove(op, cursor); // one that had ended before
        return;
    }
    op.begin();
    try op.insert(cursor, bytes, @intCast(result.kind), end);
    result.version = @floatFromInt(atomics.load(&op.stripe.begin));
    expiry.removeSome(op);
}

/// A bigint that came from outside, as its stored bytes.
pub const Operand = struct { bytes: []const u8, kind: u8 };

/// As `add`, for bigints. The sum's bytes follow in `target` behind the record.
pub fn addBig(
    map: *Map,
    key: []const u8,
    by: Operand,
    beginning: Beginning(Operand),
    target: []u8,
) Error!Outcome {
    return addBigOnce(map, key, by, &beginning, target) catch |err| {
        if (err != error.NoSpace) return err;
        try write.reclaimed(map);
        return addBigOnce(map, key, by, &beginning, target);
    };
}

fn addBigOnce(
    map: *Map,
    key: []const u8,
    by: Operand,
    beginning: *const Beginning(Operand),
    target: []u8,
) Error!Outcome {
    const initial = beginning.initial;
    if (target.len < @sizeOf(Counted)) return error.InvalidArgument;
    var rooms: [2][8]u8 = undefined;
    const step = Whole.of(by.kind, by.bytes, &rooms[0]) orelse return error.InvalidArgument;
    const start = Whole.of(initial.kind, initial.bytes, &rooms[1]) orelse
        return error.InvalidArgument;
    try map.segment.checkWritable();
    const key_hash = map.hashOf(key);
    var op: StripeOp = .of(map, key_hash.stripe);
    try op.lockToWrite();
    defer op.unlock();
    defer gathered.giveBack(map);
    var cursor: Cursor = undefined;
    try op.find(&cursor, key_hash, key);
    const is_there = op.isThere(&cursor);
    const len: u64 = if (is_there) cursor.probe.entry.sizes.value_len else 0;
    const longest = @max(len, by.bytes.len, initial.bytes.len, 8) + 1;
    map.gathered_len = 0;
    const copy_bytes = std.mem.alignForward(u64, len, 8); // copies are of whole words
    const room = try gathered.reserve(map, copy_bytes + longest);
    const copy = room[0..copy_bytes];
    const sum_room = room[copy_bytes..];
    var before = start;
    if (is_there) {
        atomics.copyOut(copy, cursor.probe.entry.valueWords(), len);
        const kind = cursor.probe.entry.sizes.kind;
        before = Whole.of(kind, copy[0..len], &rooms[1]) orelse return .otherType;
    }
    const sum = bigint.sum(before, step, sum_room);
    var counted: Counted = .{ .len = @intCast(sum.bytes.len), .kind = @intFromEnum(sum.kind) };
    const rest = target[@sizeOf(Counted)..];
    if (sum.bytes.len > rest.len) {
        @memcpy(target[0..@sizeOf(Counted)], std.mem.asBytes(&counted));
        return .noRoom;
    }
    const bytes = layout.Entry.bytesFor(key.len, sum.bytes.len);
    try write.checkSize(map, bytes, sum.bytes.len);
    try store(&op, &cursor, sum.bytes, if (is_there) null else beginning.expires, &counted);
    @memcpy(target[0..@sizeOf(Counted)], std.mem.asBytes(&counted));
    @memcpy(rest[0..sum.bytes.len], sum.bytes);
    return .counted;
}
