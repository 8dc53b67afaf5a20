//! Part 1 of the proof: a crash after any store of any operation on data, and after any store of
//! any recovery from it, is harmless.
//!
//! Each segment has a shape of its own, drawn from the seed: stripes, ceiling, kind of lock, how
//! large keys and values are, what is done to them more often. How the images come about is in
//! `zig/testing/replay.zig`, what is looked at in `zig/testing/images.zig`. A violation names
//! the seed of its segment; `shmap-proof-recorded enumerate segment <seed>` does that one alone.

const std = @import("std");
const shmap = @import("shmap");
const report = @import("report.zig");

const Act = shmap.testing.replay.Act;
const Effects = shmap.testing.replay.Effects;
const Replay = shmap.testing.replay.Replay;
const gpa = std.heap.smp_allocator;

extern fn alarm(seconds: c_uint) c_uint;

const images_least = 100_000;
const nested_each = 10;
const keys_max = 80;
const value_bytes_max = 9000;
const found_max = 5;

const together: [keys_max]u32 = @splat(0);

/// What a segment is for.
/// `parked`: every entry with a chunk of its own lies in an extent that parks.
const Flavour = enum { plain, many, full, held, value, flood, parked };

/// How often each thing is done, in a hundred; the rest are replacements.
const Phase = enum {
    fill,
    churn,
    ends,
    drain,
    upkeep,

    fn actOf(phase: Phase, random: std.Random) std.meta.Tag(Act) {
        const n = random.uintLessThan(u8, 100);
        return switch (phase) {
            .fill => if (n < 80) .put else if (n < 88) .put_many else if (n < 94) .add else .delete,
            .churn => if (n < 35) .put else if (n < 48) .compare_and_set else if (n < 73)
                .delete
            else if (n < 78)
                .put_many
            else if (n < 99)
                ([_]std.meta.Tag(Act){
                    .take, .swap, .replace, .delete_version, .count, .count, .count_big,
                })[n % 7]
            else
                .clear_prefix,
            .ends => if (n < 40) .put_until else if (n < 65) .touch else if (n < 75) .put else //
            ([_]std.meta.Tag(Act){ .delete, .prune, .sweep, .add, .recover_stripe })[n % 5],
            .drain => if (n < 45) .delete else if (n < 90) .take else if (n < 97) .put else .clear,
            .upkeep => ([_]std.meta.Tag(Act){
                .repair, .recover_stripe, .recover_all, .rebuild_pool, //
                .put, .delete, .compact, .give_back, //
            })[n % 8],
        };
    }
};

/// One segment and what is done to it.
const World = struct {
    replay: Replay,
    random: std.Random,
    flavour: Flavour,
    key_bytes: [keys_max][500]u8 = undefined,
    key_list: [keys_max][]const u8 = undefined,
    keys: []const []const u8 = &.{},
    stripe_of: [keys_max]u32 = @splat(0),
    groups: [keys_max]u32 = @splat(0),
    value_bytes: [value_bytes_max]u8 = undefined,
    /// Percentages of values larger than small, and of those with a chunk of their own.
    medium: u8,
    large: u8,
    medium_bytes: [2]usize,
    records: [8 * 2600]u8 align(8) = undefined,

    fn init(world: *World, random: std.Random, flavour: Flavour) !void {
        const is_value = flavour == .value;
        shmap.parked.trial = .{ .small = flavour == .parked };
        const shape: shmap.testing.images.Shape = .{
            .kind = if (is_value) .value else .map,
            .lock = if (random.uintLessThan(u8, 4) == 0) .kernel else .robust,
            .stripe_bits = switch (flavour) {
                .value, .many, .flood => 0,
                else => random.uintLessThan(u6, 3),
            },
            .max_bytes = if (is_value) 0 else if (flavour == .full) 256 << 10 else //
            (256 << 10) + 4096 * random.uintAtMost(u64, 192),
            .seed = random.int(u64),
        };
        world.* = .{
            .replay = try .init(gpa, shape, .{
                .random = random,
                .nested_each = nested_each,
                .plain_every = if (is_value or flavour == .held) 2 else 6,
            }),
            .random = random,
            .flavour = flavour,
            .medium = if (flavour == .full) 90 else random.uintLessThan(u8, 40),
            .large = switch (flavour) {
                .many => 0,
                .parked => 50,
                else => random.uintLessThan(u8, 6),
            },
            .medium_bytes = if (flavour == .full) .{ 3000, 4000 } else .{ 0, 2000 },
        };
        world.replay.site.has_ends = true;
        shmap.os.end_clock = 1_800_000_000_000;
        world.makeKeys();
    }

    fn makeKeys(world: *World) void {
        const random = world.random;
        const count: usize = switch (world.flavour) {
            .value => 1,
            .many, .full => keys_max,
            .flood => 20,
            else => random.intRangeAtMost(usize, 3, 24),
        };
        const long = random.uintLessThan(u8, 20);
        for (0..count) |i| {
            const bytes = &world.key_bytes[i];
            world.key_list[i] = switch (world.flavour) {
                .value => "value",
                .flood => blk: {
                    bytes[0..16].* = shmap.hash.collidingKey(&world.replay.victim.secrets, i);
                    break :blk bytes[0..16];
                },
                else => blk: {
                    const most: usize = if (random.uintLessThan(u8, 100) < long) 500 else 20;
                    const len = random.intRangeAtMost(usize, 2, most);
                    random.bytes(bytes);
                    bytes[0] = @intCast(i); // no two the same
                    break :blk bytes[0..len];
                },
            };
            world.stripe_of[i] = world.replay.victim.hashOf(world.key_list[i]).stripe;
        }
        world.keys = world.key_list[0..count];
    }

    fn value(world: *World) []const u8 {
        const random = world.random;
        const n = random.uintLessThan(u8, 100);
        const is_medium = n < world.large + world.medium;
        const range: [2]usize = if (is_medium) world.medium_bytes else .{ 0, 60 };
        const len = if (n < world.large)
            random.intRangeAtMost(usize, 4050, value_bytes_max)
        else
            random.intRangeAtMost(usize, range[0], range[1]);
        const bytes = world.value_bytes[0..len];
        if (world.flavour == .parked and n < world.large) {
            // Where most words are zeros before and after, few stores change anything.
            @memset(bytes, 0);
            var at: usize = 0;
            while (at < len) : (at += 512) bytes[at] = random.int(u8);
        } else random.bytes(bytes);
        return bytes;
    }

    /// An end: soon, later, never, or one that has passed.
    fn end(world: *World) u64 {
        const random = world.random;
        const now = shmap.os.end_clock.?;
        return switch (random.uintLessThan(u8, 10)) {
            0 => 0,
            1 => now - 1,
            2, 3 => now + 1_000_000,
            else => now + 1 + random.uintLessThan(u8, 8),
        };
    }

    fn anyKey(world: *World) []const u8 {
        return world.keys[world.random.uintLessThan(usize, world.keys.len)];
    }

    /// Which key changes together with which others.
    fn groupsOf(world: *World, act: Act) []const u32 {
        const groups: []const u32 = switch (act) {
            .clear => &world.stripe_of,
            .put_many => &world.groups,
            else => &together,
        };
        return groups[0..world.keys.len];
    }

    fn actOf(world: *World, tag: std.meta.Tag(Act)) Act {
        const random = world.random;
        const key = world.anyKey();
        return switch (tag) {
            .put => .{ .put = .{ .key = key, .value = world.value(), .kind = random.int(u8) } },
            .add => .{ .add = .{ .key = key, .value = world.value() } },
            .compare_and_set => .{ .compare_and_set = .{ .key = key, .value = world.value() } },
            .delete => .{ .delete = key },
            .put_until => .{ .put_until = .{
                .key = key,
                .value = world.value(),
                .expires = if (random.uintLessThan(u8, 5) == 0) null else world.end(),
            } },
            .touch => .{ .touch = .{ .key = key, .expires = world.end() } },
            .take => .{ .take = key },
            .swap => .{ .swap = .{ .key = key, .value = world.value() } },
            .replace => .{ .replace = .{ .key = key, .value = world.value() } },
            .delete_version => .{ .delete_version = key },
            // Values are drawn with any kind; one that is no number is refused.
            .count => .{ .count = .{ .key = key, .by = @floatFromInt(random.int(i32)) } },
            .count_big => .{ .count_big = .{ .key = key, .len = random.int(u8) } },
            // Where no two keys begin alike, as `makeKeys` has it.
            .clear_prefix => if (world.flavour == .flood)
                .{ .delete = key }
            else
                .{ .clear_prefix = key[0] },
            .put_many => world.putMany(),
            .recover_stripe => .{
                .recover_stripe = random.uintLessThan(u32, world.replay.site.stripeCount()),
            },
            .recover_all => .{ .recover_all = random.boolean() },
            inline .clear,
            .prune,
            .sweep,
            .repair,
            .rebuild_pool,
            .compact,
            .give_back,
            .lock, //
            .unlock,
            => |same| same,
        };
    }

    /// Some keys, none twice, in any order.
    fn putMany(world: *World) Act {
        const random = world.random;
        var order: [keys_max]usize = undefined;
        for (0..world.keys.len) |i| order[i] = i;
        random.shuffle(usize, order[0..world.keys.len]);
        const count = @min(world.keys.len, random.intRangeAtMost(usize, 2, 8));
        var at: usize = 0;
        for (order[0..count], 0..) |i, group| {
            world.groups[i] = @intCast(group);
            const key = world.keys[i];
            const len = random.uintAtMost(usize, if (world.medium > 20) 2000 else 40);
            const record: shmap.gathered.Record = .{
                .key_len = @intCast(key.len),
                .value_len = @intCast(len),
                .kind = random.int(u8),
            };
            @memcpy(world.records[at..][0..16], std.mem.asBytes(&record));
            @memcpy(world.records[at + 16 ..][0..key.len], key);
            random.bytes(world.records[at + 16 + key.len ..][0..len]);
            at += 16 + std.mem.alignForward(usize, key.len + len, 8);
        }
        return .{ .put_many = .{ .records = world.records[0..at], .count = @intCast(count) } };
    }

    fn enumerate(world: *World, act: Act) !void {
        errdefer std.debug.print("operation {d}, {t}, of a segment that is {t}, {t}\n", .{
            world.replay.effects.operations,
            act,
            world.flavour,
            world.replay.victim.segment.lock_kind,
        });
        try world.replay.enumerate(world.keys, world.groupsOf(act), act);
    }

    /// Until `images` were looked at.
    fn run(world: *World, images: u64) !void {
        const random = world.random;
        var phase: Phase = .fill;
        if (world.flavour == .flood) try world.floodIt();
        // What fills a segment is not looked at every time.
        if (world.flavour == .full) try world.fillIt();
        while (world.replay.images < images) {
            if (random.uintLessThan(u8, 12) == 0) phase = random.enumValue(Phase);
            if (world.flavour == .held and random.uintLessThan(u8, 6) == 0) {
                const is_held = world.replay.victim.lock.hold == .exclusive;
                try world.enumerate(if (is_held) .unlock else .lock);
            }
            const act = world.actOf(phase.actOf(random));
            try world.enumerate(act);
            // So far at times that a recovery removes what had ended before.
            const is_far = random.uintLessThan(u8, 40) == 0;
            shmap.os.end_clock.? += if (is_far) 20_000 else random.uintLessThan(u8, 2);
        }
    }

    fn floodIt(world: *World) !void {
        for (world.keys, 0..) |key, n| {
            const add: Act = .{ .add = .{ .key = key, .value = "" } };
            if (n < 16) try world.replay.quietly(add) else try world.enumerate(add);
        }
    }

    fn fillIt(world: *World) !void {
        for (0..3) |_| for (world.keys) |key| {
            const put: Act = .{ .put = .{ .key = key, .value = world.value() } };
            world.replay.quietly(put) catch |err| if (err != error.NoSpace) return err;
        };
    }
};

const Totals = struct {
    segments: u64 = 0,
    images: u64 = 0,
    nested: u64 = 0,
    found: u64 = 0,
    effects: Effects = .{},

    fn add(totals: *Totals, replay: *const Replay) void {
        totals.segments += 1;
        totals.images += replay.images;
        totals.nested += replay.nested;
        totals.effects.add(&replay.effects);
    }
};

/// One segment, from its seed.
fn runOne(totals: *Totals, seed: u64, images: u64) !void {
    var random = std.Random.DefaultPrng.init(seed);
    const world = try gpa.create(World);
    defer gpa.destroy(world);
    const flavours = std.enums.values(Flavour);
    try world.init(random.random(), flavours[seed % flavours.len]);
    defer world.replay.deinit();
    defer totals.add(&world.replay);
    world.run(images) catch |err| {
        totals.found += 1;
        std.debug.print("{t}; to see it again: shmap-proof-recorded enumerate segment {d} {d}\n", .{
            err, seed, images,
        });
    };
}

pub fn main(init: std.process.Init) !void {
    const arguments: report.Arguments = try .of(init);
    var totals: Totals = .{};
    if (arguments.words.len == 3) {
        const seed = try std.fmt.parseInt(u64, arguments.words[1], 10);
        try runOne(&totals, seed, try std.fmt.parseInt(u64, arguments.words[2], 10));
        std.process.exit(@intFromBool(totals.found > 0));
    }
    // A bug may also be that something never ends.
    _ = alarm(@intFromFloat(300 + 1800 * arguments.scale));
    const least = arguments.scaled(images_least);
    const each = std.math.clamp(least / 60, 100, 1500);
    var seed = arguments.seed;
    while (totals.images < least or totals.nested < least * nested_each) : (seed += 1) {
        try runOne(&totals, seed, each);
        if (totals.found >= found_max) break;
    }
    if (arguments.scale >= 0.5) {
        inline for (@typeInfo(Effects).@"struct".fields) |field| {
            if (@field(totals.effects, field.name) == 0) {
                std.debug.print("there were no {s}\n", .{field.name});
                totals.found += 1;
            }
        }
    }
    try say(init.io, &arguments, &totals, least);
    if (totals.found > 0) std.process.exit(1);
}

fn say(io: std.Io, arguments: *const report.Arguments, totals: *const Totals, least: u64) !void {
    var buffer: [600]u8 = undefined;
    var note: std.Io.Writer = .fixed(&buffer);
    try note.print("{d} segments", .{totals.segments});
    inline for (@typeInfo(Effects).@"struct".fields) |field| {
        const name = comptime blk: {
            var words = field.name[0..field.name.len].*;
            std.mem.replaceScalar(u8, &words, '_', ' ');
            break :blk words;
        };
        try note.print(", {d} {s}", .{ @field(totals.effects, field.name), &name });
    }
    try report.say(io, .{
        .part = 1,
        .what = "crash images",
        .tried = totals.images,
        .found = totals.found,
        .least = least,
        .seed = arguments.seed,
        .note = note.buffered(),
    });
    try report.say(io, .{
        .part = 1,
        .what = "nested crash images",
        .tried = totals.nested,
        .found = totals.found,
        .least = least * nested_each,
        .seed = arguments.seed,
        .note = "a death inside the recovery from a death",
    });
}
