//! What the system's files share: paths, and how the rest of the library sees files, file systems
//! and regions.

const std = @import("std");
const status = @import("../status.zig");

const Error = status.Error;
const Fault = status.Fault;

/// What mappings are aligned to, and the least the system gives; it may give larger pages.
pub const page_bytes = 4096;

/// An open file, as the boundary can hand it on.
pub const Fd = i32;
/// What no system gives as the number of an open file.
pub const no_file: Fd = -1;

pub const Pages = []align(page_bytes) u8;
pub const Base = [*]align(page_bytes) u8;

/// Notes the system's own number of an error.
pub fn note(fault: *Fault, number: anytype) void {
    fault.errno = @floatFromInt(number);
}

/// Notes that there is no address space for so many bytes, and how much the process may have.
pub fn noAddresses(fault: *Fault, bytes: u64, limit: ?u64) Error {
    fault.needed_bytes = @floatFromInt(bytes);
    fault.found = @floatFromInt(limit orelse 0);
    return fault.withReason(.addressSpace, error.NoSpace);
}

/// Where the library makes no holes.
pub fn noLengthening(_: *Fault, _: Fd, _: u64) Error!void {
    return error.Unsupported;
}

/// The same.
pub fn noPunching(_: *Fault, _: Fd, _: u64, _: u64) Error!void {
    return error.Unsupported;
}

/// The same: there are no holes that could do harm.
pub fn noHoles(_: Fd) bool {
    return true;
}

/// Where every process sees the same numbers of processes.
pub fn noPidNamespace(_: *Fault) Error!u64 {
    return 0;
}

/// Where nothing asks for it: mutexes need it, and there are none.
pub fn noBootId(_: *Fault) Error![2]u64 {
    return .{ 0, 0 };
}

/// A weak symbol's address, looked at when the program runs: in a static link the compiler takes it
/// for granted that there is one.
pub fn ifLinked(function: anytype) @TypeOf(function) {
    var address = function;
    const looked_at: *volatile @TypeOf(function) = &address;
    return looked_at.*;
}

/// A path on the stack, NUL-terminated.
pub const Path = struct {
    buffer: [4096]u8,
    len: usize,

    pub fn of(comptime format: []const u8, parts: anytype) Error!Path {
        var path: Path = undefined;
        const text = std.fmt.bufPrintZ(&path.buffer, format, parts) catch
            return error.InvalidArgument;
        path.len = text.len;
        return path;
    }

    pub fn z(path: *const Path) [*:0]const u8 {
        return @ptrCast(&path.buffer);
    }

    pub fn slice(path: *const Path) []const u8 {
        return path.buffer[0..path.len];
    }
};

pub const Access = enum { read, read_write };

/// What identifies a file and what we must know of it.
pub const Stat = struct {
    device: u64,
    inode: u64,
    uid: u32,
    regular: bool,
    size: u64,
    allocated: u64,

    pub fn same(a: Stat, b: Stat) bool {
        return a.device == b.device and a.inode == b.inode;
    }
};

/// What a file system says of itself. `bytes` is 0 where it has no size.
pub const FileSystem = struct {
    bytes: u64,
    free: u64,
    network: bool,
    overwrites: Overwrites = .in_place,
};

/// Where a file system puts bytes that are written anew. Elsewhere: each such write needs a free
/// block, and a store to a mapping that finds none ends the process by a signal.
pub const Overwrites = enum { in_place, in_place_if_told, elsewhere };

/// What a region is mapped for.
pub const Use = struct {
    read: bool,
    write: bool,
    private: bool,

    /// What the file must be opened for. Systems map for writing only what may be read too; a
    /// private mapping never writes to the file.
    pub fn ofFile(use: Use) Access {
        return if (use.write and !use.private) .read_write else .read;
    }
};

/// Whether opening a user's file may make it.
pub const Make = enum { nothing, new, missing };

pub const Direction = enum { from_mapping, to_mapping };

/// How a range is locked.
pub const Mode = enum { shared, exclusive };

/// What a system calls when a thread ends.
pub const AtEnd = *const fn (?*anyopaque) callconv(.c) void;

pub const AtFork = *const fn () callconv(.c) void;
