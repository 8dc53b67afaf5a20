//! The user's lock under fire: processes that lock, write, give up and are killed, watched by an
//! oracle in memory of their own.

const std = @import("std");
const calls = @import("../testing/calls.zig");
const linux = std.os.linux;
const atomics = @import("../atomics.zig");
const attach = @import("../map/attach.zig");
const layout = @import("../layout.zig");
const support = @import("../testing/support.zig");
const MapWriters = @import("../map/quiesce.zig").MapWriters;
const maps = @import("../map/map.zig");
const os = @import("../os/os.zig");
const status = @import("../status.zig");
const user_locks = @import("user_lock.zig");

const Map = maps.Map;
const UserLock = user_locks.UserLock;
const openAgain = support.openAgain;

const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const expectError = std.testing.expectError;

fn stateOf(map: *Map) @FieldType(layout.LockWord, "state") {
    const word: layout.LockWord = @bitCast(atomics.load(&map.segment.header().lock_word));
    return word.state;
}

fn testLock(kind: layout.LockKind) !void {
    const map = try support.openMapOf(kind, 1, 1 << 20);
    defer support.closeMap(map);
    const other = try openAgain(map, 30);
    defer support.closeMap(other);
    try expect(!try calls.acquire(map, 0));
    try expect(try other.lock.isHeld());
    try expectError(error.Locked, calls.acquire(map, 1000));
    try expectError(error.Timeout, calls.acquire(other, 20));
    try expectEqual(@as(f64, @floatFromInt(os.pid())), other.fault.holder_pid);
    other.fault = .{};
    try expect(try calls.put(map, "k", "holder's", 1, .none));
    try expectError(error.Timeout, calls.put(other, "k", "v", 1, .none));
    try expectEqual(@as(f64, @floatFromInt(os.pid())), other.fault.holder_pid);
    try expectError(error.Timeout, calls.delete(other, "k"));
    try expectError(error.Timeout, calls.clear(other));
    try expectError(error.Timeout, calls.repair(other));
    var target: [16]u8 = undefined;
    // Readers do not wait.
    try expectEqual(@as(u32, 8), (try calls.get(other, "k", &target, 0)).?.len);
    calls.release(map, false);
    calls.release(map, false);
    try expect(!try other.lock.isHeld());
    try expect(try calls.put(other, "k", "v", 1, .none));
    try expect(!(try calls.attempt(other, 0)).?);
    try expectEqual(@as(?bool, null), try calls.attempt(map, 0));
}

test "the lock excludes other handles and their writes, in both modes" {
    try testLock(support.usual_lock);
    try testLock(.kernel);
}

test "a holder's death is told once, to the next holder, and frees writers" {
    const map = try support.openMap(1, 1 << 20);
    defer support.closeMap(map);
    const other = try openAgain(map, 1000);
    defer support.closeMap(other);
    for ([_]bool{ false, true }) |writes_between| {
        _ = try calls.acquire(map, 0);
        map.lock.abandon(); // as a killed process leaves it: the word held, the range free
        try expectEqual(.held, stateOf(map));
        if (writes_between) {
            try expect(try calls.put(other, "k", "v", 1, .none));
            try expectEqual(.abandoned, stateOf(map));
        }
        try expect(try calls.acquire(other, 0));
        calls.release(other, true); // passed on
        try expect(try calls.acquire(map, 0));
        calls.release(map, false);
        try expect(!try calls.acquire(other, 0));
        calls.release(other, false);
    }
}

test "a locker that dies before it was granted leaves nothing to recover" {
    const map = try support.openMap(1, 1 << 20);
    defer support.closeMap(map);
    const word = &map.segment.header().lock_word;
    for ([_]bool{ false, true }) |owed| {
        for ([_]bool{ false, true }) |writes_between| {
            atomics.storeRelease(word, @bitCast(layout.LockWord{
                .state = .pending,
                .owed = owed,
                .serial = 7,
            }));
            if (writes_between) try expect(try calls.put(map, "k", "v", 1, .none));
            try expectEqual(owed, try calls.acquire(map, 0));
            calls.release(map, false);
        }
    }
}

test "a locker that cannot pass gives up without a trace, and without losing what is owed" {
    const map = try support.openMap(1, 1 << 20);
    defer support.closeMap(map);
    const other = try openAgain(map, 1000);
    defer support.closeMap(other);
    const stuck = map.segment.lockOf(1);
    for ([_]bool{ false, true }) |owed| {
        if (owed) {
            _ = try calls.acquire(map, 0);
            map.lock.abandon();
        }
        _ = try stuck.lock(&map.fault, &map.segment.deadline);
        var thread = try std.Thread.spawn(.{}, struct {
            fn run(m: *Map) void {
                expectError(error.Timeout, calls.acquire(m, 20)) catch @panic("got through");
            }
        }.run, .{other}); // another thread: a mutex is its owner thread's
        thread.join();
        stuck.unlock();
        try expect(!try map.lock.isHeld());
        try expectEqual(owed, try calls.acquire(map, 0));
        calls.release(map, false);
    }
}

/// Waits until a handle is the head of the queue, and does `then` to the map.
fn whenInLine(map: *Map, then: *const fn (map: *Map) void) !std.Thread {
    return std.Thread.spawn(.{}, struct {
        fn run(m: *Map, act: *const fn (map: *Map) void) void {
            while (atomics.load(&m.segment.header().has_head) == 0) os.sleepNs(100_000);
            act(m);
        }
    }.run, .{ map, then });
}

fn blockStripes(map: *Map) void {
    for (0..2) |i| _ = map.segment.lockOf(@intCast(i)).lock(&map.fault, &map.segment.deadline) catch
        @panic("not to be had");
    while (atomics.load(&map.segment.header().has_head) != 0) os.sleepNs(100_000);
    for (0..2) |i| map.segment.lockOf(@intCast(i)).unlock();
}

fn markReplaced(map: *Map) void {
    map.segment.setState(.replaced);
}

test "a writer that fails while it waits for the lock leaves the line" {
    const map = try support.openMap(1, 1 << 20);
    defer support.closeMap(map);
    const other = try openAgain(map, 100);
    defer support.closeMap(other);
    _ = try calls.acquire(map, 0);
    const blocker = try whenInLine(map, blockStripes);
    try expectError(error.Timeout, calls.put(other, "k", "v", 1, .none));
    const left = !other.lock.is_head;
    other.lock.cancel(); // or the thread would not end
    blocker.join();
    try expect(left);
}

test "who waits for the lock of a segment is told when that is replaced" {
    const map = try support.openMap(1, 1 << 20);
    defer support.closeMap(map);
    const other = try openAgain(map, 5000);
    defer support.closeMap(other);
    _ = try calls.acquire(map, 0);
    const replacer = try whenInLine(map, markReplaced);
    defer replacer.join();
    try expectError(error.Replaced, calls.put(other, "k", "v", 1, .none));
    calls.release(map, false);
    try expectError(error.Replaced, calls.acquire(other, 1000));
    try expect(!try map.lock.isHeld());
}

fn releaseSoon(map: *Map) void {
    os.sleepNs(20 * std.time.ns_per_ms);
    calls.release(map, false);
}

test "who waits behind a first in line that died is rung out of sleep all the same" {
    const map = try support.openMap(1, 1 << 20);
    defer support.closeMap(map);
    const other = try openAgain(map, 1000);
    defer support.closeMap(other);
    var shortest: u64 = std.math.maxInt(u64);
    for (0..5) |_| {
        _ = try calls.acquire(map, 0);
        atomics.store(&map.segment.header().has_head, 1); // as it is left behind
        const start = os.monotonicNs();
        const releaser = try std.Thread.spawn(.{}, releaseSoon, .{map});
        _ = try calls.acquire(other, 1000);
        shortest = @min(shortest, os.monotonicNs() - start);
        calls.release(other, false);
        releaser.join();
    }
    try expect(shortest < 45 * std.time.ns_per_ms); // a whole slice is 50
}

/// Memory that survives every child: what they did, and what must be true of it.
const Oracle = extern struct {
    /// What the lock's next holder must be told: `free` no, `unknown` either, else the serial of a
    /// holder that has not released: yes.
    owed: u64 = free,
    grants: u64 = 0,
    recovered: u64 = 0,
    writes: u64 = 0,
    given_up: u64 = 0,
    foreign_writes: u64 = 0,
    missed: u64 = 0,
    false_alarms: u64 = 0,
    errors: u64 = 0,
    /// Not 0: the children end, by themselves.
    over: u64 = 0,

    const free = 0;
    const unknown = 1 << 62;
    const releasing = 1 << 63;

    fn count(self: *Oracle, what: std.meta.FieldEnum(Oracle)) void {
        switch (what) {
            inline else => |field| {
                _ = @atomicRmw(u64, &@field(self, @tagName(field)), .Add, 1, .monotonic);
            },
        }
    }
};

var oracle: *Oracle = undefined;
var prng: std.Random.DefaultPrng = undefined;
/// What the oracle said when this process was about to be granted the lock.
var owed_before: u64 = 0;

const key_count = 8;

fn spin(ns: u64) void {
    const until = os.monotonicNs() + ns;
    while (os.monotonicNs() < until) {}
}

/// Waits as a locker of the map does; one in ten gives up half way, as at a deadline.
const ImpatientWriters = struct {
    writers: MapWriters,

    pub const allows_shared = false;

    pub fn quiesce(impatient: ImpatientWriters, deadline: *os.Deadline) status.Error!void {
        const random = prng.random();
        if (random.uintLessThan(u32, 10) == 0) {
            if (random.boolean()) try impatient.writers.quiesce(deadline);
            return error.Timeout;
        }
        try impatient.writers.quiesce(deadline);
        owed_before = @atomicLoad(u64, &oracle.owed, .seq_cst);
        // Killed from here until the grant is noted, the next one may be told either way.
        @atomicStore(u64, &oracle.owed, Oracle.unknown, .seq_cst);
    }
};

fn valuesOf(map: *Map) [key_count]u64 {
    var values: [key_count]u64 = @splat(0);
    for (&values, 0..) |*value, key| {
        _ = calls.get(map, std.mem.asBytes(&@as(u64, key)), std.mem.asBytes(value), 0) catch
            oracle.count(.errors);
    }
    return values;
}

fn store(map: *Map) u64 {
    const random = prng.random();
    const key = random.uintLessThan(u64, key_count);
    const value = random.int(u64);
    _ = calls.put(map, std.mem.asBytes(&key), std.mem.asBytes(&value), 1, .none) catch
        oracle.count(.errors);
    oracle.count(.writes);
    return key;
}

fn lockAndWatch(map: *Map) void {
    const random = prng.random();
    const writers: ImpatientWriters = .{ .writers = .{ .map = map } };
    const recovered = map.lock.acquire(false, 20_000, writers) catch |err| {
        oracle.count(if (err == error.Timeout) .given_up else .errors);
        return;
    };
    if (owed_before == Oracle.free and recovered) oracle.count(.false_alarms);
    const ambiguous = owed_before & (Oracle.unknown | Oracle.releasing) != 0;
    if (owed_before != Oracle.free and !ambiguous and !recovered) oracle.count(.missed);
    const serial = map.lock.serial;
    @atomicStore(u64, &oracle.owed, serial, .seq_cst);
    oracle.count(.grants);
    if (recovered) oracle.count(.recovered);
    var before = valuesOf(map);
    for (0..random.uintLessThan(u32, 4)) |_| {
        _ = store(map);
        before = valuesOf(map); // compared below, and again by the next round
    }
    const start = valuesOf(map);
    if (!std.mem.eql(u64, &start, &before)) oracle.count(.foreign_writes);
    spin(random.uintLessThan(u64, 60_000));
    if (random.uintLessThan(u32, 20) == 0) os.sleepNs(200_000);
    if (!std.mem.eql(u64, &valuesOf(map), &start)) oracle.count(.foreign_writes);
    const leaving = Oracle.releasing | @as(u64, serial);
    @atomicStore(u64, &oracle.owed, leaving, .seq_cst);
    calls.release(map, false);
    // Unless another handle has been granted the lock since.
    _ = @cmpxchgStrong(u64, &oracle.owed, leaving, Oracle.free, .seq_cst, .seq_cst);
    if (random.boolean()) os.sleepNs(random.uintLessThan(u64, 300_000));
}

/// A handle of its own for a forked child, which shares the parent's open file descriptions, and
/// would keep their locks.
fn openInChild(parent: *Map, token: []const u8) *Map {
    os.close(parent.segment.locks);
    os.close(parent.segment.file);
    return support.openToken(token, 20_000) catch linux.exit(1);
}

/// A locker or a writer, until it is killed.
fn live(parent: *Map, token: []const u8, seed: u64, locks: bool) noreturn {
    const map = openInChild(parent, token);
    prng = .init(seed);
    while (@atomicLoad(u64, &oracle.over, .monotonic) == 0) {
        if (locks) lockAndWatch(map) else {
            _ = store(map);
            if (prng.random().uintLessThan(u32, 50) == 0)
                os.sleepNs(prng.random().uintLessThan(u64, 100_000));
        }
    }
    linux.exit(0);
}

fn spawn(parent: *Map, token: []const u8, seed: u64, locks: bool) !linux.pid_t {
    const pid = std.c.fork();
    if (pid == 0) live(parent, token, seed, locks);
    try expect(pid > 0);
    return pid;
}

fn storm(kind: layout.LockKind, milliseconds: u64, kills: bool) !void {
    const map = try support.openMapOf(kind, 2, 4 << 20);
    defer support.closeMap(map);
    oracle = try support.shared(Oracle);
    oracle.* = .{};
    var buffer: [200]u8 = undefined;
    const token = buffer[0..try map.segment.token(&buffer)];
    var seed = support.seedOf(os.randomWord());
    errdefer std.debug.print("repeat with SHMAP_SEED={d}\n", .{seed});
    var random_source: std.Random.DefaultPrng = .init(seed);
    const random = random_source.random();
    var children: [8]linux.pid_t = undefined;
    for (&children, 0..) |*child, i| child.* = try spawn(map, token, seed +% i, i < 4);
    const until = os.monotonicNs() + milliseconds * std.time.ns_per_ms;
    var killed: u64 = 0;
    while (os.monotonicNs() < until) : (killed += 1) {
        os.sleepNs(1_000_000 + random.uintLessThan(u64, 6_000_000));
        if (!kills) continue;
        var victim = random.uintLessThan(usize, children.len);
        if (random.boolean()) { // rather a holder
            const holder = atomics.load(&map.segment.header().holder_pid);
            for (children, 0..) |child, i| {
                if (child == holder) victim = i;
            }
        }
        try kill(children[victim]);
        seed +%= 1000;
        children[victim] = try spawn(map, token, seed, victim < 4);
    }
    @atomicStore(u64, &oracle.over, 1, .monotonic);
    for (children) |child| try expectEqual(@as(u32, 0), try wait(child));
    _ = try calls.acquire(map, 5000);
    calls.release(map, false);
    try support.expectSound(map);
    errdefer std.debug.print("{s}, {d} killed: {any}\n", .{ @tagName(kind), killed, oracle.* });
    try expectEqual(@as(u64, 0), oracle.foreign_writes);
    try expectEqual(@as(u64, 0), oracle.missed);
    try expectEqual(@as(u64, 0), oracle.false_alarms);
    try expectEqual(@as(u64, 0), oracle.errors);
    try expect(oracle.grants > 10 and oracle.writes > 10);
    try expectEqual(kills, oracle.recovered > 0);
}

fn kill(child: linux.pid_t) !void {
    _ = linux.kill(child, .KILL);
    try expect(linux.W.IFSIGNALED(try wait(child))); // any other end is an error of the child's own
}

fn wait(child: linux.pid_t) !u32 {
    var how: u32 = 0;
    const result = linux.waitpid(child, &how, 0);
    try expectEqual(linux.E.SUCCESS, linux.errno(result));
    return how;
}

test "lock storm: no foreign write in a section, no recovered missed or made up, under kills" {
    if (!support.has_forks) return error.SkipZigTest; // no fork here
    try storm(.robust, support.scaled(4000), true);
}

test "lock storm with kernel locks" {
    if (!support.has_forks) return error.SkipZigTest; // no fork here
    try storm(.kernel, support.scaled(4000), true);
}

test "lock storm: without a death no holder finds one" {
    if (!support.has_forks) return error.SkipZigTest; // no fork here
    try storm(.robust, support.scaled(1500), false);
}

fn grab(parent: *Map, token: []const u8) noreturn {
    const map = openInChild(parent, token);
    while (true) {
        _ = calls.acquire(map, 60_000) catch linux.exit(2);
        spin(std.time.ns_per_ms);
        calls.release(map, false);
    }
}

test "a process that locks again at once starves neither lockers nor writers" {
    if (!support.has_forks) return error.SkipZigTest; // no fork here
    const map = try support.openMap(1, 1 << 20);
    defer support.closeMap(map);
    map.segment.timeout_ms = 1000;
    var buffer: [200]u8 = undefined;
    const token = buffer[0..try map.segment.token(&buffer)];
    const greedy = std.c.fork();
    if (greedy == 0) grab(map, token);
    defer kill(greedy) catch {}; // its way of ending is not what is tested
    while (!try map.lock.isHeld()) os.sleepNs(100_000);
    for (0..40) |i| {
        os.sleepNs(2 * std.time.ns_per_ms); // or we were the greedy ones
        _ = try calls.acquire(map, 1000);
        calls.release(map, false);
        os.sleepNs(2 * std.time.ns_per_ms);
        try expect(try calls.put(map, std.mem.asBytes(&i), "turn", 1, .none));
    }
    // Those that ask from time to time, and never sleep on a wake sequence, get it too.
    for (0..10) |_| {
        os.sleepNs(2 * std.time.ns_per_ms);
        var waited_ms: f64 = 0;
        while (try calls.attempt(map, waited_ms) == null) {
            os.sleepNs(5 * std.time.ns_per_ms);
            waited_ms += 5;
            try expect(waited_ms < 1000);
        }
        calls.release(map, false);
    }
}

test "who is first in line and stopped keeps others waiting for two slices, and not every time" {
    const map = try support.openMap(1, 1 << 20);
    defer support.closeMap(map);
    const stopped = try openAgain(map, 1000);
    defer support.closeMap(stopped);
    _ = try calls.acquire(map, 0);
    // Joins the line, and does not come back.
    try expectEqual(@as(?bool, null), try calls.attempt(stopped, 1000));
    calls.release(map, false);
    try expectEqual(@as(?bool, null), try calls.attempt(map, 0));
    _ = try calls.acquire(map, 5000);
    calls.release(map, false);
    const start = os.monotonicNs();
    for (0..3) |_| {
        _ = try calls.acquire(map, 5000);
        calls.release(map, false);
    }
    try expect(os.monotonicNs() - start < 300 * std.time.ns_per_ms);
    stopped.lock.cancel();
    try expect((try calls.attempt(map, 0)) != null);
}
