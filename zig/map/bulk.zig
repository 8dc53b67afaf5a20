//! Many keys at one crossing, each read or stored by itself.
//!
//! What takes longest in a large map is to wait for the memory of a slot, and then for that of its
//! entry. So keys are taken in groups: the processor is asked for the slots of all of them, then
//! for their entries, and loads them all at once while the first are read or stored.

const std = @import("std");
const gathered = @import("gathered.zig");
const layout = @import("../layout.zig");
const maps = @import("map.zig");
const read = @import("read.zig");
const status = @import("../status.zig");
const write = @import("write.zig");
const Map = maps.Map;

const Error = status.Error;
const Record = gathered.Record;

/// What `getBatch` answers for each key; the value follows.
pub const Answer = extern struct {
    /// `missing`: there is none.
    value_len: u32,
    kind: u32,

    const missing = std.math.maxInt(u32);
};

/// How many keys are in a group.
const group_max = 32;

/// Answers as many of `count` keys, each `u32` length and bytes, as fit into `target`: an `Answer`
/// for each and then its value, without padding. Returns how many these are. A value that does not
/// fit even as the only answer is `gathered.left_out`.
pub fn getBatch(map: *Map, keys: []const u8, count: u32, target: []u8) Error!u32 {
    if (target.len < @sizeOf(Answer)) return error.InvalidArgument;
    var group: Group = undefined;
    var at: usize = 0;
    var end: usize = 0;
    var done: u32 = 0;
    while (done < count) {
        const size = @min(count - done, group_max);
        for (0..size) |i| group.add(map, i, try takeKey(keys, &at), .read);
        group.prefetchEntries(map, size);
        for (group.keys[0..size], group.hashes[0..size]) |key, key_hash| {
            const added = try answerInto(map, key_hash, key, target[end..]) orelse {
                if (done > 0) return done;
                const meta = try read.getMeta(map, key);
                writeAnswer(target, if (meta) |found|
                    .{ .value_len = found.len, .kind = gathered.left_out }
                else
                    .{ .value_len = Answer.missing, .kind = 0 });
                return 1;
            };
            end += added;
            done += 1;
        }
    }
    return done;
}

/// Writes for each of `count` keys whether it is there: 1, or 0.
pub fn hasMany(map: *Map, keys: []const u8, count: u32, target: []u8) Error!void {
    return forEachKey(map, keys, count, target, .read, struct {
        fn has(of: *Map, key: []const u8) Error!bool {
            return try read.getMeta(of, key) != null;
        }
    }.has);
}

/// Deletes `count` keys one after the other, and writes for each whether it was there: 1, or 0.
pub fn deleteMany(map: *Map, keys: []const u8, count: u32, target: []u8) Error!void {
    return forEachKey(map, keys, count, target, .write, struct {
        fn delete(of: *Map, key: []const u8) Error!bool {
            return write.delete(of, key);
        }
    }.delete);
}

fn forEachKey(
    map: *Map,
    keys: []const u8,
    count: u32,
    target: []u8,
    comptime intent: Group.Intent,
    comptime each: fn (*Map, []const u8) Error!bool,
) Error!void {
    if (target.len < count) return error.InvalidArgument;
    var group: Group = undefined;
    var at: usize = 0;
    var done: u32 = 0;
    while (done < count) {
        const size = @min(count - done, group_max);
        for (0..size) |i| group.add(map, i, try takeKey(keys, &at), intent);
        group.prefetchEntries(map, size);
        for (group.keys[0..size]) |key| {
            target[done] = @intFromBool(try each(map, key));
            done += 1;
        }
    }
}

/// Writes the answer for one key. Returns its length; null: it does not fit.
fn answerInto(map: *Map, key_hash: maps.KeyHash, key: []const u8, target: []u8) Error!?usize {
    if (target.len < @sizeOf(Answer)) return null;
    const room = target[@sizeOf(Answer)..];
    const meta = try read.getHashed(map, key_hash, key, room, 0) orelse {
        writeAnswer(target, .{ .value_len = Answer.missing, .kind = 0 });
        return @sizeOf(Answer);
    };
    if (meta.len > room.len) return null;
    writeAnswer(target, .{ .value_len = meta.len, .kind = meta.kind });
    return @sizeOf(Answer) + meta.len;
}

fn writeAnswer(target: []u8, content: Answer) void {
    @memcpy(target[0..@sizeOf(Answer)], std.mem.asBytes(&content));
}

/// Keys that are looked for together.
const Group = struct {
    keys: [group_max][]const u8,
    hashes: [group_max]maps.KeyHash,

    const Intent = enum { read, write };

    inline fn add(
        group: *Group,
        map: *Map,
        i: usize,
        key: []const u8,
        comptime intent: Intent,
    ) void {
        const key_hash = map.hashOf(key);
        group.keys[i] = key;
        group.hashes[i] = key_hash;
        const cached = map.cachedTable(key_hash.stripe);
        switch (intent) {
            .read => cached.prefetchToRead(key_hash.fast),
            .write => cached.prefetch(key_hash.fast),
        }
    }

    /// A small map lies in the processor's caches: looking twice at its slots only costs.
    const committed_least = 1 << 20;

    fn prefetchEntries(group: *const Group, map: *Map, size: usize) void {
        const view = &map.segment.view;
        if (view.committed < committed_least) return;
        for (group.hashes[0..size]) |key_hash| {
            const offset = map.cachedTable(key_hash.stripe).entryHint(key_hash.fast);
            // Wherever a damaged slot leads: a prefetch of any address does no harm.
            const address = @intFromPtr(view.base) +% offset;
            @prefetch(@as([*]const u8, @ptrFromInt(address)), .{});
            @prefetch(@as([*]const u8, @ptrFromInt(address +% 64)), .{});
        }
    }
};

fn takeKey(keys: []const u8, at: *usize) Error![]const u8 {
    if (at.* + 4 > keys.len) return error.InvalidArgument;
    const len = std.mem.readInt(u32, keys[at.*..][0..4], .little);
    const from = at.* + 4;
    if (len == 0 or len > layout.key_bytes_max or from + len > keys.len)
        return error.InvalidArgument;
    at.* = from + len;
    return keys[from..at.*];
}

/// Stores `count` records one after the other, each a commit of its own; `stored` counts them,
/// also when one fails.
pub fn putMany(map: *Map, entries: []const u8, count: u32, stored: *u32) Error!void {
    stored.* = 0;
    var group: Group = undefined;
    var values: [group_max][]const u8 = undefined;
    var kinds: [group_max]u8 = undefined;
    var ends: [group_max]u64 = undefined;
    var at: usize = 0;
    while (stored.* < count) {
        // What is wrong with a record shows when its turn comes, behind those before it.
        var wrong: ?Error = null;
        var size: usize = 0;
        while (size < @min(count - stored.*, group_max)) : (size += 1) {
            const taken = takeRecord(entries, &at) catch |err| {
                wrong = err;
                break;
            };
            values[size] = taken.value;
            kinds[size] = taken.kind;
            ends[size] = taken.expires;
            group.add(map, size, taken.key, .write);
        }
        group.prefetchEntries(map, size);
        for (group.keys[0..size], 0..) |key, i| {
            const item: write.Item = .{
                .value = values[i],
                .kind = kinds[i],
                .expires = ends[i],
            };
            _ = try write.put(map, key, item, .none);
            stored.* += 1;
        }
        if (wrong) |err| return err;
    }
}

const Taken = struct { key: []const u8, value: []const u8, kind: u8, expires: u64 };

fn takeRecord(entries: []const u8, at: *usize) Error!Taken {
    if (at.* + @sizeOf(Record) > entries.len) return error.InvalidArgument;
    const record = std.mem.bytesToValue(Record, entries[at.*..][0..@sizeOf(Record)]);
    const key_at = at.* + @sizeOf(Record);
    const body = @as(u64, record.key_len) + record.value_len;
    if (record.key_len == 0 or record.key_len > layout.key_bytes_max or
        key_at + body > entries.len or record.kind > 255) return error.InvalidArgument;
    const expires = record.expires;
    if (!(expires >= 0 and expires < 1 << 53) or @trunc(expires) != expires)
        return error.InvalidArgument;
    at.* = @min(key_at + std.mem.alignForward(u64, body, 8), entries.len);
    return .{
        .key = entries[key_at..][0..record.key_len],
        .value = entries[key_at + record.key_len ..][0..record.value_len],
        .kind = @intCast(record.kind),
        .expires = @intFromFloat(expires),
    };
}
