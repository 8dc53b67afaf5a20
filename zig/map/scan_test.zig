//! Tests of pages of keys: each key that stays is in exactly one, also if tables grow and other
//! keys come and go between two of them.

const std = @import("std");
const calls = @import("../testing/calls.zig");
const gathered = @import("gathered.zig");
const hash = @import("../stripe/hash.zig");
const scan = @import("scan.zig");
const support = @import("../testing/support.zig");
const Map = @import("map.zig").Map;

const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const gpa = std.testing.allocator;

/// How often each key was met in pages.
const Seen = struct {
    counts: std.StringHashMapUnmanaged(u32) = .empty,

    fn free(seen: *Seen) void {
        var keys = seen.counts.keyIterator();
        while (keys.next()) |key| gpa.free(key.*);
        seen.counts.deinit(gpa);
    }

    /// The keys of a page, which are no more than `limit`.
    fn page(seen: *Seen, map: *Map, bytes: u64, limit: u32) !void {
        const records = try gpa.alignedAlloc(u8, .@"8", bytes);
        defer gpa.free(records);
        try expectEqual(bytes, calls.takeGathered(map, 0, records));
        var at: usize = 0;
        var count: u32 = 0;
        while (at < bytes) : (at += gathered.recordBytes(records, at)) {
            try seen.add(gathered.keyOf(records, at));
            count += 1;
        }
        try expect(count <= limit);
    }

    fn add(seen: *Seen, key: []const u8) !void {
        const place = try seen.counts.getOrPut(gpa, key);
        if (place.found_existing) {
            place.value_ptr.* += 1;
            return;
        }
        place.key_ptr.* = try gpa.dupe(u8, key);
        place.value_ptr.* = 1;
    }

    fn of(seen: *const Seen, key: []const u8) u32 {
        return seen.counts.get(key) orelse 0;
    }
};

/// More than any walk here takes.
const pages_max = 10_000;

/// The pages from a cursor on.
fn follow(seen: *Seen, map: *Map, prefix: []const u8, cursor: *scan.Cursor, limit: u32) !void {
    for (0..pages_max) |_| {
        try seen.page(map, try calls.scan(map, prefix, cursor, limit), limit);
        if (cursor.more == 0) return;
    }
    return error.NoEnd;
}

fn name(buffer: []u8, comptime format: []const u8, i: usize) []const u8 {
    return std.fmt.bufPrint(buffer, format, .{i}) catch unreachable; // it fits
}

test "pages of any size have every key once, and those of a prefix no other" {
    for ([_]u6{ 0, 3 }) |bits| {
        const map = try support.openMap(bits, 64 << 20);
        defer support.closeMap(map);
        var buffer: [24]u8 = undefined;
        for (0..3000) |i| _ = try calls.put(map, name(&buffer, "key {d}", i), "v", 3, .none);
        for (0..50) |i| _ = try calls.put(map, name(&buffer, "other {d}", i), "v", 3, .none);
        for ([_]u32{ 1, 7, 1000, 3050, 5000 }) |limit| {
            for ([_][]const u8{ "", "other ", "none" }, [_]u32{ 3050, 50, 0 }) |prefix, count| {
                var seen: Seen = .{};
                defer seen.free();
                var cursor: scan.Cursor = .{};
                var pages: u32 = 0;
                while (pages < pages_max) {
                    const bytes = try calls.scan(map, prefix, &cursor, limit);
                    try seen.page(map, bytes, limit);
                    pages += 1;
                    if (cursor.more == 0) break;
                }
                try expectEqual(count, seen.counts.count());
                // Pages are full, and the last one is not empty.
                try expectEqual(@max(1, (count + limit - 1) / limit), pages);
                var keys = seen.counts.iterator();
                while (keys.next()) |key| {
                    try expectEqual(@as(u32, 1), key.value_ptr.*);
                    try expect(std.mem.startsWith(u8, key.key_ptr.*, prefix));
                }
            }
        }
        var cursor: scan.Cursor = .{};
        try std.testing.expectError(error.InvalidArgument, calls.scan(map, "", &cursor, 0));
        // Any place is one, also that of no key.
        for ([_]u64{ 1, 1 << 40, std.math.maxInt(u64) }) |place| {
            cursor = .{ .hash = place, .tie = place };
            _ = try calls.scan(map, "", &cursor, 10);
        }
    }
}

test "a table that grows and shrinks between pages loses no key and repeats none" {
    const map = try support.openMap(1, 64 << 20);
    defer support.closeMap(map);
    const reader = try support.openReader(map, 10_000);
    defer support.closeMap(reader);
    var buffer: [24]u8 = undefined;
    for (0..500) |i| _ = try calls.put(map, name(&buffer, "stays {d}", i), "v", 3, .none);
    for ([_]u32{ 1, 3, 40 }) |limit| {
        var seen: Seen = .{};
        defer seen.free();
        var cursor: scan.Cursor = .{};
        var page: u32 = 0;
        while (true) : (page += 1) {
            // Another handle goes on each time, as another process would.
            const by = if (page % 2 == 0) map else reader;
            try seen.page(by, try calls.scan(by, "stays", &cursor, limit), limit);
            if (cursor.more == 0) break;
            if (page % 4 == 1) {
                for (0..3000) |i|
                    _ = try calls.put(map, name(&buffer, "more {d}", i), "v", 3, .none);
            }
            if (page % 4 == 3) {
                for (0..3000) |i| _ = try calls.delete(map, name(&buffer, "more {d}", i));
            }
            if (page > 40) break; // it takes long, and has changed often enough
        }
        if (cursor.more == 1) try follow(&seen, map, "stays", &cursor, limit);
        for (0..500) |i| try expectEqual(@as(u32, 1), seen.of(name(&buffer, "stays {d}", i)));
    }
}

test "SipHash between two pages changes nothing, and keys of one hash have their order" {
    for ([_]u32{ 1, 5, 64 }) |limit| {
        const map = try support.openMap(0, 64 << 20);
        defer support.closeMap(map);
        var buffer: [24]u8 = undefined;
        for (0..300) |i| _ = try calls.put(map, name(&buffer, "stays {d}", i), "v", 3, .none);
        var seen: Seen = .{};
        defer seen.free();
        var cursor: scan.Cursor = .{};
        for (0..100 / limit + 1) |_|
            try seen.page(map, try calls.scan(map, "", &cursor, limit), limit);
        try expect(cursor.more == 1);
        const before = (try calls.stats(map)).hardened_stripes;
        // So many keys of one and the same fast hash have the stripe hashed anew.
        for (0..40) |i| {
            const key = hash.collidingKey(&map.secrets, i + 1);
            _ = try calls.put(map, &key, "v", 3, .none);
        }
        try expect((try calls.stats(map)).hardened_stripes > before);
        try follow(&seen, map, "", &cursor, limit);
        for (0..300) |i| try expectEqual(@as(u32, 1), seen.of(name(&buffer, "stays {d}", i)));
        // From the start, with the colliding ones.
        var all: Seen = .{};
        defer all.free();
        cursor = .{};
        try follow(&all, map, "", &cursor, limit);
        try expectEqual(@as(u32, 340), all.counts.count());
        for (0..40) |i|
            try expectEqual(@as(u32, 1), all.of(&hash.collidingKey(&map.secrets, i + 1)));
        for (0..300) |i| try expectEqual(@as(u32, 1), all.of(name(&buffer, "stays {d}", i)));
    }
}

test "clearing a prefix removes its keys and no other" {
    const map = try support.openMap(2, 64 << 20);
    defer support.closeMap(map);
    var buffer: [24]u8 = undefined;
    for (0..2000) |i| {
        _ = try calls.put(map, name(&buffer, "user:{d}", i), "v", 3, .none);
        _ = try calls.put(map, name(&buffer, "u{d}", i), "v", 3, .none);
    }
    try calls.clearPrefix(map, "none");
    try expectEqual(@as(u64, 4000), try calls.size(map));
    try calls.clearPrefix(map, "user:");
    try expectEqual(@as(u64, 2000), try calls.size(map));
    for (0..2000) |i| try expect(try calls.has(map, name(&buffer, "u{d}", i)));
    try support.expectSound(map);
    try calls.clearPrefix(map, "");
    try expectEqual(@as(u64, 0), try calls.size(map));
    try support.expectSound(map);
}
