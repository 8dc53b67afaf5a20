//! The same for memory over a user's file: a file made, made longer, copied to and from, flushed;
//! and a region without one.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const Flags = shmap.marshal.Flags;
const judges = @import("judge.zig");
const roles = @import("roles.zig");
const tracer = @import("tracer.zig");
const world = @import("world.zig");
const linux = std.os.linux;
const os = shmap.os;

const Report = world.Report;
const World = world.World;

pub const Act = enum { region_new, region_longer, region_copy, region_flush, region_memory };

const long_bytes = 3 << 20;
const short_bytes = 5000;
const file_name = "region.bin";

/// What a user's file holds before the act.
fn original(at: usize) u8 {
    return @truncate(at *% 31 +% 7);
}

var opening_fault: shmap.status.Fault = .{};
var copy_room: [short_bytes]u8 = undefined;

pub const Subject = struct {
    act: Act,
    lack: tracer.Lack = .nothing,

    pub fn words(subject: Subject) []const u8 {
        return @tagName(subject.act);
    }

    fn path(_: Subject, directory: []const u8) os.Path {
        return os.Path.of("{s}/{s}", .{ directory, file_name }) catch unreachable; // short
    }

    fn open(subject: Subject, directory: []const u8, wanted: f64) i32 {
        const full = subject.path(directory);
        const flags = @intFromEnum(Flags.regionRead) | @intFromEnum(Flags.regionWrite);
        const bytes = std.mem.asBytes(&opening_fault);
        return calls.call(.shm_region_open, .{
            full.z(),
            calls.word(full.len),
            0,
            wanted,
            flags,
            bytes,
        });
    }

    fn perform(subject: Subject, directory: []const u8, handle: i32) f64 {
        const number: u32 = @intCast(handle);
        switch (subject.act) {
            .region_new, .region_longer => {
                return @floatFromInt(subject.open(directory, long_bytes));
            },
            .region_memory => {
                const bytes = std.mem.asBytes(&opening_fault);
                return @floatFromInt(calls.call(.shm_region_anonymous, .{ long_bytes, bytes }));
            },
            .region_flush => return @floatFromInt(calls.call(.shm_region_flush, .{number})),
            .region_copy => return copy(number),
        }
    }

    /// Turns every byte over, and reads it again.
    fn copy(handle: u32) f64 {
        for (&copy_room, 0..) |*byte, i| byte.* = ~original(i);
        const written = calls.call(.shm_region_write, .{ handle, 0, &copy_room, copy_room.len });
        if (written < 0) return written;
        @memset(&copy_room, 0);
        const read = calls.call(.shm_region_read, .{ handle, 0, &copy_room, copy_room.len });
        if (read < 0) return read;
        if (read != written) return 0;
        for (copy_room[0..@intFromFloat(read)], 0..) |byte, i| {
            if (byte != ~original(i)) return 0;
        }
        return read;
    }

    fn opens(subject: Subject) bool {
        return subject.act != .region_copy and subject.act != .region_flush;
    }

    fn prepare(subject: Subject, directory: []const u8) !void {
        if (subject.act == .region_new or subject.act == .region_memory) return;
        var fault: shmap.status.Fault = .{};
        const full = subject.path(directory);
        const fd = try os.openNew(&fault, &full);
        defer os.close(fd);
        for (&copy_room, 0..) |*byte, i| byte.* = original(i);
        if (linux.write(fd, &copy_room, copy_room.len) != copy_room.len) return error.NotWritten;
    }

    pub fn run(
        subject: Subject,
        shared: *World,
        directory: []const u8,
        plan: tracer.Plan,
        repeats: bool,
    ) tracer.Outcome {
        subject.prepare(directory) catch shared.preparer.complain("no file to begin with", .{});
        const actor: Actor = .{
            .subject = subject,
            .shared = shared,
            .directory = directory,
            .repeats = repeats,
        };
        const pid = tracer.fork() catch return .{};
        if (pid == 0) {
            actor.run();
            linux.exit_group(0);
        }
        const outcome = tracer.follow(pid, plan);
        shared.file_bytes = subject.length(directory);
        const checker: Checker = .{ .subject = subject, .shared = shared, .directory = directory };
        roles.inChild(&shared.checker, checker);
        return outcome;
    }

    fn length(subject: Subject, directory: []const u8) u64 {
        var fault: shmap.status.Fault = .{};
        const full = subject.path(directory);
        return if (os.statName(&fault, &full)) |stat| stat.size else |_| 0;
    }

    pub fn judge(
        subject: Subject,
        shared: *World,
        plan: tracer.Plan,
        outcome: tracer.Outcome,
        repeats: bool,
    ) ?[]const u8 {
        for ([_]*Report{ &shared.preparer, &shared.actor, &shared.checker }) |report| {
            if (report.trouble_len > 0) return report.troubles();
        }
        if (!shared.checker.is_done) return "the next process did not come to its end";
        const actor = &shared.actor;
        const short: u64 = if (subject.act == .region_new) 0 else short_bytes;
        switch (outcome.ending) {
            .exited => {},
            .killed_by_plan => return if (subject.act != .region_memory and
                (shared.file_bytes < short or shared.file_bytes > long_bytes))
                "a length that no open asked for"
            else
                null,
            .killed => return "died of a signal",
            .hung => return "hung for ten seconds",
        }
        if (!actor.is_done) return "did not come to its end";
        if (judges.judgeStatus(actor, plan, outcome)) |wrong| return wrong;
        if (judges.judgeHeld(actor, outcome)) |wrong| return wrong;
        if (subject.act == .region_copy and actor.status == 0) return "a copy of something else";
        if (actor.status < 0 and repeats and !actor.is_repeated) return "did not try again";
        if (subject.act != .region_new and subject.act != .region_longer) return null;
        const is_long = actor.status >= 0 or actor.is_repeated;
        // What was added is taken back, unless that very call is the one that fails.
        if (shared.file_bytes != if (is_long) long_bytes else short)
            return "a length that no open asked for";
        return null;
    }
};

const Actor = struct {
    subject: Subject,
    shared: *World,
    directory: []const u8,
    repeats: bool,

    fn run(actor: Actor) void {
        const report = &actor.shared.actor;
        const subject = actor.subject;
        report.before = world.held();
        const handle = if (subject.opens()) 0 else subject.open(actor.directory, 0);
        if (handle < 0) return report.complain("set-up: open gave {d}", .{handle});
        tracer.begin();
        report.status = subject.perform(actor.directory, handle);
        tracer.end();
        var fault = opening_fault;
        if (!subject.opens()) _ = calls.call(.shm_fault, .{
            calls.word(handle),
            std.mem.asBytes(&fault),
        });
        report.errno = fault.errno;
        var last = report.status;
        if (last < 0 and actor.repeats) {
            last = subject.perform(actor.directory, handle);
            if (last < 0) report.complain("once more: status {d}", .{last});
            report.is_repeated = true;
        }
        if (subject.opens()) {
            if (last >= 0) _ = calls.call(.shm_region_close, .{@as(u32, @intFromFloat(last))});
        } else _ = calls.call(.shm_region_close, .{calls.word(handle)});
        report.after = world.held();
        report.is_done = true;
    }
};

/// Who comes afterwards: the bytes that were there are, as they were or turned over, and it can
/// make the file as long as it likes.
const Checker = struct {
    subject: Subject,
    shared: *World,
    directory: []const u8,

    pub fn run(checker: Checker) void {
        const report = &checker.shared.checker;
        if (checker.subject.act == .region_memory) {
            report.is_done = true;
            return;
        }
        const handle = checker.subject.open(checker.directory, long_bytes + 1);
        if (handle < 0) return report.complain("the next open gave {d}", .{handle});
        const number: u32 = @intCast(handle);
        const locked = calls.call(.shm_lock_acquire, .{ number, 0, 1000 });
        if (locked != 0) report.complain("the next lock gave {d}", .{locked});
        const read = calls.call(.shm_region_read, .{ number, 0, &copy_room, copy_room.len });
        if (read != copy_room.len) report.complain("the next read gave {d}", .{read});
        if (checker.subject.act != .region_new) {
            for (copy_room, 0..) |byte, i| {
                const is_over = checker.subject.act == .region_copy and byte == ~original(i);
                if (byte != original(i) and !is_over)
                    report.complain("byte {d} is of no write", .{i});
            }
        }
        const end: f64 = long_bytes;
        const written = calls.call(.shm_region_write, .{ number, end, "x", 1 });
        if (written != 1) report.complain("the next write gave {d}", .{written});
        const flushed = calls.call(.shm_region_flush, .{number});
        if (flushed != 0) report.complain("the next flush gave {d}", .{flushed});
        _ = calls.call(.shm_region_close, .{number});
        report.is_done = true;
    }
};

pub const all = list: {
    var subjects: []const Subject = &.{};
    for (std.enums.values(Act)) |act| subjects = subjects ++ .{Subject{ .act = act }};
    break :list subjects;
};
