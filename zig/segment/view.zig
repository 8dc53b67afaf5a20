//! What one handle sees of a segment: where it is mapped, and how much of it may be touched.

const std = @import("std");
const atomics = @import("../atomics.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const status = @import("../status.zig");

const page_bytes = layout.page_bytes;

pub const View = struct {
    base: [*]align(page_bytes) u8,
    /// A checked copy of the header's `committed`; the shared word only grows.
    committed: u64,
    ceiling: u64,
    /// `layout.dataOffset` of the stripes: nothing that can be damaged leads before it.
    data_start: u64,
    stripe_bits: u6,
    /// The file that is mapped, and for what.
    file: os.Fd,
    access: os.Access,

    /// A view of plain memory that never grows.
    pub fn ofMemory(memory: []align(page_bytes) u8, stripe_bits: u6) View {
        return .{
            .base = memory.ptr,
            .committed = memory.len,
            .ceiling = memory.len,
            .data_start = layout.dataOffset(stripe_bits),
            .stripe_bits = stripe_bits,
            .file = os.no_file,
            .access = .read,
        };
    }

    pub inline fn header(view: *const View) *layout.Header {
        return @ptrCast(view.base);
    }

    pub inline fn stripeCount(view: *const View) u32 {
        return @as(u32, 1) << @intCast(view.stripe_bits);
    }

    pub inline fn stripe(view: *const View, index: u32) *layout.Stripe {
        const stripes: [*]layout.Stripe = @ptrCast(@alignCast(view.base + page_bytes));
        return &stripes[index];
    }

    /// Whether `bytes` bytes at `offset` lie inside the data and may be touched.
    pub inline fn covers(view: *View, offset: u64, bytes: u64) bool {
        if (view.coversNow(offset, bytes)) return true;
        return view.refresh() and view.coversNow(offset, bytes);
    }

    /// As `covers`, without a look at what other processes have added since.
    pub inline fn coversNow(view: *const View, offset: u64, bytes: u64) bool {
        return offset >= view.data_start and offset +| bytes <= view.committed;
    }

    pub inline fn at(view: *const View, offset: u64) [*]u64 {
        return @ptrCast(@alignCast(view.base + offset));
    }

    pub inline fn chunk(view: *const View, offset: u64) *layout.Chunk {
        return @ptrCast(@alignCast(view.base + offset));
    }

    /// Adopts a `committed` that another process raised, once the file is known to be as long. The
    /// word is input: it may be anything. False: it makes no sense, or the file is shorter.
    pub noinline fn refresh(view: *View) bool {
        if (view.file == os.no_file) return false;
        const committed = atomics.loadAcquire(&view.header().committed); // pairs with `grow`
        if (committed == view.committed) return true;
        if (committed < view.committed or committed > view.ceiling) return false;
        if (committed % page_bytes != 0) return false;
        var fault: status.Fault = .{};
        const stat = os.stat(&fault, view.file) catch return false;
        if (stat.size < committed) return false;
        view.extend(&fault, committed) catch return false;
        return true;
    }

    /// Makes what the file has grown by part of the mapping, up to `committed`.
    pub fn extend(view: *View, fault: *status.Fault, committed: u64) status.Error!void {
        std.debug.assert(committed >= view.committed and committed <= view.ceiling);
        try os.extend(fault, view.file, view.base, view.committed, committed, view.access);
        view.committed = committed;
    }
};

test "plain memory is covered from the end of its stripes to its own" {
    var memory: [16384]u8 align(page_bytes) = @splat(0);
    var view: View = .ofMemory(&memory, 0);
    const start = layout.dataOffset(0);
    try std.testing.expect(view.covers(start, memory.len - start));
    try std.testing.expect(!view.covers(start - 16, 16));
    try std.testing.expect(!view.covers(start, memory.len));
    try std.testing.expect(!view.covers(std.math.maxInt(u64), 16));
}
