//! What a segment says of itself: numbers for people, a check of every invariant, and repair.

const std = @import("std");
const layout = @import("../layout.zig");
const crash = @import("../atomics.zig");
const pools = @import("../stripe/pool.zig");
const recovery = @import("../stripe/recovery.zig");
const spaces = @import("../stripe/space.zig");
const range_lock = @import("../lock/range_lock.zig");
const segments = @import("../segment/segment.zig");
const status = @import("../status.zig");
const os = @import("../os/os.zig");
const maps = @import("map.zig");
const gather = @import("bulk.zig");

const Error = status.Error;
const Map = maps.Map;
const Operation = maps.Operation;

/// As it crosses the boundary: `f64`, little-endian.
pub const Stats = extern struct {
    entries: f64 = 0,
    allocated_bytes: f64 = 0,
    committed_bytes: f64 = 0,
    ceiling_bytes: f64 = 0,
    stripes: f64 = 0,
    table_slots: f64 = 0,
    tombstones: f64 = 0,
    owned_bytes: f64 = 0,
    free_bytes: f64 = 0,
    pool_free_bytes: f64 = 0,
    recoveries: f64 = 0,
    dropped: f64 = 0,
    max_bytes: f64 = 0,
    lock_kind: f64 = 0,
    created_ms: f64 = 0,
    owner: f64 = 0,
    state: f64 = 0,
    sip_stripes: f64 = 0,
    other_writers: f64 = 0,
};

fn number(word: u64) f64 {
    return @floatFromInt(word);
}

/// A look without locks: each number is right by itself, not all at one instant.
pub fn stats(map: *Map) Error!Stats {
    const segment = &map.segment;
    const header = segment.header();
    const stat = try os.stat(segment.fault, segment.file);
    var result: Stats = .{
        .entries = number(try map.size()),
        .allocated_bytes = number(stat.allocated),
        .committed_bytes = number(crash.acquire(&header.committed)),
        .ceiling_bytes = number(header.ceiling),
        .stripes = number(segment.view.stripeCount()),
        .max_bytes = number(header.max_bytes),
        .lock_kind = number(@intFromEnum(segments.lockKind(header))),
        .created_ms = number(header.created_ms),
        .owner = number(stat.uid),
        .state = number(crash.load(&header.state)),
    };
    for (0..segment.view.stripeCount()) |i| {
        const stripe = segment.view.stripe(@intCast(i));
        const table: layout.TableWord = @bitCast(crash.acquire(&stripe.table));
        if (table.present) result.table_slots += number(@as(u64, 1) << table.log2);
        result.sip_stripes += @floatFromInt(@intFromBool(table.sip));
        result.tombstones += number(crash.load(&stripe.tombstones));
        result.owned_bytes += number(crash.load(&stripe.owned));
        result.free_bytes += number(crash.load(&stripe.free));
        result.recoveries += number(crash.load(&stripe.recoveries));
        result.dropped += number(crash.load(&stripe.dropped));
    }
    const unused = segment.view.committed -| crash.load(&header.pool.frontier);
    result.pool_free_bytes = number(crash.load(&header.pool.free) +| unused);
    // Where the system has no queries, a writer cannot tell others from itself.
    const others = (segment.readonly or os.has_range_queries) and
        try range_lock.isHeld(segment.fault, segment.locks, .writer);
    result.other_writers = @floatFromInt(@intFromBool(others));
    return result;
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
            var op = Operation.lock(map, index) catch |err| {
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
    const bytes = gather.gatherStripe(map, index, true) catch |err| {
        if (err != error.Corrupt) return err;
        verdict.note(.entryDamaged, index, 1);
        return;
    };
    verdict.entries += number(gather.countRecords(map, bytes));
}

fn checkStripe(map: *Map, index: u32, verdict: *Verdict) Error!void {
    const view = &map.segment.view;
    const scratch_bytes = recovery.Marks.scratchBytes(view, index) catch
        return verdict.note(.chunksDamaged, index, 1);
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
        var op: Operation = .of(map, @intCast(i));
        op.lockToWrite() catch |err| {
            if (err != error.Corrupt) return err;
            continue;
        };
        defer op.unlock();
        const before = crash.load(&op.stripe.dropped);
        repairStripe(&op) catch |err| if (err != error.Corrupt) return err;
        dropped += crash.load(&op.stripe.dropped) -| before;
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
fn repairStripe(op: *Operation) Error!void {
    try op.recover();
    op.begin();
    const view = &op.map.segment.view;
    const dropped = try op.guard(recovery.reconnect(view, op.space.index));
    crash.store(&op.stripe.dropped, crash.load(&op.stripe.dropped) +% dropped);
    try op.guard(op.recover());
}

/// What a sole attacher does before anybody else may enter: recovers every stripe somebody died
/// in, or all of them when the last writer did not leave in an orderly way.
pub fn recoverSegment(segment: *segments.Segment, all: bool) Error!void {
    // Whoever died may have grown the segment after this handle mapped it.
    if (!segment.view.refresh(&segment.view))
        return segment.fault.because(.truncated, error.Corrupt);
    const map: *Map = @fieldParentPtr("segment", segment);
    map.secrets = maps.secretsOf(segment.header());
    const pool = &segment.header().pool;
    if (all or crash.load(&pool.writer) != 0) {
        crash.publish(&pool.writer, segment.me);
        // A damaged list is the business of those who need it; reading goes on.
        spaces.rebuildPool(segment, pool) catch |err| if (err != error.Corrupt) return err;
        crash.publish(&pool.writer, 0);
    }
    for (0..segment.view.stripeCount()) |i| {
        const stripe = segment.view.stripe(@intCast(i));
        if (!all and crash.load(&stripe.writer) == 0) continue;
        if (crash.load(&stripe.table) == 0 and crash.load(&stripe.chunks) == 0 and
            crash.load(&stripe.writer) == 0) continue;
        var op: Operation = .of(map, @intCast(i));
        op.recover() catch |err| if (err != error.Corrupt) return err;
    }
}
