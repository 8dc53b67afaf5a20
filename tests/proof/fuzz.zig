//! What AFL++ runs, many thousand times in one process: an input is a list of changes to the image
//! of a segment, and what is then done with it. `fuzz.mjs` builds, feeds and watches it.
//!
//!     shmap-proof-fuzz seeds <directory>     writes inputs to begin with
//!     shmap-proof-fuzz replay <hex>          runs one input, and says where it fails

const std = @import("std");
const linux = std.os.linux;
const shmap = @import("shmap");
const damage = @import("damage.zig");
const images = @import("images.zig");
const usage = @import("usage.zig");

const layout = shmap.layout;
const os = shmap.os;

pub const records_stores = true;
pub const std_options: std.Options = .{ .enable_segfault_handler = false };
/// A trace takes so long that a crash would pass for a hang.
pub const panic = std.debug.FullPanic(struct {
    fn tell(message: []const u8, address: ?usize) noreturn {
        if (replaying) std.debug.defaultPanic(message, address);
        std.process.abort();
    }
}.tell);

var replaying = false;

// AFL++: what tells it how to run us, and its side of that.
extern fn __afl_manual_init() void;
extern fn __afl_persistent_loop(count: c_uint) c_int;
extern var __afl_sharedmem_fuzzing: c_int;
extern var __afl_fuzz_ptr: ?[*]const u8;
extern var __afl_fuzz_len: ?*const u32;
const marks = [_][]const u8{ "##SIG_AFL_PERSISTENT##", "##SIG_AFL_DEFER_FORKSRV##" };

const loops = 20_000;
const input_bytes_max = 2048;
const changes_max = 12;
const acts_max = 24;

pub fn main(init: std.process.Init) !void {
    const all = try init.minimal.args.toSlice(init.arena.allocator());
    const gpa = init.arena.allocator();
    const fuzz: Fuzz = .{
        .images = try images.make(gpa),
        .bytes = try gpa.alignedAlloc(u8, .fromByteUnits(4096), 1 << 20),
    };
    if (all.len == 3 and std.mem.eql(u8, all[1], "seeds")) return writeSeeds(&fuzz, all[2]);
    if (all.len == 3 and std.mem.eql(u8, all[1], "replay")) {
        replaying = true;
        std.debug.attachSegfaultHandler();
        var input: [input_bytes_max]u8 = undefined;
        return fuzz.run(try std.fmt.hexToBytes(&input, all[2]));
    }
    for (marks) |mark| std.mem.doNotOptimizeAway(mark.ptr);
    __afl_sharedmem_fuzzing = 1;
    __afl_manual_init();
    while (__afl_persistent_loop(loops) != 0) {
        const len = (__afl_fuzz_len orelse return error.NotUnderAfl).*;
        try fuzz.run(__afl_fuzz_ptr.?[0..@min(len, input_bytes_max)]);
    }
}

/// Reads an input from its start to its end, and then as if noise followed.
const Input = struct {
    bytes: []const u8,
    at: usize = 0,
    noise: u64 = 0,

    fn byte(input: *Input) u8 {
        if (input.at < input.bytes.len) {
            input.at += 1;
            return input.bytes[input.at - 1];
        }
        input.noise +%= 0x9e3779b97f4a7c15;
        return @truncate((input.noise ^ input.noise >> 29) *% 0xbf58476d1ce4e5b9 >> 56);
    }

    fn number(input: *Input, comptime Number: type) Number {
        var bytes: [@sizeOf(Number)]u8 = undefined;
        for (&bytes) |*b| b.* = input.byte();
        return @bitCast(bytes);
    }

    fn fill(pointer: *anyopaque, target: []u8) void {
        const input: *Input = @ptrCast(@alignCast(pointer));
        // Choices are mostly small: one byte decides each, of every type.
        const seed = input.byte();
        for (target, 0..) |*b, i| b.* = if (i + 1 == target.len or input.at == input.bytes.len)
            seed +% @as(u8, @truncate(i * 167)) ^ @as(u8, @truncate(input.noise >> 40))
        else
            seed *% 31 +% @as(u8, @truncate(i));
    }

    fn random(input: *Input) std.Random {
        return .{ .ptr = input, .fillFn = fill };
    }
};

const Fuzz = struct {
    images: []const images.Image,
    bytes: []align(layout.page_bytes) u8,

    fn run(fuzz: *const Fuzz, bytes: []const u8) !void {
        var input: Input = .{ .bytes = bytes };
        const image = &fuzz.images[input.byte() % fuzz.images.len];
        @memcpy(fuzz.bytes[0..image.bytes.len], image.bytes);
        var len = image.bytes.len;
        const flags = input.byte();
        for (0..flags % (changes_max + 1)) |_|
            change(&input, image, fuzz.bytes[0..len]);
        const header: *layout.Header = @ptrCast(fuzz.bytes.ptr);
        if (flags & 16 != 0) header.checksum = layout.checksum(header);
        if (flags & 96 == 96) len = @min(len, @as(u64, input.number(u16)) * 16);
        try use(&input, image, fuzz.bytes[0..len], flags & 128 != 0);
    }
};

/// Changes one word, as some byte of the input says.
fn change(
    input: *Input,
    image: *const images.Image,
    bytes: []align(layout.page_bytes) u8,
) void {
    const words = std.mem.bytesAsSlice(u64, bytes);
    const how = input.byte();
    const word = if (how < 64)
        &words[input.number(u16) % words.len]
    else
        damage.wordAt(bytes, damage.placeIn(image, input.random()));
    word.* = switch (how % 8) {
        0, 1 => word.* ^ @as(u64, 1) << @intCast(how / 8 | (input.byte() & 1) << 5),
        2 => input.byte(),
        3 => input.number(u64),
        4 => word.* +% @as(u64, @bitCast(@as(i64, input.number(i8)))) *% 16,
        5 => words[input.number(u16) % words.len],
        6 => bytes.len -% @as(u64, input.byte()) * 8,
        else => @as(u64, input.number(u16)) * 16,
    };
}

/// The file of all inputs, one after the other, and the descriptor that is free beside it.
var memory: os.Fd = -1;
var lowest_free: usize = 0;

/// Attaches as any program would, uses, repairs and leaves.
fn use(input: *Input, image: *const images.Image, bytes: []const u8, readonly: bool) !void {
    var fault: shmap.status.Fault = .{};
    if (memory < 0) memory = try os.memoryFile(&fault);
    const file = memory;
    _ = linux.ftruncate(file, @intCast(bytes.len));
    if (linux.pwrite(file, bytes.ptr, bytes.len, 0) != bytes.len) return error.System;
    const id = if (bytes.len < 64) 0 else std.mem.readInt(u64, bytes[48..56], .little);
    var bounds: usage.Bounds = .{};
    shmap.atomics.observer = &bounds.observer;
    defer shmap.atomics.observer = null;
    var token: [100]u8 = undefined;
    const named = try std.fmt.bufPrint(&token, "fd:{d}:{d}:{x:0>16}", .{ os.pid(), file, id });
    const opening: usage.Opening = .{ .kind = image.kind, .readonly = readonly };
    const handle = usage.openToken(&bounds, named, opening) catch return;
    var acts: u32 = 0;
    while (input.at < input.bytes.len and acts < acts_max) : (acts += 1)
        usage.act(handle, image, input.random());
    if (usage.verify(handle, true)) |verdict| {
        if (verdict.problems == 0 and !readonly) expectSound(input, image, handle);
    }
    usage.close(&bounds, handle);
    const lowest = linux.dup(file);
    os.close(@intCast(lowest));
    if (lowest_free == 0) lowest_free = lowest;
    if (lowest != lowest_free) @panic("a descriptor is left open");
}

fn expectSound(input: *Input, image: *const images.Image, handle: u32) void {
    if (!usage.isWhole(handle)) @panic("not whole when repaired");
    usage.act(handle, image, input.random());
    const later = usage.verify(handle, false);
    if (later == null or later.?.problems != 0) @panic("unsound when used after a repair");
}

/// A few inputs of every form; what they lead to, AFL++ finds out.
fn writeSeeds(fuzz: *const Fuzz, directory: []const u8) !void {
    var random_of = std.Random.DefaultPrng.init(6);
    const random = random_of.random();
    for (0..fuzz.images.len) |i| {
        for (0..6) |n| {
            var bytes: [80]u8 = undefined;
            random.bytes(&bytes);
            bytes[0] = @intCast(i);
            bytes[1] = @intCast(n | n % 2 << 4);
            const path = try os.Path.of("{s}/{d}-{d}", .{ directory, i, n });
            var fault: shmap.status.Fault = .{};
            const file = try os.openNew(&fault, &path);
            defer os.close(file);
            if (linux.pwrite(file, &bytes, bytes.len, 0) != bytes.len) return error.System;
        }
    }
}
