//! Reads that writers overtake while they copy, in every place where that matters: what happens to
//! other keys starts no read again and takes no lock, and what happens to the very key is never
//! torn. Where a writer overtakes is fixed by hooks (`atomics.moment`, `atomics.pause`).

const std = @import("std");
const atomics = @import("../atomics.zig");
const bulk = @import("bulk.zig");
const calls = @import("../testing/calls.zig");
const gathered = @import("gathered.zig");
const hash = @import("../stripe/hash.zig");
const layout = @import("../layout.zig");
const maps = @import("map.zig");
const os = @import("../os/os.zig");
const parked = @import("../stripe/parked.zig");
const read = @import("read.zig");
const support = @import("../testing/support.zig");
const tables = @import("../stripe/table.zig");

const Map = maps.Map;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const gpa = std.testing.allocator;

/// Three pieces.
const large_bytes = 3 << 20;

/// One handle's writes to a map of one stripe, which the hooks of a test make.
var writer: *Map = undefined;
var value: [large_bytes]u8 = undefined;
var target: [large_bytes + 64]u8 = undefined;

fn filled(byte: u8, len: usize) []const u8 {
    @memset(value[0..len], byte);
    return value[0..len];
}

fn put(key: []const u8, bytes: []const u8) void {
    _ = calls.put(writer, key, bytes, 1, .none) catch @panic("a put failed");
}

fn otherKey(n: usize) [8]u8 {
    var key: [8]u8 = @splat('o');
    std.mem.writeInt(u32, key[0..4], @intCast(n), .little);
    return key;
}

/// Where the entry of a key lies.
fn placeOf(key: []const u8) u64 {
    const word = atomics.load(&writer.segment.view.stripe(0).table);
    const table = tables.Table.of(&writer.segment.view, word);
    const tag = hash.tagOf(writer.hashOf(key).fast);
    var probe: tables.Probe = undefined;
    std.debug.assert(tables.find(&writer.segment.view, table, tag, key, &probe) == .found);
    return probe.entry.offset;
}

/// Runs with the hooks off, so that a hook can use the map.
fn withoutHooks(comptime run: fn () void) void {
    const moment = atomics.moment;
    const pause = atomics.pause;
    atomics.moment = null;
    atomics.pause = null;
    defer atomics.moment = moment;
    defer atomics.pause = pause;
    run();
}

var pieces: u32 = 0;

const OthersWrite = struct {
    fn replace() void {
        for (0..100) |i| put(&otherKey(i), "other");
    }

    fn onMoment(moment: atomics.Moment) void {
        if (moment != .piece_copied) return;
        pieces += 1;
        withoutHooks(replace);
    }
};

/// `target` has the one answer of a batch: a value of this length, of this byte alone.
fn expectAnswer(len: u32, byte: u8) !void {
    const answer = std.mem.bytesToValue(bulk.Answer, target[0..@sizeOf(bulk.Answer)]);
    try expectEqual(len, answer.value_len);
    try expect(std.mem.allEqual(u8, target[@sizeOf(bulk.Answer)..][0..len], byte));
}

test "starve: what is written to other keys starts no read again" {
    writer = try support.openMap(0, 64 << 20);
    defer support.closeMap(writer);
    const reader = try support.openReader(writer, 0);
    defer support.closeMap(reader);
    put("large", filled(1, large_bytes));
    OthersWrite.replace();
    const stripe = writer.segment.view.stripe(0);
    atomics.moment = OthersWrite.onMoment;
    defer atomics.moment = null;
    read.last_resorts = 0;
    for ([_]*Map{ writer, reader }) |map| {
        const before = stripe.generation;
        pieces = 0;
        const meta = (try read.get(map, "large", &target, 1)).?;
        try expectEqual(large_bytes, meta.len);
        try expectEqual(3, pieces);
        try expect(stripe.generation - before > 6);
        try expect(std.mem.allEqual(u8, target[0..large_bytes], 1));
        pieces = 0;
        try expectEqual(1, try bulk.getBatch(map, "\x05\x00\x00\x00large", 1, &target));
        try expectEqual(3, pieces);
        try expectAnswer(large_bytes, 1);
    }
    // A snapshot by a handle that cannot take locks: the others write while it copies the large
    // value only.
    pieces = 0;
    const bytes = try calls.snapshot(reader);
    try expectEqual(3, pieces);
    try expectEqual(101, gathered.countRecords(reader, bytes));
    try expectLargeIs(reader, bytes, 1);
    try expectEqual(0, read.last_resorts);
}

fn expectLargeIs(map: *Map, bytes: u64, byte: u8) !void {
    var at: usize = 0;
    while (at < bytes) : (at += gathered.recordBytes(map.gathered, at)) {
        const key = gathered.keyOf(map.gathered, at);
        if (!std.mem.eql(u8, key, "large")) continue;
        const from = at + @sizeOf(gathered.Record) + key.len;
        return expect(std.mem.allEqual(u8, map.gathered[from..][0..large_bytes], byte));
    }
    return error.TestUnexpectedResult;
}

/// Other keys come and go, so that the table grows and shrinks again and again.
const OthersReplaceTable = struct {
    var seen: u64 = 0;
    var tables_seen: u64 = 0;

    fn comeAndGo() void {
        for (0..50) |i| put(&otherKey(i), "other");
        for (0..50) |i| _ = calls.delete(writer, &otherKey(i)) catch @panic("a delete failed");
        const word = writer.segment.view.stripe(0).table;
        tables_seen += @intFromBool(word != seen);
        seen = word;
    }

    fn onPause() void {
        withoutHooks(comeAndGo);
    }

    fn onMoment(moment: atomics.Moment) void {
        if (moment == .slot_loaded) withoutHooks(comeAndGo);
    }
};

test "starve: a table that is replaced all the time makes no iteration start again" {
    writer = try support.openMap(0, 64 << 20);
    defer support.closeMap(writer);
    const reader = try support.openReader(writer, 0);
    defer support.closeMap(reader);
    // One short key, and one that takes long to copy, like its value.
    const long_key: [20_000]u8 = @splat('l');
    put("short", filled(1, 60_000));
    put(&long_key, filled(2, 60_000));
    read.last_resorts = 0;
    for ([_]*Map{ writer, reader }) |map| {
        for ([_]bool{ false, true }) |keys_only| {
            OthersReplaceTable.tables_seen = 0;
            atomics.pause = OthersReplaceTable.onPause;
            defer atomics.pause = null;
            const bytes = try calls.gatherStripe(map, 0, keys_only);
            try expect(OthersReplaceTable.tables_seen > 1);
            var found: [2]u32 = @splat(0);
            var at: usize = 0;
            while (at < bytes) : (at += gathered.recordBytes(map.gathered, at)) {
                const key = gathered.keyOf(map.gathered, at);
                if (key.len == 8) continue; // one of the others
                const which: u8 = @intFromBool(std.mem.eql(u8, key, &long_key));
                try expect(which == 1 or std.mem.eql(u8, key, "short"));
                found[which] += 1;
                if (keys_only) continue;
                const copy = map.gathered[at + @sizeOf(gathered.Record) + key.len ..][0..60_000];
                try expect(std.mem.allEqual(u8, copy, which + 1));
            }
            try expectEqual([2]u32{ 1, 1 }, found);
        }
    }
    try expectEqual(0, read.last_resorts);
}

/// What happens to the one key of an iteration while it is copied: for the second time, after what
/// was written to others has made the first try one in vain.
const KeyChanges = struct {
    const key = "the key that is copied";

    var deed: enum { replace, reuse } = .replace;
    var copies: u32 = 0;

    fn change() void {
        if (copies == 1) return OthersReplaceTable.comeAndGo();
        switch (deed) {
            .replace => for (0..100) |_| put(key, "another value"),
            .reuse => {
                const before = placeOf(key);
                calls.clear(writer) catch @panic("a clear failed");
                for (0..10) |i| put(&otherKey(i), filled(0xff, 60_000));
                std.debug.assert(writer.segment.view.at(before)[3] == std.math.maxInt(u64));
                put(key, "another value");
            },
        }
    }

    fn onPause() void {
        copies += 1;
        if (copies <= 2) withoutHooks(change);
    }
};

test "starve: a key that changes while it is copied is there once, and whole" {
    // Small extents are never used again by what is reused here.
    const extents: support.Trying(parked) = .with(.{ .small = false });
    defer extents.end();
    for ([_]@TypeOf(KeyChanges.deed){ .replace, .reuse }) |deed| {
        writer = try support.openMap(0, 64 << 20);
        defer support.closeMap(writer);
        for (0..200) |i| put(&otherKey(i), filled(0, 500));
        put(KeyChanges.key, "value");
        for (0..200) |i| _ = try calls.delete(writer, &otherKey(i));
        KeyChanges.deed = deed;
        KeyChanges.copies = 0;
        atomics.pause = KeyChanges.onPause;
        defer atomics.pause = null;
        const bytes = try calls.gatherStripe(writer, 0, true);
        var found: u32 = 0;
        var at: usize = 0;
        while (at < bytes) : (at += gathered.recordBytes(writer.gathered, at)) {
            const key = gathered.keyOf(writer.gathered, at);
            if (std.mem.eql(u8, key, KeyChanges.key)) found += 1 else try expectEqual(8, key.len);
        }
        try expectEqual(1, found);
    }
}

test "starve: a look that thought it found damage leaves no record" {
    writer = try support.openMap(0, 64 << 20);
    defer support.closeMap(writer);
    for (0..200) |i| put(&otherKey(i), filled(0, 500));
    put("key", "value");
    // The block that the slot named is part of a large value by the time the entry is looked at.
    const Damaging = struct {
        var has_run = false;

        fn reuse() void {
            const before = placeOf("key");
            calls.clear(writer) catch @panic("a clear failed");
            for (0..10) |i| put(&otherKey(i), filled(0xff, 60_000));
            const sizes = writer.segment.view.at(before)[1];
            has_run = sizes == std.math.maxInt(u64);
        }

        fn onMoment(moment: atomics.Moment) void {
            if (moment == .slot_loaded and !has_run) withoutHooks(reuse);
        }
    };
    atomics.moment = Damaging.onMoment;
    defer atomics.moment = null;
    try expectEqual(null, try read.getSlow(writer, "key", &target, 1));
    try expect(Damaging.has_run);
    try expectEqual(0, writer.fault.reason);
}

/// While the key's value is copied, the key changes until its entry lies where it lay before.
const ComesBack = struct {
    var has_come_back = false;

    fn replace() void {
        const before = placeOf("large");
        for (0..20) |i| {
            put("large", filled(@intCast(2 + i), large_bytes));
            if (placeOf("large") != before) continue;
            has_come_back = true;
            return;
        }
    }

    fn onMoment(moment: atomics.Moment) void {
        if (moment != .piece_copied) return;
        pieces += 1;
        if (pieces == 2) withoutHooks(replace);
    }
};

test "starve: a value that came back to its place is another value" {
    writer = try support.openMap(0, 64 << 20);
    defer support.closeMap(writer);
    put("large", filled(1, large_bytes));
    atomics.moment = ComesBack.onMoment;
    defer atomics.moment = null;
    pieces = 0;
    _ = (try read.get(writer, "large", &target, 1)).?;
    try expect(ComesBack.has_come_back);
    try expect(std.mem.allEqual(u8, target[0..large_bytes], target[0]));
    try expectEqual(2 + 3, pieces); // it started again at once
    // The same of a snapshot, which has the value of the instant it shows.
    ComesBack.has_come_back = false;
    pieces = 0;
    const shown = try calls.snapshot(writer);
    try expect(ComesBack.has_come_back);
    const first = writer.gathered[@sizeOf(gathered.Record) + "large".len];
    try expectLargeIs(writer, shown, first);
}

/// A block that is given out again and filled with the key's next value, while a reader is between
/// the slot that names it and its header.
const Refill = struct {
    const bytes = 512 << 10;
    /// 1: the reader has the slot; 2: the writer stopped in the middle of the block; 3: the reader
    /// has its copy; 4: the value is published.
    var stage: std.atomic.Value(u32) = .init(0);
    var watched: usize = 0;
    var looks: u32 = 0;
    var observer: atomics.Observer = .{ .seen = onStore };

    fn waitFor(n: u32) void {
        while (stage.load(.acquire) < n) os.sleepNs(100_000);
    }

    fn onStore(_: *atomics.Observer, word: *const u64, _: u64) void {
        if (@intFromPtr(word) != watched or stage.load(.acquire) != 1) return;
        stage.store(2, .release);
        waitFor(3);
    }

    fn run(map: *Map) void {
        waitFor(1);
        atomics.observer = &observer;
        var own: [bytes]u8 = undefined;
        for (0..50) |i| {
            @memset(&own, @intCast(100 + i));
            _ = calls.put(map, "key", &own, 1, .none) catch @panic("a put failed");
            if (stage.load(.acquire) == 3) break;
        }
        stage.store(4, .release);
    }

    fn onMoment(moment: atomics.Moment) void {
        switch (moment) {
            .slot_loaded => {
                looks += 1;
                if (looks == 1) return; // this look only finds that the value is large
                if (looks > 2) return letGo();
                stage.store(1, .release);
                waitFor(2);
            },
            .piece_copied => letGo(),
            .clock_read => {}, // no entry here ends
        }
    }

    /// The other value is finished, and published in the very same place.
    fn letGo() void {
        if (stage.load(.acquire) != 2) return;
        stage.store(3, .release);
        waitFor(4);
    }
};

test "starve: a version that is just being written says nothing" {
    writer = try support.openMap(0, 64 << 20);
    defer support.closeMap(writer);
    const reader = try support.openAgain(writer, 5000);
    defer support.closeMap(reader);
    for (0..8) |_| put("key", filled(1, Refill.bytes));
    const words = writer.segment.view.at(placeOf("key"));
    Refill.watched = @intFromPtr(&words[Refill.bytes / 16]);
    const thread = try std.Thread.spawn(.{}, Refill.run, .{writer});
    atomics.moment = Refill.onMoment;
    defer atomics.moment = null;
    const meta = try read.getSlow(reader, "key", &target, 1);
    Refill.letGo();
    thread.join();
    try expectEqual(4, Refill.stage.load(.acquire));
    try expectEqual(Refill.bytes, meta.?.len);
    try expect(std.mem.allEqual(u8, target[0..Refill.bytes], target[0]));
}

/// A writer of other keys at full speed, some of which come and go.
const Busy = struct {
    map: *Map,
    stop: std.atomic.Value(bool) = .init(false),
    writes: std.atomic.Value(u64) = .init(0),

    fn run(busy: *Busy) void {
        var n: u64 = 0;
        while (!busy.stop.load(.monotonic)) : (n += 1) {
            const key = otherKey(n % 300);
            _ = calls.put(busy.map, &key, "other", 1, .none) catch @panic("a put failed");
            if (n % 3 == 0) _ = calls.delete(busy.map, &key) catch @panic("a delete failed");
            busy.writes.store(n, .monotonic);
        }
    }
};

test "starve: beside a writer at full speed no read takes a lock" {
    for ([_]layout.LockKind{ support.usual_lock, .kernel }) |lock| {
        const map = try support.openMapOf(lock, 0, 64 << 20);
        defer support.closeMap(map);
        const readers = [2]*Map{
            try support.openAgain(map, 1000),
            try support.openReader(map, 1000),
        };
        defer for (readers) |reader| support.closeMap(reader);
        const sizes = [_]u32{ 1 << 10, 60 << 10, 100 << 10, large_bytes };
        for (sizes, "abcd") |size, name|
            _ = try calls.put(map, &.{name}, filled(name, size), 1, .none);
        var busy: Busy = .{ .map = map };
        const thread = try std.Thread.spawn(.{}, Busy.run, .{&busy});
        defer thread.join();
        defer busy.stop.store(true, .monotonic);
        while (busy.writes.load(.monotonic) < 1000) os.sleepNs(100_000);
        read.last_resorts = 0;
        for (0..support.times(20)) |_| for (readers) |reader| {
            for (sizes, "abcd") |size, name| {
                const meta = (try read.get(reader, &.{name}, &target, 1)).?;
                try expectEqual(size, meta.len);
                try expect(std.mem.allEqual(u8, target[0..size], name));
                try expectEqual(1, try bulk.getBatch(reader, &.{ 1, 0, 0, 0, name }, 1, &target));
                try expectAnswer(size, name);
            }
            const bytes = try calls.gatherStripe(reader, 0, false);
            var found: u32 = 0;
            var at: usize = 0;
            while (at < bytes) : (at += gathered.recordBytes(reader.gathered, at))
                found += @intFromBool(gathered.keyOf(reader.gathered, at).len == 1);
            try expectEqual(4, found);
        };
        try expectEqual(0, read.last_resorts);
        // A snapshot of a writing handle may take them, for the small values.
        const bytes = try calls.snapshot(readers[0]);
        try expect(bytes > large_bytes);
    }
}

test "starve: a walk by class goes on where a table of another size left it" {
    writer = try support.openMap(0, 64 << 20);
    defer support.closeMap(writer);
    const iterate = @import("iterate.zig");
    // Keys that stay, and others that come and go in masses between two classes.
    for (0..100) |i| put(&otherKey(i), "stays");
    var prng = std.Random.DefaultPrng.init(support.seedOf(5));
    const random = prng.random();
    for (0..50) |_| {
        var progress: iterate.Progress = .{ .stripe = 0 };
        var found: [100]u8 = @splat(0);
        var sizes: u64 = 0;
        writer.gathered_len = 0;
        while (true) {
            const step = try iterate.gatherClass(writer, &progress, .{ .detail = .keys });
            if (step == .again) @panic("the hash did not change");
            if (step == .over) break;
            if (random.uintLessThan(u8, 10) != 0) continue;
            const count = random.uintLessThan(usize, 2000);
            for (0..count) |i| put(&otherKey(1000 + i), "comes");
            for (count..2000) |i|
                _ = try calls.delete(writer, &otherKey(1000 + i));
            const word: layout.TableWord = @bitCast(writer.segment.view.stripe(0).table);
            sizes |= @as(u64, 1) << word.log2;
        }
        var at: usize = 0;
        while (at < writer.gathered_len) : (at += gathered.recordBytes(writer.gathered, at)) {
            const n = std.mem.readInt(u32, gathered.keyOf(writer.gathered, at)[0..4], .little);
            if (n < 100) found[n] += 1;
        }
        try expect(std.mem.allEqual(u8, &found, 1));
        try expect(@popCount(sizes) > 1);
    }
}

test "starve: a stripe that changes its hash is walked from the start, once" {
    writer = try support.openMap(0, 64 << 20);
    defer support.closeMap(writer);
    for (0..40) |i| put(&otherKey(i), "stays");
    const Flood = struct {
        var copies: u32 = 0;

        fn flood() void {
            for (0..40) |n| put(&hash.collidingKey(&writer.secrets, n), "flood");
        }

        fn onPause() void {
            copies += 1;
            if (copies == 20) withoutHooks(flood);
        }
    };
    atomics.pause = Flood.onPause;
    defer atomics.pause = null;
    const bytes = try calls.gatherStripe(writer, 0, true);
    const word: layout.TableWord = @bitCast(writer.segment.view.stripe(0).table);
    try expect(word.sip);
    try expectEqual(80, gathered.countRecords(writer, bytes));
}
