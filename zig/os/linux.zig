//! Files, their names, memory and ranges, for Linux: raw calls, no libc, so that one library serves
//! programs of every libc. What each function promises is said in `os.zig`.
//!
//! A failed call notes its errno in the `Fault` and comes back as one of `status.Error`; calls
//! interrupted by a signal are made again.

const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;
const common = @import("common.zig");
const posix = @import("posix.zig");
const status = @import("../status.zig");

const Access = common.Access;
const Base = common.Base;
const Error = status.Error;
const Fault = status.Fault;
const Fd = common.Fd;
const FileSystem = common.FileSystem;
const Pages = common.Pages;
const Path = common.Path;
const Stat = common.Stat;
const failedWith = posix.failedWith;
const note = common.note;
const page_bytes = common.page_bytes;

pub const has_memory_files = true;
pub const has_robust_mutex = true;
pub const has_shared_futex = true;
pub const has_range_queries = true;
pub const has_descriptors = true;
pub const has_page_moves = true;
pub const has_holes = true;
pub const removes_mapped_files = true;
pub const name_separators = "/\x00";

/// The system's numbers of errors that are noted by others.
pub const Number = enum(u16) {
    name_too_long = @intFromEnum(linux.E.NAMETOOLONG),
    no_space = @intFromEnum(linux.E.NOSPC),
};

/// By which memory files of ours are known: the kernel shows it in links to them.
pub const memory_name = "shmap";

/// How much is allocated by one call: an interrupted larger one would start from nothing each time.
const fallocate_piece_bytes = 2 << 20;

pub const lockRange = posix.lockRange;
pub const upgradeRange = posix.upgradeRange;
pub const downgradeRange = posix.downgradeRange;
pub const unlockRange = posix.unlockRange;
pub const unlockRanges = posix.unlockRanges;
pub const isRangeLocked = posix.isRangeLocked;

pub fn defaultDirectory(_: *Fault) Error!Path {
    return Path.of("/dev/shm", .{});
}

/// Makes a call until no signal interrupts it.
pub fn again(comptime call: anytype, arguments: anytype) usize {
    while (true) {
        const result = @call(.auto, call, arguments);
        if (linux.errno(result) != .INTR) return result;
    }
}

pub fn check(fault: *Fault, result: usize) Error!usize {
    const errno = linux.errno(result);
    return if (errno == .SUCCESS) result else posix.failure(fault, errno);
}

/// Where the kernel tells of processes and descriptors. Tests put it out of reach.
pub var proc: if (builtin.is_test) []const u8 else void = if (builtin.is_test) "/proc" else {};

pub fn procPath(comptime format: []const u8, parts: anytype) Path {
    const root = if (builtin.is_test) proc else "/proc";
    return Path.of("{s}" ++ format, .{root} ++ parts) catch unreachable; // all parts are numbers
}

fn pathOfDescriptor(fd: Fd) Path {
    return procPath("/self/fd/{d}", .{fd});
}

/// What it means that a path below /proc leads nowhere: that it does not, or that there is no /proc
/// at all, as in a bare mount namespace. Then descriptors cannot be followed, and that is said.
fn withoutProc(fault: *Fault, err: Error) Error {
    if (err != error.NotFound) return err;
    var ignored: Fault = .{};
    const self = procPath("/self/fd", .{});
    if (statLink(&ignored, &self)) |_| return err else |_| {}
    return fault.withReason(.noProc, error.Unsupported);
}

pub fn openFlags(access: Access) linux.O {
    return .{
        .ACCMODE = if (access == .read) .RDONLY else .RDWR,
        .CLOEXEC = true,
        .NOCTTY = true,
        .NONBLOCK = true, // a FIFO squatting the name must not make us wait
    };
}

pub fn open(fault: *Fault, path: *const Path, access: Access) Error!Fd {
    var flags = openFlags(access);
    flags.NOFOLLOW = true;
    const fd = check(fault, again(linux.open, .{ path.z(), flags, 0 })) catch |err| {
        if (failedWith(fault, .LOOP) or failedWith(fault, .ISDIR) or failedWith(fault, .NXIO))
            return fault.withReason(.notRegularFile, error.Incompatible);
        return err;
    };
    return @intCast(fd);
}

/// Opens what a /proc link leads to: a second open file description of the same file.
pub fn openLink(fault: *Fault, path: *const Path, access: Access) Error!Fd {
    return @intCast(try check(fault, again(linux.open, .{ path.z(), openFlags(access), 0 })));
}

pub fn openAgain(fault: *Fault, fd: Fd, access: Access) Error!Fd {
    return openLink(fault, &pathOfDescriptor(fd), access) catch |err| withoutProc(fault, err);
}

pub fn openMemoryOf(fault: *Fault, owner: u32, fd: u31, access: Access) Error!Fd {
    const path = procPath("/{d}/fd/{d}", .{ owner, fd });
    var buffer: [64]u8 = undefined;
    const reads = readLink(fault, &path, &buffer) catch |err| {
        const meant = withoutProc(fault, err);
        return if (meant == error.Unsupported) meant else unseen(fault, owner, err);
    };
    if (!std.mem.eql(u8, reads, "/memfd:" ++ memory_name ++ " (deleted)"))
        return fault.withReason(.identity, error.NotFound);
    return openLink(fault, &path, access) catch |err| return unseen(fault, owner, err);
}

/// Why a process does not show what it has open.
fn unseen(fault: *Fault, owner: u32, err: Error) Error {
    fault.found = @floatFromInt(owner);
    return switch (err) {
        error.PermissionDenied => fault.withReason(.hiddenProcess, err),
        error.NotFound => fault.withReason(if (isLiving(owner)) .identity else .noSuchProcess, err),
        else => err,
    };
}

pub fn isLiving(number: u32) bool {
    const target = std.math.cast(i32, number) orelse return false;
    const nothing: linux.SIG = @enumFromInt(0);
    return linux.errno(linux.kill(target, nothing)) != .SRCH;
}

pub fn openDirectory(fault: *Fault, path: *const Path) Error!Fd {
    const flags: linux.O = .{ .DIRECTORY = true, .CLOEXEC = true };
    return @intCast(check(fault, again(linux.open, .{ path.z(), flags, 0 })) catch |err| {
        return if (err == error.NotFound) fault.withReason(.filesystem, err) else err;
    });
}

pub fn directoryPath(fault: *Fault, fd: Fd, given: *const Path) Error!Path {
    var buffer: [4096]u8 = undefined;
    if (readLink(fault, &pathOfDescriptor(fd), &buffer)) |path|
        return Path.of("{s}", .{path})
    else |err| if (withoutProc(fault, err) != error.Unsupported) return err;
    // Without /proc links stay in it, but it must not depend on where this process is later.
    if (given.len > 0 and given.buffer[0] == '/') return given.*;
    const len = try check(fault, linux.getcwd(&buffer, buffer.len)); // with the NUL
    return Path.of("{s}/{s}", .{ buffer[0 .. len - 1], given.slice() });
}

pub fn openUnnamed(fault: *Fault, directory: *const Path) Error!Fd {
    var flags: linux.O = .{ .ACCMODE = .RDWR, .DIRECTORY = true, .CLOEXEC = true };
    flags.TMPFILE = true;
    const fd = check(fault, again(linux.open, .{ directory.z(), flags, 0o600 })) catch |err| {
        return if (failedWith(fault, .ISDIR)) error.Unsupported else err;
    };
    // It is opened a second time, and given its name, by way of /proc.
    var ignored: Fault = .{};
    if (statLink(&ignored, &pathOfDescriptor(@intCast(fd)))) |_| return @intCast(fd) else |_| {}
    close(@intCast(fd));
    return error.Unsupported;
}

pub fn openNew(fault: *Fault, path: *const Path) Error!Fd {
    var flags = openFlags(.read_write);
    flags.CREAT = true;
    flags.EXCL = true;
    return @intCast(try check(fault, again(linux.open, .{ path.z(), flags, 0o600 })));
}

pub fn memoryFile(fault: *Fault) Error!Fd {
    return @intCast(try check(fault, linux.memfd_create(memory_name, linux.MFD.CLOEXEC)));
}

pub fn close(fd: Fd) void {
    _ = linux.close(fd);
}

fn statAt(fault: *Fault, fd: Fd, path: [*:0]const u8, flags: u32) Error!Stat {
    var buffer: linux.Statx = undefined;
    _ = try check(fault, linux.statx(fd, path, flags, linux.STATX.BASIC_STATS, &buffer));
    return .{
        .device = @as(u64, buffer.dev_major) << 32 | buffer.dev_minor,
        .inode = buffer.ino,
        .uid = buffer.uid,
        .regular = buffer.mode & linux.S.IFMT == linux.S.IFREG,
        .size = buffer.size,
        .allocated = buffer.blocks * 512,
    };
}

pub fn stat(fault: *Fault, fd: Fd) Error!Stat {
    return statAt(fault, fd, "", linux.AT.EMPTY_PATH);
}

pub fn statName(fault: *Fault, path: *const Path) Error!Stat {
    return statAt(fault, linux.AT.FDCWD, path.z(), linux.AT.SYMLINK_NOFOLLOW);
}

pub fn statLink(fault: *Fault, path: *const Path) Error!Stat {
    return statAt(fault, linux.AT.FDCWD, path.z(), 0);
}

pub fn readAt(fault: *Fault, fd: Fd, target: []u8, offset: u64) Error!usize {
    var done: usize = 0;
    while (done < target.len) {
        const at: i64 = @intCast(offset + done);
        const result = linux.pread(fd, target[done..].ptr, target.len - done, at);
        if (linux.errno(result) == .INTR) continue;
        const count = try check(fault, result);
        if (count == 0) break;
        done += count;
    }
    return done;
}

pub fn allocate(fault: *Fault, fd: Fd, from: u64, to: u64) Error!void {
    return allocateAs(fault, fd, from, to, 0);
}

/// Beyond this process's limit the kernel sends SIGXFSZ instead of failing.
fn checkFileLimit(fault: *Fault, to: u64) Error!void {
    var limit: linux.rlimit = undefined;
    if (linux.errno(linux.prlimit(0, .FSIZE, null, &limit)) != .SUCCESS) return;
    if (to <= limit.cur) return;
    note(fault, @intFromEnum(linux.E.FBIG));
    fault.ceiling_bytes = @floatFromInt(limit.cur);
    return fault.withReason(.ceilingReached, error.NoSpace);
}

pub fn lengthen(fault: *Fault, fd: Fd, bytes: u64) Error!void {
    try checkFileLimit(fault, bytes);
    _ = try check(fault, again(linux.ftruncate, .{ fd, @as(i64, @intCast(bytes)) }));
}

pub fn punch(fault: *Fault, fd: Fd, from: u64, to: u64) Error!void {
    const how = linux.FALLOC.FL_KEEP_SIZE | linux.FALLOC.FL_PUNCH_HOLE;
    const bytes: i64 = @intCast(to - from);
    const result = again(linux.fallocate, .{ fd, how, @as(i64, @intCast(from)), bytes });
    _ = check(fault, result) catch |err|
        return if (failedWith(fault, .OPNOTSUPP)) error.Unsupported else err;
}

/// A file system without a size has a page for every load, but where the machine was told to refuse
/// what it may not be able to keep.
pub fn areHolesSafe(fd: Fd) bool {
    var fault: Fault = .{};
    const file_system = fileSystem(&fault, fd) catch return false;
    if (file_system.bytes > 0) return false;
    const path = Path.of("/proc/sys/vm/overcommit_memory", .{}) catch unreachable;
    const setting = open(&fault, &path, .read) catch return false;
    defer close(setting);
    var text: [1]u8 = undefined;
    const len = readAt(&fault, setting, &text, 0) catch return false;
    return len == 1 and text[0] != '2';
}

pub fn allocateAs(fault: *Fault, fd: Fd, from: u64, to: u64, how: i32) Error!void {
    try checkFileLimit(fault, to);
    var at = from;
    while (at < to) {
        const bytes = @min(to - at, fallocate_piece_bytes);
        const from_here: i64 = @intCast(at);
        const result = again(linux.fallocate, .{ fd, how, from_here, @as(i64, @intCast(bytes)) });
        _ = check(fault, result) catch |err| {
            if (err == error.NoSpace) return fault.withReason(.fileSystemFull, err);
            if (failedWith(fault, .NOMEM)) return fault.withReason(.fileSystemFull, error.NoSpace);
            return err;
        };
        at += bytes;
    }
}

pub fn map(fault: *Fault, fd: Fd, bytes: u64, access: Access) Error!Base {
    const protection: linux.PROT = .{ .READ = true, .WRITE = access == .read_write };
    const flags: linux.MAP = .{ .TYPE = .SHARED, .NORESERVE = true };
    const result = linux.mmap(null, bytes, protection, flags, fd, 0);
    const address = check(fault, result) catch |err| {
        return if (failedWith(fault, .NOMEM)) noAddresses(fault, bytes) else err;
    };
    const base: Base = @ptrFromInt(address);
    _ = linux.madvise(base, bytes, linux.MADV.DONTFORK);
    keepOutOfDumps(base, bytes);
    return base;
}

/// Nothing to do: the mapping shows the file at its present length.
pub inline fn extend(_: *Fault, _: Fd, _: Base, _: u64, _: u64, _: Access) Error!void {}

pub fn forget(base: Base, bytes: u64) void {
    _ = linux.madvise(base, bytes, linux.MADV.DONTNEED);
}

pub fn noAddresses(fault: *Fault, bytes: u64) Error {
    return common.noAddresses(fault, bytes, addressLimit());
}

pub fn addressLimit() ?u64 {
    var limit: linux.rlimit = undefined;
    if (linux.errno(linux.prlimit(0, .AS, null, &limit)) != .SUCCESS) return null;
    return if (limit.cur == linux.RLIM.INFINITY) null else limit.cur;
}

pub fn unmap(base: Base, bytes: u64) void {
    _ = linux.munmap(base, bytes);
}

pub fn pages(fault: *Fault, bytes: u64) Error!Pages {
    const len = std.mem.alignForward(u64, @max(bytes, 1), page_bytes);
    const protection: linux.PROT = .{ .READ = true, .WRITE = true };
    const flags: linux.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true };
    const address = try check(fault, linux.mmap(null, len, protection, flags, -1, 0));
    const base: Base = @ptrFromInt(address);
    keepOutOfDumps(base, len); // what is gathered for a caller is shared data, too
    return base[0..len];
}

/// A core dump of one process would hold the data of all, and take as long as reading all of it. A
/// kernel that refuses writes larger dumps.
pub fn keepOutOfDumps(base: Base, bytes: u64) void {
    _ = linux.madvise(base, bytes, linux.MADV.DONTDUMP);
}

pub fn growPages(
    fault: *Fault,
    old: Pages,
    bytes: u64,
) Error!Pages {
    if (old.len == 0) return pages(fault, bytes);
    const len = std.mem.alignForward(u64, bytes, page_bytes);
    const result = linux.mremap(old.ptr, old.len, len, .{ .MAYMOVE = true }, null);
    const address = try check(fault, result);
    return @as(Base, @ptrFromInt(address))[0..len];
}

pub fn freePages(memory: Pages) void {
    if (memory.len > 0) _ = linux.munmap(memory.ptr, memory.len);
}

pub fn linkUnnamed(fault: *Fault, fd: Fd, path: *const Path) Error!void {
    const from = pathOfDescriptor(fd);
    const cwd = linux.AT.FDCWD;
    const follow = linux.AT.SYMLINK_FOLLOW;
    _ = try check(fault, linux.linkat(cwd, from.z(), cwd, path.z(), follow));
}

pub fn link(fault: *Fault, from: *const Path, to: *const Path) Error!void {
    const cwd = linux.AT.FDCWD;
    _ = try check(fault, linux.linkat(cwd, from.z(), cwd, to.z(), 0));
}

pub fn exchange(fault: *Fault, from: *const Path, to: *const Path) Error!bool {
    const cwd = linux.AT.FDCWD;
    const result = linux.renameat2(cwd, from.z(), cwd, to.z(), .{ .EXCHANGE = true });
    switch (linux.errno(result)) {
        .INVAL, .NOSYS => _ = try check(fault, linux.renameat2(cwd, from.z(), cwd, to.z(), .{})),
        else => _ = try check(fault, result),
    }
    return true;
}

pub fn unlink(fault: *Fault, path: *const Path) Error!void {
    _ = try check(fault, linux.unlinkat(linux.AT.FDCWD, path.z(), 0));
}

pub fn setPermissions(fault: *Fault, fd: Fd, mode: u32) Error!void {
    _ = try check(fault, linux.fchmod(fd, mode));
}

fn readLink(fault: *Fault, path: *const Path, target: []u8) Error![]u8 {
    return target[0..try check(fault, linux.readlink(path.z(), target.ptr, target.len))];
}

pub const Names = struct {
    fd: Fd,
    buffer: [4096]u8 align(8) = undefined,
    at: usize = 0,
    len: usize = 0,

    pub fn of(fault: *Fault, directory: *const Path) Error!Names {
        return .{ .fd = try openDirectory(fault, directory) };
    }

    pub fn close(names: *Names) void {
        _ = linux.close(names.fd);
    }

    pub fn next(names: *Names, fault: *Fault) Error!?[]const u8 {
        if (names.at >= names.len) {
            const result = linux.getdents64(names.fd, &names.buffer, names.buffer.len);
            names.len = try check(fault, result);
            names.at = 0;
            if (names.len == 0) return null;
        }
        const entry: *align(1) linux.dirent64 = @ptrCast(&names.buffer[names.at]);
        names.at += entry.reclen;
        return std.mem.span(@as([*:0]const u8, @ptrCast(&entry.name)));
    }
};

const StatFs = extern struct {
    type: i64,
    bsize: i64,
    blocks: u64,
    bfree: u64,
    bavail: u64,
    files: u64,
    ffree: u64,
    fsid: [2]i32,
    namelen: i64,
    frsize: i64,
    flags: i64,
    spare: [4]i64,
};

/// NFS, SMB (three), AFS, 9P, Ceph, Coda, NCP, GFS2, OCFS2, Lustre, and FUSE, which may be any.
const network_types = [_]i64{
    0x6969, 0x517b,     0xff534d42, 0xfe534d42, 0x5346414f, 0x01021997, 0x00c36400, 0x73757245,
    0x564c, 0x01161970, 0x7461636f, 0x0bd00bd0, 0x65735546,
};
const btrfs_type = 0x9123683e;
/// Bcachefs, ZFS, NILFS2: they write bytes elsewhere each time, and take no order not to.
const moving_types = [_]i64{ 0xca451a4e, 0x2fc12fc1, 0x3434 };

pub fn fileSystem(fault: *Fault, fd: Fd) Error!FileSystem {
    var buffer: StatFs = undefined;
    const file: usize = @intCast(fd);
    const result = again(linux.syscall2, .{ .fstatfs, file, @intFromPtr(&buffer) });
    _ = try check(fault, result);
    const block_bytes: u64 = @intCast(@max(buffer.bsize, 0));
    return .{
        .bytes = buffer.blocks *| block_bytes,
        .free = buffer.bfree *| block_bytes,
        .network = std.mem.indexOfScalar(i64, &network_types, buffer.type) != null,
        .overwrites = if (buffer.type == btrfs_type)
            .in_place_if_told
        else if (std.mem.indexOfScalar(i64, &moving_types, buffer.type) != null)
            .elsewhere
        else
            .in_place,
    };
}

const Inode = struct {
    const get_flags = 0x80086601; // FS_IOC_GETFLAGS
    const set_flags = 0x40086602; // FS_IOC_SETFLAGS
    const compressed = 0x4; // FS_COMPR_FL
    const not_compressed = 0x400; // FS_NOCOMP_FL
    const not_copied = 0x800000; // FS_NOCOW_FL
};

pub fn overwriteInPlace(fault: *Fault, fd: Fd) Error!void {
    var flags: u32 = 0;
    const address = @intFromPtr(&flags);
    _ = try check(fault, again(linux.ioctl, .{ fd, Inode.get_flags, address }));
    // Compressed bytes are always written elsewhere, and the two flags together are refused.
    flags &= ~@as(u32, Inode.compressed | Inode.not_compressed);
    flags |= Inode.not_copied;
    _ = try check(fault, again(linux.ioctl, .{ fd, Inode.set_flags, address }));
}

pub fn memoryBytes() u64 {
    var info: linux.Sysinfo = undefined;
    if (linux.errno(linux.sysinfo(&info)) != .SUCCESS) return 1 << 32;
    return @as(u64, info.totalram) *| info.mem_unit;
}

const expectEqual = std.testing.expectEqual;

/// The flags of the mapping at `base`, as the kernel shows them.
fn flagsOf(base: Base, target: []u8) ![]const u8 {
    var fault: Fault = .{};
    const path = procPath("/self/smaps", .{});
    const fd = try open(&fault, &path, .read);
    defer close(fd);
    const text = try std.testing.allocator.alloc(u8, 16 << 20);
    defer std.testing.allocator.free(text);
    var len: usize = 0;
    while (true) {
        const count = try check(&fault, linux.read(fd, text[len..].ptr, text.len - len));
        if (count == 0) break;
        len += count;
    }
    var start: [20]u8 = undefined;
    const address = try std.fmt.bufPrint(&start, "{x}-", .{@intFromPtr(base)});
    var lines = std.mem.splitScalar(u8, text[0..len], '\n');
    var is_there = false;
    while (lines.next()) |line| {
        if (std.mem.startsWith(u8, line, address)) is_there = true;
        const title = "VmFlags:";
        if (!is_there or !std.mem.startsWith(u8, line, title)) continue;
        @memcpy(target[0 .. line.len - title.len], line[title.len..]);
        return target[0 .. line.len - title.len];
    }
    return error.TestUnexpectedResult;
}

test "what is shared, and what is gathered of it, stays out of core dumps" {
    if (builtin.os.tag != .linux) return error.SkipZigTest; // it reads /proc
    const regions = @import("linux_region.zig");
    var fault: Fault = .{};
    const fd = try memoryFile(&fault);
    defer close(fd);
    try allocate(&fault, fd, 0, page_bytes);
    const use: common.Use = .{ .read = true, .write = true, .private = true };
    const mapped = [_]Base{
        try map(&fault, fd, 16 * page_bytes, .read_write),
        try map(&fault, fd, 16 * page_bytes, .read),
        try regions.mapUser(&fault, fd, 16 * page_bytes, use),
    };
    defer for (mapped) |base| unmap(base, 16 * page_bytes);
    var gathered = try pages(&fault, 16 * page_bytes);
    gathered = try growPages(&fault, gathered, 64 * page_bytes);
    defer freePages(gathered);
    var buffer: [400]u8 = undefined;
    for (mapped) |base| {
        const flags = try flagsOf(base, &buffer);
        try std.testing.expect(std.mem.indexOf(u8, flags, " dd") != null);
        try std.testing.expect(std.mem.indexOf(u8, flags, " dc") != null); // nor in a forked child
    }
    const flags = try flagsOf(gathered.ptr, &buffer);
    try std.testing.expect(std.mem.indexOf(u8, flags, " dd") != null);
}

test "without /proc descriptors lead nowhere, which is said, and directories are still absolute" {
    if (builtin.os.tag != .linux) return error.SkipZigTest; // it calls Linux
    var fault: Fault = .{};
    const fd = try memoryFile(&fault);
    defer close(fd);
    close(try openAgain(&fault, fd, .read));
    const here = try openDirectory(&fault, &try Path.of(".", .{}));
    defer close(here);
    const known = try directoryPath(&fault, here, &try Path.of(".", .{}));
    try std.testing.expectError(error.NotFound, openAgain(&fault, 999, .read));
    proc = "/nowhere";
    defer proc = "/proc";
    try std.testing.expectError(error.Unsupported, openAgain(&fault, fd, .read));
    try expectEqual(@as(f64, @intFromEnum(status.Reason.noProc)), fault.reason);
    fault = .{};
    try std.testing.expectError(error.Unsupported, openMemoryOf(&fault, 1, 3, .read));
    try expectEqual(@as(f64, @intFromEnum(status.Reason.noProc)), fault.reason);
    try std.testing.expectError(error.Unsupported, openUnnamed(&fault, &known));
    const joined = try directoryPath(&fault, here, &try Path.of("zig", .{}));
    try std.testing.expectEqualStrings(known.slice(), joined.slice()[0..known.len]);
    try std.testing.expectEqualStrings("/zig", joined.slice()[known.len..]);
    const absolute = try directoryPath(&fault, here, &known);
    try std.testing.expectEqualStrings(known.slice(), absolute.slice());
}
