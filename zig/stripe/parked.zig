//! Parked extents: space for one large value each, whose blocks go back to the system.
//!
//! A late reader may look for as long as it likes at what it found once: a slot's entry, its key,
//! the slots of an old table. Its check afterwards refuses what it read, but it must not meet a
//! hole on its way: a load of one takes a page of the file system, and is a signal where that is
//! full. So an extent with holes never was ordinary space, and never becomes it while another
//! handle is attached: it is taken fresh from the end of the segment, used by one large value after
//! another, always as a whole, and *parked* in between: not in the bins, never split, never joined.
//! Headers and keys of all its times lie in its first page, which always has its block; and the
//! value is read by way of the kernel, which takes no page for a hole (`map/read.zig`).
//!
//! The list of parked extents is truth, as the stripes' lists are. On the way between them an
//! extent is in neither; then `Pool.moving` names it, and the pool's rebuild parks it if its mover
//! died. It is never taken for ordinary space. `moving` also names an extent while it gets blocks
//! or loses them: `dense`, how many of its first bytes have blocks for sure, is raised only behind
//! the allocation and lowered before the hole, so a death leaves blocks at most that the word
//! denies, and the rebuild gives those back.
//!
//! All functions here assume the pool's lock, and the pool's writer word set.

const std = @import("std");
const builtin = @import("builtin");
const atomics = @import("../atomics.zig");
const chunks = @import("chunk.zig");
const heap = @import("heap.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const status = @import("../status.zig");

const Checked = chunks.Checked;
const Moving = layout.Moving;
const Pool = layout.Pool;
const Refusal = @import("../segment/view.zig").Refusal;
const View = @import("../segment/view.zig").View;
const checked = chunks.checked;
const page_bytes = layout.page_bytes;
const unit_bytes = layout.unit_bytes;

/// From here on an entry is large: what it takes to make a hole and to fill it again is then little
/// beside what it takes to write it.
const large_bytes_min = 1 << 20;
/// With a longer key its entry's key might not lie in the first page.
pub const key_bytes_max = 2048;

comptime {
    const header_bytes = @sizeOf(layout.Chunk) + @sizeOf(layout.Entry);
    std.debug.assert(header_bytes + key_bytes_max <= page_bytes);
}

/// What parked extents may keep of their blocks, so that a value which is replaced again and again
/// does not give back and take each time. Less than 16 MiB, which a map without large values stays
/// below with what else it has.
const kept_bytes_max = 11 << 20;
/// How much goes back in one call: it takes about 3 ms.
const step_bytes = 16 << 20;
/// How long an extent lies there before its blocks go.
const rest_ms = 1000;

/// What tests and proofs change, in builds that have trials (`atomics.has_trials`).
pub const Trial = struct {
    /// Whether every entry with a chunk of its own is large, and all blocks go back at once. Null:
    /// SHMAP_SMALL_EXTENTS decides.
    small: ?bool = null,
};

pub var trial: if (atomics.has_trials) Trial else void = if (atomics.has_trials) .{} else {};

pub fn areSmall() bool {
    if (!atomics.has_trials) return false;
    if (trial.small) |small| return small;
    trial.small = builtin.os.tag != .windows and std.c.getenv("SHMAP_SMALL_EXTENTS") != null;
    return trial.small.?;
}

fn largeBytesMin() u64 {
    return if (areSmall()) heap.small_bytes_max + 1 else large_bytes_min;
}

fn keptBytesMax() u64 {
    return if (areSmall()) 0 else kept_bytes_max;
}

/// Whether an entry of so many bytes belongs into a parked extent. It may lie elsewhere: in a full
/// segment there may be ordinary space for it alone.
pub inline fn isLarge(entry_bytes: u64, key_len: u64) bool {
    return entry_bytes >= largeBytesMin() and key_len <= key_bytes_max;
}

/// As `isLarge`, of a block alone.
pub inline fn isLargeBlock(bytes: u64) bool {
    return bytes >= largeBytesMin();
}

/// How much of an extent needs blocks for an entry.
pub fn denseFor(entry_bytes: u64) u64 {
    return std.mem.alignForward(u64, @sizeOf(layout.Chunk) + entry_bytes, page_bytes);
}

/// How long a fresh extent is for so many dense bytes: in eighths of the power of two below, so
/// that there are few lengths, for extents are not joined. What is longer is a hole.
pub fn wholeFor(dense: u64) u64 {
    if (!os.has_holes) return dense;
    const eighth = std.math.floorPowerOfTwo(u64, dense) / 8;
    return std.mem.alignForward(u64, dense, @max(eighth, page_bytes));
}

/// Of an extent of which no more is known.
fn leastDense(bytes: u64) u64 {
    return if (os.has_holes) page_bytes else bytes;
}

fn add(word: *u64, bytes: u64) void {
    atomics.store(word, atomics.load(word) +% bytes);
}

fn subtract(word: *u64, bytes: u64) void {
    atomics.store(word, atomics.load(word) -% bytes);
}

/// Walks the list; one that does not end, or leads to what is not parked, is damaged.
pub const Walk = struct {
    view: *View,
    /// The word that led to the extent last given out, and the one that leads to the next.
    link: *u64,
    next_link: *u64,
    left: u64,

    pub fn of(view: *View, pool: *Pool) Walk {
        return .{
            .view = view,
            .link = &pool.parked,
            .next_link = &pool.parked,
            .left = view.committed / unit_bytes,
        };
    }

    pub fn step(walk: *Walk) Refusal!?Checked {
        const offset = atomics.load(walk.next_link);
        if (offset == 0) return null;
        const extent = try checked(walk.view, offset);
        if (extent.stripe != null or extent.dense == null) return error.Corrupt;
        if (extent.units > walk.left) return error.Corrupt;
        walk.left -= extent.units;
        walk.link = walk.next_link;
        walk.next_link = &walk.view.chunk(offset).next;
        return extent;
    }
};

/// A parked extent and the word that leads to it.
pub const Found = struct { extent: Checked, link: *u64 };

/// How many are looked at for one that fits, unless the search is thorough.
const tries_max = 64;

pub const Search = enum { quick, thorough };

/// The shortest extent with room for so many dense bytes that is not more than twice as long.
pub fn find(view: *View, pool: *Pool, dense: u64, search: Search) Refusal!?Found {
    std.debug.assert(pool.writer != 0);
    const wanted = wholeFor(dense);
    var best: ?Found = null;
    var walk: Walk = .of(view, pool);
    var tries: u64 = 0;
    while (try walk.step()) |extent| : (tries += 1) {
        if (search == .quick and tries == tries_max) break;
        const bytes = extent.bytes();
        if (bytes < dense or bytes > 2 * wanted) continue;
        if (best == null or bytes < best.?.extent.bytes())
            best = .{ .extent = extent, .link = walk.link };
        if (bytes <= wanted) break; // none of those that come from here is shorter
    }
    return best;
}

/// Names the extent as the one that is on its way, or whose blocks change.
pub fn beginMove(pool: *Pool, extent: Checked) void {
    std.debug.assert(pool.writer != 0 and pool.moving == Moving.none);
    atomics.storeRelease(&pool.moving, Moving.of(.extent, extent.offset));
}

/// It is where it belongs.
pub fn endMove(pool: *Pool) void {
    std.debug.assert(pool.moving != Moving.none);
    atomics.storeRelease(&pool.moving, Moving.none);
}

/// Notes that a parked extent has blocks for so many bytes now. A crash before it leaves blocks
/// that the rebuild gives back.
pub fn noteDense(view: *View, pool: *Pool, extent: Checked, dense: u64) void {
    std.debug.assert(pool.moving != Moving.none and dense > extent.dense.?);
    atomics.storeRelease(&view.chunk(extent.offset).dense, dense);
    add(&pool.parked_bytes, dense - extent.dense.?);
    subtract(&pool.hole_bytes, dense - extent.dense.?);
}

/// Takes an extent out of the list. A crash behind it leaves it to the rebuild, which parks it.
pub fn unpark(view: *View, pool: *Pool, found: Found) void {
    std.debug.assert(pool.moving != Moving.none);
    const head = view.chunk(found.extent.offset);
    atomics.storeRelease(found.link, atomics.load(&head.next));
    subtract(&pool.parked_bytes, atomics.load(&head.dense));
}

/// Makes an extent that is in no list, and that `pool.moving` names, the first of the list.
pub fn park(view: *View, pool: *Pool, extent: Checked) void {
    std.debug.assert(pool.writer != 0 and pool.moving != Moving.none);
    link(view, pool, extent.offset, extent.units, extent.dense.?);
    add(&pool.parked_bytes, extent.dense.?);
}

fn link(view: *View, pool: *Pool, offset: u64, units: u64, dense: u64) void {
    chunks.describe(view, offset, 0, units, dense);
    const head = view.chunk(offset);
    atomics.store(&head.parked_ms, nowMs());
    atomics.store(&head.next, atomics.load(&pool.parked));
    atomics.storeRelease(&pool.parked, offset);
}

fn nowMs() u64 {
    return os.monotonicNs() / std.time.ns_per_ms;
}

/// How long a handle need not look for blocks to give back, because there are none yet.
pub fn pauseNs() u64 {
    return if (areSmall()) 0 else rest_ms * std.time.ns_per_ms;
}

/// Whether so much lies in parked extents that some of it should go back.
pub inline fn isOverfull(pool: *const Pool) bool {
    return atomics.load(&pool.parked_bytes) > keptBytesMax();
}

/// Which extents give blocks back, and how many bytes at most. `some`: of those that have lain
/// there for a while, no more than parked extents should not keep, and no more than one step.
pub const Amount = enum { some, all };

/// Gives back blocks of parked extents, but never those of a first page. How many bytes.
pub fn punch(view: *View, pool: *Pool, amount: Amount) Refusal!u64 {
    std.debug.assert(pool.writer != 0);
    if (!os.has_holes) return 0;
    const surplus = atomics.load(&pool.parked_bytes) -| keptBytesMax();
    const most: u64 = if (amount == .all) std.math.maxInt(u64) else @min(surplus, step_bytes);
    const now = nowMs();
    var done: u64 = 0;
    var walk: Walk = .of(view, pool);
    while (done < most) {
        const extent = try walk.step() orelse break;
        const dense = extent.dense.?;
        if (dense == page_bytes) continue;
        const lay_ms = now -% atomics.load(&view.chunk(extent.offset).parked_ms);
        if (amount == .some and !areSmall() and lay_ms < rest_ms) continue;
        const room = std.mem.alignBackward(u64, most - done, page_bytes);
        const rest = @max(dense -| @max(room, page_bytes), page_bytes);
        if (!punchTo(view, pool, extent, rest)) break;
        done += dense - rest;
    }
    return done;
}

/// Leaves an extent `rest` dense bytes. First the word, then the hole: a crash between the two
/// leaves blocks that the word denies, and the rebuild gives them back. False: the file system
/// makes no holes, and nothing has changed.
fn punchTo(view: *View, pool: *Pool, extent: Checked, rest: u64) bool {
    beginMove(pool, extent);
    defer endMove(pool);
    const dense = &view.chunk(extent.offset).dense;
    const bytes = extent.dense.? - rest;
    atomics.storeRelease(dense, rest);
    if (!empty(view, extent.offset + rest, extent.end())) {
        atomics.storeRelease(dense, extent.dense.?);
        return false;
    }
    subtract(&pool.parked_bytes, bytes);
    add(&pool.hole_bytes, bytes);
    return true;
}

/// Gives back the blocks of `[from, to)`, where no process may load or store by now. False: the
/// file system makes no holes.
fn empty(view: *View, from: u64, to: u64) bool {
    std.debug.assert(from % page_bytes == 0 and to % page_bytes == 0);
    const mappings = view.mappings orelse return false; // plain memory
    if (from >= to) return true;
    atomics.willBeZeros(view.at(from), (to - from) / 8);
    var fault: status.Fault = .{};
    os.punch(&fault, mappings.file, from, to) catch |err| return err != error.Unsupported;
    return true;
}

/// Gives back what an allocation that failed has allocated behind the dense bytes.
pub fn emptyRest(view: *View, extent: Checked) void {
    _ = empty(view, extent.offset + extent.dense.?, extent.end());
}

/// Which units are owned, parked or free, a bit each, in private memory.
pub const Marks = struct {
    words: []u64,

    pub fn wordsFor(view: *const View) u64 {
        return view.committed / unit_bytes / 64 + 1;
    }

    pub fn has(marks: Marks, unit: u64) bool {
        return marks.words[unit / 64] >> @intCast(unit % 64) & 1 != 0;
    }

    /// Marks the units of an extent. `Corrupt`: another one has some of them.
    pub fn add(marks: Marks, extent: Checked) error{Corrupt}!void {
        var unit = extent.offset / unit_bytes;
        const end = unit + extent.units;
        if ((end - 1) / 64 >= marks.words.len) return error.Corrupt;
        while (unit < end) {
            const count = @min(end - unit, 64 - unit % 64);
            const bits = (~@as(u64, 0) >> @intCast(64 - count)) << @intCast(unit % 64);
            const word = &marks.words[unit / 64];
            if (word.* & bits != 0) return error.Corrupt;
            word.* |= bits;
            unit += count;
        }
    }
};

/// The runs of units that nothing marks, one after the other.
pub const Gaps = struct {
    marks: Marks,
    at: u64,
    end: u64,
    /// Where the last marked unit ends that was met.
    last_end: u64,

    pub const Gap = struct {
        start: u64,
        end: u64,

        pub fn units(gap: Gap) u64 {
            return (gap.end - gap.start) / unit_bytes;
        }
    };

    pub fn of(view: *const View, marks: Marks) Gaps {
        const first = view.data_start / unit_bytes;
        return .{
            .marks = marks,
            .at = first,
            .end = view.committed / unit_bytes,
            .last_end = first * unit_bytes,
        };
    }

    pub fn next(gaps: *Gaps) ?Gap {
        const before = gaps.at;
        gaps.pass(true);
        if (gaps.at > before) gaps.last_end = gaps.at * unit_bytes;
        if (gaps.at == gaps.end) return null;
        const start = gaps.at;
        gaps.pass(false);
        return .{ .start = start * unit_bytes, .end = gaps.at * unit_bytes };
    }

    /// Goes on to the next unit that is marked otherwise.
    fn pass(gaps: *Gaps, marked: bool) void {
        const same: u64 = if (marked) ~@as(u64, 0) else 0;
        while (gaps.at < gaps.end and gaps.marks.has(gaps.at) == marked) {
            const whole = gaps.at % 64 == 0 and gaps.at + 64 <= gaps.end and
                gaps.marks.words[gaps.at / 64] == same;
            gaps.at += if (whole) 64 else 1;
        }
    }
};

const Tally = struct {
    parked: u64 = 0,
    holes: u64,

    fn note(tally: *Tally, extent: Checked) void {
        tally.parked += extent.dense.?;
        tally.holes += extent.holeBytes();
    }
};

fn markParked(view: *View, pool: *Pool, marks: Marks, tally: *Tally) Refusal!void {
    var walk: Walk = .of(view, pool);
    while (try walk.step()) |extent| {
        try marks.add(extent);
        tally.note(extent);
    }
}

/// A part of the pool's rebuild: marks the parked extents, among them one that was on its way, and
/// makes their counters anew. `owned_holes`: of the stripes' chunks, which are marked already. No
/// process that is alive looks at what is unowned and on its way, but for late readers (above).
pub fn settle(view: *View, pool: *Pool, marks: Marks, owned_holes: u64) Refusal!void {
    std.debug.assert(pool.writer != 0);
    const word = atomics.load(&pool.moving);
    const moving: Moving = @bitCast(word);
    var tally: Tally = .{ .holes = owned_holes };
    if (word == Moving.of(.all, 0)) {
        try parkAll(view, pool, marks, &tally);
    } else {
        try markParked(view, pool, marks, &tally);
        const offset = @as(u64, moving.page) *| page_bytes;
        // What is behind the end came to nothing; any other word is damage, and names nothing.
        const is_inside = offset >= view.data_start and offset < view.committed;
        if (is_inside and (moving.kind == .extent or moving.kind == .fresh))
            settleOne(view, pool, marks, offset, moving.kind == .fresh, &tally);
    }
    atomics.store(&pool.parked_bytes, tally.parked);
    atomics.store(&pool.hole_bytes, tally.holes);
    if (word != Moving.none) atomics.storeRelease(&pool.moving, Moving.none);
}

/// A crash here leaves the same to do: an extent in no list, or one in the list with blocks that
/// its header denies. Where only damage leads there is no such extent, and nothing is done.
fn settleOne(
    view: *View,
    pool: *Pool,
    marks: Marks,
    offset: u64,
    is_fresh: bool,
    tally: *Tally,
) void {
    if (!marks.has(offset / unit_bytes)) {
        // In no list. A fresh one reaches to the end, and may have no header yet.
        if (is_fresh) {
            for (offset / unit_bytes..view.committed / unit_bytes) |unit|
                if (marks.has(unit)) return;
            const bytes = view.committed - offset;
            chunks.describe(view, offset, 0, bytes / unit_bytes, leastDense(bytes));
        }
        const extent = checked(view, offset) catch return;
        const dense = extent.dense orelse return;
        marks.add(extent) catch return;
        link(view, pool, offset, extent.units, dense);
        tally.note(extent);
    }
    const extent = checked(view, offset) catch return;
    if (extent.stripe == null and extent.dense != null) emptyRest(view, extent);
}

/// Parks all that no stripe owns and that is long enough, as no other handle is attached, or was
/// when `Moving.all` was stored. What is parked already begins and ends with a page, and so lies in
/// one of the extents that come about.
fn parkAll(view: *View, pool: *Pool, marks: Marks, tally: *Tally) Refusal!void {
    atomics.store(&pool.parked, 0);
    var gaps: Gaps = .of(view, marks);
    while (gaps.next()) |gap| {
        const start = std.mem.alignForward(u64, gap.start, page_bytes);
        const end = std.mem.alignBackward(u64, gap.end, page_bytes);
        if (end -| start < largeBytesMin()) continue;
        const bytes = end - start;
        link(view, pool, start, bytes / unit_bytes, leastDense(bytes));
        if (!empty(view, start + page_bytes, end))
            atomics.storeRelease(&view.chunk(start).dense, bytes);
        const extent = try checked(view, start);
        try marks.add(extent);
        tally.note(extent);
    }
}

/// Whether the list is whole, overlaps nothing marked, and its counters are true; marks it.
pub fn areSound(view: *View, pool: *Pool, marks: Marks, owned_holes: u64) bool {
    if (atomics.load(&pool.moving) != Moving.none) return false;
    var tally: Tally = .{ .holes = owned_holes };
    markParked(view, pool, marks, &tally) catch return false;
    return tally.parked == atomics.load(&pool.parked_bytes) and
        tally.holes == atomics.load(&pool.hole_bytes);
}

test wholeFor {
    const mib = 1 << 20;
    if (!os.has_holes) return error.SkipZigTest;
    try std.testing.expectEqual(@as(u64, mib), wholeFor(mib));
    try std.testing.expectEqual(@as(u64, mib + mib / 8), wholeFor(mib + page_bytes));
    try std.testing.expectEqual(@as(u64, 5 * mib), wholeFor(4 * mib + mib / 2 + page_bytes));
    try std.testing.expectEqual(@as(u64, 3 * page_bytes), wholeFor(3 * page_bytes));
}

test Marks {
    var words: [4]u64 = @splat(0);
    const marks: Marks = .{ .words = &words };
    var extent: Checked = undefined;
    for ([_][2]u64{ .{ 3, 1 }, .{ 4, 60 }, .{ 64, 64 }, .{ 130, 70 } }) |range| {
        extent.offset = range[0] * unit_bytes;
        extent.units = range[1];
        try marks.add(extent);
        try std.testing.expectError(error.Corrupt, marks.add(extent));
    }
    for (0..256) |unit| {
        const is_marked = unit >= 3 and unit < 128 or unit >= 130 and unit < 200;
        try std.testing.expectEqual(is_marked, marks.has(unit));
    }
    var gaps: Gaps = .{ .marks = marks, .at = 1, .end = 256, .last_end = 0 };
    const expected = [_][2]u64{ .{ 1, 3 }, .{ 128, 130 }, .{ 200, 256 } };
    for (expected) |range| {
        const gap = gaps.next().?;
        try std.testing.expectEqual(range[0] * unit_bytes, gap.start);
        try std.testing.expectEqual(range[1] * unit_bytes, gap.end);
    }
    try std.testing.expectEqual(@as(?Gaps.Gap, null), gaps.next());
    try std.testing.expectEqual(@as(u64, 200 * unit_bytes), gaps.last_end);
    extent.offset = 250 * unit_bytes;
    extent.units = 20;
    try std.testing.expectError(error.Corrupt, marks.add(extent));
}
