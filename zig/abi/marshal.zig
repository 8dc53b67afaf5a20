//! What the exported functions share: bytes as they cross, answers and failures, and the way from
//! an open's arguments to a handle.

const std = @import("std");
const attach = @import("../map/attach.zig");
const handles = @import("handles.zig");
const layout = @import("../layout.zig");
const read = @import("../map/read.zig");
const status = @import("../status.zig");
const isolate_end = @import("isolate_end.zig");
const write = @import("../map/write.zig");
const Map = @import("../map/map.zig").Map;
const Meta = @import("../stripe/entry.zig").Meta;
const Options = @import("../segment/segment.zig").Options;

const Error = status.Error;
const Fault = status.Fault;

/// What an open may ask for, a bit each.
pub const Flags = enum(u32) {
    value = 1,
    modeCreate = 2,
    modeAttach = 4,
    modeExclusive = 8,
    readonly = 16,
    allowForeignOwner = 32,
    lockStated = 64,
    lockKernel = 128,
    keysOnly = 256,
    regionRead = 512,
    regionWrite = 1024,
    regionPrivate = 2048,
    regionDescriptor = 4096,

    pub fn in(flag: Flags, flags: u32) bool {
        return flags & @intFromEnum(flag) != 0;
    }
};

pub inline fn slice(bytes: ?[*]const u8, len: u32) []const u8 {
    return (bytes orelse return &.{})[0..len];
}

pub inline fn mutable(bytes: ?[*]u8, len: u32) []u8 {
    return (bytes orelse return &.{})[0..len];
}

pub inline fn keyOf(key: ?[*]const u8, key_len: u32) ?[]const u8 {
    if (key_len == 0 or key_len > layout.key_bytes_max) return null;
    return (key orelse return null)[0..key_len];
}

/// A whole number of bytes that crossed as `f64`.
pub fn wholeOf(number: f64) Error!u64 {
    if (!(number >= 0 and number < 1 << 53) or @trunc(number) != number)
        return error.InvalidArgument;
    return @intFromFloat(number);
}

pub fn long(result: Error!u64) f64 {
    return if (result) |n| @floatFromInt(n) else |err| @floatFromInt(status.status(err));
}

pub fn answer(bytes: []const u8, target: ?[*]u8, target_len: u32) i32 {
    if (bytes.len <= target_len) @memcpy(mutable(target, target_len)[0..bytes.len], bytes);
    return @intCast(bytes.len);
}

/// The result of a call that only succeeds or fails.
pub fn done(result: Error!void) i32 {
    return if (result) 0 else |err| status.status(err);
}

/// Hands out the record of a failure with its status.
pub fn failed(target: ?[*]u8, fault: *const Fault, err: Error) i32 {
    if (target) |bytes| @memcpy(bytes[0..@sizeOf(Fault)], std.mem.asBytes(fault));
    return status.status(err);
}

/// The handle of an open that went well; else the record of its failure, and the status.
pub fn handleOr(target: ?[*]u8, fault: *const Fault, opened: Error!u32) i32 {
    return @intCast(opened catch |err| return failed(target, fault, err));
}

/// Makes an open map or region a handle, which the end of this thread will close.
pub fn handOut(object: anytype) Error!u32 {
    const table = if (@TypeOf(object) == *Map) handles.maps else handles.regions;
    object.fault = .{};
    object.lock.realm = isolate_end.watch();
    return table.add(object, object.lock.realm) orelse {
        object.close();
        return error.System;
    };
}

/// As `read.getMeta`, as a call of its own.
pub inline fn metaOf(map: *Map, key: []const u8) Error!?Meta {
    var meta: Meta = undefined;
    return switch (read.getFast(map, key, null, &meta, .call)) {
        .hit => meta,
        .miss => null,
        .retry => readSlow(map, key, &.{}, 1),
    };
}

/// An end that crossed as `f64`: 0 for never, -1 to keep the one there is.
pub fn endOf(expires: f64) Error!u64 {
    return if (expires == -1) write.Item.kept else wholeOf(expires);
}

noinline fn readSlow(map: *Map, key: []const u8, room: []u8, reserve: u32) Error!?Meta {
    map.startCall();
    return read.getSlow(map, key, room, reserve);
}

/// What follows a value that is read with its version.
pub const ValueTail = extern struct { kind: u8, version: f64 align(1) };

/// Reads the value of `key`, with its tail behind it: its length, or `absent`.
pub fn valueWithTail(map: *Map, key: []const u8, room: []u8) i32 {
    var meta: Meta = undefined;
    switch (read.getFast(map, key, room, &meta, .call)) {
        .hit => {},
        .miss => return @intFromEnum(status.Status.absent),
        .retry => return valueWithTailSlow(map, key, room),
    }
    return withTail(&meta, room);
}

fn valueWithTailSlow(map: *Map, key: []const u8, room: []u8) i32 {
    const found = readSlow(map, key, room, @sizeOf(ValueTail)) catch |err|
        return status.status(err);
    const meta = found orelse return @intFromEnum(status.Status.absent);
    return withTail(&meta, room);
}

inline fn withTail(meta: *const Meta, room: []u8) i32 {
    if (@as(u64, meta.len) + @sizeOf(ValueTail) <= room.len) {
        const tail: ValueTail = .{ .kind = meta.kind, .version = @floatFromInt(meta.version) };
        @memcpy(room[meta.len..][0..@sizeOf(ValueTail)], std.mem.asBytes(&tail));
    }
    return @intCast(meta.len);
}

pub fn optionsOf(
    flags: u32,
    codec: ?[*]const u8,
    codec_len: u32,
    max_bytes: f64,
    timeout_ms: f64,
) Error!Options {
    if (codec_len > layout.codec_bytes_max or !(timeout_ms >= 0)) return error.InvalidArgument;
    const lock: layout.LockKind = if (Flags.lockKernel.in(flags)) .kernel else .robust;
    return .{
        .kind = if (Flags.value.in(flags)) .value else .map,
        .readonly = Flags.readonly.in(flags),
        .allow_foreign_owner = Flags.allowForeignOwner.in(flags),
        .lock = if (Flags.lockStated.in(flags)) lock else null,
        .max_bytes = try wholeOf(max_bytes),
        .timeout_ms = timeout_ms,
        .codec = slice(codec, codec_len),
        .recover = attach.recoverSegment,
    };
}
