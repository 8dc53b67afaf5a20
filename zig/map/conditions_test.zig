//! Tests of conditions and counters: each changes what it is asked to, once, or nothing at all.

const std = @import("std");
const bigint = @import("bigint.zig");
const calls = @import("../testing/calls.zig");
const count = @import("count.zig");
const gathered = @import("gathered.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const scan = @import("scan.zig");
const support = @import("../testing/support.zig");
const write = @import("write.zig");
const Map = @import("map.zig").Map;

const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const number_kind = @intFromEnum(bigint.Kind.number);
const locks = [_]layout.LockKind{ support.usual_lock, .kernel };

test "take gives a value once, and none that does not fit" {
    for (locks) |lock| {
        const map = try support.openMapOf(lock, 0, 4 << 20);
        defer support.closeMap(map);
        var target: [8]u8 = undefined;
        try expectEqual(null, try calls.take(map, "k", &target));
        try expect(try calls.put(map, "k", "12345678", 5, .none));
        // There is no room for the kind: the value stays.
        try expectEqual(@as(u32, 8), (try calls.take(map, "k", &target)).?.len);
        try expect(try calls.has(map, "k"));
        try expect(try calls.put(map, "k", "1234567", 5, .none));
        try expectEqual(calls.Value{ .len = 7, .kind = 5 }, (try calls.take(map, "k", &target)).?);
        try std.testing.expectEqualStrings("1234567", target[0..7]);
        try expectEqual(null, try calls.take(map, "k", &target));
        try expectEqual(@as(u64, 0), try calls.size(map));
        try support.expectSound(map);
    }
}

test "swap gives the value before, and stores nothing if that does not fit" {
    for (locks) |lock| {
        const map = try support.openMapOf(lock, 0, 4 << 20);
        defer support.closeMap(map);
        var target: [8]u8 = undefined;
        try expectEqual(null, try calls.swap(map, "k", "first", 5, &target));
        const first = (try calls.swap(map, "k", "12345678", 6, &target)).?;
        try expectEqual(calls.Value{ .len = 5, .kind = 5 }, first);
        try std.testing.expectEqualStrings("first", target[0..5]);
        try expectEqual(@as(u32, 8), (try calls.swap(map, "k", "third", 7, &target)).?.len);
        var room: [16]u8 = undefined;
        const second = (try calls.swap(map, "k", "third", 7, &room)).?;
        try expectEqual(calls.Value{ .len = 8, .kind = 6 }, second);
        try std.testing.expectEqualStrings("12345678", room[0..8]);
        try expectEqual(@as(u64, 1), try calls.size(map));
        try support.expectSound(map);
    }
}

test "replace and delete ask for an entry, and for a version" {
    for (locks) |lock| {
        const map = try support.openMapOf(lock, 0, 4 << 20);
        defer support.closeMap(map);
        var room: [8]u8 = undefined;
        try expect(!try calls.replace(map, "k", "v", 3, null));
        try expect(!try calls.replace(map, "k", "v", 3, 0));
        try expect(!try calls.replace(map, "k", "v", 3, 1));
        try expect(!try calls.deleteVersion(map, "k", 0));
        try expectEqual(null, try calls.get(map, "k", &room, 0));
        try expect(try calls.put(map, "k", "one", 3, .none));
        const one = (try calls.get(map, "k", &room, 0)).?.version;
        try expect(try calls.replace(map, "k", "two", 3, null));
        const two = (try calls.get(map, "k", &room, 0)).?.version;
        try expect(two > one);
        try expect(!try calls.replace(map, "k", "three", 3, one));
        try expect(!try calls.replace(map, "k", "three", 3, 0));
        try expect(!try calls.deleteVersion(map, "k", one));
        try expect(!try calls.deleteVersion(map, "k", 0));
        try expectEqual(two, (try calls.get(map, "k", &room, 0)).?.version);
        try expect(try calls.replace(map, "k", "three", 3, two));
        const three = (try calls.get(map, "k", &room, 0)).?.version;
        try expect(three > two and try calls.deleteVersion(map, "k", three));
        try expect(!try calls.has(map, "k"));
        try support.expectSound(map);
    }
}

/// What a counter is stored as, and the version that `increment` said.
fn expectNumber(map: *Map, key: []const u8, expected: f64, version: f64) !void {
    var room: [16]u8 = undefined;
    const meta = (try calls.get(map, key, &room, 0)).?;
    try expectEqual(@as(u32, 8), meta.len);
    try expectEqual(@as(u8, number_kind), meta.kind);
    try expectEqual(@as(u64, @intFromFloat(version)), meta.version);
    try expectEqual(expected, @as(f64, @bitCast(room[0..8].*)));
}

test "a counter adds what it is given, and changes nothing that it refuses" {
    for (locks) |lock| {
        const map = try support.openMapOf(lock, 0, 4 << 20);
        defer support.closeMap(map);
        var counted: count.Counted = undefined;
        try expectEqual(.counted, try calls.increment(map, "n", 1, 0, &counted));
        try expectEqual(@as(f64, 1), counted.value);
        try expectNumber(map, "n", 1, counted.version);
        try expectEqual(.counted, try calls.increment(map, "n", -2.5, 100, &counted));
        try expectEqual(@as(f64, -1.5), counted.value);
        try expectEqual(.counted, try calls.increment(map, "other", 2, 40, &counted));
        try expectNumber(map, "other", 42, counted.version);
        const most = (1 << 53) - 1;
        try expectEqual(.counted, try calls.increment(map, "m", most, 0, &counted));
        const version = counted.version;
        for ([_]f64{ 1, 2, std.math.inf(f64), -std.math.inf(f64), std.math.nan(f64) }) |by|
            try expectEqual(.outOfRange, try calls.increment(map, "m", by, 0, &counted));
        try expectNumber(map, "m", most, version);
        try expectEqual(.outOfRange, try calls.increment(map, "absent", most, 1, &counted));
        try expect(!try calls.has(map, "absent"));
        try expect(try calls.put(map, "s", "text", 3, .none));
        try expect(try calls.put(map, "b", "eight by", 7, .none));
        for ([_][]const u8{ "s", "b" }) |key|
            try expectEqual(.otherType, try calls.increment(map, key, 1, 0, &counted));
        try support.expectSound(map);
    }
}

test "a counter of bigints goes from one size to the next and back" {
    const map = try support.openMap(0, 4 << 20);
    defer support.closeMap(map);
    const one: count.Operand = .{ .bytes = &.{ 1, 0, 0, 0, 0, 0, 0, 0 }, .kind = 7 };
    const zero: count.Operand = .{ .bytes = &@as([8]u8, @splat(0)), .kind = 7 };
    const most = std.mem.toBytes(@as(i64, std.math.maxInt(i64)));
    const edge: count.Operand = .{ .bytes = &most, .kind = 7 };
    const big: count.Operand = .{ .bytes = &@as([1000]u8, @splat(255)), .kind = 8 };
    const small: count.Operand = .{ .bytes = &@as([1000]u8, @splat(255)), .kind = 9 };
    var target: [2000]u8 = undefined;
    try expectEqual(.counted, try calls.incrementBig(map, "n", one, edge, &target));
    try expectBig(map, &target, 8, &.{ 128, 0, 0, 0, 0, 0, 0, 0 });
    try expectEqual(.counted, try calls.incrementBig(map, "n", big, zero, &target));
    const sum = [_]u8{1} ++ @as([992]u8, @splat(0)) ++
        [_]u8{ 127, 255, 255, 255, 255, 255, 255, 255 };
    try expectBig(map, &target, 8, &sum);
    // No room for the record and the sum: nothing is counted, and the length is said.
    try expectEqual(.noRoom, try calls.incrementBig(map, "n", one, zero, target[0..1024]));
    const record = std.mem.bytesToValue(count.Counted, target[0..@sizeOf(count.Counted)]);
    try expectEqual(@as(u32, 1001), record.len);
    try expectEqual(.counted, try calls.incrementBig(map, "n", small, zero, &target));
    try expectBig(map, &target, 8, &.{ 128, 0, 0, 0, 0, 0, 0, 0 });
    try expectEqual(.counted, try calls.incrementBig(map, "n", small, zero, &target));
    try expectEqual(.counted, try calls.incrementBig(map, "n", big, zero, &target));
    var counted: count.Counted = undefined;
    try expectEqual(.otherType, try calls.increment(map, "n", 1, 0, &counted));
    try expectEqual(.counted, try calls.increment(map, "f", 1, 0, &counted));
    try expectEqual(.otherType, try calls.incrementBig(map, "f", one, zero, &target));
    const nonsense: count.Operand = .{ .bytes = "text", .kind = 3 };
    const refused = calls.incrementBig(map, "n", nonsense, zero, &target);
    try std.testing.expectError(error.InvalidArgument, refused);
    try support.expectSound(map);
}

fn expectBig(map: *Map, target: []const u8, kind: u8, bytes: []const u8) !void {
    const record = std.mem.bytesToValue(count.Counted, target[0..@sizeOf(count.Counted)]);
    try expectEqual(kind, @as(u8, @intCast(record.kind)));
    try std.testing.expectEqualSlices(u8, bytes, target[@sizeOf(count.Counted)..][0..record.len]);
    var room: [2000]u8 = undefined;
    const meta = (try calls.get(map, "n", &room, 0)).?;
    try expectEqual(@as(u64, @intFromFloat(record.version)), meta.version);
    try std.testing.expectEqualSlices(u8, bytes, room[0..meta.len]);
}

test "a full map refuses a counter and a swap, and both give up nothing" {
    const map = try support.openMap(0, 64 << 10);
    defer support.closeMap(map);
    const value: [700]u8 = @splat('v');
    var name: [8]u8 = undefined;
    var filled: u32 = 0;
    while (true) : (filled += 1) {
        const key = try std.fmt.bufPrint(&name, "k{d}", .{filled});
        _ = calls.put(map, key, &value, 3, .none) catch break;
    }
    var target: [1000]u8 = undefined;
    const large: [30_000]u8 = @splat('l');
    try std.testing.expectError(error.NoSpace, calls.swap(map, "k0", &large, 3, &target));
    try expectEqual(@as(u32, 700), (try calls.swap(map, "k0", &value, 3, &target)).?.len);
    var counted: count.Counted = undefined;
    var steps: f64 = 0;
    for (0..100_000) |_| {
        // What replaces an entry of its own size always has room; a new one may have none.
        const outcome = calls.increment(map, "n", 1, 0, &counted) catch break;
        try expectEqual(.counted, outcome);
        steps += 1;
    }
    if (steps > 0) try expectNumber(map, "n", steps, counted.version);
    try support.expectSound(map);
}

const workers_max = 4;
const Race = struct {
    map: *Map,
    steps: u32,
    taken: u32 = 0,
    failed: bool = false,

    fn run(race: *Race) void {
        race.go() catch {
            race.failed = true;
        };
    }

    fn go(race: *Race) !void {
        var counted: count.Counted = undefined;
        var name: [16]u8 = undefined;
        var target: [16]u8 = undefined;
        for (0..race.steps) |i| {
            try expectEqual(.counted, try calls.increment(race.map, "n", 1, 0, &counted));
            const key = try std.fmt.bufPrint(&name, "token {d}", .{i});
            if (try calls.take(race.map, key, &target) != null) race.taken += 1;
        }
    }
};

test "threads count every step, and take every token once" {
    for (locks) |lock| {
        const map = try support.openMapOf(lock, 1, 8 << 20);
        defer support.closeMap(map);
        const steps: u32 = if (lock == .kernel) 300 else 5000;
        var name: [16]u8 = undefined;
        for (0..steps) |i| {
            const key = try std.fmt.bufPrint(&name, "token {d}", .{i});
            try expect(try calls.put(map, key, "t", 3, .none));
        }
        var races: [workers_max]Race = undefined;
        var threads: [workers_max]std.Thread = undefined;
        for (&races, &threads) |*race, *thread| {
            race.* = .{ .map = try support.openAgain(map, 30_000), .steps = steps };
            _ = calls.handleOf(race.map);
            thread.* = try std.Thread.spawn(.{}, Race.run, .{race});
        }
        var taken: u32 = 0;
        for (&races, threads) |*race, thread| {
            thread.join();
            try expect(!race.failed);
            taken += race.taken;
            support.closeMap(race.map);
        }
        try expectEqual(steps, taken);
        var counted: count.Counted = undefined;
        try expectEqual(.counted, try calls.increment(map, "n", 0, 0, &counted));
        try expectEqual(@as(f64, @floatFromInt(workers_max * steps)), counted.value);
        try support.expectSound(map);
    }
}

const Takers = struct {
    const many = 100;
    started: u32,
    go: u32,
    /// By process: 1 for what it got.
    got: [many]u32,

    fn child(takers: *Takers, token: []const u8, number: usize) !void {
        const own = try support.openToken(token, 20_000);
        _ = @atomicRmw(u32, &takers.started, .Add, 1, .seq_cst);
        while (@atomicLoad(u32, &takers.go, .seq_cst) == 0) std.Thread.yield() catch {};
        var target: [16]u8 = undefined;
        const taken = try calls.take(own, "token", &target);
        if (taken != null) @atomicStore(u32, &takers.got[number], 1, .seq_cst);
    }
};

test "of a hundred processes that take one key exactly one gets it; with kills, at most one" {
    if (!support.has_forks) return error.SkipZigTest;
    for (locks) |lock| for ([_]bool{ false, true }) |with_kills| {
        const map = try support.openMapOf(lock, 2, 4 << 20);
        defer support.closeMap(map);
        var buffer: [200]u8 = undefined;
        const token = buffer[0..try map.segment.token(&buffer)];
        const takers = try support.shared(Takers);
        try expect(try calls.put(map, "token", "t", 3, .none));
        var pids: [Takers.many]std.c.pid_t = undefined;
        for (&pids, 0..) |*pid, i| {
            pid.* = std.c.fork();
            if (pid.* != 0) continue;
            takers.child(token, i) catch std.c._exit(1);
            std.c._exit(0);
        }
        while (@atomicLoad(u32, &takers.started, .seq_cst) < Takers.many)
            std.Thread.yield() catch {};
        @atomicStore(u32, &takers.go, 1, .seq_cst);
        if (with_kills) for (pids, 0..) |pid, i| {
            if (i % 3 == 0) _ = std.c.kill(pid, .KILL);
        };
        var lost: u32 = 0;
        for (pids) |pid| {
            var end: c_int = undefined;
            _ = std.c.waitpid(pid, &end, 0);
            if (end != 0) lost += 1;
        }
        var winners: u32 = 0;
        for (takers.got) |got| winners += got;
        if (with_kills) {
            try expect(winners <= 1 and lost <= (Takers.many + 2) / 3);
        } else {
            try expectEqual(@as(u32, 1), winners);
            try expectEqual(@as(u32, 0), lost);
        }
        try expect(!try calls.has(map, "token"));
        try support.expectSound(map);
    };
}

const Counting = struct {
    acked: [8]u64,
    stop: u32,

    fn child(counting: *Counting, token: []const u8, number: usize) !void {
        const own = try support.openToken(token, 20_000);
        var counted: count.Counted = undefined;
        while (@atomicLoad(u32, &counting.stop, .seq_cst) == 0) {
            if (try calls.increment(own, "n", 1, 0, &counted) != .counted) return error.NotCounted;
            _ = @atomicRmw(u64, &counting.acked[number], .Add, 1, .seq_cst);
        }
    }
};

test "eight processes that count, some of them killed, lose no acknowledged step" {
    if (!support.has_forks) return error.SkipZigTest;
    for (locks) |lock| {
        const map = try support.openMapOf(lock, 0, 4 << 20);
        defer support.closeMap(map);
        var buffer: [200]u8 = undefined;
        const token = buffer[0..try map.segment.token(&buffer)];
        const counting = try support.shared(Counting);
        var pids: [8]std.c.pid_t = undefined;
        var prng: std.Random.DefaultPrng = .init(support.seedOf(9));
        var kills: u64 = 0;
        for (&pids, 0..) |*pid, i| pid.* = try startCounting(counting, token, i);
        for (0..60) |round| {
            os.sleepNs(prng.random().uintLessThan(u64, 2_000_000));
            const i = round % pids.len;
            _ = std.c.kill(pids[i], .KILL);
            var end: c_int = undefined;
            _ = std.c.waitpid(pids[i], &end, 0);
            kills += 1;
            pids[i] = try startCounting(counting, token, i);
        }
        @atomicStore(u32, &counting.stop, 1, .seq_cst);
        for (pids) |pid| {
            var end: c_int = undefined;
            _ = std.c.waitpid(pid, &end, 0);
            try expectEqual(@as(c_int, 0), end);
        }
        var acked: f64 = 0;
        for (counting.acked) |steps| acked += @floatFromInt(steps);
        var counted: count.Counted = undefined;
        try expectEqual(.counted, try calls.increment(map, "n", 0, 0, &counted));
        try expect(acked > 100);
        try expect(counted.value >= acked);
        try expect(counted.value <= acked + @as(f64, @floatFromInt(kills)));
        try support.expectSound(map);
    }
}

fn startCounting(counting: *Counting, token: []const u8, number: usize) !std.c.pid_t {
    const pid = std.c.fork();
    if (pid < 0) return error.NoProcess;
    if (pid > 0) return pid;
    counting.child(token, number) catch std.c._exit(1);
    std.c._exit(0);
}

test "an entry that has ended is absent for conditions and counters, and a counter keeps its end" {
    const start_ms = 1_800_000_000_000;
    os.end_clock = start_ms;
    defer os.end_clock = null;
    for (locks) |lock| {
        os.end_clock = start_ms;
        const map = try support.openMapOf(lock, 0, 4 << 20);
        defer support.closeMap(map);
        var target: [64]u8 = undefined;
        const keys = [_][]const u8{ "take", "swap", "replace", "delete", "count" };
        for (keys) |key| _ = try calls.putUntil(map, key, "old", 3, .none, start_ms + 10);
        const version = (try calls.get(map, "delete", &target, 0)).?.version;
        const entry = (try calls.getEntry(map, "take", &target)).?;
        try expectEqual(@as(u64, start_ms + 10), entry.expires);
        os.end_clock = start_ms + 10;
        try expectEqual(null, try calls.getEntry(map, "take", &target));
        try expectEqual(null, try calls.take(map, "take", &target));
        try expectEqual(null, try calls.swap(map, "swap", "new", 3, &target));
        try expect(!try calls.replace(map, "replace", "new", 3, null));
        try expect(!try calls.deleteVersion(map, "delete", version));
        var cursor: scan.Cursor = .{};
        const bytes = try calls.scan(map, "", &cursor, 10);
        try expectEqual(@as(u64, 1), gathered.countRecords(map, bytes)); // "swap"
        try expect(try calls.has(map, "swap") and !try calls.has(map, "replace"));
        // The text that has ended is no reason to refuse; the new counter has an end of its own.
        var counted: count.Counted = undefined;
        const beginning: count.Beginning(f64) = .{ .initial = 5, .expires = start_ms + 50 };
        try expectEqual(.counted, try calls.incrementUntil(map, "count", 1, beginning, &counted));
        try expectEqual(@as(f64, 6), counted.value);
        try expectEqual(@as(f64, start_ms + 50), counted.expires);
        const later: count.Beginning(f64) = .{ .initial = 100, .expires = start_ms + 900 };
        try expectEqual(.counted, try calls.incrementUntil(map, "count", 1, later, &counted));
        try expectEqual(@as(f64, 7), counted.value);
        try expectEqual(@as(f64, start_ms + 50), counted.expires);
        const seen = (try calls.getEntry(map, "count", &target)).?;
        try expectEqual(@as(u64, start_ms + 50), seen.expires);
        try expectEqual(@as(u64, @intFromFloat(counted.version)), seen.version);
        os.end_clock = start_ms + 50;
        try expectEqual(.counted, try calls.incrementUntil(map, "count", 1, later, &counted));
        try expectEqual(@as(f64, 101), counted.value);
        // With an end that has passed nothing stays: neither of what was there nor of the new.
        const past: count.Beginning(f64) = .{ .initial = 0, .expires = 1 };
        try expectEqual(.counted, try calls.incrementUntil(map, "past", 1, past, &counted));
        try expectEqual(@as(f64, 0), counted.version);
        try expect(!try calls.has(map, "past"));
        const over: write.Item = .{ .value = "over", .kind = 3, .expires = 1 };
        try expectEqual(@as(u32, 3), (try calls.swapUntil(map, "swap", over, &target)).?.len);
        try expect(!try calls.has(map, "swap"));
        _ = try calls.put(map, "replace", "new", 3, .none);
        try expect(try calls.replaceUntil(map, "replace", over, null));
        try expect(!try calls.has(map, "replace"));
        // A store without an end takes the old one away.
        _ = try calls.putUntil(map, "k", "v", 3, .none, start_ms + 100);
        try expect(try calls.replace(map, "k", "w", 3, null));
        _ = try calls.putUntil(map, "l", "v", 3, .none, start_ms + 100);
        try expect(try calls.swap(map, "l", "w", 3, &target) != null);
        os.end_clock = start_ms + 100_000;
        try expect(try calls.has(map, "k") and try calls.has(map, "l"));
        _ = try calls.prune(map);
        try expectEqual(@as(u64, 2), try calls.size(map));
        try support.expectSound(map);
    }
}
