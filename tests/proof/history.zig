//! Part 5 of the proof: every history is linearisable, and every snapshot respects causes.
//!
//!     shmap-proof-recorded history [--scale <n>] [--seed <n>] [histories] [causal]
//!
//! What processes do in which order is up to the machine, so the seed replays what was asked for,
//! not the very history: that is printed where it is violated.

const std = @import("std");
const shmap = @import("shmap");
const check = @import("history/check.zig");
const cases = @import("history/cases.zig");
const load = @import("history/load.zig");
const causal = @import("causal.zig");
const crowd = @import("crowd.zig");
const report = @import("report.zig");

const operations_each = 20_000;
/// More is a failure of the check itself.
const seconds_max = 600;

pub fn main(init: std.process.Init) !void {
    const arguments = try report.Arguments.of(init);
    if (try check.misjudged(init.gpa, &cases.all)) |name| {
        std.debug.print("the checker misjudges: {s}\n", .{name});
        std.process.exit(1);
    }
    var good = true;
    if (isWanted(&arguments, "histories")) good = try histories(init, &arguments) and good;
    if (isWanted(&arguments, "causal")) good = try snapshots(init, &arguments) and good;
    if (!good) std.process.exit(1);
}

fn isWanted(arguments: *const report.Arguments, name: []const u8) bool {
    if (arguments.words.len == 0) return true;
    for (arguments.words) |word| if (std.mem.eql(u8, word, name)) return true;
    return false;
}

fn histories(init: std.process.Init, arguments: *const report.Arguments) !bool {
    const least = arguments.scaled(1_000_000);
    const logs = try shmap.testing.support.shared(load.Logs);
    var prng = std.Random.DefaultPrng.init(arguments.seed);
    const random = prng.random();
    var total: load.Outcome = .{};
    var rounds: u64 = 0;
    const deadline = crowd.now() + seconds_max * std.time.ns_per_s;
    while (total.operations < least and crowd.now() < deadline) : (rounds += 1) {
        const setting: load.Setting = .{
            .lock = if (rounds % 2 == 0) .robust else .kernel,
            .stripe_bits = random.uintLessThan(u6, 3),
            .keys = ([_]u32{ 2, 3, 5, 16, 200 })[random.uintLessThan(usize, 5)],
            .workers = random.intRangeAtMost(u8, 4, load.workers_max),
            .parent_reads = random.uintLessThan(u8, 4) == 0,
            .operations = @intCast(@min(operations_each, @max(least, 500))),
            .seed = random.int(u64),
        };
        const outcome = load.play(init.gpa, logs, &setting) catch |err| {
            std.debug.print("round {d} of seed {d}: {t}\n", .{ rounds, arguments.seed, err });
            total.found += 1;
            break;
        };
        total.operations += outcome.operations;
        total.kills += outcome.kills;
        total.stops += outcome.stops;
        total.widest = @max(total.widest, outcome.widest);
        total.found += outcome.found;
        if (outcome.found > 0) {
            std.debug.print("round {d} of seed {d}: {any}\n", .{ rounds, arguments.seed, setting });
            if (total.found >= 20) break;
        }
    }
    var note: [400]u8 = undefined;
    try report.say(init.io, .{
        .part = 5,
        .what = "operations in histories",
        .tried = total.operations,
        .found = total.found,
        .least = least,
        .seed = arguments.seed,
        .note = try std.fmt.bufPrint(
            &note,
            "{d} histories, {d} kills, {d} stops; never more than {d} configurations of a key",
            .{ rounds, total.kills, total.stops, total.widest },
        ),
    });
    return total.found == 0 and total.operations >= least;
}

fn snapshots(init: std.process.Init, arguments: *const report.Arguments) !bool {
    const least = arguments.scaled(20_000);
    const board = try shmap.testing.support.shared(causal.Board);
    var prng = std.Random.DefaultPrng.init(arguments.seed);
    var total: causal.Outcome = .{};
    // A busy machine needs many times as long as an idle one.
    const end = crowd.now() + @as(u64, @intFromFloat(120e9 * @max(1, arguments.scale)));
    var rounds: u64 = 0;
    // A part of it at a time, so that both kinds of lock have their turn.
    while (total.snapshots < least and crowd.now() < end) : (rounds += 1) {
        const until = crowd.now() + 2 * std.time.ns_per_s;
        const outcome = causal.play(
            init.gpa,
            board,
            if (rounds % 2 == 0) .robust else .kernel,
            prng.random().int(u64),
            @min(1000, least / 4 + 1),
            @min(until, end),
        ) catch |err| {
            std.debug.print("causal round {d}: {t}\n", .{ rounds, err });
            total.found += 1;
            break;
        };
        inline for (@typeInfo(causal.Outcome).@"struct".fields) |field|
            @field(total, field.name) += @field(outcome, field.name);
        if (total.found > 0) break;
    }
    var note: [400]u8 = undefined;
    try report.say(init.io, .{
        .part = 5,
        .what = "causal snapshots",
        .tried = total.snapshots,
        .found = total.found,
        .least = least,
        .seed = arguments.seed,
        .note = try std.fmt.bufPrint(
            &note,
            "{d} kills, {d} stops, {d} times both writers stopped; {d} snapshots gave up in " ++
                "time; {d} orders seen by a reader",
            .{ total.kills, total.stops, total.beside_stopped, total.timeouts, total.orders },
        ),
    });
    return total.found == 0 and total.snapshots >= least;
}
