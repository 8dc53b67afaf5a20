//! The exported functions for segments as such: opening, naming, listing, describing, closing. What
//! all exported functions have in common is said in `symbols.zig`.

const std = @import("std");
const attach = @import("../map/attach.zig");
const directory = @import("../segment/directory.zig");
const handles = @import("handles.zig");
const marshal = @import("marshal.zig");
const stats = @import("../map/stats.zig");
const status = @import("../status.zig");
const Map = @import("../map/map.zig").Map;
const Options = @import("../segment/segment.zig").Options;

const Error = status.Error;
const Fault = status.Fault;
const Flags = marshal.Flags;

/// Opens the segment `name` in `directory` (empty: the platform's). A handle.
pub export fn shm_segment_open(
    directory_bytes: ?[*]const u8,
    directory_len: u32,
    name: ?[*]const u8,
    name_len: u32,
    codec: ?[*]const u8,
    codec_len: u32,
    flags: u32,
    permissions: u32,
    max_bytes: f64,
    timeout_ms: f64,
    fault: ?[*]u8,
) i32 {
    var options = marshal.optionsOf(flags, codec, codec_len, max_bytes, timeout_ms) catch |err|
        return status.status(err);
    options.permissions = permissions & 0o777;
    const mode: directory.Mode = if (Flags.modeCreate.in(flags))
        .create
    else if (Flags.modeAttach.in(flags) or options.readonly)
        .attach
    else if (Flags.modeExclusive.in(flags)) .exclusive else .shared;
    const path = marshal.slice(directory_bytes, directory_len);
    var record: Fault = .{};
    const opened = openByName(&record, path, marshal.slice(name, name_len), mode, &options);
    return marshal.handleOr(fault, &record, opened);
}

fn openByName(
    record: *Fault,
    path: []const u8,
    name: []const u8,
    mode: directory.Mode,
    options: *const Options,
) Error!u32 {
    const map = try create(record, options);
    errdefer drop(record, map);
    try attach.openByName(map, path, name, mode, options);
    return marshal.handOut(map);
}

/// A new segment without a name. A handle.
pub export fn shm_segment_anonymous(
    codec: ?[*]const u8,
    codec_len: u32,
    flags: u32,
    max_bytes: f64,
    timeout_ms: f64,
    fault: ?[*]u8,
) i32 {
    const options = marshal.optionsOf(flags, codec, codec_len, max_bytes, timeout_ms) catch |err|
        return status.status(err);
    var record: Fault = .{};
    return marshal.handleOr(fault, &record, openAnonymous(&record, &options));
}

fn openAnonymous(record: *Fault, options: *const Options) Error!u32 {
    const map = try create(record, options);
    errdefer drop(record, map);
    try attach.openAnonymous(map, options);
    return marshal.handOut(map);
}

/// Attaches to the segment a token names. A handle.
pub export fn shm_segment_attach(
    token: ?[*]const u8,
    token_len: u32,
    codec: ?[*]const u8,
    codec_len: u32,
    flags: u32,
    timeout_ms: f64,
    fault: ?[*]u8,
) i32 {
    var options = marshal.optionsOf(flags, codec, codec_len, 0, timeout_ms) catch |err|
        return status.status(err);
    var record: Fault = .{};
    const opened = openByToken(&record, marshal.slice(token, token_len), &options);
    return marshal.handleOr(fault, &record, opened);
}

fn openByToken(record: *Fault, token: []const u8, options: *Options) Error!u32 {
    const map = try create(record, options);
    errdefer drop(record, map);
    try attach.openByToken(map, token, options);
    return marshal.handOut(map);
}

fn create(record: *Fault, options: *const Options) Error!*Map {
    const map = try handles.maps.create(record);
    attach.prepare(map, options);
    return map;
}

/// Gives back a map whose opening failed, and hands on what it noted of the failure.
fn drop(record: *Fault, map: *Map) void {
    record.* = map.fault;
    handles.maps.discard(map);
}

/// Removes the name of the segment that has it. 1, or 0: there was none.
pub export fn shm_segment_unlink_name(
    directory_bytes: ?[*]const u8,
    directory_len: u32,
    name: ?[*]const u8,
    name_len: u32,
    flags: u32,
    timeout_ms: f64,
    fault: ?[*]u8,
) i32 {
    const options = marshal.optionsOf(flags, null, 0, 0, timeout_ms) catch |err|
        return status.status(err);
    const path = marshal.slice(directory_bytes, directory_len);
    var record: Fault = .{};
    const was = unlinkName(&record, path, marshal.slice(name, name_len), &options) catch |err|
        return marshal.failed(fault, &record, err);
    return @intFromBool(was);
}

fn unlinkName(record: *Fault, path: []const u8, name: []const u8, options: *const Options) !bool {
    const map = try create(record, options);
    defer drop(record, map);
    return attach.unlinkName(map, path, name, options);
}

/// Lists the segments of a directory: the record `Listed` and a name for each.
pub export fn shm_segment_list(
    directory_bytes: ?[*]const u8,
    directory_len: u32,
    target: ?[*]u8,
    target_len: u32,
    fault: ?[*]u8,
) i32 {
    var record: Fault = .{};
    const given = marshal.slice(directory_bytes, directory_len);
    const path = directory.resolve(&record, given) catch |err|
        return marshal.failed(fault, &record, err);
    const len = directory.list(&record, &path, marshal.mutable(target, target_len)) catch |err|
        return marshal.failed(fault, &record, err);
    return @intCast(len);
}

/// Removes this segment's own name. 1, or 0: it had none any more.
pub export fn shm_segment_unlink(handle: u32) i32 {
    const map = handles.maps.begin(handle) orelse return status.status(error.Closed);
    if (map.segment.readonly) return status.status(error.ReadOnly);
    const was = directory.unlinkOwn(&map.segment) catch |err| return status.status(err);
    return @intFromBool(was);
}

pub export fn shm_segment_close(handle: u32) i32 {
    const map = handles.maps.remove(handle) orelse return status.status(error.Closed);
    map.close();
    handles.maps.discard(map);
    return 0;
}

/// The token of this handle, ASCII but for the directory's own bytes.
pub export fn shm_segment_token(handle: u32, target: ?[*]u8, target_len: u32) i32 {
    const map = handles.maps.begin(handle) orelse return status.status(error.Closed);
    const len = map.segment.token(marshal.mutable(target, target_len)) catch |err|
        return status.status(err);
    return @intCast(len);
}

/// The record `Stats`.
pub export fn shm_segment_stats(handle: u32, target: ?[*]u8, target_len: u32) i32 {
    const map = handles.maps.begin(handle) orelse return status.status(error.Closed);
    const record = stats.stats(map) catch |err| return status.status(err);
    return marshal.answer(std.mem.asBytes(&record), target, target_len);
}
