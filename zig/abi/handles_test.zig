//! What only several handles on one segment can show: growth, death and waiting seen from a handle
//! that had nothing to do with them.

const std = @import("std");
const calls = @import("../testing/calls.zig");
const atomics = @import("../atomics.zig");
const directory = @import("../segment/directory.zig");
const gathered = @import("../map/gathered.zig");
const attach = @import("../map/attach.zig");
const maps = @import("../map/map.zig");
const support = @import("../testing/support.zig");
const os = @import("../os/os.zig");
const range_lock = @import("../lock/range_lock.zig");
const segments = @import("../segment/segment.zig");
const status = @import("../status.zig");

const Map = maps.Map;
const openAgain = support.openAgain;
const gpa = std.testing.allocator;

fn fill(map: *Map, count: u64) !void {
    const value: [1000]u8 = @splat('x');
    for (0..count) |n| _ = try calls.put(map, std.mem.asBytes(&n), &value, 1, .none);
}

/// Stores values until there is no room; returns how many.
fn fillUp(map: *Map, value: []const u8) !u64 {
    var n: u64 = 0;
    while (true) : (n += 1) {
        _ = calls.put(map, std.mem.asBytes(&n), value, 1, .none) catch |err| {
            try std.testing.expectEqual(error.NoSpace, err);
            return n;
        };
    }
}

test "an idle handle checks, recovers and writes after others have grown the segment" {
    const busy = try support.openMap(2, 64 << 20);
    defer support.closeMap(busy);
    const idle = try openAgain(busy, 1000);
    defer support.closeMap(idle);
    try fill(busy, 20_000);
    try std.testing.expectEqual(@as(f64, 0), (try calls.verify(idle)).problems);
    const late = try openAgain(busy, 1000);
    defer support.closeMap(late);
    try fill(busy, 30_000);
    // A writer died in every stripe, and the next to come is the handle that saw no growth.
    for (0..4) |i| atomics.storeRelease(&busy.segment.view.stripe(@intCast(i)).writer, 77);
    const key: u64 = 1;
    try std.testing.expect(try calls.put(late, std.mem.asBytes(&key), "new", 1, .none));
    try support.expectSound(late);
    try std.testing.expectEqual(@as(u64, 30_000), try calls.size(late));
}

test "a sole attacher recovers a segment that grew after it had looked at the file" {
    const busy = try support.openMap(2, 64 << 20);
    defer support.closeMap(busy);
    const waiting = try openAgain(busy, 1000);
    defer support.closeMap(waiting);
    try fill(busy, 20_000);
    try attach.recoverSegment(&waiting.segment, true);
    try support.expectSound(waiting);
}

test "attaching beside a writer that holds everything ends at the timeout" {
    const map = try support.openMap(0, 1 << 20);
    defer support.closeMap(map);
    // As a sole writer that was stopped while it closed: WRITER exclusive, LIFECYCLE free.
    var fault: status.Fault = .{};
    try std.testing.expect(try range_lock.upgrade(&fault, map.segment.locks, .writer));
    try std.testing.expectError(error.Timeout, openAgain(map, 50));
    range_lock.downgrade(map.segment.locks, .writer);
    support.closeMap(try openAgain(map, 1000));
}

test "a writer stopped in one stripe does not keep another from saying that it is full" {
    const map = try support.openMap(1, 256 << 10);
    defer support.closeMap(map);
    map.segment.timeout_ms = 100;
    const value: [1000]u8 = @splat('x');
    const n = try fillUp(map, &value);
    // Replacing goes on, and leaves something to reclaim in both stripes.
    for (0..n) |k| _ = try calls.put(map, std.mem.asBytes(&k), value[0..900], 1, .none);
    const busy = map.segment.lockOf(1);
    _ = try busy.lock(&map.fault, &map.segment.deadline);
    defer busy.unlock();
    var tried: u32 = 0;
    for (0..60) |i| {
        const key = n + 1000 + i;
        if (map.hashOf(std.mem.asBytes(&key)).stripe != 0) continue;
        tried += 1;
        _ = calls.put(map, std.mem.asBytes(&key), &value, 1, .none) catch |err|
            try std.testing.expectEqual(error.NoSpace, err);
    }
    try std.testing.expect(tried > 0);
}

test "a full map goes on replacing every value: new keys leave the block kept back alone" {
    const value: [1000]u8 = @splat('x');
    for (0..40) |_| {
        const map = try support.openMap(1, 256 << 10);
        defer support.closeMap(map);
        const n = try fillUp(map, &value);
        for (0..n) |k| {
            const is_stored = try calls.put(map, std.mem.asBytes(&k), &value, 1, .none);
            try std.testing.expect(is_stored);
        }
    }
}

test "a full map goes on replacing every value that it stored last, too" {
    const value: [600]u8 = @splat('x');
    const large: [200 << 10]u8 = @splat('l');
    for (0..20) |_| {
        const map = try support.openMap(1, 256 << 10);
        defer support.closeMap(map);
        // Each stripe has a little left, and blocks kept back that would not do for what comes.
        for (0..100) |k| _ = try calls.put(map, &.{ 's', @intCast(k) }, "small", 1, .none);
        var size = large.len;
        var n: u8 = 0;
        while (size > 4 << 10) : (n += 1) {
            _ = calls.put(map, &.{ 'l', n }, large[0..size], 1, .none) catch {
                size = size * 7 / 8;
            };
        }
        for (0..100) |k| {
            const key = std.mem.asBytes(&k);
            const is_stored = calls.put(map, key, &value, 1, .none) catch continue;
            try std.testing.expect(is_stored);
            try std.testing.expect(try calls.put(map, key, &value, 1, .none));
        }
    }
}

test "a map emptied by deletes, or cleared, has room for one large value" {
    const map = try support.openMap(1, 4 << 20);
    defer support.closeMap(map);
    const large = try gpa.alloc(u8, 3 << 20);
    defer gpa.free(large);
    @memset(large, 'l');
    for ([_]bool{ false, true }) |clears| {
        const n = try fillUp(map, "");
        if (clears) try calls.clear(map) else {
            for (0..n) |k| try std.testing.expect(try calls.delete(map, std.mem.asBytes(&k)));
        }
        try std.testing.expect(try calls.put(map, "large", large, 1, .none));
        try std.testing.expect(try calls.delete(map, "large"));
        try support.expectSound(map);
    }
}

const Churn = struct {
    map: *Map,
    stop: std.atomic.Value(bool) = .init(false),

    /// Keeps few keys, so that tables and blocks are recycled all the time.
    fn run(churn: *Churn) void {
        const value: [150]u8 = @splat('v');
        var n: u64 = 0;
        while (!churn.stop.load(.monotonic)) : (n += 1) {
            _ = calls.put(churn.map, std.mem.asBytes(&n), value[0 .. n % 150], 1, .none) catch {};
            if (n >= 4) _ = calls.delete(churn.map, std.mem.asBytes(&(n - 4))) catch {};
            if (n % 1000 == 0) std.Thread.yield() catch {};
        }
    }
};

test "iteration beside constant change sees what stays exactly once, and nothing damaged" {
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    const other = try openAgain(map, 1000);
    defer support.closeMap(other);
    for ([_][]const u8{ "stays-a", "stays-b", "stays-c" }) |key|
        _ = try calls.put(map, key, "for ever", 1, .none);
    var churn: Churn = .{ .map = other };
    const thread = try std.Thread.spawn(.{}, Churn.run, .{&churn});
    defer {
        churn.stop.store(true, .monotonic);
        thread.join();
    }
    for (0..200_000) |_| {
        const bytes = try calls.gatherStripe(map, 0, false);
        var at: u64 = 0;
        var stayed: u32 = 0;
        while (at < bytes) {
            const record = std.mem.bytesToValue(gathered.Record, map.gathered[at..][0..16]);
            const key = map.gathered[at + 16 ..][0..record.key_len];
            if (std.mem.startsWith(u8, key, "stays-")) stayed += 1 else {
                try std.testing.expectEqual(@as(usize, 8), key.len);
            }
            at += 16 + std.mem.alignForward(u64, record.key_len + record.value_len, 8);
        }
        try std.testing.expectEqual(@as(u32, 3), stayed);
    }
}
