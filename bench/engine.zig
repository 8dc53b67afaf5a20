//! The engine alone, called as the runtimes call it: the exported functions of the built library,
//! one thread, beside the in-place table of `reference.zig` and LMDB's C library.
//!
//!     shmap-bench-engine <library> [--smoke | <keys> ...]
//!
//! Keys are `user:session:<n>`, values 32 bytes. The operations come in random order from a list
//! made beforehand, whose keys lie one behind the other: only what a store does is out of order.
//! The stores take turns within each pass.

const std = @import("std");
const linux = std.os.linux;
const lmdb = @import("lmdb.zig");
const reference = @import("reference.zig");
const stripe_lock = @import("shmap").stripe_lock;

const operation_count = 1 << 20;
const value: [32]u8 = "0123456789abcdef0123456789ABCDEF".*;
const ascii_kind = 3;

/// Set by the command line.
var key_counts: []const u64 = &.{ 1_000, 100_000, 1_000_000, 10_000_000 };
var operations: usize = operation_count;
var pass_count: usize = 7;
var library_path: []const u8 = undefined;

/// Above this LMDB is left out of what writes: filling it takes minutes.
const lmdb_keys_max = 1_000_000;

const Case = enum { get, miss, set, insert, delete };

/// One operation's key.
const Key = struct {
    len: u32,
    bytes: [28]u8,

    fn of(n: u64) Key {
        var key: Key = .{ .len = 0, .bytes = undefined };
        const text = std.fmt.bufPrint(&key.bytes, "user:session:{d}", .{n}) catch unreachable; // 28
        key.len = @intCast(text.len);
        return key;
    }

    inline fn slice(key: *const Key) []const u8 {
        return key.bytes[0..key.len];
    }
};

/// The library that is shipped, by its symbols.
const Shmap = struct {
    const who = "shmap";

    library: std.DynLib,
    handle: u32,
    get_call: *const fn (u32, [*]const u8, u32, [*]u8, u32) callconv(.c) i32,
    put_call: *const fn (u32, [*]const u8, u32, [*]const u8, u32, u32) callconv(.c) i32,
    delete_call: *const fn (u32, [*]const u8, u32) callconv(.c) i32,

    const Anonymous = fn ([*]const u8, u32, u32, f64, f64, ?*[128]u8) callconv(.c) i32;

    fn init(path: []const u8, bytes_max: f64) !Shmap {
        var library = try std.DynLib.open(path);
        const open = library.lookup(*const Anonymous, "shm_segment_anonymous") orelse
            return error.NoSymbol;
        const handle = open("bench", 5, 0, bytes_max, 5000, null);
        if (handle <= 0) return error.NotOpened;
        var shmap: Shmap = undefined;
        shmap.library = library;
        shmap.handle = @intCast(handle);
        inline for (.{ "get", "put", "delete" }) |name| {
            const call = &@field(shmap, name ++ "_call");
            call.* = shmap.library.lookup(@TypeOf(call.*), "shm_map_" ++ name) orelse
                return error.NoSymbol;
        }
        return shmap;
    }

    fn deinit(shmap: *Shmap) void {
        const Close = *const fn (u32) callconv(.c) i32;
        _ = shmap.library.lookup(Close, "shm_segment_close").?(shmap.handle);
    }

    inline fn get(shmap: *Shmap, key: []const u8, target: []u8) i32 {
        const len: u32 = @intCast(key.len);
        return shmap.get_call(shmap.handle, key.ptr, len, target.ptr, @intCast(target.len));
    }

    inline fn put(shmap: *Shmap, key: []const u8, bytes: []const u8) i32 {
        const len: u32 = @intCast(key.len);
        const value_len: u32 = @intCast(bytes.len);
        return shmap.put_call(shmap.handle, key.ptr, len, bytes.ptr, value_len, ascii_kind);
    }

    inline fn delete(shmap: *Shmap, key: []const u8) i32 {
        return shmap.delete_call(shmap.handle, key.ptr, @intCast(key.len));
    }
};

/// The in-place table, called through pointers as the library is; with a robust mutex around each
/// write it is the least that anything can do which survives the death of a writer.
fn Reference(comptime is_locked: bool) type {
    return struct {
        const Self = @This();
        const who = if (is_locked) "reference, locked" else "reference";

        table: reference.Table,
        mutex: [64]u8 align(64),
        get_call: *const @TypeOf(reference.Table.get),
        put_call: *const @TypeOf(reference.Table.put),
        delete_call: *const @TypeOf(reference.Table.delete),

        fn init(entries_max: u64) !Self {
            var self: Self = .{
                .table = try .init(entries_max),
                .mutex = undefined,
                .get_call = &reference.Table.get,
                .put_call = &reference.Table.put,
                .delete_call = &reference.Table.delete,
            };
            try stripe_lock.init(&self.mutex);
            // Not known to the compiler: no call may be made in line.
            std.mem.doNotOptimizeAway(&self);
            return self;
        }

        fn deinit(self: *Self) void {
            self.table.deinit();
        }

        inline fn get(self: *Self, key: []const u8, target: []u8) i32 {
            const len: u32 = @intCast(key.len);
            return self.get_call(&self.table, key.ptr, len, target.ptr, @intCast(target.len));
        }

        inline fn put(self: *Self, key: []const u8, bytes: []const u8) i32 {
            if (is_locked and stripe_lock.attempt(&self.mutex) != .clean) return -1;
            defer if (is_locked) self.unlock();
            const len: u32 = @intCast(key.len);
            const value_len: u32 = @intCast(bytes.len);
            return self.put_call(&self.table, key.ptr, len, bytes.ptr, value_len, ascii_kind);
        }

        inline fn delete(self: *Self, key: []const u8) i32 {
            if (is_locked and stripe_lock.attempt(&self.mutex) != .clean) return -1;
            defer if (is_locked) self.unlock();
            return self.delete_call(&self.table, key.ptr, @intCast(key.len));
        }

        inline fn unlock(self: *Self) void {
            (stripe_lock.StripeLock{ .robust = &self.mutex }).unlock();
        }
    };
}

/// LMDB with a transaction for each write, or with one for a whole pass.
fn Lmdb(comptime is_batched: bool) type {
    return struct {
        const who = if (is_batched) "LMDB (C), one transaction" else "LMDB (C)";

        database: *lmdb.Database,

        inline fn get(self: *@This(), key: []const u8, target: []u8) i32 {
            return self.database.get(key, target);
        }

        inline fn put(self: *@This(), key: []const u8, bytes: []const u8) i32 {
            return self.database.put(key, bytes);
        }

        inline fn delete(self: *@This(), key: []const u8) i32 {
            return self.database.delete(key);
        }

        fn begin(self: *@This()) !void {
            if (is_batched) try self.database.begin();
        }

        fn commit(self: *@This()) !void {
            if (is_batched) try self.database.commit();
        }
    };
}

/// The keys of a pass, for maps of `key_count` entries.
const Work = struct {
    key_count: u64,
    /// Of entries that are there, in random order.
    present: []Key,
    /// Of entries that are not there; no two are the same.
    absent: []Key,

    fn init(gpa: std.mem.Allocator, key_count: u64) !Work {
        var random = std.Random.DefaultPrng.init(key_count);
        const work: Work = .{
            .key_count = key_count,
            .present = try gpa.alloc(Key, operations),
            .absent = try gpa.alloc(Key, @min(operations, @max(1, key_count / 8))),
        };
        for (work.present) |*key| key.* = .of(random.random().uintLessThan(u64, key_count));
        for (work.absent, 0..) |*key, i| key.* = .of(key_count + i);
        random.random().shuffle(Key, work.absent);
        return work;
    }

    fn deinit(work: *Work, gpa: std.mem.Allocator) void {
        gpa.free(work.present);
        gpa.free(work.absent);
    }

    fn fill(work: *const Work, store: anytype) !void {
        for (0..work.key_count) |n| {
            const key: Key = .of(n);
            if (store.put(key.slice(), &value) != 1) return error.NotStored;
        }
    }
};

fn now() u64 {
    var time: linux.timespec = undefined;
    _ = linux.clock_gettime(.MONOTONIC, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

/// Nanoseconds an operation. Each answer is checked, in the same way for all.
fn run(case: Case, store: anytype, work: *const Work) !f64 {
    var target: [64]u8 = undefined;
    const start = now();
    var done: usize = 0;
    switch (case) {
        .get => for (work.present) |*key| {
            done += @intFromBool(store.get(key.slice(), &target) == value.len);
        },
        .set => for (work.present) |*key| {
            done += @intFromBool(store.put(key.slice(), &value) == 1);
        },
        .miss => for (work.absent) |*key| {
            done += @intFromBool(store.get(key.slice(), &target) == -1);
        },
        .insert => for (work.absent) |*key| {
            done += @intFromBool(store.put(key.slice(), &value) == 1);
        },
        .delete => for (work.absent) |*key| {
            done += @intFromBool(store.delete(key.slice()) == 1);
        },
    }
    const elapsed: f64 = @floatFromInt(now() - start);
    const wanted = switch (case) {
        .get, .set => work.present.len,
        .miss, .insert, .delete => work.absent.len,
    };
    if (done != wanted) return error.WrongAnswer;
    return elapsed;
}

/// One pass of a case; what works on few keys is done over and over. Inserts and deletes take
/// turns, so that a pass leaves the store as it was.
fn pass(store: anytype, work: *const Work, times: *[5]f64) !void {
    const Store = @TypeOf(store.*);
    if (@hasDecl(Store, "begin")) try store.begin();
    const cycles = @max(1, operations / work.absent.len);
    const present: f64 = @floatFromInt(work.present.len);
    const absent: f64 = @floatFromInt(work.absent.len * cycles);
    times.* = @splat(0);
    times[@intFromEnum(Case.get)] = try run(.get, store, work) / present;
    times[@intFromEnum(Case.set)] = try run(.set, store, work) / present;
    for (0..cycles) |_| times[@intFromEnum(Case.miss)] += try run(.miss, store, work) / absent;
    for (0..cycles) |_| {
        times[@intFromEnum(Case.insert)] += try run(.insert, store, work) / absent;
        times[@intFromEnum(Case.delete)] += try run(.delete, store, work) / absent;
    }
    if (@hasDecl(Store, "commit")) try store.commit();
}

const Times = struct {
    passes: [16][5]f64 = undefined,

    fn report(times: *const Times, who: []const u8, key_count: u64) void {
        for (std.enums.values(Case)) |case| {
            var sorted: [16]f64 = undefined;
            const list = sorted[0..pass_count];
            for (list, times.passes[0..pass_count]) |*time, one| time.* = one[@intFromEnum(case)];
            std.mem.sort(f64, list, {}, std.sort.asc(f64));
            print(
                "{{\"bench\":\"engine\",\"case\":\"{t}\",\"who\":\"{s}\",\"keys\":{d}," ++
                    "\"unit\":\"ns\",\"median\":{d:.1},\"best\":{d:.1},\"passes\":{d}}}\n",
                .{ case, who, key_count, list[list.len / 2], list[0], list.len },
            );
        }
    }
};

fn print(comptime format: []const u8, arguments: anytype) void {
    var buffer: [512]u8 = undefined;
    const text = std.fmt.bufPrint(&buffer, format, arguments) catch unreachable; // a row is short
    _ = linux.write(1, text.ptr, text.len);
}

fn measure(gpa: std.mem.Allocator, key_count: u64) !void {
    var work: Work = try .init(gpa, key_count);
    defer work.deinit(gpa);
    var shmap: Shmap = try .init(library_path, 0);
    defer shmap.deinit();
    try work.fill(&shmap);
    var plain: Reference(false) = try .init(key_count + work.absent.len);
    defer plain.deinit();
    try work.fill(&plain);
    var locked: Reference(true) = try .init(key_count + work.absent.len);
    defer locked.deinit();
    try work.fill(&locked);
    const directory: Directory = .make();
    var database = lmdb.Database.init(directory.path(), 16 << 30) catch |err| null: {
        print("{{\"bench\":\"engine\",\"case\":\"all\",\"who\":\"LMDB (C)\",\"keys\":{d}," ++
            "\"skipped\":\"{t}\"}}\n", .{ key_count, err });
        break :null null;
    };
    directory.remove(); // its files are open: a killed process leaves none behind
    defer if (database) |*opened| opened.deinit();
    const has_lmdb = database != null and key_count <= lmdb_keys_max;
    var one_by_one: Lmdb(false) = undefined;
    var batched: Lmdb(true) = undefined;
    if (has_lmdb) {
        one_by_one = .{ .database = &database.? };
        batched = .{ .database = &database.? };
        try batched.begin();
        try work.fill(&batched);
        try batched.commit();
    }
    var times: [5]Times = @splat(.{});
    for (0..pass_count) |i| {
        try pass(&shmap, &work, &times[0].passes[i]);
        try pass(&plain, &work, &times[1].passes[i]);
        try pass(&locked, &work, &times[2].passes[i]);
        if (!has_lmdb) continue;
        try pass(&one_by_one, &work, &times[3].passes[i]);
        try pass(&batched, &work, &times[4].passes[i]);
    }
    times[0].report(Shmap.who, key_count);
    times[1].report(@TypeOf(plain).who, key_count);
    times[2].report(@TypeOf(locked).who, key_count);
    if (!has_lmdb) return;
    times[3].report(@TypeOf(one_by_one).who, key_count);
    times[4].report(@TypeOf(batched).who, key_count);
}

/// Where LMDB's files lie while they are opened.
const Directory = struct {
    buffer: [64]u8 = undefined,
    len: usize = 0,

    fn make() Directory {
        var directory: Directory = .{};
        const text = std.fmt.bufPrintZ(&directory.buffer, "/dev/shm/shmap-bench-{d}", .{
            linux.getpid(),
        }) catch unreachable; // 64 bytes are enough
        directory.len = text.len;
        _ = linux.mkdir(text, 0o700);
        return directory;
    }

    fn path(directory: *const Directory) [:0]const u8 {
        return directory.buffer[0..directory.len :0];
    }

    fn remove(directory: *const Directory) void {
        inline for (.{ "data.mdb", "lock.mdb" }) |name| {
            var buffer: [96]u8 = undefined;
            const file = std.fmt.bufPrintZ(&buffer, "{s}/" ++ name, .{directory.path()}) catch
                unreachable; // as above
            _ = linux.unlink(file);
        }
        _ = linux.rmdir(directory.path());
    }
};

pub fn main(init: std.process.Init) !void {
    const words = try init.minimal.args.toSlice(init.arena.allocator());
    if (words.len < 2) return error.NoLibrary;
    const gpa = std.heap.page_allocator;
    library_path = words[1];
    if (words.len == 3 and std.mem.eql(u8, words[2], "--smoke")) {
        key_counts = &.{1_000};
        operations = 1 << 12;
        pass_count = 2;
    }
    if (words.len > 2 and key_counts.len > 1) {
        for (words[2..]) |word|
            try measure(gpa, try std.fmt.parseInt(u64, word, 10));
        return;
    }
    for (key_counts) |key_count| try measure(gpa, key_count);
}
