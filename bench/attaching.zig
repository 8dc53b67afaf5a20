//! What it costs to make a segment, and to attach to one: beside another writer, as the only one,
//! and as the first after the only one was killed in the middle of writing, when everything is
//! checked. In time that the first call takes; pages are touched by later ones.

const std = @import("std");
const linux = std.os.linux;
const abi = @import("shmap").abi;
const figures = @import("figures.zig");

const Flags = @import("shmap").marshal.Flags;
const Row = figures.Row;

const directory = "/dev/shm";
const passes_max = figures.passes_max;
const repeats_max = 32;

const Sizes = struct {
    entries: [2]u64,
    passes: usize,
    repeats: usize,
    kills: usize,

    const whole: Sizes = .{ .entries = .{ 1000, 100_000 }, .passes = 7, .repeats = 30, .kills = 3 };
    const smoke: Sizes = .{ .entries = .{ 10, 1000 }, .passes = 2, .repeats = 3, .kills = 1 };
};

/// The names in use, as files; a signal that ends the bench removes them.
const Names = struct {
    const count = 3;

    paths: [count][64:0]u8 = undefined,

    /// The segments with few and with many entries, and one that comes and goes.
    fn choose(names: *Names) void {
        for (&names.paths, 0..) |*path, i| {
            const parts = .{ directory, linux.getpid(), i };
            _ = std.fmt.bufPrintZ(path, "{s}/shmap-bench-{d}-{d}", parts) catch unreachable;
        }
        const ends = [_]linux.SIG{ .INT, .TERM, .HUP, .ABRT };
        for (ends) |signal| std.posix.sigaction(signal, &.{
            .handler = .{ .handler = clean },
            .mask = std.posix.sigemptyset(),
            .flags = linux.SA.RESETHAND,
        }, null);
    }

    fn clean(signal: linux.SIG) callconv(.c) void {
        all.remove();
        _ = linux.kill(linux.getpid(), signal);
    }

    fn remove(names: *const Names) void {
        for (&names.paths) |*path| _ = linux.unlink(path);
    }

    fn name(names: *const Names, index: usize) []const u8 {
        const path = std.mem.sliceTo(&names.paths[index], 0);
        return path[directory.len + 1 ..];
    }
};

var all: Names = .{};

fn open(index: usize, flag: Flags) u32 {
    const name = all.name(index);
    const len: u32 = @intCast(name.len);
    const codec = figures.codec;
    const flags = @intFromEnum(flag);
    return figures.must(abi.segment.shm_segment_open(
        directory,
        directory.len,
        name.ptr,
        len,
        codec,
        codec.len,
        flags,
        0o600,
        0,
        60_000,
        null,
    ));
}

fn close(handle: u32) void {
    _ = figures.must(abi.segment.shm_segment_close(handle));
}

fn microseconds(from: u64) f64 {
    return @as(f64, @floatFromInt(figures.now() - from)) / 1000;
}

/// The time of one attach, in microseconds.
fn timeAttach(index: usize) f64 {
    const from = figures.now();
    const handle = open(index, .modeAttach);
    const time = microseconds(from);
    close(handle);
    return time;
}

fn timeMany(index: usize, repeats: usize) f64 {
    var times: [repeats_max]f64 = undefined;
    for (times[0..repeats]) |*time| time.* = timeAttach(index);
    return figures.median(times[0..repeats]);
}

/// A process with both segments open, which closes them when it is told to.
const Holder = struct {
    /// 1: they are open, 2: close them.
    word: *u64,
    pid: linux.pid_t = 0,

    fn start(holder: *Holder) void {
        @atomicStore(u64, holder.word, 0, .release);
        holder.pid = figures.fork(holder, hold);
        while (@atomicLoad(u64, holder.word, .acquire) == 0) figures.sleep(100);
    }

    fn hold(holder: *Holder) void {
        const handles = [_]u32{ open(0, .modeAttach), open(1, .modeAttach) };
        @atomicStore(u64, holder.word, 1, .release);
        while (@atomicLoad(u64, holder.word, .acquire) != 2) figures.sleep(100);
        for (handles) |handle| close(handle);
    }

    fn stop(holder: *Holder) void {
        @atomicStore(u64, holder.word, 2, .release);
        var how: u32 = 0;
        while (linux.errno(linux.waitpid(holder.pid, &how, 0)) == .INTR) {}
    }
};

const Victim = struct {
    index: usize,
    entries: u64,
    /// How many values it has stored.
    count: *u64,

    fn write(victim: *const Victim) void {
        const handle = open(victim.index, .modeAttach);
        var random: std.Random.DefaultPrng = .init(figures.now());
        while (true) {
            const key: figures.Key = .of(random.random().uintLessThan(u64, victim.entries));
            _ = figures.put(handle, key.slice(), &figures.value);
            @atomicStore(u64, victim.count, victim.count.* + 1, .release);
        }
    }
};

/// The time of an attach behind a writer that was killed while it wrote at full speed.
fn timeAfterKill(victim: Victim, random: std.Random) f64 {
    @atomicStore(u64, victim.count, 0, .release);
    const pid = figures.fork(&victim, Victim.write);
    while (@atomicLoad(u64, victim.count, .acquire) == 0) figures.sleep(100);
    figures.sleep(1000 + random.uintLessThan(u64, 5000));
    figures.end(pid);
    return timeAttach(victim.index);
}

const Times = struct { beside: [passes_max]f64, alone: [passes_max]f64, recover: [passes_max]f64 };

fn timeCreate(is_named: bool, repeats: usize) f64 {
    var times: [repeats_max]f64 = undefined;
    for (times[0..repeats]) |*time| {
        const from = figures.now();
        const handle = if (is_named) open(2, .modeCreate) else figures.anonymous(0);
        time.* = microseconds(from);
        if (is_named) _ = figures.must(abi.segment.shm_segment_unlink(handle));
        close(handle);
    }
    return figures.median(times[0..repeats]);
}

fn report(sizes: Sizes, times: *[2]Times, creates: *[2][passes_max]f64) void {
    const passes = sizes.passes;
    for (sizes.entries, times) |entries, *of| {
        inline for (.{
            .{ "attach beside another writer", &of.beside },
            .{ "attach as the only writer", &of.alone },
            .{ "attach after the only writer was killed", &of.recover },
        }) |row| {
            Row.of("processes", row[0], "shmap").with("entries", entries)
                .passes("us", .least, row[1][0..passes]);
        }
    }
    Row.of("processes", "create, named", "shmap").passes("us", .least, creates[0][0..passes]);
    Row.of("processes", "create, anonymous", "shmap").passes("us", .least, creates[1][0..passes]);
}

pub fn run(is_smoke: bool) void {
    const sizes: Sizes = if (is_smoke) .smoke else .whole;
    all.choose();
    defer all.remove();
    for (sizes.entries, 0..) |entries, i| {
        const handle = open(i, .modeCreate);
        figures.fill(handle, entries);
        close(handle);
    }
    var times: [2]Times = undefined;
    var creates: [2][passes_max]f64 = undefined;
    var random: std.Random.DefaultPrng = .init(figures.now());
    var holder: Holder = .{ .word = &figures.shared(u64, 1)[0] };
    const count = &figures.shared(u64, 1)[0];
    for (0..sizes.passes) |pass| {
        holder.start();
        for (&times, 0..) |*of, i| of.beside[pass] = timeMany(i, sizes.repeats);
        holder.stop();
        for (&times, 0..) |*of, i| {
            of.alone[pass] = timeMany(i, sizes.repeats);
            const victim: Victim = .{ .index = i, .entries = sizes.entries[i], .count = count };
            var kills: [repeats_max]f64 = undefined;
            for (kills[0..sizes.kills]) |*kill| kill.* = timeAfterKill(victim, random.random());
            of.recover[pass] = figures.median(kills[0..sizes.kills]);
        }
        for (&creates, 0..) |*of, i| of[pass] = timeCreate(i == 0, sizes.repeats);
    }
    report(sizes, &times, &creates);
}
