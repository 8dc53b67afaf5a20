//! Tests of batches: each key is answered as a single read answers it, with room for any number.

const std = @import("std");
const bulk = @import("bulk.zig");
const calls = @import("../testing/calls.zig");
const gathered = @import("gathered.zig");
const support = @import("../testing/support.zig");
const Map = @import("map.zig").Map;

const key_count = 3000;
const missing = std.math.maxInt(u32);

/// The value of key `i`; null: there is none.
fn valueOf(i: usize, room: []u8) ?[]u8 {
    if (i % 5 == 0) return null;
    const value = room[0 .. i * 37 % 300];
    @memset(value, @truncate(i));
    return value;
}

fn fill(map: *Map) !void {
    var room: [300]u8 = undefined;
    var name: [24]u8 = undefined;
    for (0..key_count) |i| {
        const value = valueOf(i, &room) orelse continue;
        const key = try std.fmt.bufPrint(&name, "key {d}", .{i});
        try std.testing.expect(try calls.put(map, key, value, @truncate(i % 200), .none));
    }
}

test "a batch answers as many keys as fit, each as a single read does" {
    const map = try support.openMap(4, 64 << 20);
    defer support.closeMap(map);
    try fill(map);
    var keys: [40 * key_count]u8 = undefined;
    var starts: [key_count + 1]usize = undefined;
    var end: usize = 0;
    for (0..key_count) |i| {
        starts[i] = end;
        const key = try std.fmt.bufPrint(keys[end + 4 ..], "key {d}", .{i});
        std.mem.writeInt(u32, keys[end..][0..4], @intCast(key.len), .little);
        end += 4 + key.len;
    }
    starts[key_count] = end;
    for ([_]usize{ 8, 9, 100, 308, 309, 340, 5000, 1 << 20 }) |target_len| {
        const target = try std.testing.allocator.alloc(u8, target_len);
        defer std.testing.allocator.free(target);
        var next: usize = 0;
        while (next < key_count) {
            const count: u32 = @intCast(key_count - next);
            const done = try calls.getBatch(map, keys[starts[next]..end], count, target);
            try std.testing.expect(done > 0 and done <= count);
            try expectAnswers(target, next, done);
            next += done;
        }
    }
}

fn expectAnswers(target: []const u8, first: usize, count: u64) !void {
    var room: [300]u8 = undefined;
    var at: usize = 0;
    for (first..first + count) |i| {
        const answer = std.mem.bytesToValue(bulk.Answer, target[at..][0..8]);
        at += 8;
        const value = valueOf(i, &room) orelse {
            try std.testing.expectEqual(@as(u32, missing), answer.value_len);
            continue;
        };
        try std.testing.expectEqual(@as(u32, @intCast(value.len)), answer.value_len);
        if (answer.kind == gathered.left_out) {
            try std.testing.expect(count == 1 and target.len < 8 + value.len);
            continue;
        }
        try std.testing.expectEqual(@as(u32, @intCast(i % 200)), answer.kind);
        try std.testing.expectEqualStrings(value, target[at..][0..value.len]);
        at += value.len;
    }
}

test "records are stored up to the first that is wrong" {
    const map = try support.openMap(0, 4 << 20);
    defer support.closeMap(map);
    const Pair = extern struct { head: gathered.Record, body: [8]u8 };
    var records: [100]Pair = undefined;
    for (&records) |*record| record.* = .{
        .head = .{ .key_len = 4, .value_len = 3, .kind = 7 },
        .body = "key_valu".*,
    };
    for (&records, 0..) |*record, i| record.body[3] = @truncate('!' + i);
    records[70].head.kind = 300;
    var stored: u32 = 0;
    const bytes = std.mem.asBytes(&records);
    try std.testing.expectError(error.InvalidArgument, calls.putMany(map, bytes, 100, &stored));
    try std.testing.expectEqual(@as(u32, 70), stored);
    try std.testing.expectEqual(@as(u64, 70), try calls.size(map));
}
