//! The exported functions for regions. What all exported functions have in common is said in
//! `symbols.zig`.

const std = @import("std");
const handles = @import("handles.zig");
const marshal = @import("marshal.zig");
const os = @import("../os/os.zig");
const regions = @import("../region/region.zig");
const status = @import("../status.zig");

const Error = status.Error;
const Fault = status.Fault;
const Flags = marshal.Flags;
const Region = regions.Region;

/// Maps a file: the one of `path`, or with the flag `regionDescriptor` the one that is open as
/// `descriptor`. `length` 0: as long as it is. A handle.
pub export fn shm_region_open(
    path: ?[*]const u8,
    path_len: u32,
    descriptor: u32,
    length: f64,
    flags: u32,
    fault: ?[*]u8,
) i32 {
    const bytes = marshal.wholeOf(length) catch |err| return status.status(err);
    const access: regions.Access = .{
        .read = Flags.regionRead.in(flags),
        .write = Flags.regionWrite.in(flags),
        .private = Flags.regionPrivate.in(flags),
    };
    var record: Fault = .{};
    const opened = if (Flags.regionDescriptor.in(flags))
        openDescriptor(&record, descriptor, bytes, access)
    else
        openPath(&record, marshal.slice(path, path_len), bytes, access);
    return marshal.handleOr(fault, &record, opened);
}

fn openPath(record: *Fault, path: []const u8, length: u64, access: regions.Access) Error!u32 {
    const region = try handles.regions.create(record);
    errdefer drop(record, region);
    try region.openPath(path, length, access);
    return marshal.handOut(region);
}

fn openDescriptor(
    record: *Fault,
    descriptor: u32,
    length: u64,
    access: regions.Access,
) Error!u32 {
    const fd = std.math.cast(os.Fd, descriptor) orelse return error.InvalidArgument;
    const region = try handles.regions.create(record);
    errdefer drop(record, region);
    try region.openDescriptor(fd, length, access);
    return marshal.handOut(region);
}

/// A new region in memory, without a name. A handle.
pub export fn shm_region_anonymous(length: f64, fault: ?[*]u8) i32 {
    const bytes = marshal.wholeOf(length) catch |err| return status.status(err);
    var record: Fault = .{};
    return marshal.handleOr(fault, &record, openAnonymous(&record, bytes));
}

fn openAnonymous(record: *Fault, length: u64) Error!u32 {
    const region = try handles.regions.create(record);
    errdefer drop(record, region);
    try region.anonymous(length);
    return marshal.handOut(region);
}

/// Attaches to the region a token names. A handle.
pub export fn shm_region_attach(
    token: ?[*]const u8,
    token_len: u32,
    flags: u32,
    fault: ?[*]u8,
) i32 {
    var record: Fault = .{};
    const allow_foreign_owner = Flags.allowForeignOwner.in(flags);
    const opened = openByToken(&record, marshal.slice(token, token_len), allow_foreign_owner);
    return marshal.handleOr(fault, &record, opened);
}

fn openByToken(record: *Fault, token: []const u8, allow_foreign_owner: bool) Error!u32 {
    const region = try handles.regions.create(record);
    errdefer drop(record, region);
    try region.attach(token, allow_foreign_owner);
    return marshal.handOut(region);
}

/// Gives back a region whose opening failed, and hands on what it noted of the failure.
fn drop(record: *Fault, region: *Region) void {
    record.* = region.fault;
    handles.regions.discard(region);
}

pub export fn shm_region_close(handle: u32) i32 {
    const region = handles.regions.remove(handle) orelse return status.status(error.Closed);
    region.close();
    handles.regions.discard(region);
    return 0;
}

pub export fn shm_region_length(handle: u32) f64 {
    const region = handles.regions.get(handle) orelse return marshal.long(error.Closed);
    return marshal.long(region.length);
}

/// A descriptor of the file that is the caller's to use and to close; it closes with the region at
/// the latest.
pub export fn shm_region_descriptor(handle: u32) i32 {
    const region = handles.regions.get(handle) orelse return status.status(error.Closed);
    return region.descriptor() catch |err| return status.status(err);
}

/// The token of an anonymous region; `Unsupported` over a user's file.
pub export fn shm_region_token(handle: u32, target: ?[*]u8, target_len: u32) i32 {
    const region = handles.regions.begin(handle) orelse return status.status(error.Closed);
    const len = region.token(marshal.mutable(target, target_len)) catch |err|
        return status.status(err);
    return @intCast(len);
}

/// Copies bytes from `offset` on. How many; fewer where the file was cut short.
pub export fn shm_region_read(handle: u32, offset: f64, target: ?[*]u8, target_len: u32) f64 {
    const region = handles.regions.begin(handle) orelse return marshal.long(error.Closed);
    const from = marshal.wholeOf(offset) catch |err| return marshal.long(err);
    return marshal.long(region.read(from, marshal.mutable(target, target_len)));
}

/// Stores bytes from `offset` on. How many; fewer where the file was cut short.
pub export fn shm_region_write(handle: u32, offset: f64, bytes: ?[*]const u8, len: u32) f64 {
    const region = handles.regions.begin(handle) orelse return marshal.long(error.Closed);
    const from = marshal.wholeOf(offset) catch |err| return marshal.long(err);
    return marshal.long(region.write(from, marshal.slice(bytes, len)));
}

/// Waits until the file holds what was written.
pub export fn shm_region_flush(handle: u32) i32 {
    const region = handles.regions.begin(handle) orelse return status.status(error.Closed);
    return marshal.done(region.flush());
}
