//! One process that fills a map until nothing more fits, goes on at the limit, and drains it again,
//! while it remembers what it was told is stored.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const world = @import("../act/world.zig");

const no_space = @intFromEnum(shmap.status.Status.noSpace);

/// How large values are.
pub const Profile = enum { small, middling, large };

/// What one round is to do, and what came of it. In memory that both sides see.
pub const Round = extern struct {
    seed: u64 = 0,
    profile: u8 = 0,
    /// Which half of the keys is this process's own.
    side: u8 = 0,
    clears: bool = false,
    /// The bytes of keys and values that were stored when nothing more fitted.
    stored_bytes: u64 = 0,
    stored: u64 = 0,
    refused: u64 = 0,
    replaced: u64 = 0,
    /// Replacements of a small value by one as long that found no room.
    stuck: u64 = 0,
    report: world.Report = .{},
};

const key_max = 1 << 20;
const Entry = packed struct(u32) { len: u24 = 0, version: u8 = 0 };

/// What this process was told is stored; version 0: nothing.
var entries: [key_max]Entry = undefined;
var count: u32 = 0;
var value_room: [16 << 20]u8 align(8) = undefined;
var read_room: [16 << 20]u8 = undefined;

pub const Filler = struct {
    round: *Round,
    handle: u32,
    random: std.Random,
    /// No value is longer.
    longest: u32,

    fn complain(filler: *Filler, comptime format: []const u8, parts: anytype) void {
        filler.round.report.complain(format, parts);
    }

    fn key(filler: *const Filler, buffer: *[24]u8, number: u32) []const u8 {
        const parts = .{ filler.round.side, number };
        return std.fmt.bufPrint(buffer, "{d} key {d}", parts) catch unreachable; // fits
    }

    fn value(filler: *const Filler, number: u32, entry: Entry) []const u8 {
        const whole = std.mem.alignForward(usize, entry.len, 8);
        const words = std.mem.bytesAsSlice(u64, value_room[0..whole]);
        const start = std.hash.int(@as(u64, number) << 16 | @as(u64, entry.version) << 8 |
            filler.round.side);
        for (words, 0..) |*word, i| word.* = start +% i;
        return value_room[0..entry.len];
    }

    fn put(filler: *Filler, number: u32, entry: Entry) i32 {
        var buffer: [24]u8 = undefined;
        const text = filler.key(&buffer, number);
        const bytes = filler.value(number, entry);
        const status =
            calls.call(.shm_map_put, .{
                filler.handle,
                text.ptr,
                calls.word(text.len),
                bytes.ptr,
                entry.len,
                1,
            });
        if (status == 1) {
            entries[number] = entry;
        } else if (status != no_space) filler.complain("a put gave {d}", .{status});
        return status;
    }

    fn length(filler: *Filler) u24 {
        const random = filler.random;
        return switch (@as(Profile, @enumFromInt(filler.round.profile))) {
            .small => random.intRangeAtMost(u24, 0, 300),
            .middling => random.intRangeAtMost(u24, 100, 4000),
            .large => random.intRangeAtMost(u24, 4000, @intCast(filler.longest)),
        };
    }

    /// New keys until even the smallest value finds no room.
    fn fill(filler: *Filler) void {
        var limit: u24 = std.math.maxInt(u24);
        while (count < key_max) {
            const entry: Entry = .{ .len = @min(filler.length(), limit), .version = 1 };
            if (filler.put(count, entry) == 1) {
                filler.round.stored += 1;
                filler.round.stored_bytes += entry.len + 12;
                count += 1;
                continue;
            }
            filler.round.refused += 1;
            if (filler.round.report.trouble_len > 0 or entry.len < 16) return;
            limit = entry.len / 2;
        }
    }

    /// Values as long as before, where nothing more fits.
    fn replace(filler: *Filler) void {
        if (count == 0) return;
        for (0..200) |_| {
            const number = filler.random.uintLessThan(u32, count);
            var entry = entries[number];
            if (entry.version == 0) continue;
            entry.version = @max(1, entry.version +% 1);
            const status = filler.put(number, entry);
            if (status == 1) {
                filler.round.replaced += 1;
            } else if (entry.len <= 4000) filler.round.stuck += 1;
        }
    }

    fn readBack(filler: *Filler, number: u32) void {
        var buffer: [24]u8 = undefined;
        const text = filler.key(&buffer, number);
        const entry = entries[number];
        const room = &read_room;
        const key_len: u32 = @intCast(text.len);
        const len = calls.call(.shm_map_get, .{ filler.handle, text.ptr, key_len, room, room.len });
        if (entry.version == 0) {
            if (len != -1) filler.complain("key {d} is back ({d})", .{ number, len });
            return;
        }
        if (len != entry.len)
            return filler.complain("key {d}: {d}, not {d} bytes", .{ number, len, entry.len });
        if (!std.mem.eql(u8, filler.value(number, entry), read_room[0..entry.len]))
            filler.complain("key {d} has another value", .{number});
    }

    fn readAll(filler: *Filler) void {
        for (0..count) |number| filler.readBack(@intCast(number));
    }

    fn delete(filler: *Filler, number: u32) void {
        if (entries[number].version == 0) return;
        var buffer: [24]u8 = undefined;
        const text = filler.key(&buffer, number);
        const status = calls.call(.shm_map_delete, .{
            filler.handle,
            text.ptr,
            calls.word(text.len),
        });
        if (status != 1) filler.complain("delete gave {d}", .{status});
        entries[number] = .{};
    }

    /// A third goes; what is left stays right, and about as much fits again.
    fn breathe(filler: *Filler) void {
        var freed: u64 = 0;
        for (0..count / 3) |_| {
            const number = filler.random.uintLessThan(u32, count);
            freed += entries[number].len;
            filler.delete(number);
        }
        var again: u64 = 0;
        var refused: u64 = 0; // one stripe may be full while others are not
        while (count < key_max and refused < 50) : (count += 1) {
            const entry: Entry = .{ .len = @min(filler.length(), 1000), .version = 1 };
            if (filler.put(count, entry) == 1) again += entry.len + 12 else refused += 1;
        }
        // Alone: another process may have been faster.
        if (filler.round.side == 0 and !filler.round.report.is_repeated and again * 4 < freed)
            filler.complain("{d} bytes deleted, only {d} fit again", .{ freed, again });
    }

    /// One whole round. `report.is_repeated` says that another process fills the same map.
    pub fn run(filler: *Filler) void {
        const is_alone = !filler.round.report.is_repeated;
        count = 0;
        filler.fill();
        filler.replace();
        filler.readAll();
        filler.breathe();
        filler.replace();
        filler.readAll();
        if (is_alone) filler.verify(filler.live());
        if (filler.round.clears and is_alone) {
            const status = calls.call(.shm_map_clear, .{filler.handle});
            if (status != 0) filler.complain("clear gave {d}", .{status});
        } else for (0..count) |number| filler.delete(@intCast(number));
        if (is_alone) filler.verify(0);
        filler.round.report.is_done = true;
    }

    fn live(_: *const Filler) u64 {
        var total: u64 = 0;
        for (entries[0..count]) |entry| total += @intFromBool(entry.version != 0);
        return total;
    }

    fn verify(filler: *Filler, expected: u64) void {
        var verdict: [6]f64 = undefined;
        const bytes = std.mem.asBytes(&verdict);
        const len = calls.call(.shm_map_verify, .{ filler.handle, 0, bytes, bytes.len });
        if (len < 0) return filler.complain("verify gave {d}", .{len});
        if (verdict[5] != 0) filler.complain("verify: {d} parts are busy", .{verdict[5]});
        if (verdict[0] != 0) filler.complain("verify: {d} problems", .{verdict[0]});
        if (verdict[1] != @as(f64, @floatFromInt(expected)))
            filler.complain("{d} entries instead of {d}", .{ verdict[1], expected });
    }
};
