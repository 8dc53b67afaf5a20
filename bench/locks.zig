//! What the user's lock costs: taking it, handing it over, waiting for it beside a greedy process,
//! and taking it over from the dead.

const std = @import("std");
const linux = std.os.linux;
const shmap = @import("shmap");

const abi = shmap.abi;
const Flags = shmap.marshal.Flags;
const figures = @import("figures.zig");

const Row = figures.Row;
const Token = figures.Token;

const waits_max = 4096;

const Sizes = struct {
    passes: usize,
    locks: usize,
    waits: usize,
    handovers: usize,
    greedy: usize,
    deaths: usize,
    waiting_us: u64,

    const whole: Sizes = .{
        .passes = 9,
        .locks = 5000,
        .waits = waits_max,
        .handovers = 2000,
        .greedy = 150,
        .deaths = 60,
        .waiting_us = 3_000_000,
    };
    const smoke: Sizes = .{
        .passes = 2,
        .locks = 50,
        .waits = 50,
        .handovers = 20,
        .greedy = 5,
        .deaths = 2,
        .waiting_us = 100_000,
    };
};

/// What the processes tell each other, in memory they inherit.
const Board = extern struct {
    phase: u64,
    stamp: u64,
    count: u64,
    /// How often the lock is to be handed over.
    turns: u64,
    waits: [waits_max]f64,

    fn read(self: *Board, comptime field: []const u8) u64 {
        return @atomicLoad(u64, &@field(self, field), .seq_cst);
    }

    fn write(self: *Board, comptime field: []const u8, value: u64) void {
        @atomicStore(u64, &@field(self, field), value, .seq_cst);
    }
};

var board: *Board = undefined;

fn microseconds(from: u64) f64 {
    return @as(f64, @floatFromInt(figures.now() - from)) / 1000;
}

fn lock(handle: u32, timeout_ms: f64) i32 {
    return abi.lock.shm_lock_acquire(handle, 0, timeout_ms);
}

fn unlock(handle: u32) void {
    _ = abi.lock.shm_lock_release(handle, 0);
}

fn put(handle: u32, n: u64) i32 {
    return abi.map.shm_map_put(handle, std.mem.asBytes(&n), 8, "value", 5, 3);
}

/// Runs in a process of its own that has attached.
fn fork(token: *const Token, comptime run: fn (handle: u32) void) linux.pid_t {
    return figures.fork(token, struct {
        fn attached(of: *const Token) void {
            run(of.attach());
        }
    }.attached);
}

fn row(case: []const u8) Row {
    return Row.of("locks", case, "shmap");
}

fn benchAlone(case: []const u8, handle: u32, sizes: Sizes) void {
    var passes: [figures.passes_max]f64 = undefined;
    for (passes[0..sizes.passes]) |*pass| {
        const start = figures.now();
        for (0..sizes.locks) |_| {
            _ = figures.must(lock(handle, 1000));
            unlock(handle);
        }
        pass.* = microseconds(start) / @as(f64, @floatFromInt(sizes.locks));
    }
    row(case).passes("us", .least, passes[0..sizes.passes]);
}

fn writeForEver(handle: u32) void {
    var n: u64 = 0;
    while (true) : (n += 1) _ = put(handle, n % 1000);
}

fn benchBesideWriter(handle: u32, token: *const Token, sizes: Sizes) void {
    const writer = fork(token, writeForEver);
    defer figures.end(writer);
    figures.sleep(20_000);
    const waits = board.waits[0..sizes.waits];
    for (waits) |*wait| {
        const start = figures.now();
        _ = figures.must(lock(handle, 1000));
        wait.* = microseconds(start);
        unlock(handle);
        figures.spin(20);
    }
    row("lock beside a writer at full speed").durations("us", waits);
}

fn receive(handle: u32) void {
    for (0..board.read("turns")) |i| {
        while (board.read("phase") != 2 * i + 1) figures.sleep(20);
        _ = lock(handle, 5000);
        board.write("stamp", figures.now());
        unlock(handle);
        board.write("phase", 2 * i + 2);
    }
}

fn benchHandover(handle: u32, token: *const Token, sizes: Sizes) void {
    board.phase = 0;
    board.turns = sizes.handovers;
    const receiver = fork(token, receive);
    defer figures.end(receiver);
    for (0..sizes.handovers) |i| {
        _ = lock(handle, 5000);
        board.write("phase", 2 * i + 1);
        figures.sleep(300);
        const released = figures.now();
        unlock(handle);
        while (board.read("phase") != 2 * i + 2) figures.sleep(20);
        board.waits[i] = @as(f64, @floatFromInt(board.read("stamp") -| released)) / 1000;
    }
    row("handed over").durations("us", board.waits[0..sizes.handovers]);
}

fn grab(handle: u32) void {
    while (true) {
        _ = lock(handle, 5000);
        figures.spin(1000);
        unlock(handle);
    }
}

/// The greedy process holds for a millisecond and locks again at once.
fn benchGreedy(handle: u32, token: *const Token, sizes: Sizes, writes: bool) void {
    const greedy = fork(token, grab);
    defer figures.end(greedy);
    figures.sleep(20_000);
    var failures: u32 = 0;
    const waits = board.waits[0..sizes.greedy];
    for (waits, 0..) |*wait, i| {
        const start = figures.now();
        const result = if (writes) put(handle, i) else lock(handle, 2000);
        wait.* = microseconds(start) / 1000;
        if (result < 0) failures += 1 else if (!writes) unlock(handle);
        figures.sleep(2000);
    }
    row("beside a greedy holder").with("operation", if (writes) "set" else "lock")
        .with("timed_out", failures).durations("ms", waits);
}

fn hold(handle: u32) void {
    _ = lock(handle, 5000);
    board.write("phase", 1);
    while (true) figures.sleep(1_000_000);
}

fn inherit(handle: u32) void {
    const recovered = lock(handle, 10_000);
    board.write("stamp", figures.now());
    board.write("count", @intCast(recovered + 1));
    unlock(handle);
}

fn benchDeath(token: *const Token, sizes: Sizes) void {
    const waits = board.waits[0..sizes.deaths];
    for (waits, 0..) |*wait, i| {
        board.phase = 0;
        board.count = 0;
        const holder = fork(token, hold);
        while (board.read("phase") == 0) figures.sleep(100);
        const waiter = fork(token, inherit);
        defer figures.end(waiter);
        figures.sleep(3000 + i * 977 % 60_000);
        const killed = figures.now();
        figures.end(holder);
        while (board.read("count") == 0) figures.sleep(100);
        if (board.read("count") != 2) @panic("the death went unnoticed");
        wait.* = @as(f64, @floatFromInt(board.read("stamp") -| killed)) / 1e6;
    }
    row("after a death").durations("ms", waits);
}

fn waitLong(handle: u32) void {
    _ = lock(handle, 3000);
}

fn writeLong(handle: u32) void {
    _ = put(handle, 1);
}

fn benchWaiting(handle: u32, token: *const Token, sizes: Sizes) void {
    _ = lock(handle, 1000);
    defer unlock(handle);
    var pids: [8]linux.pid_t = undefined;
    for (&pids, 0..) |*pid, i| {
        pid.* = if (i % 2 == 0) fork(token, waitLong) else fork(token, writeLong);
    }
    var before: linux.rusage = undefined;
    var after: linux.rusage = undefined;
    _ = linux.getrusage(linux.rusage.CHILDREN, &before);
    figures.sleep(sizes.waiting_us);
    for (pids) |pid| figures.end(pid);
    _ = linux.getrusage(linux.rusage.CHILDREN, &after);
    const used = cpuOf(&after) - cpuOf(&before);
    var share = [_]f64{used / @as(f64, @floatFromInt(sizes.waiting_us)) * 100};
    row("one core's share of eight that wait, four of them to write").passes("%", .least, &share);
}

/// In microseconds.
fn cpuOf(usage: *const linux.rusage) f64 {
    return @floatFromInt(usage.utime.sec * 1_000_000 + usage.utime.usec +
        usage.stime.sec * 1_000_000 + usage.stime.usec);
}

pub fn main(init: std.process.Init.Minimal) void {
    const sizes: Sizes = if (figures.isSmoke(init)) .smoke else .whole;
    board = &figures.shared(Board, 1)[0];
    const map = figures.anonymous(0);
    const token: Token = .of(map);
    benchAlone("lock and unlock, map", map, sizes);
    const value = figures.anonymous(@intFromEnum(Flags.value));
    benchAlone("lock and unlock, value", value, sizes);
    const kernel = @intFromEnum(Flags.lockStated) | @intFromEnum(Flags.lockKernel);
    benchAlone("lock and unlock, map, kernel locks", figures.anonymous(kernel), sizes);
    benchBesideWriter(map, &token, sizes);
    benchHandover(map, &token, sizes);
    benchGreedy(map, &token, sizes, false);
    benchGreedy(map, &token, sizes, true);
    benchDeath(&token, sizes);
    benchWaiting(map, &token, sizes);
}
