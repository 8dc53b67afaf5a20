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

const Refusal = @import("../segment/view.zig").Refusal;
const View = @import("../segment/view.zig").View;
const Pool = layout.Pool;
const Stripe = layout.Stripe;
const Chunk = layout.Chunk;
const unit_bytes = layout.unit_bytes;

/// How many extents of one bin are tried before a larger bin is, unless the search is thorough.
const tries_max = 8;

pub const Search = enum { quick, thorough };

const Extent = packed struct(u64) { owner: u32, units: u32 };

/// An extent as its header describes it, loaded once and checked.
pub const Checked = struct {
    offset: u64,
    units: u64,
    /// The owning stripe, null in the pool.
    stripe: ?u32,
    next: u64,
    previous: u64,

    pub fn bytes(extent: Checked) u64 {
        return extent.units * unit_bytes;
    }

    /// Where its usable bytes begin and end.
    pub fn start(extent: Checked) u64 {
        return extent.offset + @sizeOf(Chunk);
    }

    pub fn end(extent: Checked) u64 {
        return extent.offset + extent.bytes();
    }
};

pub fn unitsFor(bytes: u64) u64 {
    return (bytes + @sizeOf(Chunk) + unit_bytes - 1) / unit_bytes;
}

pub fn checked(view: *View, offset: u64) Refusal!Checked {
    if (offset % unit_bytes != 0 or offset < view.data_start) return error.Corrupt;
    try view.check(offset, unit_bytes);
    const chunk = view.chunk(offset);
    const extent: Extent = @bitCast(atomics.load(&chunk.extent));
    if (atomics.load(&chunk.check) != layout.chunkCheck(offset) or extent.units == 0)
        return error.Corrupt;
    try view.check(offset, @as(u64, extent.units) * unit_bytes);
    return .{
        .offset = offset,
        .units = extent.units,
        .stripe = if (extent.owner == 0) null else extent.owner - 1,
        .next = atomics.load(&chunk.next),
        .previous = atomics.load(&chunk.previous),
    };
}

fn binOf(units: u64) u6 {
    const bits: u6 = @intCast(63 - @clz(units));
    const half: u6 = if (bits == 0) 0 else @intCast(units >> (bits - 1) & 1);
    return @min(bits * 2 + half, layout.pool_bin_count - 1);
}

fn put(view: *View, pool: *Pool, offset: u64, units: u64) void {
    const chunk = view.chunk(offset);
    const bin = &pool.bins[binOf(units)];
    atomics.store(&chunk.extent, @bitCast(Extent{ .owner = 0, .units = @intCast(units) }));
    atomics.store(&chunk.check, layout.chunkCheck(offset));
    atomics.store(&chunk.next, atomics.load(bin));
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
    const frontier = atomics.load(&pool.frontier);
    if (frontier % unit_bytes != 0 or frontier < view.data_start or frontier > view.committed)
        return error.Corrupt;
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
    const stripe = view.stripe(index);
    const head = atomics.load(&stripe.chunks);
    if (head != 0) {
        if ((try checked(view, head)).stripe != index) return error.Corrupt;
    }
    const offset = try take(view, pool, units, search) orelse return null;
    const chunk = view.chunk(offset);
    atomics.store(&chunk.extent, @bitCast(Extent{ .owner = index + 1, .units = @intCast(units) }));
    atomics.store(&chunk.next, head);
    atomics.store(&chunk.previous, 0);
    atomics.store(&chunk.check, layout.chunkCheck(offset));
    if (head != 0) atomics.store(&view.chunk(head).previous, offset);
    // Commit. A crash before it leaves an extent in no list, which the pool's rebuild finds.
    atomics.storeRelease(&stripe.chunks, offset);
    atomics.store(&stripe.owned, atomics.load(&stripe.owned) +% units * unit_bytes);
    return try checked(view, offset);
}

/// Gives a chunk back to the pool, with both locks held. No reader of a generation that still
/// validates may reach anything in the chunk.
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
    // Commit. A crash behind it leaves an extent in no list, which the pool's rebuild finds.
    atomics.storeRelease(link, chunk.next);
    if (chunk.next != 0) {
        if ((try checked(view, chunk.next)).stripe != index) return error.Corrupt;
        atomics.store(&view.chunk(chunk.next).previous, chunk.previous);
    }
    atomics.store(&stripe.owned, atomics.load(&stripe.owned) -% chunk.bytes());
    put(view, pool, offset, chunk.units);
    atomics.store(&pool.released, atomics.load(&pool.released) +% chunk.bytes());
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

/// How many 64-bit words of private memory `rebuild` and `claimedTwice` need.
pub fn scratchWords(view: *const View) u64 {
    return view.committed / unit_bytes / 64 + 1;
}

/// Marks the units every stripe owns. `Corrupt`: a unit with two owners, or a damaged list.
pub fn markOwned(view: *View, marks: []u64) Refusal!void {
    @memset(marks, 0);
    for (0..view.stripeCount()) |index| {
        var walk = Walk.of(view, @intCast(index));
        while (try walk.step()) |chunk| {
            const first = chunk.offset / unit_bytes;
            if ((first + chunk.units - 1) / 64 >= marks.len) return error.Corrupt;
            for (first..first + chunk.units) |unit| {
                const bit = @as(u64, 1) << @intCast(unit % 64);
                if (marks[unit / 64] & bit != 0) return error.Corrupt;
                marks[unit / 64] |= bit;
            }
        }
    }
}

/// Makes bins and frontier anew from what no stripe owns, neighbours joined, with the pool's lock
/// held. Idempotent: its first stores empty the bins, and it reads nothing it writes.
pub fn rebuild(view: *View, pool: *Pool, marks: []u64) Refusal!void {
    std.debug.assert(pool.writer != 0);
    std.debug.assert(marks.len >= scratchWords(view));
    try markOwned(view, marks);
    for (&pool.bins) |*bin| atomics.store(bin, 0);
    atomics.store(&pool.free, 0);
    atomics.store(&pool.released, 0);
    var gap = view.data_start / unit_bytes;
    var unit = gap;
    const end = view.committed / unit_bytes;
    while (unit < end) : (unit += 1) {
        if (marks[unit / 64] >> @intCast(unit % 64) & 1 == 0) continue;
        if (unit > gap) put(view, pool, gap * unit_bytes, unit - gap);
        gap = unit + 1;
    }
    atomics.store(&pool.frontier, gap * unit_bytes);
}

/// Whether every unit from the first to the frontier is owned by one stripe or lies in one bin, and
/// the pool's count of free bytes is true, with the pool's lock held.
pub fn isSound(view: *View, pool: *Pool, marks: []u64) bool {
    std.debug.assert(pool.writer != 0);
    markOwned(view, marks) catch return false;
    const first = view.data_start / unit_bytes;
    const frontier_offset = atomics.load(&pool.frontier);
    const frontier = frontier_offset / unit_bytes;
    if (frontier_offset % unit_bytes != 0 or frontier < first or
        frontier_offset > view.committed) return false;
    var free: u64 = 0;
    for (&pool.bins) |*bin| {
        var offset = atomics.load(bin);
        while (offset != 0) {
            const extent = checked(view, offset) catch return false;
            if (extent.stripe != null or (extent.end() - 1) / unit_bytes / 64 >= marks.len)
                return false;
            for (offset / unit_bytes..offset / unit_bytes + extent.units) |unit| {
                const bit = @as(u64, 1) << @intCast(unit % 64);
                if (marks[unit / 64] & bit != 0) return false;
                marks[unit / 64] |= bit;
            }
            free += extent.bytes();
            offset = extent.next;
        }
    }
    for (first..frontier) |unit| {
        if (marks[unit / 64] >> @intCast(unit % 64) & 1 == 0) return false;
    }
    for (frontier..view.committed / unit_bytes) |unit| {
        if (marks[unit / 64] >> @intCast(unit % 64) & 1 != 0) return false;
    }
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
