//! Space that goes back: what large values leave, how many blocks a file has then, and readers that
//! are too late.

const std = @import("std");
const atomics = @import("../atomics.zig");
const attach = @import("attach.zig");
const calls = @import("../testing/calls.zig");
const chunks = @import("../stripe/chunk.zig");
const directory = @import("../segment/directory.zig");
const layout = @import("../layout.zig");
const maps = @import("map.zig");
const os = @import("../os/os.zig");
const parked = @import("../stripe/parked.zig");
const pools = @import("../stripe/pool.zig");
const read = @import("read.zig");
const segments = @import("../segment/segment.zig");
const small_file_system = @import("../testing/small_file_system.zig");
const spaces = @import("../stripe/space.zig");
const status = @import("../status.zig");
const support = @import("../testing/support.zig");
const tables = @import("../stripe/table.zig");
const StripeOp = @import("stripe_op.zig").StripeOp;

const Map = maps.Map;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const linux = std.os.linux;
const mib = 1 << 20;

var value: [8 * mib]u8 = @splat(7);
var target: [8 * mib + 64]u8 = undefined;

/// A trial for the length of a test.
const Trying = support.Trying(parked);

fn allocated(map: *Map) !u64 {
    var fault: status.Fault = .{};
    return (try os.stat(&fault, map.segment.file)).allocated;
}

/// The file has blocks for all below `committed` but the holes, and for nothing else.
fn expectBlocks(map: *Map) !void {
    if (!os.has_holes) return;
    try expectEqual(map.segment.blockBytes(), try allocated(map));
}

/// Has all parked extents give back their blocks.
fn punchAll(map: *Map) !u64 {
    const pool = try spaces.lockPool(&map.segment);
    defer spaces.unlockPool(&map.segment);
    return spaces.punch(&map.segment, pool, .all);
}

fn put(map: *Map, key: []const u8, len: usize) !void {
    _ = try calls.put(map, key, value[0..len], 1, .none);
}

test "space: what large values leave goes back, and the blocks are those that the words say" {
    const trying: Trying = .with(.{ .small = false });
    defer trying.end();
    const map = try support.openMap(1, 0);
    defer support.closeMap(map);
    try put(map, "small", 100);
    const least = try allocated(map);
    var random = std.Random.DefaultPrng.init(support.seedOf(1));
    const dice = random.random();
    const keys = [_][]const u8{ "a", "b", "c", "d" };
    for (0..60) |_| {
        const key = keys[dice.uintLessThan(usize, keys.len)];
        if (dice.uintLessThan(u8, 4) == 0) {
            _ = try calls.delete(map, key);
        } else try put(map, key, dice.intRangeAtMost(usize, mib / 2, 6 * mib));
        try expectBlocks(map);
        if (dice.uintLessThan(u8, 8) == 0) _ = try punchAll(map);
        try expectBlocks(map);
        try support.expectSound(map);
    }
    for (keys) |key| _ = try calls.delete(map, key);
    const most = try allocated(map);
    if (os.has_holes) try expect(try punchAll(map) > mib);
    try expectBlocks(map);
    try support.expectSound(map);
    // Beside values of less than a MiB, which lie in ordinary space, first pages are all that is
    // left.
    const held = (try allocated(map)) - least;
    if (os.has_holes) try expect(held < most / 2);
}

test "space: a value that is replaced again and again takes the same places" {
    const trying: Trying = .with(.{ .small = false });
    defer trying.end();
    const map = try support.openMap(0, 0);
    defer support.closeMap(map);
    for (0..4) |_| try put(map, "key", 3 * mib);
    const committed = map.segment.view.committed;
    const blocks = try allocated(map);
    for (0..20) |i| try put(map, "key", 3 * mib - i * layout.page_bytes);
    try expectEqual(committed, map.segment.view.committed);
    try expectEqual(blocks, try allocated(map));
    try expectBlocks(map);
    try expect(blocks < 8 * mib); // two places are enough
}

test "space: maxBytes counts blocks, and what is parked gives way to small values" {
    if (!os.has_holes) return error.SkipZigTest;
    const trying: Trying = .with(.{ .small = false });
    defer trying.end();
    const map = try support.openMap(0, 16 * mib);
    defer support.closeMap(map);
    // Growing values leave places that none of the next fits in.
    for (0..24) |i| {
        try put(map, "key", mib + i * mib / 4);
        try expect(try allocated(map) <= 16 * mib);
    }
    try expect(map.segment.view.committed > 16 * mib);
    _ = try calls.delete(map, "key");
    var n: u32 = 0;
    while (true) : (n += 1) {
        _ = calls.put(map, std.mem.asBytes(&n), value[0..4000], 1, .none) catch |err| {
            try expectEqual(error.NoSpace, err);
            break;
        };
        try expect(try allocated(map) <= 16 * mib);
    }
    try expect(n > 3600); // of 4,096 that the blocks would hold without anything else
    try expectBlocks(map);
    try support.expectSound(map);
}

fn chunkOf(map: *Map, offset: u64) !chunks.Checked {
    const view = &map.segment.view;
    for (0..view.stripeCount()) |i| {
        var walk: pools.Walk = .of(view, @intCast(i));
        while (try walk.step()) |chunk|
            if (offset >= chunk.offset and offset < chunk.end()) return chunk;
    }
    return error.TestUnexpectedResult;
}

fn placeOf(map: *Map, key: []const u8) !u64 {
    const key_hash = map.hashOf(key);
    const view = &map.segment.view;
    const table = tables.Table.of(view, view.stripe(key_hash.stripe).table);
    var probe: tables.Probe = undefined;
    const tag = map.tagFor(table, key_hash, key);
    try expectEqual(.found, tables.find(view, table, tag, key, &probe));
    return probe.entry.offset;
}

test "space: tables and entries with long keys never lie where there may be a hole" {
    const trying: Trying = .with(.{ .small = true });
    defer trying.end();
    const map = try support.openMap(0, 0);
    defer support.closeMap(map);
    const long: [parked.key_bytes_max + 1]u8 = @splat('k');
    try put(map, "large", 9000);
    try put(map, &long, 9000);
    try put(map, long[0..parked.key_bytes_max], 9000);
    try expect((try chunkOf(map, try placeOf(map, "large"))).dense != null);
    try expect((try chunkOf(map, try placeOf(map, &long))).dense == null);
    const whole_key = try placeOf(map, long[0..parked.key_bytes_max]);
    const extent = try chunkOf(map, whole_key);
    try expect(extent.dense != null);
    try expect(whole_key + @sizeOf(layout.Entry) + parked.key_bytes_max <=
        extent.offset + layout.page_bytes);
    for (0..3000) |n| _ = try calls.put(map, std.mem.asBytes(&n), "v", 1, .none);
    for ([_][]const u8{ "large", &long }) |key| _ = try calls.delete(map, key);
    for (3000..6000) |n| _ = try calls.put(map, std.mem.asBytes(&n), "v", 1, .none);
    const word: layout.TableWord = @bitCast(map.segment.view.stripe(0).table);
    try expect((try chunkOf(map, @as(u64, word.granule) * layout.granule_bytes)).dense == null);
    try support.expectSound(map);
}

test "space: an extent has its blocks before anything is stored there" {
    if (!os.has_holes) return error.SkipZigTest;
    const trying: Trying = .with(.{ .small = true });
    defer trying.end();
    const map = try support.openMap(0, 0);
    defer support.closeMap(map);
    try put(map, "small", 10);
    var op = try StripeOp.lock(map, 0);
    defer op.unlock();
    op.begin();
    for ([_]u64{ 40_000, 60_000 }) |bytes| {
        const offset = try op.space.alloc(bytes, 1);
        try expectBlocks(map);
        try op.space.retireAtOnce(offset, bytes); // emptied at once
        try expectBlocks(map);
        // It comes again, with all of its blocks.
        try expectEqual(offset, try op.space.alloc(bytes, 1));
        try expectBlocks(map);
        try op.space.retireAtOnce(offset, bytes);
    }
}

test "space: parked extents keep some blocks for a while, and give back a step at a time" {
    if (!os.has_holes) return error.SkipZigTest;
    const trying: Trying = .with(.{ .small = false });
    defer trying.end();
    const map = try support.openMap(0, 0);
    defer support.closeMap(map);
    for ([_][]const u8{ "a", "b", "c", "d", "e", "f" }) |key| try put(map, key, 8 * mib - 200);
    for ([_][]const u8{ "a", "b", "c", "d", "e", "f" }) |key| _ = try calls.delete(map, key);
    const before = try allocated(map);
    try expect(before > 48 * mib);
    try expect(try spaces.upkeep(&map.segment)); // there is more, but it has only just come
    try expectEqual(before, try allocated(map));
    os.sleepNs(2100 * std.time.ns_per_ms);
    var steps: u32 = 0;
    while (try spaces.upkeep(&map.segment)) steps += 1;
    try expect(steps >= 2 and steps < 8);
    const after = try allocated(map);
    try expect(after <= 16 * mib and after > 8 * mib);
    try expectBlocks(map);
    try support.expectSound(map);
}

/// A reader stopped in the middle, on a file system that is full when it goes on.
const Late = struct {
    /// `between`: it has a slot, and looks at the entry next. `inside`: it has copied a MiB.
    const Place = enum { between, inside };

    var writer: *Map = undefined;
    var place: Place = undefined;
    var is_done = false;
    var copies: u32 = 0;
    var filled: u64 = 0;
    var filler: os.Path = undefined;

    fn onMoment(moment: atomics.Moment) void {
        if (is_done or place != .between or moment != .slot_loaded) return;
        is_done = true;
        overtake() catch @panic("overtaking failed");
    }

    /// Before a piece is copied: the second one is, behind a look that still counted.
    fn onPause() void {
        copies += 1;
        if (is_done or place != .inside or copies != 2) return;
        is_done = true;
        overtake() catch @panic("overtaking failed");
    }

    fn overtake() !void {
        _ = try calls.delete(writer, "large");
        // Generations pass, and what can go back goes.
        for (0..200) |i| try put(writer, &.{ 'o', @intCast(i % 8) }, 500 + i);
        if (try punchAll(writer) < 4 * mib) return error.TestUnexpectedResult;
        var fault: status.Fault = .{};
        const fd = try os.openNew(&fault, &filler);
        defer os.close(fd);
        while (true) {
            const written = linux.write(fd, &value, layout.page_bytes);
            if (linux.errno(written) != .SUCCESS) break;
            filled += written;
        }
    }

    fn open(dir: []const u8, mode: directory.Mode, lock: layout.LockKind, readonly: bool) !*Map {
        var fault: status.Fault = .{};
        const options: segments.Options = .{
            .recover = attach.recoverSegment,
            .stripe_bits = if (mode == .create) 0 else null,
            .lock = if (mode == .create) lock else null,
            .readonly = readonly,
        };
        const map = try support.prepared(&fault, &options);
        errdefer calls.discard(map);
        try attach.openByName(map, dir, "map", mode, &options);
        return map;
    }

    /// In a process of its own. 0: all is as it must be.
    fn judge(dir: *const os.Path, lock: layout.LockKind, at: Place) !void {
        place = at;
        filler = try os.Path.of("{s}/filler", .{dir.slice()});
        writer = try open(dir.slice(), .create, lock, false);
        const reader = try open(dir.slice(), .attach, lock, at == .inside);
        try put(writer, "large", 6 * mib);
        try put(writer, "kept", 2 * mib);
        atomics.moment = onMoment;
        atomics.pause = onPause;
        const found = try read.get(reader, "large", &target, 1);
        atomics.moment = null;
        atomics.pause = null;
        if (!is_done or filled == 0 or found != null) return error.TestUnexpectedResult;
        const kept = (try calls.get(reader, "kept", &target, 1)).?;
        try expect(kept.len == 2 * mib and std.mem.allEqual(u8, target[0..kept.len], 7));
        // What is full is an error of one call.
        try std.testing.expectError(error.NoSpace, put(writer, "again", 6 * mib));
        try expectBlocks(writer);
        try support.expectSound(writer);
        var fault: status.Fault = .{};
        try os.unlink(&fault, &filler);
        try put(writer, "again", 6 * mib);
        try expectBlocks(writer);
        support.closeMap(reader);
        support.closeMap(writer);
    }
};

test "space: a late reader gets no signal on a file system that is full" {
    if (!support.has_forks or !os.has_holes) return error.SkipZigTest;
    const trying: Trying = .with(.{ .small = false });
    defer trying.end();
    var fault: status.Fault = .{};
    const dir = try os.Path.of("/tmp/shmap-late-{x}", .{os.randomWord()});
    _ = linux.mkdir(dir.z(), 0o700);
    defer _ = linux.rmdir(dir.z());
    os.close(try os.openDirectory(&fault, &dir));
    for ([_]layout.LockKind{ .robust, .kernel }) |lock| {
        for (std.enums.values(Late.Place)) |at| {
            const child = std.c.fork();
            if (child == 0) {
                const refusal = small_file_system.leaveForOwnMounts() orelse
                    small_file_system.mount(&dir, 16);
                if (refusal != null) linux.exit_group(77);
                Late.judge(&dir, lock, at) catch |err| {
                    std.debug.print("{t}, {t}: {t}\n", .{ lock, at, err });
                    linux.exit_group(1);
                };
                linux.exit_group(0);
            }
            var how: u32 = 0;
            _ = linux.waitpid(child, &how, 0);
            if (linux.W.IFEXITED(how) and linux.W.EXITSTATUS(how) == 77) return error.SkipZigTest;
            try expectEqual(@as(u32, 0), how);
        }
    }
}

fn isGiven(map: *Map, bytes: u64) !void {
    try expectBlocks(map);
    try support.expectSound(map);
    try expect(try allocated(map) <= bytes);
}

fn fillSmall(map: *Map, count: u32) !void {
    for (0..count) |n|
        _ = try calls.put(map, std.mem.asBytes(&@as(u32, @intCast(n))), value[0..4000], 1, .none);
}

test "space: the only handle gets all back, and others nothing but what large values left" {
    if (!os.has_holes) return error.SkipZigTest;
    const trying: Trying = .with(.{ .small = false });
    defer trying.end();
    for ([_]layout.LockKind{ .robust, .kernel }) |lock| {
        const map = try support.openMapOf(lock, 2, 0);
        defer support.closeMap(map);
        try fillSmall(map, 5000);
        try put(map, "large", 6 * mib);
        try put(map, "kept", 2 * mib);
        const full = try allocated(map);
        {
            const other = try support.openAgain(map, 1000);
            defer support.closeMap(other);
            try calls.clear(other);
            try put(other, "kept", 2 * mib);
            try expect(try calls.compact(map) >= 4 * mib);
            try isGiven(map, full - 4 * mib);
            try expect(try allocated(map) > 16 * mib);
        }
        {
            const reader = try support.openReader(map, 1000);
            defer support.closeMap(reader);
            _ = try calls.compact(map);
            try expect(try allocated(map) > 16 * mib);
            try std.testing.expectError(error.ReadOnly, calls.compact(reader));
        }
        const before = try allocated(map);
        try expectEqual(before - try blocksAfter(map), before - try allocated(map));
        try isGiven(map, 3 * mib);
        try expectEqual(@as(u64, 0), try calls.compact(map));
        // It goes on as before, also for those who come.
        const reader = try support.openReader(map, 1000);
        defer support.closeMap(reader);
        const kept = (try read.get(reader, "kept", &target, 1)).?;
        try expect(kept.len == 2 * mib and std.mem.allEqual(u8, target[0..kept.len], 7));
        try fillSmall(map, 5000);
        for (0..3) |_| try put(map, "large", 6 * mib);
        try expectEqual(@as(u32, 6 * mib), (try read.get(reader, "large", &target, 1)).?.len);
        try isGiven(map, 64 * mib);
    }
}

/// How many blocks there are after a call that says how many it gave back.
fn blocksAfter(map: *Map) !u64 {
    const before = try allocated(map);
    return before - try calls.compact(map);
}

test "space: a reader that comes waits while the only handle takes memory back" {
    if (!os.has_holes) return error.SkipZigTest;
    const map = try support.openMap(0, 0);
    defer support.closeMap(map);
    var buffer: [200]u8 = undefined;
    const token = buffer[0..try map.segment.token(&buffer)];
    try expect(try map.segment.becomeAlone());
    for ([_]bool{ false, true }) |readonly| {
        var fault: status.Fault = .{};
        var options: segments.Options = .{
            .recover = attach.recoverSegment,
            .readonly = readonly,
            .timeout_ms = 30,
        };
        const other = try support.prepared(&fault, &options);
        defer calls.discard(other);
        const attached = directory.attachToken(&other.segment, token, &options);
        try std.testing.expectError(error.Timeout, attached);
    }
    map.segment.endAlone();
    support.closeMap(try support.openReader(map, 1000));
    support.closeMap(try support.openToken(token, 1000));
    try expect(try map.segment.becomeAlone());
    map.segment.endAlone();
}

fn openNamed(name: []const u8, mode: directory.Mode) !*Map {
    var fault: status.Fault = .{};
    const options: segments.Options = .{ .recover = attach.recoverSegment, .stripe_bits = 2 };
    const map = try support.prepared(&fault, &options);
    errdefer calls.discard(map);
    try attach.openByName(map, "", name, mode, &options);
    return map;
}

test "space: the last that leaves gives back what lies free, and so does the first that comes" {
    if (!os.has_holes) return error.SkipZigTest;
    const trying: Trying = .with(.{ .small = false });
    defer trying.end();
    var name_buffer: [40]u8 = undefined;
    const name = try std.fmt.bufPrint(&name_buffer, "space-{x}", .{os.randomWord()});
    var map = try openNamed(name, .create);
    defer {
        _ = calls.unlinkOwn(map) catch {};
        support.closeMap(map);
    }
    try fillSmall(map, 5000);
    try put(map, "kept", 3 * mib);
    const other = try openNamed(name, .attach);
    try calls.clear(map);
    try put(map, "kept", 3 * mib);
    support.closeMap(map);
    try expect(try allocated(other) > 16 * mib); // it was not the last
    support.closeMap(other);
    map = try openNamed(name, .attach);
    try isGiven(map, 4 * mib);
    if (!support.has_forks) return;
    // One that is killed gives nothing back; the next one does.
    support.closeMap(map);
    const child = std.c.fork();
    if (child == 0) {
        const own = openNamed(name, .attach) catch linux.exit_group(1);
        fillSmall(own, 5000) catch linux.exit_group(1);
        calls.clear(own) catch linux.exit_group(1);
        if ((allocated(own) catch 0) < 16 * mib) linux.exit_group(2);
        linux.exit_group(0);
    }
    var how: u32 = 0;
    _ = linux.waitpid(child, &how, 0);
    map = try openNamed(name, .attach);
    try expectEqual(@as(u32, 0), how);
    try isGiven(map, 4 * mib);
}

test "space: a damaged list of parked extents, and a damaged word, are mended by repair" {
    if (!os.has_holes) return error.SkipZigTest;
    const trying: Trying = .with(.{ .small = false });
    defer trying.end();
    const map = try support.openMap(0, 0);
    defer support.closeMap(map);
    const pool = &map.segment.header().pool;
    try put(map, "kept", 2 * mib);
    for ([_]u64{ 1, layout.page_bytes, 1 << 40, map.segment.view.data_start }) |word| {
        for (0..6) |which| {
            // A length that could be right is found to be wrong by no check.
            if (which == 5 and word == layout.page_bytes) continue;
            for ([_][]const u8{ "a", "b" }) |key| try put(map, key, 3 * mib);
            for ([_][]const u8{ "a", "b" }) |key| _ = try calls.delete(map, key);
            try expect(pool.parked != 0);
            const first = map.segment.view.chunk(pool.parked);
            const words = [_]*u64{
                &pool.parked, &pool.moving, &pool.parked_bytes, &pool.hole_bytes, //
                &first.next,  &first.dense,
            };
            words[which].* = word;
            // Errors at most, until it is mended.
            put(map, "other", 3 * mib) catch |err| try expectEqual(error.Corrupt, err);
            _ = calls.compact(map) catch |err| try expectEqual(error.Corrupt, err);
            const verdict = try calls.repair(map);
            try expect(verdict.problems == 0 and verdict.busy == 0);
            try expectBlocks(map);
            try put(map, "other", 3 * mib);
            try support.expectSound(map);
        }
        const kept = (try calls.get(map, "kept", &target, 1)).?;
        try expect(kept.len == 2 * mib and std.mem.allEqual(u8, target[0..kept.len], 7));
    }
}

/// Ends the process before its store of that number; pages that are emptied are one.
const Kill = struct {
    observer: atomics.Observer = .{ .seen = seen, .emptied = emptied },
    left: u32,

    fn seen(observer: *atomics.Observer, _: *const u64, _: u64) void {
        const kill: *Kill = @fieldParentPtr("observer", observer);
        if (kill.left == 0) _ = linux.kill(linux.getpid(), .KILL);
        kill.left -= 1;
    }

    fn emptied(observer: *atomics.Observer, words: [*]const u64, _: usize) void {
        seen(observer, @ptrCast(words), 0);
    }
};

/// What the process does that is killed.
const Doing = enum { putting, deleting, punching };

fn storeAndDie(parent: *Map, token: []const u8, stores: u32, doing: Doing) noreturn {
    os.close(parent.segment.locks);
    os.close(parent.segment.file);
    const map = support.openToken(token, 5000) catch linux.exit_group(1);
    var kill: Kill = .{ .left = stores };
    if (doing != .putting) put(map, "large", mib + mib / 16) catch linux.exit_group(2);
    if (doing == .punching) {
        for ([_][]const u8{ "large", "larger" }) |key| {
            put(map, "larger", 2 * mib) catch linux.exit_group(2);
            _ = calls.delete(map, key) catch linux.exit_group(2);
        }
    }
    atomics.observer = &kill.observer;
    switch (doing) {
        .putting => put(map, "large", mib + mib / 16) catch linux.exit_group(2),
        .deleting => _ = calls.delete(map, "large") catch linux.exit_group(2),
        .punching => if ((punchAll(map) catch 0) < 2 * mib) linux.exit_group(2),
    }
    linux.exit_group(3);
}

test "space: a process killed at any store leaves no word without its blocks" {
    if (!support.has_forks or !os.has_holes) return error.SkipZigTest;
    const trying: Trying = .with(.{ .small = false });
    defer trying.end();
    for (std.enums.values(Doing)) |doing| {
        for (0..50) |stores| {
            const map = try support.openMap(0, 0);
            defer support.closeMap(map);
            try put(map, "small", 10);
            var buffer: [200]u8 = undefined;
            const token = buffer[0..try map.segment.token(&buffer)];
            const child = std.c.fork();
            if (child == 0) storeAndDie(map, token, @intCast(stores), doing);
            var how: u32 = 0;
            _ = linux.waitpid(child, &how, 0);
            const is_over = !linux.W.IFSIGNALED(how);
            if (is_over) try expectEqual(@as(u32, 3), linux.W.EXITSTATUS(how));
            try expectEqual(@as(f64, 0), (try calls.repair(map)).problems);
            // What was allocated behind `committed` is cut off by the next sole writer.
            try expect(try allocated(map) >= map.segment.blockBytes());
            try support.expectSound(map);
            try put(map, "large", mib + mib / 16);
            try expectBlocks(map);
            if (is_over) break;
        }
    }
}
