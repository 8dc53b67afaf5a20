//! How crash images come about: an operation runs once and its stores are noted; then they are made
//! again one by one, and after each a `Site` (`images.zig`) is looked at as if a process
//! had died there. The same for the stores of recoveries.

const std = @import("std");
const count = @import("../map/count.zig");
const write = @import("../map/write.zig");
const StripeOp = @import("../map/stripe_op.zig").StripeOp;
const calls = @import("calls.zig");
const atomics = @import("../atomics.zig");
const expectations = @import("expected.zig");
const gathered = @import("../map/gathered.zig");
const images = @import("images.zig");
const attach = @import("../map/attach.zig");
const layout = @import("../layout.zig");
const maps = @import("../map/map.zig");
const range_lock = @import("../lock/range_lock.zig");
const spaces = @import("../stripe/space.zig");
const status = @import("../status.zig");

const Allocator = std.mem.Allocator;
const Change = images.Change;
const Expected = expectations.Expected;
const Map = maps.Map;
const Site = images.Site;
const Way = images.Way;

/// What operations did, seen by their stores.
pub const Effects = struct {
    operations: u64 = 0,
    refused: u64 = 0,
    growths: u64 = 0,
    tables: u64 = 0,
    sip_tables: u64 = 0,
    advances: u64 = 0,
    rebuilds: u64 = 0,
    claims: u64 = 0,
    releases: u64 = 0,
    pool_rebuilds: u64 = 0,
    /// Of extents that park: made, taken or given back or emptied, and robbed of blocks.
    fresh_extents: u64 = 0,
    moves: u64 = 0,
    punches: u64 = 0,
    /// How often the end of the segment was cut off.
    cuts: u64 = 0,

    /// Whether anything but an entry changed.
    fn any(effects: *const Effects) bool {
        inline for (@typeInfo(Effects).@"struct".fields) |field| {
            if (@field(effects, field.name) > 0) return true;
        }
        return false;
    }

    pub fn add(effects: *Effects, others: *const Effects) void {
        inline for (@typeInfo(Effects).@"struct".fields) |field|
            @field(effects, field.name) += @field(others, field.name);
    }

    fn note(effects: *Effects, site: *const Site, change: Change) void {
        const Header = layout.Header;
        const Pool = layout.Pool;
        const Stripe = layout.Stripe;
        const offset = @as(u64, change.at) * 8;
        const pool = @offsetOf(Header, "pool");
        if (offset == @offsetOf(Header, "committed")) {
            if (change.new < change.old) effects.cuts += 1 else effects.growths += 1;
        }
        if (offset == pool + @offsetOf(Pool, "released")) {
            if (change.new == 0) effects.pool_rebuilds += 1 else effects.releases += 1;
        }
        if (offset == pool + @offsetOf(Pool, "moving")) {
            const moving: layout.Moving = @bitCast(change.new);
            effects.fresh_extents += @intFromBool(moving.kind == .fresh);
            effects.moves += @intFromBool(moving.kind == .extent);
        }
        if (offset == pool + @offsetOf(Pool, "hole_bytes") and change.new > change.old)
            effects.punches += 1;
        const end = layout.page_bytes + site.stripeCount() * @sizeOf(Stripe);
        if (offset < layout.page_bytes or offset >= end) return;
        switch ((offset - layout.page_bytes) % @sizeOf(Stripe)) {
            @offsetOf(Stripe, "generation") => if (change.new -% change.old == 2) {
                effects.rebuilds += 1;
            } else {
                effects.advances += 1;
            },
            @offsetOf(Stripe, "table") => {
                const word: layout.TableWord = @bitCast(change.new);
                effects.tables += @intFromBool(word.present);
                effects.sip_tables += @intFromBool(word.sip);
            },
            @offsetOf(Stripe, "owned") => effects.claims += @intFromBool(change.new > change.old),
            else => {},
        }
    }
};

/// How far to go at each image.
pub const Plan = struct {
    random: std.Random,
    /// Nested images wanted for each image; they come in runs, one recovery at a time.
    nested_each: u64 = 10,
    /// One image in so many gets the writers and the long checks, too.
    thorough_every: u32 = 8,
    /// Of the operations that only change an entry, one in so many is looked at.
    plain_every: u32 = 1,
};

pub const Replay = struct {
    site: Site,
    victim: *Map,
    plan: Plan,
    images: u64 = 0,
    nested: u64 = 0,
    effects: Effects = .{},

    /// A replay over a new segment, which it owns.
    pub fn init(gpa: Allocator, shape: images.Shape, plan: Plan) !Replay {
        const victim = try images.make(shape);
        errdefer images.close(victim);
        return .{ .site = try .init(gpa, victim), .victim = victim, .plan = plan };
    }

    pub fn deinit(replay: *Replay) void {
        replay.site.deinit();
        images.close(replay.victim);
    }

    /// Runs `act` without looking at what it leaves on the way.
    pub fn quietly(replay: *Replay, act: Act) !void {
        atomics.observer = &replay.site.observer;
        defer atomics.observer = null;
        defer replay.site.changes.clearRetainingCapacity();
        try act.run(replay.victim);
    }

    /// Runs `act`, and then looks at the memory as it is after each of its stores. The keys of one
    /// of `groups` change together. A segment that is full may refuse.
    pub fn enumerate(
        replay: *Replay,
        keys: []const []const u8,
        groups: []const u32,
        act: Act,
    ) !void {
        const site = &replay.site;
        const before = try site.read(replay.victim, keys);
        defer site.forget(before);
        const was_owed = replay.isHeld();
        site.stale_committed = replay.victim.segment.view.committed;
        var effects: Effects = .{};
        replay.quietlyNoted(act) catch |err| {
            if (err != error.NoSpace) return err;
            effects.refused += 1;
        };
        for (site.changes.items) |change| effects.note(site, change);
        if (!effects.any() and replay.plan.random.uintLessThan(u32, replay.plan.plain_every) > 0)
            return site.changes.clearRetainingCapacity();
        try site.expectNothingWrong();
        try site.expectShadow();
        const after = try site.read(replay.victim, keys);
        defer site.forget(after);
        const log = try site.gpa.dupe(Change, site.changes.items);
        defer site.gpa.free(log);
        site.undo(0);
        effects.operations += 1;
        replay.effects.add(&effects);
        var expected: Expected = .{
            .keys = keys,
            .groups = groups,
            .before = before,
            .after = after,
            .owed = .{ was_owed, replay.isHeld() },
        };
        // The kernel drops it with the process.
        range_lock.unlock(replay.victim.segment.locks, .user);
        try replay.play(log, &expected);
        try site.expectShadow();
        if (!replay.isHeld()) return;
        var fault: status.Fault = .{};
        if (!try range_lock.tryLock(&fault, replay.victim.segment.locks, .user, .exclusive))
            return error.LockNotGivenBack;
    }

    /// Plays a `log` that another process noted, from the segment as it was before.
    pub fn playOver(
        replay: *Replay,
        keys: []const []const u8,
        groups: []const u32,
        log: []const Change,
        owed: [2]bool,
    ) !void {
        const site = &replay.site;
        const before = try site.read(site.survivor, keys);
        defer site.forget(before);
        for (log) |change| {
            replay.effects.note(site, change);
            try site.make(change);
        }
        try site.survivor.segment.refresh();
        const after = try site.read(site.survivor, keys);
        defer site.forget(after);
        site.undo(0);
        var expected: Expected = .{
            .keys = keys,
            .groups = groups,
            .before = before,
            .after = after,
            .owed = owed,
        };
        try replay.play(log, &expected);
    }

    fn isHeld(replay: *const Replay) bool {
        return replay.victim.lock.hold == .exclusive;
    }

    fn quietlyNoted(replay: *Replay, act: Act) !void {
        atomics.observer = &replay.site.observer;
        defer atomics.observer = null;
        try act.run(replay.victim);
    }

    /// Makes the changes of `log` one by one and looks after each. Leaves them made.
    pub fn play(replay: *Replay, log: []const Change, expected: *Expected) !void {
        const site = &replay.site;
        if (log.len == 0) return;
        errdefer |err| std.debug.print("{t}: of {d} changes\n", .{ err, log.len });
        try replay.look(expected, log[0].held, 0);
        if (expected.progress != 0) return error.NewBeforeItBegan;
        var n: usize = 0;
        while (n < log.len) {
            const held = log[n].held;
            var is_other = false;
            while (true) {
                is_other = is_other or log[n].old != log[n].new;
                site.apply(log[n]);
                n += 1;
                if (n == log.len or !log[n - 1].joined) break;
            }
            // A lock may be taken or given back between two stores.
            const then = if (n < log.len) log[n].held else 0;
            if (is_other) try replay.look(expected, held, n);
            if (then != held) try replay.look(expected, then, n);
        }
        for (expected.before, expected.after, expected.groups) |old, new, group| {
            const same = old.version == new.version and old.expires == new.expires and
                (old.bytes == null) == (new.bytes == null);
            if (!same and group >= expected.progress) return error.OldWhenItWasOver;
        }
    }

    fn look(replay: *Replay, expected: *Expected, held: u16, n: usize) !void {
        const plan = &replay.plan;
        replay.images += 1;
        const way: Way = if (plan.random.boolean()) .writer else plan.random.enumValue(Way);
        // Not all who leave a mark die with their lock: damage does, and a lock of the kernel's.
        const left = if (plan.random.uintLessThan(u8, 4) == 0) 0 else held;
        const thorough = plan.random.uintLessThan(u32, plan.thorough_every) == 0;
        errdefer std.debug.print("after {d}, held {b}, {t}\n", .{ n, left, way });
        try replay.site.check(expected, left, way, thorough);
        if (replay.nested < replay.images * plan.nested_each and plan.random.boolean())
            try replay.nest(expected, left, way);
    }

    /// Dies after each store of the recovery of the present image.
    fn nest(replay: *Replay, outer: *Expected, held: u16, way: Way) !void {
        const site = &replay.site;
        var expected = outer.*;
        const log = try site.recoveryOf(&expected, held, way);
        defer site.gpa.free(log);
        const random = replay.plan.random;
        const mark = site.changes.items.len;
        defer site.undo(mark);
        for (log, 1..) |change, n| {
            try site.make(change);
            if (change.at == @offsetOf(layout.Header, "lock_word") / 8)
                expected.noteLock(change.new);
            if (change.old == change.new) continue;
            replay.nested += 1;
            const now = if (n < log.len and random.boolean()) log[n].held else change.held;
            const next = if (random.uintLessThan(u8, 4) == 0) random.enumValue(Way) else way;
            errdefer std.debug.print("then {d} of {d}, held {b}, {t}\n", .{
                n, log.len, now, next,
            });
            const thorough = random.uintLessThan(u32, replay.plan.thorough_every * 8) == 0;
            try site.check(&expected, now, next, thorough);
            if (expected.progress != outer.progress) return error.RecoveryCommitted;
        }
    }
};

/// One operation.
pub const Act = union(enum) {
    put: struct { key: []const u8, value: []const u8, kind: u8 = 1 },
    add: struct { key: []const u8, value: []const u8 },
    compare_and_set: struct { key: []const u8, value: []const u8 },
    delete: []const u8,
    /// Null: with the end that the entry has.
    put_until: struct { key: []const u8, value: []const u8, expires: ?u64 },
    touch: struct { key: []const u8, expires: u64 },
    prune,
    sweep,
    take: []const u8,
    swap: struct { key: []const u8, value: []const u8 },
    replace: struct { key: []const u8, value: []const u8 },
    delete_version: []const u8,
    count: struct { key: []const u8, by: f64 },
    /// A bigint of so many bytes.
    count_big: struct { key: []const u8, len: u8 },
    /// The keys that begin with this byte, each by itself.
    clear_prefix: u8,
    /// Records as `gather.putMany` wants them.
    put_many: struct { records: []const u8, count: u32 },
    clear,
    repair,
    compact,
    /// As the only handle attached: those who look at the images count as none.
    give_back,
    recover_stripe: u32,
    recover_all: bool,
    rebuild_pool,
    lock,
    unlock,

    pub fn run(act: Act, map: *Map) !void {
        switch (act) {
            .put => |put| _ = try calls.put(map, put.key, put.value, put.kind, .none),
            .add => |put| _ = try calls.put(map, put.key, put.value, 2, .absent),
            .compare_and_set => |put| {
                const found = try calls.get(map, put.key, &.{}, 1);
                const condition: write.Condition =
                    if (found) |value| .{ .version = value.version } else .absent;
                _ = try calls.put(map, put.key, put.value, 3, condition);
            },
            .delete => |key| _ = try calls.delete(map, key),
            .put_until => |put| {
                const expires = put.expires;
                _ = try calls.putUntil(map, put.key, put.value, 6, .none, expires);
            },
            .touch => |one| _ = try calls.touch(map, one.key, one.expires),
            .prune => _ = try calls.prune(map),
            .sweep => _ = try calls.sweep(map),
            .take => |key| {
                var room: [16_000]u8 = undefined;
                _ = try calls.take(map, key, &room);
            },
            .swap => |put| {
                var room: [16_000]u8 = undefined;
                _ = try calls.swap(map, put.key, put.value, 4, &room);
            },
            .replace => |put| _ = try calls.replace(map, put.key, put.value, 5, null),
            .delete_version => |key| {
                const found = try calls.get(map, key, &.{}, 1);
                _ = try calls.deleteVersion(map, key, if (found) |value| value.version else 0);
            },
            .count => |step| {
                var counted: count.Counted = undefined;
                _ = try calls.increment(map, step.key, step.by, 0, &counted);
            },
            .count_big => |step| {
                var room: [16_000]u8 = undefined;
                const bytes: [255]u8 = @splat(0xfe);
                const by: count.Operand = .{ .bytes = bytes[0..step.len], .kind = 8 };
                const none: count.Operand = .{ .bytes = "", .kind = 8 };
                _ = try calls.incrementBig(map, step.key, by, none, &room);
            },
            .clear_prefix => |byte| try calls.clearPrefix(map, &.{byte}),
            .put_many => |many| {
                var stored: u32 = 0;
                try calls.putMany(map, many.records, many.count, &stored);
            },
            .clear => try calls.clear(map),
            .repair => _ = try calls.repair(map),
            .compact => _ = try calls.compact(map),
            .give_back => try spaces.giveBackAlone(&map.segment),
            .recover_stripe => |index| {
                var op = try StripeOp.lock(map, index);
                defer op.unlock();
                try op.recover();
            },
            .recover_all => |all| try attach.recoverSegment(&map.segment, all),
            .rebuild_pool => spaces.coalescePool(&map.segment),
            .lock => _ = try calls.acquire(map, 1000),
            .unlock => calls.release(map, false),
        }
    }
};
