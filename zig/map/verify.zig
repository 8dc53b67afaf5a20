//! A check of every invariant of a map, and repair.

const std = @import("std");
const atomics = @import("../atomics.zig");
const gathered = @import("gathered.zig");
const iterate = @import("iterate.zig");
const os = @import("../os/os.zig");
const pools = @import("../stripe/pool.zig");
const recovery = @import("../stripe/recovery.zig");
const spaces = @import("../stripe/space.zig");
const status = @import("../status.zig");
const Map = @import("map.zig").Map;
const StripeOp = @import("stripe_op.zig").StripeOp;

const Error = status.Error;

fn number(word: u64) f64 {
    return @floatFromInt(word);
}

/// As it crosses the boundary: `f64`, little-endian.
pub const Verdict = extern struct {
    problems: f64 = 0,
    entries: f64 = 0,
    dropped: f64 = 0,
    reason: f64 = 0,
    stripe: f64 = 0,
    /// How many parts (the stripes, and the pool) were not looked at: other processes had them for
    /// the whole of the call's time.
    busy: f64 = 0,

    fn note(verdict: *Verdict, reason: status.Reason, stripe: u64, count: u64) void {
        if (count == 0) return;
        if (verdict.problems == 0) {
            verdict.reason = @floatFromInt(@intFromEnum(reason));
            verdict.stripe = number(stripe);
        }
        verdict.problems += number(count);
    }
};

/// A bit for each part that a call could not look at: the stripes, and the pool behind them.
const Busy = std.StaticBitSet(stripes_max + 1);
const stripes_max = 1024;
const pool_bit = stripes_max;

/// Checks every stripe under its lock, and the pool. A read-only handle can take no lock, and
/// checks that every entry can be read.
pub fn verify(map: *Map) Error!Verdict {
    var busy: Busy = .initEmpty();
    return verifyBeside(map, &busy);
}

/// As `verify`; what is set in `busy` counts as not looked at.
fn verifyBeside(map: *Map, busy: *Busy) Error!Verdict {
    var verdict: Verdict = .{};
    try visitAll(map, &verdict, busy, verifyStripe);
    if (!map.segment.readonly) {
        checkPool(map, &verdict) catch |err| {
            if (err != error.Timeout) return err;
            busy.set(pool_bit);
        };
    }
    verdict.busy = number(busy.count());
    return verdict;
}

/// Visits every stripe: first those that no other process has, at once, and then the others, as
/// long as the call has time. So a writer that is stopped in one keeps none of the rest from being
/// looked at. Sets the bits of those that were not visited.
fn visitAll(
    map: *Map,
    verdict: *Verdict,
    busy: *Busy,
    visit: *const fn (map: *Map, index: u32, verdict: *Verdict) Error!void,
) Error!void {
    var waiting: Busy = .initEmpty();
    {
        const deadline = map.segment.deadline;
        defer map.segment.deadline.goBackTo(deadline);
        map.segment.deadline = .in(0);
        for (0..map.segment.view.stripeCount()) |i| {
            visit(map, @intCast(i), verdict) catch |err| {
                if (err != error.Timeout) return err;
                waiting.set(i);
            };
        }
    }
    var each = waiting.iterator(.{});
    while (each.next()) |i| {
        visit(map, @intCast(i), verdict) catch |err| {
            if (err != error.Timeout) return err;
            busy.set(i);
        };
    }
}

/// `Timeout`: another process has the stripe, and nothing is noted of it.
fn verifyStripe(map: *Map, index: u32, verdict: *Verdict) Error!void {
    if (map.segment.readonly) return readStripe(map, index, verdict);
    var op = StripeOp.lock(map, index) catch |err| {
        if (err != error.Corrupt) return err;
        return verdict.note(.tableDamaged, index, 1);
    };
    defer op.unlock();
    try checkStripe(map, index, verdict);
}

fn readStripe(map: *Map, index: u32, verdict: *Verdict) Error!void {
    const bytes = iterate.gatherStripe(map, index, .{ .detail = .keys }) catch |err| {
        if (err != error.Corrupt) return err;
        verdict.note(.entryDamaged, index, 1);
        return;
    };
    verdict.entries += number(gathered.countRecords(map, bytes));
}

fn checkStripe(map: *Map, index: u32, verdict: *Verdict) Error!void {
    const view = &map.segment.view;
    const scratch_bytes = recovery.Marks.scratchBytes(view, index) catch |err| {
        if (err == error.NoSpace) return err;
        return verdict.note(.chunksDamaged, index, 1);
    };
    const scratch = try os.pages(map.segment.fault, scratch_bytes);
    defer os.freePages(scratch);
    const report = recovery.check(view, &map.secrets, index, scratch);
    verdict.entries += number(report.entries);
    verdict.note(switch (report.first) {
        .none => .none,
        .table => .tableDamaged,
        .entry => .entryDamaged,
        .chunks => .chunksDamaged,
    }, index, report.problems);
}

fn checkPool(map: *Map, verdict: *Verdict) Error!void {
    const segment = &map.segment;
    const pool = spaces.lockPool(segment) catch |err| {
        if (err != error.Corrupt) return err;
        return verdict.note(.chunksDamaged, 0, 1);
    };
    defer spaces.unlockPool(segment);
    const scratch_words = pools.scratchWords(&segment.view);
    const scratch = try os.pages(segment.fault, scratch_words * 8);
    defer os.freePages(scratch);
    const marks: [*]u64 = @ptrCast(scratch.ptr);
    if (!pools.isSound(&segment.view, pool, marks[0..scratch_words]))
        verdict.note(.chunksDamaged, 0, 1);
}

/// Recovers every stripe and the pool, whether or not they seem to need it, and checks the result.
/// Entries that are damaged are dropped and counted; a stripe whose table or chunk list is damaged
/// beyond that stays as it is and is reported. `Timeout`: another handle has the user's lock.
pub fn repair(map: *Map) Error!Verdict {
    if (map.segment.readonly) return error.ReadOnly;
    var busy: Busy = .initEmpty();
    var repaired: Verdict = .{};
    if (try hasPool(map)) {
        try visitAll(map, &repaired, &busy, visitToRepair);
    } else {
        // A stripe that has chunks to give back would be left half done, for others to finish.
        busy.setRangeValue(.{ .start = 0, .end = map.segment.view.stripeCount() }, true);
        busy.set(pool_bit);
    }
    // None may change anything while another handle has the user's lock; no stripe is to blame.
    if (busy.count() > 0 and !map.lock.admits(lockWord(map))) {
        map.lock.noteHolder();
        return error.Timeout;
    }
    repairPool(map) catch |err| {
        if (err != error.Timeout) return err;
        busy.set(pool_bit);
    };
    var verdict = try verifyBeside(map, &busy);
    verdict.dropped = repaired.dropped;
    return verdict;
}

/// Whether the pool is to be had within the call's time; for a moment it is had.
fn hasPool(map: *Map) Error!bool {
    _ = spaces.lockPool(&map.segment) catch |err| return switch (err) {
        error.Timeout => false,
        error.Corrupt => true, // no process has it
        else => err,
    };
    spaces.unlockPool(&map.segment);
    return true;
}

fn repairPool(map: *Map) Error!void {
    spaces.repairPool(&map.segment) catch |err| if (err != error.Corrupt) return err;
}

fn lockWord(map: *Map) u64 {
    return atomics.loadAcquire(&map.segment.header().lock_word);
}

/// `Timeout`: another process has the stripe, or the user's lock, and nothing is noted of it.
fn visitToRepair(map: *Map, index: u32, repaired: *Verdict) Error!void {
    var op: StripeOp = .of(map, index);
    op.lockToWrite() catch |err| {
        if (err != error.Corrupt) return err;
        return; // the check that follows reports it
    };
    defer op.unlock();
    const before = atomics.load(&op.stripe.dropped);
    defer repaired.dropped += number(atomics.load(&op.stripe.dropped) -| before);
    repairStripe(&op) catch |err| if (err != error.Corrupt) return err;
}

/// Leaves sound slots only, then each where a probe finds it, then what is derived from them.
fn repairStripe(op: *StripeOp) Error!void {
    try op.recover();
    op.begin();
    const view = &op.map.segment.view;
    const dropped = try op.markDirtyOnError(recovery.reconnect(view, op.space.index));
    atomics.store(&op.stripe.dropped, atomics.load(&op.stripe.dropped) +% dropped);
    try op.markDirtyOnError(op.recover());
}
