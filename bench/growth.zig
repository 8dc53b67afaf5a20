//! A map that grows from nothing to ten million entries: what an insert costs on the way, how long
//! the longest takes and why, and how much memory the map has for what is in it.

const std = @import("std");
const abi = @import("shmap").abi;
const figures = @import("figures.zig");

const Histogram = figures.Histogram;
const Key = figures.Key;
const Latency = figures.Latency;
const Row = figures.Row;

const passes_max = figures.passes_max;
const decades_max = 8;

/// An insert this long is looked into.
const long_ns = 200 * std.time.ns_per_us;
/// Inserts between two looks at the thread's time and at the map's numbers, which say afterwards
/// what a long one was busy with. They lie between the inserts that are timed.
const look_share = 16;
const stats_share = 512;

const Sizes = struct {
    entries: u64,
    growths: usize,
    fills: [3]u64,
    passes: usize,

    const whole: Sizes = .{
        .entries = 10_000_000,
        .growths = 3,
        .fills = .{ 1000, 100_000, 1_000_000 },
        .passes = 5,
    };
    const smoke: Sizes = .{
        .entries = 100_000,
        .growths = 2,
        .fills = .{ 100, 1000, 10_000 },
        .passes = 2,
    };
};

/// What a segment says of itself: `inspect.Stats`.
const Stats = struct {
    words: [32]f64,

    fn of(map: u32) Stats {
        var stats: Stats = undefined;
        const bytes = std.mem.asBytes(&stats.words);
        _ = figures.must(abi.segment.shm_segment_stats(map, bytes, bytes.len));
        return stats;
    }

    fn allocated(stats: *const Stats) f64 {
        return stats.words[1];
    }

    fn committed(stats: *const Stats) f64 {
        return stats.words[2];
    }

    fn slots(stats: *const Stats) f64 {
        return stats.words[5];
    }

    /// Bytes of the stripes' chunks that are not free: entries and tables, and what was replaced
    /// and must wait.
    fn used(stats: *const Stats) f64 {
        return stats.words[7] - stats.words[8];
    }
};

fn close(map: u32) void {
    _ = figures.must(abi.segment.shm_segment_close(map));
}

fn float(n: u64) f64 {
    return @floatFromInt(n);
}

/// What an insert of the run was busy with beside itself.
const Cause = enum { file, table, both, neither };
const cause_count = @typeInfo(Cause).@"enum".fields.len;
const cause_names = [cause_count][]const u8{
    "growth of the file", "a new table", "growth of the file and a new table", "neither",
};

/// The long inserts of one growth, in nanoseconds.
const Pauses = struct {
    /// Longer than a millisecond, and longer than five: by the clock, and by the thread's time.
    counts: [2][2]f64 = @splat(@splat(0)),
    longest: f64 = 0,
    longest_cpu: f64 = 0,
    longest_at: u64 = 0,
    longest_cause: Cause = .neither,
    causes: [cause_count]f64 = @splat(0),

    fn add(pauses: *Pauses, ns: f64, cpu_ns: f64, at: u64, cause: Cause) void {
        for ([_]f64{ ns, cpu_ns }, &pauses.counts) |time, *counts| {
            for ([_]f64{ 1e6, 5e6 }, counts) |least, *count| {
                if (time > least) count.* += 1;
            }
        }
        const of_cause = &pauses.causes[@intFromEnum(cause)];
        of_cause.* = @max(of_cause.*, cpu_ns);
        pauses.longest_cpu = @max(pauses.longest_cpu, cpu_ns);
        if (ns <= pauses.longest) return;
        pauses.longest = ns;
        pauses.longest_at = at;
        pauses.longest_cause = cause;
    }
};

/// Inserts with a look at the clock around each.
fn growTimed(entries: u64, tick_ns: f64, times: *Histogram) Pauses {
    const map = figures.anonymous(0);
    defer close(map);
    const long_ticks: u64 = @intFromFloat(long_ns / tick_ns);
    times.* = .empty;
    var pauses: Pauses = .{};
    var before: Stats = .of(map);
    var cpu_before = figures.cpuTime();
    var key: Key = .of(0);
    for (0..entries) |i| {
        if (i % stats_share == 0) before = .of(map);
        if (i % look_share == 0) cpu_before = figures.cpuTime();
        const from = figures.ticks();
        _ = figures.put(map, key.slice(), &figures.value);
        const duration = figures.ticks() - from;
        times.add(duration);
        key.step();
        if (duration < long_ticks) continue;
        const cpu = figures.cpuTime();
        const after: Stats = .of(map);
        const has_grown = after.committed() != before.committed();
        const has_table = after.slots() != before.slots();
        const cause: Cause = if (has_grown and has_table)
            .both
        else if (has_grown) .file else if (has_table) .table else .neither;
        const ns = float(duration) * tick_ns;
        // The thread's time also has the few inserts since the last look.
        pauses.add(ns, @min(ns, float(cpu - cpu_before)), i, cause);
        cpu_before = cpu;
        before = after;
    }
    return pauses;
}

/// What inserts cost, without a look at the clock but at each power of ten. The last figure is that
/// of all.
fn growPlainly(entries: u64, marks: []const u64, costs: [][passes_max]f64, pass: usize) void {
    const map = figures.anonymous(0);
    defer close(map);
    var key: Key = .of(0);
    var count: u64 = 0;
    const begin = figures.now();
    for (marks, costs[0..marks.len]) |mark, *cost| {
        const first = count;
        const from = figures.now();
        while (count < mark) : (count += 1) {
            _ = figures.put(map, key.slice(), &figures.value);
            key.step();
        }
        cost[pass] = float(figures.now() - from) / float(count - first);
    }
    costs[marks.len][pass] = float(figures.now() - begin) / float(entries);
}

fn row(case: []const u8) Row {
    return Row.of("growth", case, "shmap");
}

fn benchCost(sizes: Sizes) void {
    var marks: [decades_max]u64 = undefined;
    var count: usize = 0;
    var mark = sizes.entries;
    while (mark >= 1000) : (mark /= 10) count += 1;
    for (0..count) |i| {
        marks[count - 1 - i] = mark * 10;
        mark *= 10;
    }
    std.mem.reverse(u64, marks[0..count]);
    var costs: [decades_max + 1][passes_max]f64 = undefined;
    for (0..sizes.growths) |pass|
        growPlainly(sizes.entries, marks[0..count], costs[0 .. count + 1], pass);
    row("insert").with("keys", sizes.entries)
        .passes("ns", .least, costs[count][0..sizes.growths]);
    for (marks[0..count], costs[0..count], 0..) |to, *cost, i| {
        const from: u64 = if (i == 0) 0 else marks[i - 1];
        row("insert, by decade").with("from", from).with("keys", to)
            .passes("ns", .least, cost[0..sizes.growths]);
    }
}

fn benchPauses(sizes: Sizes) void {
    const tick_ns = figures.tickNs();
    const times = &figures.shared(Histogram, 1)[0];
    var latency: Latency = .{};
    var longest: [passes_max]f64 = undefined;
    var longest_cpu: [passes_max]f64 = undefined;
    var counts: [2][2][passes_max]f64 = undefined;
    var causes: [cause_count][passes_max]f64 = undefined;
    var worst: Pauses = .{};
    const passes = sizes.growths;
    for (0..passes) |pass| {
        const pauses = growTimed(sizes.entries, tick_ns, times);
        latency.add(times, tick_ns);
        longest[pass] = float(times.longest) * tick_ns / 1e6;
        longest_cpu[pass] = pauses.longest_cpu / 1e6;
        for (&counts, pauses.counts) |*of, all| {
            for (of, all) |*passes_of, count| passes_of[pass] = count;
        }
        for (&causes, pauses.causes) |*of, ns| of[pass] = ns / 1e6;
        if (pauses.longest > worst.longest) worst = pauses;
    }
    row("insert, latency").with("keys", sizes.entries).percentiles("ns", &latency);
    row("longest insert").with("keys", sizes.entries).with("worst", worst.longest / 1e6)
        .with("worst_at", worst.longest_at)
        .with("worst_cause", cause_names[@intFromEnum(worst.longest_cause)])
        .passes("ms", .least, longest[0..passes]);
    reportWorst("longest insert, thread's time", sizes, "ms", longest_cpu[0..passes]);
    for (cause_names, &causes) |name, *of| {
        var text: [96]u8 = undefined;
        const parts = .{ "longest insert, thread's time: ", name };
        const case = std.fmt.bufPrint(&text, "{s}{s}", parts) catch unreachable; // it fits
        reportWorst(case, sizes, "ms", of[0..passes]);
    }
    for (&counts, [_][]const u8{ "", ", thread's time" }) |*by, suffix| {
        for (by, [_]u64{ 1, 5 }) |*of, ms| {
            var text: [96]u8 = undefined;
            const parts = .{ ms, suffix };
            const case = std.fmt.bufPrint(&text, "inserts over {d} ms{s}", parts) catch
                unreachable; // it fits
            reportWorst(case, sizes, "inserts", of[0..passes]);
        }
    }
}

fn reportWorst(case: []const u8, sizes: Sizes, unit: []const u8, values: []f64) void {
    row(case).with("keys", sizes.entries).with("worst", std.mem.max(f64, values))
        .passes(unit, .least, values);
}

/// The bytes of the keys and values, and 16 more for each entry.
fn payload(entries: u64) f64 {
    var bytes: u64 = entries * (figures.value_bytes + 16);
    var key: Key = .of(0);
    for (0..entries) |_| {
        bytes += key.len;
        key.step();
    }
    return float(bytes);
}

fn empty(map: u32, entries: u64) void {
    var key: Key = .of(0);
    for (0..entries) |_| {
        const was = abi.map.shm_map_delete(map, &key.bytes, key.len);
        if (figures.must(was) != 1) @panic("not there");
        key.step();
    }
}

/// The memory of a map with so many entries, and after all were deleted and as many inserted again.
fn benchMemory(entries: u64, passes: usize) void {
    const need = payload(entries);
    var allocated: [passes_max]f64 = undefined;
    var used: [passes_max]f64 = undefined;
    var emptied: [passes_max]f64 = undefined;
    var refilled: [passes_max]f64 = undefined;
    for (0..passes) |pass| {
        const map = figures.anonymous(0);
        defer close(map);
        figures.fill(map, entries);
        const full: Stats = .of(map);
        allocated[pass] = full.allocated() / need;
        used[pass] = full.used() / need;
        empty(map, entries);
        emptied[pass] = Stats.of(map).used();
        figures.fill(map, entries);
        refilled[pass] = Stats.of(map).allocated() / full.allocated();
    }
    const Figure = struct { []const u8, []const u8, []f64 };
    for ([_]Figure{
        .{ "allocated, times keys, values and 16", "x", allocated[0..passes] },
        .{ "in use, times keys, values and 16", "x", used[0..passes] },
        .{ "in use when all were deleted", "bytes", emptied[0..passes] },
        .{ "allocated when filled again, times before", "x", refilled[0..passes] },
    }) |figure| {
        row(figure[0]).with("keys", entries).with("worst", std.mem.max(f64, figure[2]))
            .passes(figure[1], .least, figure[2]);
    }
}

/// The memory of maps with little in them.
fn benchSmall(passes: usize) void {
    var nothing: [passes_max]f64 = undefined;
    var little: [passes_max]f64 = undefined;
    const bytes: [50]u8 = @splat('v');
    for (0..passes) |pass| {
        const map = figures.anonymous(0);
        defer close(map);
        nothing[pass] = Stats.of(map).allocated();
        var key: Key = .of(0);
        for (0..1000) |_| {
            _ = figures.put(map, key.slice(), &bytes);
            key.step();
        }
        little[pass] = Stats.of(map).allocated();
    }
    row("allocated, empty").passes("bytes", .least, nothing[0..passes]);
    row("allocated, values of 50 bytes").with("keys", 1000)
        .passes("bytes", .least, little[0..passes]);
}

pub fn main(init: std.process.Init.Minimal) void {
    const sizes: Sizes = if (figures.isSmoke(init)) .smoke else .whole;
    benchCost(sizes);
    benchPauses(sizes);
    for (sizes.fills) |entries| benchMemory(entries, sizes.passes);
    benchSmall(sizes.passes);
}
