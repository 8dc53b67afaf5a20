//! A crash after any store of any operation, or of any recovery, is harmless.
//!
//! Deterministic: `replay.zig` notes the stores of an operation and makes them again one
//! by one, and `images.zig` tries readers, recovery and the invariants after each; then
//! the same for the stores of that recovery. `tests/proof/enumerate.zig` does more of it.

const std = @import("std");
const calls = @import("calls.zig");
const hash = @import("../stripe/hash.zig");
const images = @import("images.zig");
const os = @import("../os/os.zig");
const parked = @import("../stripe/parked.zig");
const replays = @import("replay.zig");
const support = @import("support.zig");

const Act = replays.Act;
const Replay = replays.Replay;
const gpa = std.testing.allocator;
const seedOf = support.seedOf;

/// All keys change together.
const together: [600]u32 = @splat(0);

fn testKeys(comptime count: usize) [count][]const u8 {
    var keys: [count][]const u8 = undefined;
    inline for (&keys, 0..) |*key, i| key.* = std.fmt.comptimePrint("key-{d}", .{i * 31});
    return keys;
}

/// Random operations on few keys; every prefix of each, and every prefix of some recoveries.
fn enumerateRandomly(shape: images.Shape, operations: u32, seed: u64) !void {
    var random = std.Random.DefaultPrng.init(seed);
    var source: support.Source = .{ .random = random.random() };
    errdefer std.debug.print("SHMAP_SEED={d}\n", .{seed});
    var replay: Replay = try .init(gpa, shape, .{ .random = source.random, .nested_each = 1 });
    defer replay.deinit();
    const keys = comptime testKeys(40);
    var stripe_of: [keys.len]u32 = undefined;
    for (&keys, &stripe_of) |key, *stripe| stripe.* = replay.victim.hashOf(key).stripe;
    for (0..operations) |_| {
        const key = keys[source.random.uintLessThan(usize, keys.len)];
        const choice = source.random.uintLessThan(u8, 100);
        if (choice < 65) {
            const value = source.value();
            const put: Act = .{ .put = .{ .key = key, .value = value[0..@min(value.len, 6000)] } };
            try replay.enumerate(&keys, together[0..keys.len], put);
        } else if (choice < 97) {
            try replay.enumerate(&keys, together[0..keys.len], .{ .delete = key });
        } else try replay.enumerate(&keys, &stripe_of, .clear);
    }
    try std.testing.expect(replay.images > 2000);
    try std.testing.expect(replay.nested > 2000);
}

test "crash: a death after any store of an operation, or of a recovery, is harmless" {
    try enumerateRandomly(.{}, 150, seedOf(3));
    try enumerateRandomly(.{ .stripe_bits = 1, .lock = .kernel }, 100, seedOf(4));
}

test "crash: a rehash to SipHash is harmless at any store" {
    var random = std.Random.DefaultPrng.init(seedOf(5));
    var replay: Replay = try .init(gpa, .{}, .{ .random = random.random(), .nested_each = 5 });
    defer replay.deinit();
    var flood: [18][16]u8 = undefined;
    var keys: [18][]const u8 = undefined;
    for (&flood, &keys, 0..) |*bytes, *key, n| {
        bytes.* = hash.collidingKey(&replay.victim.secrets, n);
        key.* = bytes;
        if (n < 17) try replay.quietly(.{ .put = .{ .key = key.*, .value = "x" } });
    }
    const put: Act = .{ .put = .{ .key = keys[17], .value = "turns it" } };
    try replay.enumerate(&keys, together[0..keys.len], put);
    try std.testing.expectEqual(@as(f64, 1), (try calls.stats(replay.victim)).hardened_stripes);
}

test "crash: deletes that advance, rebuild and give chunks back are harmless at any store" {
    var random = std.Random.DefaultPrng.init(seedOf(6));
    const plan: replays.Plan = .{ .random = random.random(), .nested_each = 1 };
    var replay: Replay = try .init(gpa, .{ .stripe_bits = 1, .max_bytes = 256 << 10 }, plan);
    defer replay.deinit();
    var numbers: [300]u32 = undefined;
    var keys: [300][]const u8 = undefined;
    const filler: [3000]u8 = @splat('f');
    var n: u32 = 0;
    while (n < numbers.len) : (n += 1) {
        numbers[n] = n;
        keys[n] = std.mem.asBytes(&numbers[n]);
        const put: Act = .{ .put = .{ .key = keys[n], .value = &filler } };
        replay.quietly(put) catch break;
    }
    try std.testing.expect(n > 30 and n < numbers.len);
    const all = keys[0..n];
    while (n > 0) {
        n -= 1;
        const delete: Act = .{ .delete = keys[n] };
        if (n % 3 == 1) try replay.quietly(delete) else {
            try replay.enumerate(all, together[0..all.len], delete);
        }
    }
    try std.testing.expect(replay.images > 500);
    try std.testing.expect(replay.effects.releases > 0 and replay.effects.advances > 0);
}

test "crash: extents that park, and lose their blocks, are harmless at any store" {
    if (!os.has_holes) return error.SkipZigTest;
    const extents: support.Trying(parked) = .with(.{ .small = true });
    defer extents.end();
    for ([_]images.Shape{
        .{ .stripe_bits = 1, .max_bytes = 256 << 10 },
        .{ .stripe_bits = 1, .max_bytes = 1 << 20, .lock = .kernel },
    }, 0..) |shape, i| try enumerateLarge(shape, seedOf(7 + i));
}

fn enumerateLarge(shape: images.Shape, seed: u64) !void {
    var random = std.Random.DefaultPrng.init(seed);
    var source: support.Source = .{ .random = random.random() };
    errdefer std.debug.print("SHMAP_SEED={d}\n", .{seed});
    const plan: replays.Plan = .{ .random = source.random, .nested_each = 1, .thorough_every = 32 };
    var replay: Replay = try .init(gpa, shape, plan);
    defer replay.deinit();
    const keys = comptime testKeys(6);
    var stripe_of: [keys.len]u32 = undefined;
    for (&keys, &stripe_of) |key, *stripe| stripe.* = replay.victim.hashOf(key).stripe;
    for (0..120) |round| {
        if (round % 40 == 39) {
            // What is at the end is cut off, and comes again.
            try replay.enumerate(&keys, &stripe_of, .clear);
            try replay.enumerate(&keys, together[0..keys.len], .give_back);
        }
        const key = keys[source.random.uintLessThan(usize, keys.len)];
        const choice = source.random.uintLessThan(u8, 100);
        if (choice < 60) {
            // Most of its words are zero already where they are stored: the others say which value
            // it is, and between the others nothing is looked at.
            var large: [12_000]u8 = @splat(0);
            for (0..large.len / 512) |n| large[512 * n] = source.random.int(u8);
            const len = source.random.intRangeAtMost(usize, 4100, large.len);
            const put: Act = .{ .put = .{ .key = key, .value = large[0..len] } };
            try replay.enumerate(&keys, together[0..keys.len], put);
        } else if (choice < 66) {
            try replay.enumerate(&keys, together[0..keys.len], .give_back);
        } else if (choice < 95) {
            try replay.enumerate(&keys, together[0..keys.len], .{ .delete = key });
        } else try replay.enumerate(&keys, &stripe_of, .clear);
    }
    const effects = &replay.effects;
    errdefer std.debug.print("{any}\n", .{effects});
    try std.testing.expect(effects.fresh_extents > 0 and effects.moves > 0 and effects.punches > 0);
    try std.testing.expect(effects.cuts > 0);
    try std.testing.expect(replay.nested > 2000);
}
