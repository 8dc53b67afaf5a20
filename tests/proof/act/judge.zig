//! Runs one case and judges what its processes saw.

const std = @import("std");
const shmap = @import("shmap");
const acts = @import("acts.zig");
const roles = @import("roles.zig");
const tracer = @import("tracer.zig");
const world = @import("world.zig");
const linux = std.os.linux;
const os = shmap.os;

const Case = acts.Case;
const Content = world.Content;
const World = world.World;

/// Calls that the kernel itself may end early for a signal, by their manual pages: the library has
/// to make them again.
pub fn isInterruptible(call: linux.SYS) bool {
    return switch (call) {
        .open, .fallocate, .fcntl, .pread64, .pwrite64, .ftruncate, .fstatfs => true,
        .nanosleep, .futex, .close => true,
        else => false,
    };
}

/// Whether the act gave back what it took; a call that failed at just that cannot.
pub fn judgeHeld(actor: *const world.Report, outcome: tracer.Outcome) ?[]const u8 {
    if (outcome.call == .close or outcome.call == .munmap) return null;
    if (std.mem.eql(u32, &actor.before, &actor.after)) return null;
    const static = struct {
        var buffer: [100]u8 = undefined;
    };
    return std.fmt.bufPrint(&static.buffer, "{d} descriptors and {d} pages became {d} and {d}", .{
        actor.before[0], actor.before[1], actor.after[0], actor.after[1],
    }) catch "descriptors or address space were lost";
}

/// Whether a number is one that `status.zig` knows.
pub fn isTyped(status: f64) bool {
    if (status >= 0) return true;
    const number: i32 = @intFromFloat(status);
    return std.enums.fromInt(shmap.status.Status, number) != null;
}

/// Calls of which a full file system can be the reason to fail.
fn takesSpace(call: linux.SYS) bool {
    return switch (call) {
        .fallocate, .open, .linkat, .renameat2, .ftruncate, .pwrite64, .memfd_create => true,
        else => false,
    };
}

/// What is wrong with a failure as such, if anything.
pub fn judgeStatus(
    actor: *const world.Report,
    plan: tracer.Plan,
    outcome: tracer.Outcome,
) ?[]const u8 {
    if (!isTyped(actor.status)) return "a status that is none";
    const errno: linux.E = switch (plan.deed) {
        .fail, .fail_from_here => |errno| errno,
        else => return if (actor.status < 0) "failed undisturbed" else null,
    };
    if (actor.status >= 0) return null;
    if (errno == .INTR and isInterruptible(outcome.call.?)) return "interrupted, not made again";
    if (actor.errno != @as(f64, @floatFromInt(@intFromEnum(errno)))) return "another errno";
    const no_space: f64 = @floatFromInt(@intFromEnum(shmap.status.Status.noSpace));
    const is_told = actor.status == no_space or !takesSpace(outcome.call.?);
    return if (errno == .NOSPC and !is_told) "no space, and not told as that" else null;
}

pub const Subject = struct {
    case: Case,
    act: acts.Act,
    lack: tracer.Lack,

    pub fn of(case: Case) Subject {
        return .{ .case = case, .act = case.act, .lack = case.lack };
    }

    pub fn words(subject: Subject) []const u8 {
        const static = struct {
            var buffer: [100]u8 = undefined;
        };
        return std.fmt.bufPrint(&static.buffer, "{s} ({s}{s}{s}{s})", .{
            @tagName(subject.act),
            if (subject.case.kernel) "kernel" else "robust",
            if (subject.case.beside) ", beside another" else "",
            if (subject.lack == .nothing) "" else ", without ",
            if (subject.lack == .nothing) "" else @tagName(subject.lack),
        }) catch "?";
    }

    pub fn run(
        subject: Subject,
        shared: *World,
        directory: []const u8,
        plan: tracer.Plan,
        repeats: bool,
    ) tracer.Outcome {
        const case = subject.case;
        roles.inChild(&shared.preparer, Preparer{
            .case = case,
            .shared = shared,
            .directory = directory,
        });
        leaveTemporary(case, directory);
        var keeper: roles.Keeper = .{};
        if (case.beside)
            keeper = roles.Keeper.start(case, shared, directory) catch .{};
        const actor: roles.Actor = .{
            .case = case,
            .shared = shared,
            .directory = directory,
            .repeats = repeats,
        };
        const outcome = actor.follow(plan);
        roles.inChild(&shared.checker, roles.Checker{
            .case = case,
            .shared = shared,
            .directory = directory,
        });
        keeper.ask(shared);
        return outcome;
    }

    pub fn judge(
        subject: Subject,
        shared: *World,
        plan: tracer.Plan,
        outcome: tracer.Outcome,
        repeats: bool,
    ) ?[]const u8 {
        for ([_]*world.Report{
            &shared.preparer, &shared.actor, &shared.checker, &shared.keeper,
        }) |report| {
            if (report.trouble_len > 0) return report.troubles();
        }
        switch (outcome.ending) {
            .exited => {},
            .killed_by_plan => return subject.judgeRest(shared, .either),
            .killed => return "died of a signal",
            .hung => return "hung for ten seconds",
        }
        const actor = &shared.actor;
        if (!actor.is_done) return "did not come to its end";
        if (judgeStatus(actor, plan, outcome)) |wrong| return wrong;
        if (judgeHeld(actor, outcome)) |wrong| return wrong;
        if (subject.judgeHere(shared)) |wrong| return wrong;
        if (actor.status < 0 and repeats and !actor.is_repeated) return "did not try again";
        if (actor.status >= 0 or actor.is_repeated) return subject.judgeRest(shared, .after);
        return subject.judgeRest(shared, if (subject.act.isPiecemeal()) .either else .before);
    }

    /// What the acting process itself saw, right after its act.
    fn judgeHere(subject: Subject, shared: *World) ?[]const u8 {
        const actor = &shared.actor;
        switch (subject.act) {
            .unlink, .close => return null,
            .list, .snapshot, .verify, .repair => if (actor.status == 0) return "told half of it",
            else => {},
        }
        if (subject.act == .list) return null;
        const is_open = !subject.act.isOpening() or actor.status >= 0 or actor.is_repeated;
        if (!is_open) return null;
        const failed = actor.status < 0 and !subject.act.isOpening();
        const keeps = failed or subject.act == .unlink_own; // which leaves its handle the memory
        const expected = if (keeps) subject.case.before() else subject.case.after();
        if (failed and subject.act.isPiecemeal()) return null;
        return if (std.mem.eql(u8, &expected, &actor.content)) null else "sees another content";
    }

    /// What is there afterwards, as the next opener sees it and the handles that stayed open.
    fn judgeRest(
        subject: Subject,
        shared: *World,
        allowed: enum { before, after, either },
    ) ?[]const u8 {
        const case = subject.case;
        const before = case.before();
        const after = case.after();
        const found = &shared.checker.content;
        if (!shared.checker.is_done) return "the next process did not come to its end";
        const is_before = std.mem.eql(u8, &before, found);
        const is_after = std.mem.eql(u8, &after, found);
        const is_either = if (subject.act.isPiecemeal())
            isMixture(found, &before, &after)
        else
            is_before or is_after;
        const is_allowed = switch (allowed) {
            .before => is_before,
            .after => is_after,
            .either => is_either,
        };
        if (!is_allowed) return "the next process sees another content";
        if (subject.judgeName(shared, allowed == .after, allowed == .before)) |wrong| return wrong;
        const is_owed = subject.act == .write_beside_dead_holder;
        if (is_owed != (shared.recovered == 1) and !(allowed == .either and subject.act == .lock))
            return "the next locker is told another story";
        return if (case.beside) subject.judgeKeeper(shared, is_after) else null;
    }

    fn judgeName(subject: Subject, shared: *World, must: bool, must_not: bool) ?[]const u8 {
        switch (subject.act) {
            .open_new => if (must and !shared.was_named) return "no name after success",
            .unlink, .unlink_own => {
                if (must and shared.was_named) return "the name is still there";
                if (must_not and !shared.was_named) return "the name is gone";
            },
            .anonymous, .attach => if (shared.was_named) return "a name from nowhere",
            else => if (!shared.was_named) return "the name is gone",
        }
        return null;
    }

    fn judgeKeeper(subject: Subject, shared: *World, is_after: bool) ?[]const u8 {
        const keeper = &shared.keeper;
        if (!keeper.is_done) return "who was attached did not come to its end";
        switch (subject.act) {
            .replace => if (is_after) {
                const replaced: f64 = @floatFromInt(@intFromEnum(shmap.status.Status.replaced));
                return if (keeper.status == replaced) null else "who was attached was not told";
            },
            .unlink, .unlink_own => {
                const base = subject.case.before();
                const same = keeper.status == 0 and std.mem.eql(u8, &keeper.content, &base);
                return if (same) null else "who was attached lost its memory";
            },
            else => {},
        }
        if (keeper.status != 0) return "who was attached cannot read";
        if (!std.mem.eql(u8, &keeper.content, &shared.checker.content))
            return "who was attached sees another content";
        return null;
    }
};

fn isMixture(found: *const Content, a: *const Content, b: *const Content) bool {
    for (found, a, b) |number, one, other| {
        if (number != one and number != other) return false;
    }
    return true;
}

const Preparer = struct {
    case: Case,
    shared: *World,
    directory: []const u8,

    pub fn run(preparer: Preparer) void {
        preparer.case.prepare(preparer.shared, preparer.directory);
    }
};

/// What a maker that died left there, for those acts that should clear it away.
fn leaveTemporary(case: Case, directory: []const u8) void {
    if (case.act != .open_new and case.act != .list) return;
    var fault: shmap.status.Fault = .{};
    const path = os.Path.of("{s}/.map.~0000000000000000", .{directory}) catch return;
    os.close(os.openNew(&fault, &path) catch return);
}
