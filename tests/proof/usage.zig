//! What a program does with a segment, through the functions it would call, in any state of the
//! segment is in; and the bounds that no store of the library may leave meanwhile.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const Flags = shmap.marshal.Flags;
const images = @import("images.zig");

const boundary = shmap.marshal;
const atomics = shmap.atomics;
const handles = shmap.handles;
const layout = shmap.layout;
const Map = shmap.map.Map;

/// Ends the process at the first store that leads outside what is mapped and allocated.
pub const Bounds = struct {
    observer: atomics.Observer = .{ .seen = look, .emptied = lookAtPages },
    maps: [4]?*Map = @splat(null),
    /// Whether names are being changed: then a state word is stored through a mapping of its own.
    naming: bool = false,

    pub fn add(bounds: *Bounds, map: *Map) void {
        for (&bounds.maps) |*place| {
            if (place.* != null) continue;
            place.* = map;
            return;
        }
        unreachable; // no case opens as many
    }

    pub fn remove(bounds: *Bounds, map: *Map) void {
        for (&bounds.maps) |*place| if (place.* == map) {
            place.* = null;
        };
    }

    /// Pages that lose their blocks, or are cut off: then they lie behind `committed` already.
    fn lookAtPages(observer: *atomics.Observer, words: [*]const u64, count: usize) void {
        const bounds: *Bounds = @fieldParentPtr("observer", observer);
        const at = @intFromPtr(words);
        for (bounds.maps) |found| {
            const segment = &(found orelse continue).segment;
            const offset = segment.mappings.offsetOf(at) orelse continue;
            const last = segment.mappings.offsetOf(at + 8 * (count - 1)) orelse continue;
            if (offset >= segment.view.data_start and last == offset + 8 * (count - 1)) return;
        }
        std.debug.print("pages emptied outside the segment: {d} words at {x}\n", .{ count, at });
        std.process.abort();
    }

    fn look(observer: *atomics.Observer, word: *const u64, value: u64) void {
        const bounds: *Bounds = @fieldParentPtr("observer", observer);
        const at = @intFromPtr(word);
        for (bounds.maps) |found| {
            const segment = &(found orelse continue).segment;
            const offset = segment.mappings.offsetOf(at) orelse continue;
            if (offset + 8 <= segment.view.committed and at % 8 == 0) return;
        }
        const is_state = at % layout.page_bytes == @offsetOf(layout.Header, "state");
        if (bounds.naming and is_state and value >= 1 and value <= 4) return;
        std.debug.print("a store outside the segment: {x} at {x}\n", .{ value, at });
        std.process.abort();
    }
};

pub const Opening = struct {
    mode: shmap.directory.Mode = .attach,
    kind: layout.Kind = .map,
    readonly: bool = false,
    /// Stated for a segment that is made.
    max_bytes: u64 = 0,
    stripe_bits: ?u6 = null,

    pub fn options(opening: *const Opening) shmap.segment.Options {
        return .{
            .recover = shmap.attach.recoverSegment,
            .kind = opening.kind,
            .readonly = opening.readonly,
            .max_bytes = opening.max_bytes,
            .stripe_bits = opening.stripe_bits,
            .timeout_ms = 300,
        };
    }
};

/// Opens `name` in a directory, as `boundary.opened` does. A handle.
pub fn open(
    bounds: *Bounds,
    directory: *const shmap.os.Path,
    name: []const u8,
    opening: Opening,
) shmap.status.Error!u32 {
    var fault: shmap.status.Fault = .{};
    const options = opening.options();
    const map = try shmap.testing.support.prepared(&fault, &options);
    bounds.add(map);
    errdefer {
        bounds.remove(map);
        calls.discard(map);
    }
    map.segment.directory = directory.*;
    try shmap.directory.setName(&map.segment, name);
    bounds.naming = true;
    defer bounds.naming = false;
    try shmap.directory.open(&map.segment, opening.mode, &options);
    map.begin();
    return handles.maps.add(map, 0) orelse error.System;
}

/// Opens what a token names. A handle.
pub fn openToken(bounds: *Bounds, token: []const u8, opening: Opening) shmap.status.Error!u32 {
    var fault: shmap.status.Fault = .{};
    var options = opening.options();
    const map = try shmap.testing.support.prepared(&fault, &options);
    bounds.add(map);
    errdefer {
        bounds.remove(map);
        calls.discard(map);
    }
    try shmap.directory.attachToken(&map.segment, token, &options);
    map.begin();
    return handles.maps.add(map, 0) orelse error.System;
}

pub fn mapOf(handle: u32) *Map {
    return handles.maps.get(handle).?;
}

pub fn close(bounds: *Bounds, handle: u32) void {
    const map = mapOf(handle);
    _ = calls.call(.shm_segment_close, .{handle});
    bounds.remove(map);
}

const Verdict = shmap.verify.Verdict;

/// What a check of every invariant says, or a repair and such a check. Null: an error.
pub fn verify(handle: u32, repair: bool) ?Verdict {
    var verdict: Verdict = .{};
    const bytes = std.mem.asBytes(&verdict);
    const result = calls.call(.shm_map_verify, .{ handle, @intFromBool(repair), bytes, bytes.len });
    return if (result >= 0 and verdict.busy == 0) verdict else null;
}

var room: [64 << 10]u8 = undefined;
const filler: [8000]u8 = @splat('f');

/// Calls one function of many, with the keys that `image` had and others.
pub fn act(handle: u32, image: *const images.Image, random: std.Random) void {
    var buffer: [16]u8 = undefined;
    const key = keyFor(image, random, &buffer);
    const len: u32 = @intCast(key.len);
    const kind: u32 = 3;
    switch (random.uintLessThan(u8, 42)) {
        0...5 => _ = calls.call(.shm_map_get, .{ handle, key.ptr, len, &room, room.len }),
        6 => _ = calls.call(.shm_map_get_version, .{ handle, key.ptr, len, &room, room.len }),
        7 => _ = calls.call(.shm_map_get_entry, .{ handle, key.ptr, len, &room, room.len }),
        8...13 => _ = calls.call(.shm_map_put, .{
            handle,
            key.ptr,
            len,
            &filler,
            lengthFor(random),
            kind,
        }),
        14 => _ = calls.call(.shm_map_put, .{ handle, key.ptr, len, &filler, 20, kind | 256 }),
        15 => putVersion(handle, key),
        16...20 => _ = calls.call(.shm_map_delete, .{ handle, key.ptr, len }),
        21 => _ = calls.call(.shm_map_size, .{handle}),
        22 => gatherAll(handle, image, random.boolean(), prefixOf(key, random)),
        23 => takeGathered(handle, calls.call(.shm_map_snapshot, .{handle})),
        24 => getMany(handle, image),
        25 => putMany(handle),
        26 => _ = calls.call(.shm_segment_stats, .{ handle, &room, room.len }),
        27 => lock(handle, key),
        28 => _ = calls.call(.shm_lock_held, .{handle}),
        29 => _ = calls.call(.shm_segment_token, .{ handle, &room, room.len }),
        30 => _ = calls.call(.shm_map_put, .{ handle, key.ptr, len, &filler, filler.len, kind }),
        31 => scanAll(handle, prefixOf(key, random), random),
        32 => _ = calls.call(.shm_map_take, .{ handle, key.ptr, len, &room, lengthFor(random) }),
        33 => _ = calls.call(.shm_map_swap, .{
            handle, key.ptr, len, &filler, lengthFor(random), kind, 0, &room, lengthFor(random),
        }),
        34 => replaceOrDelete(handle, key, random),
        35 => _ = calls.call(.shm_map_increment, .{
            handle, key.ptr, len, 1, 0, 0, &room, room.len,
        }),
        36 => _ = calls.call(.shm_map_increment_big, .{
            handle, key.ptr, len, &filler, 16, 8, 7 | 7 << 8, 0, &room, room.len,
        }),
        37 => _ = calls.call(.shm_map_put_until, .{
            handle, key.ptr, len, &filler, lengthFor(random), kind, endFor(random),
        }),
        38 => _ = calls.call(.shm_map_touch, .{ handle, key.ptr, len, endFor(random) }),
        39 => _ = calls.call(.shm_map_prune, .{handle}),
        40 => _ = calls.call(.shm_map_sweep, .{handle}),
        else => switch (random.uintLessThan(u8, 9)) {
            8 => _ = calls.call(.shm_map_clear_prefix, .{ handle, key.ptr, @min(len, 2) }),
            0 => _ = calls.call(.shm_map_clear, .{handle}),
            1, 2 => _ = verify(handle, false),
            3 => _ = verify(handle, true),
            4 => _ = calls.call(.shm_map_compact, .{handle}),
            else => _ = calls.call(.shm_map_has, .{ handle, key.ptr, len }),
        },
    }
}

/// Stores small values under keys that no image has.
pub fn putNew(handle: u32, count: u32) void {
    var buffer: [16]u8 = undefined;
    for (0..count) |n| {
        const key = std.fmt.bufPrint(&buffer, "more{d}", .{n}) catch unreachable; // it fits
        _ = calls.call(.shm_map_put, .{ handle, key.ptr, calls.word(key.len), &filler, 8, 1 });
    }
}

fn keyFor(image: *const images.Image, random: std.Random, buffer: *[16]u8) []const u8 {
    if (image.entries.len > 0 and random.uintLessThan(u8, 4) > 0)
        return image.entries[random.uintLessThan(usize, image.entries.len)].key;
    const n = random.uintLessThan(u32, 40);
    return std.fmt.bufPrint(buffer, "new{d}", .{n}) catch unreachable; // it fits
}

fn lengthFor(random: std.Random) u32 {
    return switch (random.uintLessThan(u8, 8)) {
        0 => random.uintLessThan(u32, filler.len),
        1, 2 => random.uintLessThan(u32, 1000),
        else => random.uintLessThan(u32, 60),
    };
}

/// Never, long ago, or in a few milliseconds.
fn endFor(random: std.Random) f64 {
    const now: f64 = @floatFromInt(shmap.os.endClockMs());
    return switch (random.uintLessThan(u8, 4)) {
        0 => 0,
        1 => 1,
        else => now + @as(f64, @floatFromInt(random.uintLessThan(u8, 20))),
    };
}

fn putVersion(handle: u32, key: []const u8) void {
    const len: u32 = @intCast(key.len);
    const got = calls.call(.shm_map_get_version, .{ handle, key.ptr, len, &room, room.len });
    if (got < 0 or @as(usize, @intCast(got)) + 9 > room.len) return;
    const version: f64 = @bitCast(room[@as(usize, @intCast(got)) + 1 ..][0..8].*);
    _ = calls.call(.shm_map_put_version, .{ handle, key.ptr, len, &filler, 33, 1, version, 0 });
}

fn prefixOf(key: []const u8, random: std.Random) []const u8 {
    return key[0..random.uintAtMost(usize, @min(key.len, 3))];
}

fn scanAll(handle: u32, prefix: []const u8, random: std.Random) void {
    var cursor: shmap.scan.Cursor = .{ .hash = if (random.boolean()) 0 else random.int(u64) };
    const limit = 1 + random.uintLessThan(u32, 40);
    const bytes = std.mem.asBytes(&cursor);
    for (0..100) |_| {
        takeGathered(handle, calls.call(.shm_map_scan, .{
            handle, prefix.ptr, calls.word(prefix.len), limit, bytes, bytes.len,
        }));
        if (cursor.more == 0) return;
    }
}

fn replaceOrDelete(handle: u32, key: []const u8, random: std.Random) void {
    const len: u32 = @intCast(key.len);
    const version: f64 = @floatFromInt(random.uintLessThan(u32, 100));
    const any: f64 = if (random.boolean()) -1 else version;
    if (random.boolean()) {
        _ = calls.call(.shm_map_replace, .{
            handle, key.ptr, len, &filler, lengthFor(random), 3, any, 0,
        });
    } else _ = calls.call(.shm_map_delete_version, .{ handle, key.ptr, len, version });
}

fn gatherAll(handle: u32, image: *const images.Image, keys_only: bool, prefix: []const u8) void {
    const flags: u32 = if (keys_only) @intFromEnum(Flags.keysOnly) else 0;
    for (0..image.stripes()) |i|
        takeGathered(handle, calls.call(.shm_map_gather, .{
            handle, calls.word(i), prefix.ptr, calls.word(prefix.len), flags,
        }));
}

/// Reads all of what was gathered, as the other side of the boundary does.
fn takeGathered(handle: u32, bytes: f64) void {
    if (bytes < 0) return;
    var at: f64 = 0;
    while (at < bytes) : (at += room.len) {
        if (calls.call(.shm_map_gathered, .{ handle, at, &room, room.len }) <= 0) return;
    }
}

fn getMany(handle: u32, image: *const images.Image) void {
    var keys: [2000]u8 = undefined;
    var at: u32 = 0;
    var count: u32 = 0;
    for (image.entries) |entry| {
        if (at + 4 + entry.key.len > keys.len) break;
        std.mem.writeInt(u32, keys[at..][0..4], @intCast(entry.key.len), .little);
        @memcpy(keys[at + 4 ..][0..entry.key.len], entry.key);
        at += @intCast(4 + entry.key.len);
        count += 1;
    }
    _ = calls.call(.shm_map_get_batch, .{ handle, &keys, at, count, &room, calls.word(room.len) });
    _ = calls.call(.shm_map_has_many, .{ handle, &keys, at, count, &room, calls.word(room.len) });
    if (image.entries.len == 0) return;
    const key = image.entries[0].key;
    _ = calls.call(.shm_map_get_into, .{
        handle, key.ptr, calls.word(key.len), std.math.maxInt(u32), &room, calls.word(room.len),
    });
    for ([_]f64{ 0, 1 }) |version| _ = calls.call(.shm_map_get_unless, .{
        handle, key.ptr, calls.word(key.len), version, &room, calls.word(room.len),
    });
}

fn putMany(handle: u32) void {
    const Record = extern struct { head: shmap.gathered.Record, body: [16]u8 };
    var records: [6]Record = undefined;
    for (&records, 0..) |*record, n| record.* = .{
        .head = .{ .key_len = 5, .value_len = 9, .kind = 1 },
        .body = .{ 'm', 'a', 'n', 'y', '0' + @as(u8, @intCast(n)) } ++ @as([11]u8, @splat(0)),
    };
    _ = calls.call(.shm_map_put_many, .{
        handle,
        std.mem.asBytes(&records),
        @sizeOf(@TypeOf(records)),
        6,
        0,
    });
}

fn lock(handle: u32, key: []const u8) void {
    if (calls.call(.shm_lock_acquire, .{ handle, 0, 300 }) < 0) return;
    _ = calls.call(.shm_map_put, .{ handle, key.ptr, calls.word(key.len), &filler, 10, 1 });
    _ = calls.call(.shm_lock_release, .{ handle, 0 });
    if (calls.call(.shm_lock_try, .{
        handle,
        0,
        0,
    }) >= 0) _ = calls.call(.shm_lock_release, .{ handle, 1 });
}

/// Whether every entry can be had again by its key, and nothing more is counted than there is.
/// Assumes a segment that was found sound.
pub fn isWhole(handle: u32) bool {
    const bytes = calls.call(.shm_map_snapshot, .{handle});
    // A damaged state word may say so: then no call reaches the entries, which is no wrong answer.
    if (bytes == @intFromEnum(shmap.status.Status.replaced)) return true;
    if (bytes < 0) return false;
    const map = mapOf(handle);
    var at: usize = 0;
    var count: f64 = 0;
    while (at < map.gathered_len) : (count += 1) {
        const head = std.mem.bytesToValue(shmap.gathered.Record, map.gathered[at..][0..16]);
        const body = map.gathered[at + 16 ..][0 .. @as(u64, head.key_len) + head.value_len];
        const got = calls.call(.shm_map_get, .{ handle, body.ptr, head.key_len, &room, room.len });
        const next = at + 16 + std.mem.alignForward(u64, body.len, 8);
        if (got == @intFromEnum(shmap.status.Status.absent) and hasEnded(head.expires)) {
            at = next; // between the two looks
            continue;
        }
        if (got != head.value_len) return false;
        const read = room[0..@min(room.len, head.value_len)];
        const whole = head.value_len < room.len;
        if (whole and !std.mem.eql(u8, read, body[head.key_len..])) return false;
        at = next;
    }
    const size = calls.call(.shm_map_size, .{handle});
    return size == count or (size > count and hasEnds(map));
}

fn hasEnded(expires: f64) bool {
    return expires != 0 and expires <= @as(f64, @floatFromInt(shmap.os.endClockMs()));
}

/// Whether entries may have ended, as damage can make one: these are counted until they are
/// removed.
fn hasEnds(map: *Map) bool {
    for (0..map.segment.view.stripeCount()) |i| {
        if (map.segment.view.stripe(@intCast(i)).expiring != 0) return true;
    }
    return false;
}
