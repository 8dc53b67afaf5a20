//! A native process for the tests, built with another libc than the runtimes': it opens one segment
//! and does what the lines on its standard input say, answering each with a line.
//!
//!     open <name> <how> <timeout>   put <key> <text>   get <key>   size
//!     lock <timeout>   unlock   add <key> <times>   verify   close   unlink <name>
//!
//! `how` is `kernel`, which states the lock, `attach`, `exclusive`, or `-` for nothing stated.
//!
//! An answer is the library's number, and what it read. `add` counts under the lock, as fast as it
//! can, with the value as decimal text.

const std = @import("std");
const shmap = @import("shmap");

const abi = shmap.abi;
const Flags = shmap.marshal.Flags;

/// The kind byte of ASCII text, as TypeScript writes it (src/values/kinds.ts).
const text_kind = 3;
const codec = "msgpackr";

var handle: u32 = 0;
var fault: [128]u8 = undefined;
var room: [4096]u8 = undefined;

fn text(word: ?[]const u8) []const u8 {
    return word orelse "";
}

fn number(word: ?[]const u8) f64 {
    return std.fmt.parseFloat(f64, text(word)) catch 0;
}

fn flagsOf(how: []const u8) u32 {
    const kernel = @intFromEnum(Flags.lockStated) | @intFromEnum(Flags.lockKernel);
    if (std.mem.eql(u8, how, "kernel")) return kernel;
    if (std.mem.eql(u8, how, "attach")) return @intFromEnum(Flags.modeAttach);
    if (std.mem.eql(u8, how, "exclusive")) return kernel | @intFromEnum(Flags.modeExclusive);
    return 0;
}

fn unlink(name: []const u8) i32 {
    const len: u32 = @intCast(name.len);
    return abi.segment.shm_segment_unlink_name(null, 0, name.ptr, len, 0, 5000, &fault);
}

fn open(name: []const u8, how: []const u8, timeout: f64) i32 {
    const len: u32 = @intCast(name.len);
    const result = abi.segment.shm_segment_open(
        null,
        0,
        name.ptr,
        len,
        codec,
        codec.len,
        flagsOf(how),
        0o600,
        0,
        timeout,
        &fault,
    );
    if (result > 0) handle = @intCast(result);
    return @min(result, 1);
}

fn put(key: []const u8, value: []const u8) i32 {
    const key_len: u32 = @intCast(key.len);
    const len: u32 = @intCast(value.len);
    return abi.map.shm_map_put(handle, key.ptr, key_len, value.ptr, len, text_kind);
}

fn get(key: []const u8) i32 {
    return abi.map.shm_map_get(handle, key.ptr, @intCast(key.len), &room, room.len);
}

fn add(key: []const u8, times: f64) i32 {
    var i: f64 = 0;
    while (i < times) : (i += 1) {
        const locked = abi.lock.shm_lock_acquire(handle, 0, 20_000);
        if (locked < 0) return locked;
        const len = get(key);
        const before = if (len < 0) 0 else number(room[0..@intCast(len)]);
        var buffer: [32]u8 = undefined;
        const next = std.fmt.bufPrint(&buffer, "{d}", .{before + 1}) catch unreachable; // fits
        const stored = put(key, next);
        if (stored < 0) return stored;
        _ = abi.lock.shm_lock_release(handle, 0);
    }
    return 0;
}

fn answer(line: []const u8) i32 {
    var words = std.mem.tokenizeScalar(u8, line, ' ');
    const Command = enum { open, put, get, size, lock, unlock, add, verify, close, unlink };
    const command = std.meta.stringToEnum(Command, text(words.next())) orelse return -17;
    const first = text(words.next());
    return switch (command) {
        .open => open(first, text(words.next()), number(words.next())),
        .put => put(first, text(words.next())),
        .get => get(first),
        .size => @intFromFloat(abi.map.shm_map_size(handle)),
        .lock => abi.lock.shm_lock_acquire(handle, 0, number(first)),
        .unlock => abi.lock.shm_lock_release(handle, 0),
        .add => add(first, number(words.next())),
        .verify => blk: {
            const len = abi.map.shm_map_verify(handle, 0, &room, room.len);
            if (len < 0) break :blk len;
            const problems: f64 = @bitCast(room[0..8].*);
            const busy: f64 = @bitCast(room[40..48].*);
            break :blk @intFromFloat(problems + busy);
        },
        .close => abi.segment.shm_segment_close(handle),
        .unlink => unlink(first),
    };
}

pub fn main(init: std.process.Init) !void {
    var in_buffer: [4096]u8 = undefined;
    var out_buffer: [8192]u8 = undefined;
    var in = std.Io.File.stdin().reader(init.io, &in_buffer);
    var out = std.Io.File.stdout().writer(init.io, &out_buffer);
    while (in.interface.takeDelimiter('\n') catch null) |line| {
        const result = answer(line);
        try out.interface.print("{d}", .{result});
        if (std.mem.startsWith(u8, line, "get ") and result >= 0)
            try out.interface.print(" {s}", .{room[0..@intCast(result)]});
        try out.interface.writeAll("\n");
        try out.interface.flush();
    }
}
