//! What only whole operations can show: equality with a plain hash map over random operations,
//! behaviour when full, flooded, raced and damaged. Crashes are in `crash_test.zig`.

const std = @import("std");
const stripe_ops = @import("stripe_op.zig");
const calls = @import("../testing/calls.zig");
const boundary = @import("../abi/marshal.zig");
const atomics = @import("../atomics.zig");
const directory = @import("../segment/directory.zig");
const gathered = @import("gathered.zig");
const handles = @import("../abi/handles.zig");
const hash = @import("../stripe/hash.zig");
const attach = @import("attach.zig");
const layout = @import("../layout.zig");
const maps = @import("map.zig");
const os = @import("../os/os.zig");
const segments = @import("../segment/segment.zig");
const status = @import("../status.zig");
const support = @import("../testing/support.zig");

const Cursor = stripe_ops.Cursor;
const Map = maps.Map;
const StripeOp = stripe_ops.StripeOp;
const gpa = std.testing.allocator;

/// The plain map everything is compared with.
const Oracle = struct {
    values: std.StringHashMapUnmanaged([]const u8) = .empty,

    fn deinit(oracle: *Oracle) void {
        oracle.clear();
        oracle.values.deinit(gpa);
    }

    fn put(oracle: *Oracle, key: []const u8, value: []const u8) !void {
        const entry = try oracle.values.getOrPut(gpa, key);
        if (entry.found_existing) gpa.free(entry.value_ptr.*) else {
            entry.key_ptr.* = try gpa.dupe(u8, key);
        }
        entry.value_ptr.* = try gpa.dupe(u8, value);
    }

    fn delete(oracle: *Oracle, key: []const u8) bool {
        const entry = oracle.values.fetchRemove(key) orelse return false;
        gpa.free(entry.key);
        gpa.free(entry.value);
        return true;
    }

    fn clear(oracle: *Oracle) void {
        var entries = oracle.values.iterator();
        while (entries.next()) |entry| {
            gpa.free(entry.key_ptr.*);
            gpa.free(entry.value_ptr.*);
        }
        oracle.values.clearRetainingCapacity();
    }
};

fn expectSame(map: *Map, oracle: *Oracle) !void {
    var buffer: [40_001]u8 = undefined;
    try std.testing.expectEqual(@as(u64, oracle.values.count()), try calls.size(map));
    var entries = oracle.values.iterator();
    while (entries.next()) |entry| {
        const value = (try calls.get(map, entry.key_ptr.*, &buffer, 0)).?;
        try std.testing.expectEqualSlices(u8, entry.value_ptr.*, buffer[0..value.len]);
    }
}

test "random operations give what a plain hash map gives" {
    var random = std.Random.DefaultPrng.init(support.seedOf(1));
    var source: support.Source = .{ .random = random.random() };
    for ([_]u6{ 0, 6, 8 }) |stripe_bits| {
        const map = try support.openMap(stripe_bits, 64 << 20);
        defer support.closeMap(map);
        var oracle: Oracle = .{};
        defer oracle.deinit();
        var buffer: [40_001]u8 = undefined;
        for (0..30_000) |i| {
            // Now mostly growing, now mostly shrinking.
            const key = source.key(2000);
            const grow: u8 = if (i / 5000 % 2 == 0) 55 else 25;
            const choice = source.random.uintLessThan(u8, 100);
            if (choice < grow) {
                const value = source.value();
                try std.testing.expect(try calls.put(map, key, value, 3, .none));
                try oracle.put(key, value);
            } else if (choice < 80) {
                try std.testing.expectEqual(oracle.delete(key), try calls.delete(map, key));
            } else if (choice < 99) {
                const value = try calls.get(map, key, &buffer, 0);
                const expected = oracle.values.get(key);
                try std.testing.expectEqual(expected != null, value != null);
                if (expected) |bytes|
                    try std.testing.expectEqualSlices(u8, bytes, buffer[0..value.?.len]);
            } else if (source.random.uintLessThan(u8, 50) == 0) {
                try calls.clear(map);
                oracle.clear();
            } else {
                const stored = try calls.put(map, key, "only", 1, .absent);
                try std.testing.expectEqual(!oracle.values.contains(key), stored);
                if (stored) try oracle.put(key, "only");
            }
            if (i % 3000 == 0) {
                try expectSame(map, &oracle);
                try support.expectSound(map);
            }
        }
        try expectSame(map, &oracle);
        try support.expectSound(map);
        const records = gathered.countRecords(map, try calls.snapshot(map));
        try std.testing.expectEqual(@as(u64, oracle.values.count()), records);
    }
}

test "a copy reads nothing behind the end of a segment" {
    // In one map the key at the end may stand behind others, and is then not copied in steps.
    for (0..support.times(10)) |_| {
        const map = try support.openMap(0, 256 << 20);
        defer support.closeMap(map);
        var key: [20]u8 = @splat('k'); // for a value of one byte, so that a step leads far
        const nearest = for (0..2_000) |i| {
            std.mem.writeInt(u32, key[0..4], @intCast(i), .little);
            try std.testing.expect(try calls.put(map, &key, "v", 3, .none));
            var room: [64]u8 = undefined;
            const value = (try calls.get(map, &key, &room, 0)).?;
            try std.testing.expect(value.len == 1 and room[0] == 'v');
            var op = try StripeOp.lock(map, 0);
            defer op.unlock();
            var cursor: Cursor = undefined;
            try op.find(&cursor, map.hashOf(&key), &key);
            const end = cursor.probe.entry.offset + cursor.probe.entry.bytes();
            const left = map.segment.view.committed - end;
            if (left < atomics.step_bytes - 8) break left;
        } else null;
        try std.testing.expect(nearest != null); // or nothing was tried
    }
}

test "a full segment refuses, keeps everything, and goes on when there is room again" {
    const map = try support.openMap(1, 256 << 10);
    defer support.closeMap(map);
    var oracle: Oracle = .{};
    defer oracle.deinit();
    var random = std.Random.DefaultPrng.init(support.seedOf(2));
    var source: support.Source = .{ .random = random.random() };
    for (0..20) |_| {
        var refused = false;
        for (0..4000) |_| {
            const key = source.key(3000);
            const value = source.value();
            if (calls.put(map, key, value, 1, .none)) |_| {
                try oracle.put(key, value);
            } else |err| {
                try std.testing.expectEqual(error.NoSpace, err);
                refused = true;
            }
        }
        try std.testing.expect(refused);
        try expectSame(map, &oracle);
        try support.expectSound(map);
        // Any value that fits an empty map fits again once everything is deleted.
        var keys: std.ArrayList([]u8) = .empty;
        defer {
            for (keys.items) |key| gpa.free(key);
            keys.deinit(gpa);
        }
        var entries = oracle.values.keyIterator();
        while (entries.next()) |key| try keys.append(gpa, try gpa.dupe(u8, key.*));
        for (keys.items) |key| try std.testing.expect(try calls.delete(map, key));
        oracle.clear();
        const large = source.value_buffer[0..40_000];
        try std.testing.expect(try calls.put(map, "large", large, 1, .none));
        try std.testing.expect(try calls.delete(map, "large"));
        try support.expectSound(map);
    }
    const too_large = map.segment.view.base[0 .. 256 << 10];
    try std.testing.expectError(error.TooLarge, calls.put(map, "k", too_large, 1, .none));
}

test "a flood of colliding keys changes the hash, and probes stay short" {
    const map = try support.openMap(4, 64 << 20);
    defer support.closeMap(map);
    const count = 50_000;
    for (0..count) |n| {
        const key = hash.collidingKey(&map.secrets, n);
        try std.testing.expect(try calls.put(map, &key, "flood", 1, .none));
    }
    const key = hash.collidingKey(&map.secrets, 0);
    const key_hash = map.hashOf(&key);
    const stripe = map.segment.view.stripe(key_hash.stripe);
    const tables = @import("../stripe/table.zig");
    const table = (try tables.Table.open(&map.segment.view, atomics.load(&stripe.table))).?;
    try std.testing.expect(table.sip);
    var probes: u64 = 0;
    for (0..count) |n| {
        const flood = hash.collidingKey(&map.secrets, n);
        const tag: layout.Tag = @truncate(hash.sip(&map.secrets, &flood));
        var probe: tables.Probe = undefined;
        const end = tables.find(&map.segment.view, table, tag, &flood, &probe);
        try std.testing.expectEqual(tables.Outcome.found, end);
        probes += probe.length;
        try std.testing.expect(try calls.get(map, &flood, &.{}, 1) != null);
    }
    try std.testing.expect(probes < count * 4);
    // Other stripes keep the fast hash.
    try std.testing.expectEqual(@as(f64, 1), (try calls.stats(map)).hardened_stripes);
    try support.expectSound(map);
}

/// A reader that is overtaken in the middle of every read.
const SlowReader = struct {
    map: *Map,
    stop: std.atomic.Value(bool) = .init(false),
    wrong: std.atomic.Value(u64) = .init(0),
    reads: std.atomic.Value(u64) = .init(0),

    fn fallAsleep() void {
        os.sleepNs(20_000);
    }

    /// Every value has one byte throughout, and that byte tells the key it belongs to.
    fn run(reader: *SlowReader) void {
        atomics.pause = fallAsleep;
        defer atomics.pause = null;
        var buffer: [512]u8 = undefined;
        var n: u32 = 0;
        while (!reader.stop.load(.monotonic)) : (n +%= 1) {
            const key = n % 16;
            const name = std.mem.asBytes(&key);
            const value = calls.get(reader.map, name, &buffer, 0) catch continue orelse
                continue;
            const bytes = buffer[0..value.len];
            if (bytes[0] % 16 != key or !std.mem.allEqual(u8, bytes, bytes[0]))
                _ = reader.wrong.fetchAdd(1, .monotonic);
            _ = reader.reads.fetchAdd(1, .monotonic);
        }
    }
};

test "readers beside a writer that recycles see whole values of their keys only" {
    const map = try support.openMap(0, 1 << 20);
    defer support.closeMap(map);
    var reader: SlowReader = .{ .map = map };
    const thread = try std.Thread.spawn(.{}, SlowReader.run, .{&reader});
    var value: [480]u8 = undefined;
    var i: u64 = 0;
    while (i < support.times(400_000) or reader.reads.load(.monotonic) < 1000) : (i += 1) {
        const n: u32 = @intCast(i % 16);
        const len = 16 + i * 37 % 464;
        @memset(value[0..len], @truncate(i));
        _ = try calls.put(map, std.mem.asBytes(&n), value[0..len], 1, .none);
        // Now and then a pause in which a reader can get through.
        if (i % 1024 == 0) os.sleepNs(100_000);
    }
    reader.stop.store(true, .monotonic);
    thread.join();
    try std.testing.expectEqual(@as(u64, 0), reader.wrong.load(.monotonic));
    try support.expectSound(map);
}

/// Every call there is, errors allowed.
fn operateOn(map: *Map, random: std.Random) void {
    var buffer: [4096]u8 = undefined;
    for (0..20) |_| {
        const key = std.mem.asBytes(&random.uintLessThan(u32, 300));
        const len = random.uintLessThan(usize, 2000);
        _ = calls.get(map, key, &buffer, 0) catch {};
        _ = calls.put(map, key, buffer[0..len], 1, .none) catch {};
        _ = calls.delete(map, key) catch {};
    }
    _ = calls.size(map) catch {};
    for (0..map.segment.view.stripeCount()) |i|
        _ = calls.gatherStripe(map, @intCast(i), false) catch {};
    _ = calls.snapshot(map) catch {};
    _ = calls.stats(map) catch {};
    _ = calls.verify(map) catch {};
    _ = calls.repair(map) catch {};
    calls.clear(map) catch {};
    _ = calls.put(map, "again", "works or fails", 1, .none) catch {};
}

test "repair brings back what lies behind a damaged slot, with any word in that slot" {
    const map = try support.openMap(0, 1 << 20);
    defer support.closeMap(map);
    var random = std.Random.DefaultPrng.init(support.seedOf(9));
    for (0..400) |round| {
        try calls.clear(map);
        for (0..100) |n| _ = try calls.put(map, std.mem.asBytes(&n), "whole", 1, .none);
        const word: layout.TableWord = @bitCast(map.segment.view.stripe(0).table);
        const slots = map.segment.view.at(@as(u64, word.granule) * layout.granule_bytes);
        const count = @as(u64, 1) << word.log2;
        const at = random.random().uintLessThan(u64, count);
        if (slots[at] <= layout.Slot.tombstone) continue;
        slots[at] = switch (round % 3) {
            0 => layout.Slot.empty,
            1 => layout.Slot.tombstone,
            else => slots[random.random().uintLessThan(u64, count)],
        };
        try std.testing.expectEqual(@as(f64, 0), (try calls.repair(map)).problems);
        var found: u64 = 0;
        for (0..100) |n|
            found += @intFromBool(try calls.get(map, std.mem.asBytes(&n), &.{}, 0) != null);
        try std.testing.expect(found >= 99);
        try support.expectSound(map);
    }
}

/// Dies with a stripe's lock, each time one more.
fn dieInStripe(parent: *Map, token: []const u8) noreturn {
    os.close(parent.segment.locks);
    os.close(parent.segment.file);
    const map = support.openToken(token, 5000) catch std.os.linux.exit(1);
    _ = StripeOp.lock(map, 0) catch std.os.linux.exit(2);
    _ = std.os.linux.kill(@intCast(os.pid()), .KILL);
    std.os.linux.exit(3);
}

test "a reserved word that is not zero is damage, which repair clears" {
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    _ = try calls.put(map, "key", "value", 1, .none);
    const stripe = map.segment.view.stripe(0);
    stripe.evictions = 5;
    try std.testing.expectEqual(@as(f64, 1), (try calls.verify(map)).problems);
    _ = try calls.repair(map);
    try std.testing.expectEqual(@as(u64, 0), stripe.evictions);
    try std.testing.expectEqual(@as(f64, 0), (try calls.verify(map)).problems);
}

test "a stripe whose owner was killed is passed on for good" {
    if (!support.has_forks) return error.SkipZigTest; // no fork here
    const map = try support.openMap(0, 1 << 20);
    defer support.closeMap(map);
    var buffer: [200]u8 = undefined;
    const token = buffer[0..try map.segment.token(&buffer)];
    for (0..3) |round| {
        const child = std.c.fork();
        if (child == 0) dieInStripe(map, token);
        var how: u32 = 0;
        _ = std.os.linux.waitpid(child, &how, 0);
        try std.testing.expect(std.os.linux.W.IFSIGNALED(how));
        // Once to take it over, and twice as any other.
        for (0..3) |n| _ = try calls.put(map, std.mem.asBytes(&(round * 3 + n)), "on", 1, .none);
    }
    try support.expectSound(map);
}

test "a damaged segment gives errors, never a crash, an endless loop or a write outside" {
    const map = try support.openMap(1, 1 << 20);
    defer support.closeMap(map);
    var random = std.Random.DefaultPrng.init(support.seedOf(5));
    var source: support.Source = .{ .random = random.random() };
    for (0..300) |n| {
        const value = source.value();
        const key = std.mem.asBytes(&@as(u32, @intCast(n)));
        _ = try calls.put(map, key, value[0..@min(value.len, 5000)], 1, .none);
    }
    for (0..100) |n| _ = try calls.delete(map, std.mem.asBytes(&@as(u32, @intCast(n * 3))));
    const committed = map.segment.view.committed;
    const good = try gpa.dupe(u8, map.segment.view.base[0..committed]);
    defer gpa.free(good);
    const header = map.segment.header();
    for (0..support.times(3000)) |_| {
        @memcpy(map.segment.view.base[0..committed], good);
        map.segment.view.committed = committed;
        for (0..source.random.intRangeAtMost(u32, 1, 16)) |_| {
            // Half of the damage where the structure is: header, stripes, first chunks.
            const end = if (source.random.boolean()) committed else 16 * 1024;
            const at = source.random.intRangeLessThan(u64, 256, end);
            map.segment.view.base[at] ^= @as(u8, 1) << source.random.int(u3);
        }
        // The mutexes are the libc's; what damage to them does is in docs/design.md, Limits.
        @memcpy(&header.pool.mutex, good[2048..2112]);
        for (0..2) |i| {
            const stripe = map.segment.view.stripe(@intCast(i));
            const at = @intFromPtr(stripe) - @intFromPtr(map.segment.view.base);
            @memcpy(&stripe.mutex, good[at..][0..64]);
        }
        operateOn(map, source.random);
    }
    @memcpy(map.segment.view.base[0..committed], good);
    map.segment.view.committed = committed;
}
