//! What may be found after a crash: each key as it was before the operation or as it is after, and
//! the sums by which everything found at once is compared with everything found one by one.

const std = @import("std");
const entries = @import("../stripe/entry.zig");
const calls = @import("calls.zig");
const gathered = @import("../map/gathered.zig");
const layout = @import("../layout.zig");
const maps = @import("../map/map.zig");

const Map = maps.Map;

/// What is stored under a key.
pub const Stored = struct {
    bytes: ?[]u8,
    kind: u8 = 0,
    version: u64 = 0,
    /// Read where entries end (`images.Site.has_ends`), else 0.
    expires: u64 = 0,

    /// Whether `value` is this, with its bytes in `room`.
    pub fn is(stored: *const Stored, value: ?entries.Meta, room: []const u8) bool {
        const found = value orelse return stored.bytes == null;
        const bytes = stored.bytes orelse return false;
        return found.kind == stored.kind and found.version == stored.version and
            found.expires == stored.expires and
            std.mem.eql(u8, bytes, room[0..found.len]);
    }
};

/// What may be found while an operation goes on. The keys of a group change together, the groups
/// one after the other, and none goes back.
pub const Expected = struct {
    keys: []const []const u8,
    groups: []const u32,
    before: []Stored,
    after: []Stored,
    /// Whether the next holder of the user's lock sees this one's death, before and after.
    owed: [2]bool = .{ false, false },
    /// How many groups were found changed.
    progress: u32 = 0,
    owed_progress: bool = false,

    /// Follows what a holder stored in the lock word before it died.
    pub fn noteLock(expected: *Expected, bits: u64) void {
        const word: layout.LockWord = @bitCast(bits);
        const owed = switch (word.state) {
            .pending => return,
            .free => false,
            .held, .abandoned => true,
        };
        expected.owed = .{ owed, owed };
    }

    /// Assumes that each key is as before or as after.
    pub fn order(expected: *Expected, states: []const u2) !void {
        var low: u32 = 0;
        var high: u32 = std.math.maxInt(u32);
        for (states, expected.groups) |state, group| {
            if (state == as_after) low = @max(low, group + 1);
            if (state == as_before) high = @min(high, group);
        }
        if (low > high) return error.NotInOrder;
        if (high < expected.progress) return error.WentBack;
        expected.progress = @max(expected.progress, low);
    }
};

/// How a key is found; both bits where the operation does not change it.
pub const as_before: u2 = 1;
pub const as_after: u2 = 2;

/// Entries, in any order.
pub const Sum = struct { count: u64 = 0, sum: u64 = 0 };

/// What one entry adds.
pub fn sumOf(key: []const u8, value: []const u8) u64 {
    return std.hash.Wyhash.hash(std.hash.Wyhash.hash(1, key), value);
}

/// The sum of what was gathered.
pub fn ofGathered(map: *const Map, bytes: u64) Sum {
    var result: Sum = .{};
    var at: usize = 0;
    while (at < bytes) {
        const record = std.mem.bytesToValue(gathered.Record, map.gathered[at..][0..16]);
        const rest = map.gathered[at + 16 ..];
        const value = rest[record.key_len..][0..record.value_len];
        result.sum +%= sumOf(rest[0..record.key_len], value);
        result.count += 1;
        at += 16 + std.mem.alignForward(usize, record.key_len + record.value_len, 8);
    }
    return result;
}

/// The sum of all stripes, gathered one after the other.
pub fn ofStripes(map: *Map) !Sum {
    var result: Sum = .{};
    for (0..map.segment.view.stripeCount()) |i| {
        const one = ofGathered(map, try calls.gatherStripe(map, @intCast(i), false));
        result.sum +%= one.sum;
        result.count += one.count;
    }
    return result;
}

/// Every function that reads a key gives the same answer.
pub fn expectOneAnswer(map: *Map, key: []const u8, room: []u8) !void {
    const meta = try calls.get(map, key, room, 0);
    const value = try calls.getValue(map, key, room);
    if (try calls.has(map, key) != (meta != null)) return error.HasDisagrees;
    if ((value == null) != (meta == null)) return error.GetDisagrees;
    if (meta) |found| {
        if (value.?.len != found.len or value.?.kind != found.kind) return error.GetDisagrees;
    }
    var bytes: [4 + layout.key_bytes_max]u8 align(8) = undefined;
    std.mem.writeInt(u32, bytes[0..4], @intCast(key.len), .little);
    @memcpy(bytes[4..][0..key.len], key);
    // Where the value does not fit, the answer says its length all the same.
    if (try calls.getBatch(map, bytes[0 .. 4 + key.len], 1, room) != 1)
        return error.GetBatchDisagrees;
    const len = std.mem.readInt(u32, room[0..4], .little);
    const wanted = if (meta) |found| found.len else std.math.maxInt(u32);
    if (len != wanted) return error.GetBatchDisagrees;
}
