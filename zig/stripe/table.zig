//! A hash table inside the segment: an array of slot words, open addressing with linear probing
//! (Knuth, The Art of Computer Programming, volume 3, 6.4, algorithm L, with its home slots going
//! up instead of down). A table has 2^4 to 2^28 slots of 8 bytes; it is made with at most half of
//! them in use and replaced when three quarters are, tombstones counted, so a probe looks at a few
//! slots. A delete leaves a tombstone, which an insert reuses; a rehash drops the rest.
//!
//! Nothing here locks or allocates. The same probe serves writers, who hold the stripe's lock, and
//! lock-free readers, who check the stripe's generation afterwards; so every word is loaded once
//! and checked before it is used, and every loop is bounded by the table's length. A reader that
//! probes while slots change sees each slot's old or new word; the key it looks for cannot be
//! missed unless it was absent at some moment of the probe (docs/design.md, Read).

const std = @import("std");
const atomics = @import("../atomics.zig");
const entries = @import("entry.zig");
const layout = @import("../layout.zig");
const views = @import("../segment/view.zig");

const EntryView = entries.EntryView;
const Refusal = views.Refusal;
const Slot = layout.Slot;
const Tag = layout.Tag;
const TableWord = layout.TableWord;
const View = views.View;

/// A probe this long, or one that met this many other keys with the same tag, does not happen to
/// well-hashed keys at our load: an attacker chose them. The writer then changes to SipHash. In a
/// table three quarters full, one probe in e^(0.038 n) is longer than n (linear probing, well
/// hashed keys): among 2^17 slots some are longer than 256.
pub const probe_length_suspect = 1024;
pub const tag_collisions_suspect = 16;

/// A table that a stripe's table word names, checked to lie within the segment.
pub const Table = struct {
    /// `slotCount()` of them, each a `Slot`, `Slot.empty` or `Slot.tombstone`.
    slots: [*]u64,
    log2: u6,
    /// Where the slots begin, in granules from the start of the segment.
    granule: u36,
    /// Whether tags come from SipHash; else from the fast hash.
    sip: bool,

    /// The word is input: it may be anything. Null: there is no table, the stripe is empty.
    /// `Corrupt`: the word is of no table that could be made, or names bytes outside the segment.
    pub fn open(view: *View, word: u64) Refusal!?Table {
        if (word == 0) return null;
        const table: TableWord = @bitCast(word);
        if (!table.present or table.log2 > layout.table_log2_max) return error.Corrupt;
        const offset = @as(u64, table.granule) * layout.granule_bytes;
        try view.check(offset, bytesFor(table.log2));
        return .of(view, word);
    }

    /// As `open`, of a word that this handle has opened before.
    pub inline fn of(view: *const View, word: u64) Table {
        const table: TableWord = @bitCast(word);
        const offset = @as(u64, table.granule) * layout.granule_bytes;
        std.debug.assert(table.present and view.coversNow(offset, bytesFor(table.log2)));
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

    /// How many slots name an entry. Looks at every slot.
    pub fn entryCount(table: Table) u64 {
        var count: u64 = 0;
        for (table.slots[0..table.slotCount()]) |*slot|
            count += @intFromBool(atomics.loadAcquire(slot) > Slot.tombstone);
        return count;
    }

    pub fn overlaps(table: Table, other: Table) bool {
        // By their places in the segment: they may be known through different mappings.
        const a = @as(u64, table.granule) * layout.granule_bytes;
        const b = @as(u64, other.granule) * layout.granule_bytes;
        return a < b + bytesFor(other.log2) and b < a + bytesFor(table.log2);
    }
};

/// A table word that this handle has opened, with what it stands for: while a stripe has the same
/// word, it need not be checked and taken apart again.
pub const CachedTable = struct {
    /// The stripe's table word that the other two were taken from; 0: no table.
    word: u64,
    slots: [*]u64,
    /// The number of slots, less one.
    mask: u64,

    /// Stands for "no table": one empty slot. A table of one slot counts as full, so nothing is
    /// ever inserted.
    pub const empty: CachedTable = .{ .word = 0, .slots = @constCast(&no_slots), .mask = 0 };
    const no_slots = [1]u64{Slot.empty};

    /// Keeps the table that `word` stands for. One that is hashed with SipHash is not kept:
    /// `lookupFast` knows the fast hash only.
    pub fn remember(cached: *CachedTable, word: u64, table: Table) void {
        std.debug.assert(@as(TableWord, @bitCast(word)).granule == table.granule);
        if (!table.sip) cached.* = .{ .word = word, .slots = table.slots, .mask = table.mask() };
    }

    pub inline fn slotCount(cached: CachedTable) u64 {
        return cached.mask + 1;
    }

    inline fn home(cached: CachedTable, fast: u64) u64 {
        comptime std.debug.assert(layout.table_log2_max <= @bitSizeOf(Tag));
        return fast & cached.mask;
    }

    inline fn after(cached: CachedTable, home_index: u64, steps: u64) u64 {
        return (home_index + steps) & cached.mask;
    }

    /// Asks the processor for the first slot of a key's probe, which it loads while the caller does
    /// something else. The table may be gone by now: a prefetch of any address does no harm.
    pub inline fn prefetch(cached: CachedTable, fast: u64) void {
        @prefetch(&cached.slots[cached.home(fast)], .{ .rw = .write });
    }

    /// As `prefetch`, for a reader.
    pub inline fn prefetchToRead(cached: CachedTable, fast: u64) void {
        @prefetch(&cached.slots[cached.home(fast)], .{});
    }

    /// Where the entry of a key seems to lie, to ask the processor for it; 0: nowhere near its
    /// home. Nothing is checked but the tag.
    pub inline fn entryHint(cached: CachedTable, fast: u64) u64 {
        const wanted: u64 = @bitCast(Slot{ .granule = 0, .tag = @truncate(fast) });
        const home_index = cached.home(fast);
        inline for (0..3) |i| {
            const slot = atomics.load(&cached.slots[cached.after(home_index, i)]);
            if (hasTag(slot, wanted)) return (slot ^ wanted) *% layout.granule_bytes;
        }
        return 0;
    }
};

/// How many bytes a table of 2^`log2` slots takes.
pub fn bytesFor(log2: u6) u64 {
    return @as(u64, 8) << log2;
}

/// The table word for a table that lies at `granule`. `count`: the stripe's begin count, of which
/// the word keeps what it has room for.
pub fn wordFor(granule: u36, log2: u6, sip: bool, count: u64) u64 {
    std.debug.assert(log2 <= layout.table_log2_max); // `Table.open` refuses any other
    return @bitCast(TableWord{
        .granule = granule,
        .log2 = log2,
        .sip = sip,
        .present = true,
        .serial = @truncate(count),
    });
}

/// How a probe ended. `full`: without the key, and without a slot for it, which only a damaged
/// counter can cause. `unmapped`: at an entry for which this process has no address space.
pub const Outcome = enum { found, absent, full, corrupt, unmapped };

/// Where a key is, or where it would go.
pub const Probe = struct {
    entry: EntryView,
    /// The slot of the key; else the first slot an insert may take.
    index: u64,
    /// What that slot holds (empty or a tombstone when the key is absent).
    slot: u64,
    /// How many slots `find` looked at; `lookupFast` leaves it as it was.
    length: u32,
    /// How many entries of other keys had the same tag, so that their keys were compared.
    tag_collisions: u32,

    pub const none: Probe = .{
        .entry = undefined,
        .index = 0,
        .slot = Slot.empty,
        .length = 0,
        .tag_collisions = 0,
    };

    pub fn isSuspicious(probe: Probe) bool {
        return probe.length >= probe_length_suspect or
            probe.tag_collisions >= tag_collisions_suspect;
    }
};

/// The largest value that a reader copies on its fast path. The copy of a larger one is looked
/// after on its way (`map/read.zig`).
pub const fast_value_max = 64 * 1024;

/// What the fast path of a lookup found out. `retry`: nothing, `find` decides.
pub const Lookup = enum { hit, miss, retry };

/// The fast path of a lookup. It looks at the first three slots of the probe; at our load all but a
/// few keys of a hundred lie in them. A matching tag whose key compares equal is a hit. With no
/// matching tag, an empty slot preceded only by occupied ones proves absence. Anything else is for
/// `find`: another table word than the cached one, a longer probe, a tombstone, an entry at the
/// very end of the segment, damage.
///
/// It makes no call, so that everything stays in registers, and does not branch between the three
/// slots, because how many a probe takes is what a processor predicts worst. It therefore looks
/// behind empty slots, too, where a sound table has no entry for this key.
///
/// After a hit the value is no longer than `value_max`, and the bytes that `EntryView.copyFast`
/// reads lie inside the segment.
pub inline fn lookupFast(
    view: *const View,
    cached: CachedTable,
    word: u64,
    fast: u64,
    key: []const u8,
    value_max: u32,
    probe: *Probe,
) Lookup {
    if (cached.word != word) return .retry;
    const wanted: u64 = @bitCast(Slot{ .granule = 0, .tag = @truncate(fast) });
    const home = cached.home(fast);
    var slots: [3]u64 = undefined;
    // Pairs with the release store of a commit (`stripe_op.zig`, `put_fast.zig`): a reader that
    // sees the slot sees its entry.
    inline for (&slots, 0..) |*slot, i|
        slot.* = atomics.loadAcquire(&cached.slots[cached.after(home, i)]);
    probe.index = cached.after(home, 2);
    probe.slot = slots[2];
    inline for (.{ 1, 0 }) |i| {
        const is_here = hasTag(slots[i], wanted);
        probe.index = if (is_here) cached.after(home, i) else probe.index;
        probe.slot = if (is_here) slots[i] else probe.slot;
    }
    if (!hasTag(probe.slot, wanted)) return lookupFastAbsent(cached, home, slots, probe);
    const offset = (probe.slot ^ wanted) *% layout.granule_bytes;
    const committed = view.committed;
    if (offset < view.data_start or offset + @sizeOf(layout.Entry) > committed) return .retry;
    probe.entry = .at(view, offset);
    const sizes = probe.entry.sizes;
    if (sizes.key_len != key.len or sizes.value_len > value_max) return .retry;
    if (offset + entries.fast_copy_overhead + key.len + sizes.value_len > committed) return .retry;
    return if (probe.entry.hasKey(key)) .hit else .retry;
}

inline fn hasTag(slot: u64, wanted: u64) bool {
    return (slot ^ wanted) >> @bitSizeOf(@FieldType(Slot, "granule")) == 0;
}

/// Whether the first slots of a probe, none of which has the key's tag, show that it is not there:
/// an empty one, which is where it would go, behind others that are taken.
inline fn lookupFastAbsent(cached: CachedTable, home: u64, slots: [3]u64, probe: *Probe) Lookup {
    inline for (slots, 0..) |slot, i| {
        probe.index = cached.after(home, i);
        probe.slot = slot;
        if (slot == Slot.empty) return .miss;
        if (slot == Slot.tombstone) return .retry;
    }
    return .retry;
}

/// Looks for `key`, whose tag by this table's hash is `tag`. Expected O(1); at most one pass over
/// the table. Fills in `probe`: its entry only if the key is found.
pub fn find(
    view: *View,
    table: Table,
    tag: Tag,
    key: []const u8,
    probe: *Probe,
) Outcome {
    const mask = table.mask();
    probe.* = .none;
    var vacant: ?u64 = null;
    var index = tag & mask;
    while (probe.length <= mask) : (index = (index + 1) & mask) {
        probe.length += 1;
        const word = atomics.loadAcquire(&table.slots[index]); // as in `lookupFast`
        if (word == Slot.empty) {
            probe.index = vacant orelse index;
            if (vacant == null) probe.slot = word;
            return .absent;
        }
        if (word == Slot.tombstone) {
            if (vacant == null) {
                vacant = index;
                probe.slot = word;
            }
            continue;
        }
        if (@as(Slot, @bitCast(word)).tag != tag) continue;
        atomics.reached(.slot_loaded);
        probe.entry = entries.ofSlot(view, word) catch |err|
            return if (err == error.NoSpace) .unmapped else .corrupt;
        if (probe.entry.hasKey(key)) {
            probe.index = index;
            probe.slot = word;
            return .found;
        }
        probe.tag_collisions += 1;
    }
    probe.index = vacant orelse return .full;
    return .absent;
}

/// Inserts a slot word into a table that no reader can reach yet. `Corrupt`: it is full, although
/// it was made with twice as many slots as there were entries.
pub fn insertSlot(table: Table, word: u64) error{Corrupt}!void {
    std.debug.assert(word > Slot.tombstone); // it names an entry
    const mask = table.mask();
    const home = @as(Slot, @bitCast(word)).tag & mask;
    for (0..table.slotCount()) |i| {
        const slot = &table.slots[(home + i) & mask];
        if (atomics.load(slot) == Slot.empty) return atomics.store(slot, word);
    }
    return error.Corrupt;
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

test lookupFast {
    // In tables of every history the fast path says what `find` says, or leaves it to `find`.
    var memory: [16384]u8 align(layout.page_bytes) = @splat(0);
    var view: View = .ofMemory(&memory, 0);
    const word = wordFor(8192 / 16, 4, false, 1);
    const table = (try Table.open(&view, word)).?;
    var cached: CachedTable = .empty;
    cached.remember(word, table);
    const keys = [_][]const u8{ "a", "b", "c", "d", "e", "f" };
    for (keys, 0..) |key, i| entries.write(view.at(9216 + 64 * i), 1, key, "v", 9, 0);

    var prng: std.Random.DefaultPrng = .init(7);
    const random = prng.random();
    var counts = std.EnumArray(Lookup, u32).initFill(0);
    for (0..10_000) |_| {
        // Three tags of two homes: keys share tags, probes collide, and some wrap around.
        var tags: [keys.len]Tag = undefined;
        for (&tags) |*tag| tag.* = ([_]Tag{ 15, 31, 0 })[random.uintLessThan(usize, 3)];
        for (table.slots[0..16]) |*slot| slot.* = Slot.empty;
        for (tags, 0..) |tag, i|
            if (random.boolean()) try insertSlot(table, entries.slotWord(tag, 9216 + 64 * i));
        for (table.slots[0..16]) |*slot|
            if (slot.* != Slot.empty and random.uintLessThan(u8, 4) == 0) {
                slot.* = Slot.tombstone;
            };
        for (keys, tags) |key, tag| {
            var slow: Probe = undefined;
            const outcome = find(&view, table, tag, key, &slow);
            var fast: Probe = .none;
            const lookup = lookupFast(&view, cached, word, tag, key, fast_value_max, &fast);
            counts.getPtr(lookup).* += 1;
            if (lookup == .retry) continue;
            try std.testing.expectEqual(if (lookup == .hit) Outcome.found else .absent, outcome);
            try std.testing.expectEqual(slow.index, fast.index);
            try std.testing.expectEqual(slow.slot, fast.slot);
        }
        var other: Probe = .none;
        try std.testing.expectEqual(.retry, lookupFast(&view, cached, word + 1, 0, "a", 9, &other));
    }
    for (std.enums.values(Lookup)) |lookup| try std.testing.expect(counts.get(lookup) > 100);
}

test find {
    var memory: [16384]u8 align(layout.page_bytes) = @splat(0);
    var view: View = .ofMemory(&memory, 0);
    const table = (try Table.open(&view, wordFor(8192 / 16, 4, false, 1))).?;
    const entry = view.at(9216);
    entries.write(entry, 1, "key", "hi", 9, 0);
    try insertSlot(table, entries.slotWord(5, 9216));

    var probe: Probe = undefined;
    try std.testing.expectEqual(Outcome.found, find(&view, table, 5, "key", &probe));
    try std.testing.expectEqual(@as(u64, 5), probe.index);
    const first = atomics.load(&probe.entry.valueWords()[0]);
    try std.testing.expectEqual(@as(u64, 'h' | 'i' << 8), first);
    try std.testing.expectEqual(Outcome.absent, find(&view, table, 5, "kez", &probe));
    try std.testing.expect(probe.index == 6 and probe.tag_collisions == 1);

    // A tombstone is passed and offered for reuse.
    table.slots[5] = Slot.tombstone;
    try insertSlot(table, entries.slotWord(5, 9216));
    try std.testing.expectEqual(Outcome.found, find(&view, table, 5, "key", &probe));
    try std.testing.expectEqual(@as(u64, 6), probe.index);
    try std.testing.expectEqual(Outcome.absent, find(&view, table, 5, "new", &probe));
    try std.testing.expect(probe.index == 5 and probe.slot == Slot.tombstone);

    // A slot that names bytes outside is refused, and a table without an end is left.
    table.slots[6] = entries.slotWord(5, 1 << 30);
    try std.testing.expectEqual(Outcome.corrupt, find(&view, table, 5, "key", &probe));
    for (0..16) |i| table.slots[i] = entries.slotWord(7, 9216);
    try std.testing.expectEqual(Outcome.full, find(&view, table, 5, "key", &probe));
    try std.testing.expectError(error.Corrupt, Table.open(&view, wordFor(1 << 20, 4, false, 1)));
}
