//! The pool: which extents of the segment belong to which stripe, and which to none.
//!
//! The truth is the list of chunks each stripe owns. It changes by one store (`stripe.chunks`, or a
//! neighbour's `next`), always with the stripe's lock *and* the pool's lock held; so a caller that
//! holds the pool's lock alone may walk all lists. The bins and the frontier are derived: after the
//! death of a process that was changing the pool, `rebuild` makes them anew from what no list
//! mentions.
//!
//! Nothing here locks or grows; `space.zig` does. `pool.writer` is set while the pool's lock is
//! held for a change, and is asserted.

const std = @import("std");
const layout = @import("../layout.zig");
const atomics = @import("../atomics.zig");

const chunks = @import("chunk.zig");
const parked = @import("parked.zig");

const Checked = chunks.Checked;
const Marks = parked.Marks;
const Moving = layout.Moving;
const Refusal = @import("../segment/view.zig").Refusal;
const View = @import("../segment/view.zig").View;
const Pool = layout.Pool;
const checked = chunks.checked;
const unit_bytes = layout.unit_bytes;

/// How many extents of one bin are tried before a larger bin is, unless the search is thorough.
const tries_max = 8;

pub const Search = enum { quick, thorough };

fn binOf(units: u64) u6 {
    const bits: u6 = @intCast(63 - @clz(units));
    const half: u6 = if (bits == 0) 0 else @intCast(units >> (bits - 1) & 1);
    return @min(bits * 2 + half, layout.pool_bin_count - 1);
}

fn put(view: *View, pool: *Pool, offset: u64, units: u64) void {
    const bin = &pool.bins[binOf(units)];
    chunks.describe(view, offset, 0, units, null);
    atomics.store(&view.chunk(offset).next, atomics.load(bin));
    atomics.store(bin, offset);
    atomics.store(&pool.free, atomics.load(&pool.free) +% units * unit_bytes);
}

/// Takes an extent of exactly `units` out of the bins or from the frontier. Null: there is none.
fn take(view: *View, pool: *Pool, units: u64, search: Search) Refusal!?u64 {
    const tries = if (search == .quick) tries_max else view.committed / unit_bytes;
    var bin: u7 = binOf(units);
    while (bin < layout.pool_bin_count) : (bin += 1) {
        var link = &pool.bins[bin];
        for (0..tries) |_| {
            const offset = atomics.load(link);
            if (offset == 0) break;
            const extent = try checked(view, offset);
            if (extent.stripe != null) return error.Corrupt;
            if (extent.units >= units) {
                atomics.store(link, extent.next);
                atomics.store(&pool.free, atomics.load(&pool.free) -% extent.bytes());
                if (extent.units > units)
                    put(view, pool, offset + units * unit_bytes, extent.units - units);
                return offset;
            }
            link = &view.chunk(offset).next;
        }
    }
    try checkFrontier(view, pool);
    const frontier = atomics.load(&pool.frontier);
    if (frontier + units * unit_bytes > view.committed) return null;
    atomics.store(&pool.frontier, frontier + units * unit_bytes);
    return frontier;
}

/// Makes an extent of `units` the newest chunk of a stripe, with both locks held. Null: the pool
/// has none, the segment must grow.
pub fn claim(
    view: *View,
    pool: *Pool,
    index: u32,
    units: u64,
    search: Search,
) Refusal!?Checked {
    std.debug.assert(pool.writer != 0);
    const head = try headOf(view, index);
    const offset = try take(view, pool, units, search) orelse return null;
    return try own(view, index, head, offset, units, null);
}

/// The same with a parked extent that has its blocks, `dense` bytes, or with a fresh one at the end
/// of the segment. `pool.moving` names it, and it is in no list. A crash before the commit leaves
/// it to the pool's rebuild, which parks it.
pub fn claimMoving(
    view: *View,
    pool: *Pool,
    index: u32,
    offset: u64,
    units: u64,
    dense: u64,
) Refusal!Checked {
    std.debug.assert(pool.writer != 0 and pool.moving != Moving.none);
    const head = try headOf(view, index);
    const chunk = try own(view, index, head, offset, units, dense);
    atomics.storeRelease(&pool.moving, Moving.none);
    return chunk;
}

/// Whether a stripe's list begins as it should: what `claimMoving` relies on.
pub fn checkHead(view: *View, index: u32) Refusal!void {
    _ = try headOf(view, index);
}

/// The newest chunk of a stripe; 0: it has none.
fn headOf(view: *View, index: u32) Refusal!u64 {
    const head = atomics.load(&view.stripe(index).chunks);
    if (head != 0 and (try checked(view, head)).stripe != index) return error.Corrupt;
    return head;
}

fn own(view: *View, index: u32, head: u64, offset: u64, units: u64, dense: ?u64) Refusal!Checked {
    const stripe = view.stripe(index);
    const chunk = view.chunk(offset);
    chunks.describe(view, offset, index + 1, units, dense);
    atomics.store(&chunk.next, head);
    atomics.store(&chunk.previous, 0);
    if (head != 0) atomics.store(&view.chunk(head).previous, offset);
    // Commit. A crash before it leaves an extent in no list, which the pool's rebuild finds.
    atomics.storeRelease(&stripe.chunks, offset);
    const bytes = dense orelse units * unit_bytes;
    atomics.store(&stripe.owned, atomics.load(&stripe.owned) +% bytes);
    return try checked(view, offset);
}

/// Whether the frontier is where it can be.
pub fn checkFrontier(view: *const View, pool: *const Pool) error{Corrupt}!void {
    const frontier = atomics.load(&pool.frontier);
    if (frontier % unit_bytes != 0 or frontier < view.data_start or frontier > view.committed)
        return error.Corrupt;
}

/// What lies between the frontier and `end`, where the segment ended, becomes an extent, because
/// the segment goes on behind it with space that is not ordinary.
pub fn closeFrontier(view: *View, pool: *Pool, end: u64) void {
    std.debug.assert(pool.writer != 0 and end <= view.committed);
    const frontier = atomics.load(&pool.frontier); // `checkFrontier` has looked at it
    if (frontier < end) put(view, pool, frontier, (end - frontier) / unit_bytes);
    atomics.store(&pool.frontier, view.committed);
}

/// Gives a chunk back to the pool, with both locks held: it is parked, or ordinary space. No reader
/// of a generation that still validates may reach anything in the chunk.
pub fn release(view: *View, pool: *Pool, index: u32, offset: u64) Refusal!void {
    std.debug.assert(pool.writer != 0);
    const stripe = view.stripe(index);
    const chunk = try checked(view, offset);
    if (chunk.stripe != index) return error.Corrupt;
    const link = if (atomics.load(&stripe.chunks) == offset) &stripe.chunks else blk: {
        const previous = try checked(view, chunk.previous);
        if (previous.stripe != index or previous.next != offset) return error.Corrupt;
        break :blk &view.chunk(chunk.previous).next;
    };
    if (chunk.next != 0 and (try checked(view, chunk.next)).stripe != index) return error.Corrupt;
    // Before it is in no list: it may have holes, and must not be taken for ordinary space.
    if (chunk.dense != null) atomics.storeRelease(&pool.moving, Moving.of(.extent, offset));
    // Commit. A crash behind it leaves an extent in no list, which the pool's rebuild finds.
    atomics.storeRelease(link, chunk.next);
    if (chunk.next != 0) atomics.store(&view.chunk(chunk.next).previous, chunk.previous);
    atomics.store(&stripe.owned, atomics.load(&stripe.owned) -% chunk.blockBytes());
    if (chunk.dense != null) {
        parked.park(view, pool, chunk);
        atomics.storeRelease(&pool.moving, Moving.none);
    } else {
        put(view, pool, offset, chunk.units);
        atomics.store(&pool.released, atomics.load(&pool.released) +% chunk.bytes());
    }
}

/// Walks the chunks of a stripe, newest first; a list that does not end, or leaves the stripe, is
/// damaged.
pub const Walk = struct {
    view: *View,
    index: u32,
    next: u64,
    left: u64,

    pub fn of(view: *View, index: u32) Walk {
        _ = view.refresh(); // others may have grown the segment since this handle looked
        return .{
            .view = view,
            .index = index,
            .next = atomics.loadAcquire(&view.stripe(index).chunks),
            .left = view.committed / unit_bytes,
        };
    }

    pub fn step(walk: *Walk) Refusal!?Checked {
        if (walk.next == 0) return null;
        if (walk.left == 0) return error.Corrupt;
        const chunk = try checked(walk.view, walk.next);
        if (chunk.stripe != walk.index or chunk.units > walk.left) return error.Corrupt;
        walk.left -= chunk.units;
        walk.next = chunk.next;
        return chunk;
    }
};

/// Where the last chunk of all stripes ends.
pub fn ownedEnd(view: *View) Refusal!u64 {
    var end = view.data_start;
    for (0..view.stripeCount()) |index| {
        var walk = Walk.of(view, @intCast(index));
        while (try walk.step()) |chunk| end = @max(end, chunk.end());
    }
    return end;
}

/// How many 64-bit words of private memory `rebuild` and `isSound` need.
pub fn scratchWords(view: *const View) u64 {
    return Marks.wordsFor(view);
}

/// Marks the units every stripe owns. Returns how many of their bytes have no blocks. `Corrupt`: a
/// unit with two owners, or a damaged list.
fn markOwned(view: *View, marks: Marks) Refusal!u64 {
    @memset(marks.words, 0);
    var holes: u64 = 0;
    for (0..view.stripeCount()) |index| {
        var walk = Walk.of(view, @intCast(index));
        while (try walk.step()) |chunk| {
            try marks.add(chunk);
            holes += chunk.holeBytes();
        }
    }
    return holes;
}

/// Makes bins, frontier and counters anew from what no stripe owns and is not parked, neighbours
/// joined, with the pool's lock held. What a dead process had on its way to or from the parked
/// extents goes there first. Idempotent: a crash anywhere leaves the same to do, or less.
pub fn rebuild(view: *View, pool: *Pool, words: []u64) Refusal!void {
    std.debug.assert(pool.writer != 0);
    std.debug.assert(words.len >= scratchWords(view));
    const marks: Marks = .{ .words = words };
    const owned_holes = try markOwned(view, marks);
    try parked.settle(view, pool, marks, owned_holes);
    for (&pool.bins) |*bin| atomics.store(bin, 0);
    atomics.store(&pool.free, 0);
    atomics.store(&pool.released, 0);
    var gaps: parked.Gaps = .of(view, marks);
    while (gaps.next()) |gap| {
        if (gap.end < view.committed) put(view, pool, gap.start, gap.units());
    }
    atomics.store(&pool.frontier, gaps.last_end);
}

/// Whether every unit from the first to the frontier is owned by one stripe, parked, or lies in one
/// bin, and the pool's counters are true, with the pool's lock held.
pub fn isSound(view: *View, pool: *Pool, words: []u64) bool {
    std.debug.assert(pool.writer != 0);
    const marks: Marks = .{ .words = words };
    const owned_holes = markOwned(view, marks) catch return false;
    if (!parked.areSound(view, pool, marks, owned_holes)) return false;
    checkFrontier(view, pool) catch return false;
    const frontier = atomics.load(&pool.frontier);
    var free: u64 = 0;
    for (&pool.bins) |*bin| {
        var offset = atomics.load(bin);
        while (offset != 0) {
            const extent = checked(view, offset) catch return false;
            if (extent.stripe != null or extent.dense != null) return false;
            marks.add(extent) catch return false;
            free += extent.bytes();
            offset = extent.next;
        }
    }
    for (view.data_start / unit_bytes..frontier / unit_bytes) |unit|
        if (!marks.has(unit)) return false;
    for (frontier / unit_bytes..view.committed / unit_bytes) |unit|
        if (marks.has(unit)) return false;
    return free == atomics.load(&pool.free);
}

test "claimed chunks never overlap, released ones are found again and joined" {
    const memory = try std.testing.allocator.alignedAlloc(u8, .fromByteUnits(4096), 1 << 20);
    defer std.testing.allocator.free(memory);
    @memset(memory, 0);
    var view: View = .ofMemory(memory, 1);
    const pool = &view.header().pool;
    pool.writer = 1;
    var marks: [17]u64 = undefined;
    try rebuild(&view, pool, &marks);
    var random = std.Random.DefaultPrng.init(2);
    for (0..20_000) |_| {
        const index = random.random().uintLessThan(u32, 2);
        if (random.random().boolean()) {
            _ = try claim(&view, pool, index, random.random().intRangeAtMost(u64, 1, 40), .quick);
        } else {
            var walk = Walk.of(&view, index);
            var steps = random.random().uintLessThan(u32, 8);
            while (try walk.step()) |chunk| : (steps -= 1) {
                if (steps > 0) continue;
                try release(&view, pool, index, chunk.offset);
                break;
            }
        }
        try std.testing.expect(isSound(&view, pool, &marks));
    }
    for (0..2) |index| {
        const stripe = view.stripe(@intCast(index));
        while (atomics.load(&stripe.chunks) != 0)
            try release(&view, pool, @intCast(index), atomics.load(&stripe.chunks));
        try std.testing.expectEqual(@as(u64, 0), atomics.load(&stripe.owned));
    }
    // In pieces, there may be no room for one large chunk; joined, there is.
    try rebuild(&view, pool, &marks);
    const all = (view.committed - view.data_start) / unit_bytes;
    try std.testing.expect(try claim(&view, pool, 0, all, .thorough) != null);
    try std.testing.expect(try claim(&view, pool, 0, 1, .thorough) == null);
}

test "a list of chunks in a circle or into foreign bytes is damaged, and a frontier out of place" {
    const memory = try std.testing.allocator.alignedAlloc(u8, .fromByteUnits(4096), 1 << 18);
    defer std.testing.allocator.free(memory);
    @memset(memory, 0);
    var view: View = .ofMemory(memory, 0);
    const pool = &view.header().pool;
    pool.writer = 1;
    var marks: [5]u64 = undefined;
    try rebuild(&view, pool, &marks);
    const first = (try claim(&view, pool, 0, 2, .quick)).?;
    const second = (try claim(&view, pool, 0, 2, .quick)).?;
    view.chunk(first.offset).next = second.offset;
    try std.testing.expectError(error.Corrupt, rebuild(&view, pool, &marks));
    view.chunk(first.offset).next = second.offset + 1024;
    try std.testing.expectError(error.Corrupt, rebuild(&view, pool, &marks));
    view.chunk(first.offset).next = 0;
    try rebuild(&view, pool, &marks);
    for ([_]u64{ 0, 1, view.data_start - unit_bytes, view.committed + unit_bytes }) |frontier| {
        pool.frontier = frontier;
        try std.testing.expect(!isSound(&view, pool, &marks));
    }
}
