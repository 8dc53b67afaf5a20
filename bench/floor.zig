//! A library without an engine, for `bench/map.ts`: what the product's own JavaScript costs over
//! it is the floor under every call of the real one. `get` checks its lengths and copies 32
//! constant bytes, `put` checks them and copies the value away.
//!
//! Names and fingerprint come from `src/ffi/abi.ts`, imported here as "table", so that TypeScript
//! takes this library for the real one; what is not needed to open a map and to close it fails
//! when called.

const std = @import("std");

const table = @embedFile("table");

const handle_only: u32 = 1;
/// The numbers of `src/ffi/abi.ts`; negative results are statuses.
const failed: i32 = std.fmt.parseInt(i32, after("  closed: "), 10) catch unreachable;
const kind_ascii = 3;
const key_bytes_max = 65_535;

const value = "0123456789abcdefghijklmnopqrstuv";
var stored: [value.len]u8 = undefined;

export fn shm_fingerprint() u32 {
    return comptime std.fmt.parseInt(u32, after("fingerprint = 0x"), 16) catch unreachable;
}

export fn shm_segment_anonymous(
    _: ?[*]const u8,
    _: u32,
    _: u32,
    _: f64,
    _: f64,
    _: ?[*]u8,
) i32 {
    return handle_only;
}

export fn shm_segment_close(_: u32) i32 {
    return 0;
}

export fn shm_map_get(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    target: ?[*]u8,
    target_len: u32,
) i32 {
    if (handle != handle_only or !isKey(key, key_len)) return failed;
    const room = (target orelse return failed)[0..target_len];
    if (room.len <= value.len) return failed;
    room[0..value.len].* = value.*;
    room[value.len] = kind_ascii;
    return value.len;
}

export fn shm_map_put(
    handle: u32,
    key: ?[*]const u8,
    key_len: u32,
    bytes: ?[*]const u8,
    len: u32,
    _: u32,
) i32 {
    if (handle != handle_only or !isKey(key, key_len)) return failed;
    if (len != stored.len) return failed;
    stored = (bytes orelse return failed)[0..value.len].*;
    std.mem.doNotOptimizeAway(&stored); // nothing reads it
    return 1;
}

fn isKey(key: ?[*]const u8, key_len: u32) bool {
    return key != null and key_len != 0 and key_len <= key_bytes_max;
}

/// What every other name leads to.
fn absent() callconv(.c) i32 {
    return failed;
}

comptime {
    @setEvalBranchQuota(100_000);
    var lines = std.mem.tokenizeScalar(u8, table, '\n');
    while (lines.next()) |line| {
        if (!std.mem.startsWith(u8, line, "  shm_")) continue;
        const name = line[2..std.mem.indexOfScalar(u8, line, ':').?];
        if (!@hasDecl(@This(), name)) @export(&absent, .{ .name = name });
    }
}

/// The digits behind `word` in the table.
fn after(comptime word: []const u8) []const u8 {
    @setEvalBranchQuota(100_000);
    const start = std.mem.indexOf(u8, table, word).? + word.len;
    const end = std.mem.indexOfAnyPos(u8, table, start, ";,").?;
    return table[start..end];
}
