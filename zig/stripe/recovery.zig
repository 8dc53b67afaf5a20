//! Rebuilding what is derived in a stripe from what is true: its table, the entries the table
//! reaches, and its list of chunks. After an owner's death, when a writer word is found set, and
//! when enough lies free in pieces that bringing it together pays.
//!
//! The caller holds the stripe's lock and has set the writer word; private memory comes from the
//! caller too. Nothing here needs more than one pass, and dying anywhere inside is harmless: it
//! reads only the truth, and the next one starts from the beginning.

const std = @import("std");
const layout = @import("../layout.zig");
const crash = @import("../atomics.zig");
const hash = @import("hash.zig");
const tables = @import("table.zig");
const heap = @import("heap.zig");
const pool = @import("pool.zig");

const View = layout.View;
const Stripe = layout.Stripe;
const Slot = layout.Slot;
const granule_bytes = layout.granule_bytes;

/// A chunk as the marks know it.
const Piece = struct { start: u64, end: u64, first_bit: u64 };

/// Which granules of a stripe's chunks are in use, in private memory.
pub const Marks = struct {
    pieces: []Piece,
    bits: []u64,

    /// How much private memory the marks of this stripe take, in bytes.
    pub fn scratchBytes(view: *View, index: u32) error{Corrupt}!u64 {
        var walk = pool.Walk.of(view, index);
        var count: u64 = 0;
        var units: u64 = 0;
        while (try walk.step()) |chunk| {
            count += 1;
            units += chunk.units;
        }
        const granules = units * (layout.unit_bytes / granule_bytes);
        return count * @sizeOf(Piece) + (granules / 64 + 1) * 8;
    }

    /// Nothing marked. Assumes `scratch` is zeroed and as long as `scratchBytes` said.
    pub fn of(view: *View, index: u32, scratch: []align(8) u8) error{Corrupt}!Marks {
        const pieces: [*]Piece = @ptrCast(scratch.ptr);
        var walk = pool.Walk.of(view, index);
        var count: usize = 0;
        while (try walk.step()) |chunk| : (count += 1) {
            if ((count + 1) * @sizeOf(Piece) > scratch.len) return error.Corrupt;
            pieces[count] = .{ .start = chunk.start(), .end = chunk.end(), .first_bit = 0 };
        }
        std.sort.pdq(Piece, pieces[0..count], {}, struct {
            fn before(_: void, a: Piece, b: Piece) bool {
                return a.start < b.start;
            }
        }.before);
        var bit: u64 = 0;
        for (pieces[0..count]) |*piece| {
            piece.first_bit = bit;
            bit += (piece.end - piece.start) / granule_bytes;
        }
        const rest: [*]u64 = @ptrCast(@alignCast(scratch.ptr + count * @sizeOf(Piece)));
        const bits = rest[0 .. bit / 64 + 1];
        if (count * @sizeOf(Piece) + bits.len * 8 > scratch.len) return error.Corrupt;
        return .{ .pieces = pieces[0..count], .bits = bits };
    }

    fn pieceOf(marks: *const Marks, offset: u64) ?*const Piece {
        var low: usize = 0;
        var high = marks.pieces.len;
        while (low < high) {
            const middle = (low + high) / 2;
            if (marks.pieces[middle].end <= offset) low = middle + 1 else high = middle;
        }
        if (low == marks.pieces.len or marks.pieces[low].start > offset) return null;
        return &marks.pieces[low];
    }

    fn has(marks: *const Marks, bit: u64) bool {
        return marks.bits[bit / 64] >> @intCast(bit % 64) & 1 != 0;
    }

    /// Marks a block. False: it lies outside the chunks or over another.
    pub fn add(marks: *Marks, offset: u64, bytes: u64) bool {
        const piece = marks.pieceOf(offset) orelse return false;
        if (bytes == 0 or bytes > piece.end - offset) return false;
        const large = !heap.isSmall(bytes);
        if (large and offset != piece.start) return false;
        // A large block has its chunk for itself, slack included.
        const end = if (large) piece.end else offset + heap.blockBytes(bytes);
        if (end > piece.end) return false;
        const first = piece.first_bit + (offset - piece.start) / granule_bytes;
        const last = piece.first_bit + (end - piece.start) / granule_bytes;
        for (first..last) |bit| if (marks.has(bit)) return false;
        for (first..last) |bit| marks.bits[bit / 64] |= @as(u64, 1) << @intCast(bit % 64);
        return true;
    }

    /// Calls `each(context, piece, from, to)` for every run of unmarked bytes.
    pub fn gaps(marks: *const Marks, context: anytype, comptime each: anytype) void {
        for (marks.pieces) |*piece| {
            const count = (piece.end - piece.start) / granule_bytes;
            var i: u64 = 0;
            while (i < count) {
                if (marks.has(piece.first_bit + i)) {
                    i += 1;
                    continue;
                }
                const from = i;
                while (i < count and !marks.has(piece.first_bit + i)) {
                    // Whole words of free granules, as large chunks have them.
                    const bit = piece.first_bit + i;
                    const whole = bit % 64 == 0 and i + 64 <= count and marks.bits[bit / 64] == 0;
                    i += if (whole) 64 else 1;
                }
                const start = piece.start + from * granule_bytes;
                each(context, piece, start, piece.start + i * granule_bytes);
            }
        }
    }
};

/// What a rebuild found.
pub const Rebuilt = struct {
    live: u64 = 0,
    tombstones: u64 = 0,
    dropped: u64 = 0,
    /// Chunks nothing is in, for the caller to give back to the pool: offsets, in the scratch.
    vacant: []u64 = &.{},
};

/// Whether a slot's entry is whole, belongs here and overlaps nothing marked; marks it.
fn isSound(
    view: *View,
    secrets: *const hash.Secrets,
    index: u32,
    table: tables.Table,
    word: u64,
    marks: *Marks,
) bool {
    const found = tables.entryAt(view, word) catch return false;
    const key = std.mem.sliceAsBytes(found.key()[0..layout.words(found.sizes.key_len)]);
    const fast = hash.fast(secrets, key[0..found.sizes.key_len]);
    if (indexOf(view, fast) != index) return false;
    const chosen = if (table.sip) hash.sip(secrets, key[0..found.sizes.key_len]) else fast;
    if (@as(Slot, @bitCast(word)).tag != tagOf(chosen)) return false;
    return marks.add(found.offset, found.bytes());
}

pub inline fn indexOf(view: *const View, fast: u64) u32 {
    return @intCast(fast >> 1 >> 63 - view.stripe_bits);
}

pub inline fn tagOf(hash_value: u64) tables.Tag {
    return @truncate(hash_value);
}

/// Rebuilds counters, lists and bump; slots that name nothing sound become tombstones and count as
/// dropped. Two generations pass, so retired blocks are free as well. `Corrupt`: the table word or
/// the list of chunks is damaged; then nothing is changed but the generation.
pub fn rebuild(
    view: *View,
    secrets: *const hash.Secrets,
    index: u32,
    scratch: []align(8) u8,
) error{Corrupt}!Rebuilt {
    const stripe = view.stripe(index);
    // As in `heap.promote`: release and a fence, before anything is reused.
    crash.publish(&stripe.generation, crash.load(&stripe.generation) +% 2);
    crash.storeFence();
    var marks = try Marks.of(view, index, scratch);
    var result: Rebuilt = .{};
    const table = try tables.Table.open(view, crash.load(&stripe.table));
    if (table) |t| {
        if (!marks.add(@as(u64, t.granule) * granule_bytes, tables.bytesFor(t.log2)))
            return error.Corrupt;
        for (0..t.slotCount()) |i| {
            const word = crash.load(&t.slots[i]);
            if (word == Slot.empty) continue;
            if (word == Slot.tombstone) {
                result.tombstones += 1;
            } else if (isSound(view, secrets, index, t, word, &marks)) {
                result.live += 1;
            } else {
                crash.publish(&t.slots[i], Slot.tombstone);
                result.tombstones += 1;
                result.dropped += 1;
            }
        }
    }
    // The block kept back stays where it is, or whoever needs space next would have it, and a full
    // segment could no longer replace what this stripe holds.
    const keeps_spare = result.live > 0 and heap.isSpareSound(stripe) and
        marks.add(crash.load(&stripe.spare), crash.load(&stripe.spare_bytes));
    try rebuildChunks(view, index);
    heap.reset(stripe);
    if (!keeps_spare) crash.store(&stripe.spare, 0);
    const Giving = struct {
        view: *View,
        stripe: *Stripe,
        vacant: [*]u64,
        count: usize,

        fn give(g: *@This(), piece: *const Piece, from: u64, to: u64) void {
            if (from == piece.start and to == piece.end) {
                // Pieces are visited in order, and the list overwrites only those already seen.
                g.vacant[g.count] = from - @sizeOf(layout.Chunk);
                g.count += 1;
            } else heap.give(g.view, g.stripe, from, to - from);
        }
    };
    var giving: Giving = .{
        .view = view,
        .stripe = stripe,
        .vacant = @ptrCast(marks.pieces.ptr),
        .count = 0,
    };
    marks.gaps(&giving, Giving.give);
    crash.store(&stripe.live, result.live);
    crash.store(&stripe.tombstones, result.tombstones);
    crash.store(&stripe.dropped, crash.load(&stripe.dropped) +% result.dropped);
    result.vacant = giving.vacant[0..giving.count];
    return result;
}

/// Sees to it that a probe for each slot's key comes to that slot, and counts the slots it dropped.
/// Only damage makes it otherwise: a slot that was emptied, moved or doubled. Assumes the lock, the
/// writer word set, and a rebuild before, which left sound slots only, and after, for the counters.
/// Each store by itself hides nothing that a reader could find.
pub fn reconnect(view: *View, index: u32) error{Corrupt}!u64 {
    const opened = try tables.Table.open(view, crash.load(&view.stripe(index).table));
    const table = opened orelse return 0;
    var dropped: u64 = 0;
    for (0..table.slotCount()) |i| {
        const word = crash.load(&table.slots[i]);
        if (word <= Slot.tombstone) continue;
        const found = try tables.entryAt(view, word);
        const bytes = std.mem.sliceAsBytes(found.key()[0..layout.words(found.sizes.key_len)]);
        const key = bytes[0..found.sizes.key_len];
        const tag = @as(Slot, @bitCast(word)).tag;
        if (!isFoundAt(view, table, tag, key, null)) bridge(table, tag, i);
        if (isFoundAt(view, table, tag, key, i)) continue;
        // The key is there twice, and a probe finds the other one.
        crash.publish(&table.slots[i], Slot.tombstone);
        dropped += 1;
    }
    return dropped;
}

/// Whether a probe for the key finds it: in that slot, or, with null, in any.
fn isFoundAt(
    view: *View,
    table: tables.Table,
    tag: tables.Tag,
    key: []const u8,
    index: ?u64,
) bool {
    var probe: tables.Probe = undefined;
    if (tables.find(view, table, tag, key, &probe) != .found) return false;
    return index == null or probe.index == index.?;
}

/// Makes the empty slots between a tag's home and `index` tombstones, which a probe passes.
fn bridge(table: tables.Table, tag: tables.Tag, index: u64) void {
    var at = tag & table.mask();
    while (at != index) : (at = (at + 1) & table.mask()) {
        if (crash.load(&table.slots[at]) == Slot.empty)
            crash.publish(&table.slots[at], Slot.tombstone);
    }
}

/// Makes `previous` and `owned` anew from the list.
fn rebuildChunks(view: *View, index: u32) error{Corrupt}!void {
    const stripe = view.stripe(index);
    var walk = pool.Walk.of(view, index);
    var previous: u64 = 0;
    var owned: u64 = 0;
    while (try walk.step()) |chunk| {
        crash.store(&view.chunk(chunk.offset).previous, previous);
        previous = chunk.offset;
        owned += chunk.bytes();
    }
    crash.store(&stripe.owned, owned);
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

/// Checks every invariant of a stripe that nobody is writing to: each slot names a sound entry
/// which a probe finds there; the counters agree, and begin with end; live, free and retired blocks
/// cover the chunks exactly, none twice.
pub fn check(view: *View, secrets: *const hash.Secrets, index: u32, scratch: []align(8) u8) Report {
    const stripe = view.stripe(index);
    var report: Report = .{};
    var marks = Marks.of(view, index, scratch) catch {
        report.note(.chunks);
        return report;
    };
    const table = tables.Table.open(view, crash.load(&stripe.table)) catch {
        report.note(.table);
        return report;
    };
    if (table) |t| checkTable(view, secrets, index, t, &marks, &report);
    if (table == null and crash.load(&stripe.live) != 0) report.note(.table);
    if (!checkBlocks(view, stripe, &marks)) report.note(.chunks);
    // A count ahead of the other would hide the next operation from snapshots.
    if (crash.load(&stripe.begin) != crash.load(&stripe.end)) report.note(.table);
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
    for (0..table.slotCount()) |i| {
        const word = crash.load(&table.slots[i]);
        if (word == Slot.empty) continue;
        if (word == Slot.tombstone) {
            tombstones += 1;
            continue;
        }
        report.entries += 1;
        if (!isSound(view, secrets, index, table, word, marks)) {
            report.note(.entry);
            continue;
        }
        const found = tables.entryAt(view, word) catch continue; // it was sound a moment ago
        const key = std.mem.sliceAsBytes(found.key()[0..layout.words(found.sizes.key_len)]);
        const tag = @as(Slot, @bitCast(word)).tag;
        var probe: tables.Probe = undefined;
        const end = tables.find(view, table, tag, key[0..found.sizes.key_len], &probe);
        if (end != .found or probe.index != i) report.note(.entry);
    }
    if (report.entries != crash.load(&stripe.live)) report.note(.table);
    if (tombstones != crash.load(&stripe.tombstones)) report.note(.table);
}

fn checkBlocks(view: *View, stripe: *Stripe, marks: *Marks) bool {
    var free: u64 = 0;
    var blocks = heap.FreeBlocks.of(view, stripe);
    while (blocks.next() catch return false) |block| {
        if (!marks.add(block.offset, block.bytes)) return false;
        free += block.bytes;
    }
    if (free != crash.load(&stripe.free)) return false;
    const spare = crash.load(&stripe.spare);
    if (spare != 0 and !marks.add(spare, crash.load(&stripe.spare_bytes))) return false;
    for (heap.batches(stripe) catch return false) |batch| {
        for (batch) |*word| {
            const block = heap.retiredBlock(crash.load(word));
            if (!marks.add(block.offset, block.bytes)) return false;
        }
    }
    var leaked = false;
    marks.gaps(&leaked, struct {
        fn seen(l: *bool, _: *const Piece, _: u64, _: u64) void {
            l.* = true;
        }
    }.seen);
    return !leaked;
}
