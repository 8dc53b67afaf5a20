//! What raw regions ask of Linux beyond what segments do. What each function promises is said in
//! `os.zig`.

const std = @import("std");
const linux = std.os.linux;
const common = @import("common.zig");
const files = @import("linux.zig");
const posix = @import("posix.zig");
const process = @import("linux_process.zig");
const status = @import("../status.zig");

const Base = common.Base;
const Error = status.Error;
const Fault = status.Fault;
const Fd = common.Fd;
const Path = common.Path;
const again = files.again;
const check = files.check;
const note = common.note;

const seal = struct {
    const itself = 1;
    const shrink = 2;
    const grow = 4;
    const all = itself | shrink | grow;
};

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
    const result = again(linux.open, .{ path.z(), flags, 0o666 });
    const fd = check(fault, result) catch |err| return switch (linux.errno(result)) {
        .ISDIR, .NXIO => fault.withReason(.notRegularFile, error.Incompatible),
        else => err,
    };
    return @intCast(fd);
}

pub fn reopen(fault: *Fault, fd: Fd, access: common.Use) Error!Fd {
    const flags = linux.fcntl(fd, linux.F.GETFL, 0);
    _ = check(fault, flags) catch |err|
        return if (linux.errno(flags) == .BADF) error.NotFound else err;
    try posix.permit(fault, flags, access);
    return files.openAgain(fault, fd, access.ofFile());
}

pub const duplicate = posix.duplicate;
pub const areTwins = posix.areTwins;

pub fn length(fault: *Fault, fd: Fd) Error!u64 {
    return check(fault, linux.lseek(fd, 0, linux.SEEK.END));
}

pub fn cut(fault: *Fault, fd: Fd, bytes: u64) Error!void {
    _ = try check(fault, again(linux.ftruncate, .{ fd, @as(i64, @intCast(bytes)) }));
}

pub fn reserve(fault: *Fault, fd: Fd, from: u64, to: u64) Error!void {
    return files.allocateAs(fault, fd, from, to, linux.FALLOC.FL_KEEP_SIZE);
}

pub fn sealedMemory(fault: *Fault, bytes: u64) Error!Fd {
    if (bytes > availableMemory()) {
        fault.needed_bytes = @floatFromInt(bytes);
        note(fault, @intFromEnum(linux.E.NOMEM));
        return fault.withReason(.fileSystemFull, error.NoSpace);
    }
    const flags = linux.MFD.CLOEXEC | linux.MFD.ALLOW_SEALING;
    const fd: Fd = @intCast(try check(fault, linux.memfd_create(files.memory_name, flags)));
    errdefer files.close(fd);
    try files.allocate(fault, fd, 0, bytes);
    _ = try check(fault, again(linux.fcntl, .{ fd, linux.F.ADD_SEALS, seal.all }));
    return fd;
}

pub fn isSealed(fd: Fd) bool {
    const seals = again(linux.fcntl, .{ fd, linux.F.GET_SEALS, 0 });
    return linux.errno(seals) == .SUCCESS and seals & seal.shrink != 0;
}

/// What the machine can give before it must end processes; a guess where it does not say.
fn availableMemory() u64 {
    var fault: Fault = .{};
    const path = files.procPath("/meminfo", .{});
    const fd = files.open(&fault, &path, .read) catch return files.memoryBytes();
    defer files.close(fd);
    var buffer: [512]u8 = undefined;
    const text = buffer[0 .. files.readAt(&fault, fd, &buffer, 0) catch return files.memoryBytes()];
    const title = "MemAvailable:";
    const start = std.mem.indexOf(u8, text, title) orelse return files.memoryBytes();
    var words = std.mem.tokenizeScalar(u8, text[start + title.len ..], ' ');
    const kibibytes = std.fmt.parseInt(u64, words.next() orelse "", 10) catch
        return files.memoryBytes();
    return kibibytes *| 1024;
}

pub fn mapUser(
    fault: *Fault,
    fd: Fd,
    bytes: u64,
    access: common.Use,
) Error!Base {
    const protection: linux.PROT = .{ .READ = access.read, .WRITE = access.write };
    const flags: linux.MAP = .{
        .TYPE = if (access.private) .PRIVATE else .SHARED,
        .NORESERVE = true,
    };
    const result = linux.mmap(null, bytes, protection, flags, fd, 0);
    const address = check(fault, result) catch |err| {
        return if (linux.errno(result) == .NOMEM) files.noAddresses(fault, bytes) else err;
    };
    const base: Base = @ptrFromInt(address);
    _ = linux.madvise(base, bytes, linux.MADV.DONTFORK);
    files.keepOutOfDumps(base, bytes);
    return base;
}

pub fn sync(fault: *Fault, _: Fd, base: Base, bytes: u64) Error!void {
    _ = try check(fault, linux.msync(base, bytes, linux.MSF.SYNC));
}

pub fn writeAt(fault: *Fault, fd: Fd, bytes: []const u8, offset: u64) Error!usize {
    var done: usize = 0;
    while (done < bytes.len) {
        const at: i64 = @intCast(offset + done);
        const result = linux.pwrite(fd, bytes[done..].ptr, bytes.len - done, at);
        if (linux.errno(result) == .INTR) continue;
        done += try check(fault, result);
    }
    return done;
}

pub fn copy(
    fault: *Fault,
    direction: common.Direction,
    mapped: [*]u8,
    own: [*]u8,
    bytes: usize,
) Error!usize {
    const local: std.posix.iovec = .{ .base = own, .len = bytes };
    const remote: std.posix.iovec = .{ .base = mapped, .len = bytes };
    const result = linux.syscall6(
        if (direction == .from_mapping) .process_vm_readv else .process_vm_writev,
        process.pid(),
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
        else => check(fault, result),
    };
}
