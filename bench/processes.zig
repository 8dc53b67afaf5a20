//! What several processes that share one map get done: together, beside a writer at full speed, and
//! beside one that was stopped in the middle; how soon one sees what another has stored; what large
//! reads lose beside a writer of other keys (large_reads.zig); and what attaching costs
//! (attaching.zig).

const std = @import("std");
const linux = std.os.linux;
const abi = @import("shmap").abi;
const attaching = @import("attaching.zig");
const crews = @import("crew.zig");
const figures = @import("figures.zig");
const large_reads = @import("large_reads.zig");

const Crew = crews.Crew;
const Job = crews.Job;
const Latency = figures.Latency;
const Row = figures.Row;

const Sizes = struct {
    /// Few enough for the caches of any machine, and as many as fill some.
    keys: [2]u64,
    passes: usize,
    run_us: u64,
    /// Of runs that look at the clock.
    timed_us: u64,
    /// Stops of the writer in each pass, and how long each lasts.
    stops: usize,
    stop_us: u64,
    sightings: usize,

    const whole: Sizes = .{
        .keys = .{ 10_000, 100_000 },
        .passes = 5,
        .run_us = 300_000,
        .timed_us = 100_000,
        .stops = 12,
        .stop_us = 20_000,
        .sightings = 20_000,
    };
    const smoke: Sizes = .{
        .keys = .{ 100, 1000 },
        .passes = 2,
        .run_us = 5000,
        .timed_us = 5000,
        .stops = 2,
        .stop_us = 1000,
        .sightings = 500,
    };
};

const passes_max = figures.passes_max;
const counts = [_]usize{ 1, 2, 4 };

const Bench = struct {
    sizes: Sizes,
    keys: u64,
    crew: *const Crew,
    tick_ns: f64,
    turns: *Turns,

    fn row(bench: Bench, case: []const u8, who: []const u8) Row {
        return Row.of("processes", case, who).with("keys", bench.keys)
            .with("value", figures.value_bytes);
    }

    fn jobsOf(work: crews.Work, count: usize, is_timed: bool) [crews.seats_max]Job {
        const is_shared_out = switch (work) {
            .write, .plain_write, .locked_write => true,
            else => false,
        };
        var jobs: [crews.seats_max]Job = undefined;
        for (&jobs, 0..) |*job, i| job.* = .{
            .work = work,
            .share = if (is_shared_out) @intCast(i) else 0,
            .shares = if (is_shared_out) @intCast(count) else 1,
            .is_timed = is_timed,
        };
        return jobs;
    }

    /// What one, two and four processes get done, and how much more that is than one alone does.
    fn scale(bench: Bench, case: []const u8, who: []const u8, work: crews.Work) void {
        var rates: [counts.len][passes_max]f64 = undefined;
        const passes = bench.sizes.passes;
        bench.turns.measure();
        for (0..passes) |pass| {
            for (counts, &rates) |count, *rate| {
                const jobs = jobsOf(work, count, false);
                rate[pass] = bench.crew.run(jobs[0..count], bench.sizes.run_us);
            }
        }
        var name: [64]u8 = undefined;
        const times = std.fmt.bufPrint(&name, "{s}, times one process", .{case}) catch unreachable;
        for (counts[1..], rates[1..]) |count, *rate| {
            bench.row(times, who).with("processes", count)
                .ratio(rate[0..passes], rates[0][0..passes]);
        }
        for (counts, &rates) |count, *rate| {
            bench.row(case, who).with("processes", count).passes("ops/s", .most, rate[0..passes]);
        }
    }

    /// How long single operations take, in runs of their own: looking at the clock takes as long as
    /// half an operation.
    fn time(bench: Bench, case: []const u8, work: crews.Work) void {
        var gets: [counts.len]Latency = @splat(.{});
        var sets: [counts.len]Latency = @splat(.{});
        for (0..bench.sizes.passes) |_| {
            for (counts, &gets, &sets) |count, *get, *set| {
                const jobs = jobsOf(work, count, true);
                _ = bench.crew.run(jobs[0..count], bench.sizes.timed_us);
                get.add(&bench.crew.timesOf(.gets, count), bench.tick_ns);
                set.add(&bench.crew.timesOf(.sets, count), bench.tick_ns);
            }
        }
        inline for (.{ "get", "set" }, .{ &gets, &sets }) |operation, all| {
            for (counts, all) |count, *latency| {
                if (latency.longest > 0) bench.row(case, "shmap").with("operation", operation)
                    .with("processes", count).percentiles("ns", latency);
            }
        }
    }

    /// A reader alone, beside a writer at full speed, and beside one that writes to another map,
    /// which shows what a busy neighbour costs by itself.
    fn storm(bench: Bench) void {
        const passes = bench.sizes.passes;
        var rates: [3][passes_max]f64 = undefined;
        var writes: [passes_max]f64 = undefined;
        const beside = [_]?crews.Work{ null, .write, .write_elsewhere };
        for (0..passes) |pass| {
            for (beside, &rates) |other, *rate| {
                const jobs = [_]Job{ .{ .work = .read }, .{ .work = other orelse .read } };
                const used = jobs[0..if (other == null) 1 else 2];
                bench.crew.start(used);
                const before = bench.crew.operations(1);
                rate[pass] = bench.crew.rateOf(0, bench.sizes.run_us);
                const count: f64 = @floatFromInt(bench.crew.operations(1) - before);
                bench.crew.stop(used);
                const seconds = @as(f64, @floatFromInt(bench.sizes.run_us)) / 1e6;
                if (other == .write) writes[pass] = count / seconds;
            }
        }
        const case = "a reader beside a writer at full speed";
        bench.row(case ++ ", times alone", "shmap").ratio(rates[1][0..passes], rates[0][0..passes]);
        const elsewhere = "a reader beside a writer to another map, times alone";
        bench.row(elsewhere, "floor").ratio(rates[2][0..passes], rates[0][0..passes]);
        bench.row("a reader alone", "shmap").passes("ops/s", .most, rates[0][0..passes]);
        bench.row(case, "shmap").passes("ops/s", .most, rates[1][0..passes]);
        bench.row("that writer", "shmap").passes("ops/s", .most, writes[0..passes]);
    }

    /// A reader that goes on all the time: alone, and while the writer stands still
    /// wherever the signal met it.
    fn stops(bench: Bench) void {
        const passes = bench.sizes.passes;
        var random: std.Random.DefaultPrng = .init(figures.now());
        var idle: [passes_max]f64 = undefined;
        var stopped: [passes_max]f64 = undefined;
        const jobs = [_]Job{ .{ .work = .read }, .{ .work = .write } };
        for (0..passes) |pass| {
            var sums: [2]f64 = @splat(0);
            for (0..bench.sizes.stops) |_| {
                bench.crew.start(jobs[0..1]);
                sums[0] += bench.crew.rateOf(0, bench.sizes.stop_us);
                bench.crew.stop(jobs[0..1]);
                bench.crew.start(&jobs);
                figures.sleep(500 + random.random().uintLessThan(u64, 2000));
                halt(bench.crew.pids[1]);
                sums[1] += bench.crew.rateOf(0, bench.sizes.stop_us);
                _ = linux.kill(bench.crew.pids[1], .CONT);
                bench.crew.stop(&jobs);
            }
            const count: f64 = @floatFromInt(bench.sizes.stops);
            idle[pass] = sums[0] / count;
            stopped[pass] = sums[1] / count;
        }
        const total = passes * bench.sizes.stops;
        const case = "a reader beside a stopped writer";
        bench.row(case ++ ", times alone", "shmap").with("stops", total)
            .ratio(stopped[0..passes], idle[0..passes]);
        bench.row(case, "shmap").with("stops", total)
            .passes("ops/s", .most, stopped[0..passes]);
    }

    fn halt(pid: linux.pid_t) void {
        _ = linux.kill(pid, .STOP);
        var how: u32 = 0;
        while (linux.errno(linux.waitpid(pid, &how, linux.W.UNTRACED)) == .INTR) {}
        if (!linux.W.IFSTOPPED(how)) @panic("the writer ended");
    }
};

/// How long a word takes from one core to another and back, halved: what everything that two
/// processes write in turns is made of. It depends on where a host puts the cores of its guest, so
/// each case of `scale` adds a pass.
const Turns = struct {
    passes: [figures.passes_max]f64 = undefined,
    count: usize = 0,
    words: []u64,

    const turns_count = 20_000;

    fn measure(turns: *Turns) void {
        if (crews.coreCount() < 2) return;
        const word = &turns.words[0];
        @atomicStore(u64, word, 0, .release);
        crews.pin(0);
        defer crews.unpin();
        const pid = figures.fork(word, answer);
        defer figures.end(pid);
        take(word, 0, 1000);
        const from = figures.now();
        take(word, 1000, turns_count);
        const ns: f64 = @floatFromInt(figures.now() - from);
        turns.passes[turns.count] = ns / turns_count / 2;
        turns.count += 1;
    }

    fn report(turns: *Turns) void {
        const row = Row.of("processes", "a word from one process to another", "floor");
        const passes = turns.passes[0..turns.count];
        if (passes.len == 0) return row.with("skipped", "there is one core").write();
        row.with("worst", std.mem.max(f64, passes)).passes("ns", .least, passes);
    }

    /// Makes the even numbers odd, as `answer` makes the odd ones even.
    fn take(word: *u64, first: u64, count: u64) void {
        for (first..first + count) |n| {
            while (@atomicLoad(u64, word, .acquire) != 2 * n) {}
            @atomicStore(u64, word, 2 * n + 1, .release);
        }
        while (@atomicLoad(u64, word, .acquire) != 2 * (first + count)) {}
    }

    fn answer(word: *u64) void {
        crews.pin(1);
        while (true) {
            const seen = @atomicLoad(u64, word, .acquire);
            if (seen % 2 == 1) @atomicStore(u64, word, seen + 1, .release);
        }
    }
};

/// What looking at the clock around nothing says: it is part of every latency.
fn timeClock(bench: Bench) void {
    const times = &figures.shared(figures.Histogram, 1)[0];
    var latency: Latency = .{};
    for (0..bench.sizes.passes) |_| {
        times.* = .empty;
        for (0..100_000) |_| {
            const from = figures.ticks();
            times.add(figures.ticks() - from);
        }
        latency.add(times, bench.tick_ns);
    }
    Row.of("processes", "the clock of the latencies", "floor").percentiles("ns", &latency);
}

/// What is stored to be seen: which one it is, and when its `set` began.
const Note = extern struct { number: u64, at: u64, _rest: [2]u64 = @splat(0) };

const Watch = struct {
    token: figures.Token,
    key: figures.Key,
    times: *figures.Histogram,
    last: *u64,

    fn watch(example: *const Watch) void {
        crews.pin(1);
        const handle = example.token.attach();
        var seen: u64 = 0;
        while (true) {
            var target: [@sizeOf(Note) + 8]u8 align(8) = undefined; // room for the kind, too
            _ = figures.get(handle, example.key.slice(), &target);
            const note: *const Note = @ptrCast(&target);
            if (note.number == seen) continue;
            example.times.add(figures.now() - note.at);
            seen = note.number;
            @atomicStore(u64, example.last, seen, .release);
        }
    }
};

/// From just before `set` until a process on another core that asks all the time has been given the
/// value.
fn timeSightings(bench: Bench, map: u32) void {
    const watch: Watch = .{
        .token = .of(map),
        .key = .of(1),
        .times = &figures.shared(figures.Histogram, 1)[0],
        .last = &figures.shared(u64, 1)[0],
    };
    const first: Note = .{ .number = 0, .at = 0 };
    _ = figures.put(map, watch.key.slice(), std.mem.asBytes(&first));
    crews.pin(0);
    defer crews.unpin();
    const pid = figures.fork(&watch, Watch.watch);
    defer figures.end(pid);
    var latency: Latency = .{};
    var random: std.Random.DefaultPrng = .init(1);
    var number: u64 = 0;
    // One more pass at first, which only warms up.
    for (0..bench.sizes.passes + 1) |pass| {
        watch.times.* = .empty;
        for (0..bench.sizes.sightings) |_| {
            number += 1;
            const note: Note = .{ .number = number, .at = figures.now() };
            _ = figures.put(map, watch.key.slice(), std.mem.asBytes(&note));
            figures.spin(2 + random.random().uintLessThan(u64, 6));
        }
        const until = figures.now() + 10 * std.time.ns_per_s;
        while (@atomicLoad(u64, watch.last, .acquire) != number) {
            if (figures.now() > until) @panic("a value is not seen");
            figures.sleep(50);
        }
        if (pass > 0) latency.add(watch.times, 1);
    }
    bench.row("from a set until another process sees it", "shmap").percentiles("ns", &latency);
}

/// Everything but what opens maps of its own; the floors and the latencies for one number of keys
/// only.
fn run(sizes: Sizes, keys: u64, turns: *Turns, is_long: bool) void {
    const map = figures.anonymous(0);
    defer _ = abi.segment.shm_segment_close(map);
    figures.fill(map, keys);
    const crew: Crew = .hire(map, keys);
    const bench: Bench = .{
        .sizes = sizes,
        .keys = keys,
        .crew = &crew,
        .tick_ns = figures.tickNs(),
        .turns = turns,
    };
    bench.scale("reading", "shmap", .read);
    bench.scale("writing different keys", "shmap", .write);
    bench.scale("writing the same key", "shmap", .write_same);
    bench.scale("mixed, 5 % writing", "shmap", .mix);
    bench.storm();
    bench.stops();
    if (is_long) {
        bench.scale("reading", "floor", .plain_read);
        bench.scale("writing different keys", "floor", .plain_write);
        bench.scale("writing different keys", "floor, locked", .locked_write);
        timeClock(bench);
        bench.time("reading, latency", .read);
        bench.time("writing different keys, latency", .write);
        bench.time("writing the same key, latency", .write_same);
        bench.time("mixed, 5 % writing, latency", .mix);
    }
    crew.dismiss();
    if (is_long) timeSightings(bench, map);
}

pub fn main(init: std.process.Init.Minimal) void {
    const is_smoke = figures.isSmoke(init);
    const sizes: Sizes = if (is_smoke) .smoke else .whole;
    var turns: Turns = .{ .words = figures.shared(u64, 1) };
    for (sizes.keys, 0..) |keys, i| run(sizes, keys, &turns, i == sizes.keys.len - 1);
    turns.report();
    attaching.run(is_smoke);
    large_reads.run(is_smoke);
}
