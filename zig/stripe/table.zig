//! A hash table inside the segment: an array of slot words, open addressing with linear probing.
//!
//! Nothing here locks or allocates. The same probe serves writers, who hold the stripe's lock, and
//! lock-free readers, who check the stripe's generation afterwards; so every word is loaded once
//! and checked before it is used, and every loop is bounded by the table's length. A reader that
//! probes while slots change sees each slot's old or new word; the key it looks for cannot be
//! missed unless it was absent at some moment of the probe (docs/design.md, Read).

const std = @import("std");
const layout = @import("../layout.zig");
const crash = @import("../atomics.zig");

const View = layout.View;
const Slot = layout.Slot;
const Entry = layout.Entry;
const TableWord = layout.TableWord;

/// The part of a hash a table goes by.
pub const Tag = u28;

/// A probe this long, or one that met this many other keys with the very same tag, does not happen
/// to well-hashed keys at our load: somebody chose them. The writer then changes to SipHash. In a
/// table three quarters full, one probe in e^(0.038 n) is longer than n (linear probing, well
/// hashed keys): among 2^17 slots some are longer than 256.
pub const probes_suspect = 1024;
pub const twins_suspect = 16;

/// A table somebody published, checked to lie within the segment.
pub const Table = struct {
    slots: [*]u64,
    log2: u6,
    granule: u36,
    sip: bool,

    /// Assumes nothing of `word`. Null: there is no table, the stripe is empty.
    pub fn open(view: *View, word: u64) error{Corrupt}!?Table {
        if (word == 0) return null;
        const table: TableWord = @bitCast(word);
        if (!table.present or table.log2 > layout.table_log2_max) return error.Corrupt;
        const offset = @as(u64, table.granule) * layout.granule_bytes;
        if (!view.covers(offset, bytesFor(table.log2))) return error.Corrupt;
        return .of(view, word);
    }

    /// Assumes that a table may lie where `word` says.
    pub inline fn of(view: *const View, word: u64) Table {
        const table: TableWord = @bitCast(word);
        return .{
            .slots = view.at(@as(u64, table.granule) * layout.granule_bytes),
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

/// A table as a handle last found it in order, so that the word need not be checked and taken apart
/// again while it is the same.
pub const Known = struct {
    word: u64,
    slots: [*]u64,
    mask: u64,

    /// Of a stripe without a table: a single slot, in which nothing is and, being too full for any
    /// key, nothing is put.
    pub const empty: Known = .{ .word = 0, .slots = @constCast(&no_slots), .mask = 0 };
    const no_slots = [1]u64{Slot.empty};

    /// Assumes that `table` is what `word` says. Keys hashed the other way are not for `glance`.
    pub fn learn(known: *Known, word: u64, table: Table) void {
        if (!table.sip) known.* = .{ .word = word, .slots = table.slots, .mask = table.mask() };
    }

    pub inline fn slotCount(known: Known) u64 {
        return known.mask + 1;
    }

    inline fn home(known: Known, fast: u64) u64 {
        comptime std.debug.assert(layout.table_log2_max <= @bitSizeOf(Tag));
        return fast & known.mask;
    }

    inline fn after(known: Known, home_index: u64, steps: u64) u64 {
        return (home_index + steps) & known.mask;
    }

    /// Has the first slot of a key's probe brought from memory while the caller does something
    /// else. Wherever a table that was known leads, a prefetch does no harm.
    pub inline fn prefetch(known: Known, fast: u64) void {
        @prefetch(&known.slots[known.home(fast)], .{ .rw = .write });
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

/// What is told of a value that was read.
pub const Value = struct { len: u32, kind: u8, version: u64 };

/// An entry as a slot names it, with its header loaded once and checked.
pub const Found = struct {
    words: [*]const u64,
    offset: u64,
    sizes: Entry.Sizes,

    /// Assumes that the header may be touched.
    inline fn at(view: *const View, offset: u64) Found {
        const entry_words = view.at(offset);
        const sizes: Entry.Sizes = @bitCast(crash.load(&entry_words[1]));
        return .{ .words = entry_words, .offset = offset, .sizes = sizes };
    }

    pub inline fn bytes(found: Found) u64 {
        return Entry.bytesFor(found.sizes.key_len, found.sizes.value_len);
    }

    pub inline fn key(found: Found) [*]const u64 {
        return found.words + @sizeOf(Entry) / 8;
    }

    pub inline fn value(found: Found) [*]const u64 {
        return found.key() + layout.words(found.sizes.key_len);
    }

    /// Copies the value if it fits with `reserve` bytes to spare.
    pub fn copyOut(found: *const Found, target: []u8, reserve: u32) void {
        const len: u64 = found.sizes.value_len;
        if (len + reserve <= target.len) crash.copyOut(target, found.value(), len);
    }

    /// As `copyOut` if there is room for whole steps. False: there is not, and nothing was copied.
    /// Assumes that `glance` found it. Whoever says how long the key is has the value's words on
    /// their way from memory before the header is there.
    pub inline fn copyQuickly(found: *const Found, key_len: usize, target: []u8) bool {
        const len: u64 = found.sizes.value_len;
        if (len + crash.step_bytes > target.len) return false;
        crash.copySteps(target.ptr, found.key() + layout.words(key_len), len);
        return true;
    }

    /// What is told of it.
    pub inline fn told(found: Found) Value {
        return .{
            .len = found.sizes.value_len,
            .kind = found.sizes.kind,
            .version = found.version(),
        };
    }

    pub inline fn version(found: Found) u64 {
        return crash.load(&found.words[0]);
    }
};

/// The entry a slot word names. `Corrupt` for a lock-free reader may only mean that the block was
/// reused: its generation check decides.
pub fn entryAt(view: *View, slot: u64) error{Corrupt}!Found {
    const offset = offsetOf(slot);
    if (!view.covers(offset, @sizeOf(Entry))) return error.Corrupt;
    const found: Found = .at(view, offset);
    if (found.sizes.key_len == 0 or found.sizes.value_len > layout.value_bytes_max)
        return error.Corrupt;
    if (!view.covers(offset, found.bytes())) return error.Corrupt;
    return found;
}

inline fn offsetOf(slot: u64) u64 {
    return @as(u64, @as(Slot, @bitCast(slot)).granule) * layout.granule_bytes;
}

inline fn sameKey(found: *const Found, key: []const u8) bool {
    if (found.sizes.key_len != key.len) return false;
    const stored = found.key();
    const whole = key.len / 8;
    for (0..whole) |i| {
        if (crash.load(&stored[i]) != crash.wholeWord(key, i)) return false;
    }
    return key.len % 8 == 0 or crash.load(&stored[whole]) == crash.lastWord(key);
}

/// How a probe ended. `full`: without the key, and without a slot for it, which only a damaged
/// counter can cause.
pub const Outcome = enum { found, absent, full, corrupt };

/// Where a key is, or where it would go.
pub const Probe = struct {
    found: Found,
    /// The slot of the key; else the first slot an insert may take.
    index: u64,
    /// What that slot holds (empty or a tombstone when not found).
    slot: u64,
    probes: u32,
    twins: u32,

    pub const none: Probe = .{
        .found = undefined,
        .index = 0,
        .slot = Slot.empty,
        .probes = 0,
        .twins = 0,
    };

    pub fn suspicious(probe: Probe) bool {
        return probe.probes >= probes_suspect or probe.twins >= twins_suspect;
    }
};

/// What `glance` saw. `unsure`: `find` decides.
pub const Sight = enum { found, absent, unsure };

/// Finds a key if all is as it nearly always is: the table as it is known, and the key, or an empty
/// slot, near its home. No call, no result but this one, so that a compiler keeps everything in
/// registers; and no branch between the first three slots, because how many a probe takes is what
/// a processor foresees worst. At our load, all but a few keys of a hundred lie in them. It looks
/// for the key behind empty slots as well, where nothing is to be found in a sound table. What was
/// found lies within the segment together with the bytes that `crash.copySteps` reads behind it.
pub inline fn glance(
    view: *const View,
    known: Known,
    word: u64,
    fast: u64,
    key: []const u8,
    probe: *Probe,
) Sight {
    if (known.word != word) return .unsure;
    const wanted: u64 = @bitCast(Slot{ .granule = 0, .tag = @truncate(fast) });
    const home = known.home(fast);
    var slots: [3]u64 = undefined;
    // Pairs with the publish of `stripe_op.zig`: whoever sees the slot sees its entry.
    inline for (&slots, 0..) |*slot, i| slot.* = crash.acquire(&known.slots[known.after(home, i)]);
    probe.index = known.after(home, 2);
    probe.slot = slots[2];
    inline for (.{ 1, 0 }) |i| {
        const is_here = hasTag(slots[i], wanted);
        probe.index = if (is_here) known.after(home, i) else probe.index;
        probe.slot = if (is_here) slots[i] else probe.slot;
    }
    if (!hasTag(probe.slot, wanted)) return glanceAbsent(known, home, slots, probe);
    const offset = (probe.slot ^ wanted) *% layout.granule_bytes;
    const committed = view.committed;
    if (offset < view.data_start or offset + @sizeOf(Entry) > committed) return .unsure;
    probe.found = .at(view, offset);
    const sizes = probe.found.sizes;
    if (sizes.key_len != key.len or sizes.value_len > layout.value_bytes_max) return .unsure;
    if (offset + behind_bytes + key.len + sizes.value_len > committed) return .unsure;
    return if (sameKey(&probe.found, key)) .found else .unsure;
}

inline fn hasTag(slot: u64, wanted: u64) bool {
    return (slot ^ wanted) >> @bitSizeOf(@FieldType(Slot, "granule")) == 0;
}

/// More than lies between the start of an entry and the end of what a quick copy of it reads, its
/// key and value not counted: the header, what pads the key, and what the last step is too long.
const behind_bytes = @sizeOf(Entry) + 8 + crash.step_bytes;

/// Whether the first slots of a probe, none of which has the key's tag, show that it is not there:
/// an empty one, which is where it would go, behind others that are taken.
inline fn glanceAbsent(known: Known, home: u64, slots: [3]u64, probe: *Probe) Sight {
    inline for (slots, 0..) |slot, i| {
        probe.index = known.after(home, i);
        probe.slot = slot;
        if (slot == Slot.empty) return .absent;
        if (slot == Slot.tombstone) return .unsure;
    }
    return .unsure;
}

/// Expected O(1); at most one pass over the table.
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
    while (probe.probes <= mask) : (index = (index + 1) & mask) {
        probe.probes += 1;
        const word = crash.acquire(&table.slots[index]); // as in `glance`
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
        probe.found = entryAt(view, word) catch return .corrupt;
        if (sameKey(&probe.found, key)) {
            probe.index = index;
            probe.slot = word;
            return .found;
        }
        probe.twins += 1;
    }
    probe.index = vacant orelse return .full;
    return .absent;
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

    var probe: Probe = undefined;
    try std.testing.expectEqual(Outcome.found, find(&view, table, 5, "key", &probe));
    try std.testing.expectEqual(@as(u64, 5), probe.index);
    try std.testing.expectEqual(@as(u64, 'h' | 'i' << 8), crash.load(&probe.found.value()[0]));
    try std.testing.expectEqual(Outcome.absent, find(&view, table, 5, "kez", &probe));
    try std.testing.expect(probe.index == 6 and probe.twins == 1);

    // A tombstone is passed and offered for reuse.
    table.slots[5] = Slot.tombstone;
    place(table, slotWord(5, 9216));
    try std.testing.expectEqual(Outcome.found, find(&view, table, 5, "key", &probe));
    try std.testing.expectEqual(@as(u64, 6), probe.index);
    try std.testing.expectEqual(Outcome.absent, find(&view, table, 5, "new", &probe));
    try std.testing.expect(probe.index == 5 and probe.slot == Slot.tombstone);

    // A slot that names bytes outside is refused, and a table without an end is left.
    table.slots[6] = slotWord(5, 1 << 30);
    try std.testing.expectEqual(Outcome.corrupt, find(&view, table, 5, "key", &probe));
    for (0..16) |i| table.slots[i] = slotWord(7, 9216);
    try std.testing.expectEqual(Outcome.full, find(&view, table, 5, "key", &probe));
    try std.testing.expectError(error.Corrupt, Table.open(&view, wordFor(1 << 20, 4, false, 1)));
}
