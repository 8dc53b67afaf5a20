//! What a snapshot, and an iteration, make of writers who go on while they copy.
//!
//! Deterministic: the stores of two operations in two stripes are recorded and taken back, and then
//! made again in every order that matters while a snapshot is under way: before it, and whenever
//! it copies something out of a stripe. After each step a reader looks at both keys, and what the
//! snapshot shows must be something that reader saw. An operation counts as several steps here,
//! because a writer may be stopped inside for as long as it likes.

const std = @import("std");
const calls = @import("../testing/calls.zig");
const atomics = @import("../atomics.zig");
const gathered = @import("gathered.zig");
const layout = @import("../layout.zig");
const maps = @import("map.zig");
const support = @import("../testing/support.zig");
const tables = @import("../stripe/table.zig");

const Map = maps.Map;
const StripeOp = @import("stripe_op.zig").StripeOp;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const gpa = std.testing.allocator;

/// What a visit to a stripe leaves there when its writer dies.
fn die(op: *StripeOp) void {
    op.map.segment.lockOf(op.space.index).unlock();
}

/// What is done in one of the two stripes.
const Deed = enum {
    replace,
    insert,
    delete,
    /// An insert that needs a larger table.
    grow,
    /// The only entry of its stripe goes, and its table with it.
    empty,
    /// The stripe of a writer that died before it stored is recovered; then another writer
    /// replaces.
    recover_replace,

    /// Whether the key is there before.
    fn hasBefore(deed: Deed) bool {
        return deed != .insert and deed != .grow;
    }

    fn prepare(deed: Deed, map: *Map, stripe: u32, key: []const u8) !void {
        if (deed != .empty) _ = try calls.put(map, &keyIn(map, stripe, 0), "filler", 1, .none);
        if (deed == .grow) {
            // 13 more would make the table of 16 too full.
            for (1..12) |n|
                _ = try calls.put(map, &keyIn(map, stripe, @intCast(n)), "filler", 1, .none);
        }
        if (deed == .empty) {
            // As much as makes the last one out give everything back.
            const large: [20_000]u8 = @splat('l');
            _ = try calls.put(map, key, &large, 1, .none);
        }
        if (deed.hasBefore()) _ = try calls.put(map, key, "old", 1, .none);
    }

    fn run(deed: Deed, map: *Map, stripe: u32, key: []const u8) !void {
        switch (deed) {
            .replace, .insert, .grow => _ = try calls.put(map, key, "new", 1, .none),
            .delete, .empty => _ = try calls.delete(map, key),
            .recover_replace => {
                var dead = try StripeOp.lock(map, stripe);
                dead.begin();
                die(&dead);
                var other = try StripeOp.lock(map, stripe);
                other.unlock();
                _ = try calls.put(map, key, "new", 1, .none);
            },
        }
    }
};

const Key = [8]u8;

/// The n-th of the numbers that are keys of a stripe.
fn keyIn(map: *const Map, stripe: u32, n: u32) Key {
    var left = n;
    var number: u64 = 0;
    while (true) : (number += 1) {
        const key: Key = @bitCast(number);
        if (map.hashOf(&key).stripe != stripe) continue;
        if (left == 0) return key;
        left -= 1;
    }
}

/// The stores of one operation, and the counts of them after which a writer may be found.
const Script = struct {
    /// By its offset: the handle may know the word through different mappings.
    const Step = struct { offset: u64, old: u64, new: u64 };

    map: *Map = undefined,
    observer: atomics.Observer = .{ .seen = add },
    steps: [512]Step = undefined,
    len: usize = 0,
    stops: [16]usize = undefined,
    stop_count: usize = 0,
    made: usize = 0,

    fn add(observer: *atomics.Observer, word: *const u64, value: u64) void {
        const script: *Script = @fieldParentPtr("observer", observer);
        const offset = script.map.segment.mappings.offsetOf(@intFromPtr(word)).?;
        script.steps[script.len] = .{ .offset = offset, .old = atomics.load(word), .new = value };
        script.len += 1;
    }

    fn store(script: *const Script, offset: u64, value: u64) void {
        atomics.storeRelease(&script.map.segment.view.at(offset)[0], value);
    }

    fn record(script: *Script, map: *Map, deed: Deed, stripe_index: u32, key: []const u8) !void {
        const stripe = map.segment.view.stripe(stripe_index);
        const before = (try tables.Table.open(&map.segment.view, atomics.load(&stripe.table))).?;
        script.map = map;
        atomics.observer = &script.observer;
        defer atomics.observer = null;
        try deed.run(map, stripe_index, key);
        script.made = script.len;
        script.stop(0);
        for (script.steps[0..script.len], 0..) |step, i| {
            const slots = @as(u64, before.granule) * layout.granule_bytes;
            const in_slots = step.offset >= slots and step.offset < slots + 8 * before.slotCount();
            const words = [_]*const u64{ &stripe.begin, &stripe.end, &stripe.table };
            const in_stripe = for (words) |word| {
                if (map.segment.mappings.offsetOf(@intFromPtr(word)) == step.offset) break true;
            } else false;
            if (in_slots or in_stripe) script.stop(i + 1);
        }
        // Nothing that comes after the last of them can be seen.
        script.stops[script.stop_count - 1] = script.len;
        script.undo();
    }

    fn stop(script: *Script, at: usize) void {
        script.stops[script.stop_count] = at;
        script.stop_count += 1;
    }

    fn undo(script: *Script) void {
        while (script.made > 0) {
            script.made -= 1;
            script.store(script.steps[script.made].offset, script.steps[script.made].old);
        }
    }

    /// Goes on to a stop; not back.
    fn advance(script: *Script, to: usize) void {
        while (script.made < script.stops[to]) : (script.made += 1)
            script.store(script.steps[script.made].offset, script.steps[script.made].new);
    }

    fn touches(script: *const Script, offset: u64) bool {
        for (script.steps[0..script.len]) |step| if (step.offset == offset) return true;
        return false;
    }
};

const Seen = enum(u2) { none, old, new };

/// Two operations and a reader of them: stripes 0 and 3 hold something that makes a snapshot
/// copy there, x lies in stripe 1, y in stripe 2.
const Stage = struct {
    /// How far each writer has come: before the snapshot, and as it copies out of each stripe.
    const Plan = [5]u8;

    map: *Map,
    reader: *Map,
    keys: [2]Key,
    scripts: [2]Script = .{ .{}, .{} },
    plans: [2]Plan = undefined,
    /// Who goes first where both go on.
    first: u1 = 0,
    /// What there was to see since the snapshot began.
    seen: [40][2]Seen = undefined,
    seen_count: usize = 0,
    /// How many places of the plan are behind us, how often the snapshot has copied something, and
    /// when it comes to the next stripe.
    place: usize = 0,
    copies: usize = 0,
    next_at: usize = 0,
    fillers: [4]usize,
    schedules: u64 = 0,

    threadlocal var current: ?*Stage = null;

    fn open(deeds: [2]Deed, lock: layout.LockKind) !*Stage {
        const stage = try gpa.create(Stage);
        errdefer gpa.destroy(stage);
        const map = try support.openMapOf(lock, 2, 4 << 20);
        errdefer support.closeMap(map);
        const keys = [2]Key{ keyIn(map, 1, 40), keyIn(map, 2, 40) };
        for ([2]u32{ 0, 3 }) |i| _ = try calls.put(map, &keyIn(map, i, 0), "filler", 1, .none);
        for (deeds, keys, 1..) |deed, key, i| try deed.prepare(map, @intCast(i), &key);
        const reader = try support.openReader(map, 10_000);
        errdefer support.closeMap(reader);
        stage.* = .{ .map = map, .reader = reader, .keys = keys, .fillers = undefined };
        for (&stage.fillers, 0..) |*count, i| {
            count.* = atomics.load(&map.segment.view.stripe(@intCast(i)).live);
            if (i == 1 or i == 2) count.* -= @intFromBool(deeds[i - 1].hasBefore());
        }
        for (&stage.scripts, deeds, keys, 1..) |*script, deed, key, i|
            try script.record(map, deed, @intCast(i), &key);
        // Two writers who share no word can be interleaved at will.
        for (stage.scripts[0].steps[0..stage.scripts[0].len]) |step|
            if (stage.scripts[1].touches(step.offset)) return error.SharedWord;
        return stage;
    }

    fn close(stage: *Stage) void {
        support.closeMap(stage.reader);
        support.closeMap(stage.map);
        gpa.destroy(stage);
    }

    fn look(stage: *Stage) [2]Seen {
        const pause = atomics.pause;
        atomics.pause = null;
        defer atomics.pause = pause;
        var found: [2]Seen = undefined;
        for (&found, stage.keys) |*seen, key| {
            var buffer: [8]u8 = undefined;
            const value = calls.get(stage.reader, &key, &buffer, 0) catch @panic("a read failed");
            seen.* = seenOf(if (value) |v| buffer[0..v.len] else null);
        }
        return found;
    }

    fn seenOf(value: ?[]const u8) Seen {
        const bytes = value orelse return .none;
        if (std.mem.eql(u8, bytes, "old")) return .old;
        if (std.mem.eql(u8, bytes, "new")) return .new;
        @panic("a value that no writer wrote");
    }

    fn note(stage: *Stage) void {
        stage.seen[stage.seen_count] = stage.look();
        stage.seen_count += 1;
    }

    /// Both writers go on to where the plan has them at this place.
    fn goOn(stage: *Stage) void {
        const place = stage.place;
        stage.place += 1;
        for ([2]usize{ stage.first, 1 - @as(usize, stage.first) }) |who| {
            const from = if (place == 0) 0 else stage.plans[who][place - 1];
            for (from..stage.plans[who][place]) |stop| {
                stage.scripts[who].advance(stop + 1);
                stage.note();
            }
        }
    }

    /// The snapshot copies out of a stripe whose slots it has copied already. It does so twice for
    /// each entry.
    fn onCopy() void {
        const stage = current.?;
        defer stage.copies += 1;
        if (stage.place == 5 or stage.copies < stage.next_at) return;
        const was = stage.look();
        while (stage.place < 5 and stage.copies >= stage.next_at) {
            const stripe = stage.place - 1;
            var entries = stage.fillers[stripe];
            if (stripe == 1 or stripe == 2) entries += @intFromBool(was[stripe - 1] != .none);
            stage.next_at += 2 * entries;
            stage.goOn();
        }
    }

    fn play(stage: *Stage, by: *Map) !void {
        stage.schedules += 1;
        for (&stage.scripts) |*script| script.undo();
        stage.seen_count = 0;
        stage.place = 0;
        stage.copies = 0;
        stage.next_at = 0;
        stage.goOn();
        // What was seen before the snapshot began does not count.
        stage.seen_count = 0;
        stage.note();
        current = stage;
        atomics.pause = onCopy;
        defer atomics.pause = null;
        const bytes = try calls.snapshot(by);
        const shown = stage.shownIn(by.gathered[0..bytes]);
        for (stage.seen[0..stage.seen_count]) |seen| {
            if (seen[0] == shown[0] and seen[1] == shown[1]) return;
        }
        std.debug.print("x: {any}, y: {any}, {d} first\n", .{
            stage.plans[0],
            stage.plans[1],
            stage.first,
        });
        std.debug.print("shown {any}, there was {any}\n", .{
            shown,
            stage.seen[0..stage.seen_count],
        });
        return error.NeverThere;
    }

    fn shownIn(stage: *const Stage, bytes: []const u8) [2]Seen {
        var shown: [2]Seen = .{ .none, .none };
        var at: usize = 0;
        while (at < bytes.len) {
            const record = std.mem.bytesToValue(gathered.Record, bytes[at..][0..16]);
            const rest = bytes[at + 16 ..][0 .. record.key_len + record.value_len];
            for (&shown, stage.keys) |*seen, key| {
                if (!std.mem.eql(u8, rest[0..record.key_len], &key)) continue;
                if (seen.* != .none) @panic("a key twice");
                seen.* = seenOf(rest[record.key_len..]);
            }
            at += 16 + std.mem.alignForward(usize, rest.len, 8);
        }
        return shown;
    }

    /// Every way in which the two writers can stand at the five places.
    /// With less of the work, one of so many, beginning with one that the seed chooses.
    fn playAll(stage: *Stage) !void {
        const each = eachOf();
        var number = support.seedOf(0) % each;
        for (&stage.plans) |*plan| plan.* = @splat(0);
        while (true) {
            while (true) {
                for ([2]u1{ 0, 1 }) |first| {
                    stage.first = first;
                    if (first == 1 and !stage.meet()) continue;
                    number += 1;
                    if (number % each != 0) continue;
                    try stage.play(if (stage.schedules % 3 == 0) stage.map else stage.reader);
                }
                if (!nextPlan(&stage.plans[1], stage.scripts[1].stop_count)) break;
            }
            stage.plans[1] = @splat(0);
            if (!nextPlan(&stage.plans[0], stage.scripts[0].stop_count)) break;
        }
        for (&stage.scripts) |*script| script.advance(script.stop_count - 1);
        try support.expectSound(stage.map);
    }

    /// Whether there is a place where both go on, so that it matters who is first.
    fn meet(stage: *const Stage) bool {
        var at: [2]u8 = .{ 0, 0 };
        for (stage.plans[0], stage.plans[1]) |a, b| {
            if (a > at[0] and b > at[1]) return true;
            at = .{ a, b };
        }
        return false;
    }

    /// The next ascending sequence. False: that was the last.
    fn nextPlan(plan: *Plan, stop_count: usize) bool {
        var i: usize = plan.len;
        while (i > 0) {
            i -= 1;
            if (plan[i] + 1 == stop_count) continue;
            const value = plan[i] + 1;
            @memset(plan[i..], value);
            return true;
        }
        return false;
    }
};

/// Of how many schedules one is played.
fn eachOf() u64 {
    const whole = 1000;
    return @max(1, whole / support.scaled(whole));
}

fn playDeeds(x: Deed, y: Deed, lock: layout.LockKind) !u64 {
    const stage = try Stage.open(.{ x, y }, lock);
    defer stage.close();
    errdefer std.debug.print("{t} beside {t}\n", .{ x, y });
    try stage.playAll();
    return stage.schedules;
}

test "snapshot: what it shows was there at one instant, in every order of two writers" {
    var schedules: u64 = 0;
    for ([_]Deed{ .insert, .delete, .grow, .empty }) |deed| {
        schedules += try playDeeds(deed, .replace, support.usual_lock);
        schedules += try playDeeds(.replace, deed, support.usual_lock);
    }
    schedules += try playDeeds(.replace, .replace, support.usual_lock);
    schedules += try playDeeds(.delete, .insert, support.usual_lock);
    schedules += try playDeeds(.grow, .grow, support.usual_lock);
    try expect(schedules > 100_000 / eachOf());
}

test "snapshot: a stripe that is recovered meanwhile, or was before" {
    const schedules = try playDeeds(.recover_replace, .replace, .kernel) +
        try playDeeds(.replace, .recover_replace, support.usual_lock);
    try expect(schedules > 50_000 / eachOf());
}

/// A map of one stripe that others write to whenever an iteration copies something.
const Churn = struct {
    const stable = 10;
    const keys = 200;

    map: *Map,
    writer: *Map,
    random: std.Random,
    /// What each key was when the iteration began, and what it has been since.
    numbers: [keys]u64 = @splat(0),
    oldest: [keys]u64 = undefined,
    written: u64 = 0,
    /// How much is written at a time.
    burst: u32 = 0,
    /// Whether only what is there is written, so that the table stays, and every key throughout.
    stays: bool = false,
    at_copy: u64 = 0,
    copies: u64 = 0,

    threadlocal var current: ?*Churn = null;

    /// Of several lengths, some as large as a table, so that they come to lie where others were.
    /// Each word also looks like a slot, or sizes, that name nothing good.
    const Value = struct {
        words: [40]u64,
        len: usize,

        fn of(number: u64) Value {
            var value: Value = .{
                .words = @splat(number << 28 | 0xabcdef),
                .len = ([_]usize{ 12, 3, 40, 12 })[number % 4],
            };
            value.words[0] = number;
            return value;
        }

        fn bytes(value: *const Value) []const u8 {
            return std.mem.sliceAsBytes(value.words[0..value.len]);
        }
    };

    fn write(churn: *Churn, n: u64) void {
        churn.written += 1;
        const value: Value = .of(churn.written);
        _ = calls.put(churn.writer, std.mem.asBytes(&n), value.bytes(), 1, .none) catch
            @panic("a write failed");
        churn.numbers[n] = churn.written;
    }

    fn remove(churn: *Churn, n: u64) void {
        _ = calls.delete(churn.writer, std.mem.asBytes(&n)) catch @panic("a delete failed");
        churn.numbers[n] = 0;
    }

    fn onCopy() void {
        const churn = current.?;
        defer churn.copies += 1;
        if (churn.copies != churn.at_copy) return;
        atomics.pause = null;
        defer atomics.pause = onCopy;
        // Everything but the stable keys comes, changes and goes, and the table grows and shrinks.
        const upto = churn.random.intRangeAtMost(u64, stable + 1, keys);
        // Often nearly all goes: then the stripe is rebuilt, and blocks come to lie across others.
        const tenths = ([_]u8{ 0, 5, 10 })[churn.random.uintLessThan(usize, 3)];
        for (0..churn.burst) |i| {
            const n = churn.random.intRangeLessThan(u64, stable, upto);
            if (churn.stays) {
                if (churn.numbers[n] != 0) churn.write(n);
            } else if (churn.random.uintLessThan(u8, 10) < tenths) {
                churn.write(n);
            } else churn.remove(if (tenths == 0) stable + i % (keys - stable) else n);
        }
    }

    fn check(churn: *Churn, bytes: []const u8) !void {
        var times: [keys]u8 = @splat(0);
        var at: usize = 0;
        while (at < bytes.len) {
            const record = std.mem.bytesToValue(gathered.Record, bytes[at..][0..16]);
            try expectEqual(8, record.key_len);
            const n = std.mem.readInt(u64, bytes[at + 16 ..][0..8], .little);
            try expect(n < keys);
            times[n] += 1;
            const value = bytes[at + 24 ..][0..record.value_len];
            const number = std.mem.readInt(u64, value[0..8], .little);
            try std.testing.expectEqualSlices(u8, Value.of(number).bytes(), value);
            // Older than when we began: it had been replaced by then.
            try expect(number >= churn.oldest[n] and number <= churn.written);
            if (n < stable) try expectEqual(churn.numbers[n], number);
            at += 24 + value.len;
        }
        for (times, churn.numbers, 0..) |count, number, n| {
            try expect(count <= 1);
            if (n < stable or churn.stays) try expectEqual(@intFromBool(number != 0), count);
        }
    }

    fn run(churn: *Churn) !void {
        for (0..stable) |n| churn.write(n);
        current = churn;
        for (0..support.times(3000)) |i| {
            churn.oldest = churn.numbers;
            churn.copies = 0;
            churn.at_copy = churn.random.uintLessThan(u64, if (i % 2 == 0) 30 else 100);
            churn.burst = churn.random.uintLessThan(u32, 500);
            churn.stays = churn.random.uintLessThan(u8, 4) == 0;
            atomics.pause = onCopy;
            defer atomics.pause = null;
            errdefer std.debug.print("iteration {d}\n", .{i});
            const len = if (i % 3 != 0)
                try calls.gatherStripe(churn.map, 0, false)
            else
                try calls.snapshot(churn.map);
            try churn.check(churn.map.gathered[0..len]);
        }
        try support.expectSound(churn.map);
    }
};

test "snapshot: it has each key once, and so has an iteration beside constant change" {
    for ([_]bool{ false, true }) |readonly| {
        const map = try support.openMap(0, 4 << 20);
        defer support.closeMap(map);
        const reader = if (readonly)
            try support.openReader(map, 10_000)
        else
            try support.openAgain(map, 10_000);
        defer support.closeMap(reader);
        const seed = support.seedOf(9);
        errdefer std.debug.print("SHMAP_SEED={d}\n", .{seed});
        var prng = std.Random.DefaultPrng.init(seed);
        var churn: Churn = .{ .map = reader, .writer = map, .random = prng.random() };
        try churn.run();
    }
}
