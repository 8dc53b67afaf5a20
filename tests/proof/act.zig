//! Part 4 of the proof: every system call that an act of the library makes is made to fail, and the
//! process is killed before and after each.
//!
//!     shmap-proof-plain act [--scale <n>] [--seed <n>] [share <i> <of>] [only <act>] [report]
//!     shmap-proof-plain act look <directory>
//!
//! Each case has a directory of its own, a map prepared by a process that is gone, perhaps a
//! process that stays attached, the process that acts, and afterwards one that finds the map as it
//! was or as it should be, and goes on with it. `report` says every case on standard error. `look`
//! is only that last process, for a directory that another program has left.

const std = @import("std");
const shmap = @import("shmap");
const report = @import("report.zig");
const acts = @import("act/acts.zig");
const judge = @import("act/judge.zig");
const regions = @import("act/region.zig");
const roles = @import("act/roles.zig");
const tracer = @import("act/tracer.zig");
const world = @import("act/world.zig");
const linux = std.os.linux;
const os = shmap.os;

const Case = acts.Case;
const Plan = tracer.Plan;
const World = world.World;

const errors = [_]linux.E{ .NOSPC, .NOMEM, .INTR, .IO, .MFILE };

/// The failure that lasts once it has begun.
fn lastingOf(call: linux.SYS) ?linux.E {
    return switch (call) {
        .fallocate => .NOSPC,
        .mmap, .mremap => .NOMEM,
        .open, .memfd_create => .MFILE,
        else => null,
    };
}

const Tally = struct { tried: u64 = 0, found: u64 = 0, unreached: u64 = 0 };

const Run = struct {
    shared: *World,
    directory: os.Path,
    random: std.Random.DefaultPrng,
    scale: f64,
    seed: u64,
    share: u64 = 0,
    of: u64 = 1,
    single: ?[]const u8 = null,
    says_all: bool = false,
    count: u64 = 0,
    failed: Tally = .{},
    killed: Tally = .{},
    calls: u64 = 0,

    /// Whether this case is among those of this run.
    fn picks(run: *Run) bool {
        run.count += 1;
        if (run.random.random().float(f64) >= run.scale) return false;
        return run.count % run.of == run.share;
    }

    fn clean(run: *Run) void {
        var fault: shmap.status.Fault = .{};
        var names = os.Names.of(&fault, &run.directory) catch return;
        defer names.close();
        while (names.next(&fault) catch null) |entry| {
            if (std.mem.eql(u8, entry, ".") or std.mem.eql(u8, entry, "..")) continue;
            const path = os.Path.of("{s}/{s}", .{ run.directory.slice(), entry }) catch continue;
            os.unlink(&fault, &path) catch {};
        }
    }

    /// One case with one call disturbed.
    fn disturb(run: *Run, subject: anytype, plan: Plan) void {
        if (!run.picks()) return;
        run.shared.* = .{};
        const repeats = run.count % 2 == 0;
        const outcome = subject.run(run.shared, run.directory.slice(), plan, repeats);
        defer run.clean();
        const tally = switch (plan.deed) {
            .kill_before, .kill_after => &run.killed,
            else => &run.failed,
        };
        if (outcome.call == null and outcome.ending == .exited) {
            tally.unreached += 1;
            return;
        }
        tally.tried += 1;
        const verdict = subject.judge(run.shared, plan, outcome, repeats);
        if (verdict == null and !run.says_all) return;
        if (verdict != null) tally.found += 1;
        run.tell(subject, plan, outcome, verdict orelse "sound");
    }

    fn tell(
        run: *Run,
        subject: anytype,
        plan: Plan,
        outcome: tracer.Outcome,
        words: []const u8,
    ) void {
        const call = if (outcome.call) |call| @tagName(call) else "nothing";
        const errno = switch (plan.deed) {
            .fail, .fail_from_here => |errno| @tagName(errno),
            else => "",
        };
        std.debug.print("{s}: call {d} ({s}) {s} {s}: {s} [status {d}, --seed {d}]\n", .{
            subject.words(), plan.at, call,                    @tagName(plan.deed),
            errno,           words,   run.shared.actor.status, run.seed,
        });
    }

    /// One case undisturbed, then with each of its calls disturbed in every way.
    fn enumerate(run: *Run, subject: anytype) void {
        if (run.single) |only| if (!std.mem.eql(u8, only, @tagName(subject.act))) return;
        run.shared.* = .{};
        tracer.list_len = 0;
        const plan: Plan = .{ .at = std.math.maxInt(u32), .lack = subject.lack };
        const outcome = subject.run(run.shared, run.directory.slice(), plan, false);
        run.clean();
        if (subject.judge(run.shared, plan, outcome, false)) |words| {
            run.failed.tried += 1;
            run.failed.found += 1;
            return run.tell(subject, plan, outcome, words);
        }
        var calls: [tracer.list_max]linux.SYS = undefined;
        const count = tracer.list_len;
        @memcpy(calls[0..count], tracer.list[0..count]);
        run.calls += count;
        for (calls[0..count], 0..) |call, i| {
            const at: u32 = @intCast(i);
            for ([_]tracer.Deed{ .kill_before, .kill_after }) |deed|
                run.disturb(subject, .{ .at = at, .deed = deed, .lack = subject.lack });
            if (!tracer.canFail(call)) continue;
            var failing: Plan = .{ .at = at, .lack = subject.lack };
            for (errors) |errno| {
                failing.deed = .{ .fail = errno };
                run.disturb(subject, failing);
            }
            if (lastingOf(call)) |errno| {
                failing.deed = .{ .fail_from_here = errno };
                run.disturb(subject, failing);
            }
        }
    }

    fn say(run: *Run, io: std.Io, what: []const u8, tally: Tally) !void {
        var buffer: [200]u8 = undefined;
        const note = try std.fmt.bufPrint(&buffer, "{d} calls of {d} acts, {d} not reached", .{
            run.calls, acts.all.len + regions.all.len, tally.unreached,
        });
        try report.say(io, .{
            .part = 4,
            .what = what,
            .tried = tally.tried,
            .found = tally.found,
            .least = 0, // the starter knows
            .seed = run.seed,
            .note = note,
        });
    }
};

pub fn main(init: std.process.Init) !void {
    const arguments: report.Arguments = try .of(init);
    const words = arguments.words;
    if (words.len == 2 and std.mem.eql(u8, words[0], "look")) return look(words[1]);
    var run: Run = .{
        .shared = try shmap.testing.support.shared(World),
        .directory = try os.Path.of("/dev/shm/shmap-test-{d}-act", .{os.pid()}),
        .random = .init(arguments.seed),
        .scale = arguments.scale,
        .seed = arguments.seed,
    };
    try readWords(&run, words);
    tracer.prepare();
    @call(.never_inline, roles.warmUp, .{});
    if (linux.errno(linux.mkdir(run.directory.z(), 0o700)) != .SUCCESS) return error.NoDirectory;
    for (acts.all) |case| run.enumerate(judge.Subject.of(case));
    for (regions.all) |subject| run.enumerate(subject);
    run.clean();
    _ = linux.rmdir(run.directory.z());
    try run.say(init.io, "system calls failed", run.failed);
    try run.say(init.io, "kills at system calls", run.killed);
    if (run.failed.found + run.killed.found > 0) std.process.exit(1);
}

/// Goes on with the map that another process left.
fn look(directory: []const u8) !void {
    const shared = try shmap.testing.support.shared(World);
    const checker: roles.Checker = .{
        .case = .{ .act = .open_existing, .kernel = false },
        .shared = shared,
        .directory = directory,
        .is_foreign = true,
    };
    checker.run();
    if (shared.checker.is_done and shared.checker.trouble_len == 0) return;
    std.debug.print("{s}\n", .{shared.checker.troubles()});
    std.process.exit(1);
}

fn readWords(run: *Run, words: []const []const u8) !void {
    var i: usize = 0;
    while (i < words.len) : (i += 1) {
        if (std.mem.eql(u8, words[i], "report")) {
            run.says_all = true;
        } else if (std.mem.eql(u8, words[i], "only") and i + 1 < words.len) {
            i += 1;
            run.single = words[i];
        } else if (std.mem.eql(u8, words[i], "share") and i + 2 < words.len) {
            run.share = try std.fmt.parseInt(u64, words[i + 1], 10);
            run.of = try std.fmt.parseInt(u64, words[i + 2], 10);
            i += 2;
        } else return error.UnknownWord;
    }
}
