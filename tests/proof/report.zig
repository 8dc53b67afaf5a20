//! How a part of the proof is told its size and seed, and how it says what it tried and found.
//!
//!     shmap-proof-<program> <part> [--scale <n>] [--seed <n>] [words …]
//!
//! A row is one line of JSON on standard output, which `run.mjs` collects into its table, and after
//! it comes a line that says which exported functions were called how often until then; the rest
//! goes to standard error.

const std = @import("std");
const calls = @import("shmap").testing.calls;

/// One line of the table.
pub const Row = struct {
    /// The number of the part, 1 to 10.
    part: u8,
    /// What was tried, in a few words: "crash images".
    what: []const u8,
    tried: u64,
    /// How many of them went wrong.
    found: u64,
    /// The fewest that count as a proof.
    least: u64,
    /// What replays the run; null where nothing is random.
    seed: ?u64 = null,
    /// More figures, for people.
    note: []const u8 = "",
};

pub const Arguments = struct {
    /// A multiple of the sizes of `npm run proof`; less than 1 for a quick look.
    scale: f64 = 1,
    seed: u64,
    /// What is left of the command line.
    words: []const []const u8,

    pub fn of(init: std.process.Init) !Arguments {
        try calls.share(); // with children that are forked later
        const all = try init.minimal.args.toSlice(init.arena.allocator());
        var words: std.ArrayList([]const u8) = .empty;
        var seed: [8]u8 = undefined;
        _ = std.os.linux.getrandom(&seed, seed.len, 0);
        // Small enough that JavaScript keeps every digit.
        var arguments: Arguments = .{ .seed = @as(u64, @bitCast(seed)) >> 16, .words = &.{} };
        var i: usize = 2; // behind the program and the part
        while (i < all.len) : (i += 1) {
            if (std.mem.eql(u8, all[i], "--scale")) {
                i += 1;
                arguments.scale = try std.fmt.parseFloat(f64, all[i]);
            } else if (std.mem.eql(u8, all[i], "--seed")) {
                i += 1;
                arguments.seed = try std.fmt.parseInt(u64, all[i], 10);
            } else try words.append(init.arena.allocator(), all[i]);
        }
        arguments.words = words.items;
        return arguments;
    }

    /// A size of `npm run proof`, at this run's scale; at least 1.
    pub fn scaled(arguments: *const Arguments, size: u64) u64 {
        const wanted = @as(f64, @floatFromInt(size)) * arguments.scale;
        return @max(1, @as(u64, @intFromFloat(wanted)));
    }
};

/// Runs the part that the first argument names; with the exit code of its `main`, where that has
/// one.
pub fn runPart(parts: anytype, init: std.process.Init) !u8 {
    const words = try init.minimal.args.toSlice(init.arena.allocator());
    inline for (comptime std.meta.fieldNames(@TypeOf(parts))) |name| {
        if (words.len > 1 and std.mem.eql(u8, words[1], name)) {
            const code = try @field(parts, name).main(init);
            return if (@TypeOf(code) == u8) code else 0;
        }
    }
    std.debug.print("no part has that name\n", .{});
    return 2;
}

/// Says one row.
pub fn say(io: std.Io, row: Row) !void {
    var buffer: [4096]u8 = undefined;
    var out = std.Io.File.stdout().writerStreaming(io, &buffer);
    try std.json.Stringify.value(row, .{}, &out.interface);
    try out.interface.writeAll("\n");
    try writeCalls(&out.interface);
    try out.interface.flush();
}

/// `{"calls":{"shm_map_put":{"robust":12,"kernel":3}}}`
fn writeCalls(out: *std.Io.Writer) !void {
    try out.writeAll("{\"calls\":{");
    var is_first = true;
    for (std.enums.values(calls.Function)) |function| {
        for (std.enums.values(calls.On), 0..) |on, i| {
            const total = calls.count(function, on);
            if (i == 0) {
                try out.print("{s}\"{t}\":{{", .{ if (is_first) "" else ",", function });
                is_first = false;
            }
            try out.print("{s}\"{t}\":{d}", .{ if (i == 0) "" else ",", on, total });
        }
        try out.writeAll("}");
    }
    try out.writeAll("}}\n");
}
