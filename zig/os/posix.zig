//! What Linux and macOS have alike: the meaning of errors, times, and ranges, which are locks of
//! open file descriptions on both. What each function promises is said in `os.zig`.

const std = @import("std");
const builtin = @import("builtin");
const c = std.c;
const linux = std.os.linux;
const common = @import("common.zig");
const status = @import("../status.zig");

const E = std.posix.E;
const Error = status.Error;
const Fault = status.Fault;
const Fd = common.Fd;
const F = std.posix.F;
const Flock = std.posix.Flock;
const timespec = std.posix.timespec;

const is_linux = builtin.os.tag == .linux;
const set_lock = if (is_linux) linux.F.OFD_SETLK else 90; // F_OFD_SETLK
const get_lock = if (is_linux) linux.F.OFD_GETLK else 92; // F_OFD_GETLK

/// Notes the system's number; what it means to us.
pub fn failure(fault: *Fault, errno: E) Error {
    common.note(fault, @intFromEnum(errno));
    return switch (errno) {
        .NOENT, .NOTDIR, .SRCH => error.NotFound,
        .EXIST => error.Exists,
        .ACCES, .PERM, .ROFS => error.PermissionDenied,
        .NOSPC, .DQUOT, .FBIG => error.NoSpace,
        .OPNOTSUPP, .NOSYS => error.Unsupported,
        else => error.System,
    };
}

/// Whether the last failure was this one.
pub fn failedWith(fault: *const Fault, errno: E) bool {
    return fault.errno == @as(f64, @floatFromInt(@intFromEnum(errno)));
}

/// Whether a description that was opened with these flags may be used so; if not, that is noted as
/// the system would.
pub fn permit(fault: *Fault, flags: usize, use: common.Use) Error!void {
    const mode = std.enums.fromInt(std.posix.ACCMODE, flags & 3); // null: it grants neither
    const may_read = mode == .RDONLY or mode == .RDWR;
    const may_write = mode == .WRONLY or mode == .RDWR;
    const writes = use.ofFile() == .read_write;
    if (use.read and !may_read or writes and !may_write) return failure(fault, .ACCES);
}

pub fn timeOf(ns: u64) timespec {
    return .{
        .sec = @intCast(ns / std.time.ns_per_s),
        .nsec = @intCast(ns % std.time.ns_per_s),
    };
}

pub fn nsOf(time: timespec) u64 {
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

fn flock(kind: i16, start: i64, len: i64) Flock {
    var lock = std.mem.zeroes(Flock);
    lock.type = kind;
    lock.start = start;
    lock.len = len;
    return lock;
}

fn lockCall(fault: *Fault, fd: Fd, command: i32, lock: *Flock) Error!bool {
    while (true) {
        switch (fcntl(fd, command, lock)) {
            .SUCCESS => return true,
            .INTR => {},
            .AGAIN, .ACCES => return false,
            else => |errno| {
                common.note(fault, @intFromEnum(errno));
                return error.System;
            },
        }
    }
}

/// On Linux by the kernel itself, as all there (`linux.zig`).
fn fcntl(fd: Fd, command: i32, lock: *Flock) E {
    if (is_linux) return linux.errno(linux.fcntl(fd, command, @intFromPtr(lock)));
    return c.errno(c.fcntl(fd, command, lock));
}

pub fn duplicate(fault: *Fault, fd: Fd) Error!Fd {
    const errno, const result = control(fd, F.DUPFD_CLOEXEC, 0);
    return if (errno == .SUCCESS) @intCast(result) else failure(fault, errno);
}

/// Of the same description, two numbers show the same flags at any time. The one that is changed
/// here and put back means nothing to a regular file.
pub fn areTwins(one: Fd, other: Fd) bool {
    const errno, const flags = control(one, F.GETFL, 0);
    if (errno != .SUCCESS) return false;
    const changed = flags ^ @as(u32, @bitCast(std.posix.O{ .NONBLOCK = true }));
    for ([_]usize{ changed, flags }) |set| { // the second puts it back, also after a miss
        _ = control(one, F.SETFL, set);
        const others_errno, const seen = control(other, F.GETFL, 0);
        if (others_errno == .SUCCESS and seen == set) continue;
        _ = control(one, F.SETFL, flags);
        return false;
    }
    return true;
}

fn control(fd: Fd, command: i32, argument: usize) struct { E, usize } {
    if (is_linux) {
        const result = linux.fcntl(fd, command, argument);
        return .{ linux.errno(result), result };
    }
    const result = c.fcntl(fd, command, @as(c_int, @intCast(argument)));
    return .{ c.errno(result), @intCast(@max(result, 0)) };
}

pub fn lockRange(fault: *Fault, fd: Fd, start: i64, mode: common.Mode) Error!bool {
    var lock = flock(if (mode == .shared) F.RDLCK else F.WRLCK, start, 1);
    return lockCall(fault, fd, set_lock, &lock);
}

pub fn upgradeRange(fault: *Fault, fd: Fd, start: i64) Error!bool {
    return lockRange(fault, fd, start, .exclusive);
}

pub fn downgradeRange(fd: Fd, start: i64) void {
    var fault: Fault = .{};
    _ = lockRange(&fault, fd, start, .shared) catch {}; // a lower one is never refused
}

pub fn unlockRange(fd: Fd, start: i64) void {
    unlock(fd, start, 1);
}

pub fn unlockRanges(fd: Fd, start: i64, _: u32) void {
    unlock(fd, start, 0); // to the end
}

fn unlock(fd: Fd, start: i64, len: i64) void {
    var fault: Fault = .{};
    var lock = flock(F.UNLCK, start, len);
    _ = lockCall(&fault, fd, set_lock, &lock) catch {}; // nothing left to do about it
}

pub fn isRangeLocked(fault: *Fault, fd: Fd, start: i64) Error!bool {
    var lock = flock(F.WRLCK, start, 1);
    _ = try lockCall(fault, fd, get_lock, &lock);
    return lock.type != F.UNLCK;
}
