//! The limits of a process: how long its files may be, how much address space and how many
//! descriptors it may have, when it opens a map, and in the middle of work on one.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const report = @import("../report.zig");
const tracer = @import("../act/tracer.zig");
const world = @import("../act/world.zig");
const linux = std.os.linux;
const os = shmap.os;

const Fault = shmap.status.Fault;
const Seen = world.Seen;

const no_space = @intFromEnum(shmap.status.Status.noSpace);
const system = @intFromEnum(shmap.status.Status.system);

/// What is tried under a limit.
const Trial = enum {
    file_size,
    space_to_open,
    space_to_attach,
    space_to_verify,
    space_to_repair,
    space_to_snapshot,
    space_to_clear,
    space_to_put,
    space_to_delete,
    descriptors_to_open,
    descriptors_to_attach,
    descriptors_to_make,
    descriptors_to_list,
};

const Try = struct {
    trial: Trial,
    /// How little is left: a small number, whose unit depends on the trial.
    amount: u64,
    is_kernel: bool,
    shared: *world.World,
    directory: []const u8,

    fn flags(self: Try) u32 {
        return if (self.is_kernel) 64 | 128 else 64;
    }

    /// The whole of it, in a process of its own.
    pub fn run(self: Try) void {
        const said = &self.shared.actor;
        switch (self.trial) {
            .file_size => self.fileSize(said),
            .space_to_open, .space_to_attach => self.spaceToOpen(said),
            .descriptors_to_open, .descriptors_to_attach => self.descriptors(said),
            .descriptors_to_make, .descriptors_to_list => self.descriptors(said),
            else => self.spaceInside(said),
        }
        said.is_done = true;
    }

    fn openBounded(self: Try, fault: *Fault) i32 {
        return world.open(self.directory, self.flags(), fault);
    }

    fn filled(self: Try, said: *world.Report) ?Seen {
        var fault: Fault = .{};
        const handle = self.openBounded(&fault);
        if (handle < 0) {
            said.complain("set-up: open gave {d}", .{handle});
            return null;
        }
        const seen: Seen = .{ .handle = @intCast(handle), .is_value = false };
        for (world.base(false), 0..) |number, key| {
            if (number != world.absent and seen.put(key, number) != 1)
                said.complain("set-up: a put failed", .{});
        }
        return seen;
    }

    fn expectBase(_: Try, seen: Seen, said: *world.Report) void {
        var content: world.Content = undefined;
        const status = seen.look(&content);
        if (status < 0) return said.complain("a read gave {d}", .{status});
        const base = world.base(false);
        if (!std.mem.eql(u8, &content, &base)) said.complain("what was stored has changed", .{});
    }

    /// Files may be `amount` times 16 KiB long.
    fn fileSize(self: Try, said: *world.Report) void {
        const limit = Limit.set(.FSIZE, self.amount * 16 * 1024);
        var fault: Fault = .{};
        const handle = self.openBounded(&fault);
        if (handle < 0) {
            if (handle != no_space) said.complain("open gave {d}", .{handle});
            limit.lift();
            return;
        }
        const seen: Seen = .{ .handle = @intCast(handle), .is_value = false };
        var key: usize = 0;
        while (key < 1000) : (key += 1) {
            const status = seen.put(key, if (key % 9 == 8) 5 else 1);
            if (status == no_space) break;
            if (status != 1) said.complain("a put gave {d}", .{status});
        }
        if (key == 1000) said.complain("the limit was not met", .{});
        seen.expectSound(said);
        limit.lift();
        for (key..key + 100) |more| {
            const status = seen.put(more, 1);
            if (status != 1) said.complain("a put without a limit gave {d}", .{status});
        }
        for (0..key + 100) |all| {
            const number = seen.get(all);
            if (number != @as(i32, if (all < key and all % 9 == 8) 5 else 1))
                said.complain("key {d} has {d}", .{ all, number });
        }
        seen.expectSound(said);
        _ = calls.call(.shm_segment_close, .{seen.handle});
    }

    /// There is room for mappings of `amount` times 64 KiB.
    fn spaceToOpen(self: Try, said: *world.Report) void {
        const attaches = self.trial == .space_to_attach;
        if (attaches) {
            const seen = self.filled(said) orelse return;
            _ = calls.call(.shm_segment_close, .{seen.handle});
        }
        said.before = world.held();
        const limit = Limit.spaceLeft(self.amount * 64 * 1024);
        var fault: Fault = .{};
        const handle = if (attaches)
            self.openBounded(&fault)
        else
            world.openUnbounded(self.directory, world.name, self.flags(), &fault);
        if (handle >= 0) {
            const seen: Seen = .{ .handle = @intCast(handle), .is_value = false };
            if (!attaches) {
                var key: usize = 1000;
                while (key < 3000) : (key += 1) {
                    const status = seen.put(key, 1);
                    if (status == no_space or status == system) break;
                    if (status != 1) said.complain("a put gave {d}", .{status});
                }
            }
            limit.lift();
            if (attaches) self.expectBase(seen, said);
            seen.expectSound(said);
            _ = calls.call(.shm_segment_close, .{seen.handle});
        } else {
            limit.lift();
            if (handle != no_space and handle != system) said.complain("open gave {d}", .{handle});
        }
        self.expectNothingKept(said);
    }

    fn expectNothingKept(_: Try, said: *world.Report) void {
        said.after = world.held();
        if (!std.mem.eql(u32, &said.before, &said.after)) said.complain(
            "{d} descriptors and {d} pages became {d} and {d}",
            .{ said.before[0], said.before[1], said.after[0], said.after[1] },
        );
    }

    /// There is room for `amount` pages more, in the middle of something.
    fn spaceInside(self: Try, said: *world.Report) void {
        const seen = self.filled(said) orelse return;
        const room = 1500;
        for (0..room) |i| {
            if (seen.put(1000 + i, if (i % 40 == 0) 5 else 2) != 1)
                said.complain("set-up: a put failed", .{});
        }
        const limit = Limit.spaceLeft(self.amount * os.page_bytes);
        const status = self.inside(seen, room);
        limit.lift();
        if (status < 0 and status != no_space and status != system)
            said.complain("gave {d}", .{status});
        seen.expectSound(said);
        self.expectRest(seen, said, room);
        // Once more, with nothing in the way.
        const again = self.inside(seen, room);
        if (again < 0) said.complain("once more gave {d}", .{again});
        seen.expectSound(said);
        _ = calls.call(.shm_segment_close, .{seen.handle});
    }

    fn inside(self: Try, seen: Seen, room: usize) f64 {
        var verdict: [6]f64 = undefined;
        const bytes = std.mem.asBytes(&verdict);
        const number = seen.handle;
        switch (self.trial) {
            .space_to_verify => return @floatFromInt(calls.call(.shm_map_verify, .{
                number,
                0,
                bytes,
                bytes.len,
            })),
            .space_to_repair => return @floatFromInt(calls.call(.shm_map_verify, .{
                number,
                1,
                bytes,
                bytes.len,
            })),
            .space_to_snapshot => return calls.call(.shm_map_snapshot, .{number}),
            .space_to_clear => return @floatFromInt(calls.call(.shm_map_clear, .{number})),
            .space_to_put => for (0..room) |i| {
                const status = seen.put(1000 + i, if (i % 40 == 0) 1 else 5);
                // Full by itself, sooner or later.
                if (status < 0) return @floatFromInt(if (status == no_space) 0 else status);
            },
            else => for (0..room) |i| {
                const status = seen.delete(1000 + i);
                if (status < 0) return @floatFromInt(status);
            },
        }
        return 0;
    }

    /// What is left is what callers were told.
    fn expectRest(self: Try, seen: Seen, said: *world.Report, room: usize) void {
        if (self.trial != .space_to_clear) self.expectBase(seen, said);
        for (0..room) |i| {
            const before: i32 = if (i % 40 == 0) 5 else 2;
            const after: i32 = switch (self.trial) {
                .space_to_put => if (i % 40 == 0) 1 else 5,
                .space_to_clear, .space_to_delete => 0,
                else => before,
            };
            const found = seen.get(1000 + i);
            if (found != before and found != after)
                said.complain("key {d} has {d}", .{ 1000 + i, found });
        }
    }

    /// `amount` descriptors can be opened.
    fn descriptors(self: Try, said: *world.Report) void {
        if (self.trial != .descriptors_to_open) {
            const seen = self.filled(said) orelse return;
            _ = calls.call(.shm_segment_close, .{seen.handle});
        }
        said.before = world.held();
        // The first that are free may lie below the highest that is open.
        const first = linux.dup(2);
        _ = linux.close(@intCast(first));
        const limit = Limit.set(.NOFILE, first + self.amount);
        var fault: Fault = .{};
        const path = self.directory;
        var room: [400]u8 = undefined;
        const bytes = std.mem.asBytes(&fault);
        const status: i32 = switch (self.trial) {
            .descriptors_to_make => calls.call(.shm_region_anonymous, .{ 9999, bytes }),
            .descriptors_to_list => calls.call(.shm_segment_list, .{
                path.ptr,
                calls.word(path.len),
                &room,
                room.len,
                bytes,
            }),
            else => self.openBounded(&fault),
        };
        limit.lift();
        if (status < 0) {
            const too_many: f64 = @floatFromInt(@intFromEnum(linux.E.MFILE));
            if (status != system or fault.errno != too_many)
                said.complain("status {d}, errno {d}", .{ status, fault.errno });
        } else switch (self.trial) {
            .descriptors_to_make => _ = calls.call(.shm_region_close, .{calls.word(status)}),
            .descriptors_to_list => if (status == 0) said.complain("an empty listing", .{}),
            else => {
                const seen: Seen = .{ .handle = @intCast(status), .is_value = false };
                if (self.trial == .descriptors_to_attach) self.expectBase(seen, said);
                if (seen.put(5, 1) != 1) said.complain("a put failed", .{});
                _ = calls.call(.shm_segment_close, .{seen.handle});
            },
        }
        self.expectNothingKept(said);
    }

    fn most(trial: Trial) u64 {
        return switch (trial) {
            .file_size => 20,
            .space_to_open => 200,
            .space_to_attach => 130,
            .descriptors_to_open, .descriptors_to_attach => 6,
            .descriptors_to_make, .descriptors_to_list => 6,
            else => 40,
        };
    }
};

/// A soft limit, and what it was before.
const Limit = struct {
    resource: linux.rlimit_resource,
    before: linux.rlimit,

    fn set(resource: linux.rlimit_resource, to: u64) Limit {
        var limit: Limit = .{ .resource = resource, .before = undefined };
        _ = linux.prlimit(0, resource, null, &limit.before);
        _ = linux.prlimit(0, resource, &.{ .cur = to, .max = limit.before.max }, null);
        return limit;
    }

    /// As much address space as there is now, and `bytes`.
    fn spaceLeft(bytes: u64) Limit {
        return set(.AS, world.held()[1] * @as(u64, os.page_bytes) + bytes);
    }

    fn lift(limit: *const Limit) void {
        _ = linux.prlimit(0, limit.resource, &limit.before, null);
    }
};

fn clean(directory: *const os.Path) bool {
    var fault: Fault = .{};
    var is_clean = true;
    var names = os.Names.of(&fault, directory) catch return false;
    defer names.close();
    while (names.next(&fault) catch null) |entry| {
        if (std.mem.eql(u8, entry, ".") or std.mem.eql(u8, entry, "..")) continue;
        if (!std.mem.eql(u8, entry, world.name)) is_clean = false;
        const path = os.Path.of("{s}/{s}", .{ directory.slice(), entry }) catch continue;
        os.unlink(&fault, &path) catch {};
    }
    return is_clean;
}

/// Row `limits`. True: nothing was found.
pub fn run(io: std.Io, arguments: *const report.Arguments) !bool {
    const shared = try shmap.testing.support.shared(world.World);
    const directory = try os.Path.of("/dev/shm/shmap-test-{d}-limits", .{os.pid()});
    if (linux.errno(linux.mkdir(directory.z(), 0o700)) != .SUCCESS) return error.NoDirectory;
    defer _ = linux.rmdir(directory.z());
    defer _ = clean(&directory);
    var random = std.Random.DefaultPrng.init(arguments.seed);
    var tried: u64 = 0;
    var found: u64 = 0;
    for (std.enums.values(Trial)) |trial| {
        for (0..Try.most(trial)) |amount| for ([_]bool{ false, true }) |is_kernel| {
            if (random.random().float(f64) >= arguments.scale) continue;
            shared.* = .{};
            const one: Try = .{
                .trial = trial,
                .amount = amount,
                .is_kernel = is_kernel,
                .shared = shared,
                .directory = directory.slice(),
            };
            const said = &shared.actor;
            try inProcess(said, one);
            if (!clean(&directory)) said.complain("something is left over", .{});
            tried += 1;
            if (said.trouble_len == 0) continue;
            found += 1;
            const kind = if (is_kernel) "kernel" else "robust";
            std.debug.print("{s} {d} ({s}): {s} [--seed {d}]\n", .{
                @tagName(trial), amount, kind, said.troubles(), arguments.seed,
            });
        };
    }
    try report.say(io, .{
        .part = 9,
        .what = "limits",
        .tried = tried,
        .found = found,
        .least = @intFromFloat(1000 * @min(arguments.scale, 1) * 0.5),
        .seed = arguments.seed,
        .note = "file size, address space, descriptors",
    });
    return found == 0;
}

fn inProcess(said: *world.Report, one: Try) !void {
    const pid = try tracer.fork();
    if (pid == 0) {
        one.run();
        linux.exit_group(0);
    }
    const outcome = tracer.wait(pid, 20);
    if (outcome.ending != .exited)
        said.complain("ended by {s} {d}", .{ @tagName(outcome.ending), outcome.code });
    if (!said.is_done) said.complain("did not come to its end", .{});
}
