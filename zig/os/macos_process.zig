//! Processes, threads, time and wake sequences, for macOS. What each function promises is said in
//! `os.zig`.

const std = @import("std");
const c = std.c;
const common = @import("common.zig");
const posix = @import("posix.zig");

const Key = c_ulong;

extern "c" fn pthread_key_create(key: *Key, destructor: common.AtEnd) c_int;
extern "c" fn pthread_setspecific(key: Key, value: ?*const anyopaque) c_int;
extern "c" fn pthread_getspecific(key: Key) ?*const anyopaque;
extern "c" fn pthread_atfork(
    before: ?common.AtFork,
    in_parent: ?common.AtFork,
    in_child: ?common.AtFork,
) c_int;

/// No futex reaches another process on every version.
pub const look_ns_min = 20 * std.time.ns_per_us;

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

pub fn threadWord() usize {
    return @intFromPtr(pthread_getspecific(key));
}

pub fn setThreadWord(word: usize) void {
    _ = pthread_setspecific(key, @ptrFromInt(word)); // any value but null calls the destructor
}

pub fn watchForks(in_child: common.AtFork) void {
    _ = pthread_atfork(null, null, in_child);
}

pub const pidNamespace = common.noPidNamespace;
pub const bootId = common.noBootId;

pub fn random(target: []u8) void {
    c.arc4random_buf(target.ptr, target.len);
}

pub fn pid() u32 {
    return @intCast(c.getpid());
}

/// The lower half of the kernel's number, which counts all threads since the machine was started.
/// No process looks for the files of another one.
pub fn isOpenToUser() bool {
    return true;
}

/// There are no PID namespaces.
pub fn isLiving(_: u32) bool {
    return true;
}

pub fn threadId() u32 {
    var id: u64 = 0;
    _ = c.pthread_threadid_np(null, &id);
    return @truncate(id);
}

pub fn userId() u32 {
    return c.geteuid();
}

fn clock(id: c.clockid_t) u64 {
    var now: c.timespec = undefined;
    _ = c.clock_gettime(id, &now);
    return posix.nsOf(now);
}

pub fn monotonicNs() u64 {
    return clock(.MONOTONIC);
}

pub fn realtimeNs() u64 {
    return clock(.REALTIME);
}

pub fn coarseRealtimeNs() u64 {
    return realtimeNs();
}

pub fn sleepNs(ns: u64) void {
    _ = c.nanosleep(&posix.timeOf(ns), null);
}
