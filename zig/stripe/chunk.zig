//! The head of a chunk, and of any extent of the pool: written by its owner under the pool's lock,
//! and input to all who read it.

const std = @import("std");
const atomics = @import("../atomics.zig");
const layout = @import("../layout.zig");

const Refusal = @import("../segment/view.zig").Refusal;
const View = @import("../segment/view.zig").View;
const Chunk = layout.Chunk;
const page_bytes = layout.page_bytes;
const unit_bytes = layout.unit_bytes;

/// `layout.Chunk.extent`. `owner` is the stripe and one, or 0 in the pool.
pub const Extent = packed struct(u64) { owner: u32, units: u32 };

/// An extent as its header describes it, loaded once and checked.
pub const Checked = struct {
    offset: u64,
    units: u64,
    /// The owning stripe, null in the pool.
    stripe: ?u32,
    next: u64,
    previous: u64,
    /// Of one that parks: how many of its first bytes surely have blocks. Null: it has them all,
    /// and is ordinary space.
    dense: ?u64,

    pub fn bytes(extent: Checked) u64 {
        return extent.units * unit_bytes;
    }

    /// How many of its bytes have blocks.
    pub fn blockBytes(extent: Checked) u64 {
        return extent.dense orelse extent.bytes();
    }

    /// How many of its bytes may be a hole.
    pub fn holeBytes(extent: Checked) u64 {
        return extent.bytes() - extent.blockBytes();
    }

    /// Where its usable bytes begin and end.
    pub fn start(extent: Checked) u64 {
        return extent.offset + @sizeOf(Chunk);
    }

    pub fn end(extent: Checked) u64 {
        return extent.offset + extent.bytes();
    }
};

pub fn unitsFor(bytes: u64) u64 {
    return (bytes + @sizeOf(Chunk) + unit_bytes - 1) / unit_bytes;
}

pub fn checked(view: *View, offset: u64) Refusal!Checked {
    if (offset % unit_bytes != 0 or offset < view.data_start) return error.Corrupt;
    try view.check(offset, unit_bytes);
    const head = view.chunk(offset);
    const extent: Extent = @bitCast(atomics.load(&head.extent));
    if (atomics.load(&head.check) != layout.chunkCheck(offset) or extent.units == 0)
        return error.Corrupt;
    const bytes = @as(u64, extent.units) * unit_bytes;
    try view.check(offset, bytes);
    return .{
        .offset = offset,
        .units = extent.units,
        .stripe = if (extent.owner == 0) null else extent.owner - 1,
        .next = atomics.load(&head.next),
        .previous = atomics.load(&head.previous),
        .dense = try denseOf(head, offset, bytes),
    };
}

fn denseOf(head: *const Chunk, offset: u64, bytes: u64) error{Corrupt}!?u64 {
    switch (atomics.load(&head.parks)) {
        0 => return null,
        1 => {},
        else => return error.Corrupt,
    }
    const dense = atomics.load(&head.dense);
    // Its first page always has its block: headers and keys of all times lie there.
    const is_whole = offset % page_bytes == 0 and bytes % page_bytes == 0 and
        dense % page_bytes == 0 and dense >= page_bytes and dense <= bytes;
    return if (is_whole) dense else error.Corrupt;
}

/// Writes the header of an extent that lies in no list, but for its links.
pub fn describe(view: *View, offset: u64, owner: u32, units: u64, dense: ?u64) void {
    const head = view.chunk(offset);
    const extent: Extent = .{ .owner = owner, .units = @intCast(units) };
    atomics.store(&head.extent, @bitCast(extent));
    // What an extent that parks no more had there would be read with the mark of one that does.
    if (dense) |bytes| atomics.store(&head.dense, bytes);
    atomics.store(&head.parks, @intFromBool(dense != null));
    atomics.store(&head.check, layout.chunkCheck(offset));
}

test checked {
    const memory = try std.testing.allocator.alignedAlloc(u8, .fromByteUnits(4096), 1 << 16);
    defer std.testing.allocator.free(memory);
    @memset(memory, 0);
    var view: View = .ofMemory(memory, 0);
    const offset = 3 * page_bytes;
    describe(&view, offset, 1, 8, null);
    const ordinary = try checked(&view, offset);
    try std.testing.expectEqual(@as(u64, 0), ordinary.holeBytes());
    describe(&view, offset, 0, 8, page_bytes);
    const parked = try checked(&view, offset);
    try std.testing.expectEqual(@as(?u32, null), parked.stripe);
    try std.testing.expectEqual(@as(u64, page_bytes), parked.holeBytes());
    const head = view.chunk(offset);
    for ([_]u64{ 0, 1, page_bytes - 8, 3 * page_bytes }) |dense| {
        head.dense = dense;
        try std.testing.expectError(error.Corrupt, checked(&view, offset));
    }
    head.dense = 2 * page_bytes;
    head.parks = 2;
    try std.testing.expectError(error.Corrupt, checked(&view, offset));
}
