//! A native process among those of the mixed storm (storm.ts): writes and checks the text values of
//! `checked.ts` beside the two runtimes, in the same map, until it is killed, or, as a survivor,
//! until it is told to stop.
//!
//!     shmap-proof-plain storm beside <map> <lane> <base> [survive]
//!
//! Operation `n` stores sequence `base + n` under one of eight keys, after a dot on standard
//! output; so its killer knows which the last one was. Each eighth stores under the lock.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const oracles = @import("oracle.zig");
const workers = @import("worker.zig");

const linux = std.os.linux;
const Map = shmap.map.Map;
const Worker = workers.Worker;

/// The kind byte of a string of ASCII.
const ascii_kind = 3;
const key_count = 8;

var key_buffer: [64]u8 = undefined;
var value_buffer: [8192]u8 = undefined;
var found_buffer: [1 << 17]u8 = undefined;

fn checksum(text: []const u8) u32 {
    return std.hash.Fnv1a_32.hash(text);
}

/// As `checkedValue` makes it.
fn valueOf(key: []const u8, sequence: u64, bytes: usize) []const u8 {
    const head = std.fmt.bufPrint(&value_buffer, "{s}|{d}|", .{ key, sequence }) catch unreachable;
    const body = value_buffer[0..@max(head.len, bytes -| 9)];
    @memset(body[head.len..], 'a' + @as(u8, @intCast(sequence % 26)));
    const sum = checksum(body);
    const tail = std.fmt.bufPrint(value_buffer[body.len..], "|{x:0>8}", .{sum}) catch unreachable;
    return value_buffer[0 .. body.len + tail.len];
}

/// As `checkedSequence` does: whether a value is whole and of this key.
fn isWhole(key: []const u8, value: []const u8) bool {
    const cut = std.mem.lastIndexOfScalar(u8, value, '|') orelse return false;
    const sum = std.fmt.parseInt(u32, value[cut + 1 ..], 16) catch return false;
    if (!std.mem.startsWith(u8, value, key) or value[key.len] != '|') return false;
    return sum == checksum(value[0..cut]);
}

fn say(text: []const u8) void {
    _ = linux.write(1, text.ptr, text.len);
}

fn look(worker: *Worker, map: *Map, key: []const u8) !void {
    worker.begin(.get);
    const value = try calls.get(map, key, &found_buffer, 0) orelse return worker.end();
    worker.end();
    worker.oracle.count(.reads, 1);
    if (value.kind != ascii_kind or !isWhole(key, found_buffer[0..value.len]))
        worker.violate(.torn_value, .{ value.len, value.version, 0, 0 });
}

fn lookAround(worker: *Worker, map: *Map) !void {
    for (0..4) |_| {
        const lane = worker.random.uintLessThan(u32, 8);
        const kind = if (worker.random.boolean()) "hot" else "wide";
        const n = worker.random.uintLessThan(u32, 12);
        const key = std.fmt.bufPrint(&key_buffer, "lane {d} {s}-{d}", .{ lane, kind, n }) catch
            unreachable;
        try look(worker, map, key);
    }
}

fn operate(worker: *Worker, map: *Map, lane: []const u8, base: u64, n: u64) !void {
    const index = n % key_count;
    const key = std.fmt.bufPrint(&key_buffer, "native {s} {d}", .{ lane, index }) catch
        unreachable;
    const value = valueOf(key, base + n, n * 37 % 3000);
    var recovered = false;
    if (index == 0) {
        worker.begin(.lock);
        recovered = try calls.acquire(map, 20_000);
        worker.end();
    }
    worker.begin(.put);
    _ = try calls.put(map, key, value, ascii_kind, .none);
    worker.end();
    if (index == 0) {
        worker.begin(.unlock);
        calls.release(map, recovered); // a holder that can repair what was half done comes later
        worker.end();
    }
    try look(worker, map, key);
}

fn isStopped(map: *Map) !bool {
    return try calls.get(map, "stop", &.{}, 0) != null;
}

/// Works, and gives how much it did.
fn work(worker: *Worker, words: []const []const u8) !u64 {
    const map = try worker.open(words[0], .attach, null);
    const base = try std.fmt.parseInt(u64, words[2], 10);
    const survives = words.len > 3 and std.mem.eql(u8, words[3], "survive");
    var n: u64 = 0;
    while (!survives or n % 16 != 0 or !try isStopped(map)) : (n += 1) {
        if (!survives) say(".");
        try operate(worker, map, words[1], base, n);
        try lookAround(worker, map);
        if (survives) shmap.os.sleepNs(200_000);
    }
    worker.close(map);
    return n;
}

/// The whole program: 0 where all went well.
pub fn run(words: []const []const u8) !u8 {
    if (words.len < 3) return 2;
    _ = linux.prctl(@intFromEnum(linux.PR.SET_PDEATHSIG), @intFromEnum(linux.SIG.KILL), 0, 0, 0);
    const oracle = try shmap.testing.support.shared(oracles.Oracle);
    var source: std.Random.DefaultPrng = .init(shmap.os.randomWord());
    var worker: Worker = .{
        .oracle = oracle,
        .slot = 0,
        .incarnation = 0,
        .parent = 0,
        .random = source.random(),
        .value = &value_buffer,
        .found = &found_buffer,
        .figures = workers.openFigures(),
    };
    const writes = work(&worker, words) catch |err| {
        std.debug.print("native: {t}\n", .{err});
        return 1;
    };
    return if (try tell(oracle, writes)) 0 else 1;
}

/// Says how it went, with all long waits, which are the orchestrator's to judge: it knows when the
/// machine had no time. False: something happened that must not.
fn tell(oracle: *const oracles.Oracle, writes: u64) !bool {
    var longest: u64 = 0;
    for (oracle.longest_ns) |ns| longest = @max(longest, ns);
    var buffer: [4096]u8 = undefined;
    var line: std.Io.Writer = .fixed(&buffer);
    try line.print("\n{{\"request\":1,\"value\":{{\"reads\":{d},\"writes\":{d},\"ms\":{d}", .{
        oracle.counted(.reads), writes, longest / std.time.ns_per_ms,
    });
    try line.writeAll(",\"slow\":[");
    var separator: []const u8 = "";
    var fine = true;
    for (oracle.violations[0..@min(oracle.violation_count, 32)]) |*violation| {
        const kind: oracles.Kind = @enumFromInt(violation.kind);
        if (kind != .waited_too_long) {
            std.debug.print("native: {t} {any}\n", .{ kind, violation.details });
            fine = false;
            continue;
        }
        try line.print("{s}{{\"call\":\"{t}\",\"ms\":{d},\"until\":{d}}}", .{
            separator,            @as(oracles.Call, @enumFromInt(violation.details[0])),
            violation.details[1], violation.details[2],
        });
        separator = ",";
    }
    try line.writeAll("]}}\n");
    say(line.buffered());
    return fine;
}
