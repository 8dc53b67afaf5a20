//! Rebuilding what is derived in a stripe from what is true: its table, the entries the table
//! reaches, and its list of chunks. After an owner's death, when a writer word is found set, and
//! when enough lies free in ranges that bringing it together pays.
//!
//! The caller holds the stripe's lock and has set the writer word, which is asserted; private
//! memory comes from the caller too. Nothing here needs more than one pass, and a crash anywhere
//! inside is harmless: a rebuild reads only the truth, and the next one starts from the beginning.
//!
//! A process that has no address space left for a chunk of the stripe drops nothing: the walk over
//! the chunks comes before the first store and fails with `NoSpace`. Once it has passed, all that
//! the stripe owns can be reached, so a slot that leads elsewhere is damage.

const std = @import("std");
const layout = @import("../layout.zig");
const atomics = @import("../atomics.zig");
const entries = @import("entry.zig");
const hash = @import("hash.zig");
const tables = @import("table.zig");
const ends = @import("ends.zig");
const heap = @import("heap.zig");
const parked = @import("parked.zig");
const pool = @import("pool.zig");

const Refusal = @import("../segment/view.zig").Refusal;
const View = @import("../segment/view.zig").View;
const Stripe = layout.Stripe;
const Slot = layout.Slot;
const granule_bytes = layout.granule_bytes;

/// Marks a stripe as being written to: a crash from here on leaves the mark, and the next holder of
/// the stripe's lock recovers. Returns the new begin count.
pub inline fn beginWriting(stripe: *Stripe, writer_id: u64) u64 {
    const count = atomics.load(&stripe.begin) +% 1;
    atomics.store(&stripe.writer, writer_id);
    atomics.store(&stripe.begin, count);
    atomics.storeFence(); // a snapshot that sees a store of ours sees `begin` moved
    return count;
}

/// Takes the mark away again; a crash between the two stores makes the next holder recover.
pub inline fn endWriting(stripe: *Stripe, count: u64) void {
    std.debug.assert(stripe.writer != 0);
    atomics.storeRelease(&stripe.end, count);
    atomics.storeRelease(&stripe.writer, 0);
}

/// A chunk's usable bytes, where its bits begin in the marks, and whether it parks.
const ChunkRange = struct { start: u64, end: u64, first_bit: u64, parks: bool };

/// Which granules of a stripe's chunks are in use, in private memory.
pub const Marks = struct {
    ranges: []ChunkRange,
    bits: []u64,

    /// How much private memory the marks of this stripe take, in bytes.
    pub fn scratchBytes(view: *View, index: u32) Refusal!u64 {
        var walk = pool.Walk.of(view, index);
        var count: u64 = 0;
        var units: u64 = 0;
        while (try walk.step()) |chunk| {
            count += 1;
            units += chunk.units;
        }
        const granules = units * (layout.unit_bytes / granule_bytes);
        return count * @sizeOf(ChunkRange) + (granules / 64 + 1) * 8;
    }

    /// Nothing marked. `scratch` is zeroed and as long as `scratchBytes` said.
    pub fn of(view: *View, index: u32, scratch: []align(8) u8) Refusal!Marks {
        const ranges: [*]ChunkRange = @ptrCast(scratch.ptr);
        var walk = pool.Walk.of(view, index);
        var count: usize = 0;
        while (try walk.step()) |chunk| : (count += 1) {
            if ((count + 1) * @sizeOf(ChunkRange) > scratch.len) return error.Corrupt;
            ranges[count] = .{
                .start = chunk.start(),
                .end = chunk.end(),
                .first_bit = 0,
                .parks = chunk.dense != null,
            };
        }
        std.sort.pdq(ChunkRange, ranges[0..count], {}, struct {
            fn before(_: void, a: ChunkRange, b: ChunkRange) bool {
                return a.start < b.start;
            }
        }.before);
        var bit: u64 = 0;
        for (ranges[0..count]) |*range| {
            range.first_bit = bit;
            bit += (range.end - range.start) / granule_bytes;
        }
        const rest: [*]u64 = @ptrCast(@alignCast(scratch.ptr + count * @sizeOf(ChunkRange)));
        const bits = rest[0 .. bit / 64 + 1];
        if (count * @sizeOf(ChunkRange) + bits.len * 8 > scratch.len) return error.Corrupt;
        return .{ .ranges = ranges[0..count], .bits = bits };
    }

    fn rangeOf(marks: *const Marks, offset: u64) ?*const ChunkRange {
        var low: usize = 0;
        var high = marks.ranges.len;
        while (low < high) {
            const middle = (low + high) / 2;
            if (marks.ranges[middle].end <= offset) low = middle + 1 else high = middle;
        }
        if (low == marks.ranges.len or marks.ranges[low].start > offset) return null;
        return &marks.ranges[low];
    }

    fn has(marks: *const Marks, bit: u64) bool {
        return marks.bits[bit / 64] >> @intCast(bit % 64) & 1 != 0;
    }

    /// Marks a block that is no large entry. False: it lies outside the chunks or over another, or
    /// in an extent that parks, where there may be a hole in its place one day.
    pub fn add(marks: *Marks, offset: u64, bytes: u64) bool {
        return marks.addAs(offset, bytes, false);
    }

    /// As `add`, for an entry; a large one may lie in an extent that parks.
    pub fn addEntry(marks: *Marks, entry: entries.EntryView) bool {
        const is_large = parked.isLarge(entry.bytes(), entry.sizes.key_len);
        return marks.addAs(entry.offset, entry.bytes(), is_large);
    }

    /// As `add`; a block that `is_large` may lie in an extent that parks.
    pub fn addAs(marks: *Marks, offset: u64, bytes: u64, is_large: bool) bool {
        const range = marks.rangeOf(offset) orelse return false;
        if (range.parks and !is_large) return false;
        if (bytes == 0 or bytes > range.end - offset) return false;
        const large = !heap.isSmall(bytes);
        if (large and offset != range.start) return false;
        // A large block has its chunk for itself, slack included.
        const end = if (large) range.end else offset + heap.blockBytes(bytes);
        if (end > range.end) return false;
        const first = range.first_bit + (offset - range.start) / granule_bytes;
        const last = range.first_bit + (end - range.start) / granule_bytes;
        for (first..last) |bit| if (marks.has(bit)) return false;
        for (first..last) |bit| marks.bits[bit / 64] |= @as(u64, 1) << @intCast(bit % 64);
        return true;
    }

    /// Calls `each(context, range, from, to)` for every run of unmarked bytes.
    pub fn gaps(marks: *const Marks, context: anytype, comptime each: anytype) void {
        for (marks.ranges) |*range| {
            const count = (range.end - range.start) / granule_bytes;
            var i: u64 = 0;
            while (i < count) {
                if (marks.has(range.first_bit + i)) {
                    i += 1;
                    continue;
                }
                const from = i;
                while (i < count and !marks.has(range.first_bit + i)) {
                    // Whole words of free granules, as large chunks have them.
                    const bit = range.first_bit + i;
                    const whole = bit % 64 == 0 and i + 64 <= count and marks.bits[bit / 64] == 0;
                    i += if (whole) 64 else 1;
                }
                const start = range.start + from * granule_bytes;
                each(context, range, start, range.start + i * granule_bytes);
            }
        }
    }
};

/// What a rebuild found.
pub const Rebuilt = struct {
    live: u64 = 0,
    tombstones: u64 = 0,
    dropped: u64 = 0,
    /// Entries left that have an end, the least of these ends, and how many were removed because
    /// theirs had passed.
    expiring: u64 = 0,
    next_end: u64 = ends.latest,
    expired: u64 = 0,
    /// Chunks nothing is in, for the caller to give back to the pool: offsets, in the scratch.
    vacant: []u64 = &.{},
};

/// How long ago an entry must have ended for a rebuild to remove it: a clock that was set back must
/// not lose what others still see.
const over_ms = 10_000;

fn endedLongAgo(entry: entries.EntryView, now_ms: u64) bool {
    const until = entry.keptUntil();
    return until != 0 and until +| over_ms <= now_ms;
}

/// Counts an entry among those that end, if it does.
fn countEnd(result: *Rebuilt, entry: entries.EntryView) void {
    const until = entry.keptUntil();
    if (until == 0) return;
    result.expiring += 1;
    result.next_end = @min(result.next_end, until);
}

/// The entry of a slot, if it is whole and belongs here.
fn soundEntry(
    view: *View,
    secrets: *const hash.Secrets,
    index: u32,
    table: tables.Table,
    word: u64,
) ?entries.EntryView {
    const entry = entries.ofSlot(view, word) catch return null;
    const fast = hash.fast(secrets, entry.key());
    if (hash.stripeOf(fast, view.stripe_bits) != index) return null;
    const chosen = if (table.sip) hash.sip(secrets, entry.key()) else fast;
    if (@as(Slot, @bitCast(word)).tag != hash.tagOf(chosen)) return null;
    return entry;
}

/// Rebuilds counters, lists and bump; slots that name nothing sound become tombstones and count as
/// dropped. Two generations pass, so retired blocks are free as well. `Corrupt`: the table word or
/// the list of chunks is damaged; `NoSpace`: this process cannot reach all of them. Then nothing
/// is changed. Entries that ended long before `now_ms` become tombstones as well.
pub fn rebuild(
    view: *View,
    secrets: *const hash.Secrets,
    index: u32,
    scratch: []align(8) u8,
    now_ms: u64,
) Refusal!Rebuilt {
    const stripe = view.stripe(index);
    std.debug.assert(stripe.writer != 0);
    var marks = try Marks.of(view, index, scratch);
    var result: Rebuilt = .{};
    const table = try tables.Table.open(view, atomics.load(&stripe.table));
    if (table) |t| {
        if (!marks.add(@as(u64, t.granule) * granule_bytes, tables.bytesFor(t.log2)))
            return error.Corrupt;
    }
    // As in `heap.advance`: release and a fence, before anything is reused.
    atomics.storeRelease(&stripe.generation, atomics.load(&stripe.generation) +% 2);
    atomics.storeFence();
    if (table) |t| {
        for (0..t.slotCount()) |i| {
            const word = atomics.load(&t.slots[i]);
            if (word == Slot.empty) continue;
            if (word == Slot.tombstone) {
                result.tombstones += 1;
                continue;
            }
            const sound = soundEntry(view, secrets, index, t, word);
            const is_over = if (sound) |entry| endedLongAgo(entry, now_ms) else false;
            if (sound) |entry| if (!is_over and marks.addEntry(entry)) {
                result.live += 1;
                countEnd(&result, entry);
                continue;
            };
            // A crash behind this leaves one tombstone more, which the next rebuild counts.
            atomics.storeRelease(&t.slots[i], Slot.tombstone);
            result.tombstones += 1;
            if (is_over) result.expired += 1 else result.dropped += 1;
        }
    }
    // The block kept back stays where it is: if the next writer that needs space could take it, a
    // full segment could no longer replace what this stripe holds.
    const keeps_spare = result.live > 0 and heap.isSpareSound(stripe) and
        marks.add(atomics.load(&stripe.spare), atomics.load(&stripe.spare_bytes));
    try rebuildChunks(view, index);
    heap.reset(stripe);
    if (!keeps_spare) atomics.store(&stripe.spare, 0);
    const Giving = struct {
        view: *View,
        stripe: *Stripe,
        vacant: [*]u64,
        count: usize,

        fn give(g: *@This(), range: *const ChunkRange, from: u64, to: u64) void {
            if (from == range.start and to == range.end) {
                // Pieces are visited in order, and the list overwrites only those already seen.
                g.vacant[g.count] = from - @sizeOf(layout.Chunk);
                g.count += 1;
            } else heap.give(g.view, g.stripe, from, to - from);
        }
    };
    var giving: Giving = .{
        .view = view,
        .stripe = stripe,
        .vacant = @ptrCast(marks.ranges.ptr),
        .count = 0,
    };
    marks.gaps(&giving, Giving.give);
    clearReserved(stripe);
    storeCounts(stripe, &result);
    result.vacant = giving.vacant[0..giving.count];
    return result;
}

fn storeCounts(stripe: *Stripe, result: *const Rebuilt) void {
    atomics.store(&stripe.live, result.live);
    atomics.store(&stripe.tombstones, result.tombstones);
    atomics.store(&stripe.dropped, atomics.load(&stripe.dropped) +% result.dropped);
    atomics.store(&stripe.expirations, atomics.load(&stripe.expirations) +% result.expired);
    ends.restart(stripe); // what a search noted of the slots before may be damaged
    atomics.store(&stripe.expiring, result.expiring);
    const next_end = if (result.expiring == 0) 0 else result.next_end;
    if (atomics.load(&stripe.next_end) != next_end) atomics.store(&stripe.next_end, next_end);
}

/// No process stores to reserved words; damage may have.
fn clearReserved(stripe: *Stripe) void {
    inline for (layout.reserved.stripe) |name| {
        const bytes = std.mem.asBytes(&@field(stripe, name));
        const all = std.mem.bytesAsSlice(u64, @as([]align(8) u8, @alignCast(bytes)));
        for (all) |*word| if (atomics.load(word) != 0) atomics.store(word, 0);
    }
}

/// Sees to it that a probe for each slot's key comes to that slot, and counts the slots it dropped.
/// Only damage makes it otherwise: a slot that was emptied, moved or doubled. The caller rebuilds
/// the stripe before, which leaves sound slots only, and after, for the counters. Each store by
/// itself hides nothing that a reader could find.
pub fn reconnect(view: *View, index: u32) Refusal!u64 {
    std.debug.assert(view.stripe(index).writer != 0);
    const opened = try tables.Table.open(view, atomics.load(&view.stripe(index).table));
    const table = opened orelse return 0;
    var dropped: u64 = 0;
    for (0..table.slotCount()) |i| {
        const word = atomics.load(&table.slots[i]);
        if (word <= Slot.tombstone) continue;
        const key = (try entries.ofSlot(view, word)).key();
        const tag = @as(Slot, @bitCast(word)).tag;
        if (!try isFoundAt(view, table, tag, key, null)) bridge(table, tag, i);
        if (try isFoundAt(view, table, tag, key, i)) continue;
        // The key is there twice, and a probe finds the other one.
        atomics.storeRelease(&table.slots[i], Slot.tombstone);
        dropped += 1;
    }
    return dropped;
}

/// Whether a probe for the key finds it: in that slot, or, with null, in any.
fn isFoundAt(
    view: *View,
    table: tables.Table,
    tag: layout.Tag,
    key: []const u8,
    index: ?u64,
) error{NoSpace}!bool {
    var probe: tables.Probe = undefined;
    const end = tables.find(view, table, tag, key, &probe);
    if (end == .unmapped) return error.NoSpace;
    return end == .found and (index == null or probe.index == index.?);
}

/// Makes the empty slots between a tag's home and `index` tombstones, which a probe passes.
fn bridge(table: tables.Table, tag: layout.Tag, index: u64) void {
    var at = tag & table.mask();
    while (at != index) : (at = (at + 1) & table.mask()) {
        if (atomics.load(&table.slots[at]) == Slot.empty)
            atomics.storeRelease(&table.slots[at], Slot.tombstone);
    }
}

/// Makes `previous` and `owned` anew from the list.
fn rebuildChunks(view: *View, index: u32) Refusal!void {
    const stripe = view.stripe(index);
    var walk = pool.Walk.of(view, index);
    var previous: u64 = 0;
    var owned: u64 = 0;
    while (try walk.step()) |chunk| {
        atomics.store(&view.chunk(chunk.offset).previous, previous);
        previous = chunk.offset;
        owned += chunk.blockBytes();
    }
    atomics.store(&stripe.owned, owned);
}

/// What a check of a stripe found; changes nothing.
pub const Report = struct {
    problems: u64 = 0,
    entries: u64 = 0,
    /// 0, or 1 table, 2 entry, 3 chunks and blocks: the first kind of problem met.
    first: enum(u8) { none, table, entry, chunks } = .none,

    fn note(report: *Report, kind: @TypeOf(@as(Report, .{}).first)) void {
        report.problems += 1;
        if (report.first == .none) report.first = kind;
    }
};

/// Checks every invariant of a stripe that no process is writing to: each slot names a sound entry
/// which a probe finds there; the counters agree, and begin with end; no entry ends before
/// `next_end`; live, free and retired blocks cover the chunks exactly, none twice; the reserved
/// words are zero.
pub fn check(view: *View, secrets: *const hash.Secrets, index: u32, scratch: []align(8) u8) Report {
    const stripe = view.stripe(index);
    var report: Report = .{};
    var marks = Marks.of(view, index, scratch) catch {
        report.note(.chunks);
        return report;
    };
    const table = tables.Table.open(view, atomics.load(&stripe.table)) catch {
        report.note(.table);
        return report;
    };
    if (table) |t| checkTable(view, secrets, index, t, &marks, &report);
    if (table == null and atomics.load(&stripe.live) != 0) report.note(.table);
    if (table == null and atomics.load(&stripe.expiring) != 0) report.note(.table);
    if (!checkBlocks(view, stripe, &marks)) report.note(.chunks);
    if (!layout.areZero(stripe, layout.reserved.stripe)) report.note(.table);
    // A count ahead of the other would hide the next operation from snapshots.
    if (atomics.load(&stripe.begin) != atomics.load(&stripe.end)) report.note(.table);
    return report;
}

fn checkTable(
    view: *View,
    secrets: *const hash.Secrets,
    index: u32,
    table: tables.Table,
    marks: *Marks,
    report: *Report,
) void {
    const stripe = view.stripe(index);
    if (!marks.add(@as(u64, table.granule) * granule_bytes, tables.bytesFor(table.log2)))
        report.note(.table);
    var tombstones: u64 = 0;
    var counted: Rebuilt = .{};
    for (0..table.slotCount()) |i| {
        const word = atomics.load(&table.slots[i]);
        if (word == Slot.empty) continue;
        if (word == Slot.tombstone) {
            tombstones += 1;
            continue;
        }
        report.entries += 1;
        const entry = soundEntry(view, secrets, index, table, word) orelse {
            report.note(.entry);
            continue;
        };
        countEnd(&counted, entry);
        if (!marks.addEntry(entry)) {
            report.note(.entry);
            continue;
        }
        const tag = @as(Slot, @bitCast(word)).tag;
        const is_found = isFoundAt(view, table, tag, entry.key(), i) catch false;
        if (!is_found) report.note(.entry);
    }
    if (report.entries != atomics.load(&stripe.live)) report.note(.table);
    if (tombstones != atomics.load(&stripe.tombstones)) report.note(.table);
    if (counted.expiring != atomics.load(&stripe.expiring)) report.note(.table);
    const next_end = atomics.load(&stripe.next_end);
    if (counted.expiring != 0 and (next_end == 0 or next_end > counted.next_end))
        report.note(.table);
}

fn checkBlocks(view: *View, stripe: *Stripe, marks: *Marks) bool {
    var free: u64 = 0;
    var blocks = heap.FreeBlocks.of(view, stripe);
    while (blocks.next() catch return false) |block| {
        if (!marks.add(block.offset, block.bytes)) return false;
        free += block.bytes;
    }
    if (free != atomics.load(&stripe.free)) return false;
    const spare = atomics.load(&stripe.spare);
    if (spare != 0 and !marks.add(spare, atomics.load(&stripe.spare_bytes))) return false;
    for (heap.limboLists(stripe) catch return false) |list| {
        for (list) |*word| {
            const block = heap.retiredBlock(atomics.load(word));
            const is_large = parked.isLargeBlock(block.bytes);
            if (!marks.addAs(block.offset, block.bytes, is_large)) return false;
        }
    }
    var leaked = false;
    marks.gaps(&leaked, struct {
        fn seen(l: *bool, _: *const ChunkRange, _: u64, _: u64) void {
            l.* = true;
        }
    }.seen);
    return !leaked;
}
