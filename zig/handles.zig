//! Open maps as small integers: an index and a serial, checked at every call. A stale or invented
//! number is refused, never followed.
//!
//! A handle belongs to the isolate that opened it, which calls synchronously: nobody closes it
//! while a call is inside. Workers that share one copy of this library open and close at the same
//! time, so the slots are taken and left with atomics.

const std = @import("std");
const os = @import("os.zig");
const maps = @import("map.zig");
const status = @import("status.zig");

const Map = maps.Map;

const slot_count = 1 << 16;

/// All zeros at first, so that the table costs nothing until it is used. `uses` counts the handles
/// this slot has been; a handle's serial is one more, so that no handle is zero.
const Slot = struct {
    map: std.atomic.Value(?*Map) = .init(null),
    uses: std.atomic.Value(u32) = .init(0),
    taken: std.atomic.Value(bool) = .init(false),
};

var slots: [slot_count]Slot = @splat(.{});
var hint: std.atomic.Value(u32) = .init(0);

/// A serial has 15 bits, so that a handle is a positive `i32`.
const uses_max = (1 << 15) - 1;

/// Memory for a map about to be opened, its fault record ready. Give it back with `discard`, or
/// make it a handle with `add`.
pub fn create(fault: *status.Fault) status.Error!*Map {
    const memory = try os.pages(fault, @sizeOf(Map));
    const map: *Map = @ptrCast(@alignCast(memory.ptr));
    map.fault = .{};
    map.segment.fault = &map.fault;
    map.segment.name_len = 0;
    return map;
}

pub fn discard(map: *Map) void {
    const memory: [*]align(os.page_bytes) u8 = @ptrCast(@alignCast(map));
    os.freePages(memory[0..std.mem.alignForward(usize, @sizeOf(Map), os.page_bytes)]);
}

/// A positive number for an open map; null when 65,536 are open.
pub fn add(map: *Map) ?u32 {
    const start = hint.load(.monotonic);
    for (0..slot_count) |i| {
        const index: u32 = @intCast((start + i) % slot_count);
        const slot = &slots[index];
        if (slot.taken.cmpxchgStrong(false, true, .acquire, .monotonic) != null) continue;
        slot.map.store(map, .release); // pairs with the load in `get`
        hint.store(index + 1, .monotonic);
        return (slot.uses.load(.monotonic) + 1) << 16 | index;
    }
    return null;
}

pub inline fn get(handle: u32) ?*Map {
    const slot = &slots[handle & (slot_count - 1)];
    if (slot.uses.load(.monotonic) +% 1 != handle >> 16) return null;
    return slot.map.load(.acquire);
}

/// Makes the number stale and hands the map back. Null: it was stale.
pub fn remove(handle: u32) ?*Map {
    const slot = &slots[handle & (slot_count - 1)];
    if (slot.uses.load(.monotonic) +% 1 != handle >> 16) return null;
    const map = slot.map.swap(null, .acq_rel) orelse return null;
    slot.uses.store((slot.uses.load(.monotonic) + 1) % uses_max, .monotonic);
    slot.taken.store(false, .release); // pairs with the exchange in `add`
    return map;
}

test "a handle is good until it is removed, and never again" {
    var fault: status.Fault = .{};
    const map = try create(&fault);
    defer discard(map);
    const handle = add(map).?;
    try std.testing.expect(handle > 0 and handle <= std.math.maxInt(i32));
    try std.testing.expectEqual(map, get(handle).?);
    try std.testing.expect(get(handle ^ 1 << 16) == null);
    try std.testing.expectEqual(map, remove(handle).?);
    try std.testing.expect(remove(handle) == null);
    try std.testing.expect(get(handle) == null);
    for (0..uses_max + 2) |_| {
        const again = add(map).?;
        try std.testing.expect(again >> 16 != 0);
        _ = remove(again);
    }
}
