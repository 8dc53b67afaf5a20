//! What a call waits for, and for how long in all: one deadline for each call, for all that it
//! passes on its way; no clock that people set; no clock at all where nothing is busy. And what a
//! call notes of its failure: nothing of an earlier one.

const std = @import("std");
const abi = @import("../root.zig").abi;
const atomics = @import("../atomics.zig");
const calls = @import("../testing/calls.zig");
const handles = @import("handles.zig");
const layout = @import("../layout.zig");
const maps = @import("../map/map.zig");
const os = @import("../os/os.zig");
const regions = @import("../region/region.zig");
const spaces = @import("../stripe/space.zig");
const status = @import("../status.zig");
const support = @import("../testing/support.zig");
const StripeOp = @import("../map/stripe_op.zig").StripeOp;

const Map = maps.Map;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const expectError = std.testing.expectError;

const kinds = [_]layout.LockKind{ support.usual_lock, .kernel };
const timeout_ms = 100;
/// Ten times what a call may take.
const deadline_ns = 10 * timeout_ms * std.time.ns_per_ms;

/// Stripes, and perhaps the pool, that another handle holds and does not give back.
const Held = struct {
    by: *Map,
    stripes: [64]?StripeOp = @splat(null),
    has_pool: bool = false,

    fn take(held: *Held, stripes: []const u32, pool: bool) !void {
        for (stripes) |i| held.stripes[i] = try StripeOp.lock(held.by, i);
        if (!pool) return;
        _ = try spaces.lockPool(&held.by.segment);
        held.has_pool = true;
    }

    fn giveBack(held: *Held) void {
        for (&held.stripes) |*stripe| if (stripe.*) |*op| op.unlock();
        if (held.has_pool) spaces.unlockPool(&held.by.segment);
        held.* = .{ .by = held.by };
    }
};

/// Two handles on a map of 64 stripes with a key in each, the second of which waits for `timeout`.
const Pair = struct {
    first: *Map,
    second: *Map,
    held: Held,

    fn of(kind: layout.LockKind) !Pair {
        const first = try support.openMapOf(kind, 6, 64 << 20);
        errdefer support.closeMap(first);
        for (0..1000) |n| {
            const key: u64 = n;
            _ = try calls.put(first, std.mem.asBytes(&key), "value", 1, .none);
        }
        const second = try support.openAgain(first, timeout_ms);
        return .{ .first = first, .second = second, .held = .{ .by = first } };
    }

    fn close(pair: *Pair) void {
        pair.held.giveBack();
        support.closeMap(pair.second);
        support.closeMap(pair.first);
    }
};

const all_stripes = blk: {
    var numbers: [64]u32 = undefined;
    for (&numbers, 0..) |*number, i| number.* = i;
    break :blk numbers;
};

/// What the clocks were asked during a call, and how long it took.
const Watch = struct {
    deadlines: u64,
    monotonic: u64,
    wall: u64,
    start_ns: u64,

    fn start() Watch {
        const now = os.monotonicNs();
        return .{
            .deadlines = os.clocks.deadlines,
            .monotonic = os.clocks.monotonic_reads,
            .wall = os.clocks.wall_reads,
            .start_ns = now,
        };
    }

    /// One deadline began, and the call ended by it.
    fn expectOneTimeout(watch: Watch) !void {
        try expectEqual(watch.deadlines + 1, os.clocks.deadlines);
        try expectEqual(watch.wall, os.clocks.wall_reads);
        const took = os.monotonicNs() - watch.start_ns;
        try expect(took >= timeout_ms * std.time.ns_per_ms / 2 and took < deadline_ns);
    }

    fn expectNoClock(watch: Watch) !void {
        try expectEqual(watch.monotonic, os.clocks.monotonic_reads);
        try expectEqual(watch.wall, os.clocks.wall_reads);
    }
};

/// Called before each copy of a value: to a snapshot it looks as if others wrote without an end.
fn writeMeanwhile() void {
    const stripe = written.?.segment.view.stripe(0);
    atomics.store(&stripe.begin, atomics.load(&stripe.begin) + 1);
    atomics.store(&stripe.end, atomics.load(&stripe.end) + 1);
}
threadlocal var written: ?*Map = null;

/// One record of `putMany`.
const record = "\x01\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00" ++
    "kv\x00\x00\x00\x00\x00\x00";

const Act = enum { put, put_many, delete, clear, lock, snapshot };

fn actOn(map: *Map, act: Act) !void {
    const key: u64 = 5;
    switch (act) {
        .put => _ = try calls.put(map, std.mem.asBytes(&key), "new", 1, .none),
        .delete => _ = try calls.delete(map, std.mem.asBytes(&key)),
        .put_many => {
            var stored: u32 = 0;
            try calls.putMany(map, record, 1, &stored);
        },
        .clear => try calls.clear(map),
        .lock => {
            _ = try calls.acquire(map, timeout_ms);
            calls.release(map, false);
        },
        .snapshot => _ = try calls.snapshot(map),
    }
}

test "a call that meets every stripe held ends after one timeout" {
    for (kinds) |kind| {
        var pair: Pair = try .of(kind);
        defer pair.close();
        defer atomics.pause = null;
        try pair.held.take(&all_stripes, false);
        written = pair.first;
        for (std.enums.values(Act)) |act| {
            const watch: Watch = .start();
            atomics.pause = if (act == .snapshot) &writeMeanwhile else null;
            try expectError(error.Timeout, actOn(pair.second, act));
            try watch.expectOneTimeout();
        }
        atomics.pause = null;
        pair.held.giveBack();
        for (std.enums.values(Act)) |act| try actOn(pair.second, act);
    }
}

test "a call that waits for one stripe after the other ends after one timeout" {
    for (kinds) |kind| {
        var pair: Pair = try .of(kind);
        defer pair.close();
        for ([_]bool{ false, true }) |has_pool| for ([_]bool{ false, true }) |repairs| {
            try pair.held.take(&.{ 7, 40, 63 }, has_pool);
            defer pair.held.giveBack();
            const watch: Watch = .start();
            const verdict = try if (repairs)
                calls.repair(pair.second)
            else
                calls.verify(pair.second);
            try watch.expectOneTimeout();
            // Without the pool nothing is repaired, but all is looked at, each stripe once.
            const parts: f64 = if (!has_pool) 3 else if (repairs) 65 else 4;
            try expectEqual(parts, verdict.busy);
            try expectEqual(@as(f64, 0), verdict.problems);
            try expect(verdict.entries > 900 and verdict.entries < 1000);
            for (all_stripes) |i| {
                const is_held = i == 7 or i == 40 or i == 63;
                try expect(is_held or pair.first.segment.view.stripe(i).writer == 0);
            }
        };
        pair.held.giveBack();
        try support.expectSound(pair.second);
        try expectEqual(@as(f64, 0), (try calls.repair(pair.second)).busy);
    }
}

test "a stripe that is damaged is reported beside one that is held" {
    var pair: Pair = try .of(.kernel);
    defer pair.close();
    try pair.held.take(&.{3}, false);
    pair.first.segment.view.stripe(9).evictions = 5;
    const verdict = try calls.verify(pair.second);
    try expectEqual(@as(f64, 1), verdict.busy);
    try expectEqual(@as(f64, 1), verdict.problems);
    try expectEqual(@as(f64, 9), verdict.stripe);
    const repaired = try calls.repair(pair.second);
    try expectEqual(@as(f64, 1), repaired.busy);
    try expectEqual(@as(f64, 0), repaired.problems);
}

test "a repair waits for the user's lock as any write does, and changes nothing without" {
    for (kinds) |kind| {
        var pair: Pair = try .of(kind);
        defer pair.close();
        _ = try calls.acquire(pair.first, 0);
        const watch: Watch = .start();
        try expectError(error.Timeout, calls.repair(pair.second));
        try watch.expectOneTimeout();
        try expectEqual(@as(f64, @floatFromInt(os.pid())), pair.second.fault.holder_pid);
        try expectError(error.Timeout, actOn(pair.second, .put));
    }
}

test "the parts of one call have one deadline" {
    var pair: Pair = try .of(support.usual_lock);
    defer pair.close();
    try pair.held.take(&all_stripes, false);
    const handle = calls.handleOf(pair.second);
    const watch: Watch = .start();
    for ([_]u32{ 0, 1, 1 }) |continues| {
        const timeout = status.status(error.Timeout);
        const arguments = .{ handle, record, @as(u32, record.len), @as(u32, 1), continues };
        try expectEqual(timeout, calls.call(.shm_map_put_many, arguments));
    }
    try watch.expectOneTimeout();
}

test "no clock is read where nothing is busy" {
    for (kinds) |kind| {
        var pair: Pair = try .of(kind);
        defer pair.close();
        const map = pair.second;
        const watch: Watch = .start();
        for (std.enums.values(Act)) |act| try actOn(map, act);
        try expect((try calls.attempt(map, 0)) != null);
        calls.release(map, false);
        var target: [16]u8 = undefined;
        const key: u64 = 6;
        _ = try calls.get(map, std.mem.asBytes(&key), &target, 0);
        _ = try calls.getBatch(map, "\x01\x00\x00\x00k", 1, &target);
        _ = try calls.size(map);
        _ = try calls.verify(map);
        _ = try calls.repair(map);
        _ = try calls.stats(map);
        // For these it needs the pool, growth, and larger blocks.
        const large: [9000]u8 = @splat('l');
        for (0..400) |n| {
            const another: u64 = n;
            _ = try calls.put(map, std.mem.asBytes(&another), large[0 .. n * 22], 1, .none);
        }
        const third = try support.openAgain(map, timeout_ms);
        support.closeMap(third);
        try watch.expectNoClock();
    }
}

test "an earlier failure leaves no word in the record of a later one" {
    @setEvalBranchQuota(20_000);
    const stale = 12345.0;
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    // Each call finds that it was replaced.
    map.segment.setState(.replaced);
    const handle = calls.handleOf(map);
    var bytes: [4096]u8 = @splat(0);
    bytes[0] = 1; // a key's length, and a key
    bytes[4] = 'k';
    var failed: u32 = 0;
    inline for (abi.symbols.nouns) |noun| {
        inline for (@typeInfo(noun).@"struct".decls) |declaration| {
            const function = @field(noun, declaration.name);
            const T = @TypeOf(function);
            if (@typeInfo(T) != .@"fn") continue;
            if (comptime takesHandle(declaration.name, T)) {
                fillWith(&map.fault, stale);
                map.segment.deadline = .{ .timeout_ms = 1, .end_ns = 1, .is_used = true };
                var arguments: std.meta.ArgsTuple(T) = undefined;
                inline for (&arguments, 0..) |*each, i| each.* = switch (@TypeOf(each.*)) {
                    u32 => if (i == 0) handle else 5,
                    f64 => 0,
                    else => &bytes,
                };
                const result = @call(.auto, function, arguments);
                if (isFailure(result)) {
                    failed += 1;
                    if (keeps(&map.fault, stale)) |field| {
                        std.debug.print("{s} keeps {s}\n", .{ declaration.name, field });
                        return error.TestUnexpectedResult;
                    }
                    if (map.segment.deadline.end_ns == 1) {
                        std.debug.print("{s} has an old deadline\n", .{declaration.name});
                        return error.TestUnexpectedResult;
                    }
                }
            }
        }
    }
    map.segment.setState(.live);
    try expect(failed >= 14);
}

test "what a call notes that goes well is in the record of no later one" {
    const map = try support.openMap(0, 1 << 20);
    defer support.closeMap(map);
    const value: [3000]u8 = @splat('v');
    for (0..200) |n| {
        const key: u64 = n;
        // It grows the segment, and late ones find it full.
        _ = calls.put(map, std.mem.asBytes(&key), value[0 .. n * 15], 1, .absent) catch {};
        map.segment.setState(.replaced);
        defer map.segment.setState(.live);
        if (n % 2 == 0) {
            try expectError(error.Replaced, calls.delete(map, "key"));
        } else try expectError(error.Replaced, calls.put(map, "key", "value", 1, .absent));
        try expectEqual(status.Fault{}, map.fault);
    }
}

test "a deadline that has begun is no later call's" {
    var pair: Pair = try .of(support.usual_lock);
    defer pair.close();
    for ([_]Act{ .put, .delete, .put, .clear, .delete }) |act| {
        try pair.held.take(&all_stripes, false);
        const watch: Watch = .start();
        try expectError(error.Timeout, actOn(pair.second, act));
        try watch.expectOneTimeout();
        pair.held.giveBack();
        // As if this call had waited, and gone well.
        _ = pair.second.segment.deadline.left(1);
        try actOn(pair.second, act);
    }
}

fn fillWith(fault: *status.Fault, number: f64) void {
    inline for (@typeInfo(status.Fault).@"struct".fields) |field| {
        if (field.type == f64) @field(fault, field.name) = number;
    }
}

/// The name of a number that is still this one.
fn keeps(fault: *const status.Fault, number: f64) ?[]const u8 {
    inline for (@typeInfo(status.Fault).@"struct".fields) |field| {
        if (field.type == f64) if (@field(fault, field.name) == number) return field.name;
    }
    return null;
}

fn takesHandle(comptime name: []const u8, comptime T: type) bool {
    const parameters = @typeInfo(T).@"fn".params;
    return parameters.len > 0 and parameters[0].type == u32 and
        !std.mem.eql(u8, name, "shm_segment_close") and
        !std.mem.startsWith(u8, name, "shm_region_") and
        !std.mem.startsWith(u8, name, "shm_realm_");
}

/// Whether a call failed in a way that its record says more of.
fn isFailure(result: anytype) bool {
    const code: i32 = if (@TypeOf(result) == f64)
        (if (result < 0) @intFromFloat(result) else return false)
    else
        @bitCast(result);
    if (code >= 0) return false;
    return switch (@as(status.Status, @enumFromInt(code))) {
        .absent, .unchanged, .invalidArgument, .closed => false,
        else => true,
    };
}

test "the call behind a lock waits as long as its handle says" {
    const map = try support.openMap(0, 1 << 20);
    defer support.closeMap(map);
    const other = try support.openAgain(map, 200);
    defer support.closeMap(other);
    for ([_]enum { attempt, acquire }{ .attempt, .acquire }) |way| {
        // Taking the lock looks at each stripe, for so many milliseconds at least and in all.
        switch (way) {
            .attempt => try expect(try calls.attempt(other, 0) != null),
            .acquire => _ = try calls.acquire(other, 1),
        }
        calls.release(other, false);
        _ = try calls.acquire(map, 1000);
        defer calls.release(map, false);
        const start = os.monotonicNs();
        try expectError(error.Timeout, calls.put(other, "key", "value", 1, .none));
        try expect(os.monotonicNs() - start >= 150 * std.time.ns_per_ms);
    }
}

test "the holder of a lock that is free by now is not named as another's" {
    const regions_of = try openRegions();
    defer for (regions_of) |region| {
        region.close();
        handles.regions.discard(region);
    };
    var numbers: [3]u32 = undefined;
    for (&numbers, regions_of) |*number, region| number.* = handles.regions.add(region, 0).?;
    defer for (numbers) |number| {
        _ = handles.regions.remove(number);
    };
    try expectEqual(@as(i32, 0), abi.lock.shm_lock_acquire(numbers[0], 0, 0));
    try expectEqual(@as(i32, -1), abi.lock.shm_lock_try(numbers[1], 0, 0)); // it names the holder
    try expectEqual(@as(i32, 0), abi.lock.shm_lock_release(numbers[0], 0));
    try expectEqual(@as(i32, 0), abi.lock.shm_lock_acquire(numbers[2], 1, 0));
    const timeout = status.status(error.Timeout);
    try expectEqual(timeout, abi.lock.shm_lock_acquire(numbers[1], 0, 5));
    var fault: status.Fault = undefined;
    _ = abi.fault.shm_fault(numbers[1], std.mem.asBytes(&fault));
    try expectEqual(@as(f64, 0), fault.holder_pid); // shared holders are not known by number
}

/// Three handles on one region in memory.
fn openRegions() ![3]*regions.Region {
    var fault: status.Fault = .{};
    var opened: [3]*regions.Region = undefined;
    var token: [100]u8 = undefined;
    for (&opened, 0..) |*region, i| {
        region.* = try handles.regions.create(&fault);
        if (i == 0) {
            try region.*.anonymous(100);
        } else try region.*.attach(token[0..try opened[0].token(&token)], false);
    }
    return opened;
}
