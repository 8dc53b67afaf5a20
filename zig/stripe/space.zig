//! Where blocks come from and where they go: the stripe's own heap first, then a chunk from the
//! pool, then growth of the segment; and back when nothing can see them any more.
//!
//! The caller holds the stripe's lock, has set its writer word, and at each call here holds no
//! block that the table does not reach. So a rebuild may happen inside any allocation, and a crash
//! anywhere leaves work for recovery only. Lock order: stripe, then pool.

const std = @import("std");
const layout = @import("../layout.zig");
const atomics = @import("../atomics.zig");
const chunks = @import("chunk.zig");
const hash = @import("hash.zig");
const heap = @import("heap.zig");
const os = @import("../os/os.zig");
const parked = @import("parked.zig");
const pools = @import("pool.zig");
const recovery = @import("recovery.zig");
const status = @import("../status.zig");
const Segment = @import("../segment/segment.zig").Segment;

const Error = status.Error;
const Pool = layout.Pool;
const unit_bytes = layout.unit_bytes;

const chunk_bytes_min = 2 * unit_bytes;
const chunk_bytes_max = 64 * unit_bytes;
/// From here on a walk over all chunks takes more than a millisecond.
const large_bytes = 64 << 20;
/// A stripe smaller than this is not worth a pass to give chunks back.
pub const trim_bytes_min = 16 * unit_bytes;

/// Space for one stripe of one segment.
pub const Space = struct {
    segment: *Segment,
    secrets: *const hash.Secrets,
    index: u32,
    /// The one of that index.
    stripe: *layout.Stripe,

    pub inline fn of(segment: *Segment, secrets: *const hash.Secrets, index: u32) Space {
        return .{
            .segment = segment,
            .secrets = secrets,
            .index = index,
            .stripe = segment.stripe(index),
        };
    }

    /// The offset of a block for an entry of `bytes` bytes, contents undefined. `NoSpace`: nothing
    /// changed.
    pub inline fn alloc(space: Space, bytes: u64, key_len: usize) Error!u64 {
        if (heap.isSmall(bytes)) {
            if (try heap.take(&space.segment.view, space.stripe, bytes)) |offset| return offset;
            return space.allocSlow(bytes);
        }
        return space.allocChunk(bytes, key_len);
    }

    /// As `alloc`, for a table: readers look at all of it, so it lies in ordinary space.
    pub fn allocTable(space: Space, bytes: u64) Error!u64 {
        if (heap.isSmall(bytes)) {
            if (try heap.take(&space.segment.view, space.stripe, bytes)) |offset| return offset;
        }
        return space.allocSlow(bytes);
    }

    noinline fn allocChunk(space: Space, bytes: u64, key_len: usize) Error!u64 {
        if (!parked.isLarge(bytes, key_len)) return space.allocSlow(bytes);
        std.debug.assert(space.stripe.writer != 0);
        if (space.claimParked(bytes, .quick)) |chunk| return chunk.start() else |err| {
            if (err != error.NoSpace) return err;
        }
        // What is retired is parked, what is parked gives its blocks back, and where that is not
        // enough, there may be ordinary space.
        if (space.holdsReusable()) try space.freeRetired();
        try giveBackParked(space.segment);
        if (space.claimParked(bytes, .thorough)) |chunk| return chunk.start() else |err| {
            if (err != error.NoSpace) return err;
        }
        return space.allocSlow(bytes);
    }

    /// A parked extent, or a fresh one, with blocks for an entry.
    fn claimParked(space: Space, bytes: u64, search: parked.Search) Error!chunks.Checked {
        const segment = space.segment;
        const dense = parked.denseFor(bytes);
        segment.noteSpace(dense);
        if (dense > segment.block_limit) // no place is long enough, and `bytes` fit none at all
            return segment.fault.withReason(.ceilingReached, error.NoSpace);
        const pool = try lockPool(segment);
        defer unlockPool(segment);
        return space.claimParkedLocked(pool, dense, search);
    }

    fn claimParkedLocked(
        space: Space,
        pool: *Pool,
        dense: u64,
        search: parked.Search,
    ) Error!chunks.Checked {
        const segment = space.segment;
        const view = &segment.view;
        // From the first store on nothing may fail but for want of space.
        pools.checkHead(view, space.index) catch |err| return segment.refused(.chunksDamaged, err);
        const any = parked.find(view, pool, dense, search) catch |err|
            return segment.refused(.chunksDamaged, err);
        const found = any orelse {
            pools.checkFrontier(view, pool) catch |err|
                return segment.refused(.chunksDamaged, err);
            const whole = parked.wholeFor(dense);
            const offset = try segment.growWithHole(dense, whole);
            pools.closeFrontier(view, pool, offset);
            return pools.claimMoving(view, pool, space.index, offset, whole / unit_bytes, dense);
        };
        const extent = found.extent;
        const had = extent.dense.?;
        parked.beginMove(pool, extent);
        if (had < dense) {
            segment.fillHole(extent.offset + had, extent.offset + dense) catch |err| {
                parked.emptyRest(view, extent);
                parked.endMove(pool);
                return err;
            };
            parked.noteDense(view, pool, extent, dense);
        }
        parked.unpark(view, pool, found);
        const units = extent.units;
        return pools.claimMoving(view, pool, space.index, extent.offset, units, @max(had, dense));
    }

    fn allocSlow(space: Space, bytes: u64) Error!u64 {
        std.debug.assert(space.stripe.writer != 0);
        if (heap.isSmall(bytes)) {
            // First together, then apart: pieces cut before they are joined stay crumbs.
            if (heap.worthRebuilding(space.stripe)) try space.rebuild();
            if (try space.takeLocal(bytes)) |offset| return offset;
        }
        if (space.claimFor(bytes, space.chunkBytes())) |offset| return offset else |err| {
            if (err != error.NoSpace) return err;
        }
        // Before giving up: what is retired comes back after two generations, free pieces are
        // brought together if enough was freed since the last time, and a chunk of the least size
        // may still fit. So a full segment refuses, and replaces, without long searches.
        if (space.holdsReusable()) {
            try space.freeRetired();
            if (heap.isSmall(bytes)) {
                if (try space.takeLocal(bytes)) |offset| return offset;
            }
        }
        if (space.holdsReusable()) {
            try space.rebuild();
            if (heap.isSmall(bytes)) {
                if (try space.takeLocal(bytes)) |offset| return offset;
            }
        }
        return space.claimFor(bytes, 0);
    }

    /// Sees to a block kept back for replacing an entry as large as this one. A new key is stored
    /// only beside one, so that a full segment refuses new keys but goes on replacing values.
    pub inline fn keepSpare(space: Space, bytes: u64) Error!void {
        if (!heap.isSmall(bytes) or heap.hasSpare(space.stripe, bytes)) return;
        const view = &space.segment.view;
        const offset = try space.alloc(bytes, 0);
        heap.keepSpare(view, space.stripe, offset, bytes) catch |err| {
            if (err == error.NoSpace) heap.give(view, space.stripe, offset, heap.blockBytes(bytes));
            return err;
        };
    }

    /// As `alloc`, for a value that replaces another: at the ceiling the spare block is used, and
    /// after that the block which the replacement before this one retired.
    pub inline fn allocReplacing(space: Space, bytes: u64, key_len: usize) Error!u64 {
        return space.alloc(bytes, key_len) catch |err| {
            if (err != error.NoSpace or !heap.isSmall(bytes)) return err;
            return space.allocSpare(bytes);
        };
    }

    fn allocSpare(space: Space, bytes: u64) Error!u64 {
        if (heap.hasSpare(space.stripe, bytes)) {
            try heap.giveSpare(&space.segment.view, space.stripe);
        } else try space.freeRetired();
        return try space.takeLocal(bytes) orelse error.NoSpace;
    }

    fn takeLocal(space: Space, bytes: u64) Error!?u64 {
        const view = &space.segment.view;
        if (try heap.take(view, space.stripe, bytes)) |offset| return offset;
        return try heap.takeLarger(view, space.stripe, bytes);
    }

    /// A chunk as large as a sixteenth to an eighth of what the stripe has, so that the unused rest
    /// stays small beside the entries.
    fn chunkBytes(space: Space) u64 {
        const eighth = atomics.load(&space.stripe.owned) / 8;
        if (eighth <= chunk_bytes_min) return chunk_bytes_min;
        return @min(std.math.floorPowerOfTwo(u64, eighth), chunk_bytes_max);
    }

    fn claimFor(space: Space, bytes: u64, chunk_bytes: u64) Error!u64 {
        const view = &space.segment.view;
        if (!heap.isSmall(bytes)) return (try space.claim(chunks.unitsFor(bytes))).start();
        const least = chunks.unitsFor(heap.blockBytes(bytes));
        const chunk = try space.claim(@max(least, chunk_bytes / unit_bytes));
        // All is mapped since the pool's lock was taken; only damage leads elsewhere.
        heap.adoptRest(view, space.stripe, chunk.start(), chunk.end()) catch
            return error.Unmapped;
        return try heap.take(view, space.stripe, bytes) orelse error.Corrupt;
    }

    fn claim(space: Space, units: u64) Error!chunks.Checked {
        const segment = space.segment;
        const view = &segment.view;
        segment.noteSpace(units * unit_bytes);
        if (units * unit_bytes > segment.block_limit -| view.data_start)
            return segment.fault.withReason(.ceilingReached, error.NoSpace);
        const pool = try lockPool(segment);
        defer unlockPool(segment);
        // Joining neighbours costs a walk over all chunks, which what was released since shares.
        // In a large segment the walk is a pause, so more must lie there. It comes before anything
        // is cut, so that new chunks lie side by side.
        const share: u64 = if (view.committed < large_bytes) 8 else 4;
        if (atomics.load(&pool.released) > view.committed / share) try rebuildPool(segment, pool);
        if (try pools.claim(view, pool, space.index, units, .quick)) |chunk| return chunk;
        const room = view.committed -| atomics.load(&pool.frontier);
        growOrPunch(segment, pool, units * unit_bytes -| room) catch |err| {
            if (err != error.NoSpace or atomics.load(&pool.released) == 0) return err;
            try rebuildPool(segment, pool);
            return try pools.claim(view, pool, space.index, units, .thorough) orelse err;
        };
        return try pools.claim(view, pool, space.index, units, .quick) orelse error.Corrupt;
    }

    /// Notes that nothing names this block any more: the commit that replaced it has happened.
    pub inline fn retire(space: Space, offset: u64, bytes: u64) Error!void {
        if (heap.retire(space.stripe, offset, bytes)) try space.advanceAndTrim(bytes);
    }

    /// As `retire`, for a block as large as many: the generation advances twice at once, or its
    /// memory would stay in limbo until as much again is retired. A reader that is in the stripe
    /// just now reads again.
    pub fn retireAtOnce(space: Space, offset: u64, bytes: u64) Error!void {
        _ = heap.retire(space.stripe, offset, bytes);
        try space.freeRetired();
    }

    /// Advances the generation, as the limbo list became full with a block of so many bytes; a
    /// stripe of which most is free then gives back what it can.
    pub fn advanceAndTrim(space: Space, bytes: u64) Error!void {
        try space.advance();
        // A large value is parked now, not when another one follows in this stripe.
        if (parked.isLargeBlock(bytes)) try space.advance();
        const s = space.stripe;
        const owned = atomics.load(&s.owned);
        if (owned >= trim_bytes_min and atomics.load(&s.free) >= owned / 4 * 3 and
            heap.worthRebuilding(s)) try space.rebuild();
    }

    fn advance(space: Space) Error!void {
        var large: heap.Large = undefined;
        try heap.advance(&space.segment.view, space.stripe, &large);
        if (large.count > 0) try space.giveBack(large.slice());
    }

    /// Brings all that is retired to the free lists.
    fn freeRetired(space: Space) Error!void {
        try space.advance();
        try space.advance();
        try heap.giveReclaimable(&space.segment.view, space.stripe);
    }

    /// The chunks are in no list by now, so what fails here leaves something half done.
    fn giveBack(space: Space, offsets: []const u64) Error!void {
        const pool = lockPool(space.segment) catch |err|
            return if (err == error.NoSpace) error.Unmapped else err;
        defer unlockPool(space.segment);
        for (offsets) |offset|
            try pools.release(&space.segment.view, pool, space.index, offset);
    }

    /// Recovery, and the bringing together of what is free; chunks with nothing in them go back to
    /// the pool. Cost: one pass over the table and the stripe's entries.
    pub fn rebuild(space: Space) Error!void {
        const segment = space.segment;
        const scratch_bytes = recovery.Marks.scratchBytes(&segment.view, space.index) catch |err|
            return segment.refused(.chunksDamaged, err);
        const scratch = try os.pages(segment.fault, scratch_bytes);
        defer os.freePages(scratch);
        const now_ms = os.endClockMs();
        const result =
            recovery.rebuild(&segment.view, space.secrets, space.index, scratch, now_ms) catch |err|
                return segment.refused(.tableDamaged, err);
        if (result.vacant.len > 0) try space.giveBack(result.vacant);
    }

    /// As the holder of the stripe's lock after its writer died, or as the only writer attached:
    /// rebuilds what is derived.
    pub fn recover(space: Space) Error!void {
        const stripe = space.stripe;
        atomics.storeRelease(&stripe.writer, space.segment.writer_id);
        // Both counts move, so that a snapshot that began before does not mistake what it copied
        // for the present.
        const count = @max(atomics.load(&stripe.begin), atomics.load(&stripe.end)) +% 1;
        atomics.storeRelease(&stripe.begin, count);
        atomics.storeFence();
        try space.rebuild();
        atomics.store(&stripe.recoveries, atomics.load(&stripe.recoveries) +% 1);
        recovery.endWriting(stripe, count);
    }

    /// Whether a pass over the stripe could find enough to be worth it: a sixteenth of what it has
    /// was freed, or retired, since the last one.
    pub fn holdsReusable(space: Space) bool {
        const s = space.stripe;
        const retired = heap.retiredBytes(s);
        return atomics.load(&s.freed) +| retired >= @max(unit_bytes, atomics.load(&s.owned) / 16);
    }
};

/// As `Segment.grow`; where there is no room, parked extents give back their blocks first.
fn growOrPunch(segment: *Segment, pool: *Pool, bytes: u64) Error!void {
    segment.grow(bytes) catch |err| {
        if (err != error.NoSpace or try punch(segment, pool, .all) == 0) return err;
        try segment.grow(bytes);
    };
}

/// Has parked extents give back blocks. How many bytes.
pub fn punch(segment: *Segment, pool: *Pool, amount: parked.Amount) Error!u64 {
    return parked.punch(&segment.view, pool, amount) catch |err|
        segment.refused(.chunksDamaged, err);
}

/// The same in passing, for a caller that was here for something else: a step, if there is more
/// than parked extents should keep. A handle that finds nothing to give back pauses.
fn punchSome(segment: *Segment, pool: *Pool) void {
    if (!parked.isOverfull(pool)) return;
    // After damage, or a failure half way, the next rebuild comes first.
    if (atomics.load(&pool.moving) != layout.Moving.none) return;
    const now = os.monotonicNs();
    if (now < segment.punch_due_ns) return;
    // What is damaged is reported to those who need it.
    const bytes = parked.punch(&segment.view, pool, .some) catch 0;
    if (bytes == 0) segment.punch_due_ns = now + parked.pauseNs();
}

/// What must happen now and then, also where no process stores anything: blocks of values that are
/// gone go back to the system, a step at a time. Takes no lock where there is nothing to do. True:
/// there may be more.
pub fn upkeep(segment: *Segment) Error!bool {
    const pool = &segment.header().pool;
    if (segment.readonly or !parked.isOverfull(pool)) return false;
    _ = try lockPool(segment);
    unlockPool(segment);
    return parked.isOverfull(pool);
}

/// What is free must be so much, and a quarter of all blocks, before a handle that comes or goes
/// looks through the segment to give it back.
const worth_bytes_min = 4 << 20;

/// Whether so much lies free in the pool that giving it back is worth a walk.
fn isWorthGivingBack(segment: *const Segment) bool {
    const pool = &segment.header().pool;
    const unused = segment.view.committed -| atomics.load(&pool.frontier);
    const free = atomics.load(&pool.free) +| atomics.load(&pool.parked_bytes) +| unused;
    return free > worth_bytes_min and free > segment.blockBytes() / 4;
}

/// Gives back what can be by a writer that leaves, if it is the last handle. What fails here is
/// done by the next one.
pub fn giveBackLeaving(segment: *Segment) void {
    if (segment.readonly or segment.state() != .live or segment.name_len == 0) return;
    if (segment.unnamed != null or !isWorthGivingBack(segment)) return;
    if (!(segment.becomeAlone() catch return)) return;
    defer segment.endAlone();
    giveBackAlone(segment) catch {};
}

/// The same for a writer that attaches and is the first handle.
pub fn giveBackAttaching(segment: *Segment) void {
    if (!isWorthGivingBack(segment) or !segment.isAloneAtAttach()) return;
    giveBackAlone(segment) catch {};
}

/// Gives back all that no stripe owns, which only the one handle attached may do: what was ordinary
/// space becomes parked extents, neighbours are joined, and what lies behind all chunks is cut off.
/// A crash leaves `Moving.all`, by which the next holder of the pool's lock does it again.
pub fn giveBackAlone(segment: *Segment) Error!void {
    const pool = try lockPool(segment);
    // Before anything is given up, all lists are walked.
    rebuildPool(segment, pool) catch |err| {
        unlockPool(segment);
        return err;
    };
    const end = pools.ownedEnd(&segment.view) catch |err| {
        unlockPool(segment);
        return segment.refused(.chunksDamaged, err);
    };
    atomics.storeRelease(&pool.moving, layout.Moving.of(.all, 0));
    atomics.store(&pool.frontier, end); // or the next sole writer would not cut the file
    segment.shrink(std.mem.alignForward(u64, end, layout.page_bytes));
    // After an error the mark stays, for the next holder to rebuild.
    rebuildPool(segment, pool) catch |err| {
        segment.poolLock().unlock();
        return err;
    };
    unlockPool(segment);
}

/// Has all parked extents give back their blocks, while others are attached.
pub fn giveBackParked(segment: *Segment) Error!void {
    const pool = try lockPool(segment);
    defer unlockPool(segment);
    _ = try punch(segment, pool, .all);
}

/// Takes the pool's lock; what a dead owner left is rebuilt first. The view's `committed` is up to
/// date then.
pub fn lockPool(segment: *Segment) Error!*Pool {
    const was_marked = try markPool(segment);
    const pool = &segment.header().pool;
    // A word that names an extent on its way, without a writer, is damage.
    if (was_marked or atomics.load(&pool.moving) != layout.Moving.none) {
        errdefer segment.poolLock().unlock(); // the mark stays
        try rebuildPool(segment, pool);
    }
    return pool;
}

/// Takes the pool's lock and sets its mark. True: it was set, so what is derived is to be rebuilt.
fn markPool(segment: *Segment) Error!bool {
    const pool = &segment.header().pool;
    const lock = segment.poolLock();
    const locked = lock.lock(segment.fault, &segment.deadline) catch |err| {
        if (err == error.Timeout)
            segment.fault.holder_pid = @floatFromInt(atomics.load(&pool.writer) >> 32);
        return err;
    };
    errdefer lock.unlock();
    // The pool's words are rebuilt, or stay marked: either way the mutex itself is usable again.
    if (locked == .owner_died) {
        lock.makeConsistent();
        if (atomics.load(&pool.writer) == 0) atomics.store(&pool.writer, segment.writer_id);
    }
    try segment.refresh();
    const was_marked = atomics.load(&pool.writer) != 0;
    atomics.storeRelease(&pool.writer, segment.writer_id);
    return was_marked;
}

/// Gives the pool's lock back. On the way some of what is parked goes back to the system.
pub fn unlockPool(segment: *Segment) void {
    punchSome(segment, &segment.header().pool);
    atomics.storeRelease(&segment.header().pool.writer, 0);
    segment.poolLock().unlock();
}

/// Brings what the stripes gave back together, so that what comes next is not cut from the middle.
/// What cannot be done now waits for the next allocation.
pub fn coalescePool(segment: *Segment) void {
    const pool = lockPool(segment) catch return;
    defer unlockPool(segment);
    rebuildPool(segment, pool) catch {};
}

/// Makes what is derived of the pool anew. Where the list of parked extents is damaged, what no
/// stripe owns is parked: it may have holes.
pub fn repairPool(segment: *Segment) Error!void {
    const was_marked = try markPool(segment);
    errdefer if (was_marked) segment.poolLock().unlock() else unlockPool(segment);
    const pool = &segment.header().pool;
    rebuildPool(segment, pool) catch |err| {
        if (err != error.Corrupt) return err;
        const moving = atomics.load(&pool.moving);
        atomics.storeRelease(&pool.moving, layout.Moving.of(.all, 0));
        rebuildPool(segment, pool) catch |again| {
            // It is the stripes' lists that are damaged.
            atomics.storeRelease(&pool.moving, moving);
            return again;
        };
    };
    unlockPool(segment);
}

/// Makes what is derived of the pool anew, with its lock held.
pub fn rebuildPool(segment: *Segment, pool: *Pool) Error!void {
    std.debug.assert(pool.writer != 0);
    const view = &segment.view;
    const scratch_words = pools.scratchWords(view);
    const scratch = try os.pages(segment.fault, scratch_words * 8);
    defer os.freePages(scratch);
    const marks: [*]u64 = @ptrCast(scratch.ptr);
    pools.rebuild(view, pool, marks[0..scratch_words]) catch |err|
        return segment.refused(.chunksDamaged, err);
}
