//! What raw regions ask of Windows beyond what segments do. What each function promises is said in
//! `os.zig`.

const std = @import("std");
const api = @import("windows_api.zig");
const common = @import("common.zig");
const files = @import("windows.zig");
const memory = @import("windows_memory.zig");
const status = @import("../status.zig");

const Base = common.Base;
const Error = status.Error;
const Fault = status.Fault;
const Fd = common.Fd;
const Path = common.Path;
const check = memory.check;
const handleOf = memory.handleOf;

pub fn openUser(
    fault: *Fault,
    path: *const Path,
    access: common.Access,
    make: common.Make,
) Error!Fd {
    const disposition: u32 = switch (make) {
        .nothing => api.open_existing,
        .new => api.create_new,
        .missing => api.open_always,
    };
    return files.create(fault, path, files.accessOf(access), disposition, api.backup_semantics);
}

/// The numbers by which a runtime knows its files mean nothing to the system.
pub fn reopen(_: *Fault, _: Fd, _: common.Use) Error!Fd {
    return error.Unsupported;
}

/// No function of a runtime closes what is known by the system's numbers, so one is as good as two.
pub fn duplicate(fault: *Fault, fd: Fd) Error!Fd {
    return files.openAgain(fault, fd, .read);
}

pub fn areTwins(_: Fd, _: Fd) bool {
    return true;
}

pub fn length(fault: *Fault, fd: Fd) Error!u64 {
    var size: u64 = 0;
    try check(fault, api.GetFileSizeEx(handleOf(fd), &size));
    return size;
}

pub const cut = files.setEnd;

/// The end of a file moves in one step, with its blocks (`allocate`).
pub fn reserve(_: *Fault, _: Fd, _: u64, _: u64) Error!void {
    return error.Unsupported;
}

pub fn sealedMemory(_: *Fault, _: u64) Error!Fd {
    return error.Unsupported;
}

/// The system cuts no file short that is mapped.
pub fn isSealed(_: Fd) bool {
    return true;
}

/// With the mapping the file becomes as long, so on failure it is given its length back, unless it
/// has another by now: then another process has written to it, and would lose that.
pub fn mapUser(fault: *Fault, fd: Fd, bytes: u64, use: common.Use) Error!Base {
    const size = try length(fault, fd);
    const protection: u32 = if (!use.write)
        api.page_readonly
    else if (use.private) api.page_writecopy else api.page_readwrite;
    const how: u32 = if (!use.write)
        api.map_read
    else if (use.private) api.map_copy else api.map_read | api.map_write;
    return memory.mapWhole(fault, fd, bytes, protection, how) catch |err| {
        var ignored: Fault = .{};
        const now = length(&ignored, fd) catch return err;
        // What is appended between the look and the cut is lost: there is no call for both.
        if (size < bytes and now == bytes and use.ofFile() == .read_write)
            cut(&ignored, fd, size) catch {}; // then it stays longer
        return err;
    };
}

pub fn sync(fault: *Fault, fd: Fd, base: Base, bytes: u64) Error!void {
    try check(fault, api.FlushViewOfFile(base, bytes));
    check(fault, api.FlushFileBuffers(handleOf(fd))) catch |err| {
        if (err != error.PermissionDenied) return err; // only read: nothing is to be written
    };
}

pub fn writeAt(fault: *Fault, fd: Fd, bytes: []const u8, offset: u64) Error!usize {
    var done: usize = 0;
    while (done < bytes.len) {
        var to: api.Overlapped = .at(offset + done);
        var count: u32 = 0;
        const wanted: u32 = @intCast(@min(bytes.len - done, 1 << 30));
        const rest = bytes[done..].ptr;
        try check(fault, api.WriteFile(handleOf(fd), rest, wanted, &count, &to));
        done += count;
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
    var count: usize = 0;
    const result = if (direction == .from_mapping)
        api.ReadProcessMemory(api.self, mapped, own, bytes, &count)
    else
        api.WriteProcessMemory(api.self, mapped, own, bytes, &count);
    if (result != 0) return count;
    const err = memory.failure(fault);
    const is_partial = memory.failedWith(fault, .partial_copy) or
        memory.failedWith(fault, .no_access);
    return if (is_partial) @min(count, bytes) else err;
}
