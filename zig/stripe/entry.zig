//! One entry: how it is written into a block, checked, compared and copied out. The bytes are drawn
//! in `layout.zig`.

const std = @import("std");
const atomics = @import("../atomics.zig");
const layout = @import("../layout.zig");
const Refusal = @import("../segment/view.zig").Refusal;
const View = @import("../segment/view.zig").View;

const Header = layout.Entry;
const Slot = layout.Slot;

/// What is known of a value without its bytes.
/// `expires`: as in the entry, 0 for never.
pub const Meta = struct { len: u32, kind: u8, version: u64, expires: u64 = 0 };

/// More than lies between the start of an entry and the end of what `copyFast` reads of it, its key
/// and value not counted: the header, what pads the key, and what the last step is too long.
pub const fast_copy_overhead = @sizeOf(Header) + 8 + atomics.step_bytes;

/// Writes an entry into a block that no slot names yet. `version`: the stripe's begin count.
/// `expires`: 0, or an end that the stripe's `next_end` is not later than (`ends.lower`).
pub inline fn write(
    block: [*]u64,
    version: u64,
    key: []const u8,
    value: []const u8,
    kind: u8,
    expires: u64,
) void {
    atomics.store(&block[0], version);
    atomics.store(&block[1], @bitCast(Header.Sizes{
        .value_len = @intCast(value.len),
        .key_len = @intCast(key.len),
        .kind = kind,
    }));
    atomics.store(&block[2], expires);
    atomics.storeBytes(block + 3, key);
    atomics.storeBytes(block + 3 + layout.words(key.len), value);
}

/// An entry that a slot names, its header loaded once.
pub const EntryView = struct {
    words: [*]const u64,
    offset: u64,
    sizes: Header.Sizes,

    /// The header must lie where it may be touched; nothing of it is checked here.
    pub inline fn at(view: *const View, offset: u64) EntryView {
        const entry_words = view.at(offset);
        const sizes: Header.Sizes = @bitCast(atomics.load(&entry_words[1]));
        return .{ .words = entry_words, .offset = offset, .sizes = sizes };
    }

    pub inline fn bytes(entry: EntryView) u64 {
        return Header.bytesFor(entry.sizes.key_len, entry.sizes.value_len);
    }

    pub inline fn keyWords(entry: EntryView) [*]const u64 {
        return entry.words + @sizeOf(Header) / 8;
    }

    /// The key's bytes, for a caller that holds the stripe's lock: they must not change meanwhile.
    pub fn key(entry: EntryView) []const u8 {
        const padded = std.mem.sliceAsBytes(entry.keyWords()[0..layout.words(entry.sizes.key_len)]);
        return padded[0..entry.sizes.key_len];
    }

    pub inline fn valueWords(entry: EntryView) [*]const u64 {
        return entry.keyWords() + layout.words(entry.sizes.key_len);
    }

    pub inline fn hasKey(entry: *const EntryView, other: []const u8) bool {
        if (entry.sizes.key_len != other.len) return false;
        const stored = entry.keyWords();
        const whole = other.len / 8;
        for (0..whole) |i| {
            if (atomics.load(&stored[i]) != atomics.wholeWord(other, i)) return false;
        }
        return other.len % 8 == 0 or atomics.load(&stored[whole]) == atomics.lastWord(other);
    }

    /// Whether the key begins with these bytes.
    pub fn hasPrefix(entry: *const EntryView, prefix: []const u8) bool {
        if (entry.sizes.key_len < prefix.len) return false;
        const stored = entry.keyWords();
        const whole = prefix.len / 8;
        for (0..whole) |i| {
            if (atomics.load(&stored[i]) != atomics.wholeWord(prefix, i)) return false;
        }
        if (prefix.len % 8 == 0) return true;
        const mask = (@as(u64, 1) << @intCast(prefix.len % 8 * 8)) - 1;
        return atomics.load(&stored[whole]) & mask == atomics.lastWord(prefix);
    }

    /// Copies the value if it fits with `reserve` bytes to spare.
    pub fn copyOut(entry: *const EntryView, target: []u8, reserve: u32) void {
        const len: u64 = entry.sizes.value_len;
        if (len + reserve <= target.len) atomics.copyOut(target, entry.valueWords(), len);
    }

    /// As `copyOut` if there is room for whole steps. False: there is not, and nothing was copied.
    /// Only for what `table.lookupFast` found: it has checked that the last step stays inside the
    /// segment. Passing the length of the key lets the processor start loading the value before the
    /// entry's header has arrived.
    pub inline fn copyFast(entry: *const EntryView, key_len: usize, target: []u8) bool {
        std.debug.assert(key_len == entry.sizes.key_len);
        const len: u64 = entry.sizes.value_len;
        if (len + atomics.step_bytes > target.len) return false;
        atomics.copySteps(target.ptr, entry.keyWords() + layout.words(key_len), len);
        return true;
    }

    pub inline fn meta(entry: EntryView) Meta {
        return .{
            .len = entry.sizes.value_len,
            .kind = entry.sizes.kind,
            .version = entry.version(),
            .expires = entry.expires(),
        };
    }

    /// When it ends; 0 for never. May be another one at the next load (`expiry.touch`).
    pub inline fn expires(entry: EntryView) u64 {
        return atomics.load(&entry.words[2]);
    }

    /// From when on it may be removed because it has ended; 0 for never.
    pub fn keptUntil(entry: EntryView) u64 {
        const end = entry.expires();
        return if (end == 0) 0 else end +| Header.graceMs(entry.sizes.grace);
    }

    pub inline fn version(entry: EntryView) u64 {
        return atomics.load(&entry.words[0]);
    }
};

/// The entry that a slot word names, checked to lie inside the segment. For a lock-free reader
/// `Corrupt` may only mean that the block was reused: its check of the generation decides.
pub inline fn ofSlot(view: *View, slot: u64) Refusal!EntryView {
    const offset = offsetOf(slot);
    try view.check(offset, @sizeOf(Header));
    var entry: EntryView = .at(view, offset);
    if (entry.sizes.key_len == 0 or entry.sizes.value_len > layout.value_bytes_max)
        return error.Corrupt;
    if (!view.coversNow(offset, entry.bytes())) {
        try view.check(offset, entry.bytes());
        // It may have begun below the end of a mapping, and now be whole in another one only.
        entry.words = view.at(offset);
    }
    return entry;
}

inline fn offsetOf(slot: u64) u64 {
    return @as(u64, @as(Slot, @bitCast(slot)).granule) * layout.granule_bytes;
}

/// The slot word for an entry at `offset` whose key has this tag.
pub fn slotWord(tag: layout.Tag, offset: u64) u64 {
    std.debug.assert(offset % layout.granule_bytes == 0);
    return @bitCast(Slot{ .granule = @intCast(offset / layout.granule_bytes), .tag = tag });
}

test "a prefix of any length is compared by each of its bytes" {
    var memory: [16384]u8 align(layout.page_bytes) = @splat(0);
    var view: View = .ofMemory(&memory, 0);
    const key = "0123456789abcdefghijklmno";
    write(view.at(9216), 1, key, "v", 3, 0);
    const entry = try ofSlot(&view, slotWord(5, 9216));
    var prefix: [key.len + 1]u8 = undefined;
    for (0..key.len + 1) |len| {
        @memcpy(prefix[0..len], key[0..len]);
        try std.testing.expect(entry.hasPrefix(prefix[0..len]));
        for (0..len) |i| {
            prefix[i] ^= 1;
            try std.testing.expect(!entry.hasPrefix(prefix[0..len]));
            prefix[i] ^= 1;
        }
    }
    prefix[key.len] = 0; // what pads a key is no part of it
    try std.testing.expect(!entry.hasPrefix(&prefix));
}

test write {
    var memory: [16384]u8 align(layout.page_bytes) = @splat(0);
    var view: View = .ofMemory(&memory, 0);
    const offset = 9216;
    write(view.at(offset), 7, "key", "hello", 3, 0);
    const entry = try ofSlot(&view, slotWord(5, offset));
    try std.testing.expectEqual(Meta{ .len = 5, .kind = 3, .version = 7 }, entry.meta());
    try std.testing.expectEqualStrings("key", entry.key());
    try std.testing.expect(entry.hasKey("key") and !entry.hasKey("kez") and !entry.hasKey("keys"));
    try std.testing.expect(entry.hasPrefix("") and entry.hasPrefix("k") and entry.hasPrefix("key"));
    try std.testing.expect(!entry.hasPrefix("K") and !entry.hasPrefix("keys"));
    var target: [5]u8 = @splat('-');
    entry.copyOut(&target, 1); // no room to spare
    try std.testing.expectEqualStrings("-----", &target);
    entry.copyOut(&target, 0);
    try std.testing.expectEqualStrings("hello", &target);
    view.at(offset)[2] = 1000;
    try std.testing.expect(entry.expires() == 1000 and entry.keptUntil() == 1000);
    // Lengths that lead outside are refused.
    view.at(offset)[1] = @bitCast(Header.Sizes{ .key_len = 3, .value_len = 8000, .kind = 3 });
    try std.testing.expectError(error.Corrupt, ofSlot(&view, slotWord(5, offset)));
    view.at(offset)[1] = @bitCast(Header.Sizes{ .key_len = 0, .value_len = 5, .kind = 3 });
    try std.testing.expectError(error.Corrupt, ofSlot(&view, slotWord(5, offset)));
}
