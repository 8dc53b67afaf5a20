//! Files, their names, memory and ranges, for macOS, by its libc, which is what is stable there.
//! What each function promises is said in `os.zig`.
//!
//! Ranges are locks of open file descriptions. The kernel has had them since macOS 10.11, and since
//! macOS 15 they are in its public headers, with the same numbers.

const std = @import("std");
const builtin = @import("builtin");
const c = std.c;
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

pub const has_memory_files = false;
pub const has_robust_mutex = false;
pub const has_shared_futex = false;
pub const has_range_queries = true;
pub const has_descriptors = true;
pub const has_page_moves = false;
pub const has_holes = false;
pub const removes_mapped_files = true;
pub const name_separators = "/\x00";

/// The system's numbers of errors that are noted by others.
pub const Number = enum(u16) {
    name_too_long = @intFromEnum(c.E.NAMETOOLONG),
    no_space = @intFromEnum(c.E.NOSPC),
};

const user_cache_directory = 65538; // _CS_DARWIN_USER_CACHE_DIR
const swap = 2; // RENAME_SWAP
const exclusively = 4; // RENAME_EXCL
const inherit_none = 2; // VM_INHERIT_NONE

const get_path = 50; // F_GETPATH
const preallocate = 42; // F_PREALLOCATE
const allocate_all = 4; // F_ALLOCATEALL
const from_end = 3; // F_PEOFPOSMODE

const Store = extern struct { flags: u32, mode: c_int, offset: i64, length: i64, allocated: i64 };

extern "c" fn confstr(name: c_int, target: [*]u8, len: usize) usize;
extern "c" fn minherit(address: *anyopaque, len: usize, inherit: c_int) c_int;
extern "c" fn renameatx_np(
    from_fd: c_int,
    from: [*:0]const u8,
    to_fd: c_int,
    to: [*:0]const u8,
    flags: c_uint,
) c_int;

/// On Intel the names without a suffix are those of an older ABI.
const suffix = if (builtin.cpu.arch == .x86_64) "$INODE64" else "";
const readdir = @extern(
    *const fn (directory: *c.DIR) callconv(.c) ?*c.dirent,
    .{ .name = "readdir" ++ suffix },
);
const fstatfs = @extern(
    *const fn (fd: c_int, target: *StatFs) callconv(.c) c_int,
    .{ .name = "fstatfs" ++ suffix },
);

pub const lockRange = posix.lockRange;
pub const upgradeRange = posix.upgradeRange;
pub const downgradeRange = posix.downgradeRange;
pub const unlockRange = posix.unlockRange;
pub const unlockRanges = posix.unlockRanges;
pub const isRangeLocked = posix.isRangeLocked;

/// In the user's own cache directory, which others cannot enter and the system does not
/// empty by age.
pub const lengthen = common.noLengthening;
pub const punch = common.noPunching;
pub const areHolesSafe = common.noHoles;

pub fn defaultDirectory(fault: *Fault) Error!Path {
    var buffer: [1024]u8 = undefined;
    const len = confstr(user_cache_directory, &buffer, buffer.len);
    if (len < 2 or len > buffer.len) return fault.withReason(.filesystem, error.NotFound);
    const path = try Path.of("{s}/shmap", .{std.mem.trimEnd(u8, buffer[0 .. len - 1], "/")});
    _ = check(fault, c.mkdir(path.z(), 0o700)) catch |err| if (err != error.Exists) return err;
    return path;
}

/// Makes a call until no signal interrupts it.
pub fn again(comptime call: anytype, arguments: anytype) @TypeOf(@call(.auto, call, arguments)) {
    while (true) {
        const result = @call(.auto, call, arguments);
        if (c.errno(result) != .INTR) return result;
    }
}

pub fn check(fault: *Fault, result: anytype) Error!usize {
    const errno = c.errno(result);
    return if (errno == .SUCCESS) @intCast(result) else posix.failure(fault, errno);
}

pub fn openFlags(access: Access) c.O {
    return .{
        .ACCMODE = if (access == .read) .RDONLY else .RDWR,
        .CLOEXEC = true,
        .NOCTTY = true,
        .NONBLOCK = true, // a FIFO squatting the name must not make us wait
    };
}

pub fn openWith(fault: *Fault, path: *const Path, flags: c.O, permissions: c_uint) Error!Fd {
    return @intCast(try check(fault, again(c.open, .{ path.z(), flags, permissions })));
}

pub fn open(fault: *Fault, path: *const Path, access: Access) Error!Fd {
    var flags = openFlags(access);
    flags.NOFOLLOW = true;
    return openWith(fault, path, flags, 0) catch |err| {
        if (failedWith(fault, .LOOP) or failedWith(fault, .ISDIR) or failedWith(fault, .NXIO))
            return fault.withReason(.notRegularFile, error.Incompatible);
        return err;
    };
}

/// By the path that the kernel knows for the description, if that leads to the same file: opening
/// `/dev/fd/<n>` would give the same description once more, and with it the same locks.
pub fn openAgain(fault: *Fault, fd: Fd, access: Access) Error!Fd {
    const path = try pathOf(fault, fd);
    const file = try open(fault, &path, access);
    errdefer close(file);
    if (!(try stat(fault, file)).same(try stat(fault, fd))) return error.NotFound;
    return file;
}

fn pathOf(fault: *Fault, fd: Fd) Error!Path {
    var path: Path = undefined;
    _ = try check(fault, again(c.fcntl, .{ fd, get_path, &path.buffer }));
    path.len = std.mem.indexOfScalar(u8, &path.buffer, 0) orelse return error.System;
    return path;
}

pub fn openMemoryOf(_: *Fault, _: u32, _: u31, _: Access) Error!Fd {
    return error.Unsupported;
}

pub fn openDirectory(fault: *Fault, path: *const Path) Error!Fd {
    return openWith(fault, path, .{ .DIRECTORY = true, .CLOEXEC = true }, 0) catch |err| {
        return if (err == error.NotFound) fault.withReason(.filesystem, err) else err;
    };
}

pub fn directoryPath(fault: *Fault, fd: Fd, _: *const Path) Error!Path {
    return pathOf(fault, fd);
}

pub fn openUnnamed(_: *Fault, _: *const Path) Error!Fd {
    return error.Unsupported;
}

pub fn openNew(fault: *Fault, path: *const Path) Error!Fd {
    var flags = openFlags(.read_write);
    flags.CREAT = true;
    flags.EXCL = true;
    return openWith(fault, path, flags, 0o600);
}

pub fn memoryFile(_: *Fault) Error!Fd {
    return error.Unsupported;
}

pub fn close(fd: Fd) void {
    _ = c.close(fd);
}

fn statOf(found: *const c.Stat) Stat {
    return .{
        .device = @as(u32, @bitCast(found.dev)),
        .inode = found.ino,
        .uid = found.uid,
        .regular = found.mode & c.S.IFMT == c.S.IFREG,
        .size = @intCast(found.size),
        .allocated = @as(u64, @intCast(found.blocks)) * 512,
    };
}

pub fn stat(fault: *Fault, fd: Fd) Error!Stat {
    var found: c.Stat = undefined;
    _ = try check(fault, again(c.fstat, .{ fd, &found }));
    return statOf(&found);
}

pub fn statName(fault: *Fault, path: *const Path) Error!Stat {
    var found: c.Stat = undefined;
    const flags = c.AT.SYMLINK_NOFOLLOW;
    _ = try check(fault, again(c.fstatat, .{ c.AT.FDCWD, path.z(), &found, flags }));
    return statOf(&found);
}

pub fn readAt(fault: *Fault, fd: Fd, target: []u8, offset: u64) Error!usize {
    var done: usize = 0;
    while (done < target.len) {
        const at: i64 = @intCast(offset + done);
        const rest = target[done..];
        const count = try check(fault, again(c.pread, .{ fd, rest.ptr, rest.len, at }));
        if (count == 0) break;
        done += count;
    }
    return done;
}

/// Blocks behind the end of the file are asked for, and then the end is moved. A file system that
/// gives none in advance is written zeros to.
pub fn allocate(fault: *Fault, fd: Fd, from: u64, to: u64) Error!void {
    var limit: c.rlimit = undefined;
    // Beyond this limit the kernel sends SIGXFSZ instead of failing.
    if (c.getrlimit(.FSIZE, &limit) == 0 and to > limit.cur) {
        note(fault, @intFromEnum(c.E.FBIG));
        fault.ceiling_bytes = @floatFromInt(limit.cur);
        return fault.withReason(.ceilingReached, error.NoSpace);
    }
    const size = (try stat(fault, fd)).size;
    var store: Store = .{
        .flags = allocate_all,
        .mode = from_end,
        .offset = 0,
        .length = @intCast(to -| size),
        .allocated = 0,
    };
    if (size < to) {
        _ = check(fault, again(c.fcntl, .{ fd, preallocate, &store })) catch |err| {
            if (err == error.NoSpace) return fault.withReason(.fileSystemFull, err);
            return lengthenByZeros(fault, fd, size, to);
        };
        _ = check(fault, again(c.ftruncate, .{ fd, @as(i64, @intCast(to)) })) catch |err| {
            return if (err == error.NoSpace) fault.withReason(.fileSystemFull, err) else err;
        };
    }
    // A file that a process made longer already may have holes there.
    var at = from;
    try writeZeros(fault, fd, &at, @min(size, to));
}

/// On failure the file is as long as it was, unless another process has lengthened it meanwhile:
/// what that one wrote is not cut off.
fn lengthenByZeros(fault: *Fault, fd: Fd, from: u64, to: u64) Error!void {
    var at = from;
    writeZeros(fault, fd, &at, to) catch |err| {
        var ignored: Fault = .{};
        const size = (stat(&ignored, fd) catch return err).size;
        // What is appended between the look and the cut is lost: there is no call for both.
        if (size == at) _ = c.ftruncate(fd, @intCast(from));
        return err;
    };
}

/// Writes from `at` on, and moves it along.
fn writeZeros(fault: *Fault, fd: Fd, at: *u64, to: u64) Error!void {
    const zeros: [page_bytes]u8 = @splat(0);
    while (at.* < to) {
        const len = @min(to - at.*, zeros.len);
        const result = again(c.pwrite, .{ fd, &zeros, len, @as(i64, @intCast(at.*)) });
        at.* += check(fault, result) catch |err| {
            return if (err == error.NoSpace) fault.withReason(.fileSystemFull, err) else err;
        };
    }
}

pub fn map(fault: *Fault, fd: Fd, bytes: u64, access: Access) Error!Base {
    const protection: c.PROT = .{ .READ = true, .WRITE = access == .read_write };
    return mapWith(fault, fd, bytes, protection, .{ .TYPE = .SHARED });
}

pub fn mapWith(fault: *Fault, fd: Fd, bytes: u64, protection: c.PROT, flags: c.MAP) Error!Base {
    const address = c.mmap(null, bytes, protection, flags, fd, 0);
    if (address == c.MAP_FAILED) {
        _ = check(fault, @as(c_int, -1)) catch |err| {
            return if (failedWith(fault, .NOMEM)) noAddresses(fault, bytes) else err;
        };
    }
    _ = minherit(address, bytes, inherit_none);
    return @ptrCast(@alignCast(address));
}

/// Nothing to do: the mapping shows the file at its present length.
pub inline fn extend(_: *Fault, _: Fd, _: Base, _: u64, _: u64, _: Access) Error!void {}

/// Nothing: what the system does with changed pages there was never tried.
pub fn forget(_: Base, _: u64) void {}

pub fn noAddresses(fault: *Fault, bytes: u64) Error {
    return common.noAddresses(fault, bytes, addressLimit());
}

pub fn addressLimit() ?u64 {
    var limit: c.rlimit = undefined;
    if (c.getrlimit(.AS, &limit) != 0) return null;
    return if (limit.cur == c.RLIM.INFINITY) null else limit.cur;
}

pub fn unmap(base: Base, bytes: u64) void {
    _ = c.munmap(@ptrCast(@alignCast(base)), bytes);
}

pub fn pages(fault: *Fault, bytes: u64) Error!Pages {
    const len = std.mem.alignForward(u64, @max(bytes, 1), page_bytes);
    const protection: c.PROT = .{ .READ = true, .WRITE = true };
    const flags: c.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true };
    const address = c.mmap(null, len, protection, flags, -1, 0);
    if (address == c.MAP_FAILED) _ = try check(fault, @as(c_int, -1));
    return @as(Base, @ptrCast(@alignCast(address)))[0..len];
}

pub fn freePages(memory: Pages) void {
    if (memory.len > 0) unmap(memory.ptr, memory.len);
}

pub fn linkUnnamed(_: *Fault, _: Fd, _: *const Path) Error!void {
    return error.Unsupported;
}

pub fn link(fault: *Fault, from: *const Path, to: *const Path) Error!void {
    _ = check(fault, again(c.link, .{ from.z(), to.z() })) catch |err| {
        if (err != error.Unsupported) return err;
        // A file system without second names still renames without replacing.
        const cwd = c.AT.FDCWD;
        _ = try check(fault, again(renameatx_np, .{ cwd, from.z(), cwd, to.z(), exclusively }));
    };
}

pub fn exchange(fault: *Fault, from: *const Path, to: *const Path) Error!bool {
    const cwd = c.AT.FDCWD;
    _ = check(fault, again(renameatx_np, .{ cwd, from.z(), cwd, to.z(), swap })) catch |err| {
        if (err != error.Unsupported and !failedWith(fault, .INVAL)) return err;
        _ = try check(fault, again(c.rename, .{ from.z(), to.z() }));
    };
    return true;
}

pub fn unlink(fault: *Fault, path: *const Path) Error!void {
    _ = try check(fault, again(c.unlink, .{path.z()}));
}

pub fn setPermissions(fault: *Fault, fd: Fd, mode: u32) Error!void {
    _ = try check(fault, again(c.fchmod, .{ fd, @as(c.mode_t, @intCast(mode)) }));
}

pub const Names = struct {
    directory: *c.DIR,

    pub fn of(fault: *Fault, directory: *const Path) Error!Names {
        const opened = c.opendir(directory.z()) orelse {
            _ = try check(fault, @as(c_int, -1));
            return error.System;
        };
        return .{ .directory = opened };
    }

    pub fn close(names: *Names) void {
        _ = c.closedir(names.directory);
    }

    pub fn next(names: *Names, _: *Fault) Error!?[]const u8 {
        const entry = readdir(names.directory) orelse return null;
        return @as([*]const u8, @ptrCast(&entry.name))[0..entry.namlen];
    }
};

const StatFs = extern struct {
    block_bytes: u32,
    io_bytes: i32,
    blocks: u64,
    free: u64,
    available: u64,
    files: u64,
    files_free: u64,
    id: [2]i32,
    owner: u32,
    type: u32,
    flags: u32,
    subtype: u32,
    type_name: [16]u8,
    mounted_on: [1024]u8,
    mounted_from: [1024]u8,
    more_flags: u32,
    reserved: [7]u32,
};

const is_local = 0x1000; // MNT_LOCAL

pub fn fileSystem(fault: *Fault, fd: Fd) Error!FileSystem {
    var found: StatFs = undefined;
    _ = try check(fault, again(fstatfs, .{ fd, &found }));
    return .{
        .bytes = found.blocks *| found.block_bytes,
        .free = found.available *| found.block_bytes,
        .network = found.flags & is_local == 0,
    };
}

/// APFS moves blocks for clones and snapshots only.
pub fn overwriteInPlace(_: *Fault, _: Fd) Error!void {}
