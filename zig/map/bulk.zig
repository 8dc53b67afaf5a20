//! Many keys at one crossing, each read or stored by itself.

const std = @import("std");
const gathered = @import("gathered.zig");
const layout = @import("../layout.zig");
const read = @import("read.zig");
const status = @import("../status.zig");
const write = @import("write.zig");
const Map = @import("map.zig").Map;

const Error = status.Error;
const Record = gathered.Record;

/// What `getMany` answers for each key; the value follows, zero-padded to 8.
pub const Answer = extern struct {
    /// `missing`: there is none.
    value_len: u32,
    kind: u32,

    const missing = std.math.maxInt(u32);
};

/// Reads `count` keys, each `u32` length and bytes, and gathers an `Answer` for each. Returns the
/// gathered bytes.
pub fn getMany(map: *Map, keys: []const u8, count: u32) Error!u64 {
    map.gathered_len = 0;
    var patience: read.Patience = .{};
    var at: usize = 0;
    for (0..count) |_| {
        const key = try takeKey(keys, &at);
        try appendValue(map, key, &patience);
    }
    return map.gathered_len;
}

fn takeKey(keys: []const u8, at: *usize) Error![]const u8 {
    if (at.* + 4 > keys.len) return error.InvalidArgument;
    const len = std.mem.readInt(u32, keys[at.*..][0..4], .little);
    const from = at.* + 4;
    if (len == 0 or len > layout.key_bytes_max or from + len > keys.len)
        return error.InvalidArgument;
    at.* = from + len;
    return keys[from..at.*];
}

fn appendValue(map: *Map, key: []const u8, patience: *read.Patience) Error!void {
    const start = map.gathered_len;
    var guess: u64 = 256;
    while (true) {
        map.gathered_len = start;
        const room = try gathered.reserve(map, @sizeOf(Answer) + guess);
        const rest = room[@sizeOf(Answer)..];
        const meta = try read.getWithin(map, key, rest, 0, patience) orelse {
            const answer: Answer = .{ .value_len = Answer.missing, .kind = 0 };
            @memcpy(room[0..@sizeOf(Answer)], std.mem.asBytes(&answer));
            map.gathered_len = start + @sizeOf(Answer);
            return;
        };
        const padded = std.mem.alignForward(u64, meta.len, 8);
        if (padded > guess) {
            guess = padded;
            continue;
        }
        const answer: Answer = .{ .value_len = meta.len, .kind = meta.kind };
        @memcpy(room[0..@sizeOf(Answer)], std.mem.asBytes(&answer));
        @memset(rest[meta.len..padded], 0);
        map.gathered_len = start + @sizeOf(Answer) + padded;
        return;
    }
}

/// Stores `count` records one after the other, each a commit of its own; `stored` counts them,
/// also when one fails.
pub fn putMany(map: *Map, entries: []const u8, count: u32, stored: *u32) Error!void {
    stored.* = 0;
    var at: usize = 0;
    for (0..count) |_| {
        if (at + @sizeOf(Record) > entries.len) return error.InvalidArgument;
        const record = std.mem.bytesToValue(Record, entries[at..][0..@sizeOf(Record)]);
        const key_at = at + @sizeOf(Record);
        const body = @as(u64, record.key_len) + record.value_len;
        if (record.key_len == 0 or record.key_len > layout.key_bytes_max or
            key_at + body > entries.len or record.kind > 255) return error.InvalidArgument;
        const key = entries[key_at..][0..record.key_len];
        const value = entries[key_at + record.key_len ..][0..record.value_len];
        _ = try write.put(map, key, value, @intCast(record.kind), .none);
        stored.* += 1;
        at = @min(key_at + std.mem.alignForward(u64, body, 8), entries.len);
    }
}
