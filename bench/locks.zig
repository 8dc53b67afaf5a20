//! What the user's lock costs: taking it, handing it over, waiting for it beside somebody greedy,
//! and taking it over from the dead. Run by `zig build bench-locks`; one line a figure.

const std = @import("std");
const linux = std.os.linux;
const abi = @import("shmap");

const codec = "bench";
var fault: [128]u8 = undefined;

/// What the processes tell each other, in memory they inherit.
const Board = extern struct {
    phase: u64 = 0,
    stamp: u64 = 0,
    count: u64 = 0,
    waits: [4096]f64 = @splat(0),

    fn read(self: *Board, comptime field: []const u8) u64 {
        return @atomicLoad(u64, &@field(self, field), .seq_cst);
    }

    fn write(self: *Board, comptime field: []const u8, value: u64) void {
        @atomicStore(u64, &@field(self, field), value, .seq_cst);
    }
};

var board: *Board = undefined;

fn now() u64 {
    var time: linux.timespec = undefined;
    _ = linux.clock_gettime(.MONOTONIC, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

fn microseconds(from: u64) f64 {
    return @as(f64, @floatFromInt(now() - from)) / 1000;
}

fn sleep(us: u64) void {
    const time: linux.timespec = .{
        .sec = @intCast(us / 1_000_000),
        .nsec = @intCast(us % 1_000_000 * 1000),
    };
    _ = linux.nanosleep(&time, null);
}

fn spin(us: u64) void {
    const until = now() + us * 1000;
    while (now() < until) {}
}

fn open(flags: u32) u32 {
    return @intCast(abi.shm_segment_anonymous(codec, codec.len, flags, 0, 5000, &fault));
}

fn attach(token: []const u8) u32 {
    const len: u32 = @intCast(token.len);
    const handle = abi.shm_segment_attach(token.ptr, len, codec, codec.len, 0, 5000, &fault);
    return @intCast(handle);
}

fn lock(handle: u32, timeout_ms: f64) i32 {
    return abi.shm_lock_acquire(handle, 0, timeout_ms);
}

fn unlock(handle: u32) void {
    _ = abi.shm_lock_release(handle, 0);
}

fn put(handle: u32, n: u64) i32 {
    return abi.shm_map_put(handle, std.mem.asBytes(&n), 8, "value", 5, 3);
}

fn fork(token: []const u8, run: *const fn (handle: u32) void) linux.pid_t {
    const pid = std.c.fork();
    if (pid != 0) return pid;
    run(attach(token));
    linux.exit(0);
}

fn end(pid: linux.pid_t) void {
    _ = linux.kill(pid, .KILL);
    var how: u32 = 0;
    _ = linux.waitpid(pid, &how, 0);
}

fn report(what: []const u8, values: []f64, unit: []const u8) void {
    std.mem.sort(f64, values, {}, std.sort.asc(f64));
    const last = values.len - 1;
    std.debug.print("{s: <52} p50 {d: >9.1}  p99 {d: >9.1}  max {d: >9.1} {s}\n", .{
        what, values[last / 2], values[last * 99 / 100], values[last], unit,
    });
}

fn tokenOf(handle: u32, buffer: []u8) []const u8 {
    return buffer[0..@intCast(abi.shm_segment_token(handle, buffer.ptr, @intCast(buffer.len)))];
}

fn benchAlone(what: []const u8, handle: u32) void {
    var passes: [9]f64 = undefined;
    for (&passes) |*pass| {
        const start = now();
        for (0..5000) |_| {
            _ = lock(handle, 1000);
            unlock(handle);
        }
        pass.* = microseconds(start) / 5000;
    }
    report(what, &passes, "us");
}

fn writeForEver(handle: u32) void {
    var n: u64 = 0;
    while (true) : (n += 1) _ = put(handle, n % 1000);
}

fn benchBesideWriter(handle: u32, token: []const u8) void {
    const writer = fork(token, writeForEver);
    defer end(writer);
    sleep(20_000);
    for (&board.waits) |*wait| {
        const start = now();
        _ = lock(handle, 1000);
        wait.* = microseconds(start);
        unlock(handle);
        spin(20);
    }
    report("lock beside a process that writes all the time", &board.waits, "us");
}

const handovers = 2000;

fn receive(handle: u32) void {
    for (0..handovers) |i| {
        while (board.read("phase") != 2 * i + 1) sleep(20);
        _ = lock(handle, 5000);
        board.write("stamp", now());
        unlock(handle);
        board.write("phase", 2 * i + 2);
    }
}

fn benchHandover(handle: u32, token: []const u8) void {
    board.* = .{};
    const receiver = fork(token, receive);
    defer end(receiver);
    for (0..handovers) |i| {
        _ = lock(handle, 5000);
        board.write("phase", 2 * i + 1);
        sleep(300);
        const released = now();
        unlock(handle);
        while (board.read("phase") != 2 * i + 2) sleep(20);
        board.waits[i] = @as(f64, @floatFromInt(board.read("stamp") -| released)) / 1000;
    }
    report("handover to a process asleep in lock()", board.waits[0..handovers], "us");
}

fn grab(handle: u32) void {
    while (true) {
        _ = lock(handle, 5000);
        board.write("count", board.read("count") + 1);
        spin(1000);
        unlock(handle);
    }
}

fn benchGreedy(handle: u32, token: []const u8, writes: bool) void {
    board.* = .{};
    const greedy = fork(token, grab);
    defer end(greedy);
    sleep(20_000);
    var failures: u32 = 0;
    const waits = board.waits[0..150];
    for (waits, 0..) |*wait, i| {
        const start = now();
        const result = if (writes) put(handle, i) else lock(handle, 2000);
        wait.* = microseconds(start) / 1000;
        if (result < 0) failures += 1 else if (!writes) unlock(handle);
        sleep(2000);
    }
    const what = if (writes) "a write" else "lock()";
    std.debug.print("{s} beside a process that locks again at once (1 ms sections): " ++
        "{d} of {d} timed out\n", .{ what, failures, waits.len });
    report("    wait", waits, "ms");
}

fn hold(handle: u32) void {
    _ = lock(handle, 5000);
    board.write("phase", 1);
    while (true) sleep(1_000_000);
}

fn inherit(handle: u32) void {
    const recovered = lock(handle, 10_000);
    board.write("stamp", now());
    board.write("count", @intCast(recovered + 1));
    unlock(handle);
}

fn benchDeath(token: []const u8) void {
    const waits = board.waits[0..60];
    for (waits, 0..) |*wait, i| {
        board.phase = 0;
        board.count = 0;
        const holder = fork(token, hold);
        while (board.read("phase") == 0) sleep(100);
        const waiter = fork(token, inherit);
        defer end(waiter);
        sleep(3000 + i * 977 % 60_000);
        const killed = now();
        end(holder);
        while (board.read("count") == 0) sleep(100);
        if (board.read("count") != 2) @panic("the death went unnoticed");
        wait.* = @as(f64, @floatFromInt(board.read("stamp") -| killed)) / 1e6;
    }
    report("death of a holder to the grant of a process asleep", waits, "ms");
}

fn waitLong(handle: u32) void {
    _ = lock(handle, 3000);
}

fn writeLong(handle: u32) void {
    _ = put(handle, 1);
}

fn benchWaiting(handle: u32, token: []const u8) void {
    _ = lock(handle, 1000);
    defer unlock(handle);
    var pids: [8]linux.pid_t = undefined;
    for (&pids, 0..) |*pid, i| pid.* = fork(token, if (i % 2 == 0) waitLong else writeLong);
    var before: linux.rusage = undefined;
    var after: linux.rusage = undefined;
    _ = linux.getrusage(linux.rusage.CHILDREN, &before);
    sleep(3_000_000);
    for (pids) |pid| end(pid);
    _ = linux.getrusage(linux.rusage.CHILDREN, &after);
    const used = cpuOf(&after) - cpuOf(&before);
    std.debug.print("eight processes waiting, four of them to write: {d:.2} % of one core\n", .{
        used / 3 * 100,
    });
}

fn cpuOf(usage: *const linux.rusage) f64 {
    const us = usage.utime.sec * 1_000_000 + usage.utime.usec +
        usage.stime.sec * 1_000_000 + usage.stime.usec;
    return @as(f64, @floatFromInt(us)) / 1e6;
}

pub fn main() void {
    const shared: linux.MAP = .{ .TYPE = .SHARED, .ANONYMOUS = true };
    const bytes = std.mem.alignForward(usize, @sizeOf(Board), 4096);
    const protection: linux.PROT = .{ .READ = true, .WRITE = true };
    board = @ptrFromInt(linux.mmap(null, bytes, protection, shared, -1, 0));
    board.* = .{};
    const map = open(0);
    var buffer: [200]u8 = undefined;
    const token = tokenOf(map, &buffer);
    benchAlone("lock + unlock of a map (64 stripes)", map);
    benchAlone("lock + unlock of a value (1 stripe)", open(@intFromEnum(abi.Flags.value)));
    const kernel = @intFromEnum(abi.Flags.lockStated) | @intFromEnum(abi.Flags.lockKernel);
    benchAlone("lock + unlock of a map with kernel locks", open(kernel));
    benchBesideWriter(map, token);
    benchHandover(map, token);
    benchGreedy(map, token, false);
    benchGreedy(map, token, true);
    benchDeath(token);
    benchWaiting(map, token);
}
