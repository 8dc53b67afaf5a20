//! The system calls of raw regions: a user's file opened, measured, lengthened and mapped, memory
//! files that cannot be cut short, and copies to and from a mapping whose ground anybody may take
//! away, which end early where plain ones would end in a signal.

const std = @import("std");
const linux = std.os.linux;
const os = @import("os.zig");
const status = @import("status.zig");

const Error = status.Error;
const Fault = status.Fault;

pub const Access = struct {
    read: bool,
    write: bool,
    private: bool,

    /// What the file must be opened for. The kernel maps for writing only what may be read too; a
    /// private mapping never writes to the file.
    pub fn ofFile(access: Access) os.Access {
        return if (access.write and !access.private) .read_write else .read;
    }
};

const seal = struct {
    const itself = 1;
    const shrink = 2;
    const grow = 4;
    const all = itself | shrink | grow;
};

fn note(fault: *Fault, errno: linux.E) void {
    fault.errno = @floatFromInt(@intFromEnum(errno));
}

pub fn pathOf(fault: *Fault, bytes: []const u8) Error!os.Path {
    return os.Path.of("{s}", .{bytes}) catch {
        note(fault, .NAMETOOLONG);
        return error.System;
    };
}

/// Opens a user's file, following links: it is theirs. `new`: `Exists` if anything has the name.
pub fn open(
    fault: *Fault,
    path: *const os.Path,
    access: os.Access,
    make: enum { nothing, new, missing },
) Error!os.Fd {
    var flags = os.openFlags(access);
    flags.CREAT = make != .nothing;
    flags.EXCL = make == .new;
    // The umask takes away from these permissions.
    const result = os.again(linux.open, .{ path.z(), flags, 0o666 });
    const fd = os.check(fault, result) catch |err| return switch (linux.errno(result)) {
        .ISDIR, .NXIO => fault.because(.notRegularFile, error.Incompatible),
        else => err,
    };
    return @intCast(fd);
}

/// Opens a descriptor's file once more. Its own rights bind us, though the file might grant more to
/// whoever opens it anew.
pub fn reopen(fault: *Fault, fd: os.Fd, access: Access) Error!os.Fd {
    const flags = linux.fcntl(fd, linux.F.GETFL, 0);
    _ = os.check(fault, flags) catch |err|
        return if (linux.errno(flags) == .BADF) error.NotFound else err;
    const mode = std.enums.fromInt(std.posix.ACCMODE, flags & 3); // null: it grants neither
    const may_read = mode == .RDONLY or mode == .RDWR;
    const may_write = mode == .WRONLY or mode == .RDWR;
    const writes = access.ofFile() == .read_write;
    if (access.read and !may_read or writes and !may_write) {
        note(fault, .ACCES);
        return error.PermissionDenied;
    }
    return os.openLink(fault, &os.Path.ofDescriptor(fd), access.ofFile());
}

/// How long the file is now. Of a description that is not the user's: this moves its position.
pub fn length(fault: *Fault, fd: os.Fd) Error!u64 {
    return os.check(fault, linux.lseek(fd, 0, linux.SEEK.END));
}

/// Notes how full the file's file system is.
pub fn noteSpace(fault: *Fault, fd: os.Fd, needed: u64) Error!os.FileSystem {
    const file_system = try os.fileSystem(fault, fd);
    fault.needed_bytes = @floatFromInt(needed);
    fault.used_bytes = @floatFromInt(file_system.bytes - @min(file_system.bytes, file_system.free));
    return file_system;
}

/// Makes a file longer, with blocks behind every new byte; on failure as long as it was. Assumes
/// that nobody else lengthens it meanwhile.
pub fn lengthen(fault: *Fault, fd: os.Fd, from: u64, to: u64) Error!void {
    const file_system = try noteSpace(fault, fd, to - from);
    // At once, rather than after having filled all that was left of the disk.
    if (file_system.bytes > 0 and to - from > file_system.free) {
        note(fault, .NOSPC);
        return fault.because(.fileSystemFull, error.NoSpace);
    }
    os.allocate(fault, fd, from, to) catch |err| {
        // Nothing is left to do if this fails, too.
        _ = os.again(linux.ftruncate, .{ fd, @as(i64, @intCast(from)) });
        if (err != error.Unsupported) return err;
        // This file system allocates when it writes: a copy that finds no room reports it then.
        _ = try os.check(fault, os.again(linux.ftruncate, .{ fd, @as(i64, @intCast(to)) }));
    };
}

/// A file in memory that nobody can cut short.
pub fn memory(fault: *Fault, bytes: u64) Error!os.Fd {
    if (bytes > availableMemory()) {
        fault.needed_bytes = @floatFromInt(bytes);
        note(fault, .NOMEM);
        return fault.because(.fileSystemFull, error.NoSpace);
    }
    const flags = linux.MFD.CLOEXEC | linux.MFD.ALLOW_SEALING;
    const fd: os.Fd = @intCast(try os.check(fault, linux.memfd_create(os.memory_name, flags)));
    errdefer os.close(fd);
    try os.allocate(fault, fd, 0, bytes);
    _ = try os.check(fault, os.again(linux.fcntl, .{ fd, linux.F.ADD_SEALS, seal.all }));
    return fd;
}

/// Whether nobody can cut the file short.
pub fn isSealed(fd: os.Fd) bool {
    const seals = os.again(linux.fcntl, .{ fd, linux.F.GET_SEALS, 0 });
    return linux.errno(seals) == .SUCCESS and seals & seal.shrink != 0;
}

/// What the machine can give before it must end processes; a guess where it does not say.
fn availableMemory() u64 {
    var fault: Fault = .{};
    const path = os.Path.of("/proc/meminfo", .{}) catch unreachable; // a constant
    const fd = os.open(&fault, &path, .read) catch return os.memoryBytes();
    defer os.close(fd);
    var buffer: [512]u8 = undefined;
    const text = buffer[0 .. os.readAt(&fault, fd, &buffer, 0) catch return os.memoryBytes()];
    const title = "MemAvailable:";
    const start = std.mem.indexOf(u8, text, title) orelse return os.memoryBytes();
    var words = std.mem.tokenizeScalar(u8, text[start + title.len ..], ' ');
    const kibibytes = std.fmt.parseInt(u64, words.next() orelse "", 10) catch
        return os.memoryBytes();
    return kibibytes *| 1024;
}

pub fn map(
    fault: *Fault,
    fd: os.Fd,
    bytes: u64,
    access: Access,
) Error![*]align(os.page_bytes) u8 {
    const protection: linux.PROT = .{ .READ = access.read, .WRITE = access.write };
    const flags: linux.MAP = .{
        .TYPE = if (access.private) .PRIVATE else .SHARED,
        .NORESERVE = true,
    };
    const result = linux.mmap(null, bytes, protection, flags, fd, 0);
    const address = os.check(fault, result) catch |err| {
        if (linux.errno(result) != .NOMEM) return err;
        fault.needed_bytes = @floatFromInt(bytes);
        return fault.because(.addressSpace, error.NoSpace);
    };
    const base: [*]align(os.page_bytes) u8 = @ptrFromInt(address);
    _ = linux.madvise(base, bytes, linux.MADV.DONTFORK);
    return base;
}

/// Has what was written to the mapping written to its file.
pub fn sync(fault: *Fault, base: [*]align(os.page_bytes) u8, bytes: u64) Error!void {
    _ = try os.check(fault, linux.msync(base, bytes, linux.MSF.SYNC));
}

/// Writes within the file. Assumes that it reaches that far: beyond its end this would lengthen it.
pub fn writeAt(fault: *Fault, fd: os.Fd, bytes: []const u8, offset: u64) Error!usize {
    var done: usize = 0;
    while (done < bytes.len) {
        const at: i64 = @intCast(offset + done);
        const result = linux.pwrite(fd, bytes[done..].ptr, bytes.len - done, at);
        if (linux.errno(result) == .INTR) continue;
        done += try os.check(fault, result);
    }
    return done;
}

pub const Direction = enum { from_mapping, to_mapping };

/// Copies by way of the kernel, which stops before a page that cannot be touched. How much;
/// `Unsupported`: the kernel does not offer it, or not to us.
pub fn copy(
    fault: *Fault,
    direction: Direction,
    mapped: [*]u8,
    own: [*]u8,
    bytes: usize,
) Error!usize {
    const local: std.posix.iovec = .{ .base = own, .len = bytes };
    const remote: std.posix.iovec = .{ .base = mapped, .len = bytes };
    const result = linux.syscall6(
        if (direction == .from_mapping) .process_vm_readv else .process_vm_writev,
        os.pid(),
        @intFromPtr(&local),
        1,
        @intFromPtr(&remote),
        1,
        0,
    );
    return switch (linux.errno(result)) {
        .SUCCESS => result,
        .FAULT => 0,
        .NOSYS, .PERM => error.Unsupported,
        else => os.check(fault, result),
    };
}
