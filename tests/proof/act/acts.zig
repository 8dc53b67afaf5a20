//! The acts whose every system call is disturbed: what stands before each of them, what it calls,
//! and what a map must be like afterwards.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const Flags = shmap.marshal.Flags;
const world = @import("world.zig");
const tracer = @import("tracer.zig");
const linux = std.os.linux;

const Content = world.Content;
const Fault = shmap.status.Fault;
const Report = world.Report;
const Seen = world.Seen;
const World = world.World;

pub const Act = enum {
    open_new,
    open_existing,
    open_sole,
    open_readonly,
    grow,
    set,
    replace_large,
    large,
    delete,
    clear,
    lock,
    write_beside_dead_holder,
    replace,
    unlink,
    unlink_own,
    list,
    close,
    anonymous,
    attach,
    value_set,
    snapshot,
    verify,
    repair,

    /// Acts on a handle that was opened before.
    pub fn isOnHandle(act: Act) bool {
        return switch (act) {
            .grow, .set, .replace_large, .large, .delete, .clear, .lock => true,
            .write_beside_dead_holder, .unlink_own, .close, .value_set => true,
            .snapshot, .verify, .repair => true,
            else => false,
        };
    }

    pub fn isOpening(act: Act) bool {
        return switch (act) {
            .open_new, .open_existing, .open_sole, .open_readonly => true,
            .replace, .anonymous, .attach => true,
            else => false,
        };
    }

    /// What the act makes of a map that holds `before`.
    pub fn effect(act: Act, before: Content) Content {
        var after = before;
        switch (act) {
            .set, .lock, .write_beside_dead_holder => after[5] = 2,
            .replace_large => after[24] = 5,
            .large => after[25] = 3,
            .grow => after[26] = 4,
            .delete => after[7] = 0,
            .value_set => after[0] = 2,
            .clear, .replace, .unlink, .unlink_own => after = @splat(world.absent),
            else => {},
        }
        return after;
    }

    /// Whether another process that is attached could be hurt by it, or see it.
    pub fn isSeen(act: Act) bool {
        return switch (act) {
            .open_new, .open_sole, .anonymous, .list, .snapshot, .verify, .repair => false,
            else => true,
        };
    }

    /// Several commits: after a failure each key may be as before or as afterwards.
    pub fn isPiecemeal(act: Act) bool {
        return act == .clear;
    }
};

pub const Case = struct {
    act: Act,
    kernel: bool,
    /// Whether another process is attached throughout.
    beside: bool = false,
    lack: tracer.Lack = .nothing,

    pub fn flags(case: Case) u32 {
        var bits: u32 = @intFromEnum(Flags.lockStated);
        if (case.kernel) bits |= @intFromEnum(Flags.lockKernel);
        if (case.isValue()) bits |= @intFromEnum(Flags.value);
        return bits;
    }

    pub fn isValue(case: Case) bool {
        return case.act == .value_set;
    }

    pub fn seen(case: Case, handle: i32) Seen {
        return .{ .handle = @intCast(handle), .is_value = case.isValue() };
    }

    pub fn before(case: Case) Content {
        if (case.act == .open_new or case.act == .anonymous) return @splat(world.absent);
        return world.base(case.isValue());
    }

    pub fn after(case: Case) Content {
        return case.act.effect(case.before());
    }

    /// In a process of its own: the map as it stands before the act.
    pub fn prepare(case: Case, shared: *World, directory: []const u8) void {
        const report = &shared.preparer;
        var fault: Fault = .{};
        if (case.act == .list) case.fill(report, world.openAs(directory, "other", 0, &fault));
        const named = case.act != .open_new and case.act != .anonymous and case.act != .attach;
        if (named) case.fill(report, world.open(directory, case.flags(), &fault));
        switch (case.act) {
            .open_sole => case.dieWriting(report, world.open(directory, 0, &fault)),
            .write_beside_dead_holder => {
                const handle = world.open(directory, 0, &fault);
                if (handle < 0 or calls.call(.shm_lock_acquire, .{
                    calls.word(handle),
                    0,
                    1000,
                }) != 0)
                    report.complain("no lock for who dies with it", .{});
            },
            else => {},
        }
        report.is_done = true;
    }

    fn fill(case: Case, report: *Report, handle: i32) void {
        if (handle < 0) return report.complain("set-up: open gave {d}", .{handle});
        for (world.base(case.isValue()), 0..) |number, key| {
            if (number == world.absent) continue;
            const stored = case.seen(handle).put(key, number);
            if (stored != 1) report.complain("set-up: put gave {d}", .{stored});
        }
        _ = calls.call(.shm_segment_close, .{calls.word(handle)});
    }

    /// Leaves every stripe and the pool as if this process had died inside them.
    fn dieWriting(_: Case, report: *Report, handle: i32) void {
        if (handle < 0) return report.complain("set-up: open gave {d}", .{handle});
        const map = shmap.handles.maps.get(@intCast(handle)).?;
        for (0..map.segment.view.stripeCount()) |i| {
            var op = shmap.stripe_op.StripeOp.lock(map, @intCast(i)) catch
                return report.complain("set-up: a stripe could not be locked", .{});
            op.begin();
        }
        _ = shmap.space.lockPool(&map.segment) catch
            return report.complain("set-up: the pool could not be locked", .{});
    }

    /// Opens what the act is done to; 0 where it opens by itself.
    pub fn enter(case: Case, report: *Report, directory: []const u8) i32 {
        if (!case.act.isOnHandle()) return 0;
        var fault: Fault = .{};
        const handle = world.open(directory, case.flags(), &fault);
        if (handle < 0) report.complain("set-up: open gave {d}", .{handle});
        return handle;
    }

    /// The act: the one thing that happens in the bracket. Below zero: it failed.
    pub fn perform(case: Case, shared: *World, directory: []const u8, handle: i32) f64 {
        const fault: *Fault = &opening_fault;
        const number: u32 = @intCast(handle);
        const on = case.seen(handle);
        return switch (case.act) {
            .open_new, .open_existing, .open_sole => integer(
                world.open(directory, case.flags(), fault),
            ),
            .open_readonly => integer(
                world.open(directory, @intFromEnum(Flags.readonly), fault),
            ),
            .replace => integer(world.open(
                directory,
                case.flags() | @intFromEnum(Flags.modeExclusive),
                fault,
            )),
            .anonymous => integer(calls.call(.shm_segment_anonymous, .{
                world.codec,
                world.codec.len,
                case.flags(),
                0,
                1000,
                std.mem.asBytes(fault),
            })),
            .attach => integer(world.attach(shared.token[0..shared.token_len], fault)),
            .unlink => integer(calls.call(.shm_segment_unlink_name, .{
                directory.ptr,
                calls.word(directory.len),
                world.name,
                world.name.len,
                0,
                1000,
                std.mem.asBytes(fault),
            })),
            .list => listed(directory, fault),
            .grow => integer(on.put(26, 4)),
            .set, .write_beside_dead_holder => integer(on.put(5, 2)),
            .replace_large => integer(on.put(24, 5)),
            .large => integer(on.put(25, 3)),
            .delete => integer(on.delete(7)),
            .value_set => integer(on.put(0, 2)),
            .clear => integer(calls.call(.shm_map_clear, .{number})),
            .lock => locked(on),
            .unlink_own => integer(calls.call(.shm_segment_unlink, .{number})),
            .close => integer(calls.call(.shm_segment_close, .{number})),
            .snapshot => snapshot(number),
            .verify => verdict(number, 0),
            .repair => verdict(number, 1),
        };
    }
};

/// What an open or a call without a handle noted of its failure.
pub var opening_fault: Fault = .{};

fn integer(status: i32) f64 {
    return @floatFromInt(status);
}

fn locked(on: Seen) f64 {
    const got = calls.call(.shm_lock_acquire, .{ on.handle, 0, 1000 });
    if (got != 0) return integer(got);
    const stored = on.put(5, 2);
    _ = calls.call(.shm_lock_release, .{ on.handle, 0 });
    return integer(stored);
}

/// 1 if what was gathered has everything: both maps of the directory.
fn listed(directory: []const u8, fault: *Fault) f64 {
    var room: [1024]u8 align(8) = undefined;
    const len = calls.call(.shm_segment_list, .{
        directory.ptr,
        calls.word(directory.len),
        &room,
        room.len,
        std.mem.asBytes(fault),
    });
    if (len < 0) return integer(len);
    const line = @sizeOf(shmap.directory.Listed) + 8; // names of up to 8 bytes
    return if (len == 2 * line) 1 else 0;
}

fn snapshot(handle: u32) f64 {
    const bytes = calls.call(.shm_map_snapshot, .{handle});
    if (bytes < 0) return bytes;
    // More than the values alone, or something is missing.
    return if (bytes > 10_240 + 24 * 31) 1 else 0;
}

fn verdict(handle: u32, repair: u32) f64 {
    var numbers: [6]f64 = undefined;
    const bytes = std.mem.asBytes(&numbers);
    const len = calls.call(.shm_map_verify, .{ handle, repair, bytes, bytes.len });
    if (len < 0) return integer(len);
    if (numbers[5] != 0) return integer(shmap.status.status(error.Timeout));
    return if (numbers[0] == 0 and numbers[1] == 25 and numbers[2] == 0) 1 else 0;
}

/// Every case of a full enumeration.
pub const all = cases: {
    var list: []const Case = &.{};
    for (.{ false, true }) |kernel| {
        for (std.enums.values(Act)) |act| {
            if (act != .attach and act != .open_existing)
                list = list ++ .{Case{ .act = act, .kernel = kernel }};
            const beside: Case = .{ .act = act, .kernel = kernel, .beside = true };
            if (act.isSeen()) list = list ++ .{beside};
        }
        for (.{ Act.open_new, Act.replace }) |act|
            list = list ++ .{Case{ .act = act, .kernel = kernel, .lack = .unnamed_files }};
        list = list ++ .{Case{
            .act = .replace,
            .kernel = kernel,
            .beside = true,
            .lack = .exchange,
        }};
    }
    break :cases list;
};
