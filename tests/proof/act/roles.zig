//! The processes of one case: who keeps the map open beside the act, who acts, and who comes
//! afterwards.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const Flags = shmap.marshal.Flags;
const acts = @import("acts.zig");
const tracer = @import("tracer.zig");
const world = @import("world.zig");
const linux = std.os.linux;
const os = shmap.os;

const Case = acts.Case;
const Fault = shmap.status.Fault;
const Report = world.Report;
const World = world.World;

/// What each process would otherwise do in the middle of being measured: the stack grows, the libc
/// allocates.
pub fn warmUp() void {
    var room: [1 << 20]u8 = undefined;
    for (0..room.len / 4096) |i| @as(*volatile u8, &room[i * 4096]).* = 0;
    _ = shmap.isolate_end.watch();
}

fn leave() noreturn {
    linux.exit_group(0);
}

/// A process that stays attached until it is asked what it sees.
pub const Keeper = struct {
    pid: linux.pid_t = 0,
    to: os.Fd = -1,
    from: os.Fd = -1,

    pub fn start(case: Case, shared: *World, directory: []const u8) !Keeper {
        var to: [2]i32 = undefined;
        var from: [2]i32 = undefined;
        if (linux.errno(linux.pipe2(&to, .{ .CLOEXEC = true })) != .SUCCESS) return error.NoPipe;
        if (linux.errno(linux.pipe2(&from, .{ .CLOEXEC = true })) != .SUCCESS) return error.NoPipe;
        const pid = try tracer.fork();
        if (pid == 0) {
            os.close(to[1]);
            os.close(from[0]);
            live(case, shared, directory, to[0], from[1]);
            leave();
        }
        os.close(to[0]);
        os.close(from[1]);
        var byte: [1]u8 = undefined;
        _ = linux.read(from[0], &byte, 1); // the end of the pipe, if it died
        return .{ .pid = pid, .to = to[1], .from = from[0] };
    }

    fn live(case: Case, shared: *World, directory: []const u8, asked: os.Fd, tell: os.Fd) void {
        const report = &shared.keeper;
        var fault: Fault = .{};
        const handle = if (case.act == .attach)
            anonymous(case, shared, &fault)
        else
            world.open(directory, 0 | valueFlag(case), &fault);
        if (handle < 0) return report.complain("the keeper's open gave {d}", .{handle});
        _ = linux.write(tell, "r", 1);
        var byte: [1]u8 = undefined;
        if (linux.read(asked, &byte, 1) != 1) return;
        const on = case.seen(handle);
        report.status = @floatFromInt(on.look(&report.content));
        if (report.status == 0) on.examine(report);
        _ = calls.call(.shm_segment_close, .{calls.word(handle)});
        report.is_done = true;
    }

    fn anonymous(case: Case, shared: *World, fault: *Fault) i32 {
        const bytes = std.mem.asBytes(fault);
        const flags: u32 = if (case.kernel)
            @intFromEnum(Flags.lockStated) | @intFromEnum(Flags.lockKernel)
        else
            0;
        const len = world.codec.len;
        const handle = calls.call(.shm_segment_anonymous, .{
            world.codec,
            len,
            flags,
            7 << 20,
            1000,
            bytes,
        });
        if (handle < 0) return handle;
        for (world.base(false), 0..) |number, key| {
            if (number != world.absent) _ = case.seen(handle).put(key, number);
        }
        const token = &shared.token;
        shared.token_len = @intCast(calls.call(.shm_segment_token, .{
            calls.word(handle),
            token,
            token.len,
        }));
        return handle;
    }

    /// Has it look, and end.
    pub fn ask(keeper: *Keeper, shared: *World) void {
        if (keeper.pid == 0) return;
        _ = linux.write(keeper.to, "?", 1);
        const outcome = tracer.wait(keeper.pid, 10);
        if (outcome.ending != .exited)
            shared.keeper.complain("the keeper was {s}", .{@tagName(outcome.ending)});
        os.close(keeper.to);
        os.close(keeper.from);
    }
};

fn valueFlag(case: Case) u32 {
    return if (case.isValue()) @intFromEnum(Flags.value) else 0;
}

/// Forks, follows `task` in a child of its own, and says what went wrong with it as a process.
pub fn inChild(report: *Report, task: anytype) void {
    const pid = tracer.fork() catch return report.complain("no process", .{});
    if (pid == 0) {
        task.run();
        leave();
    }
    const outcome = tracer.wait(pid, 10);
    if (outcome.ending != .exited)
        report.complain("ended by {s} {d}", .{ @tagName(outcome.ending), outcome.code });
}

/// The process whose calls are disturbed.
pub const Actor = struct {
    case: Case,
    shared: *World,
    directory: []const u8,
    /// After a failure it makes the same call again.
    repeats: bool,

    pub fn follow(actor: Actor, plan: tracer.Plan) tracer.Outcome {
        const pid = tracer.fork() catch return .{};
        if (pid == 0) {
            actor.run();
            leave();
        }
        return tracer.follow(pid, plan);
    }

    fn run(actor: Actor) void {
        const report = &actor.shared.actor;
        report.before = world.held();
        const opened = actor.case.enter(report, actor.directory);
        if (opened < 0) return;
        tracer.begin();
        report.status = actor.case.perform(actor.shared, actor.directory, opened);
        tracer.end();
        const on_handle = actor.case.act.isOnHandle() and actor.case.act != .close;
        const on = actor.case.seen(opened);
        report.errno = if (on_handle) on.errno() else acts.opening_fault.errno;
        if (actor.case.act.isOpening()) {
            actor.afterOpening(report);
        } else if (on_handle) {
            _ = on.look(&report.content);
            on.examine(report);
            if (report.status < 0 and actor.repeats) actor.again(report, opened);
            _ = calls.call(.shm_segment_close, .{on.handle});
        } else if (report.status < 0 and actor.repeats) actor.again(report, opened);
        report.after = world.held();
        report.is_done = true;
    }

    fn again(actor: Actor, report: *Report, opened: i32) void {
        const status = actor.case.perform(actor.shared, actor.directory, opened);
        if (status < 0) report.complain("once more: status {d}", .{status});
        report.is_repeated = true;
        if (!actor.case.act.isOpening() or status < 0) return;
        actor.lookAndClose(report, status);
    }

    fn afterOpening(actor: Actor, report: *Report) void {
        if (report.status >= 0) {
            actor.lookAndClose(report, report.status);
        } else if (actor.repeats) {
            const left = world.held();
            if (!std.mem.eql(u32, &left, &report.before)) {
                report.after = left;
                return; // told by the judge
            }
            actor.again(report, 0);
        }
    }

    fn lookAndClose(actor: Actor, report: *Report, handle: f64) void {
        const on = actor.case.seen(@intFromFloat(handle));
        _ = on.look(&report.content);
        on.examine(report);
        _ = calls.call(.shm_segment_close, .{on.handle});
    }
};

/// Who comes afterwards, and is not disturbed: finds the map, and goes on with it.
pub const Checker = struct {
    case: Case,
    shared: *World,
    directory: []const u8,
    /// The map is not one of `prepare`'s, and has other keys.
    is_foreign: bool = false,

    pub fn run(checker: Checker) void {
        const shared = checker.shared;
        const report = &shared.checker;
        var fault: Fault = .{};
        if (os.Path.of("{s}/{s}", .{ checker.directory, world.name })) |path| {
            shared.was_named = if (os.statName(&fault, &path)) |_| true else |_| false;
        } else |_| {}
        const handle = if (checker.case.act == .attach)
            world.attach(shared.token[0..shared.token_len], &fault)
        else
            checker.open(&fault);
        if (handle < 0) return report.complain("the next open gave {d}", .{handle});
        const on = checker.case.seen(handle);
        checker.examine(on);
        report.status = @floatFromInt(on.look(&report.content));
        if (report.status < 0)
            return report.complain("the next reader got {d}", .{report.status});
        shared.recovered = @floatFromInt(calls.call(.shm_lock_acquire, .{ on.handle, 0, 3000 }));
        if (shared.recovered < 0)
            report.complain("the next locker got {d}", .{shared.recovered});
        if (!on.is_value) goOn(on, report);
        _ = calls.call(.shm_lock_release, .{ on.handle, 0 });
        checker.examine(on);
        checker.findLeftovers(report);
        _ = calls.call(.shm_segment_close, .{on.handle});
        report.is_done = true;
    }

    fn open(checker: Checker, fault: *Fault) i32 {
        if (checker.is_foreign) return world.openUnbounded(checker.directory, world.name, 0, fault);
        return world.open(checker.directory, checker.case.flags(), fault);
    }

    fn examine(checker: Checker, on: world.Seen) void {
        const report = &checker.shared.checker;
        if (checker.is_foreign) on.expectSound(report) else on.examine(report);
    }

    /// Every stripe takes a new key, of every size, and gives it back.
    fn goOn(on: world.Seen, report: *Report) void {
        for (100..180) |key| {
            const stored = on.put(key, 2);
            if (stored != 1) report.complain("the next put gave {d}", .{stored});
        }
        const large = on.put(200, 5);
        if (large != 1) report.complain("the next large put gave {d}", .{large});
        for (100..180) |key| {
            if (on.delete(key) != 1) report.complain("the next delete found nothing", .{});
        }
        _ = on.delete(200);
    }

    fn findLeftovers(checker: Checker, report: *Report) void {
        var fault: Fault = .{};
        const path = os.Path.of("{s}", .{checker.directory}) catch return;
        var names = os.Names.of(&fault, &path) catch
            return report.complain("the directory cannot be read", .{});
        defer names.close();
        while (names.next(&fault) catch null) |entry| {
            if (std.mem.eql(u8, entry, ".") or std.mem.eql(u8, entry, "..")) continue;
            if (std.mem.eql(u8, entry, world.name) or std.mem.eql(u8, entry, "other")) continue;
            report.complain("left over: {s}", .{entry});
        }
    }
};
