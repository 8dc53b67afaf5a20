//! What the exported functions share: bytes as they cross, answers and failures, and the way from
//! an open's arguments to a handle.

const std = @import("std");
const directory = @import("../segment/directory.zig");
const handles = @import("handles.zig");
const inspect = @import("../map/verify.zig");
const layout = @import("../layout.zig");
const lifetime = @import("thread_exit.zig");
const os = @import("../os/os.zig");
const segments = @import("../segment/segment.zig");
const status = @import("../status.zig");
const Map = @import("../map/map.zig").Map;
const Region = @import("../region/region.zig").Region;
const UserLock = @import("../lock/user_lock.zig").UserLock;

const Error = status.Error;
const Fault = status.Fault;
const Options = segments.Options;

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

/// Hands out the numbers of a failure with its status.
pub fn failed(target: ?[*]u8, fault: *const Fault, err: Error) i32 {
    if (target) |bytes| @memcpy(bytes[0..@sizeOf(Fault)], std.mem.asBytes(fault));
    return status.status(err);
}

/// The fault record of whatever a handle is of.
pub fn faultOf(handle: u32) ?*Fault {
    if (handles.isRegion(handle))
        return if (handles.regions.get(handle)) |region| &region.fault else null;
    return if (handles.maps.get(handle)) |map| &map.fault else null;
}

/// The lock of whatever a handle is of.
pub fn lockOf(handle: u32) Error!*UserLock {
    if (handles.isRegion(handle))
        return &(handles.regions.get(handle) orelse return error.Closed).lock;
    return &(handles.maps.get(handle) orelse return error.Closed).lock;
}

/// As `lockOf`, to take it: what has been displaced can no longer be locked.
pub fn lockToTake(handle: u32) Error!*UserLock {
    if (!handles.isRegion(handle)) {
        if (handles.maps.get(handle)) |map| try map.segment.check();
    }
    return lockOf(handle);
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
        .recover = inspect.recoverSegment,
    };
}

/// A map ready for one of the ways to open it.
pub fn prepared(record: *Fault, options: *const Options) Error!*Map {
    const map = try handles.maps.create(record);
    map.segment.fault = &map.fault;
    map.segment.name_len = 0;
    map.segment.temporary = null;
    map.segment.readonly = options.readonly;
    map.segment.timeout_ms = options.timeout_ms;
    map.segment.me = @as(u64, os.pid()) << 32 | 1;
    return map;
}

pub fn unlinkName(
    map: *Map,
    directory_bytes: []const u8,
    name: []const u8,
    options: *Options,
) Error!bool {
    map.segment.directory = try directory.resolve(&map.fault, directory_bytes);
    try directory.setName(&map.segment, name);
    return directory.unlinkName(&map.segment, options);
}

/// Runs one of the three ways to open a segment, and turns the outcome into a handle or a status.
pub fn opened(opening: anytype, options: *Options, fault: ?[*]u8) i32 {
    var record: Fault = .{};
    const map = prepared(&record, options) catch |err| return failed(fault, &record, err);
    opening.run(map, options) catch |err| {
        record = map.fault;
        handles.maps.discard(map);
        return failed(fault, &record, err);
    };
    map.begin();
    map.fault = .{};
    lifetime.watch();
    return @intCast(handles.maps.add(map) orelse {
        map.close();
        handles.maps.discard(map);
        return status.status(error.System);
    });
}

/// As `opened`, for a region.
pub fn openedRegion(opening: anytype, fault: ?[*]u8) i32 {
    var record: Fault = .{};
    const region = handles.regions.create(&record) catch |err| return failed(fault, &record, err);
    opening.run(region) catch |err| {
        record = region.fault;
        handles.regions.discard(region);
        return failed(fault, &record, err);
    };
    region.fault = .{};
    lifetime.watch();
    return @intCast(handles.regions.add(region) orelse {
        region.close();
        handles.regions.discard(region);
        return status.status(error.System);
    });
}
