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

    fn note(verdict: *Verdict, reason: status.Reason, stripe: u64, count: u64) void {
        if (count == 0) return;
        if (verdict.problems == 0) {
            verdict.reason = @floatFromInt(@intFromEnum(reason));
            verdict.stripe = number(stripe);
        }
        verdict.problems += number(count);
    }
};

/// Checks every stripe under its lock, and the pool. A read-only handle can take no lock, and
/// checks that every entry can be read.
pub fn verify(map: *Map) Error!Verdict {
    var verdict: Verdict = .{};
    for (0..map.segment.view.stripeCount()) |i| {
        const index: u32 = @intCast(i);
        if (map.segment.readonly) try readStripe(map, index, &verdict) else {
            var op = StripeOp.lock(map, index) catch |err| {
                if (err != error.Corrupt) return err;
                verdict.note(.tableDamaged, index, 1);
                continue;
            };
            defer op.unlock();
            try checkStripe(map, index, &verdict);
        }
    }
    if (!map.segment.readonly) try checkPool(map, &verdict);
    return verdict;
}

fn readStripe(map: *Map, index: u32, verdict: *Verdict) Error!void {
    const bytes = iterate.gatherStripe(map, index, true) catch |err| {
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
/// beyond that stays as it is and is reported.
pub fn repair(map: *Map) Error!Verdict {
    if (map.segment.readonly) return error.ReadOnly;
    var dropped: u64 = 0;
    for (0..map.segment.view.stripeCount()) |i| {
        var op: StripeOp = .of(map, @intCast(i));
        op.lockToWrite() catch |err| {
            if (err != error.Corrupt) return err;
            continue;
        };
        defer op.unlock();
        const before = atomics.load(&op.stripe.dropped);
        repairStripe(&op) catch |err| if (err != error.Corrupt) return err;
        dropped += atomics.load(&op.stripe.dropped) -| before;
    }
    if (spaces.lockPool(&map.segment)) |pool| {
        defer spaces.unlockPool(&map.segment);
        spaces.rebuildPool(&map.segment, pool) catch |err| if (err != error.Corrupt) return err;
    } else |err| if (err != error.Corrupt) return err;
    var verdict = try verify(map);
    verdict.dropped = number(dropped);
    return verdict;
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
