//! Processes, threads, time and wake sequences, for Linux. What each function promises is said in
//! `os.zig`.

const std = @import("std");
const linux = std.os.linux;
const common = @import("common.zig");
const files = @import("linux.zig");
const posix = @import("posix.zig");
const status = @import("../status.zig");

const Error = status.Error;
const Fault = status.Fault;
const AtFork = common.AtFork;
const ifLinked = common.ifLinked;

const Key = c_uint;

extern fn pthread_key_create(key: *Key, destructor: common.AtEnd) c_int;
extern fn pthread_setspecific(key: Key, value: ?*const anyopaque) c_int;
extern fn pthread_getspecific(key: Key) ?*const anyopaque;

/// glibc's own name; the standard one is not in its shared library.
const register_atfork = @extern(
    ?*const fn (?AtFork, ?AtFork, ?AtFork, ?*anyopaque) callconv(.c) c_int,
    .{ .name = "__register_atfork", .linkage = .weak },
);
const pthread_atfork = @extern(
    ?*const fn (?AtFork, ?AtFork, ?AtFork) callconv(.c) c_int,
    .{ .name = "pthread_atfork", .linkage = .weak },
);

/// The host's libc reads clocks from a page that the kernel shares with each process, in a fiftieth
/// of the time of a system call.
const clock_gettime = @extern(
    ?*const fn (c_int, *linux.timespec) callconv(.c) c_int,
    .{ .name = "clock_gettime", .linkage = .weak },
);

var key: Key = 0;

pub fn prepareThreads(at_end: common.AtEnd) bool {
    return pthread_key_create(&key, at_end) == 0;
}

pub fn threadWord() usize {
    return @intFromPtr(pthread_getspecific(key));
}

pub fn setThreadWord(word: usize) void {
    _ = pthread_setspecific(key, @ptrFromInt(word)); // any value but null calls the destructor
}

pub fn watchForks(in_child: AtFork) void {
    if (ifLinked(register_atfork)) |register| {
        _ = register(null, null, in_child, null);
    } else if (ifLinked(pthread_atfork)) |register| {
        _ = register(null, null, in_child);
    }
}

pub fn random(target: []u8) void {
    var done: usize = 0;
    while (done < target.len) {
        const result = linux.getrandom(target[done..].ptr, target.len - done, 0);
        if (linux.errno(result) == .SUCCESS) done += result;
    }
}

pub fn pid() u32 {
    return @intCast(linux.getpid());
}

pub const isLiving = files.isLiving;

/// The kernel closes a process that is not dumpable, as after a change of its user, and to those
/// without its capabilities one that has any. Root's children have those of root.
pub fn isOpenToUser() bool {
    const answer = linux.prctl(@intFromEnum(linux.PR.GET_DUMPABLE), 0, 0, 0, 0);
    if (linux.errno(answer) == .SUCCESS and answer != 1) return false;
    return userId() == 0 or !hasCapabilities();
}

fn hasCapabilities() bool {
    const version_3 = 0x20080522;
    const Sets = extern struct { effective: u32, permitted: u32, inheritable: u32 };
    var header: extern struct { version: u32, pid: i32 } = .{ .version = version_3, .pid = 0 };
    var sets: [2]Sets = @splat(std.mem.zeroes(Sets));
    const result = linux.syscall2(.capget, @intFromPtr(&header), @intFromPtr(&sets));
    return linux.errno(result) == .SUCCESS and (sets[0].permitted | sets[1].permitted) != 0;
}

pub fn threadId() u32 {
    return @intCast(linux.gettid());
}

pub fn sleepOn(word: *const u32, count: u32, ns: u64) void {
    const time = posix.timeOf(ns);
    _ = linux.futex_4arg(word, .{ .cmd = .WAIT, .private = false }, count, &time);
}

pub fn wakeAll(word: *const u32) void {
    const everybody = std.math.maxInt(i32);
    _ = linux.futex_3arg(word, .{ .cmd = .WAKE, .private = false }, everybody);
}

pub fn userId() u32 {
    return linux.geteuid();
}

pub fn pidNamespace(fault: *Fault) Error!u64 {
    const path = files.procPath("/self/ns/pid", .{});
    return (files.statLink(fault, &path) catch |err| return unknown(fault, err)).inode;
}

pub fn bootId(fault: *Fault) Error![2]u64 {
    const path = files.procPath("/sys/kernel/random/boot_id", .{});
    const fd = files.open(fault, &path, .read) catch |err| return unknown(fault, err);
    defer files.close(fd);
    var text: [40]u8 = @splat(0);
    const len = files.readAt(fault, fd, &text, 0) catch |err| return unknown(fault, err);
    if (len < 36) return unknown(fault, error.NotFound); // it is a UUID
    return .{ std.hash.Fnv1a_64.hash(text[0..18]), std.hash.Fnv1a_64.hash(text[18..]) };
}

/// What is not there, or not for us, cannot be learnt, and another process that cannot learn it
/// either need not be of the same kind. No descriptor or memory left is the matter of a moment, and
/// stays what it is.
fn unknown(fault: *Fault, err: Error) Error {
    if (err != error.NotFound and err != error.PermissionDenied) return err;
    return fault.withReason(.noFacts, error.Unsupported);
}

fn clock(id: linux.clockid_t) u64 {
    var now: linux.timespec = undefined;
    const number = @intFromEnum(id);
    const of_libc = ifLinked(clock_gettime);
    if (of_libc == null or of_libc.?(@intCast(number), &now) != 0)
        _ = linux.syscall2(.clock_gettime, number, @intFromPtr(&now));
    return posix.nsOf(now);
}

pub fn monotonicNs() u64 {
    return clock(.MONOTONIC);
}

pub fn realtimeNs() u64 {
    return clock(.REALTIME);
}

pub fn coarseRealtimeNs() u64 {
    return clock(.REALTIME_COARSE);
}

pub fn sleepNs(ns: u64) void {
    _ = linux.nanosleep(&posix.timeOf(ns), null);
}

test "facts that cannot be learnt are an error, never nothing" {
    if (@import("builtin").os.tag != .linux) return error.SkipZigTest; // it reads /proc
    var fault: Fault = .{};
    try std.testing.expect(try pidNamespace(&fault) != 0);
    try std.testing.expect((try bootId(&fault))[0] != 0);
    files.proc = "/nowhere";
    defer files.proc = "/proc";
    try std.testing.expectError(error.Unsupported, pidNamespace(&fault));
    try std.testing.expectEqual(@as(f64, @intFromEnum(status.Reason.noFacts)), fault.reason);
    fault = .{};
    try std.testing.expectError(error.Unsupported, bootId(&fault));
    try std.testing.expectEqual(@as(f64, @intFromEnum(status.Reason.noFacts)), fault.reason);
}
