//! The C ABI. Every `pub export fn` in this file is a symbol TypeScript may call, and there are no
//! others: this file is the symbol table, and `zig build abi` writes `src/ffi/abi.ts` from it.
//!
//! Words: `u32`, `i32`, `f64`, bytes (a pointer, null for nothing, and a `u32` length). Results:
//! zero and up is the answer, below zero a `Status`. Lengths follow snprintf: a result that does
//! not fit its target is not copied, and its length is returned all the same. `fault` is always
//! 128 bytes, see `status.Fault`.

const std = @import("std");
const boundary = @import("marshal.zig");
const directory = @import("../segment/directory.zig");
const gather = @import("../map/bulk.zig");
const handles = @import("handles.zig");
const inspect = @import("../map/verify.zig");
const maps = @import("../map/map.zig");
const os = @import("../os/os.zig");
const puts = @import("../map/put_fast.zig");
const regions = @import("../region/region.zig");
const segments = @import("../segment/segment.zig");
const status = @import("../status.zig");

const Error = status.Error;
const Fault = status.Fault;
const Map = maps.Map;
const Options = segments.Options;
const Region = regions.Region;
const answer = boundary.answer;
const failed = boundary.failed;
const keyOf = boundary.keyOf;
const long = boundary.long;
const mutable = boundary.mutable;
const slice = boundary.slice;

pub const Flags = boundary.Flags;

/// Where the value of a `SharedValue` lies in its segment.
const value_key = "value";

/// What this library speaks; `src/ffi/native.ts` refuses any other.
pub export fn shm_fingerprint() u32 {
    return comptime fingerprint();
}

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
    var options = boundary.optionsOf(flags, codec, codec_len, max_bytes, timeout_ms) catch |err|
        return status.status(err);
    options.permissions = permissions & 0o777;
    const mode: directory.Mode = if (Flags.modeCreate.in(flags))
        .create
    else if (Flags.modeAttach.in(flags) or options.readonly)
        .attach
    else if (Flags.modeExclusive.in(flags)) .exclusive else .shared;
    const Opening = struct {
        mode: directory.Mode,
        directory: []const u8,
        name: []const u8,

        pub fn run(opening: @This(), map: *Map, asked: *Options) Error!void {
            map.segment.directory = try directory.resolve(&map.fault, opening.directory);
            try directory.setName(&map.segment, opening.name);
            try directory.open(&map.segment, opening.mode, asked);
        }
    };
    return boundary.opened(Opening{
        .mode = mode,
        .directory = slice(directory_bytes, directory_len),
        .name = slice(name, name_len),
    }, &options, fault);
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
    var options = boundary.optionsOf(flags, codec, codec_len, max_bytes, timeout_ms) catch |err|
        return status.status(err);
    const Opening = struct {
        pub fn run(_: @This(), map: *Map, asked: *Options) Error!void {
            try directory.anonymous(&map.segment, asked);
        }
    };
    return boundary.opened(Opening{}, &options, fault);
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
    var options = boundary.optionsOf(flags, codec, codec_len, 0, timeout_ms) catch |err|
        return status.status(err);
    const Opening = struct {
        token: []const u8,

        pub fn run(opening: @This(), map: *Map, asked: *Options) Error!void {
            try directory.attachToken(&map.segment, opening.token, asked);
        }
    };
    return boundary.opened(Opening{ .token = slice(token, token_len) }, &options, fault);
}

/// Takes the name away from whatever segment of ours has it. 1, or 0: there was none.
pub export fn shm_segment_unlink_name(
    directory_bytes: ?[*]const u8,
    directory_len: u32,
    name: ?[*]const u8,
    name_len: u32,
    flags: u32,
    timeout_ms: f64,
    fault: ?[*]u8,
) i32 {
    var options = boundary.optionsOf(flags, null, 0, 0, timeout_ms) catch |err|
        return status.status(err);
    var record: Fault = .{};
    const map = boundary.prepared(&record, &options) catch |err|
        return failed(fault, &record, err);
    defer handles.maps.discard(map);
    const path = slice(directory_bytes, directory_len);
    const was = boundary.unlinkName(map, path, slice(name, name_len), &options) catch |err|
        return failed(fault, &map.fault, err);
    return @intFromBool(was);
}

/// Lists the segments of a directory: `directory.Listed` and a name for each.
pub export fn shm_segment_list(
    directory_bytes: ?[*]const u8,
    directory_len: u32,
    target: ?[*]u8,
    target_len: u32,
    fault: ?[*]u8,
) i32 {
    var record: Fault = .{};
    const path = directory.resolve(&record, slice(directory_bytes, directory_len)) catch |err|
        return failed(fault, &record, err);
    const len = directory.list(&record, &path, mutable(target, target_len)) catch |err|
        return failed(fault, &record, err);
    return @intCast(len);
}

/// Takes this segment's own name away. 1, or 0: it had none any more.
pub export fn shm_segment_unlink(handle: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
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
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const len = map.segment.token(mutable(target, target_len)) catch |err|
        return status.status(err);
    return @intCast(len);
}

/// `inspect.Stats`.
pub export fn shm_segment_stats(handle: u32, target: ?[*]u8, target_len: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const stats = inspect.stats(map) catch |err| return status.status(err);
    return answer(std.mem.asBytes(&stats), target, target_len);
}

/// The length of the value of `key`, `absent` if there is none. If it is less than `target_len`,
/// the value is copied and the byte behind it is its kind.
pub export fn shm_map_get(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = keyOf(key, key_len) orelse return status.status(error.InvalidArgument);
    const room = mutable(target, target_len);
    var value: maps.Value = undefined;
    switch (map.getQuickly(key_bytes, room, &value)) {
        .found => room[value.len] = value.kind,
        .absent => return @intFromEnum(status.Status.absent),
        .unsure => return getAnyway(map, key_bytes, room),
    }
    return @intCast(value.len);
}

noinline fn getAnyway(map: *Map, key: []const u8, room: []u8) i32 {
    const found = map.getAnyway(key, room, 1) catch |err| return status.status(err);
    const value = found orelse return @intFromEnum(status.Status.absent);
    if (value.len < room.len) room[value.len] = value.kind;
    return @intCast(value.len);
}

/// As `shm_map_get`; behind the kind lies the version, an `f64`, so nine bytes more are needed.
pub export fn shm_map_get_version(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = keyOf(key, key_len) orelse return status.status(error.InvalidArgument);
    return getVersion(map, key_bytes, mutable(target, target_len));
}

fn getVersion(map: *Map, key: []const u8, room: []u8) i32 {
    const value = map.get(key, room, 9) catch |err| return status.status(err);
    const found = value orelse return @intFromEnum(status.Status.absent);
    if (@as(u64, found.len) + 9 <= room.len) {
        room[found.len] = found.kind;
        const version: f64 = @floatFromInt(found.version);
        @memcpy(room[found.len + 1 ..][0..8], std.mem.asBytes(&version));
    }
    return @intCast(found.len);
}

/// Stores a value: `how` is its kind, plus 256 for only if absent. 1, or 0: it was there.
pub export fn shm_map_put(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    value: ?[*]const u8,
    value_len: u32,
    how: u32,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = keyOf(key, key_len) orelse return status.status(error.InvalidArgument);
    const bytes = slice(value, value_len);
    if (how & 256 != 0) return putIf(map, key_bytes, bytes, how, .absent);
    if (puts.quickly(map, key_bytes, bytes, @truncate(how))) return 1;
    return putIf(map, key_bytes, bytes, how, .none);
}

/// Kept apart, so that nothing has to survive a call on the usual way.
noinline fn putIf(
    map: *maps.Map,
    key: []const u8,
    value: []const u8,
    how: u32,
    condition: maps.Condition,
) i32 {
    const stored = map.putAnyway(key, value, @truncate(how), condition) catch |err|
        return status.status(err);
    return @intFromBool(stored);
}

/// Stores a value if the key's version is still `version` (0: if it is absent). 1, or 0: it is not.
pub export fn shm_map_put_version(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    value: ?[*]const u8,
    value_len: u32,
    how: u32,
    version: f64,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = keyOf(key, key_len) orelse return status.status(error.InvalidArgument);
    const wanted = boundary.wholeOf(version) catch |err| return status.status(err);
    const condition: maps.Condition = if (wanted == 0) .absent else .{ .version = wanted };
    return putIf(map, key_bytes, slice(value, value_len), how, condition);
}

pub export fn shm_map_has(handle: u32, key: ?[*]const u8, key_len: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = keyOf(key, key_len) orelse return status.status(error.InvalidArgument);
    const value = map.describe(key_bytes) catch |err| return status.status(err);
    return @intFromBool(value != null);
}

/// 1, or 0: there was none.
pub export fn shm_map_delete(handle: u32, key: ?[*]const u8, key_len: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const key_bytes = keyOf(key, key_len) orelse return status.status(error.InvalidArgument);
    const was = map.delete(key_bytes) catch |err| return status.status(err);
    return @intFromBool(was);
}

pub export fn shm_map_clear(handle: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    return boundary.done(map.clear());
}

pub export fn shm_map_size(handle: u32) f64 {
    const map = handles.maps.get(handle) orelse return @floatFromInt(status.status(error.Closed));
    return long(map.size());
}

/// Gathers the values of `count` keys (`gather.getMany`). The bytes gathered.
pub export fn shm_map_get_many(handle: u32, keys: ?[*]const u8, keys_len: u32, count: u32) f64 {
    const map = handles.maps.get(handle) orelse return @floatFromInt(status.status(error.Closed));
    return long(gather.getMany(map, slice(keys, keys_len), count));
}

/// Stores `count` records (`gather.Record`). How many were stored; after an error the fault says.
pub export fn shm_map_put_many(
    handle: u32,
    entries: ?[*]const u8,
    entries_len: u32,
    count: u32,
) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    var stored: u32 = 0;
    gather.putMany(map, slice(entries, entries_len), count, &stored) catch |err| {
        map.fault.stored_count = @floatFromInt(stored);
        return status.status(err);
    };
    return @intCast(stored);
}

/// Gathers the records of one stripe; `flags` may say keysOnly. The bytes gathered.
pub export fn shm_map_gather(handle: u32, stripe: u32, flags: u32) f64 {
    const map = handles.maps.get(handle) orelse return @floatFromInt(status.status(error.Closed));
    return long(gather.gatherStripe(map, stripe, Flags.keysOnly.in(flags)));
}

/// Gathers the records of the whole map as they were at one instant. The bytes gathered.
pub export fn shm_map_snapshot(handle: u32) f64 {
    const map = handles.maps.get(handle) orelse return @floatFromInt(status.status(error.Closed));
    return long(gather.snapshot(map));
}

/// Copies gathered bytes from `offset` on. How many.
pub export fn shm_map_gathered(handle: u32, offset: f64, target: ?[*]u8, target_len: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const from = boundary.wholeOf(offset) catch |err| return status.status(err);
    return @intCast(gather.takeGathered(map, from, mutable(target, target_len)));
}

/// `inspect.Verdict`, after repairing what can be if `repair` is 1.
pub export fn shm_map_verify(handle: u32, repair: u32, target: ?[*]u8, target_len: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const verdict = (if (repair == 0) inspect.verify(map) else inspect.repair(map)) catch |err|
        return status.status(err);
    return answer(std.mem.asBytes(&verdict), target, target_len);
}

/// As `shm_map_get_version` for the value of a value's segment; `unchanged` if its version is still
/// `version` (0: none is known).
pub export fn shm_value_get(handle: u32, version: f64, target: ?[*]u8, target_len: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    if (version > 0 and shm_value_version(handle) == version)
        return @intFromEnum(status.Status.unchanged);
    return getVersion(map, value_key, mutable(target, target_len));
}

/// Stores the value. `TooLarge`: `maxBytes` of the segment is less. 1.
pub export fn shm_value_put(handle: u32, value: ?[*]const u8, value_len: u32, kind: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const max_bytes = map.segment.header().max_bytes;
    if (max_bytes != 0 and value_len > max_bytes) {
        map.fault.needed_bytes = @floatFromInt(value_len);
        map.fault.ceiling_bytes = @floatFromInt(max_bytes);
        return status.status(error.TooLarge);
    }
    return shm_map_put(handle, value_key, value_key.len, value, value_len, kind & 255);
}

/// The version of the value, 0 before it is first stored.
pub export fn shm_value_version(handle: u32) f64 {
    const map = handles.maps.get(handle) orelse return long(error.Closed);
    const value = map.describe(value_key) catch |err| return long(err);
    return long(if (value) |found| found.version else 0);
}

/// Takes the user's lock of a segment or a region, waiting for it. 0, or 1: its last holder died
/// holding it. `shared` is for regions.
pub export fn shm_lock_acquire(handle: u32, shared: u32, timeout_ms: f64) i32 {
    const lock = boundary.lockToTake(handle) catch |err| return status.status(err);
    if (!(timeout_ms >= 0)) return status.status(error.InvalidArgument);
    const recovered = lock.acquire(shared == 1, timeout_ms) catch |err| return status.status(err);
    return @intFromBool(recovered);
}

/// As `shm_lock_acquire`, in one attempt; `absent`: somebody has it, or goes first. A caller that
/// has waited for 10 ms in all may become first in line, until it has the lock or
/// `shm_lock_cancel`.
pub export fn shm_lock_try(handle: u32, shared: u32, waited_ms: f64) i32 {
    const lock = boundary.lockToTake(handle) catch |err| return status.status(err);
    if (!(waited_ms >= 0)) return status.status(error.InvalidArgument);
    const waited_ns: u64 = @intFromFloat(@min(waited_ms, 1000) * std.time.ns_per_ms);
    const got = lock.attempt(shared == 1, waited_ns, 0) catch |err| switch (err) {
        error.Timeout => null, // a write that had begun did not end
        else => return status.status(err),
    };
    const recovered = got orelse {
        lock.noteHolder();
        return @intFromEnum(status.Status.absent);
    };
    return @intFromBool(recovered);
}

/// Where a waiting task can sleep if the next `shm_lock_try` fails: two `f64`, a number for
/// `shm_bell_wait` and what the bell reads now. Their length; 0: there is no bell.
pub export fn shm_lock_bell(handle: u32, target: ?[*]u8, target_len: u32) i32 {
    const lock = boundary.lockOf(handle) catch |err| return status.status(err);
    const found = lock.bellToHear() orelse return 0;
    const numbers: [2]f64 = .{ @floatFromInt(@intFromPtr(found.bell)), @floatFromInt(found.count) };
    return answer(std.mem.asBytes(&numbers), target, target_len);
}

/// Sleeps until a bell rings, at most `ms`, unless it has rung since it read `count`. Only the
/// kernel looks where `bell` says, so a handle may be closed meanwhile: the sleep then ends, at
/// once or in its time. To be called off the isolate's thread.
pub export fn shm_bell_wait(bell: f64, count: u32, ms: f64) i32 {
    if (!(bell >= os.page_bytes and bell < 1 << 53 and ms >= 0 and ms <= 1000))
        return status.status(error.InvalidArgument);
    if (!os.has_shared_bells) return status.status(error.Unsupported);
    const address = @as(usize, @intFromFloat(bell)) & ~@as(usize, 7);
    os.sleepOn(@ptrFromInt(address), count, @intFromFloat(ms * std.time.ns_per_ms));
    return 0;
}

/// The caller of `shm_lock_try` gives up.
pub export fn shm_lock_cancel(handle: u32) i32 {
    const lock = boundary.lockOf(handle) catch |err| return status.status(err);
    lock.cancel();
    return 0;
}

/// Gives the lock back; nothing if it is not held. `keep` 1: the next holder is told once more what
/// this one was told of the one before.
pub export fn shm_lock_release(handle: u32, keep: u32) i32 {
    const lock = boundary.lockOf(handle) catch |err| return status.status(err);
    lock.release(keep == 1);
    return 0;
}

/// 1: somebody holds the lock, this handle or another.
pub export fn shm_lock_held(handle: u32) i32 {
    const lock = boundary.lockOf(handle) catch |err| return status.status(err);
    const held = lock.isHeld() catch |err| return status.status(err);
    return @intFromBool(held);
}

/// 16 bytes that are the same for all handles whose locks exclude each other.
pub export fn shm_lock_identity(handle: u32, target: ?[*]u8, target_len: u32) i32 {
    const lock = boundary.lockOf(handle) catch |err| return status.status(err);
    const stat = os.stat(lock.target.fault, lock.target.locks) catch |err|
        return status.status(err);
    return answer(std.mem.asBytes(&[2]u64{ stat.device, stat.inode }), target, target_len);
}

/// The numbers of a handle's last failure; reading clears them.
pub export fn shm_fault(handle: u32, target: ?[*]u8) i32 {
    const fault = boundary.faultOf(handle) orelse return status.status(error.Closed);
    const bytes = target orelse return status.status(error.InvalidArgument);
    @memcpy(bytes[0..@sizeOf(Fault)], std.mem.asBytes(fault));
    fault.* = .{};
    return 0;
}

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
    const Opening = struct {
        path: []const u8,
        descriptor: ?u32,
        length: u64,
        access: regions.Access,

        pub fn run(opening: @This(), region: *Region) Error!void {
            const number = opening.descriptor orelse
                return region.openPath(opening.path, opening.length, opening.access);
            const fd = std.math.cast(os.Fd, number) orelse return error.InvalidArgument;
            return region.openDescriptor(fd, opening.length, opening.access);
        }
    };
    return boundary.openedRegion(Opening{
        .path = slice(path, path_len),
        .descriptor = if (Flags.regionDescriptor.in(flags)) descriptor else null,
        .length = boundary.wholeOf(length) catch |err| return status.status(err),
        .access = .{
            .read = Flags.regionRead.in(flags),
            .write = Flags.regionWrite.in(flags),
            .private = Flags.regionPrivate.in(flags),
        },
    }, fault);
}

/// A new region in memory, without a name. A handle.
pub export fn shm_region_anonymous(length: f64, fault: ?[*]u8) i32 {
    const Opening = struct {
        length: u64,

        pub fn run(opening: @This(), region: *Region) Error!void {
            return region.anonymous(opening.length);
        }
    };
    const bytes = boundary.wholeOf(length) catch |err| return status.status(err);
    return boundary.openedRegion(Opening{ .length = bytes }, fault);
}

/// Attaches to the region a token names. A handle.
pub export fn shm_region_attach(token: ?[*]const u8, token_len: u32, fault: ?[*]u8) i32 {
    const Opening = struct {
        token: []const u8,

        pub fn run(opening: @This(), region: *Region) Error!void {
            return region.attach(opening.token);
        }
    };
    return boundary.openedRegion(Opening{ .token = slice(token, token_len) }, fault);
}

pub export fn shm_region_close(handle: u32) i32 {
    const region = handles.regions.remove(handle) orelse return status.status(error.Closed);
    region.close();
    handles.regions.discard(region);
    return 0;
}

pub export fn shm_region_length(handle: u32) f64 {
    const region = handles.regions.get(handle) orelse return long(error.Closed);
    return long(region.length);
}

/// The library's own descriptor of the file.
pub export fn shm_region_descriptor(handle: u32) i32 {
    const region = handles.regions.get(handle) orelse return status.status(error.Closed);
    return region.file;
}

/// The token of an anonymous region; `Unsupported` over a user's file.
pub export fn shm_region_token(handle: u32, target: ?[*]u8, target_len: u32) i32 {
    const region = handles.regions.get(handle) orelse return status.status(error.Closed);
    const len = region.token(mutable(target, target_len)) catch |err| return status.status(err);
    return @intCast(len);
}

/// Copies bytes from `offset` on. How many; fewer where the file was cut short.
pub export fn shm_region_read(handle: u32, offset: f64, target: ?[*]u8, target_len: u32) f64 {
    const region = handles.regions.get(handle) orelse return long(error.Closed);
    const from = boundary.wholeOf(offset) catch |err| return long(err);
    return long(region.read(from, mutable(target, target_len)));
}

/// Stores bytes from `offset` on. How many; fewer where the file was cut short.
pub export fn shm_region_write(handle: u32, offset: f64, bytes: ?[*]const u8, len: u32) f64 {
    const region = handles.regions.get(handle) orelse return long(error.Closed);
    const from = boundary.wholeOf(offset) catch |err| return long(err);
    return long(region.write(from, slice(bytes, len)));
}

/// Waits until the file holds what was written.
pub export fn shm_region_flush(handle: u32) i32 {
    const region = handles.regions.get(handle) orelse return status.status(error.Closed);
    return boundary.done(region.flush());
}

/// A hash of every symbol's name and type, of every status, reason and flag.
fn fingerprint() u32 {
    @setEvalBranchQuota(200_000);
    var hash = std.hash.Fnv1a_32.init();
    for (@typeInfo(@This()).@"struct".decls) |symbol| {
        hash.update(symbol.name);
        if (@typeInfo(@TypeOf(@field(@This(), symbol.name))) == .@"fn")
            hash.update(@typeName(@TypeOf(@field(@This(), symbol.name))));
    }
    for (.{ status.Status, status.Reason, Flags }) |Numbers| {
        for (@typeInfo(Numbers).@"enum".fields) |field|
            hash.update(std.fmt.comptimePrint("{s}={d}", .{ field.name, field.value }));
    }
    return hash.final();
}
