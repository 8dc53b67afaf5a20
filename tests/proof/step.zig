//! Part 2 of the proof: the release library, as it is shipped, may die at any instruction.
//!
//!     shmap-proof-recorded step [--scale <n>] [--seed <n>] [libshmap.so]
//!
//! A process is carried through one call of the library instruction by instruction (`stepper.zig`).
//! Wherever one changed the segment, that is laid out here and looked at as in part 1. And the same
//! call is made here, by the same code with an observer of its stores: the compiler must not have
//! given them another order in the library.

const std = @import("std");
const linux = std.os.linux;
const shmap = @import("shmap");
const report = @import("report.zig");
const steppers = @import("stepper.zig");

const Act = shmap.testing.replay.Act;
const Call = steppers.Command.Call;
const Change = shmap.testing.images.Change;
const Library = steppers.Library;
const Replay = shmap.testing.replay.Replay;
const Script = steppers.Script;
const Site = shmap.testing.images.Site;
const Stepper = steppers.Stepper;
const gpa = std.heap.smp_allocator;

extern fn alarm(seconds: c_uint) c_uint;

const steps_least = 25_000;
const scenarios_least = 50;
/// Each one with each kind of lock.
const scenarios_run = 2 * std.enums.values(Scenario).len;
const found_max = 5;
const max_bytes = 512 << 10;
const together: [steppers.keys_max]u32 = @splat(0);

/// What is stepped, and what comes before it.
const Scenario = enum {
    put_first,
    put_new,
    put_larger_new,
    replace_same,
    replace_smaller,
    replace_larger,
    replace_and_advance,
    put_large,
    replace_large,
    put_large_and_grow,
    put_and_rehash,
    put_and_drop_tombstones,
    put_chosen,
    add,
    add_present,
    compare_and_set,
    delete,
    delete_large,
    delete_and_shrink,
    delete_last,
    clear,
    put_many,
    replace_many,
    repair,
    lock,
    unlock,
    put_locked,
    delete_locked,
    value_put,
    value_replace,
    take,
    swap,
    swap_new,
    replace_present,
    delete_version,
    count,
    count_new,
};

const Totals = struct {
    scenarios: u64 = 0,
    steps: u64 = 0,
    images: u64 = 0,
    nested: u64 = 0,
    found: u64 = 0,
    effects: shmap.testing.replay.Effects = .{},
};

/// Writes what to do before the step, and the step.
const Author = struct {
    script: *Script,
    random: std.Random,
    secrets: *const shmap.hash.Secrets,
    view: *const shmap.view.View,
    one_stripe: bool,

    /// Keys of one stripe, or of any.
    fn makeKeys(author: *Author, count: u32) void {
        var n: u32 = 0;
        while (author.script.key_count < count) : (n += 1) {
            var buffer: [40]u8 = @splat('k');
            const len = author.random.intRangeAtMost(usize, 10, 40);
            _ = std.fmt.bufPrint(&buffer, "key {d}", .{n}) catch unreachable; // fits
            const fast = shmap.hash.fast(author.secrets, buffer[0..len]);
            const stripe = shmap.hash.stripeOf(fast, author.view.stripe_bits);
            if (author.one_stripe and stripe != 0) continue;
            author.script.addKey(buffer[0..len]);
        }
    }

    fn add(author: *Author, call: Call, key: u32, len: u32) void {
        author.script.add(.{
            .call = call,
            .key = key,
            .value_len = len,
            .salt = author.random.int(u16),
        });
    }

    fn puts(author: *Author, count: u32, len: u32) void {
        for (0..count) |key| author.add(.put, @intCast(key), len);
    }

    fn deletes(author: *Author, from: u32, to: u32) void {
        for (from..to) |key| author.add(.delete, @intCast(key), 0);
    }

    fn upTo(author: *Author, most: u32) u32 {
        return author.random.uintAtMost(u32, most);
    }

    fn write(author: *Author, scenario: Scenario) void {
        const small = author.upTo(60);
        switch (scenario) {
            .put_chosen => for (0..18) |n|
                author.script.addKey(&shmap.hash.collidingKey(author.secrets, n)),
            .value_put, .value_replace => author.script.addKey("value"),
            else => author.makeKeys(30),
        }
        switch (scenario) {
            .put_first, .put_new, .put_larger_new, .add, .put_and_rehash => author.toPut(scenario),
            .put_and_drop_tombstones, .put_chosen, .put_large, .put_large_and_grow => //
            author.toPut(scenario),
            .replace_same, .replace_smaller, .replace_larger => author.toReplace(scenario),
            .replace_and_advance, .replace_large, .add_present => author.toReplace(scenario),
            .delete, .delete_large, .delete_and_shrink, .delete_last, .clear => //
            author.toDelete(scenario),
            .lock, .unlock, .put_locked, .delete_locked => author.toLock(scenario),
            .compare_and_set => {
                author.puts(3, small);
                author.add(.compare_and_set, author.upTo(4), author.upTo(60));
            },
            .put_many, .replace_many => {
                if (scenario == .replace_many) author.puts(6, small);
                author.script.add(.{ .call = .put_many, .count = 4, .value_len = author.upTo(90) });
            },
            .take, .swap, .swap_new, .replace_present, .delete_version, .count, .count_new => //
            author.toCondition(scenario),
            .repair => {
                author.puts(5, small);
                author.deletes(0, 2);
                author.add(.repair, 0, 0);
            },
            .value_put => author.add(.value_put, 0, author.upTo(400)),
            .value_replace => {
                author.add(.value_put, 0, author.upTo(200));
                author.add(.value_put, 0, author.upTo(400));
            },
        }
    }

    fn toPut(author: *Author, scenario: Scenario) void {
        switch (scenario) {
            .put_first => author.add(.put, 0, author.upTo(60)),
            .put_larger_new => {
                author.puts(2, 30);
                author.add(.put, 2, 500 + author.upTo(500));
            },
            .add => author.add(.add, 1, author.upTo(60)),
            .put_and_rehash => {
                author.puts(12, author.upTo(40)); // three quarters of 16 slots
                author.add(.put, 12, 8);
            },
            .put_and_drop_tombstones => {
                for (0..6) |_| {
                    author.puts(2, 8);
                    author.deletes(0, 2);
                }
                author.puts(11, 8);
                author.add(.put, 11, 8);
            },
            .put_chosen => author.puts(17, 0), // the last one is stepped
            .put_large => {
                author.puts(2, 30);
                author.add(.put, 2, 4100 + author.upTo(700));
            },
            .put_large_and_grow => {
                // A step of growth holds 64 KiB; each takes six.
                for (0..9) |key| author.add(.put, @intCast(key), 5200);
                author.add(.put, 9, 5200 + author.upTo(200));
            },
            else => {
                author.puts(3, author.upTo(60));
                author.add(.put, 4, author.upTo(200));
            },
        }
    }

    fn toReplace(author: *Author, scenario: Scenario) void {
        switch (scenario) {
            .replace_and_advance => {
                author.puts(1, 200);
                // Each retires 256 bytes; a batch holds 2 KiB.
                for (0..15) |_| author.add(.put, 0, 200);
                author.add(.put, 0, 200);
            },
            .replace_large => {
                author.add(.put, 0, 4500);
                author.add(.put, 0, 4200);
            },
            .add_present => {
                author.puts(2, 10);
                author.add(.add, 1, 20);
            },
            else => {
                author.puts(3, 90);
                const len: u32 = switch (scenario) {
                    .replace_smaller => author.upTo(40),
                    .replace_larger => 100 + author.upTo(300),
                    else => 90,
                };
                author.add(.put, 1, len);
            },
        }
    }

    fn toDelete(author: *Author, scenario: Scenario) void {
        switch (scenario) {
            .delete_large => {
                author.add(.put, 0, 4700);
                author.add(.put, 1, 30);
                author.add(.delete, 0, 0);
            },
            .delete_and_shrink => {
                // 24 entries take 64 slots, 64 of them do not shrink: so the chunks do.
                author.puts(24, 400);
                author.deletes(0, 23);
                author.add(.delete, 23, 0);
            },
            .delete_last => {
                for (0..4) |key| author.add(.put, @intCast(key), 4200);
                author.deletes(0, 3);
                author.add(.delete, 3, 0);
            },
            .clear => {
                author.puts(5, author.upTo(200));
                author.add(.clear, 0, 0);
            },
            else => {
                author.puts(4, author.upTo(200));
                author.add(.delete, author.upTo(3), 0);
            },
        }
    }

    fn toCondition(author: *Author, scenario: Scenario) void {
        author.puts(3, author.upTo(60));
        switch (scenario) {
            .take => author.add(.take, author.upTo(3), 0),
            .swap => author.add(.swap, author.upTo(2), author.upTo(60)),
            .swap_new => author.add(.swap, 3, author.upTo(60)),
            .replace_present => author.add(.replace, author.upTo(2), author.upTo(200)),
            .delete_version => author.add(.delete_version, author.upTo(2), 0),
            .count => {
                for (0..author.upTo(20) + 1) |_| author.add(.count, 4, 0);
                author.add(.count, 4, 0);
            },
            else => author.add(.count, 4, 0),
        }
    }

    fn toLock(author: *Author, scenario: Scenario) void {
        author.puts(3, author.upTo(60));
        if (scenario != .lock) author.add(.lock, 0, 0);
        switch (scenario) {
            .lock => author.add(.lock, 0, 0),
            .unlock => author.add(.unlock, 0, 0),
            .put_locked => author.add(.put, author.upTo(4), author.upTo(100)),
            else => author.add(.delete, author.upTo(2), 0),
        }
    }
};

/// One scenario; the same again for the same seed.
fn runOne(totals: *Totals, library: *const Library, script: *Script, seed: u64) !void {
    var prng = std.Random.DefaultPrng.init(seed);
    const random = prng.random();
    const scenarios = std.enums.values(Scenario);
    const scenario = scenarios[seed % scenarios.len];
    const is_kernel = seed / scenarios.len % 2 == 1;
    errdefer std.debug.print("{t}, {s}\n", .{ scenario, if (is_kernel) "kernel" else "robust" });
    const is_value = scenario == .value_put or scenario == .value_replace;
    script.* = std.mem.zeroes(Script);
    script.flags = @as(u32, if (is_kernel) 64 + 128 else 0) + @intFromBool(is_value);
    script.max_bytes = if (is_value) 0 else max_bytes;
    var replay: Replay = try .init(gpa, .{
        .kind = if (is_value) .value else .map,
        .lock = if (is_kernel) .kernel else .robust,
        .stripe_bits = null,
        .max_bytes = if (is_value) 0 else max_bytes,
    }, .{ .random = random, .nested_each = 1, .thorough_every = 8 });
    defer replay.deinit();
    defer {
        totals.images += replay.images;
        totals.nested += replay.nested;
    }
    var stepper: Stepper = try .start(library, script, max_bytes);
    defer stepper.end();
    defer totals.steps += stepper.steps;
    const header = stepper.header();
    for (&header.fast_secrets) |*word| word.* = random.int(u64);
    for (&header.sip_secrets) |*word| word.* = random.int(u64);
    header.checksum = shmap.layout.checksum(header);
    const secrets: shmap.hash.Secrets = .of(header);
    var author: Author = .{
        .script = script,
        .random = random,
        .secrets = &secrets,
        .view = &replay.victim.segment.view,
        .one_stripe = scenario != .clear and random.uintLessThan(u8, 8) > 0,
    };
    author.write(scenario);
    try stepper.proceed();
    try stepAndPlay(totals, &replay, &stepper);
    totals.scenarios += 1;
}

fn stepAndPlay(totals: *Totals, replay: *Replay, stepper: *Stepper) !void {
    const site = &replay.site;
    const script = stepper.script;
    const now = stepper.memory[0 .. stepper.header().committed / 8];
    const last = try gpa.alloc(u64, stepper.memory.len);
    defer gpa.free(last);
    @memset(last, 0);
    @memcpy(last[0..now.len], now);
    const before = try gpa.dupe(u64, now);
    defer gpa.free(before);
    try site.adopt(before);
    var log: std.ArrayList(Change) = .empty;
    defer log.deinit(gpa);
    try stepper.step(site, last, &log);
    if (script.result < 0) return error.CallFailed;

    var keys: [steppers.keys_max][]const u8 = undefined;
    for (0..script.key_count) |i| keys[i] = script.key(i);
    var groups = together;
    const command = &script.commands[script.count - 1];
    for (0..script.key_count) |i| groups[i] = switch (command.call) {
        .clear => replay.site.survivor.hashOf(keys[i]).stripe,
        .put_many => @intCast(i),
        else => 0,
    };
    var value: steppers.Values = undefined;
    value.fill(script, command);
    var is_locked = false;
    for (script.commands[0 .. script.count - 1]) |earlier| {
        if (earlier.call == .lock) is_locked = true;
    }
    const owed = switch (command.call) {
        .lock => .{ false, true },
        .unlock => .{ true, false },
        else => .{ is_locked, is_locked },
    };
    try replay.playOver(keys[0..script.key_count], groups[0..script.key_count], log.items, owed);
    totals.effects.add(&replay.effects);
    try site.adopt(before);
    try expectSameOrder(site, log.items, actOf(script, command, &value.bytes), is_locked);
}

/// The call as it is made here.
fn actOf(script: *const Script, command: *const steppers.Command, bytes: []const u8) Act {
    const key = script.key(command.key);
    const value = bytes[0..command.value_len];
    return switch (command.call) {
        .put, .value_put => .{ .put = .{ .key = key, .value = value } },
        .add => .{ .add = .{ .key = key, .value = value } },
        .compare_and_set => .{ .compare_and_set = .{ .key = key, .value = value } },
        .delete => .{ .delete = key },
        .put_many => .{ .put_many = .{ .records = bytes, .count = command.count } },
        .clear => .clear,
        .repair => .repair,
        .lock => .lock,
        .unlock => .unlock,
        .take => .{ .take = key },
        .swap => .{ .swap = .{ .key = key, .value = value } },
        .replace => .{ .replace = .{ .key = key, .value = value } },
        .delete_version => .{ .delete_version = key },
        .count => .{ .count = .{ .key = key, .by = 1 } },
    };
}

/// Fails if `act`, done here, changes other words than those of `log`, or in another order.
fn expectSameOrder(site: *Site, log: []const Change, act: Act, is_locked: bool) !void {
    const map = site.survivor;
    if (is_locked) try holdAs(map);
    const here = try site.changesOf(act);
    defer gpa.free(here);
    if (is_locked) map.lock.abandon();
    var n: usize = 0;
    for (here) |change| {
        if (change.old == change.new) continue;
        if (n == log.len or log[n].at != change.at) {
            const there = if (n < log.len) log[n].at else 0;
            std.debug.print("change {d}: word {d}, not {d}\n", .{ n, there, change.at });
            return error.OtherOrder;
        }
        n += 1;
    }
    if (n != log.len) return error.OtherOrder;
}

/// Makes this handle the holder that the lock word speaks of.
fn holdAs(map: *shmap.map.Map) !void {
    const word: shmap.layout.LockWord = @bitCast(map.segment.header().lock_word);
    const locks = map.segment.locks;
    if (!try shmap.range_lock.tryLock(&map.fault, locks, .user, .exclusive)) return error.Held;
    map.lock.take(.exclusive);
    map.lock.serial = word.serial;
}

/// Both processes take turns, so they share a processor: to wake the other one costs far more.
fn stayOnThisProcessor() void {
    var cpu: usize = 0;
    if (linux.errno(linux.getcpu(&cpu, null)) != .SUCCESS) return;
    var set: linux.cpu_set_t = @splat(0);
    set[cpu / 64] = @as(usize, 1) << @intCast(cpu % 64);
    linux.sched_setaffinity(0, &set) catch {}; // then it takes longer
}

pub fn main(init: std.process.Init) !void {
    const arguments: report.Arguments = try .of(init);
    const path = if (arguments.words.len > 0) arguments.words[0] else "zig-out/lib/libshmap.so";
    var library: Library = try .open(path);
    const script = try shmap.testing.support.shared(steppers.Script);
    stayOnThisProcessor();
    _ = alarm(@intFromFloat(120 + 600 * arguments.scale));
    var totals: Totals = .{};
    const least = arguments.scaled(steps_least);
    const scenarios = arguments.scaled(scenarios_run);
    const single: ?u64 = if (arguments.words.len > 1)
        try std.fmt.parseInt(u64, arguments.words[1], 10)
    else
        null;
    var seed = single orelse arguments.seed;
    while (totals.steps < least or totals.scenarios < scenarios) : (seed += 1) {
        runOne(&totals, &library, script, seed) catch |err| {
            totals.found += 1;
            std.debug.print("{t}; to see it again: shmap-proof-recorded step {s} {d}\n", .{
                err, path, seed,
            });
        };
        if (totals.found >= found_max or single != null) break;
    }
    if (single == null) try say(init.io, &arguments, &totals);
    if (totals.found > 0) std.process.exit(1);
}

fn say(io: std.Io, arguments: *const report.Arguments, totals: *const Totals) !void {
    var buffer: [300]u8 = undefined;
    const effects = &totals.effects;
    const note = try std.fmt.bufPrint(&buffer, "{d} different images, {d} nested; {d} growths, " ++
        "{d} tables, {d} advances, {d} rebuilds, {d} claims, {d} releases", .{
        totals.images,    totals.nested,    effects.growths, effects.tables,
        effects.advances, effects.rebuilds, effects.claims,  effects.releases,
    });
    try report.say(io, .{
        .part = 2,
        .what = "single steps",
        .tried = totals.steps,
        .found = totals.found,
        .least = arguments.scaled(steps_least),
        .seed = arguments.seed,
        .note = note,
    });
    try report.say(io, .{
        .part = 2,
        .what = "scenarios stepped",
        .tried = totals.scenarios,
        .found = totals.found,
        .least = arguments.scaled(scenarios_least),
        .seed = arguments.seed,
    });
}
