//! A hash table inside the segment: an array of slot words, open addressing with linear probing.
//!
//! Nothing here locks or allocates. The same probe serves writers, who hold the stripe's lock, and
//! lock-free readers, who check the stripe's generation afterwards; so every word is loaded once
//! and checked before it is used, and every loop is bounded by the table's length. A reader that
//! probes while slots change sees each slot's old or new word; the key it looks for cannot be
//! missed unless it was absent at some moment of the probe (docs/design.md, Read).

const std = @import("std");
const layout = @import("layout.zig");
const crash = @import("crash.zig");

const View = layout.View;
const Slot = layout.Slot;
const Entry = layout.Entry;
const TableWord = layout.TableWord;

/// The part of a hash a table goes by.
pub const Tag = u28;

/// A probe this long, or one that met this many other keys with the very same tag, does not happen
/// to well-hashed keys at our load: somebody chose them. The writer then changes to SipHash.
pub const probes_suspect = 256;
pub const twins_suspect = 16;

/// A table somebody published, checked to lie within the segment.
pub const Table = struct {
    slots: [*]u64,
    log2: u6,
    granule: u36,
    sip: bool,

    /// Assumes nothing of `word`. Null: there is no table, the stripe is empty.
    pub inline fn open(view: *View, word: u64) error{Corrupt}!?Table {
        if (word == 0) return null;
        const table: TableWord = @bitCast(word);
        if (!table.present or table.log2 > layout.table_log2_max) return error.Corrupt;
        const offset = @as(u64, table.granule) * layout.granule_bytes;
        if (!view.covers(offset, bytesFor(table.log2))) return error.Corrupt;
        return .{
            .slots = view.at(offset),
            .log2 = table.log2,
            .granule = table.granule,
            .sip = table.sip,
        };
    }

    pub inline fn slotCount(table: Table) u64 {
        return @as(u64, 1) << table.log2;
    }

    pub inline fn mask(table: Table) u64 {
        return table.slotCount() - 1;
    }

    /// How many slots name an entry.
    pub fn entryCount(table: Table) u64 {
        var count: u64 = 0;
        for (table.slots[0..table.slotCount()]) |*slot|
            count += @intFromBool(crash.acquire(slot) > Slot.tombstone);
        return count;
    }

    pub fn overlaps(table: Table, other: Table) bool {
        const a = @intFromPtr(table.slots);
        const b = @intFromPtr(other.slots);
        return a < b + bytesFor(other.log2) and b < a + bytesFor(table.log2);
    }
};

pub fn bytesFor(log2: u6) u64 {
    return @as(u64, 8) << log2;
}

/// `count`: the stripe's begin count, of which the word keeps what it has room for.
pub fn wordFor(granule: u36, log2: u6, sip: bool, count: u64) u64 {
    return @bitCast(TableWord{
        .granule = granule,
        .log2 = log2,
        .sip = sip,
        .present = true,
        .serial = @truncate(count),
    });
}

pub fn slotWord(tag: Tag, offset: u64) u64 {
    return @bitCast(Slot{ .granule = @intCast(offset / layout.granule_bytes), .tag = tag });
}

/// An entry as a slot names it, with its header loaded once and checked.
pub const Found = struct {
    words: [*]const u64,
    offset: u64,
    sizes: Entry.Sizes,

    pub inline fn bytes(found: Found) u64 {
        return Entry.bytesFor(found.sizes.key_len, found.sizes.value_len);
    }

    pub inline fn key(found: Found) [*]const u64 {
        return found.words + @sizeOf(Entry) / 8;
    }

    pub inline fn value(found: Found) [*]const u64 {
        return found.key() + layout.words(found.sizes.key_len);
    }

    pub inline fn version(found: Found) u64 {
        return crash.load(&found.words[0]);
    }
};

/// The entry a slot word names. `Corrupt` for a lock-free reader may only mean that the block was
/// reused: its generation check decides.
pub inline fn entryAt(view: *View, slot: u64) error{Corrupt}!Found {
    const word: Slot = @bitCast(slot);
    const offset = @as(u64, word.granule) * layout.granule_bytes;
    if (!view.covers(offset, @sizeOf(Entry))) return error.Corrupt;
    const entry_words = view.at(offset);
    const sizes: Entry.Sizes = @bitCast(crash.load(&entry_words[1]));
    if (sizes.key_len == 0 or sizes.value_len > layout.value_bytes_max) return error.Corrupt;
    if (!view.covers(offset, Entry.bytesFor(sizes.key_len, sizes.value_len))) return error.Corrupt;
    return .{ .words = entry_words, .offset = offset, .sizes = sizes };
}

inline fn sameKey(found: Found, key: []const u8) bool {
    if (found.sizes.key_len != key.len) return false;
    const stored = found.key();
    var i: usize = 0;
    while (8 * i < key.len) : (i += 1) {
        if (crash.load(&stored[i]) != crash.wordOf(key, 8 * i)) return false;
    }
    return true;
}

/// Where a key is, or where it would go.
pub const Probe = struct {
    found: ?Found = null,
    /// The slot of the key; else the first slot an insert may take.
    index: u64 = 0,
    /// What that slot holds (empty or a tombstone when not found).
    slot: u64 = 0,
    probes: u32 = 0,
    twins: u32 = 0,

    pub fn suspicious(probe: Probe) bool {
        return probe.probes >= probes_suspect or probe.twins >= twins_suspect;
    }
};

/// Expected O(1); at most one pass over the table. `Full`: no slot is left for an insert, which
/// only a damaged counter can cause.
pub inline fn find(
    view: *View,
    table: Table,
    tag: Tag,
    key: []const u8,
) error{ Corrupt, Full }!Probe {
    const mask = table.mask();
    var probe: Probe = .{};
    var vacant: ?u64 = null;
    var vacant_word: u64 = Slot.empty;
    var index = tag & mask;
    while (probe.probes <= mask) : (index = (index + 1) & mask) {
        probe.probes += 1;
        // Pairs with the publish of `map.zig`: whoever sees the slot sees its entry.
        const word = crash.acquire(&table.slots[index]);
        if (word == Slot.empty) {
            probe.index = vacant orelse index;
            probe.slot = if (vacant != null) vacant_word else word;
            return probe;
        }
        if (word == Slot.tombstone) {
            if (vacant == null) {
                vacant = index;
                vacant_word = word;
            }
            continue;
        }
        if (@as(Slot, @bitCast(word)).tag != tag) continue;
        const found = try entryAt(view, word);
        if (sameKey(found, key)) {
            probe.found = found;
            probe.index = index;
            probe.slot = word;
            return probe;
        }
        probe.twins += 1;
    }
    probe.index = vacant orelse return error.Full;
    probe.slot = vacant_word;
    return probe;
}

/// Puts a slot word into a table nobody can reach yet.
pub fn place(table: Table, word: u64) void {
    const mask = table.mask();
    var index = @as(Slot, @bitCast(word)).tag & mask;
    while (crash.load(&table.slots[index]) != Slot.empty) index = (index + 1) & mask;
    crash.store(&table.slots[index], word);
}

/// Whether another entry makes the table too full: three quarters, tombstones counted.
pub fn needsRehash(slot_count: u64, live: u64, tombstones: u64) bool {
    return (live +| tombstones +| 1) *| 4 > slot_count * 3;
}

/// Whether a table is worth its space no longer: less than an eighth in use.
pub fn needsShrinking(slot_count: u64, live: u64) bool {
    return slot_count > 64 and live *| 8 < slot_count;
}

/// The size for a new table that is to hold `live` entries and more. Null: there is no such table.
pub fn log2For(live: u64) ?u6 {
    var log2: u6 = 4;
    while (live * 2 >= @as(u64, 1) << log2) : (log2 += 1) {
        if (log2 == layout.table_log2_max) return null;
    }
    return log2;
}

test log2For {
    try std.testing.expectEqual(@as(?u6, 4), log2For(0));
    try std.testing.expectEqual(@as(?u6, 4), log2For(7));
    try std.testing.expectEqual(@as(?u6, 5), log2For(8));
    // A new table is never born needing another one.
    for (0..5000) |live| {
        const count = @as(u64, 1) << log2For(live).?;
        try std.testing.expect(!needsRehash(count, live, 0));
    }
}

fn never(_: *View) bool {
    return false;
}

/// A view of plain memory, for tests of this file and its neighbours.
pub fn testView(memory: []align(layout.page_bytes) u8) View {
    return .{
        .base = memory.ptr,
        .committed = memory.len,
        .ceiling = memory.len,
        .data_start = layout.dataOffset(0),
        .stripe_bits = 0,
        .refresh = never,
    };
}

test find {
    var memory: [16384]u8 align(layout.page_bytes) = @splat(0);
    var view = testView(&memory);
    const table = (try Table.open(&view, wordFor(8192 / 16, 4, false, 1))).?;
    const entry = view.at(9216);
    entry[1] = @bitCast(Entry.Sizes{ .key_len = 3, .value_len = 2, .kind = 9 });
    crash.fill(entry + 3, "key");
    crash.fill(entry + 4, "hi");
    place(table, slotWord(5, 9216));

    const hit = try find(&view, table, 5, "key");
    try std.testing.expectEqual(@as(u64, 5), hit.index);
    try std.testing.expectEqual(@as(u64, 'h' | 'i' << 8), crash.load(&hit.found.?.value()[0]));
    const twin = try find(&view, table, 5, "kez");
    try std.testing.expect(twin.found == null and twin.index == 6 and twin.twins == 1);

    // A tombstone is passed and offered for reuse.
    table.slots[5] = Slot.tombstone;
    place(table, slotWord(5, 9216));
    const behind = try find(&view, table, 5, "key");
    try std.testing.expectEqual(@as(u64, 6), behind.index);
    const reuse = try find(&view, table, 5, "new");
    try std.testing.expectEqual(@as(u64, 5), reuse.index);

    // A slot that names bytes outside is refused, and a table without an end is left.
    table.slots[6] = slotWord(5, 1 << 30);
    try std.testing.expectError(error.Corrupt, find(&view, table, 5, "key"));
    for (0..16) |i| table.slots[i] = slotWord(7, 9216);
    try std.testing.expectError(error.Full, find(&view, table, 5, "key"));
    try std.testing.expectError(error.Corrupt, Table.open(&view, wordFor(1 << 20, 4, false, 1)));
}
