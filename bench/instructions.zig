//! One operation of the built library, done many times for callgrind to count (instructions.mjs).
//!
//!     shmap-bench-instructions <library> <robust | kernel> <case> <keys>
//!
//! Everything is the same in each run: keys, values, their order, and the secrets that decide which
//! stripe and slot a key belongs to. The library draws secrets at random, so this program writes
//! its own into the file of a new segment before anything is stored there.
//!
//! Keys are `user:session:<n>`, values 32 bytes. What is counted is each call of `counted`.

const std = @import("std");
const linux = std.os.linux;

const value: [32]u8 = "0123456789abcdef0123456789ABCDEF".*;
const ascii_kind = 3;

/// Operations counted on a map, and how many maps there are: each has secrets of its own, and so
/// collisions of its own.
const operations = 1 << 14;
const map_count = 8;
/// The ceiling of each: valgrind has less room than the machine.
const bytes_max = 1 << 28;
/// Keys of one `get_many`.
const many = 128;

const flag_attach = 4;
const flag_lock_stated = 64;
const flag_lock_kernel = 128;

const Case = enum { get, set, miss, insert, delete, get_many };

/// The first words of a segment, as far as this program writes them. Their places are those of the
/// layout of stage 1; `Maps.open` fails if the library reads others, since the checksum lies there.
const Identity = extern struct {
    before: [7]u64,
    fast_secrets: [4]u64,
    sip_secrets: [2]u64,
    codec: [9]u64,
    checksum: u64,

    /// As `layout.checksum`: over all words before it.
    fn sum(identity: *const Identity) u64 {
        const words: *const [22]u64 = @ptrCast(identity);
        var result: u64 = 0xcbf29ce484222325;
        for (words) |word| {
            result = (result ^ word) *% 0x100000001b3;
            result ^= result >> 29;
        }
        return result;
    }

    comptime {
        std.debug.assert(@offsetOf(Identity, "fast_secrets") == 7 * 8);
        std.debug.assert(@offsetOf(Identity, "checksum") == 22 * 8);
    }
};

const Calls = struct {
    open: *const Open,
    close: *const fn (u32) callconv(.c) i32,
    unlink: *const fn (u32) callconv(.c) i32,
    get: *const fn (u32, [*]const u8, u32, [*]u8, u32) callconv(.c) i32,
    put: *const fn (u32, [*]const u8, u32, [*]const u8, u32, u32) callconv(.c) i32,
    delete: *const fn (u32, [*]const u8, u32) callconv(.c) i32,
    get_batch: *const fn (u32, [*]const u8, u32, u32, [*]u8, u32) callconv(.c) i32,

    const Text = ?[*]const u8;
    const Open = fn (Text, u32, Text, u32, Text, u32, u32, u32, f64, f64, ?[*]u8) callconv(.c) i32;

    fn of(path: []const u8) !Calls {
        var library = try std.DynLib.open(path); // never closed: it stays loaded by its own wish
        var calls: Calls = undefined;
        inline for (@typeInfo(Calls).@"struct".fields) |field| {
            const is_segments = comptime std.mem.eql(u8, field.name, "open") or
                std.mem.eql(u8, field.name, "close") or std.mem.eql(u8, field.name, "unlink");
            const symbol = (if (is_segments) "shm_segment_" else "shm_map_") ++ field.name;
            @field(calls, field.name) = library.lookup(field.type, symbol) orelse
                return error.NoSymbol;
        }
        return calls;
    }
};

/// A map with the secrets of its number.
const Map = struct {
    calls: *const Calls,
    handle: u32,

    fn init(calls: *const Calls, is_kernel: bool, number: u64) !Map {
        var buffer: [64]u8 = undefined;
        const name = try std.fmt.bufPrint(&buffer, "shmap-bench-{d}", .{linux.getpid()});
        var map: Map = .{ .calls = calls, .handle = try open(calls, name, is_kernel, 0) };
        _ = calls.close(map.handle);
        try writeSecrets(name, number);
        map.handle = try open(calls, name, is_kernel, flag_attach);
        if (calls.unlink(map.handle) != 1) return error.NotUnlinked;
        return map;
    }

    fn open(calls: *const Calls, name: []const u8, is_kernel: bool, how: u32) !u32 {
        const lock: u32 = if (is_kernel) flag_lock_kernel else 0;
        const flags = flag_lock_stated | lock | how;
        const len: u32 = @intCast(name.len);
        const codec = "bench";
        const timeout_ms = 5000;
        const handle = calls.open(
            null,
            0,
            name.ptr,
            len,
            codec,
            codec.len,
            flags,
            0o600,
            bytes_max,
            timeout_ms,
            null,
        );
        return if (handle > 0) @intCast(handle) else error.NotOpened;
    }

    fn writeSecrets(name: []const u8, number: u64) !void {
        var buffer: [96]u8 = undefined;
        const path = try std.fmt.bufPrintZ(&buffer, "/dev/shm/{s}", .{name});
        const fd: i32 = @intCast(linux.open(path, .{ .ACCMODE = .RDWR }, 0));
        defer _ = linux.close(fd);
        var identity: Identity = undefined;
        const bytes = std.mem.asBytes(&identity);
        if (linux.pread(fd, bytes, bytes.len, 0) != bytes.len) return error.NotRead;
        if (identity.sum() != identity.checksum) return error.OtherLayout;
        var random = std.Random.DefaultPrng.init(number);
        for (&identity.fast_secrets) |*word| word.* = random.next();
        for (&identity.sip_secrets) |*word| word.* = random.next();
        identity.checksum = identity.sum();
        if (linux.pwrite(fd, bytes, bytes.len, 0) != bytes.len) return error.NotWritten;
    }

    fn deinit(map: *Map) void {
        _ = map.calls.close(map.handle);
    }
};

/// The keys of an operation one behind another, each after its length: what `get_batch` takes.
const Keys = struct {
    bytes: std.ArrayList(u8) = .empty,
    count: usize = 0,

    fn add(keys: *Keys, gpa: std.mem.Allocator, n: u64) !void {
        var buffer: [32]u8 = undefined;
        const text = try std.fmt.bufPrint(&buffer, "user:session:{d}", .{n});
        const len: u32 = @intCast(text.len);
        try keys.bytes.appendSlice(gpa, std.mem.asBytes(&len));
        try keys.bytes.appendSlice(gpa, text);
        keys.count += 1;
    }

    const Iterator = struct {
        rest: []const u8,

        fn next(iterator: *Iterator) ?[]const u8 {
            if (iterator.rest.len == 0) return null;
            const len = std.mem.readInt(u32, iterator.rest[0..4], .little);
            defer iterator.rest = iterator.rest[4 + len ..];
            return iterator.rest[4..][0..len];
        }
    };

    fn iterate(keys: *const Keys) Iterator {
        return .{ .rest = keys.bytes.items };
    }
};

/// Does one case once for each key. Each answer is checked.
fn run(case: Case, map: *const Map, keys: *const Keys) !void {
    var target: [64]u8 = undefined;
    var done: usize = 0;
    var iterator = keys.iterate();
    switch (case) {
        .get => while (iterator.next()) |key| {
            const len = map.calls.get(map.handle, key.ptr, @intCast(key.len), &target, target.len);
            done += @intFromBool(len == value.len);
        },
        .miss => while (iterator.next()) |key| {
            const len = map.calls.get(map.handle, key.ptr, @intCast(key.len), &target, target.len);
            done += @intFromBool(len == -1);
        },
        .set, .insert => while (iterator.next()) |key| {
            const len: u32 = @intCast(key.len);
            const stored = map.calls.put(map.handle, key.ptr, len, &value, value.len, ascii_kind);
            done += @intFromBool(stored == 1);
        },
        .delete => while (iterator.next()) |key| {
            done += @intFromBool(map.calls.delete(map.handle, key.ptr, @intCast(key.len)) == 1);
        },
        .get_many => done = try getMany(map, keys),
    }
    if (done != keys.count) return error.WrongAnswer;
}

/// What `getMany` of a map does: `many` keys a call, whose answers the library writes where the
/// caller reads them. In stage 1 it was another call, which gathered the answers in memory of the
/// handle, and one that copied them out.
fn getMany(map: *const Map, keys: *const Keys) !usize {
    // With room to spare, as a caller has it: the fast path copies up to 32 bytes more.
    var answers: [many * (8 + value.len) + 64]u8 = undefined;
    var done: usize = 0;
    var iterator = keys.iterate();
    while (true) {
        const start = iterator.rest;
        var count: u32 = 0;
        while (count < many) : (count += 1) _ = iterator.next() orelse break;
        if (count == 0) return done;
        const bytes: u32 = @intCast(start.len - iterator.rest.len);
        const written = answers[0 .. count * (8 + value.len)];
        const answered = map.calls.get_batch(
            map.handle,
            start.ptr,
            bytes,
            count,
            &answers,
            answers.len,
        );
        if (answered != count) return error.WrongAnswer;
        const last = std.mem.readInt(u32, written[written.len - 8 - value.len ..][0..4], .little);
        if (last != value.len) return error.WrongAnswer;
        done += count;
    }
}

/// What callgrind counts, by its name.
noinline fn counted(case: Case, map: *const Map, keys: *const Keys) !void {
    return run(case, map, keys);
}

/// Puts back what a case changed, so that every round finds the same map. Not counted.
fn undo(case: Case, map: *const Map, keys: *const Keys) !void {
    switch (case) {
        .insert => try run(.delete, map, keys),
        .delete => try run(.insert, map, keys),
        else => {},
    }
}

pub fn main(init: std.process.Init) !void {
    const words = try init.minimal.args.toSlice(init.arena.allocator());
    if (words.len != 5) return error.FourArguments;
    const gpa = init.arena.allocator();
    const calls: Calls = try .of(words[1]);
    const is_kernel = std.mem.eql(u8, words[2], "kernel");
    const case = std.meta.stringToEnum(Case, words[3]) orelse return error.NoSuchCase;
    const key_count = try std.fmt.parseInt(u64, words[4], 10);

    var stored: Keys = .{};
    for (0..key_count) |n| try stored.add(gpa, n);
    var random = std.Random.DefaultPrng.init(key_count);
    var keys: Keys = .{};
    const is_new = case == .miss or case == .insert;
    const count = if (is_new or case == .delete) @max(1, key_count / 8) else operations;
    for (0..count) |i| try keys.add(gpa, switch (case) {
        .miss, .insert => key_count + i,
        .delete => i * 8 % key_count, // each once
        else => random.random().uintLessThan(u64, key_count),
    });

    const rounds = @max(1, operations / count);
    for (0..map_count) |number| {
        var map: Map = try .init(&calls, is_kernel, number + 1);
        defer map.deinit();
        try run(.insert, &map, &stored);
        try run(case, &map, &keys); // tables and lists of blocks find their size
        try undo(case, &map, &keys);
        for (0..rounds) |_| {
            try counted(case, &map, &keys);
            try undo(case, &map, &keys);
        }
    }
    var buffer: [64]u8 = undefined;
    const text = try std.fmt.bufPrint(&buffer, "{d} operations\n", .{map_count * rounds * count});
    _ = linux.write(1, text.ptr, text.len);
}
