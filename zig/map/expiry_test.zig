//! Entries that end, on injected clocks.

const std = @import("std");
const atomics = @import("../atomics.zig");
const calls = @import("../testing/calls.zig");
const gathered = @import("gathered.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const status = @import("../status.zig");
const support = @import("../testing/support.zig");
const Map = @import("map.zig").Map;

const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;

/// What the clock of ends reads when a test begins.
const start_ms = 1_800_000_000_000;
const day_ms = std.time.ms_per_day;

fn setClock(ms: u64) void {
    os.end_clock = ms;
}

fn begin() void {
    setClock(start_ms);
}

fn end() void {
    os.end_clock = null;
}

fn keyOf(buffer: *[24]u8, n: u64) []const u8 {
    return std.fmt.bufPrint(buffer, "key {d}", .{n}) catch unreachable;
}

/// Whether a key is there, which all functions that read one key must agree on.
fn isSeen(map: *Map, key: []const u8) !bool {
    var target: [200]u8 = undefined;
    const seen = try calls.has(map, key);
    try expectEqual(seen, try calls.getValue(map, key, &target) != null);
    const meta = try calls.get(map, key, &target, 0);
    try expectEqual(seen, meta != null);
    const handle = calls.handleOf(map);
    const len = calls.word(key.len);
    const version: f64 = if (meta) |found| @floatFromInt(found.version) else 1;
    const unless = calls.call(.shm_map_get_unless, .{
        handle, key.ptr, len, version, &target, target.len,
    });
    try expectEqual(seen, unless == @intFromEnum(status.Status.unchanged) or unless >= 0);
    const into = calls.call(.shm_map_get_into, .{
        handle, key.ptr, len, 0xff, &target, target.len,
    });
    try expectEqual(seen, into >= 0);
    return seen;
}

test "an entry is absent from its end on, for every read" {
    begin();
    defer end();
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    const reader = try support.openReader(map, 1000);
    defer support.closeMap(reader);
    try expect(try calls.putUntil(map, "a", "1", 1, .none, start_ms + 10));
    for ([_]u64{ 0, 9 }) |ms| {
        setClock(start_ms + ms);
        try expect(try isSeen(map, "a") and try isSeen(reader, "a"));
    }
    setClock(start_ms + 10);
    try expect(!try isSeen(map, "a") and !try isSeen(reader, "a"));
    try expectEqual(@as(u64, 1), try calls.size(map)); // until it is removed
    try expectEqual(@as(u64, 0), try calls.snapshot(reader));
    try expectEqual(@as(u64, 0), try calls.gatherStripe(reader, 0, true));
    setClock(start_ms); // set back: what is left lives longer
    try expect(try isSeen(map, "a") and try isSeen(reader, "a"));
    setClock(start_ms + day_ms);
    try expect(!try isSeen(map, "a"));
    try support.expectSound(map);
    try expectEqual(@as(u64, 1), try calls.prune(map));
    try expectEqual(@as(u64, 0), try calls.size(map));
    try support.expectSound(map);
}

test "conditions take an entry that has ended for none" {
    begin();
    defer end();
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    _ = try calls.putUntil(map, "a", "1", 1, .none, start_ms + 10);
    var target: [8]u8 = undefined;
    const version = (try calls.get(map, "a", &target, 0)).?.version;
    try expect(!try calls.putUntil(map, "a", "2", 1, .absent, 0));
    setClock(start_ms + 10);
    try expect(!try calls.put(map, "a", "2", 1, .{ .version = version }));
    try expect(!try calls.delete(map, "a"));
    try expectEqual(@as(u64, 0), try calls.size(map)); // that removed it
    _ = try calls.putUntil(map, "a", "1", 1, .none, start_ms + 20);
    setClock(start_ms + 20);
    try expect(!try calls.touch(map, "a", start_ms + 30));
    try expect(try calls.putUntil(map, "a", "3", 1, .absent, start_ms + 40));
    try expect(try isSeen(map, "a"));
    setClock(start_ms + 40);
    try expect(try calls.putUntil(map, "a", "4", 1, .{ .version = 0 }, null));
    setClock(start_ms + day_ms);
    try expect(try isSeen(map, "a")); // it kept no end of the one before
    const stats = try calls.stats(map);
    try expect(stats.expiring == 0 and stats.entries == 1);
    try support.expectSound(map);
}

test "a put keeps the end there is, or takes it away" {
    begin();
    defer end();
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    _ = try calls.putUntil(map, "a", "1", 1, .none, start_ms + 10);
    _ = try calls.putUntil(map, "a", "2", 1, .none, null);
    try expectEqual(@as(f64, 1), (try calls.stats(map)).expiring);
    setClock(start_ms + 10);
    try expect(!try isSeen(map, "a"));
    _ = try calls.putUntil(map, "a", "3", 1, .none, start_ms + 20);
    _ = try calls.put(map, "a", "4", 1, .none);
    try expectEqual(@as(f64, 0), (try calls.stats(map)).expiring);
    setClock(start_ms + 20);
    try expect(try isSeen(map, "a"));
    // With an end that has passed it is absent afterwards.
    try expect(try calls.putUntil(map, "a", "5", 1, .absent, 1) == false);
    try expect(try calls.putUntil(map, "a", "5", 1, .{
        .version = (try calls.get(map, "a", &.{}, 0)).?.version,
    }, 1));
    try expect(!try isSeen(map, "a"));
    try expect(try calls.putUntil(map, "a", "5", 1, .absent, 1));
    try expect(!try isSeen(map, "a"));
    try support.expectSound(map);
}

test "touch gives, changes and takes away an end, and leaves value and version" {
    begin();
    defer end();
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    try expect(!try calls.touch(map, "a", start_ms + 10));
    _ = try calls.put(map, "a", "1", 1, .none);
    var target: [8]u8 = undefined;
    const version = (try calls.get(map, "a", &target, 0)).?.version;
    try expect(try calls.touch(map, "a", start_ms + 10));
    try expect(try calls.touch(map, "a", start_ms + 20));
    setClock(start_ms + 19);
    try expectEqual(version, (try calls.get(map, "a", &target, 0)).?.version);
    try expect(try calls.touch(map, "a", 0));
    setClock(start_ms + day_ms);
    try expect(try isSeen(map, "a"));
    try expect((try calls.stats(map)).expiring == 0);
    try expect(try calls.touch(map, "a", start_ms)); // has passed
    try expect(!try isSeen(map, "a") and try calls.size(map) == 0);
    try support.expectSound(map);
}

test "writers remove what has ended, a few slots behind each commit" {
    begin();
    defer end();
    const map = try support.openMap(0, 32 << 20);
    defer support.closeMap(map);
    var buffer: [24]u8 = undefined;
    for (0..2000) |n| _ = try calls.putUntil(map, keyOf(&buffer, n), "v", 1, .none, start_ms + 100);
    for (2000..2100) |n| _ = try calls.put(map, keyOf(&buffer, n), "v", 1, .none);
    setClock(start_ms + 100);
    try expectEqual(@as(u64, 2100), try calls.size(map));
    for (0..400) |_| _ = try calls.put(map, keyOf(&buffer, 2000), "w", 1, .none);
    try expectEqual(@as(u64, 100), try calls.size(map));
    const stats = try calls.stats(map);
    try expect(stats.expirations == 2000 and stats.expiring == 0);
    try support.expectSound(map);
}

test "a call reads the clock once, and not at all where nothing ends" {
    begin();
    defer end();
    const map = try support.openMap(0, 32 << 20);
    defer support.closeMap(map);
    var keys: [20][12]u8 = undefined;
    for (&keys, 0..) |*key, n| {
        std.mem.writeInt(u32, key[0..4], 8, .little);
        _ = std.fmt.bufPrint(key[4..], "key {d:0>4}", .{n}) catch unreachable;
        _ = try calls.put(map, key[4..], "v", 1, .none);
    }
    const all = std.mem.sliceAsBytes(&keys);
    var target: [400]u8 = undefined;
    const before = os.end_clock_reads;
    _ = try calls.getBatch(map, all, keys.len, &target);
    _ = try isSeen(map, keys[0][4..]);
    _ = try calls.put(map, keys[0][4..], "w", 1, .none);
    _ = try calls.delete(map, keys[0][4..]);
    try expectEqual(before, os.end_clock_reads);
    for (&keys) |*key| _ = try calls.putUntil(map, key[4..], "v", 1, .none, start_ms + 10);
    inline for (.{ 0, 10 }) |ms| {
        setClock(start_ms + ms);
        const reads = os.end_clock_reads;
        _ = try calls.getBatch(map, all, keys.len, &target);
        try expectEqual(reads + 1, os.end_clock_reads);
    }
}

test "a reader that a touch overtakes does not miss the entry" {
    begin();
    defer end();
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    _ = try calls.putUntil(map, "a", "1", 1, .none, start_ms + 10);
    const Touching = struct {
        threadlocal var toucher: *Map = undefined;
        fn now(at: atomics.Moment) void {
            if (at != .clock_read) return;
            atomics.moment = null;
            // The touch came first: its clock had not reached the end.
            setClock(start_ms + 9);
            std.debug.assert(calls.touch(toucher, "a", start_ms + 50) catch false);
            setClock(start_ms + 10);
        }
    };
    Touching.toucher = try support.openAgain(map, 1000);
    defer support.closeMap(Touching.toucher);
    setClock(start_ms + 10);
    atomics.moment = Touching.now;
    defer atomics.moment = null;
    var target: [8]u8 = undefined;
    try expect(try calls.getValue(map, "a", &target) != null);
}

test "an end is stored when next_end has been lowered already" {
    begin();
    defer end();
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    const Order = struct {
        observer: atomics.Observer = .{ .seen = seen },
        stripe: *layout.Stripe,
        ends: u32 = 0,
        is_late: bool = false,

        /// Any word of an entry that is one of the ends of this test.
        fn seen(observer: *atomics.Observer, word: *const u64, value: u64) void {
            const self: *@This() = @fieldParentPtr("observer", observer);
            const first = @intFromPtr(self.stripe);
            const address = @intFromPtr(word);
            if (address >= first and address < first + @sizeOf(layout.Stripe)) return;
            if (value < start_ms or value > start_ms + day_ms) return;
            self.ends += 1;
            const next = self.stripe.next_end;
            if (next == 0 or next > value) self.is_late = true;
        }
    };
    var order: Order = .{ .stripe = map.segment.view.stripe(0) };
    atomics.observer = &order.observer;
    defer atomics.observer = null;
    _ = try calls.putUntil(map, "a", "1", 1, .none, start_ms + 900); // the slow path, then the fast
    _ = try calls.putUntil(map, "b", "1", 1, .none, start_ms + 800);
    _ = try calls.putUntil(map, "a", "2", 1, .none, start_ms + 700);
    _ = try calls.touch(map, "a", start_ms + 600);
    _ = try calls.putUntil(map, "b", "2", 1, .absent, start_ms + 1);
    _ = try calls.putUntil(map, "c", "2", 1, .absent, start_ms + 500);
    try expectEqual(@as(u32, 5), order.ends);
    try expect(!order.is_late);
}

test "recovery keeps the ends, and removes what ended long ago" {
    begin();
    defer end();
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    _ = try calls.putUntil(map, "soon", "1", 1, .none, start_ms + 10);
    _ = try calls.putUntil(map, "later", "1", 1, .none, start_ms + day_ms);
    _ = try calls.put(map, "never", "1", 1, .none);
    const stripe = map.segment.view.stripe(0);
    for ([_]u64{ 0, 20, 10_009 }) |ms| {
        setClock(start_ms + ms);
        stripe.next_end = 0; // all of it is derived
        stripe.expiring = 7;
        stripe.sweep_slot = 3;
        try map.spaceOf(0).recover();
        try expect(try calls.size(map) == 3 and try isSeen(map, "soon") == (ms == 0));
        try expect(stripe.next_end == start_ms + 10 and stripe.expiring == 2);
        try support.expectSound(map);
    }
    setClock(start_ms + 10_010);
    try map.spaceOf(0).recover();
    try expect(try calls.size(map) == 2 and try isSeen(map, "later") and try isSeen(map, "never"));
    const stats = try calls.stats(map);
    try expect(stats.expirations == 1 and stats.dropped == 0 and stats.expiring == 1);
    try support.expectSound(map);
}

test "before there is no space, what has ended goes" {
    begin();
    defer end();
    const map = try support.openMap(0, 1 << 20);
    defer support.closeMap(map);
    var buffer: [24]u8 = undefined;
    const value: [2000]u8 = @splat('v');
    var stored: u64 = 0;
    while (calls.putUntil(map, keyOf(&buffer, stored), &value, 1, .none, start_ms + 10)) |_| {
        stored += 1;
    } else |err| try expectEqual(error.NoSpace, err);
    setClock(start_ms + 10);
    for (0..stored) |n| _ = try calls.put(map, keyOf(&buffer, 1_000_000 + n), &value, 1, .none);
    try expectEqual(stored, try calls.size(map));
    try support.expectSound(map);
}

test "one of many handles looks for ended entries, and where none writes" {
    begin();
    defer end();
    const map = try support.openMap(0, 32 << 20);
    defer support.closeMap(map);
    const other = try support.openAgain(map, 1000);
    defer support.closeMap(other);
    try expectEqual(@as(?u64, null), try calls.sweep(map));
    var buffer: [24]u8 = undefined;
    for (0..1000) |n| _ = try calls.putUntil(map, keyOf(&buffer, n), "v", 1, .none, start_ms + 500);
    _ = try calls.putUntil(map, "later", "v", 1, .none, start_ms + day_ms);
    try expectEqual(@as(?u64, 1000), try calls.sweep(map));
    setClock(start_ms + 600);
    try expectEqual(@as(?u64, 400), try calls.sweep(other)); // another has just done so
    try expectEqual(@as(u64, 1001), try calls.size(map));
    setClock(start_ms + 1000);
    while (try calls.sweep(other) != 1000) {}
    try expectEqual(@as(u64, 1), try calls.size(map));
    setClock(start_ms); // set back by a second, and then by a day
    try expectEqual(@as(?u64, 1000), try calls.sweep(map));
    setClock(start_ms - day_ms);
    try expectEqual(@as(?u64, 1000), try calls.sweep(map));
    try expectEqual(start_ms - day_ms, map.segment.header().swept_ms);
    try support.expectSound(map);
}

test "a simulated day of sessions takes no more memory than as many that never end" {
    begin();
    defer end();
    const map = try support.openMap(0, 64 << 20);
    defer support.closeMap(map);
    const still = try support.openMap(0, 64 << 20);
    defer support.closeMap(still);
    var buffer: [24]u8 = undefined;
    const value: [200]u8 = @splat('v');
    const live = 600;
    for (0..live) |n| _ = try calls.put(still, keyOf(&buffer, n), &value, 1, .none);
    var most: f64 = 0;
    // A session every two seconds that lasts twenty minutes.
    for (0..day_ms / 2000) |n| {
        setClock(start_ms + 2000 * n);
        const until = start_ms + 2000 * (n + live);
        _ = try calls.putUntil(map, keyOf(&buffer, n), &value, 1, .none, until);
        if (n % 100 == 0) most = @max(most, (try calls.stats(map)).owned_bytes);
    }
    const as_many = (try calls.stats(still)).owned_bytes;
    if (most > 1.5 * as_many) {
        std.debug.print("{d} bytes beside {d}\n", .{ most, as_many });
        return error.TooMuch;
    }
    try expect(try calls.size(map) < live * 3 / 2);
    try support.expectSound(map);
}

test "a snapshot is of one instant, also where an end passes while it is made" {
    begin();
    defer end();
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    const writer = try support.openAgain(map, 1000);
    defer support.closeMap(writer);
    _ = try calls.putUntil(map, "a", "1", 1, .none, start_ms + 10);
    _ = try calls.putUntil(map, "b", "1", 1, .none, start_ms + 10);
    const Passing = struct {
        threadlocal var of: *Map = undefined;
        fn now() void {
            atomics.pause = null;
            setClock(start_ms + 10);
            of.segment.view.stripe(0).next_end = start_ms + day_ms; // only "b" goes
            std.debug.assert(!(calls.delete(of, "b") catch true));
        }
    };
    Passing.of = writer;
    atomics.pause = Passing.now; // behind the first entry's copy
    defer atomics.pause = null;
    const bytes = try calls.snapshot(map);
    try expectEqual(@as(u64, 0), gathered.countRecords(map, bytes));
}

test "the call behind a look for ended entries waits as long as its handle says" {
    const map = try support.openMap(0, 0);
    defer support.closeMap(map);
    const other = try support.openAgain(map, 200);
    defer support.closeMap(other);
    _ = try calls.put(other, "key", "value", 1, .none);
    _ = try calls.acquire(map, 1000);
    defer calls.release(map, false);
    // A look begins with no more time than it needs; it was the call's behind it, too.
    _ = try calls.sweep(other);
    const start = os.monotonicNs();
    try std.testing.expectError(error.Timeout, calls.put(other, "key", "another", 1, .none));
    try std.testing.expect(os.monotonicNs() - start >= 150 * std.time.ns_per_ms);
}
