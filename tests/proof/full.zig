//! Part 9 of the proof: maps where space, memory or descriptors run out.
//!
//!     shmap-proof-plain full [--scale <n>] [--seed <n>]
//!
//! File systems in memory of 1 to 64 MiB, in a mount namespace of our own, are filled and drained
//! in rounds by one or two processes; other files take the rest and go away again. Then come the
//! limits of a process (`full/limits.zig`).

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const report = @import("report.zig");
const fill = @import("full/fill.zig");
const limits = @import("full/limits.zig");
const rivals = @import("full/rivals.zig");
const roles = @import("act/roles.zig");
const tracer = @import("act/tracer.zig");
const world = @import("act/world.zig");
const linux = std.os.linux;
const os = shmap.os;
const small = shmap.testing.small_file_system;

const Fault = shmap.status.Fault;

const sizes_mib = [_]u32{ 1, 4, 16, 64 };
const rounds_per_size = 24;
/// How many rounds the same map goes through.
const rounds_per_map = 6;

/// What a process inside the namespace tells the one outside.
const Site = extern struct {
    rounds: [2]fill.Round = .{ .{}, .{} },
    rival: world.Report = .{},
    tried: u64 = 0,
    found: u64 = 0,
    kills: u64 = 0,
    stored: u64 = 0,
    refused: u64 = 0,
    replaced: u64 = 0,
    stuck: u64 = 0,
    /// Why nothing was tried.
    refusal: [100]u8 = @splat(0),
};

/// All rounds on a file system of one size.
const Rounds = struct {
    site: *Site,
    directory: os.Path,
    mib: u32,
    seed: u64,
    random: std.Random,
    is_kernel: bool = false,
    /// The most that fitted of each profile in the present map, in its first rounds.
    most: [3]u64 = @splat(0),

    fn run(rounds: *Rounds, count: u64) void {
        const site = rounds.site;
        for (0..count) |i| {
            if (i % rounds_per_map == 0) {
                rounds.forget();
                rounds.is_kernel = i / rounds_per_map % 2 == 1;
                rounds.most = @splat(0);
            }
            site.tried += 1;
            const round_seed = rounds.random.int(u64);
            if (rounds.one(i, round_seed)) |words| {
                site.found += 1;
                const kind = if (rounds.is_kernel) "kernel" else "robust";
                std.debug.print("{d} MiB, round {d} ({s}): {s} [--seed {d}]\n", .{
                    rounds.mib, i, kind, words, rounds.seed,
                });
                rounds.forget(); // or every later round would tell the same
            }
        }
        rounds.forget();
    }

    fn forget(rounds: *Rounds) void {
        var fault: Fault = .{};
        for ([_][]const u8{ "map", "rival", "food" }) |name| {
            const path = os.Path.of("{s}/{s}", .{ rounds.directory.slice(), name }) catch return;
            os.unlink(&fault, &path) catch {};
        }
    }

    fn one(rounds: *Rounds, i: u64, round_seed: u64) ?[]const u8 {
        const site = rounds.site;
        var random = std.Random.DefaultPrng.init(round_seed);
        const dice = random.random();
        // Small values take longer to fill the large ones.
        const least: u8 = if (rounds.mib >= 16 and dice.uintLessThan(u8, 4) > 0) 1 else 0;
        const profile = dice.intRangeLessThan(u8, least, 3);
        if (i % rounds_per_map == rounds_per_map - 1) return rounds.rivals(round_seed);
        rounds.make() catch return "no process";
        const processes: usize = if (dice.boolean()) 2 else 1;
        const dies = processes == 2 and dice.uintLessThan(u8, 3) == 0;
        var pids: [2]linux.pid_t = undefined;
        for (0..processes) |side| {
            site.rounds[side] = .{
                .seed = dice.int(u64),
                .profile = profile,
                .side = @intCast(side),
                .clears = dice.boolean(),
            };
            site.rounds[side].report.is_repeated = processes == 2;
            pids[side] = rounds.start(side) catch return "no process";
        }
        if (dies) {
            os.sleepNs(dice.uintLessThan(u64, rounds.mib * 4 * std.time.ns_per_ms) + 1);
            _ = linux.kill(pids[1], .KILL);
            site.kills += 1;
        }
        var trouble: ?[]const u8 = null;
        for (0..processes) |side| {
            const outcome = tracer.wait(pids[side], 50);
            const was_killed = dies and side == 1 and outcome.ending == .killed and
                outcome.code == @intFromEnum(linux.SIG.KILL);
            if (was_killed) continue;
            const said = &site.rounds[side].report;
            if (outcome.ending != .exited)
                said.complain("ended by {s} {d}", .{ @tagName(outcome.ending), outcome.code });
            if (!said.is_done) said.complain("did not come to its end", .{});
            if (said.trouble_len > 0) trouble = said.troubles();
        }
        if (trouble) |words| return words;
        if (dies) rounds.forget();
        return rounds.weigh(profile, processes, dies);
    }

    /// The map is there before two want to make it: the slower one would find no space for its own.
    fn make(rounds: *Rounds) !void {
        const pid = try tracer.fork();
        if (pid != 0) {
            _ = tracer.wait(pid, 10);
            return;
        }
        _ = rounds.open();
        linux.exit_group(0);
    }

    fn open(rounds: *Rounds) i32 {
        var fault: Fault = .{};
        const flags: u32 = if (rounds.is_kernel) 64 | 128 else 64;
        return world.openUnbounded(rounds.directory.slice(), world.name, flags, &fault);
    }

    fn start(rounds: *Rounds, side: usize) !linux.pid_t {
        const pid = try tracer.fork();
        if (pid != 0) return pid;
        const round = &rounds.site.rounds[side];
        const handle = rounds.open();
        if (handle < 0) {
            round.report.complain("open gave {d}", .{handle});
            linux.exit_group(0);
        }
        var random = std.Random.DefaultPrng.init(round.seed);
        var filler: fill.Filler = .{
            .round = round,
            .handle = @intCast(handle),
            .random = random.random(),
            .longest = rounds.mib * (1 << 20) / 8,
        };
        filler.run();
        _ = calls.call(.shm_segment_close, .{calls.word(handle)});
        linux.exit_group(0);
    }

    /// What fits does not become less with the rounds.
    fn weigh(rounds: *Rounds, profile: u8, processes: usize, dies: bool) ?[]const u8 {
        const site = rounds.site;
        var bytes: u64 = 0;
        for (site.rounds[0..processes]) |*round| {
            bytes += round.stored_bytes;
            site.stored += round.stored;
            site.refused += round.refused;
            site.replaced += round.replaced;
            site.stuck += round.stuck;
        }
        if (dies or processes == 2) return null; // one drains while the other still fills
        const most = &rounds.most[profile];
        if (bytes * 100 < most.* * 85) {
            site.rival.complain("{d} bytes fit, {d} did before", .{ bytes, most.* });
            return site.rival.troubles();
        }
        most.* = @max(most.*, bytes);
        return null;
    }

    fn rivals(rounds: *Rounds, round_seed: u64) ?[]const u8 {
        rounds.forget();
        rounds.site.rival = .{};
        const pid = tracer.fork() catch return "no process";
        if (pid == 0) {
            compete(rounds, round_seed);
            linux.exit_group(0);
        }
        const outcome = tracer.wait(pid, 50);
        const said = &rounds.site.rival;
        if (outcome.ending != .exited)
            said.complain("ended by {s} {d}", .{ @tagName(outcome.ending), outcome.code });
        if (!said.is_done) said.complain("did not come to its end", .{});
        return if (said.trouble_len > 0) said.troubles() else null;
    }
};

fn compete(rounds: *Rounds, round_seed: u64) void {
    var random = std.Random.DefaultPrng.init(round_seed);
    rivals.run(&rounds.site.rival, rounds.directory.slice(), rounds.is_kernel, random.random());
}

/// In a process of its own, which does not come back.
fn onFileSystem(site: *Site, directory: *const os.Path, mib: u32, seed: u64, count: u64) void {
    const refusal = small.leaveForOwnMounts() orelse small.mount(directory, mib);
    if (refusal) |words| {
        @memcpy(site.refusal[0..words.len], words);
        return;
    }
    tracer.prepare();
    var random = std.Random.DefaultPrng.init(seed +% mib);
    var rounds: Rounds = .{
        .site = site,
        .directory = directory.*,
        .mib = mib,
        .seed = seed,
        .random = random.random(),
    };
    rounds.run(count);
}

const Skipped = struct { part: u8 = 9, what: []const u8, skipped: []const u8 };

fn skip(io: std.Io, what: []const u8, why: []const u8) !void {
    var buffer: [1024]u8 = undefined;
    var out = std.Io.File.stdout().writerStreaming(io, &buffer);
    try std.json.Stringify.value(Skipped{ .what = what, .skipped = why }, .{}, &out.interface);
    try out.interface.writeAll("\n");
    try out.interface.flush();
}

/// The rows of the file systems. True: nothing was found.
fn fileSystems(io: std.Io, arguments: *const report.Arguments) !bool {
    const what = "rounds on a full file system";
    const directory = try os.Path.of("/dev/shm/shmap-test-{d}-full", .{os.pid()});
    if (linux.errno(linux.mkdir(directory.z(), 0o700)) != .SUCCESS) return error.NoDirectory;
    defer _ = linux.rmdir(directory.z());
    const site = try shmap.testing.support.shared(Site);
    site.* = .{};
    const count = arguments.scaled(rounds_per_size);
    for (sizes_mib) |mib| {
        const pid = try tracer.fork();
        if (pid == 0) {
            onFileSystem(site, &directory, mib, arguments.seed, count);
            linux.exit_group(0);
        }
        const outcome = tracer.wait(pid, 600);
        if (outcome.ending != .exited) {
            std.debug.print("{d} MiB: ended by {s}\n", .{ mib, @tagName(outcome.ending) });
            site.found += 1;
        }
        if (site.refusal[0] != 0) {
            const why = std.mem.sliceTo(&site.refusal, 0);
            try skip(io, what, why);
            return true;
        }
    }
    var buffer: [200]u8 = undefined;
    const note = try std.fmt.bufPrint(
        &buffer,
        "1 to 64 MiB, {d} stored, {d} refused, {d} replaced ({d} not) when full, {d} killed",
        .{ site.stored, site.refused, site.replaced, site.stuck, site.kills },
    );
    try report.say(io, .{
        .part = 9,
        .what = what,
        .tried = site.tried,
        .found = site.found,
        .least = count * sizes_mib.len,
        .seed = arguments.seed,
        .note = note,
    });
    return site.found == 0;
}

pub fn main(init: std.process.Init) !void {
    const arguments: report.Arguments = try .of(init);
    tracer.prepare();
    @call(.never_inline, roles.warmUp, .{});
    const are_file_systems_sound = try fileSystems(init.io, &arguments);
    const are_limits_kept = try limits.run(init.io, &arguments);
    const why = "needs a memory cgroup of its own; kills in the middle of growth are in part 4";
    try skip(init.io, "out-of-memory kills", why);
    if (!are_file_systems_sound or !are_limits_kept) std.process.exit(1);
}
