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
    try expect(@as(i32, 0), abi.map.shm_map_put_version(handle, "k", 1, "other", 5, 6, 0, 0));
    const nan = std.math.nan(f64);
    try expect(@as(i32, -17), abi.map.shm_map_put_version(handle, "k", 1, "other", 5, 6, nan, 0));
    try expect(@as(i32, -17), abi.map.shm_map_put_many(handle, "short", 5, 1, 0));
    const get_batch = abi.map.shm_map_get_batch;
    try expect(@as(i32, -17), get_batch(handle, "\xff\xff\xff\xff", 4, 1, &target, 16));
    try expect(@as(i32, -17), get_batch(handle, "\x01\x00\x00\x00k", 5, 1, &target, 7));
    // The length and `left_out`: the value does not fit.
    try expect(@as(i32, 1), get_batch(handle, "\x01\x00\x00\x00k", 5, 1, &target, 8));
    try expect([8]u8{ 16, 0, 0, 0, 0, 1, 0, 0 }, target[0..8].*);
    try expect(@as(i32, 0), get_batch(handle, null, 0, 0, &target, 8));
    const get_into = abi.map.shm_map_get_into;
    const whole: f64 = 6 * (1 << 32) + 16;
    target[0] = 'y';
    try expect(whole, get_into(handle, "k", 1, 1 << 5, &target, 16)); // another kind
    try expect(whole, get_into(handle, "k", 1, 1 << 6, &target, 15)); // no room
    try expect(@as(u8, 'y'), target[0]);
    try expect(whole, get_into(handle, "k", 1, 1 << 6, &target, 16));
    try expect("sixteen bytes...".*, target);
    try expect(@as(f64, -1), get_into(handle, "absent", 6, 1 << 6, &target, 16));
    const two = "\x01\x00\x00\x00k\x01\x00\x00\x00x";
    try expect(@as(i32, -17), abi.map.shm_map_has_many(handle, two, 10, 2, &target, 1));
    try expect(@as(i32, 0), abi.map.shm_map_has_many(handle, two, 10, 2, &target, 2));
    try expect([2]u8{ 1, 0 }, target[0..2].*);
    try expect(@as(i32, 1), abi.map.shm_map_put(handle, "x", 1, null, 0, 5));
    try expect(@as(i32, -17), abi.map.shm_map_delete_many(handle, two, 9, 2, &target, 2));
    try expect(@as(i32, 0), abi.map.shm_map_delete_many(handle, two[5..], 5, 1, &target, 1));
    try expect(@as(u8, 1), target[0]);
    try expect(@as(f64, -17), abi.map.shm_map_gather(handle, 64, null, 0, 0));
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
    try expect(@as(i32, 1), abi.map.shm_map_put_version(handle, "k", 1, "one", 3, 6, 0, 0));
    try expect(@as(i32, 3), abi.map.shm_map_get_version(handle, "k", 1, &target, 12));
    const version: f64 = @bitCast(target[4..12].*);
    const get_unless = abi.map.shm_map_get_unless;
    try expect(@as(i32, -18), get_unless(handle, "k", 1, version, &target, 32));
    try expect(@as(i32, 3), get_unless(handle, "k", 1, version + 1, &target, 32));
    try expect(@as(i32, 3), get_unless(handle, "k", 1, 0, &target, 32));
    try expect(@as(i32, -1), get_unless(handle, "absent", 6, version, &target, 32));
    try expect(@as(i32, 1), abi.map.shm_map_put_version(handle, "k", 1, "two", 3, 6, version, 0));
    try expect(@as(i32, 0), abi.map.shm_map_put_version(handle, "k", 1, "three", 5, 6, version, 0));
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
