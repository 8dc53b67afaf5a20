//! Processes that use one map at the same time, and may be killed or stopped at any moment.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;

const atomics = shmap.atomics;
const linux = std.os.linux;
const Map = shmap.map.Map;

/// CLOCK_MONOTONIC, which is one clock for all processors. The fences keep what comes before from
/// happening after it, and what comes after from happening before it.
pub fn now() u64 {
    fence();
    var time: std.c.timespec = undefined;
    _ = std.c.clock_gettime(.MONOTONIC, &time);
    fence();
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

inline fn fence() void {
    switch (@import("builtin").cpu.arch) {
        .x86_64 => asm volatile ("mfence; lfence" ::: .{ .memory = true }),
        .aarch64 => asm volatile ("dsb ish; isb" ::: .{ .memory = true }),
        else => @compileError("fence is not written for this processor"),
    }
}

/// A handle on a map another process has open.
pub fn attach(token: []const u8, readonly: bool, timeout_ms: f64) !*Map {
    var fault: shmap.status.Fault = .{};
    var options: shmap.segment.Options = .{
        .recover = shmap.attach.recoverSegment,
        .readonly = readonly,
        .timeout_ms = timeout_ms,
    };
    const map = try shmap.testing.support.prepared(&fault, &options);
    errdefer calls.discard(map);
    try shmap.directory.attachToken(&map.segment, token, &options);
    map.begin();
    return map;
}

/// Forks. In the child: `act` is called, and its answer is the exit code. The child goes when its
/// parent does, and keeps none of the parent's descriptors on the map.
pub fn spawn(map: *Map, context: anytype, act: fn (@TypeOf(context)) u8) !linux.pid_t {
    const pid = std.c.fork();
    if (pid < 0) return error.ForkFailed;
    if (pid > 0) return pid;
    _ = linux.prctl(@intFromEnum(linux.PR.SET_PDEATHSIG), @intFromEnum(linux.SIG.KILL), 0, 0, 0);
    shmap.os.close(map.segment.locks);
    shmap.os.close(map.segment.file);
    linux.exit_group(act(context));
}

/// How a process ended.
pub const End = union(enum) { code: u8, signal: u32 };

/// Null: it has not ended.
pub fn ended(pid: linux.pid_t, wait: bool) ?End {
    var status: c_int = 0;
    while (true) {
        const result = std.c.waitpid(pid, &status, if (wait) 0 else linux.W.NOHANG);
        if (result == 0) return null;
        if (result == pid) break;
        if (std.c.errno(result) != .INTR) @panic("a child was lost");
    }
    const bits: u32 = @bitCast(status);
    if (linux.W.IFEXITED(bits)) return .{ .code = linux.W.EXITSTATUS(bits) };
    return .{ .signal = bits & 0x7f };
}

pub fn signal(pid: linux.pid_t, number: linux.SIG) void {
    _ = std.c.kill(pid, number);
}

/// Lets a process pause, or die, after a store it makes, and pause while it copies a value: what
/// happens on a busy machine anyway, only more often.
pub const Delays = struct {
    /// One in so many operations stops at one of its stores; one in so many copies waits.
    every: u32,
    /// One in so many of those that stop dies instead; 0: none.
    deadly: u32,
    /// Where the time of a death by one's own hand is noted just before.
    dying_at: *u64,
    /// The store is one of the first two to this power, the earlier the likelier.
    span: u5,
    random: std.Random,
    observer: atomics.Observer = .{ .seen = seen },
    stores: u32 = 0,
    stop_at: u32 = std.math.maxInt(u32),

    threadlocal var current: ?*Delays = null;

    pub fn start(delays: *Delays) void {
        current = delays;
        atomics.observer = &delays.observer;
        atomics.pause = onCopy;
    }

    /// Call before each operation.
    pub fn arm(delays: *Delays) void {
        delays.stores = 0;
        delays.stop_at = std.math.maxInt(u32);
        if (delays.random.uintLessThan(u32, delays.every) != 0) return;
        const bits = delays.random.uintAtMost(u5, delays.span);
        delays.stop_at = delays.random.uintLessThan(u32, @as(u32, 1) << bits);
    }

    fn seen(observer: *atomics.Observer, _: *const u64, _: u64) void {
        const delays: *Delays = @fieldParentPtr("observer", observer);
        const at = delays.stores;
        delays.stores += 1;
        if (at != delays.stop_at) return;
        if (delays.deadly > 0 and delays.random.uintLessThan(u32, delays.deadly) == 0) {
            delays.dying_at.* = now();
            signal(@intCast(shmap.os.pid()), .KILL);
        }
        delays.wait();
    }

    fn onCopy() void {
        const delays = current.?;
        if (delays.random.uintLessThan(u32, delays.every) == 0) delays.wait();
    }

    /// Up to 0.2 ms.
    pub fn wait(delays: *Delays) void {
        shmap.os.sleepNs(delays.random.uintLessThan(u64, 200_000));
    }
};
