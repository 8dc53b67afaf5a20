//! The short lock of a stripe and of the pool: the libc's robust, process-shared mutex, or, in
//! segments made with `lock: "kernel"`, a kernel range lock.
//!
//! Waited on with timeouts only, in slices, because a wake-up can be lost when the woken process
//! is killed (docs/design.md, Assumptions). Never held across two calls of the library: the owner
//! is a thread, and the kernel passes the lock on when that thread ends.
//!
//! The mutex is 64 opaque bytes here; its inside is the libc's business, and two libcs disagree,
//! which is why the header names the libc of its living writers. The robust list of a dead thread
//! names its owner by a number that means something in one PID namespace only. A range lock knows
//! neither limit, and costs two system calls. It does not say that its last owner died: the writer
//! word does, for both kinds.

const std = @import("std");
const linux = std.os.linux;
const atomics = @import("../atomics.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const range_lock = @import("range_lock.zig");
const status = @import("../status.zig");

const Bytes = *align(64) [64]u8;

extern fn pthread_mutexattr_init(attributes: *align(8) [64]u8) c_int;
extern fn pthread_mutexattr_setpshared(attributes: *align(8) [64]u8, shared: c_int) c_int;
extern fn pthread_mutexattr_setrobust(attributes: *align(8) [64]u8, robust: c_int) c_int;
extern fn pthread_mutex_init(mutex: Bytes, attributes: *align(8) [64]u8) c_int;
extern fn pthread_mutex_trylock(mutex: Bytes) c_int;
extern fn pthread_mutex_consistent(mutex: Bytes) c_int;
extern fn pthread_mutex_unlock(mutex: Bytes) c_int;

/// glibc's own, from 2.30 on.
const pthread_mutex_clocklock = @extern(
    ?ClockLock,
    .{ .name = "pthread_mutex_clocklock", .linkage = .weak },
);
const ClockLock = *const fn (Bytes, c_int, *const linux.timespec) callconv(.c) c_int;

const gnu_get_libc_version = @extern(
    ?*const fn () callconv(.c) [*:0]const u8,
    .{ .name = "gnu_get_libc_version", .linkage = .weak },
);

/// A write lasts a tenth of a microsecond; to sleep and be woken takes a hundred times as long. So
/// a writer that meets a held lock first looks again a few times, at intervals that double up to a
/// limit, for about as long as a sleep would cost.
const spins_max = 24;
const spins_long = 6;
const slice_ns = 50 * std.time.ns_per_ms;
/// Where the libc cannot wait by a clock that no program sets: how long a waiter sleeps before it
/// tries again, and by how much more or less, so that waiters get apart.
const poll_ns_min = 20 * std.time.ns_per_us;
const poll_ns_spread = 200 * std.time.ns_per_us;

const success: c_int = @intFromEnum(linux.E.SUCCESS);
const busy: c_int = @intFromEnum(linux.E.BUSY);
const timed_out: c_int = @intFromEnum(linux.E.TIMEDOUT);
const owner_dead: c_int = @intFromEnum(linux.E.OWNERDEAD);
const interrupted: c_int = @intFromEnum(linux.E.INTR);
const again: c_int = @intFromEnum(linux.E.AGAIN);

/// Which mutexes this thread holds, by the addresses at which it took them, in builds that record
/// stores. A mutex that is given back at another address works until the kernel walks the thread's
/// list, so it would be noticed after a kill at most.
const Taken = struct {
    addresses: [1100]usize = undefined,
    count: usize = 0,

    inline fn note(mutex: Bytes) void {
        if (!atomics.recording) return;
        taken.addresses[taken.count] = @intFromPtr(mutex);
        taken.count += 1;
    }

    inline fn drop(mutex: Bytes) void {
        if (!atomics.recording) return;
        const at = std.mem.lastIndexOfScalar(
            usize,
            taken.addresses[0..taken.count],
            @intFromPtr(mutex),
        ) orelse @panic("a mutex is given back at an address at which it was not taken");
        taken.count -= 1;
        taken.addresses[at] = taken.addresses[taken.count];
    }
};

threadlocal var taken: if (atomics.recording) Taken else void = if (atomics.recording) .{} else {};

/// How a lock was got. A caller must name both cases.
pub const Locked = enum { clean, owner_died };

/// The lock of a stripe or of the pool.
pub const StripeLock = union(layout.LockKind) {
    robust: Bytes,
    kernel: struct { fd: os.Fd, byte: range_lock.Byte },

    /// `Corrupt`: the mutex bytes are not a mutex any more, and only a sole attacher can make them
    /// one.
    pub inline fn lock(
        self: StripeLock,
        fault: *status.Fault,
        deadline: *os.Deadline,
    ) status.Error!Locked {
        switch (self) {
            .robust => |mutex| {
                if (!atomics.recording) return lockMutex(mutex, deadline);
                const locked = try lockMutex(mutex, deadline);
                Taken.note(mutex);
                return locked;
            },
            .kernel => |range| {
                if (try range_lock.tryLock(fault, range.fd, range.byte, .exclusive)) return .clean;
                try range_lock.lockBefore(fault, range.fd, range.byte, deadline);
                return .clean;
            },
        }
    }

    /// Takes a mutex over from a dead owner: the last step of recovery. Without it, unlocking makes
    /// the mutex useless for ever.
    pub fn makeConsistent(self: StripeLock) void {
        if (!os.has_robust_mutex) return;
        if (self == .robust) _ = pthread_mutex_consistent(self.robust);
    }

    pub inline fn unlock(self: StripeLock) void {
        switch (self) {
            .robust => |mutex| if (os.has_robust_mutex) {
                Taken.drop(mutex);
                _ = pthread_mutex_unlock(mutex);
            },
            .kernel => |range| range_lock.unlock(range.fd, range.byte),
        }
    }
};

/// How an attempt at a mutex ended. `busy`: it is not free, or not sound; `StripeLock.lock`
/// decides.
pub const Attempt = enum { clean, owner_died, busy };

pub inline fn attempt(mutex: Bytes) Attempt {
    if (!os.has_robust_mutex) return .busy;
    const result = pthread_mutex_trylock(mutex);
    if (result != success and result != owner_dead) return .busy;
    Taken.note(mutex);
    return if (result == success) .clean else .owner_died;
}

/// Makes a mutex anew. No other process uses it: the caller is the only writer.
pub fn init(mutex: Bytes) status.Error!void {
    if (!os.has_robust_mutex) return error.Unsupported;
    var attributes: [64]u8 align(8) = @splat(0);
    mutex.* = @splat(0);
    if (pthread_mutexattr_init(&attributes) != success) return error.System;
    if (pthread_mutexattr_setpshared(&attributes, 1) != success) return error.Unsupported;
    if (pthread_mutexattr_setrobust(&attributes, 1) != success) return error.Unsupported;
    if (pthread_mutex_init(mutex, &attributes) != success) return error.System;
}

inline fn lockMutex(mutex: Bytes, deadline: *os.Deadline) status.Error!Locked {
    if (!os.has_robust_mutex) return error.Unsupported;
    const result = pthread_mutex_trylock(mutex);
    if (result == success) return .clean;
    if (result == owner_dead) return .owner_died;
    return wait(mutex, result, deadline);
}

noinline fn wait(mutex: Bytes, first: c_int, deadline: *os.Deadline) status.Error!Locked {
    return waitBy(os.ifLinked(pthread_mutex_clocklock), mutex, first, deadline);
}

fn waitBy(
    clock_lock: ?ClockLock,
    mutex: Bytes,
    first: c_int,
    deadline: *os.Deadline,
) status.Error!Locked {
    var result = first;
    var spins: u6 = 0;
    while (result == busy and spins < spins_max) : (spins += 1) {
        for (0..@as(u32, 1) << @min(spins, spins_long)) |_| std.atomic.spinLoopHint();
        result = pthread_mutex_trylock(mutex);
    }
    while (true) {
        switch (result) {
            success => return .clean,
            owner_dead => return .owner_died,
            // EAGAIN: this thread's count of robust locks is exhausted for a moment (musl).
            busy, timed_out, interrupted, again => {},
            else => return error.Corrupt,
        }
        const left = deadline.left(slice_ns);
        if (left == 0) return error.Timeout;
        result = lockWithin(clock_lock, mutex, left);
    }
}

/// Waits for so long at most, by a clock that no program sets. `pthread_mutex_timedlock`, which
/// both libcs have, goes by the wall clock: a step backwards between its being read here and its
/// being looked at there would make the wait as much longer. So without glibc's own function a
/// waiter tries, sleeps and tries again; it does not learn of the unlock, but outlasts no deadline
/// either.
fn lockWithin(clock_lock: ?ClockLock, mutex: Bytes, ns: u64) c_int {
    const lock = clock_lock orelse {
        os.sleepNs(@min(ns, poll_ns_min + os.randomWord() % poll_ns_spread));
        return pthread_mutex_trylock(mutex);
    };
    const until = os.monotonicNs() + ns;
    return lock(mutex, @intFromEnum(linux.CLOCK.MONOTONIC), &.{
        .sec = @intCast(until / std.time.ns_per_s),
        .nsec = @intCast(until % std.time.ns_per_s),
    });
}

/// Names the libc whose mutexes this process makes. Two processes that agree on it and on
/// `mutexAbi` understand each other's mutexes.
pub fn libcFact() u64 {
    if (!os.has_robust_mutex) return 0;
    var fnv = std.hash.Fnv1a_64.init();
    if (os.ifLinked(gnu_get_libc_version)) |version| {
        fnv.update("glibc ");
        fnv.update(std.mem.span(version()));
    } else fnv.update("musl");
    return fnv.final();
}

/// Word size and byte order of the machine, which the mutex inherits.
pub fn mutexAbi() u64 {
    return @as(u64, @sizeOf(usize)) << 8 | @intFromEnum(@import("builtin").cpu.arch.endian());
}

comptime {
    // The opaque bytes sit where the layout put them.
    std.debug.assert(@offsetOf(layout.Stripe, "mutex") == 0);
    std.debug.assert(@offsetOf(layout.Pool, "mutex") == 0);
}

/// As `lockMutex`, with a deadline of its own.
fn lockIn(mutex: Bytes, timeout_ms: f64) status.Error!Locked {
    var deadline: os.Deadline = .in(timeout_ms);
    const locked = try lockMutex(mutex, &deadline);
    Taken.note(mutex);
    return locked;
}

/// A mutex that another thread holds until the test has it let go, or end without.
const Held = struct {
    mutex: [64]u8 align(64) = undefined,
    told: std.atomic.Value(enum(u32) { nothing, held, let_go, end }) = .init(.nothing),
    thread: std.Thread = undefined,

    fn start(held: *Held) !void {
        try init(&held.mutex);
        held.thread = try std.Thread.spawn(.{}, hold, .{held});
        while (held.told.load(.acquire) == .nothing) os.sleepNs(1_000_000);
    }

    fn hold(held: *Held) void {
        _ = lockIn(&held.mutex, 1000) catch unreachable; // no other thread holds it
        held.told.store(.held, .release);
        while (held.told.load(.acquire) == .held) os.sleepNs(1_000_000);
        if (held.told.load(.acquire) == .let_go) _ = pthread_mutex_unlock(&held.mutex);
    }

    /// How a wait by each of the two ways ends.
    fn expect(held: *Held, timeout_ms: f64, expected: status.Error!Locked) !void {
        for ([_]?ClockLock{ os.ifLinked(pthread_mutex_clocklock), null }) |clock_lock| {
            var deadline: os.Deadline = .in(timeout_ms);
            const found = waitBy(clock_lock, &held.mutex, busy, &deadline);
            try std.testing.expectEqual(expected, found);
            if (found) |_| {
                Taken.note(&held.mutex);
                const lock: StripeLock = .{ .robust = &held.mutex };
                lock.makeConsistent();
                lock.unlock();
            } else |_| {}
        }
    }
};

test "a mutex whose owner's thread ended is passed on as owner_died" {
    if (!os.has_robust_mutex) return error.SkipZigTest;
    var held: Held = .{};
    try held.start();
    held.told.store(.end, .release);
    held.thread.join();
    try std.testing.expectEqual(Locked.owner_died, try lockIn(&held.mutex, 1000));
    const lock: StripeLock = .{ .robust = &held.mutex };
    lock.makeConsistent();
    lock.unlock();
    try std.testing.expectEqual(Locked.clean, try lockIn(&held.mutex, 0));
    lock.unlock();
}

test "a held mutex is waited for until the deadline, with and without glibc's own function" {
    if (!os.has_robust_mutex) return error.SkipZigTest;
    var held: Held = .{};
    try held.start();
    try std.testing.expectError(error.Timeout, lockIn(&held.mutex, 5));
    try held.expect(5, error.Timeout);
    held.told.store(.let_go, .release);
    try held.expect(10_000, .clean);
    held.thread.join();
}

test "a death during the wait is met by both ways of waiting" {
    if (!os.has_robust_mutex) return error.SkipZigTest;
    for ([_]?ClockLock{ os.ifLinked(pthread_mutex_clocklock), null }) |clock_lock| {
        var held: Held = .{};
        try held.start();
        held.told.store(.end, .release);
        var deadline: os.Deadline = .in(10_000);
        const found = try waitBy(clock_lock, &held.mutex, busy, &deadline);
        Taken.note(&held.mutex);
        try std.testing.expectEqual(Locked.owner_died, found);
        held.thread.join();
        const lock: StripeLock = .{ .robust = &held.mutex };
        lock.makeConsistent();
        lock.unlock();
    }
}

test "no wait for a mutex looks at the wall clock, wherever it was set" {
    if (!os.has_robust_mutex) return error.SkipZigTest;
    var held: Held = .{};
    try held.start();
    defer os.clocks.wall_step_ns = 0;
    const start = os.monotonicNs();
    const reads = os.clocks.wall_reads;
    for ([_]i64{ -10, 10 }) |seconds| {
        os.clocks.wall_step_ns = seconds * std.time.ns_per_s;
        try held.expect(60, error.Timeout);
    }
    try std.testing.expectEqual(reads, os.clocks.wall_reads);
    // Four waits of 60 ms. One that went by the wall clock would have lasted for ten seconds.
    try std.testing.expect(os.monotonicNs() - start < 2400 * std.time.ns_per_ms);
    held.told.store(.let_go, .release);
    held.thread.join();
}
