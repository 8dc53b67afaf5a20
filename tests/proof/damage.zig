//! Ways to damage the image of a segment: anywhere and in any way, or in what a repair can make
//! anew, with a note of the entries that may be lost by it.

const std = @import("std");
const shmap = @import("shmap");
const images = @import("images.zig");

const layout = shmap.layout;
const Image = images.Image;

pub fn flipBit(bytes: []u8, bit: u64) void {
    bytes[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
}

/// Flips a bit in each of 1 to 64 bytes anywhere.
pub fn flipSome(bytes: []u8, random: std.Random) void {
    const count = @as(u32, 1) << random.uintAtMost(u3, 6);
    for (0..random.intRangeAtMost(u32, 1, count)) |_|
        flipBit(bytes, random.uintLessThan(u64, bytes.len * 8));
}

pub fn wordAt(bytes: []align(layout.page_bytes) u8, at: u64) *u64 {
    return @ptrCast(@alignCast(bytes.ptr + at / 8 * 8));
}

/// Overwrites 1 to 4 words, most of them where the structure is, by something that might be right.
pub fn overwrite(
    image: *const Image,
    bytes: []align(layout.page_bytes) u8,
    random: std.Random,
) void {
    for (0..random.intRangeAtMost(u32, 1, 4)) |_| {
        switch (random.uintLessThan(u8, 32)) {
            0, 1 => {
                // Lists of chunks that run in a circle, or into another stripe's.
                const chunk = pick(u64, image.chunks, random) orelse continue;
                const next = wordAt(bytes, chunk + @offsetOf(layout.Chunk, "next"));
                next.* = pick(u64, image.chunks, random) orelse continue;
                continue;
            },
            2 => {
                // A table of another size, in the same place.
                const number = random.uintLessThan(u64, image.stripes());
                const stripe = layout.page_bytes + number * @sizeOf(layout.Stripe);
                const word = wordAt(bytes, stripe + @offsetOf(layout.Stripe, "table"));
                var table: layout.TableWord = @bitCast(word.*);
                table.log2 = random.int(u6);
                word.* = @bitCast(table);
                continue;
            },
            else => {},
        }
        const at = placeIn(image, random);
        wordAt(bytes, at).* = valueFor(image, bytes, wordAt(bytes, at).*, random);
    }
}

/// Lies in the header that its checksum vouches for.
pub fn forge(image: *const Image, bytes: []align(layout.page_bytes) u8, random: std.Random) void {
    const header: *layout.Header = @ptrCast(bytes.ptr);
    for (0..random.intRangeAtMost(u32, 1, 2)) |_| {
        // Magic and version have cases of their own.
        const at = random.intRangeLessThan(u64, 2, @offsetOf(layout.Header, "checksum") / 8) * 8;
        const word = wordAt(bytes, if (random.boolean()) at else 16 + at % 32);
        word.* = if (random.boolean())
            word.* ^ @as(u64, 1) << random.int(u6)
        else
            valueFor(image, bytes, word.*, random);
    }
    if (random.boolean()) header.committed = valueFor(image, bytes, header.committed, random);
    header.checksum = layout.checksum(header);
}

/// Says that more is committed than the file has, and lets slots name entries there.
pub fn stretch(image: *const Image, bytes: []align(layout.page_bytes) u8, random: std.Random) void {
    const header: *layout.Header = @ptrCast(bytes.ptr);
    const pages = (image.ceiling - bytes.len) / layout.page_bytes;
    if (pages == 0) return;
    header.committed = bytes.len + random.intRangeAtMost(u64, 1, pages) * layout.page_bytes;
    for (image.entries) |entry| {
        const word = wordAt(bytes, entry.slot);
        var slot: layout.Slot = @bitCast(word.*);
        const beyond = random.uintLessThan(u64, header.committed - bytes.len) / 16;
        slot.granule = @intCast(bytes.len / 16 + beyond);
        if (random.boolean()) word.* = @bitCast(slot);
    }
}

/// Makes a stripe believe that memory in use is free: what it allocates next lies over its table,
/// its entries or its chunks' heads. `over_table`: over the table, and the next table it makes.
pub fn overlap(
    image: *const Image,
    bytes: []align(layout.page_bytes) u8,
    random: std.Random,
    over_table: bool,
) void {
    var view = images.viewOf(bytes, image.stripe_bits);
    const stripe = view.stripe(random.uintLessThan(u32, view.stripeCount()));
    const target = placeInUse(image, random, over_table) / 16 * 16;
    if (over_table or random.boolean()) {
        for (&stripe.lists, 0..) |*head, class| {
            head.* = target;
            stripe.nonempty |= @as(u64, 1) << @intCast(class);
        }
    } else {
        stripe.bump = target;
        stripe.bump_end = target + random.uintLessThan(u64, 64) * 256;
        stripe.nonempty = 0;
    }
    if (!over_table and random.boolean()) {
        stripe.spare = target;
        stripe.spare_bytes = random.uintLessThan(u64, 257) * 16;
    }
    // With as much, no rebuild seems worth it before the next table.
    if (over_table or random.boolean()) stripe.owned = 1 << 30;
}

fn placeInUse(image: *const Image, random: std.Random, over_table: bool) u64 {
    const entry = pick(images.Entry, image.entries, random) orelse return image.dataStart();
    const table = pick(images.Table, image.tables, random) orelse return entry.offset;
    return switch (if (over_table) 3 else random.uintLessThan(u8, 6)) {
        0 => entry.offset,
        1 => pick(u64, image.chunks, random) orelse entry.offset,
        2 => table.offset -| random.uintLessThan(u64, 64) * 16,
        else => table.offset + random.uintLessThan(u64, table.slots / 2) * 16,
    };
}

/// The offset of a word: of the header, of a stripe, of a table, at the head of an entry, a free
/// block or a chunk, or any other.
pub fn placeIn(image: *const Image, random: std.Random) u64 {
    return switch (random.uintLessThan(u8, 10)) {
        0 => 256 + random.uintLessThan(u64, 20) * 8,
        1 => 2112 + random.uintLessThan(u64, 68) * 8,
        2, 3, 4 => stripeWord(image, random),
        5 => slotOf(image, random),
        6 => if (pick(images.Entry, image.entries, random)) |entry|
            entry.offset + random.uintLessThan(u64, 4) * 8
        else
            256,
        7 => pick(u64, image.links, random) orelse 2048,
        8 => chunkWord(image, random),
        else => random.uintLessThan(u64, image.bytes.len),
    };
}

fn pick(comptime Item: type, items: []const Item, random: std.Random) ?Item {
    return if (items.len == 0) null else items[random.uintLessThan(usize, items.len)];
}

fn stripeWord(image: *const Image, random: std.Random) u64 {
    const stripe = layout.page_bytes +
        random.uintLessThan(u64, image.stripes()) * @sizeOf(layout.Stripe);
    return stripe + random.intRangeLessThan(u64, 64, @sizeOf(layout.Stripe));
}

fn slotOf(image: *const Image, random: std.Random) u64 {
    const table = pick(images.Table, image.tables, random) orelse return 256;
    return table.offset + random.uintLessThan(u64, table.slots) * 8;
}

fn chunkWord(image: *const Image, random: std.Random) u64 {
    const list = if (random.boolean()) image.chunks else image.vacant;
    return (pick(u64, list, random) orelse return 2048) + random.uintLessThan(u64, 4) * 8;
}

/// Something that leads near the ends, or to what is there already, or means something else.
fn valueFor(image: *const Image, bytes: []u8, old: u64, random: std.Random) u64 {
    const end = image.bytes.len;
    return switch (random.uintLessThan(u8, 18)) {
        0 => 0,
        1 => 1,
        2 => std.math.maxInt(u64),
        3 => @as(u64, 1) << random.int(u6),
        4 => old +% 1,
        5 => old -% 1,
        6 => old ^ @as(u64, 1) << random.int(u6),
        7 => end -% random.uintLessThan(u64, 5) * 8,
        8 => end / 1024 * 1024 -% random.uintLessThan(u64, 4) * 1024,
        9 => image.ceiling -% random.uintLessThan(u64, 3) * 1024,
        10 => image.dataStart() -% 1024 +% random.uintLessThan(u64, 3) * 1024,
        11 => random.uintLessThan(u64, 70),
        12 => pick(u64, image.chunks, random) orelse 7,
        13 => (pick(u64, image.links, random) orelse 0) +% random.uintLessThan(u64, 2) * 16,
        14 => (pick(images.Entry, image.entries, random) orelse return 3).offset,
        15 => (pick(images.Table, image.tables, random) orelse return 5).offset +
            random.uintLessThan(u64, 8) * 16,
        16 => random.uintLessThan(u64, end / 16) * 16,
        else => std.mem.bytesToValue(u64, bytes[random.uintLessThan(u64, end / 8) * 8 ..][0..8]),
    };
}

/// What repairable damage may cost.
pub const Cost = struct {
    /// Of each entry: whether it must still be there, with the value it had.
    kept: []bool,

    /// The entry itself is damaged.
    fn lose(cost: *const Cost, index: usize) void {
        cost.kept[index] = false;
    }

    /// A damaged entry that still seems whole claims these bytes; what it covers may be dropped.
    fn claim(cost: *const Cost, image: *const Image, offset: u64, bytes: u64) void {
        for (image.entries, cost.kept) |entry, *kept| {
            if (entry.offset == offset) continue;
            const end = entry.offset + if (shmap.heap.isSmall(entry.bytes))
                shmap.heap.blockBytes(entry.bytes)
            else
                entry.bytes;
            const claimed = if (shmap.heap.isSmall(bytes)) shmap.heap.blockBytes(bytes) else bytes;
            if (entry.offset < offset +| claimed and offset < end) kept.* = false;
        }
    }
};

/// Damages one to three things that a repair makes anew, or can do without.
pub fn repairable(
    image: *const Image,
    bytes: []align(layout.page_bytes) u8,
    random: std.Random,
    cost: *const Cost,
) void {
    for (0..random.intRangeAtMost(u32, 1, 3)) |_| {
        const place = switch (random.uintLessThan(u8, 9)) {
            0, 1 => {
                damageEntry(image, bytes, random, cost);
                continue;
            },
            2, 3 => {
                damageSlot(image, bytes, random, cost);
                continue;
            },
            4, 5 => derivedWord(image, random),
            6 => poolWord(image, random),
            7 => pick(u64, image.links, random) orelse continue,
            else => (pick(u64, image.chunks, random) orelse continue) +
                @offsetOf(layout.Chunk, "previous"),
        };
        wordAt(bytes, place).* = valueFor(image, bytes, wordAt(bytes, place).*, random);
    }
}

fn damageEntry(
    image: *const Image,
    bytes: []align(layout.page_bytes) u8,
    random: std.Random,
    cost: *const Cost,
) void {
    if (image.entries.len == 0) return;
    const index = random.uintLessThan(usize, image.entries.len);
    const entry = &image.entries[index];
    const words = if (random.boolean()) 3 else entry.bytes / 8;
    const word = wordAt(bytes, entry.offset + random.uintLessThan(u64, words) * 8);
    word.* = if (random.boolean())
        word.* ^ @as(u64, 1) << random.int(u6)
    else
        valueFor(image, bytes, word.*, random);
    cost.lose(index);
    const sizes: layout.Entry.Sizes = @bitCast(wordAt(bytes, entry.offset + 8).*);
    cost.claim(image, entry.offset, layout.Entry.bytesFor(sizes.key_len, sizes.value_len));
}

fn damageSlot(
    image: *const Image,
    bytes: []align(layout.page_bytes) u8,
    random: std.Random,
    cost: *const Cost,
) void {
    const table = pick(images.Table, image.tables, random) orelse return;
    const at = table.offset + random.uintLessThan(u64, table.slots) * 8;
    const word = wordAt(bytes, at);
    word.* = switch (random.uintLessThan(u8, 6)) {
        0 => layout.Slot.empty,
        1 => layout.Slot.tombstone,
        2 => random.int(u64),
        3 => word.* ^ @as(u64, 1) << random.int(u6),
        else => wordAt(bytes, table.offset + random.uintLessThan(u64, table.slots) * 8).*,
    };
    for (image.entries, 0..) |entry, index| if (entry.slot == at) cost.lose(index);
    var view = images.viewOf(bytes, image.stripe_bits);
    const found = shmap.entry.ofSlot(&view, word.*) catch return;
    cost.claim(image, found.offset, found.bytes());
}

/// A word of a stripe that recovery makes anew: all but its table and its list of chunks.
fn derivedWord(image: *const Image, random: std.Random) u64 {
    const number = random.uintLessThan(u64, image.stripes());
    const stripe = layout.page_bytes + number * @sizeOf(layout.Stripe);
    while (true) {
        const few = random.boolean();
        const end: u64 = if (few) @offsetOf(layout.Stripe, "lists") else @sizeOf(layout.Stripe);
        const at = random.intRangeLessThan(u64, 8, end / 8) * 8;
        const truth = at == @offsetOf(layout.Stripe, "table") or
            at == @offsetOf(layout.Stripe, "chunks");
        if (!truth) return stripe + at;
    }
}

/// A word of the pool, or of a chunk that lies in it.
fn poolWord(image: *const Image, random: std.Random) u64 {
    if (random.boolean()) {
        if (pick(u64, image.vacant, random)) |chunk|
            return chunk + random.uintLessThan(u64, 4) * 8;
    }
    while (true) {
        const at = random.intRangeLessThan(u64, 8, @sizeOf(layout.Pool) / 8) * 8;
        // Reserved words that are not zero keep a segment from opening.
        const is_reserved = at >= @offsetOf(layout.Pool, "parked") and
            at < @offsetOf(layout.Pool, "bins");
        if (!is_reserved) return @offsetOf(layout.Header, "pool") + at;
    }
}
