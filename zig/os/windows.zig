//! Files, their names and ranges, for Windows. What each function promises is said in `os.zig`.
//!
//! A file that a process has mapped can be renamed but not deleted, so a name is taken away by
//! giving the file a temporary one; the next process that cleans up deletes it. Everything is
//! opened so that others may open, rename and delete it meanwhile.

const std = @import("std");
const api = @import("windows_api.zig");
const common = @import("common.zig");
const memory = @import("windows_memory.zig");
const owner = @import("windows_owner.zig");
const status = @import("../status.zig");

const Access = common.Access;
const Error = status.Error;
const Fault = status.Fault;
const Fd = common.Fd;
const FileSystem = common.FileSystem;
const Handle = api.Handle;
const Path = common.Path;
const Stat = common.Stat;
const check = memory.check;
const failure = memory.failure;
const fdOf = memory.fdOf;
const handleOf = memory.handleOf;
const note = common.note;

pub const has_memory_files = false;
pub const has_robust_mutex = false;
pub const has_shared_futex = false;
pub const has_range_queries = false;
pub const has_descriptors = false;
pub const has_page_moves = false;
pub const has_holes = false;
pub const removes_mapped_files = false;
pub const name_separators = "/\\:\x00";

/// The system's numbers of errors that are noted by others.
pub const Number = enum(u16) {
    name_too_long = @intFromEnum(api.Code.name_too_long),
    no_space = @intFromEnum(api.Code.disk_full),
};

/// What opens a name for itself, be it a link or a directory.
const itself = api.open_reparse_point | api.backup_semantics;

/// How often a lock that is refused is asked for again: another handle may have tried it for a
/// moment, only to see whether it is held.
const lock_tries = 3;

pub const map = memory.map;
pub const extend = memory.extend;
pub const unmap = memory.unmap;
pub const pages = memory.pages;
pub const freePages = memory.freePages;
pub const forget = memory.forget;
pub const noAddresses = memory.noAddresses;
pub const addressLimit = memory.addressLimit;

/// A path as the system takes it.
const Wide = struct {
    buffer: [4096]u16,

    fn of(path: *const Path) Error!Wide {
        var wide: Wide = undefined;
        const room = wide.buffer[0 .. wide.buffer.len - 1];
        const len = std.unicode.wtf8ToWtf16Le(room, path.slice()) catch
            return error.InvalidArgument;
        std.mem.replaceScalar(u16, wide.buffer[0..len], '/', '\\');
        wide.buffer[len] = 0;
        return wide;
    }

    fn z(wide: *const Wide) [*:0]const u16 {
        return @ptrCast(&wide.buffer);
    }
};

fn pathFrom(units: []const u16) Error!Path {
    var path: Path = undefined;
    if (units.len * 3 >= path.buffer.len) return error.InvalidArgument;
    path.len = std.unicode.wtf16LeToWtf8(&path.buffer, units);
    path.buffer[path.len] = 0;
    return path;
}

/// In the user's own directory for what belongs to this machine.
pub const lengthen = common.noLengthening;
pub const punch = common.noPunching;
pub const areHolesSafe = common.noHoles;

pub fn defaultDirectory(fault: *Fault) Error!Path {
    var buffer: [1024]u16 = undefined;
    const variable = std.unicode.utf8ToUtf16LeStringLiteral("LOCALAPPDATA");
    var len = api.GetEnvironmentVariableW(variable, &buffer, buffer.len);
    if (len == 0 or len >= buffer.len) len = api.GetTempPathW(buffer.len, &buffer);
    if (len == 0 or len >= buffer.len) return fault.withReason(.filesystem, error.NotFound);
    const given = try pathFrom(buffer[0..len]);
    const path = try Path.of("{s}\\shmap", .{std.mem.trimEnd(u8, given.slice(), "\\/")});
    const wide = try Wide.of(&path);
    check(fault, api.CreateDirectoryW(wide.z(), null)) catch |err|
        if (err != error.Exists) return err;
    return path;
}

pub fn accessOf(access: Access) u32 {
    return if (access == .read) api.generic_read else api.generic_read | api.generic_write;
}

pub fn create(
    fault: *Fault,
    path: *const Path,
    access: u32,
    disposition: u32,
    flags: u32,
) Error!Fd {
    const wide = try Wide.of(path);
    const handle =
        api.CreateFileW(wide.z(), access, api.share_all, null, disposition, flags, null);
    if (@intFromPtr(handle) != api.invalid) return fdOf(handle);
    const err = failure(fault);
    // Deleted, and open somewhere: the name leads to nothing any more.
    const is_going = err == error.PermissionDenied and
        api.RtlGetLastNtStatus() == api.status_delete_pending;
    return if (is_going) error.NotFound else err;
}

pub fn open(fault: *Fault, path: *const Path, access: Access) Error!Fd {
    return create(fault, path, accessOf(access), api.open_existing, itself);
}

pub fn openAgain(fault: *Fault, fd: Fd, access: Access) Error!Fd {
    const handle = api.ReOpenFile(handleOf(fd), accessOf(access), api.share_all, itself);
    return if (@intFromPtr(handle) == api.invalid) failure(fault) else fdOf(handle);
}

pub fn openMemoryOf(_: *Fault, _: u32, _: u31, _: Access) Error!Fd {
    return error.Unsupported;
}

pub fn openDirectory(fault: *Fault, path: *const Path) Error!Fd {
    const flags = api.backup_semantics;
    const fd = create(fault, path, api.generic_read, api.open_existing, flags) catch |err| {
        return if (err == error.NotFound) fault.withReason(.filesystem, err) else err;
    };
    errdefer close(fd);
    var found: api.FileInformation = undefined;
    try check(fault, api.GetFileInformationByHandle(handleOf(fd), &found));
    if (found.attributes & api.attribute_directory == 0)
        return fault.withReason(.filesystem, error.NotFound);
    return fd;
}

/// With the prefix that keeps the system from interpreting names.
pub fn directoryPath(fault: *Fault, fd: Fd, _: *const Path) Error!Path {
    var buffer: [2048]u16 = undefined;
    const len = api.GetFinalPathNameByHandleW(handleOf(fd), &buffer, buffer.len, 0);
    if (len == 0) return failure(fault);
    return if (len < buffer.len) pathFrom(buffer[0..len]) else error.System;
}

pub fn openUnnamed(_: *Fault, _: *const Path) Error!Fd {
    return error.Unsupported;
}

pub fn openNew(fault: *Fault, path: *const Path) Error!Fd {
    return create(fault, path, accessOf(.read_write), api.create_new, itself);
}

pub fn memoryFile(_: *Fault) Error!Fd {
    return error.Unsupported;
}

pub fn close(fd: Fd) void {
    _ = api.CloseHandle(handleOf(fd));
}

pub fn stat(fault: *Fault, fd: Fd) Error!Stat {
    const handle = handleOf(fd);
    const is_disk = api.GetFileType(handle) == 1;
    var found: api.FileInformation = undefined;
    check(fault, api.GetFileInformationByHandle(handle, &found)) catch |err| {
        // A device has no such information, and is nothing for us.
        return if (is_disk) err else std.mem.zeroInit(Stat, .{});
    };
    var standard: api.StandardInformation = undefined;
    const len = @sizeOf(api.StandardInformation);
    try check(
        fault,
        api.GetFileInformationByHandleEx(handle, api.class.standard, &standard, len),
    );
    var result: Stat = .{
        .device = found.volume,
        .inode = @as(u64, found.index_high) << 32 | found.index_low,
        .uid = owner.ofFile(handle),
        .regular = is_disk and
            found.attributes & (api.attribute_directory | api.attribute_reparse_point) == 0,
        .size = @intCast(standard.size),
        .allocated = @intCast(standard.allocated),
    };
    // Where files have numbers of 128 bits the short ones need not differ.
    var id: api.IdInformation = undefined;
    const id_len = @sizeOf(api.IdInformation);
    if (api.GetFileInformationByHandleEx(handle, api.class.id, &id, id_len) != 0) {
        result.device = id.volume;
        result.inode = id.low ^ std.math.rotl(u64, id.high, 32);
    }
    return result;
}

pub fn statName(fault: *Fault, path: *const Path) Error!Stat {
    const access = api.read_attributes | api.read_control;
    const fd = try create(fault, path, access, api.open_existing, itself);
    defer close(fd);
    return stat(fault, fd);
}

pub fn readAt(fault: *Fault, fd: Fd, target: []u8, offset: u64) Error!usize {
    var done: usize = 0;
    while (done < target.len) {
        var from: api.Overlapped = .at(offset + done);
        var count: u32 = 0;
        const wanted: u32 = @intCast(@min(target.len - done, 1 << 30));
        const rest = target[done..].ptr;
        check(fault, api.ReadFile(handleOf(fd), rest, wanted, &count, &from)) catch |err| {
            if (memory.failedWith(fault, .handle_eof)) break;
            return err;
        };
        if (count == 0) break;
        done += count;
    }
    return done;
}

/// Moving the end of a file that is not sparse allocates everything before it.
pub fn allocate(fault: *Fault, fd: Fd, _: u64, to: u64) Error!void {
    var size: u64 = 0;
    try check(fault, api.GetFileSizeEx(handleOf(fd), &size));
    if (size >= to) return;
    setEnd(fault, fd, to) catch |err|
        return if (err == error.NoSpace) fault.withReason(.fileSystemFull, err) else err;
}

pub fn setEnd(fault: *Fault, fd: Fd, bytes: u64) Error!void {
    const end: i64 = @intCast(bytes);
    const handle = handleOf(fd);
    try check(fault, api.SetFileInformationByHandle(handle, api.class.end_of_file, &end, 8));
}

pub fn linkUnnamed(_: *Fault, _: Fd, _: *const Path) Error!void {
    return error.Unsupported;
}

/// The file loses its first name: without second names one step is enough.
pub fn link(fault: *Fault, from: *const Path, to: *const Path) Error!void {
    const source = try Wide.of(from);
    const target = try Wide.of(to);
    return check(fault, api.MoveFileExW(source.z(), target.z(), 0));
}

/// At once where the system replaces a file that is in use, else in two steps, between which the
/// name leads to nothing.
pub fn exchange(fault: *Fault, from: *const Path, to: *const Path) Error!bool {
    if (replace(from, to)) return true;
    const displaced = try temporaryPath(to);
    try link(fault, to, &displaced);
    link(fault, from, to) catch |err| {
        if (err == error.Exists) {
            removeFile(&displaced);
            return false;
        }
        try link(fault, &displaced, to);
        return err;
    };
    removeFile(&displaced);
    return true;
}

fn replace(from: *const Path, to: *const Path) bool {
    var fault: Fault = .{};
    const fd = create(&fault, from, api.delete_access, api.open_existing, itself) catch
        return false;
    defer close(fd);
    const target = Wide.of(to) catch return false;
    const name = std.mem.span(target.z());
    var information: api.RenameInformation = .{
        .flags = api.rename_replace | api.rename_posix,
        .root = null,
        .name_bytes = @intCast(name.len * 2),
        .name = undefined,
    };
    @memcpy(information.name[0 .. name.len + 1], name.ptr[0 .. name.len + 1]);
    const len = @offsetOf(api.RenameInformation, "name") + 2 * @as(u32, @intCast(name.len + 1));
    const handle = handleOf(fd);
    return api.SetFileInformationByHandle(handle, api.class.rename_ex, &information, len) != 0;
}

/// Where a file goes whose name is taken away while it is in use: the next process that
/// makes, opens or lists segments removes such names (`directory.zig`).
fn temporaryPath(path: *const Path) Error!Path {
    const text = path.slice();
    const slash = std.mem.lastIndexOfAny(u8, text, "/\\") orelse return error.InvalidArgument;
    var number: [8]u8 = undefined;
    _ = api.SystemFunction036(&number, number.len);
    const parts = .{ text[0 .. slash + 1], text[slash + 1 ..], @as(u64, @bitCast(number)) };
    return Path.of("{s}.{s}.~{x:0>16}", parts);
}

fn isTemporary(path: *const Path) bool {
    const text = path.slice();
    return text.len > 18 and std.mem.eql(u8, text[text.len - 18 ..][0..2], ".~");
}

/// Deletes a file as soon as it can be; on failure nothing changes.
fn removeFile(path: *const Path) void {
    var fault: Fault = .{};
    const fd = create(&fault, path, api.delete_access, api.open_existing, itself) catch return;
    defer close(fd);
    if (!remove(fd)) _ = markDeleted(fd);
}

/// Takes the name away at once and the file when it is closed; not while it is mapped.
fn remove(fd: Fd) bool {
    const flags: u32 =
        api.disposition_delete | api.disposition_posix | api.disposition_ignore_readonly;
    const handle = handleOf(fd);
    return api.SetFileInformationByHandle(handle, api.class.disposition_ex, &flags, 4) != 0;
}

/// The older way: the name stays, and leads to nothing, until the file is closed.
fn markDeleted(fd: Fd) bool {
    const yes: u8 = 1;
    const handle = handleOf(fd);
    return api.SetFileInformationByHandle(handle, api.class.disposition, &yes, 1) != 0;
}

pub fn unlink(fault: *Fault, path: *const Path) Error!void {
    const fd = try create(fault, path, api.delete_access, api.open_existing, itself);
    defer close(fd);
    if (remove(fd)) return;
    if (isTemporary(path)) return if (markDeleted(fd)) {} else failure(fault);
    const displaced = try temporaryPath(path);
    try link(fault, path, &displaced);
    _ = markDeleted(fd); // else it is cleaned up later
}

/// Who may do what is inherited from the directory, and only its owner may there.
pub fn setPermissions(_: *Fault, _: Fd, _: u32) Error!void {}

pub const Names = struct {
    search: Handle,
    found: api.FindData,
    is_fresh: bool,
    buffer: [260 * 3]u8 = undefined,

    pub fn of(fault: *Fault, directory: *const Path) Error!Names {
        const pattern = try Path.of("{s}\\*", .{directory.slice()});
        const wide = try Wide.of(&pattern);
        var names: Names = .{ .search = null, .found = undefined, .is_fresh = true };
        names.search = api.FindFirstFileW(wide.z(), &names.found);
        return if (@intFromPtr(names.search) == api.invalid) failure(fault) else names;
    }

    pub fn close(names: *Names) void {
        _ = api.FindClose(names.search);
    }

    pub fn next(names: *Names, fault: *Fault) Error!?[]const u8 {
        if (!names.is_fresh) {
            check(fault, api.FindNextFileW(names.search, &names.found)) catch |err|
                return if (memory.failedWith(fault, .no_more_files)) null else err;
        }
        names.is_fresh = false;
        const len = std.mem.indexOfScalar(u16, &names.found.name, 0) orelse 0;
        return names.buffer[0..std.unicode.wtf16LeToWtf8(&names.buffer, names.found.name[0..len])];
    }
};

pub fn fileSystem(fault: *Fault, fd: Fd) Error!FileSystem {
    const handle = handleOf(fd);
    var done: [2]usize = undefined;
    var size: api.FullSize = undefined;
    var device: api.Device = undefined;
    const len = @sizeOf(api.FullSize);
    if (api.NtQueryVolumeInformationFile(handle, &done, &size, len, api.volume_full_size) < 0 or
        api.NtQueryVolumeInformationFile(handle, &done, &device, 8, api.volume_device) < 0)
    {
        note(fault, @intFromEnum(api.Code.not_supported));
        return error.Unsupported;
    }
    const unit = @as(u64, size.sectors) * size.sector_bytes;
    return .{
        .bytes = @as(u64, @intCast(@max(size.total, 0))) *| unit,
        .free = @as(u64, @intCast(@max(size.available_to_caller, 0))) *| unit,
        .network = device.type == api.device_network or
            device.characteristics & api.remote_device != 0,
    };
}

/// NTFS moves the blocks of compressed files only, ReFS those of clones.
pub fn overwriteInPlace(_: *Fault, _: Fd) Error!void {}

pub fn lockRange(fault: *Fault, fd: Fd, start: i64, mode: common.Mode) Error!bool {
    for (0..lock_tries) |round| {
        if (round > 0) _ = api.SwitchToThread();
        if (try tryRange(fault, fd, start, mode)) return true;
    }
    return false;
}

fn tryRange(fault: *Fault, fd: Fd, start: i64, mode: common.Mode) Error!bool {
    const kind: u32 = if (mode == .exclusive) api.lock_exclusive else 0;
    var place: api.Overlapped = .at(@intCast(start));
    const flags = kind | api.lock_fail_immediately;
    if (api.LockFileEx(handleOf(fd), flags, 0, 1, 0, &place) != 0) return true;
    const code = api.GetLastError();
    if (code == .lock_violation or code == .io_pending) return false;
    note(fault, @intFromEnum(code));
    return error.System;
}

/// Not in one step: an exclusive lock conflicts with the shared one of the same handle.
pub fn upgradeRange(fault: *Fault, fd: Fd, start: i64) Error!bool {
    unlockRange(fd, start);
    if (try lockRange(fault, fd, start, .exclusive)) return true;
    _ = try lockRange(fault, fd, start, .shared);
    return false;
}

/// One handle may have both, and the first unlock takes the exclusive one.
pub fn downgradeRange(fd: Fd, start: i64) void {
    var fault: Fault = .{};
    const has_both = tryRange(&fault, fd, start, .shared) catch false;
    unlockRange(fd, start);
    // Where a handle may not have both, there is a moment in between.
    if (!has_both) _ = lockRange(&fault, fd, start, .shared) catch {};
}

pub fn unlockRange(fd: Fd, start: i64) void {
    var place: api.Overlapped = .at(@intCast(start));
    _ = api.UnlockFileEx(handleOf(fd), 0, 1, 0, &place);
}

/// One by one: the system unlocks exactly what was locked. The rest goes when the handle closes,
/// which neither a mapping nor another process keeps open.
pub fn unlockRanges(fd: Fd, start: i64, count: u32) void {
    for (0..count) |i| unlockRange(fd, start + @as(i64, @intCast(i)));
}

/// There is no way to ask but to try.
pub fn isRangeLocked(fault: *Fault, fd: Fd, start: i64) Error!bool {
    if (!try lockRange(fault, fd, start, .exclusive)) return true;
    unlockRange(fd, start);
    return false;
}
