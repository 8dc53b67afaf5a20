//! What an open of a user's file needs beyond single system calls: a path that is one, room on its
//! file system, and a length that is given back when it cannot be had.

const os = @import("../os/os.zig");
const status = @import("../status.zig");

const Error = status.Error;
const Fault = status.Fault;

pub fn pathOf(fault: *Fault, bytes: []const u8) Error!os.Path {
    return os.Path.of("{s}", .{bytes}) catch {
        os.note(fault, @intFromEnum(os.Number.name_too_long));
        return error.System;
    };
}

/// Notes how full the file's file system is.
pub fn noteSpace(fault: *Fault, fd: os.Fd, needed: u64) Error!os.FileSystem {
    const file_system = try os.fileSystem(fault, fd);
    fault.needed_bytes = @floatFromInt(needed);
    fault.used_bytes = @floatFromInt(file_system.bytes - @min(file_system.bytes, file_system.free));
    return file_system;
}

/// Makes a file longer, with blocks behind every new byte; on failure it is as long as it was. The
/// caller holds the range LIFECYCLE: no other opener lengthens it meanwhile. Other programs know of
/// no range, and may append at any time. What they append is never cut off, also where this fails:
/// blocks are asked for first, which may fail, and then the end is moved, which only ever
/// lengthens.
pub fn lengthen(fault: *Fault, fd: os.Fd, from: u64, to: u64) Error!void {
    const file_system = try noteSpace(fault, fd, to - from);
    // At once, rather than after having filled all that was left of the disk.
    if (file_system.bytes > 0 and to - from > file_system.free) {
        os.note(fault, @intFromEnum(os.Number.no_space));
        return fault.withReason(.fileSystemFull, error.NoSpace);
    }
    var missing_from = from;
    if (os.reserve(fault, fd, from, to)) {
        missing_from = to - 1; // all blocks are there: one call moves the end, or does not
    } else |err| if (err != error.Unsupported) {
        giveBack(fd, from);
        return err;
    }
    // Without a reservation this may fail half-way, on a file system that does not know the call
    // before; then the file stays longer, for how much of that is another program's cannot be told.
    os.allocate(fault, fd, missing_from, to) catch |err| {
        if (err != error.Unsupported) return err;
        // This file system allocates when it writes: a copy that finds no room reports it then.
        // What is appended beyond `to` between the look and the cut is lost.
        if (try os.length(fault, fd) < to) try os.cut(fault, fd, to);
    };
}

/// Gives back the blocks that a reservation left beyond the end, if that is where it was. Else
/// another program has appended, and they stay until the file is next cut. What is appended between
/// the look and the cut is lost: no system has a call for both.
pub fn giveBack(fd: os.Fd, end: u64) void {
    var fault: Fault = .{};
    const size = (os.stat(&fault, fd) catch return).size;
    if (size == end) os.cut(&fault, fd, end) catch {}; // they stay
}
