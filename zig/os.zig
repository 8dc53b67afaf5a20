//! The system calls, for Linux. The only file that makes any, but for the libc's mutex in
//! `stripe_lock.zig`. Raw calls, no libc: one library serves programs of every libc.
//!
//! A failed call notes its errno in the `Fault` and comes back as one of `status.Error`; calls
//! interrupted by a signal are made again.

const std = @import("std");
const linux = std.os.linux;
const status = @import("status.zig");

const Error = status.Error;
const Fault = status.Fault;

pub const page_bytes = 4096;
pub const Fd = i32;

/// By which memory files of ours are known: the kernel shows it in links to them.
pub const memory_name = "shmap";

/// How much is allocated by one call: an interrupted larger one would start from nothing each time.
const fallocate_piece_bytes = 2 << 20;

fn errorOf(errno: linux.E) Error {
    return switch (errno) {
        .NOENT, .NOTDIR, .SRCH => error.NotFound,
        .EXIST => error.Exists,
        .ACCES, .PERM, .ROFS => error.PermissionDenied,
        .NOSPC, .DQUOT, .FBIG => error.NoSpace,
        .OPNOTSUPP, .NOSYS => error.Unsupported,
        else => error.System,
    };
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
    if (errno == .SUCCESS) return result;
    fault.errno = @floatFromInt(@intFromEnum(errno));
    return errorOf(errno);
}

/// Whether the last failure was this one.
fn failedWith(fault: *const Fault, errno: linux.E) bool {
    return fault.errno == @as(f64, @floatFromInt(@intFromEnum(errno)));
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

    pub fn ofDescriptor(fd: Fd) Path {
        return Path.of("/proc/self/fd/{d}", .{fd}) catch unreachable; // fits any i32
    }
};

pub const Access = enum { read, read_write };

pub fn openFlags(access: Access) linux.O {
    return .{
        .ACCMODE = if (access == .read) .RDONLY else .RDWR,
        .CLOEXEC = true,
        .NOCTTY = true,
        .NONBLOCK = true, // a FIFO squatting the name must not make us wait
    };
}

/// Opens an existing file by its own name: a symbolic link is refused, not followed.
pub fn open(fault: *Fault, path: *const Path, access: Access) Error!Fd {
    var flags = openFlags(access);
    flags.NOFOLLOW = true;
    const fd = check(fault, again(linux.open, .{ path.z(), flags, 0 })) catch |err| {
        if (failedWith(fault, .LOOP) or failedWith(fault, .ISDIR) or failedWith(fault, .NXIO))
            return fault.because(.notRegularFile, error.Incompatible);
        return err;
    };
    return @intCast(fd);
}

/// Opens what a /proc link leads to: a second open file description of the same file.
pub fn openLink(fault: *Fault, path: *const Path, access: Access) Error!Fd {
    return @intCast(try check(fault, again(linux.open, .{ path.z(), openFlags(access), 0 })));
}

/// Opens a memory file of ours through another process's descriptor. `NotFound`: the number leads
/// to nothing of that kind; it may be anything by now, and is looked at before it is followed.
pub fn openMemoryOf(fault: *Fault, owner: u32, fd: u31, access: Access) Error!Fd {
    const path = try Path.of("/proc/{d}/fd/{d}", .{ owner, fd });
    var buffer: [64]u8 = undefined;
    const reads = readLink(fault, &path, &buffer) catch
        return fault.because(.identity, error.NotFound);
    if (!std.mem.eql(u8, reads, "/memfd:" ++ memory_name ++ " (deleted)"))
        return fault.because(.identity, error.NotFound);
    return openLink(fault, &path, access);
}

pub fn openDirectory(fault: *Fault, path: *const Path) Error!Fd {
    const flags: linux.O = .{ .DIRECTORY = true, .CLOEXEC = true };
    return @intCast(check(fault, again(linux.open, .{ path.z(), flags, 0 })) catch |err| {
        return if (err == error.NotFound) fault.because(.filesystem, err) else err;
    });
}

/// A file without a name. `Unsupported`: this file system has no such thing.
pub fn openUnnamed(fault: *Fault, directory: *const Path) Error!Fd {
    var flags: linux.O = .{ .ACCMODE = .RDWR, .DIRECTORY = true, .CLOEXEC = true };
    flags.TMPFILE = true;
    const fd = check(fault, again(linux.open, .{ directory.z(), flags, 0o600 })) catch |err| {
        return if (failedWith(fault, .ISDIR)) error.Unsupported else err;
    };
    return @intCast(fd);
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

/// Of the name itself, not of what a symbolic link leads to.
pub fn statName(fault: *Fault, path: *const Path) Error!Stat {
    return statAt(fault, linux.AT.FDCWD, path.z(), linux.AT.SYMLINK_NOFOLLOW);
}

pub fn statLink(fault: *Fault, path: *const Path) Error!Stat {
    return statAt(fault, linux.AT.FDCWD, path.z(), 0);
}

/// Reads at most `target.len` bytes at `offset`; fewer at the end of the file.
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

/// Allocates the blocks of `[from, to)`, so that touching them can never be answered by a signal.
/// On failure the file may have grown in part, which harms nobody.
pub fn allocate(fault: *Fault, fd: Fd, from: u64, to: u64) Error!void {
    var limit: linux.rlimit = undefined;
    // Beyond this limit the kernel sends SIGXFSZ instead of failing.
    if (linux.errno(linux.prlimit(0, .FSIZE, null, &limit)) == .SUCCESS and to > limit.cur) {
        fault.errno = @floatFromInt(@intFromEnum(linux.E.FBIG));
        return fault.because(.ceilingReached, error.NoSpace);
    }
    var at = from;
    while (at < to) {
        const bytes = @min(to - at, fallocate_piece_bytes);
        const from_here: i64 = @intCast(at);
        const result = again(linux.fallocate, .{ fd, 0, from_here, @as(i64, @intCast(bytes)) });
        _ = check(fault, result) catch |err| {
            if (err == error.NoSpace) return fault.because(.fileSystemFull, err);
            if (failedWith(fault, .NOMEM)) return fault.because(.fileSystemFull, error.NoSpace);
            return err;
        };
        at += bytes;
    }
}

/// Reserves address space for `bytes` of the file and maps it there; beyond its end too.
pub fn map(fault: *Fault, fd: Fd, bytes: u64, access: Access) Error![*]align(page_bytes) u8 {
    const protection: linux.PROT = .{ .READ = true, .WRITE = access == .read_write };
    const flags: linux.MAP = .{ .TYPE = .SHARED, .NORESERVE = true };
    const result = linux.mmap(null, bytes, protection, flags, fd, 0);
    const address = check(fault, result) catch |err| {
        fault.needed_bytes = @floatFromInt(bytes);
        return if (failedWith(fault, .NOMEM)) fault.because(.addressSpace, error.NoSpace) else err;
    };
    const base: [*]align(page_bytes) u8 = @ptrFromInt(address);
    _ = linux.madvise(base, bytes, linux.MADV.DONTFORK);
    return base;
}

pub fn unmap(base: [*]align(page_bytes) u8, bytes: u64) void {
    _ = linux.munmap(base, bytes);
}

/// Private memory, zeroed, whole pages.
pub fn pages(fault: *Fault, bytes: u64) Error![]align(page_bytes) u8 {
    const len = std.mem.alignForward(u64, @max(bytes, 1), page_bytes);
    const protection: linux.PROT = .{ .READ = true, .WRITE = true };
    const flags: linux.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true };
    const address = try check(fault, linux.mmap(null, len, protection, flags, -1, 0));
    return @as([*]align(page_bytes) u8, @ptrFromInt(address))[0..len];
}

pub fn growPages(
    fault: *Fault,
    old: []align(page_bytes) u8,
    bytes: u64,
) Error![]align(page_bytes) u8 {
    if (old.len == 0) return pages(fault, bytes);
    const len = std.mem.alignForward(u64, bytes, page_bytes);
    const result = linux.mremap(old.ptr, old.len, len, .{ .MAYMOVE = true }, null);
    const address = try check(fault, result);
    return @as([*]align(page_bytes) u8, @ptrFromInt(address))[0..len];
}

pub fn freePages(memory: []align(page_bytes) u8) void {
    if (memory.len > 0) _ = linux.munmap(memory.ptr, memory.len);
}

/// Gives an unnamed file a name. `Exists`: somebody has it.
pub fn linkUnnamed(fault: *Fault, fd: Fd, path: *const Path) Error!void {
    const from = Path.ofDescriptor(fd);
    const cwd = linux.AT.FDCWD;
    const follow = linux.AT.SYMLINK_FOLLOW;
    _ = try check(fault, linux.linkat(cwd, from.z(), cwd, path.z(), follow));
}

/// Gives a named file a second name. `Exists`: somebody has it.
pub fn link(fault: *Fault, from: *const Path, to: *const Path) Error!void {
    const cwd = linux.AT.FDCWD;
    _ = try check(fault, linux.linkat(cwd, from.z(), cwd, to.z(), 0));
}

/// Swaps two names in one step; where the file system cannot, `from` replaces `to`.
pub fn exchange(fault: *Fault, from: *const Path, to: *const Path) Error!void {
    const cwd = linux.AT.FDCWD;
    const result = linux.renameat2(cwd, from.z(), cwd, to.z(), .{ .EXCHANGE = true });
    switch (linux.errno(result)) {
        .INVAL, .NOSYS => _ = try check(fault, linux.renameat2(cwd, from.z(), cwd, to.z(), .{})),
        else => _ = try check(fault, result),
    }
}

pub fn unlink(fault: *Fault, path: *const Path) Error!void {
    _ = try check(fault, linux.unlinkat(linux.AT.FDCWD, path.z(), 0));
}

pub fn setPermissions(fault: *Fault, fd: Fd, mode: u32) Error!void {
    _ = try check(fault, linux.fchmod(fd, mode));
}

pub fn readLink(fault: *Fault, path: *const Path, target: []u8) Error![]u8 {
    return target[0..try check(fault, linux.readlink(path.z(), target.ptr, target.len))];
}

/// The names in a directory, without allocating. `next` gives null at the end.
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

/// What a file system says of itself.
pub const FileSystem = struct { bytes: u64, free: u64, network: bool, memory: bool };

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
const tmpfs_type = 0x01021994;

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
        .memory = buffer.type == tmpfs_type,
    };
}

pub fn memoryBytes() u64 {
    var info: linux.Sysinfo = undefined;
    if (linux.errno(linux.sysinfo(&info)) != .SUCCESS) return 1 << 32;
    return @as(u64, info.totalram) *| info.mem_unit;
}

pub fn random(target: []u8) void {
    var done: usize = 0;
    while (done < target.len) {
        const result = linux.getrandom(target[done..].ptr, target.len - done, 0);
        if (linux.errno(result) == .SUCCESS) done += result;
    }
}

pub fn randomWord() u64 {
    var bytes: [8]u8 = undefined;
    random(&bytes);
    return @bitCast(bytes);
}

pub fn pid() u32 {
    return @intCast(linux.getpid());
}

/// The calling thread's id, which no other living thread of the machine's namespace has.
pub fn threadId() u32 {
    return @intCast(linux.gettid());
}

/// The half of a shared word that counts, where a futex can be.
fn low(word: *const u64) *const u32 {
    const halves: *const [2]u32 = @ptrCast(word);
    return &halves[0]; // little-endian, as everything shared
}

/// What a bell reads now; hand it to `sleepOn`.
pub fn bellCount(bell: *const u64) u32 {
    return @atomicLoad(u32, low(bell), .acquire); // pairs with `crash.bump`
}

/// Sleeps until the bell rings, at most `ns`, unless it has rung since it read `count`. May also
/// return for no reason.
pub fn sleepOn(bell: *const u64, count: u32, ns: u64) void {
    const time: linux.timespec = .{
        .sec = @intCast(ns / std.time.ns_per_s),
        .nsec = @intCast(ns % std.time.ns_per_s),
    };
    _ = linux.futex_4arg(low(bell), .{ .cmd = .WAIT, .private = false }, count, &time);
}

/// Wakes all who sleep on the bell, in every process.
pub fn wakeAll(bell: *const u64) void {
    const everybody = std.math.maxInt(i32);
    _ = linux.futex_3arg(low(bell), .{ .cmd = .WAKE, .private = false }, everybody);
}

/// A weak symbol's address, looked at when the program runs: in a static link the compiler takes it
/// for granted that there is one.
pub fn ifLinked(function: anytype) @TypeOf(function) {
    var address = function;
    const looked_at: *volatile @TypeOf(function) = &address;
    return looked_at.*;
}

pub fn userId() u32 {
    return linux.geteuid();
}

/// The inode of this process's PID namespace, 0 where this machine does not tell.
pub fn pidNamespace(fault: *Fault) Error!u64 {
    const path = Path.of("/proc/self/ns/pid", .{}) catch unreachable; // a constant
    return (statLink(fault, &path) catch |err| return orNothing(err, @as(u64, 0))).inode;
}

/// This boot's random id, zeros where this machine does not tell.
pub fn bootId(fault: *Fault) Error![2]u64 {
    const nothing: [2]u64 = .{ 0, 0 };
    const path = Path.of("/proc/sys/kernel/random/boot_id", .{}) catch unreachable; // a constant
    const fd = open(fault, &path, .read) catch |err| return orNothing(err, nothing);
    defer close(fd);
    var text: [40]u8 = @splat(0);
    _ = readAt(fault, fd, &text, 0) catch |err| return orNothing(err, nothing);
    return .{ std.hash.Fnv1a_64.hash(text[0..18]), std.hash.Fnv1a_64.hash(text[18..]) };
}

/// What is not there, or not for us, is so for every process here; but no descriptor or memory left
/// is the matter of a moment, and must not make this process look like a stranger.
fn orNothing(err: Error, nothing: anytype) Error!@TypeOf(nothing) {
    return if (err == error.NotFound or err == error.PermissionDenied) nothing else err;
}

fn clock(id: linux.clockid_t) u64 {
    var now: linux.timespec = undefined;
    _ = linux.syscall2(.clock_gettime, @intFromEnum(id), @intFromPtr(&now));
    return @as(u64, @intCast(now.sec)) * std.time.ns_per_s + @as(u64, @intCast(now.nsec));
}

pub fn monotonicNs() u64 {
    return clock(.MONOTONIC);
}

pub fn realtimeNs() u64 {
    return clock(.REALTIME);
}

pub fn sleepNs(ns: u64) void {
    const time: linux.timespec = .{
        .sec = @intCast(ns / std.time.ns_per_s),
        .nsec = @intCast(ns % std.time.ns_per_s),
    };
    _ = linux.nanosleep(&time, null);
}

/// A moment some milliseconds from now; `forever` never comes.
pub const Deadline = struct {
    ns: u64,

    pub const forever: Deadline = .{ .ns = std.math.maxInt(u64) };

    pub fn in(timeout_ms: f64) Deadline {
        if (!(timeout_ms < 1e12)) return forever;
        return .{ .ns = monotonicNs() + @as(u64, @intFromFloat(timeout_ms * std.time.ns_per_ms)) };
    }

    /// Nanoseconds left, at most `most`; 0 when it has passed.
    pub fn left(deadline: Deadline, most: u64) u64 {
        if (deadline.ns == forever.ns) return most;
        return @min(deadline.ns -| monotonicNs(), most);
    }

    /// Milliseconds left; infinity for one that never comes.
    pub fn leftMs(deadline: Deadline) f64 {
        if (deadline.ns == forever.ns) return std.math.inf(f64);
        return @as(f64, @floatFromInt(deadline.left(forever.ns))) / std.time.ns_per_ms;
    }
};
