//! The blocks of one stripe: lists of free blocks by size class, an unused rest ("bump"), and the
//! blocks that were retired, in limbo lists, one a generation.
//!
//! All of it is derived. Every function that stores is called with the stripe's lock held and the
//! writer word set, so a crash anywhere in this file leads to `recovery.zig` rebuilding everything
//! from the table; no store order inside matters beyond that. Links lie in the free blocks
//! themselves and are checked when they are followed, because they are bytes of the segment.
//!
//! Retired blocks are given out again by epoch-based reclamation (Fraser, "Practical lock-freedom",
//! 2004), with the stripe's generation as the epoch. Readers announce nothing: a lock-free reader
//! that saw generation g may use what it read while the generation is at most g + 1
//! (docs/design.md, Read). So a block is reclaimable after two advances of the generation. Values
//! that keep their size take their blocks from that limbo list, without a free list's links, which
//! lie in the blocks and cost a cache line each.

const std = @import("std");
const layout = @import("../layout.zig");
const atomics = @import("../atomics.zig");

const Refusal = @import("../segment/view.zig").Refusal;
const View = @import("../segment/view.zig").View;
const Stripe = layout.Stripe;
const granule_bytes = layout.granule_bytes;

/// Blocks up to this size come from chunks shared with others; larger ones are chunks of their own.
pub const small_bytes_max = 4096;
/// Bytes that make a limbo list full: a sixteenth of what the stripe has, within these bounds, so
/// that what waits in three of them stays small beside what lives.
const retired_bytes_min = 2 * 1024;
const retired_bytes_max = 128 * 1024;

const line_bytes = 64;
const fine_granules = 16;
const mid_granules = 256;

/// Size classes, in granules: every one up to 16, then eight to a doubling up to 256 (the largest
/// block), then two to a doubling for the rests of chunks.
const class_granules = blk: {
    var sizes: [layout.class_count]u16 = undefined;
    var n: usize = 0;
    var g: u16 = 1;
    while (g <= fine_granules) : (g += 1) {
        sizes[n] = g;
        n += 1;
    }
    var from: u16 = fine_granules;
    while (from < mid_granules) : (from *= 2) {
        for (1..9) |i| {
            sizes[n] = from + from / 8 * i;
            n += 1;
        }
    }
    while (n < sizes.len) : (from *= 2) {
        sizes[n] = from + from / 2;
        sizes[n + 1] = from * 2;
        n += 2;
    }
    break :blk sizes;
};

/// The smallest class that holds `granules`, from 1 to 4096.
inline fn classAbove(granules: u64) u6 {
    std.debug.assert(granules >= 1 and granules <= class_granules[layout.class_count - 1]);
    if (granules <= fine_granules) return @intCast(granules - 1);
    // With from = 1 << bits: from < granules <= 2 from.
    const bits: u6 = @intCast(63 - @clz(granules - 1));
    const rest = granules - 1 - (@as(u64, 1) << bits);
    if (granules <= mid_granules)
        return @intCast(fine_granules + @as(u64, bits - 4) * 8 + (rest >> (bits - 3)));
    return @intCast(fine_granules + 32 + @as(u64, bits - 8) * 2 + (rest >> (bits - 1)));
}

/// The largest class that fits into `granules`.
fn classBelow(granules: u64) u6 {
    const top = class_granules[layout.class_count - 1];
    if (granules >= top) return layout.class_count - 1;
    const class = classAbove(granules);
    return if (class_granules[class] == granules) class else class - 1;
}

/// The bytes a block takes that must hold `bytes`.
pub inline fn blockBytes(bytes: u64) u64 {
    std.debug.assert(bytes <= small_bytes_max);
    const granules = granulesFor(bytes);
    if (granules <= fine_granules) return granules * granule_bytes;
    return @as(u64, class_granules[classAbove(granules)]) * granule_bytes;
}

inline fn granulesFor(bytes: u64) u64 {
    return (bytes + granule_bytes - 1) / granule_bytes;
}

pub fn isSmall(bytes: u64) bool {
    return bytes <= small_bytes_max;
}

/// A block for `bytes` bytes: a reclaimable one of just that size, or from the list of its size, or
/// from the unused rest. Null: none of them has one; see `takeLarger`.
pub fn take(view: *View, stripe: *Stripe, bytes: u64) Refusal!?u64 {
    return takeFrom(view, stripe, bytes);
}

/// As `take`, of what the view covers now: it stays as it is.
pub fn takeNow(view: *const View, stripe: *Stripe, bytes: u64) Refusal!?u64 {
    return takeFrom(view, stripe, bytes);
}

/// Checks that bytes may be touched; only a view that may change looks what others have added.
inline fn reach(view: anytype, offset: u64, bytes: u64) Refusal!void {
    if (@TypeOf(view) == *View) return view.check(offset, bytes);
    if (!view.coversNow(offset, bytes)) return error.Corrupt;
}

inline fn takeFrom(view: anytype, stripe: *Stripe, bytes: u64) Refusal!?u64 {
    const reclaimed = takeReclaimable(view, stripe, bytes);
    if (reclaimed != 0) return reclaimed;
    const size = blockBytes(bytes);
    const class = classAbove(granulesFor(bytes));
    const nonempty = atomics.load(&stripe.nonempty);
    if (nonempty >> class & 1 != 0) return try pop(view, stripe, class, size);
    const bump = atomics.load(&stripe.bump);
    const bump_end = atomics.load(&stripe.bump_end);
    if (bump < bump_end and bump_end - bump >= size) {
        if (bump % granule_bytes != 0) return error.Corrupt;
        try reach(view, bump, size);
        atomics.store(&stripe.bump, bump + size);
        atomics.store(&stripe.free, atomics.load(&stripe.free) -% size);
        return bump;
    }
    return null;
}

/// The next reclaimable block, if it has the size for `bytes` bytes; else 0. Never one with a
/// damaged word.
pub inline fn takeReclaimable(view: *const View, stripe: *Stripe, bytes: u64) u64 {
    const last = atomics.load(&stripe.reclaimable_count) -% 1;
    if (last >= layout.limbo_max) return 0;
    const reclaimable = &stripe.limbo[limboIndex(atomics.load(&stripe.generation) -% 2)];
    const block = retiredBlock(atomics.load(&reclaimable[last]));
    if (block.bytes != blockBytes(bytes) or !view.coversNow(block.offset, block.bytes)) return 0;
    atomics.store(&stripe.reclaimable_count, last);
    // The next one's lines are on their way from memory until it is wanted; without this the
    // unlock would wait for them. Wherever a damaged word leads, a prefetch does no harm.
    const next = retiredBlock(atomics.load(&reclaimable[last -| 1]));
    @prefetch(view.base + next.offset, .{ .rw = .write });
    @prefetch(view.base + (next.offset + line_bytes), .{ .rw = .write });
    return block.offset;
}

/// Which limbo list holds the blocks retired in a generation.
pub inline fn limboIndex(generation: u64) usize {
    return @intCast(generation % layout.limbo_count);
}

/// A block for `bytes` bytes from the largest free block, which becomes the unused rest: cutting
/// one large piece from end to end leaves fewer crumbs than cutting many a little. Null: a chunk
/// must be adopted.
pub fn takeLarger(view: *View, stripe: *Stripe, bytes: u64) Refusal!?u64 {
    const class = classAbove(blockBytes(bytes) / granule_bytes);
    const nonempty = atomics.load(&stripe.nonempty);
    if (nonempty >> class == 0) return null;
    const largest: u6 = @intCast(63 - @clz(nonempty));
    if (largest >= layout.class_count) return error.Corrupt;
    const size = @as(u64, class_granules[largest]) * granule_bytes;
    try checkRest(view, stripe);
    const offset = try pop(view, stripe, largest, size);
    try adoptRest(view, stripe, offset, offset + size);
    return take(view, stripe, bytes);
}

/// Takes the first block of a class, whose blocks have `size` bytes.
inline fn pop(view: anytype, stripe: *Stripe, class: u6, size: u64) Refusal!u64 {
    const offset = atomics.load(&stripe.lists[class]);
    if (offset % granule_bytes != 0) return error.Corrupt;
    try reach(view, offset, size);
    const next = atomics.load(&view.at(offset)[0]);
    atomics.store(&stripe.lists[class], next);
    if (next == 0) {
        const bit = @as(u64, 1) << class;
        atomics.store(&stripe.nonempty, atomics.load(&stripe.nonempty) & ~bit);
    }
    atomics.store(&stripe.free, atomics.load(&stripe.free) -% size);
    return offset;
}

/// Adds `bytes` free bytes at `offset` (a multiple of granules) to the lists, in as many blocks as
/// the classes ask for. The range lies inside a chunk of this stripe.
pub fn give(view: *View, stripe: *Stripe, offset: u64, bytes: u64) void {
    std.debug.assert(offset % granule_bytes == 0 and view.coversNow(offset, bytes));
    var at = offset;
    var left = bytes / granule_bytes;
    while (left > 0) {
        const class = classBelow(left);
        const granules = class_granules[class];
        atomics.store(&view.at(at)[0], atomics.load(&stripe.lists[class]));
        atomics.store(&stripe.lists[class], at);
        atomics.store(&stripe.nonempty, atomics.load(&stripe.nonempty) | @as(u64, 1) << class);
        at += @as(u64, granules) * granule_bytes;
        left -= granules;
    }
    atomics.store(&stripe.free, atomics.load(&stripe.free) +% bytes);
}

/// `NoSpace`: this process cannot reach the unused rest, so it cannot replace it either.
fn checkRest(view: *View, stripe: *const Stripe) error{NoSpace}!void {
    const bump = atomics.load(&stripe.bump);
    const bump_end = atomics.load(&stripe.bump_end);
    if (bump >= bump_end) return;
    view.check(bump, bump_end - bump) catch |err| if (err == error.NoSpace) return error.NoSpace;
}

/// Makes the bytes between `offset` and `end` the unused rest; the old rest goes to the lists.
/// `NoSpace`: nothing changed.
pub fn adoptRest(view: *View, stripe: *Stripe, offset: u64, end: u64) error{NoSpace}!void {
    try checkRest(view, stripe);
    const bump = atomics.load(&stripe.bump);
    const bump_end = atomics.load(&stripe.bump_end);
    atomics.store(&stripe.bump_end, 0);
    if (bump < bump_end and bump % granule_bytes == 0 and view.covers(bump, bump_end - bump)) {
        atomics.store(&stripe.free, atomics.load(&stripe.free) -% (bump_end - bump));
        give(view, stripe, bump, bump_end - bump);
    }
    atomics.store(&stripe.bump, offset);
    atomics.store(&stripe.bump_end, end);
    atomics.store(&stripe.free, atomics.load(&stripe.free) +% (end - offset));
}

/// Whether the block kept back is as large as one for `bytes` bytes.
pub inline fn hasSpare(stripe: *const Stripe, bytes: u64) bool {
    return atomics.load(&stripe.spare) != 0 and
        atomics.load(&stripe.spare_bytes) >= blockBytes(bytes);
}

/// Whether the words of the block kept back are such as `keepSpare` leaves, and there is one.
pub fn isSpareSound(stripe: *const Stripe) bool {
    const offset = atomics.load(&stripe.spare);
    const bytes = atomics.load(&stripe.spare_bytes);
    return offset != 0 and offset % granule_bytes == 0 and bytes > 0 and isSmall(bytes) and
        blockBytes(bytes) == bytes;
}

/// Keeps a block back that `take` gave for `bytes` bytes; the smaller one before it becomes free.
pub fn keepSpare(view: *View, stripe: *Stripe, offset: u64, bytes: u64) Refusal!void {
    try giveSpare(view, stripe);
    atomics.store(&stripe.spare_bytes, blockBytes(bytes));
    atomics.store(&stripe.spare, offset);
}

/// Makes the block kept back a free one.
pub fn giveSpare(view: *View, stripe: *Stripe) Refusal!void {
    const offset = atomics.load(&stripe.spare);
    const bytes = atomics.load(&stripe.spare_bytes);
    if (offset == 0) return;
    if (!isSpareSound(stripe)) return error.Corrupt;
    try view.check(offset, bytes);
    atomics.store(&stripe.spare, 0);
    give(view, stripe, offset, bytes);
}

/// Forgets every free and retired block, but not the one kept back. The first steps of a rebuild:
/// from here to its end the stripe merely seems full.
pub fn reset(stripe: *Stripe) void {
    atomics.store(&stripe.retired_count, 0);
    atomics.store(&stripe.aging_count, 0);
    atomics.store(&stripe.reclaimable_count, 0);
    atomics.store(&stripe.limbo_room, roomOf(stripe));
    atomics.store(&stripe.bump, 0);
    atomics.store(&stripe.bump_end, 0);
    atomics.store(&stripe.nonempty, 0);
    for (&stripe.lists) |*list| atomics.store(list, 0);
    atomics.store(&stripe.free, 0);
    atomics.store(&stripe.freed, 0);
}

/// Blocks with a chunk of their own that `advance` found free: the caller gives them back to the
/// pool, which needs a lock this file knows nothing of.
pub const Large = struct {
    chunks: [layout.limbo_max]u64,
    count: usize,

    pub fn slice(large: *const Large) []const u64 {
        return large.chunks[0..large.count];
    }
};

/// A block in a limbo list.
const Retired = packed struct(u64) { granule: u36, granules: u28 };

/// The bytes a limbo list may hold.
fn roomOf(stripe: *const Stripe) u64 {
    return std.math.clamp(atomics.load(&stripe.owned) / 16, retired_bytes_min, retired_bytes_max);
}

/// Notes that a block is unreachable from now on: the caller has overwritten the slot or table word
/// that named it. True: the limbo list is full, `advance` is due.
pub inline fn retire(stripe: *Stripe, offset: u64, bytes: u64) bool {
    const count = atomics.load(&stripe.retired_count);
    // Only a damaged count is as large; the block is then lost until a rebuild.
    if (count >= layout.limbo_max) return true;
    const size = if (isSmall(bytes)) blockBytes(bytes) else bytes;
    const word: Retired = .{
        .granule = @intCast(offset / granule_bytes),
        .granules = @intCast(granulesFor(size)),
    };
    const room = atomics.load(&stripe.limbo_room) -| size;
    const newest = &stripe.limbo[limboIndex(atomics.load(&stripe.generation))];
    atomics.store(&newest[count], @bitCast(word));
    atomics.store(&stripe.limbo_room, room);
    atomics.store(&stripe.retired_count, count + 1);
    return count + 1 == layout.limbo_max or room == 0;
}

pub const Block = struct { offset: u64, bytes: u64 };

pub inline fn retiredBlock(word: u64) Block {
    const block: Retired = @bitCast(word);
    return .{
        .offset = @as(u64, block.granule) * granule_bytes,
        .bytes = @as(u64, block.granules) * granule_bytes,
    };
}

/// The limbo lists, the newest first and the reclaimable one last. `Corrupt`: a count is too large.
pub fn limboLists(stripe: *Stripe) error{Corrupt}![3][]u64 {
    var all: [3][]u64 = undefined;
    const generation = atomics.load(&stripe.generation);
    const counts = [3]*u64{ &stripe.retired_count, &stripe.aging_count, &stripe.reclaimable_count };
    for (&all, counts, 0..) |*list, word, age| {
        const count = atomics.load(word);
        if (count > layout.limbo_max) return error.Corrupt;
        list.* = stripe.limbo[limboIndex(generation -% age)][0..count];
    }
    return all;
}

/// Walks all free blocks, for checks, in pieces no larger than an allocated block can be.
/// `Corrupt`: a link leads outside, or a list does not end.
pub const FreeBlocks = struct {
    view: *View,
    stripe: *Stripe,
    class: usize = 0,
    link: u64,
    /// Granules the lists may still hold.
    left: u64,
    rest: Block,

    pub fn of(view: *View, stripe: *Stripe) FreeBlocks {
        const bump = atomics.load(&stripe.bump);
        return .{
            .view = view,
            .stripe = stripe,
            .link = atomics.load(&stripe.lists[0]),
            .left = view.committed / granule_bytes,
            .rest = .{ .offset = bump, .bytes = atomics.load(&stripe.bump_end) -| bump },
        };
    }

    pub fn next(blocks: *FreeBlocks) Refusal!?Block {
        while (blocks.rest.bytes == 0) {
            if (blocks.link == 0) {
                blocks.class += 1;
                if (blocks.class == layout.class_count) return null;
                blocks.link = atomics.load(&blocks.stripe.lists[blocks.class]);
                continue;
            }
            const granules = class_granules[blocks.class];
            const bytes = @as(u64, granules) * granule_bytes;
            if (blocks.link % granule_bytes != 0) return error.Corrupt;
            try blocks.view.check(blocks.link, bytes);
            if (blocks.left < granules) return error.Corrupt;
            blocks.left -= granules;
            blocks.rest = .{ .offset = blocks.link, .bytes = bytes };
            blocks.link = atomics.load(&blocks.view.at(blocks.link)[0]);
        }
        const granules = @min(blocks.rest.bytes / granule_bytes, mid_granules);
        if (granules == 0) return error.Corrupt;
        const bytes = @as(u64, class_granules[classBelow(granules)]) * granule_bytes;
        const block: Block = .{ .offset = blocks.rest.offset, .bytes = bytes };
        blocks.rest = .{ .offset = block.offset + bytes, .bytes = blocks.rest.bytes - bytes };
        return block;
    }
};

/// Bytes in all limbo lists; 0 if a count is damaged.
pub fn retiredBytes(stripe: *Stripe) u64 {
    var total: u64 = 0;
    for (limboLists(stripe) catch return 0) |list| {
        for (list) |*word| total += retiredBlock(atomics.load(word)).bytes;
    }
    return total;
}

/// Advances the generation: the limbo list of the generation before the last becomes reclaimable.
/// `large` is set to what that list held of blocks with a chunk of their own.
pub fn advance(view: *View, stripe: *Stripe, large: *Large) Refusal!void {
    large.count = 0;
    try giveReclaimable(view, stripe); // what no write took: writes want other sizes
    const aging = (try limboLists(stripe))[1];
    // Release, and a fence behind: a reader that meets reused bytes must also meet the new
    // generation. Pairs with the load fence before a reader's last look (`read.zig`).
    atomics.storeRelease(&stripe.generation, atomics.load(&stripe.generation) +% 1);
    atomics.storeFence();
    var count: u64 = 0;
    for (aging, 0..) |*word, i| {
        const block = retiredBlock(atomics.load(word));
        if (isSmall(block.bytes)) {
            if (count != i) atomics.store(&aging[count], atomics.load(word));
            count += 1;
        } else {
            // That there is a chunk the pool sees to when it takes it back.
            if (block.offset < @sizeOf(layout.Chunk)) return error.Corrupt;
            large.chunks[large.count] = block.offset - @sizeOf(layout.Chunk);
            large.count += 1;
        }
    }
    atomics.store(&stripe.reclaimable_count, count);
    atomics.store(&stripe.aging_count, atomics.load(&stripe.retired_count));
    atomics.store(&stripe.retired_count, 0);
    atomics.store(&stripe.limbo_room, roomOf(stripe));
}

/// Brings the reclaimable blocks to the free lists, from where they are cut to any size. `NoSpace`:
/// those that this process cannot reach stay reclaimable, with those before them.
pub fn giveReclaimable(view: *View, stripe: *Stripe) Refusal!void {
    const reclaimable = (try limboLists(stripe))[2];
    atomics.store(&stripe.reclaimable_count, 0);
    var left = reclaimable.len;
    errdefer atomics.store(&stripe.reclaimable_count, left);
    while (left > 0) : (left -= 1) {
        const block = retiredBlock(atomics.load(&reclaimable[left - 1]));
        if (!isSmall(block.bytes)) return error.Corrupt;
        try view.check(block.offset, block.bytes);
        give(view, stripe, block.offset, block.bytes);
        atomics.store(&stripe.freed, atomics.load(&stripe.freed) +% block.bytes);
    }
}

/// Whether a rebuild would bring together enough free bytes to be worth its pass over the stripe:
/// half of what the stripe owns, and a quarter freed since the last one (so the cost is shared by
/// that many frees).
pub fn worthRebuilding(stripe: *const Stripe) bool {
    const owned = atomics.load(&stripe.owned);
    return owned >= 8 * layout.unit_bytes and atomics.load(&stripe.free) >= owned / 2 and
        atomics.load(&stripe.freed) >= owned / 4;
}

test "every size falls into the smallest class that holds it" {
    var last: u16 = 0;
    for (class_granules) |size| {
        try std.testing.expect(size > last);
        last = size;
    }
    try std.testing.expectEqual(@as(u16, 4096), last);
    for (1..4097) |granules| {
        const class = classAbove(granules);
        try std.testing.expect(class_granules[class] >= granules);
        try std.testing.expect(class == 0 or class_granules[class - 1] < granules);
        try std.testing.expect(class_granules[classBelow(granules)] <= granules);
    }
}

test "blocks are given, taken, split and given back without loss" {
    var memory: [131072]u8 align(layout.page_bytes) = @splat(0);
    var view: View = .ofMemory(&memory, 0);
    const stripe = view.stripe(0);
    try adoptRest(&view, stripe, 65536, 131072);
    var random = std.Random.DefaultPrng.init(1);
    var held: std.ArrayList([2]u64) = .empty;
    defer held.deinit(std.testing.allocator);
    for (0..20_000) |_| {
        if (random.random().boolean()) {
            const bytes = random.random().intRangeAtMost(u64, 32, 4096);
            const offset = try take(&view, stripe, bytes) orelse
                try takeLarger(&view, stripe, bytes) orelse continue;
            const size = blockBytes(bytes);
            for (held.items) |other|
                try std.testing.expect(offset + size <= other[0] or other[0] + other[1] <= offset);
            try held.append(std.testing.allocator, .{ offset, size });
        } else if (held.items.len > 0) {
            const block = held.swapRemove(random.random().uintLessThan(usize, held.items.len));
            give(&view, stripe, block[0], block[1]);
        }
    }
    var total = atomics.load(&stripe.free);
    for (held.items) |block| total += block[1];
    try std.testing.expectEqual(@as(u64, 65536), total);
}

test "a retired block is free after two advances, not before" {
    var memory: [131072]u8 align(layout.page_bytes) = @splat(0);
    var view: View = .ofMemory(&memory, 0);
    const stripe = view.stripe(0);
    reset(stripe);
    try std.testing.expect(!retire(stripe, 65536, 80));
    // A limbo list is full by bytes, too.
    try std.testing.expect(retire(stripe, 65536 + 4096, 5000));
    var large: Large = undefined;
    try advance(&view, stripe, &large);
    try std.testing.expectEqual(@as(?u64, null), try take(&view, stripe, 80));
    try std.testing.expectEqual(@as(usize, 0), large.count);
    try advance(&view, stripe, &large);
    try std.testing.expectEqualSlices(u64, &.{65536 + 4096 - 64}, large.slice());
    try std.testing.expectEqual(@as(u64, 2), atomics.load(&stripe.generation));
    try std.testing.expectEqual(@as(?u64, null), try take(&view, stripe, 96)); // of its size only
    try std.testing.expectEqual(@as(?u64, 65536), try take(&view, stripe, 70));
    try std.testing.expectEqual(@as(?u64, null), try take(&view, stripe, 80));
}

test "a reclaimable block that no write takes comes to the free lists" {
    var memory: [131072]u8 align(layout.page_bytes) = @splat(0);
    var view: View = .ofMemory(&memory, 0);
    const stripe = view.stripe(0);
    reset(stripe);
    _ = retire(stripe, 65536, 80);
    var large: Large = undefined;
    for (0..3) |_| try advance(&view, stripe, &large);
    try std.testing.expectEqual(@as(u64, 80), atomics.load(&stripe.free));
    try std.testing.expectEqual(@as(?u64, 65536), try takeLarger(&view, stripe, 32));
}
