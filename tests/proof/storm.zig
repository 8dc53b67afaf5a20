//! Kill storms among native processes: workers that open, read, write, lock, replace and unlink
//! named segments are killed at random moments, and each that comes after looks whether what the
//! dead one had acknowledged is there and nothing else happened.
//!
//!     shmap-proof-plain storm [--scale <n>] [--seed <n>]
//!     shmap-proof-plain storm beside …     one process of the mixed storm (storm/beside.zig)
//!
//! The seed decides what the workers do; when they are killed, and who runs, the machine decides.
//! A call counts as waiting for others for the time it took, less what this thread spent in the
//! run queue or was stopped for, and less what the parent overslept meanwhile: where that cannot
//! get a processor, neither can those who hold locks.

const std = @import("std");
const shmap = @import("shmap");
const oracles = @import("storm/oracle.zig");
const beside = @import("storm/beside.zig");
const report = @import("report.zig");
const sessions = @import("storm/session.zig");

const linux = std.os.linux;
const load = oracles.load;
const store = oracles.store;
const Oracle = oracles.Oracle;

/// A failed assertion in a worker is a fault by itself. The worker notes it before it prints
/// anything: printing takes so long that the worker is often killed meanwhile, which would count
/// as one more kill.
var watching: ?struct { oracle: *Oracle, slot: usize } = null;

pub fn notePanic(message: []const u8, first_address: ?usize) noreturn {
    if (watching) |seen| seen.oracle.violate(.panicked, seen.slot, .{ 0, 0, 0, 0 });
    std.debug.defaultPanic(message, first_address);
}

const stuck_ns = 30 * std.time.ns_per_s;

const Life = struct {
    pid: linux.pid_t,
    stopped_at: u64 = 0,
    continue_at: u64 = 0,
    is_dying: bool = false,
};

const Storm = struct {
    oracle: *Oracle,
    lives: [oracles.slot_count]Life,
    random: std.Random,
    parent: u32,
    started_ns: u64,
    budget_ns: u64,
    stops: u64 = 0,

    fn start(storm: *Storm, slot: usize) !void {
        const own = &storm.oracle.slots[slot];
        store(&own.incarnation, load(&own.incarnation) + 1);
        const seed = storm.random.int(u64);
        const pid = std.c.fork();
        if (pid == 0) {
            watching = .{ .oracle = storm.oracle, .slot = slot };
            sessions.live(storm.oracle, slot, storm.parent, seed);
        }
        if (pid < 0) return error.CannotFork;
        storm.lives[slot] = .{ .pid = pid };
    }

    /// Does not wait for the end: meanwhile others work, and are killed.
    fn kill(storm: *Storm, slot: usize) void {
        const own = &storm.oracle.slots[slot];
        const life = &storm.lives[slot];
        storm.wake(slot);
        store(&own.doomed, load(&own.incarnation));
        _ = linux.kill(life.pid, .KILL);
        life.is_dying = true;
    }

    /// Whether a worker that was killed is gone. It must not have ended in another way before.
    fn isGone(storm: *Storm, slot: usize, flags: u32) bool {
        const life = &storm.lives[slot];
        const how = wait(life.pid, flags) orelse return false;
        if (!linux.W.IFSIGNALED(how) or linux.W.TERMSIG(how) != .KILL)
            storm.oracle.violate(.died, slot, .{ how, 0, 0, 0 });
        life.is_dying = false;
        return true;
    }

    /// Stops a worker for a short time; others must not notice.
    fn stop(storm: *Storm, slot: usize) void {
        const life = &storm.lives[slot];
        if (life.stopped_at != 0 or life.is_dying) return;
        _ = linux.kill(life.pid, .STOP);
        life.stopped_at = oracles.now();
        life.continue_at = life.stopped_at + 100_000 + storm.random.uintLessThan(u64, 15_000_000);
        storm.stops += 1;
    }

    fn wake(storm: *Storm, slot: usize) void {
        const life = &storm.lives[slot];
        if (life.stopped_at == 0) return;
        const own = &storm.oracle.slots[slot];
        store(&own.stopped_ns, load(&own.stopped_ns) + oracles.now() - life.stopped_at);
        _ = linux.kill(life.pid, .CONT);
        life.stopped_at = 0;
    }

    /// Between two kills: 50 us to 5 ms, mostly short.
    fn rest(storm: *Storm) void {
        const most: f64 = if (storm.random.uintLessThan(u32, 8) == 0) 5000 else 1200;
        const us = 50 * std.math.pow(f64, most / 50, storm.random.float(f64));
        const ns: u64 = @intFromFloat(us * 1000);
        const before = oracles.now();
        shmap.os.sleepNs(ns);
        const late = oracles.now() - before -| ns;
        if (late > std.time.ns_per_ms)
            store(&storm.oracle.starved_ns, load(&storm.oracle.starved_ns) + late);
    }

    /// Whether a survivor has died, or has been inside one call for half a minute.
    fn survivorsFail(storm: *Storm) bool {
        for (oracles.mortal_count..oracles.slot_count) |slot| {
            if (wait(storm.lives[slot].pid, linux.W.NOHANG)) |how| {
                storm.oracle.violate(.died, slot, .{ how, 1, 0, 0 });
                return true;
            }
            const own = &storm.oracle.slots[slot];
            const since = load(&own.since_ns);
            if (since == 0 or oracles.now() -| since < stuck_ns) continue;
            storm.oracle.violate(.waited_too_long, slot, .{ load(&own.call), 0, 1, 0 });
            return true;
        }
        return false;
    }

    /// A new worker for each one that is gone.
    fn startAgain(storm: *Storm, last: *usize) !void {
        for (0..oracles.mortal_count) |slot| {
            if (!storm.lives[slot].is_dying or !storm.isGone(slot, linux.W.NOHANG)) continue;
            try storm.start(slot);
            last.* = slot;
        }
    }

    fn run(storm: *Storm) !void {
        const oracle = storm.oracle;
        for (0..oracles.slot_count) |slot| try storm.start(slot);
        shmap.os.sleepNs(20 * std.time.ns_per_ms);
        var last: usize = 0;
        while (load(&oracle.kills) < oracle.kills_wanted) {
            storm.rest();
            const now = oracles.now();
            for (&storm.lives, 0..) |*life, slot| {
                if (life.stopped_at != 0 and now >= life.continue_at) storm.wake(slot);
            }
            if (storm.random.uintLessThan(u32, 40) == 0)
                storm.stop(storm.random.uintLessThan(usize, oracles.slot_count));
            try storm.startAgain(&last);
            // One in four dies young.
            if (storm.random.uintLessThan(u32, 4) != 0)
                last = storm.random.uintLessThan(usize, oracles.mortal_count);
            if (storm.lives[last].is_dying) continue;
            storm.kill(last);
            store(&oracle.kills, load(&oracle.kills) + 1);
            if (load(&oracle.kills) % 128 != 0) continue;
            if (storm.survivorsFail() or load(&oracle.violation_count) > 100) break;
            if (oracles.now() - storm.started_ns > storm.budget_ns) break;
        }
    }

    /// The survivors end by themselves; the others are killed, which counts no more.
    fn end(storm: *Storm) void {
        store(&storm.oracle.over, 1);
        for (0..oracles.mortal_count) |slot| {
            if (!storm.lives[slot].is_dying) storm.kill(slot);
            _ = storm.isGone(slot, 0);
        }
        for (oracles.mortal_count..oracles.slot_count) |slot| {
            storm.wake(slot);
            awaitEnd(storm.oracle, slot, storm.lives[slot].pid);
        }
        const pid = std.c.fork();
        if (pid == 0) sessions.finish(storm.oracle, storm.parent);
        if (pid > 0) awaitEnd(storm.oracle, oracles.slot_count, pid);
    }
};

/// Null: it lives, or is gone already.
fn wait(pid: linux.pid_t, flags: u32) ?u32 {
    var how: u32 = 0;
    const result = linux.waitpid(pid, &how, flags);
    return if (linux.errno(result) == .SUCCESS and result != 0) how else null;
}

/// Waits for a good end, and makes one after half a minute.
fn awaitEnd(oracle: *Oracle, slot: usize, pid: linux.pid_t) void {
    const until = oracles.now() + stuck_ns;
    while (oracles.now() < until) {
        if (wait(pid, linux.W.NOHANG)) |how| {
            if (how != 0) oracle.violate(.died, slot, .{ how, 2, 0, 0 });
            return;
        }
        shmap.os.sleepNs(std.time.ns_per_ms);
    }
    oracle.violate(.waited_too_long, slot, .{ 0, 0, 2, 0 });
    _ = linux.kill(pid, .KILL);
    _ = wait(pid, 0);
}

/// Names of this storm that are still there; they are removed.
fn leftBehind(parent: u32) !u64 {
    var buffer: [64]u8 = undefined;
    const ours = try std.fmt.bufPrint(&buffer, "shmap-test-{d}-", .{parent});
    var fault: shmap.status.Fault = .{};
    const directory = try shmap.os.defaultDirectory(&fault);
    var names: shmap.os.Names = try .of(&fault, &directory);
    defer names.close();
    var count: u64 = 0;
    while (try names.next(&fault)) |name| {
        if (std.mem.indexOf(u8, name, ours) == null) continue;
        std.debug.print("left behind: {s}\n", .{name});
        const path = try shmap.os.Path.of("{s}/{s}", .{ directory.slice(), name });
        shmap.os.unlink(&fault, &path) catch {}; // it was said above
        count += 1;
    }
    return count;
}

fn explain(oracle: *const Oracle, seed: u64) void {
    const count = @min(load(&oracle.violation_count), oracle.violations.len);
    for (oracle.violations[0..count]) |*violation| {
        const kind: oracles.Kind = @enumFromInt(violation.kind);
        std.debug.print("--seed {d}, kill {d}, slot {d}: {t}", .{
            seed, violation.at_kill, violation.slot, kind,
        });
        for (violation.details) |detail| std.debug.print(" {x}", .{detail});
        if (kind == .call_failed) std.debug.print(" ({t} {s})", .{
            @as(oracles.Call, @enumFromInt(violation.details[0])),
            std.mem.sliceAsBytes(violation.details[2..4]),
        });
        std.debug.print("\n", .{});
    }
}

fn say(io: std.Io, storm: *const Storm, arguments: *const report.Arguments) !bool {
    const oracle = storm.oracle;
    const seconds = @as(f64, @floatFromInt(oracles.now() - storm.started_ns)) / std.time.ns_per_s;
    var longest: [64]u8 = undefined;
    var worst: usize = 0;
    for (oracle.longest_ns, 0..) |ns, i| {
        if (ns > oracle.longest_ns[worst]) worst = i;
    }
    const longest_text = try std.fmt.bufPrint(&longest, "{d:.1} ms in {t}", .{
        @as(f64, @floatFromInt(oracle.longest_ns[worst])) / std.time.ns_per_ms,
        @as(oracles.Call, @enumFromInt(worst)),
    });
    const kills = load(&oracle.kills);
    var note: [600]u8 = undefined;
    const kill_row: report.Row = .{
        .part = 3,
        .what = "native kills",
        .tried = kills,
        .found = load(&oracle.violation_count),
        .least = arguments.scaled(50_000),
        .seed = arguments.seed,
        .note = try std.fmt.bufPrint(&note, "{d:.0} a second; longest wait, ms: {s}; " ++
            "{d} opened, {d} replaced, {d} unlinked, {d} stops, {d} grants of which {d} told of " ++
            "a death, {d} verified; allocated KiB by quarter {any}", .{
            @as(f64, @floatFromInt(kills)) / seconds, longest_text,
            oracle.counted(.opened),                  oracle.counted(.replaced),
            oracle.counted(.unlinked),                storm.stops,
            oracle.counted(.grants),                  oracle.counted(.recovered),
            oracle.counted(.verified),                kibibytes(oracle),
        }),
    };
    try report.say(io, kill_row);
    const write_row: report.Row = .{
        .part = 3,
        .what = "acknowledged writes checked",
        .tried = oracle.counted(.checked_writes),
        .found = writesLost(oracle),
        .least = arguments.scaled(if (isSmall()) 500_000 else 1_000_000),
        .seed = arguments.seed,
        .note = try std.fmt.bufPrint(&note, "native; beside {d} reads and {d} snapshots of " ++
            "values that prove themselves", .{
            oracle.counted(.reads), oracle.counted(.snapshots),
        }),
    };
    try report.say(io, write_row);
    return kill_row.found == 0 and kill_row.tried >= kill_row.least and
        write_row.tried >= write_row.least;
}

/// Every growth maps anew then, or every value of some KiB takes blocks and gives them back.
fn isSmall() bool {
    return shmap.parked.areSmall() or shmap.mappings.areSmall();
}

fn kibibytes(oracle: *const Oracle) [4]u64 {
    var result: [4]u64 = undefined;
    for (&result, oracle.allocated) |*kib, bytes| kib.* = bytes / 1024;
    return result;
}

fn writesLost(oracle: *const Oracle) u64 {
    const count = @min(load(&oracle.violation_count), oracle.violations.len);
    var lost: u64 = 0;
    for (oracle.violations[0..count]) |*violation| switch (violation.kind) {
        @intFromEnum(oracles.Kind.lost_write),
        @intFromEnum(oracles.Kind.torn_value),
        @intFromEnum(oracles.Kind.counter_wrong),
        => lost += 1,
        else => {},
    };
    return lost;
}

/// Space that leaks shows as memory that grows from quarter to quarter; what is stored at a time is
/// less than a tenth of this. Much later there would be none left, and writes would fail.
fn checkGrowth(oracle: *Oracle) void {
    const first = oracle.allocated[0];
    const last = oracle.allocated[3];
    if (last > @max(2 * first, 4 << 20))
        oracle.violate(.leaked, 0, .{ first, oracle.allocated[1], oracle.allocated[2], last });
}

pub fn main(init: std.process.Init) !u8 {
    const arguments: report.Arguments = try .of(init);
    if (arguments.words.len > 0 and std.mem.eql(u8, arguments.words[0], "beside"))
        return beside.run(arguments.words[1..]);
    // Sleeps end when they should, to some microseconds.
    _ = linux.prctl(@intFromEnum(linux.PR.SET_TIMERSLACK), 1000, 0, 0, 0);
    const oracle = try shmap.testing.support.shared(Oracle);
    oracle.kills_wanted = arguments.scaled(50_000);
    var source: std.Random.DefaultPrng = .init(arguments.seed);
    var storm: Storm = .{
        .oracle = oracle,
        .lives = undefined,
        .random = source.random(),
        .parent = shmap.os.pid(),
        .started_ns = oracles.now(),
        .budget_ns = 60 * std.time.ns_per_s + oracle.kills_wanted * 10 * std.time.ns_per_ms,
    };
    try storm.run();
    storm.end();
    checkGrowth(oracle);
    const left = try leftBehind(storm.parent);
    if (left > 0) oracle.violate(.left_behind, oracles.slot_count, .{ left, 0, 0, 0 });
    explain(oracle, arguments.seed);
    return if (try say(init.io, &storm, &arguments)) 0 else 1;
}
