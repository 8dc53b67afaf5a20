//! Mapped and private memory, and how calls fail, for Windows. What each function promises is said
//! in `os.zig`.
//!
//! A section cannot reach beyond its file, so a segment is mapped in pieces: address space is
//! reserved once, and each growth maps one more piece behind the others. Windows 10 reserves by
//! placeholders, which no other thread can take while they are replaced. Where there are none, the
//! reservation is given up for a moment, and growth fails if another thread takes its place.

const std = @import("std");
const api = @import("windows_api.zig");
const common = @import("common.zig");
const status = @import("../status.zig");

const Access = common.Access;
const Base = common.Base;
const Error = status.Error;
const Fault = status.Fault;
const Fd = common.Fd;
const Handle = api.Handle;
const Pages = common.Pages;
const page_bytes = common.page_bytes;

/// Views begin at multiples of this, in the file and in memory.
const piece_bytes = 64 * 1024;
/// More than any process can address.
const address_space = 1 << 47;

/// A handle's number has 32 bits that count, however large it is.
pub fn fdOf(handle: Handle) Fd {
    return @truncate(@as(isize, @bitCast(@intFromPtr(handle))));
}

pub fn handleOf(fd: Fd) Handle {
    return @ptrFromInt(@as(usize, @bitCast(@as(isize, fd))));
}

/// Notes the last error; what it means to us.
pub fn failure(fault: *Fault) Error {
    const code = api.GetLastError();
    common.note(fault, @intFromEnum(code));
    return switch (code) {
        .file_not_found,
        .path_not_found,
        .invalid_drive,
        .bad_network_path,
        .bad_network_name,
        .delete_pending,
        => error.NotFound,
        .file_exists, .already_exists => error.Exists,
        .access_denied,
        .write_protect,
        .sharing_violation,
        .privilege_not_held,
        => error.PermissionDenied,
        .handle_disk_full, .disk_full, .disk_quota_exceeded, .file_too_large => error.NoSpace,
        .invalid_function, .not_supported, .call_not_implemented => error.Unsupported,
        else => error.System,
    };
}

pub fn check(fault: *Fault, result: api.Bool) Error!void {
    if (result == 0) return failure(fault);
}

/// Whether the last failure was this one.
pub fn failedWith(fault: *const Fault, code: api.Code) bool {
    return fault.errno == @as(f64, @floatFromInt(@intFromEnum(code)));
}

const AllocateIn = *const fn (
    process: Handle,
    base: ?*anyopaque,
    bytes: usize,
    type: u32,
    protection: u32,
    parameters: Handle,
    count: u32,
) callconv(.winapi) ?*anyopaque;

const MapInto = *const fn (
    section: Handle,
    process: Handle,
    base: ?*anyopaque,
    offset: u64,
    bytes: usize,
    type: u32,
    protection: u32,
    parameters: Handle,
    count: u32,
) callconv(.winapi) ?*anyopaque;

/// Functions that older systems do not have.
fn newer(comptime Function: type, name: [*:0]const u8) ?Function {
    const library = std.unicode.utf8ToUtf16LeStringLiteral("kernelbase.dll");
    const address = api.GetProcAddress(api.GetModuleHandleW(library), name) orelse return null;
    return @ptrCast(@alignCast(address));
}

fn reserve(bytes: u64) ?*anyopaque {
    if (newer(AllocateIn, "VirtualAlloc2")) |allocate| {
        const how = api.mem_reserve | api.mem_reserve_placeholder;
        if (allocate(api.self, null, bytes, how, api.page_noaccess, null, 0)) |base| return base;
    }
    return api.VirtualAlloc(null, bytes, api.mem_reserve, api.page_noaccess);
}

/// Notes that there is no address space for so many bytes.
pub fn noAddresses(fault: *Fault, bytes: u64) Error {
    return common.noAddresses(fault, bytes, addressLimit());
}

/// A job may limit what its processes commit, not what they reserve.
pub fn addressLimit() ?u64 {
    return null;
}

/// Nothing: views count what they have touched, all together.
pub fn forget(_: Base, _: u64) void {}

pub fn map(fault: *Fault, fd: Fd, bytes: u64, access: Access) Error!Base {
    var size: u64 = 0;
    try check(fault, api.GetFileSizeEx(handleOf(fd), &size));
    if (bytes <= size) {
        const protection: u32 = if (access == .read) api.page_readonly else api.page_readwrite;
        const how: u32 = if (access == .read) api.map_read else api.map_read | api.map_write;
        return mapWhole(fault, fd, bytes, protection, how);
    }
    const base = reserve(std.mem.alignForward(u64, bytes, piece_bytes)) orelse {
        _ = failure(fault) catch {};
        return noAddresses(fault, bytes);
    };
    const result: Base = @ptrCast(@alignCast(base));
    errdefer unmap(result, bytes);
    try extend(fault, fd, result, 0, size, access);
    return result;
}

/// One view of a file's beginning, which the system makes as long as that if need be.
pub fn mapWhole(fault: *Fault, fd: Fd, bytes: u64, protection: u32, how: u32) Error!Base {
    const section = try sectionOf(fault, fd, bytes, protection);
    defer _ = api.CloseHandle(section);
    const base = api.MapViewOfFileEx(section, how, 0, 0, bytes, null) orelse
        return viewFailure(fault, bytes);
    return @ptrCast(@alignCast(base));
}

fn viewFailure(fault: *Fault, bytes: u64) Error {
    const err = failure(fault);
    const is_room = failedWith(fault, .not_enough_memory) or
        failedWith(fault, .invalid_address) or failedWith(fault, .out_of_memory);
    return if (is_room) noAddresses(fault, bytes) else err;
}

fn sectionOf(fault: *Fault, fd: Fd, bytes: u64, protection: u32) Error!Handle {
    if (bytes >= address_space) return noAddresses(fault, bytes);
    const high: u32 = @truncate(bytes >> 32);
    const low: u32 = @truncate(bytes);
    const section = api.CreateFileMappingW(handleOf(fd), null, protection, high, low, null);
    if (section != null) return section;
    const err = failure(fault);
    if (err == error.NoSpace) return fault.withReason(.fileSystemFull, err);
    // A file that is only read does not become longer.
    return if (failedWith(fault, .not_enough_memory)) noAddresses(fault, bytes) else err;
}

/// In whole pieces, so that the next one can begin where this one ends; with it the file becomes
/// longer, but for one that is only read, which its writer has made as long.
pub fn extend(fault: *Fault, fd: Fd, base: Base, from: u64, to: u64, access: Access) Error!void {
    const end = std.mem.alignForward(u64, to, piece_bytes);
    var at = std.mem.alignForward(u64, from, piece_bytes);
    while (at < end) {
        const found = query(@intFromPtr(base) + at) orelse return error.System;
        if (found.state == api.mem_reserve) {
            return mapPiece(fault, fd, base + at, .{ .at = at, .end = end }, found.size, access);
        }
        if (found.state != api.mem_commit) return noAddresses(fault, end - at);
        at += found.size; // the file was longer when it was mapped
    }
}

fn query(address: usize) ?api.MemoryInformation {
    var found: api.MemoryInformation = undefined;
    const len = @sizeOf(api.MemoryInformation);
    return if (api.VirtualQuery(address, &found, len) == 0) null else found;
}

const ChunkRange = struct { at: u64, end: u64 };

/// Replaces the beginning of what is reserved at `base`, `reserved` bytes, by a view of the file.
fn mapPiece(
    fault: *Fault,
    fd: Fd,
    base: [*]u8,
    piece: ChunkRange,
    reserved: u64,
    access: Access,
) Error!void {
    const len = piece.end - piece.at;
    const protection: u32 = if (access == .read) api.page_readonly else api.page_readwrite;
    const section = try sectionOf(fault, fd, piece.end, protection);
    defer _ = api.CloseHandle(section);
    const how = api.mem_release | api.mem_preserve_placeholder;
    if (reserved == len or api.VirtualFree(base, len, how) != 0) {
        if (newer(MapInto, "MapViewOfFile3")) |mapInto| {
            const replacing = api.mem_replace_placeholder;
            const self = api.self;
            if (mapInto(section, self, base, piece.at, len, replacing, protection, null, 0) != null)
                return;
        }
    }
    const view: u32 = if (access == .read) api.map_read else api.map_read | api.map_write;
    _ = api.VirtualFree(base, 0, api.mem_release);
    const high: u32 = @truncate(piece.at >> 32);
    const low: u32 = @truncate(piece.at);
    const mapped = api.MapViewOfFileEx(section, view, high, low, len, base);
    const err = if (mapped == null) viewFailure(fault, len);
    const kept = if (mapped == null) 0 else len;
    if (reserved > kept) {
        const rest = reserved - kept;
        _ = api.VirtualAlloc(base + kept, rest, api.mem_reserve, api.page_noaccess);
    }
    if (mapped == null) return err;
}

/// All pieces that the mapping consists of by now.
pub fn unmap(base: Base, bytes: u64) void {
    const end = @intFromPtr(base) + std.mem.alignForward(u64, bytes, piece_bytes);
    var at = @intFromPtr(base);
    while (at < end) {
        const found = query(at) orelse return;
        at = found.base + found.size;
        if (found.state == api.mem_free or found.base != found.allocation_base) continue;
        const piece: *anyopaque = @ptrFromInt(found.base);
        if (found.type == api.mem_mapped) {
            at = endOfView(found);
            _ = api.UnmapViewOfFile(piece);
        } else _ = api.VirtualFree(piece, 0, api.mem_release);
    }
}

/// A view is one allocation, but may be several stretches, which differ in protection.
fn endOfView(first: api.MemoryInformation) usize {
    var at = first.base + first.size;
    while (query(at)) |found| {
        if (found.state == api.mem_free or found.allocation_base != first.base) break;
        at = found.base + found.size;
    }
    return at;
}

pub fn pages(fault: *Fault, bytes: u64) Error!Pages {
    const len = std.mem.alignForward(u64, @max(bytes, 1), page_bytes);
    const how = api.mem_reserve | api.mem_commit;
    const base = api.VirtualAlloc(null, len, how, api.page_readwrite) orelse return failure(fault);
    return @as(Base, @ptrCast(@alignCast(base)))[0..len];
}

pub fn freePages(memory: Pages) void {
    if (memory.len > 0) _ = api.VirtualFree(memory.ptr, 0, api.mem_release);
}
