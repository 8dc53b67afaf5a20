//! Processes, threads, time and bells, for macOS. What each function promises is said in `os.zig`.

const std = @import("std");
const c = std.c;
const common = @import("common.zig");
const status = @import("../status.zig");

const Error = status.Error;
const Fault = status.Fault;

const Key = c_ulong;

extern "c" fn pthread_key_create(key: *Key, destructor: common.AtEnd) c_int;
extern "c" fn pthread_setspecific(key: Key, value: ?*const anyopaque) c_int;
extern "c" fn pthread_atfork(
    before: ?common.AtFork,
    in_parent: ?common.AtFork,
    in_child: ?common.AtFork,
) c_int;

/// How long one that waits for a bell sleeps before it looks again: first, and at most.
const look_ns_min = 20 * std.time.ns_per_us;
const look_ns_max = 2 * std.time.ns_per_ms;

var key: Key = 0;

pub fn prepareThreads(at_end: common.AtEnd) bool {
    stayLoaded();
    return pthread_key_create(&key, at_end) == 0;
}

/// The destructor's code must be there when a thread ends.
fn stayLoaded() void {
    var found: c.dl_info = undefined;
    if (c.dladdr(&key, &found) == 0) return;
    _ = c.dlopen(found.fname, .{ .LAZY = true, .NOLOAD = true, .NODELETE = true });
}

pub fn watchThread() void {
    _ = pthread_setspecific(key, &key); // any value but null calls the destructor
}

pub fn watchForks(in_child: common.AtFork) void {
    _ = pthread_atfork(null, null, in_child);
}

pub fn random(target: []u8) void {
    c.arc4random_buf(target.ptr, target.len);
}

pub fn pid() u32 {
    return @intCast(c.getpid());
}

/// The lower half of the kernel's number, which counts all threads since the machine was started.
pub fn threadId() u32 {
    var id: u64 = 0;
    _ = c.pthread_threadid_np(null, &id);
    return @truncate(id);
}

/// No futex reaches another process on every version, so the word is looked at again and again.
pub fn sleepOn(word: *const u32, count: u32, ns: u64) void {
    const end = monotonicNs() +| ns;
    var step: u64 = look_ns_min;
    while (@atomicLoad(u32, word, .acquire) == count) { // pairs with `crash.bump`
        const left = end -| monotonicNs();
        if (left == 0) return;
        sleepNs(@min(step, left));
        step = @min(step * 2, look_ns_max);
    }
}

pub fn wakeAll(_: *const u32) void {}

pub fn ifLinked(function: anytype) @TypeOf(function) {
    return function;
}

pub fn userId() u32 {
    return c.geteuid();
}

pub fn pidNamespace(_: *Fault) Error!u64 {
    return 0;
}

/// Mutexes need it, and there are none.
pub fn bootId(_: *Fault) Error![2]u64 {
    return .{ 0, 0 };
}

fn clock(id: c.clockid_t) u64 {
    var now: c.timespec = undefined;
    _ = c.clock_gettime(id, &now);
    return @as(u64, @intCast(now.sec)) * std.time.ns_per_s + @as(u64, @intCast(now.nsec));
}

pub fn monotonicNs() u64 {
    return clock(.MONOTONIC);
}

pub fn realtimeNs() u64 {
    return clock(.REALTIME);
}

pub fn sleepNs(ns: u64) void {
    const time: c.timespec = .{
        .sec = @intCast(ns / std.time.ns_per_s),
        .nsec = @intCast(ns % std.time.ns_per_s),
    };
    _ = c.nanosleep(&time, null);
}
