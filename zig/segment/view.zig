//! What one handle sees of a segment: where it is mapped, and how much of it may be touched.

const std = @import("std");
const atomics = @import("../atomics.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const status = @import("../status.zig");
const Mappings = @import("mappings.zig").Mappings;

const page_bytes = layout.page_bytes;

/// Why bytes may not be touched. `Corrupt`: they lie outside the segment. `NoSpace`: they lie
/// inside it, and this process has no address space left for them; nothing is damaged.
pub const Refusal = error{ Corrupt, NoSpace };

pub const View = struct {
    /// The newest mapping. Older ones show the same bytes and stay where they are.
    base: [*]align(page_bytes) u8,
    /// How long it is; never less than `committed`.
    mapped: u64,
    /// A checked copy of the header's `committed`; the shared word only grows.
    committed: u64,
    ceiling: u64,
    /// `layout.dataOffset` of the stripes: nothing that can be damaged leads before it.
    data_start: u64,
    stripe_bits: u6,
    /// All that the handle has mapped; null for plain memory, which never grows.
    mappings: ?*Mappings,

    /// A view of plain memory that never grows.
    pub fn ofMemory(memory: []align(page_bytes) u8, stripe_bits: u6) View {
        return .{
            .base = memory.ptr,
            .mapped = memory.len,
            .committed = memory.len,
            .ceiling = memory.len,
            .data_start = layout.dataOffset(stripe_bits),
            .stripe_bits = stripe_bits,
            .mappings = null,
        };
    }

    pub inline fn header(view: *const View) *layout.Header {
        return @ptrCast(view.base);
    }

    pub inline fn stripeCount(view: *const View) u32 {
        return @as(u32, 1) << @intCast(view.stripe_bits);
    }

    pub inline fn stripe(view: *const View, index: u32) *layout.Stripe {
        return stripeAt(view.base, index);
    }

    /// Checks that `bytes` bytes at `offset` lie inside the data and may be touched.
    pub inline fn check(view: *View, offset: u64, bytes: u64) Refusal!void {
        if (!view.coversNow(offset, bytes)) try view.checkSlow(offset, bytes);
    }

    noinline fn checkSlow(view: *View, offset: u64, bytes: u64) Refusal!void {
        const found = view.refresh();
        if (view.coversNow(offset, bytes)) return;
        // What lies beyond even what others have committed is damage, however much can be mapped.
        const committed = atomics.load(&view.header().committed);
        const is_inside = offset >= view.data_start and offset +| bytes <= committed;
        return if (found == .unmapped and is_inside) error.NoSpace else error.Corrupt;
    }

    /// Whether `bytes` bytes at `offset` lie inside the data and may be touched.
    pub inline fn covers(view: *View, offset: u64, bytes: u64) bool {
        return if (view.check(offset, bytes)) true else |_| false;
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

    /// What a look at the header's `committed` ended with. `damaged`: the word makes no sense, or
    /// the file is shorter. `unmapped`: this process has no address space for what was added; the
    /// view is as before, and why stands in the fault record.
    pub const Refreshed = enum { current, damaged, unmapped };

    /// Adopts a `committed` that another process raised, once the file is known to be as long. The
    /// word is input: it may be anything.
    pub noinline fn refresh(view: *View) Refreshed {
        const mappings = view.mappings orelse return .damaged;
        const committed = atomics.loadAcquire(&view.header().committed); // pairs with `grow`
        if (committed == view.committed) return .current;
        if (committed < view.committed or committed > view.ceiling) return .damaged;
        if (committed % page_bytes != 0) return .damaged;
        var fault: status.Fault = .{};
        const stat = os.stat(&fault, mappings.file) catch return .damaged;
        if (stat.size < committed) return .damaged;
        view.extend(committed) catch {
            mappings.fault.reason = @floatFromInt(@intFromEnum(status.Reason.addressSpace));
            return .unmapped;
        };
        return .current;
    }

    /// Makes what the file has grown by part of the mapping, up to `committed`, or maps it all once
    /// more. On failure nothing changes.
    pub fn extend(view: *View, committed: u64) status.Error!void {
        std.debug.assert(committed >= view.committed and committed <= view.ceiling);
        const mappings = view.mappings.?;
        if (committed > view.mapped) {
            const newest = try mappings.add(committed, view.ceiling);
            view.base = newest.base;
            view.mapped = newest.bytes;
        }
        const base = view.base;
        const from = view.committed;
        try os.extend(mappings.fault, mappings.file, base, from, committed, mappings.access);
        // Last: nothing below `committed` may be without a mapping.
        view.committed = committed;
    }
};

/// A stripe of the segment that is mapped at `base`.
pub inline fn stripeAt(base: [*]align(page_bytes) u8, index: u32) *layout.Stripe {
    const stripes: [*]layout.Stripe = @ptrCast(@alignCast(base + page_bytes));
    return &stripes[index];
}

test "plain memory is covered from the end of its stripes to its own" {
    var memory: [16384]u8 align(page_bytes) = @splat(0);
    var view: View = .ofMemory(&memory, 0);
    const start = layout.dataOffset(0);
    try std.testing.expect(view.covers(start, memory.len - start));
    try std.testing.expect(!view.covers(start - 16, 16));
    try std.testing.expect(!view.covers(start, memory.len));
    try std.testing.expect(!view.covers(std.math.maxInt(u64), 16));
}
