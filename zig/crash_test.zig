//! A crash after any store of any operation, or of any recovery, is harmless.
//!
//! Deterministic: the stores of an operation are recorded, the memory is laid out as it would be
//! after each prefix of them, and readers, recovery and the invariants are tried on every layout;
//! then the same for the stores of that recovery.

const std = @import("std");
const crash = @import("crash.zig");
const gather = @import("gather.zig");
const hash = @import("hash.zig");
const inspect = @import("inspect.zig");
const maps = @import("map.zig");
const support = @import("support_test.zig");

const Map = maps.Map;
const Source = support.Source;
const gpa = std.testing.allocator;
const seedOf = support.seedOf;

/// A map whose every store is known, so that any prefix of them can be laid out again.
const Crashes = struct {
    map: *Map,
    stores: crash.Recorder,
    /// The memory as it was before the operation, and as it would be after the stores so far.
    image: []u64,
    keys: []const []const u8,
    images: u64 = 0,
    nested: u64 = 0,

    const View = []?[]u8;

    fn init(stripe_bits: u6, keys: []const []const u8) !Crashes {
        const map = try support.openMap(stripe_bits, 1 << 20);
        return .{
            .map = map,
            .stores = .{ .gpa = gpa },
            .image = try gpa.alloc(u64, (1 << 20) / 8),
            .keys = keys,
        };
    }

    fn deinit(crashes: *Crashes) void {
        gpa.free(crashes.image);
        crashes.stores.stores.deinit(gpa);
        support.closeMap(crashes.map);
    }

    fn memory(crashes: *Crashes) []u64 {
        const words: [*]u64 = @ptrCast(crashes.map.segment.view.base);
        return words[0 .. crashes.map.segment.view.committed / 8];
    }

    /// What is stored under each key, as a lock-free reader sees it.
    fn read(crashes: *Crashes) !View {
        const seen = try gpa.alloc(?[]u8, crashes.keys.len);
        errdefer gpa.free(seen);
        @memset(seen, null);
        var buffer: [40_001]u8 = undefined;
        for (crashes.keys, seen) |key, *value| {
            const got = try crashes.map.get(key, &buffer, 0) orelse continue;
            value.* = try gpa.dupe(u8, buffer[0..got.len]);
        }
        return seen;
    }

    fn forget(seen: View) void {
        for (seen) |value| if (value) |bytes| gpa.free(bytes);
        gpa.free(seen);
    }

    fn equal(a: ?[]u8, b: ?[]u8) bool {
        if (a == null or b == null) return a == null and b == null;
        return std.mem.eql(u8, a.?, b.?);
    }

    /// Every key old or new; `atomic`: all of them old, or all of them new.
    fn isBetween(seen: View, before: View, after: View, atomic: bool) bool {
        var all_old = true;
        var all_new = true;
        for (seen, before, after) |value, old, new| {
            const is_old = equal(value, old);
            const is_new = equal(value, new);
            if (!is_old and !is_new) return false;
            all_old = all_old and is_old;
            all_new = all_new and is_new;
        }
        return !atomic or all_old or all_new;
    }

    fn countOf(seen: View) u64 {
        var count: u64 = 0;
        for (seen) |value| count += @intFromBool(value != null);
        return count;
    }

    /// Lays out the image: what the process that looks at it would map.
    fn restore(crashes: *Crashes) void {
        const words = crashes.memory();
        @memcpy(words, crashes.image[0..words.len]);
        crashes.map.segment.view.committed = crashes.map.segment.header().committed;
    }

    /// Runs `act` and then checks the memory as it is after each prefix of its stores.
    fn enumerate(crashes: *Crashes, nested_every: u64, atomic: bool, act: anytype) !void {
        const before = try crashes.read();
        defer forget(before);
        const words_before = crashes.memory().len;
        @memset(crashes.image, 0);
        @memcpy(crashes.image[0..words_before], crashes.memory());
        const log = try crashes.record(act);
        defer gpa.free(log);
        const after = try crashes.read();
        defer forget(after);
        const committed = crashes.map.segment.view.committed;
        const final = try gpa.dupe(u64, crashes.memory());
        defer gpa.free(final);

        for (0..log.len + 1) |n| {
            if (n > 0) crashes.apply(log[n - 1]);
            crashes.map.segment.view.committed = committed;
            crashes.restore();
            crashes.images += 1;
            crashes.check(before, after, atomic) catch |err| {
                std.debug.print("after {d} of {d} stores: {t}\n", .{ n, log.len, err });
                return err;
            };
            if (nested_every > 0 and n % nested_every == 0)
                try crashes.enumerateRecovery(committed, before, after, atomic);
        }
        crashes.map.segment.view.committed = committed;
        @memcpy(crashes.memory(), final);
    }

    fn record(crashes: *Crashes, act: anytype) ![]crash.Store {
        crashes.stores.stores.clearRetainingCapacity();
        crash.observer = &crashes.stores.observer;
        defer crash.observer = null;
        try act.run(crashes.map);
        return gpa.dupe(crash.Store, crashes.stores.stores.items);
    }

    fn apply(crashes: *Crashes, store: crash.Store) void {
        const base = @intFromPtr(crashes.map.segment.view.base);
        crashes.image[(store.address - base) / 8] = store.value;
    }

    /// A reader on the unrecovered image, then recovery, then a reader and a writer again.
    fn check(crashes: *Crashes, before: View, after: View, atomic: bool) !void {
        const seen = try crashes.read();
        defer forget(seen);
        if (!isBetween(seen, before, after, atomic)) return error.NeitherOldNorNew;
        if (try crashes.map.size() != countOf(seen)) return error.WrongSize;
        const records = gather.countRecords(crashes.map, try gather.snapshot(crashes.map));
        if (records != countOf(seen)) return error.WrongSnapshot;
        const verdict = try inspect.verify(crashes.map);
        if (verdict.problems != 0) return error.Unsound;
        if (verdict.dropped != 0) return error.Dropped;
        const recovered = try crashes.read();
        defer forget(recovered);
        if (!isBetween(recovered, seen, seen, true)) return error.RecoveryChangedIt;
        if (crashes.images % 16 == 0) {
            _ = try crashes.map.put("afterwards", "alive", 1, .none);
            _ = try crashes.map.delete("afterwards");
            if ((try inspect.verify(crashes.map)).problems != 0) return error.UnsoundAfterwards;
        }
    }

    /// Kills the recovery of the present image after each of its stores.
    fn enumerateRecovery(
        crashes: *Crashes,
        committed: u64,
        before: View,
        after: View,
        atomic: bool,
    ) !void {
        crashes.map.segment.view.committed = committed;
        crashes.restore();
        const outer = try gpa.dupe(u64, crashes.image);
        defer gpa.free(outer);
        const log = try crashes.record(struct {
            fn run(map: *Map) !void {
                _ = try inspect.verify(map);
            }
        });
        defer gpa.free(log);
        for (log) |store| {
            crashes.apply(store);
            crashes.map.segment.view.committed = committed;
            crashes.restore();
            crashes.nested += 1;
            try crashes.check(before, after, atomic);
        }
        @memcpy(crashes.image, outer);
    }
};

const Put = struct {
    key: []const u8,
    value: []const u8,

    fn run(put: Put, map: *Map) !void {
        _ = try map.put(put.key, put.value, 1, .none);
    }
};

const Delete = struct {
    key: []const u8,

    fn run(delete: Delete, map: *Map) !void {
        _ = try map.delete(delete.key);
    }
};

const Clear = struct {
    fn run(_: Clear, map: *Map) !void {
        try map.clear();
    }
};

fn testKeys(comptime count: usize) [count][]const u8 {
    var keys: [count][]const u8 = undefined;
    inline for (&keys, 0..) |*key, i| key.* = std.fmt.comptimePrint("key-{d}", .{i * 31});
    return keys;
}

/// Random operations on few keys; every prefix of each, and every prefix of some recoveries.
fn enumerateRandomly(stripe_bits: u6, operations: u32, seed: u64, nested_every: u64) !Crashes {
    var crashes: Crashes = try .init(stripe_bits, &comptime testKeys(40));
    errdefer crashes.deinit();
    var random = std.Random.DefaultPrng.init(seed);
    var source: Source = .{ .random = random.random() };
    errdefer std.debug.print("SHMAP_SEED={d}\n", .{seed});
    for (0..operations) |i| {
        const key = crashes.keys[source.random.uintLessThan(usize, crashes.keys.len)];
        const nested = if (i % 5 == 0) nested_every else 0;
        const choice = source.random.uintLessThan(u8, 100);
        if (choice < 65) {
            var value = source.value();
            value = value[0..@min(value.len, 6000)];
            try crashes.enumerate(nested, true, Put{ .key = key, .value = value });
        } else if (choice < 97) {
            try crashes.enumerate(nested, true, Delete{ .key = key });
        } else try crashes.enumerate(nested, stripe_bits == 0, Clear{});
    }
    return crashes;
}

test "crash: a death after any store of an operation, or of a recovery, is harmless" {
    var crashes = try enumerateRandomly(0, 250, seedOf(3), 29);
    defer crashes.deinit();
    var two = try enumerateRandomly(1, 250, seedOf(4), 31);
    defer two.deinit();
    try std.testing.expect(crashes.images + two.images > 10_000);
    try std.testing.expect(crashes.nested + two.nested > 10_000);
}

test "crash: a rehash to SipHash is harmless at any store" {
    var crashes: Crashes = try .init(0, &.{});
    defer crashes.deinit();
    var flood: [18][16]u8 = undefined;
    var keys: [18][]const u8 = undefined;
    for (&flood, &keys, 0..) |*bytes, *key, n| {
        bytes.* = hash.collidingKey(&crashes.map.secrets, n);
        key.* = bytes;
        if (n < 17) _ = try crashes.map.put(bytes, "x", 1, .none);
    }
    crashes.keys = &keys;
    try crashes.enumerate(13, true, Put{ .key = keys[17], .value = "turns it" });
    try std.testing.expectEqual(@as(f64, 1), (try inspect.stats(crashes.map)).sip_stripes);
}

test "crash: deletes that promote, rebuild and give chunks back are harmless at any store" {
    var crashes: Crashes = try .init(1, &.{});
    defer crashes.deinit();
    var numbers: [600]u32 = undefined;
    var keys: [600][]const u8 = undefined;
    const filler: [3000]u8 = @splat('f');
    var n: u32 = 0;
    while (n < numbers.len) : (n += 1) {
        numbers[n] = n;
        keys[n] = std.mem.asBytes(&numbers[n]);
        _ = crashes.map.put(keys[n], &filler, 1, .none) catch break;
    }
    try std.testing.expect(n > 100 and n < numbers.len);
    crashes.keys = keys[0..n];
    while (n > 0) {
        n -= 1;
        if (n % 3 != 0) _ = try crashes.map.delete(keys[n]) else {
            try crashes.enumerate(if (n % 50 == 0) 17 else 0, true, Delete{ .key = keys[n] });
        }
    }
    try std.testing.expect(crashes.images > 1000);
}
