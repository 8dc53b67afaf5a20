//! Tests of the boundary: what crosses it may be anything.

const std = @import("std");
const abi = @import("../root.zig").abi;
const marshal = @import("marshal.zig");

test "the boundary takes nulls, empty and short buffers, and stale handles" {
    const expect = std.testing.expectEqual;
    var fault: [128]u8 = undefined;
    var target: [16]u8 = undefined;
    const handle: u32 = @intCast(abi.segment.shm_segment_anonymous("test", 4, 0, 0, 100, &fault));
    try expect(@as(i32, -17), abi.map.shm_map_get(handle, null, 0, null, 0));
    try expect(@as(i32, -1), abi.map.shm_map_get(handle, "k", 1, null, 0));
    try expect(@as(i32, 1), abi.map.shm_map_put(handle, "k", 1, null, 0, 5));
    try expect(@as(i32, 0), abi.map.shm_map_get(handle, "k", 1, null, 0));
    try expect(@as(i32, 0), abi.map.shm_map_get(handle, "k", 1, &target, 1));
    try expect(@as(u8, 5), target[0]);
    try expect(@as(i32, 1), abi.map.shm_map_put(handle, "k", 1, "sixteen bytes...", 16, 6));
    target[0] = 'x';
    // There is no room for the kind.
    try expect(@as(i32, 16), abi.map.shm_map_get(handle, "k", 1, &target, 16));
    try expect(@as(u8, 'x'), target[0]);
    try expect(@as(i32, 0), abi.map.shm_map_put(handle, "k", 1, "other", 5, 256 | 6));
    try expect(@as(i32, 0), abi.map.shm_map_put_version(handle, "k", 1, "other", 5, 6, 0));
    const nan = std.math.nan(f64);
    try expect(@as(i32, -17), abi.map.shm_map_put_version(handle, "k", 1, "other", 5, 6, nan));
    try expect(@as(i32, -17), abi.map.shm_map_put_many(handle, "short", 5, 1, 0));
    try expect(@as(f64, -17), abi.map.shm_map_get_many(handle, "\xff\xff\xff\xff", 4, 1));
    try expect(@as(f64, -17), abi.map.shm_map_gather(handle, 64, 0));
    try expect(@as(f64, 1), abi.map.shm_map_size(handle));
    try expect(@as(i32, 0), abi.segment.shm_segment_close(handle));
    try expect(@as(i32, -12), abi.segment.shm_segment_close(handle));
    try expect(@as(i32, -12), abi.map.shm_map_get(handle, "k", 1, &target, 16));
    try expect(@as(f64, -12), abi.map.shm_map_size(handle));
    const nonsense = abi.segment.shm_segment_attach("nonsense", 8, "test", 4, 0, 100, &fault);
    try expect(@as(i32, -17), nonsense);
    const open = abi.segment.shm_segment_open;
    const up = open(null, 0, "../up", 5, "test", 4, 0, 0o600, 0, 100, &fault);
    try expect(@as(i32, -17), up);
}

test "a versioned read gives what a versioned store asks for" {
    const expect = std.testing.expectEqual;
    var fault: [128]u8 = undefined;
    var target: [32]u8 = undefined;
    const handle: u32 = @intCast(abi.segment.shm_segment_anonymous("test", 4, 0, 0, 100, &fault));
    defer _ = abi.segment.shm_segment_close(handle);
    try expect(@as(i32, 1), abi.map.shm_map_put_version(handle, "k", 1, "one", 3, 6, 0));
    try expect(@as(i32, 3), abi.map.shm_map_get_version(handle, "k", 1, &target, 12));
    const version: f64 = @bitCast(target[4..12].*);
    try expect(@as(i32, 1), abi.map.shm_map_put_version(handle, "k", 1, "two", 3, 6, version));
    try expect(@as(i32, 0), abi.map.shm_map_put_version(handle, "k", 1, "three", 5, 6, version));
    try expect(@as(i32, 3), abi.map.shm_map_get(handle, "k", 1, &target, 32));
    try std.testing.expectEqualStrings("two", target[0..3]);
}

test "a map has no shared lock, for writers would not know of it" {
    const expect = std.testing.expectEqual;
    var fault: [128]u8 = undefined;
    var buffer: [200]u8 = undefined;
    const handle: u32 = @intCast(abi.segment.shm_segment_anonymous("test", 4, 0, 0, 100, &fault));
    defer _ = abi.segment.shm_segment_close(handle);
    const len: u32 = @intCast(abi.segment.shm_segment_token(handle, &buffer, buffer.len));
    const readonly = @intFromEnum(marshal.Flags.readonly);
    const reader = abi.segment.shm_segment_attach(&buffer, len, "test", 4, readonly, 100, &fault);
    for ([_]u32{ handle, @intCast(reader) }) |each| {
        try expect(@as(i32, -17), abi.lock.shm_lock_acquire(each, 1, 0));
        try expect(@as(i32, -17), abi.lock.shm_lock_try(each, 1, 0));
    }
    try expect(@as(i32, -13), abi.lock.shm_lock_acquire(@intCast(reader), 0, 0));
    try expect(@as(i32, 0), abi.segment.shm_segment_close(@intCast(reader)));
}
