//! What raw regions ask of macOS beyond what segments do. What each function promises is said in
//! `os.zig`.

const std = @import("std");
const c = std.c;
const common = @import("common.zig");
const files = @import("macos.zig");
const posix = @import("posix.zig");
const status = @import("../status.zig");

const Base = common.Base;
const Error = status.Error;
const Fault = status.Fault;
const Fd = common.Fd;
const Path = common.Path;
const again = files.again;
const check = files.check;

extern "c" fn mach_vm_read_overwrite(
    task: c_uint,
    address: u64,
    size: u64,
    target: u64,
    copied: *u64,
) c_int;
extern "c" fn msync(address: *anyopaque, len: usize, flags: c_int) c_int;
extern "c" var mach_task_self_: c_uint;

const synchronously = 0x10; // MS_SYNC

pub fn openUser(
    fault: *Fault,
    path: *const Path,
    access: common.Access,
    make: common.Make,
) Error!Fd {
    var flags = files.openFlags(access);
    flags.CREAT = make != .nothing;
    flags.EXCL = make == .new;
    // The umask takes away from these permissions.
    return files.openWith(fault, path, flags, 0o666) catch |err| {
        if (posix.failedWith(fault, .ISDIR) or posix.failedWith(fault, .NXIO))
            return fault.withReason(.notRegularFile, error.Incompatible);
        return err;
    };
}

pub fn reopen(fault: *Fault, fd: Fd, use: common.Use) Error!Fd {
    const flags = check(fault, again(c.fcntl, .{ fd, c.F.GETFL })) catch |err|
        return if (posix.failedWith(fault, .BADF)) error.NotFound else err;
    try posix.permit(fault, flags, use);
    return files.openAgain(fault, fd, use.ofFile());
}

pub const duplicate = posix.duplicate;
pub const areTwins = posix.areTwins;

pub fn length(fault: *Fault, fd: Fd) Error!u64 {
    return (try files.stat(fault, fd)).size;
}

pub fn cut(fault: *Fault, fd: Fd, bytes: u64) Error!void {
    _ = try check(fault, again(c.ftruncate, .{ fd, @as(i64, @intCast(bytes)) }));
}

/// Blocks are asked for without moving the end when the file is lengthened (`allocate`).
pub fn reserve(_: *Fault, _: Fd, _: u64, _: u64) Error!void {
    return error.Unsupported;
}

pub fn sealedMemory(_: *Fault, _: u64) Error!Fd {
    return error.Unsupported;
}

/// There are no seals. Only this user can cut a file of ours short, and nothing else is taken for
/// one.
pub fn isSealed(fd: Fd) bool {
    var fault: Fault = .{};
    const found = files.stat(&fault, fd) catch return false;
    return found.uid == c.geteuid();
}

pub fn mapUser(fault: *Fault, fd: Fd, bytes: u64, use: common.Use) Error!Base {
    const protection: c.PROT = .{ .READ = use.read, .WRITE = use.write };
    return files.mapWith(fault, fd, bytes, protection, .{
        .TYPE = if (use.private) .PRIVATE else .SHARED,
    });
}

pub fn sync(fault: *Fault, _: Fd, base: Base, bytes: u64) Error!void {
    _ = try check(fault, again(msync, .{ base, bytes, synchronously }));
}

pub fn writeAt(fault: *Fault, fd: Fd, bytes: []const u8, offset: u64) Error!usize {
    var done: usize = 0;
    while (done < bytes.len) {
        const at: i64 = @intCast(offset + done);
        const rest = bytes[done..];
        done += try check(fault, again(c.pwrite, .{ fd, rest.ptr, rest.len, at }));
    }
    return done;
}

/// By the kernel's copy between tasks, from this one to itself: all or nothing.
pub fn copy(
    _: *Fault,
    direction: common.Direction,
    mapped: [*]u8,
    own: [*]u8,
    bytes: usize,
) Error!usize {
    const source = if (direction == .from_mapping) mapped else own;
    const target = if (direction == .from_mapping) own else mapped;
    var copied: u64 = 0;
    const result = mach_vm_read_overwrite(
        mach_task_self_,
        @intFromPtr(source),
        bytes,
        @intFromPtr(target),
        &copied,
    );
    return switch (result) {
        0 => bytes,
        // KERN_INVALID_ADDRESS, KERN_PROTECTION_FAILURE, KERN_MEMORY_FAILURE, KERN_MEMORY_ERROR
        1, 2, 9, 10 => 0,
        else => error.Unsupported,
    };
}
