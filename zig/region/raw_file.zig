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

/// Makes a file longer, with blocks behind every new byte; on failure as long as it was. The
/// caller holds the range LIFECYCLE: no other opener lengthens it meanwhile.
pub fn lengthen(fault: *Fault, fd: os.Fd, from: u64, to: u64) Error!void {
    const file_system = try noteSpace(fault, fd, to - from);
    // At once, rather than after having filled all that was left of the disk.
    if (file_system.bytes > 0 and to - from > file_system.free) {
        os.note(fault, @intFromEnum(os.Number.no_space));
        return fault.withReason(.fileSystemFull, error.NoSpace);
    }
    os.allocate(fault, fd, from, to) catch |err| {
        var ignored: Fault = .{};
        os.cut(&ignored, fd, from) catch {}; // nothing is left to do about it
        if (err != error.Unsupported) return err;
        // This file system allocates when it writes: a copy that finds no room reports it then.
        try os.cut(fault, fd, to);
    };
}
