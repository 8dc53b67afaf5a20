//! Open objects as small integers: an index and a serial, checked at every call. A stale or
//! invented number is refused, never followed.
//!
//! A handle belongs to the isolate that opened it, which calls synchronously: it is not closed
//! while a call is inside. Workers that share one copy of this library open and close at the same
//! time, so the slots are taken and left with atomics.

const std = @import("std");
const os = @import("../os/os.zig");
const status = @import("../status.zig");
const Map = @import("../map/map.zig").Map;
const Region = @import("../region/region.zig").Region;

/// Set in the handles of regions, so that a number says which table it is for.
const region_mark = 1 << 30;

pub const maps = Table(Map, 0);
pub const regions = Table(Region, region_mark);

/// Whether a number can only be a region's.
pub fn isRegion(handle: u32) bool {
    return handle & region_mark != 0;
}

/// The handles of one kind of object, all of which have a `fault`.
fn Table(comptime Object: type, comptime mark: u32) type {
    return struct {
        const slot_count = 1 << 16;
        /// A serial has 14 bits; above them are the mark and the sign of an `i32`.
        const uses_max = (1 << 14) - 1;

        /// All zeros at first, so that the table costs nothing until it is used. `uses` counts the
        /// handles this slot has been; a handle's serial is one more, so that no handle is zero.
        const Slot = struct {
            object: std.atomic.Value(?*Object) = .init(null),
            uses: std.atomic.Value(u32) = .init(0),
            /// The thread that opened it, and the realm that ran on it then.
            thread: std.atomic.Value(u32) = .init(0),
            realm: std.atomic.Value(u32) = .init(0),
            taken: std.atomic.Value(bool) = .init(false),
        };

        var slots: [slot_count]Slot = @splat(.{});
        var hint: std.atomic.Value(u32) = .init(0);
        /// No slot from here on was ever taken.
        var top: std.atomic.Value(u32) = .init(0);

        /// Memory for an object about to be opened, its fault record ready. Give it back with
        /// `discard`, or make it a handle with `add`.
        pub fn create(fault: *status.Fault) status.Error!*Object {
            const memory = try os.pages(fault, @sizeOf(Object));
            const object: *Object = @ptrCast(@alignCast(memory.ptr));
            object.fault = .{};
            return object;
        }

        pub fn discard(object: *Object) void {
            const memory: [*]align(os.page_bytes) u8 = @ptrCast(@alignCast(object));
            os.freePages(memory[0..std.mem.alignForward(usize, @sizeOf(Object), os.page_bytes)]);
        }

        /// A positive number for an object that the calling thread has opened in `realm`; null when
        /// 65,536 are open.
        pub fn add(object: *Object, realm: u32) ?u32 {
            const start = hint.load(.monotonic);
            for (0..slot_count) |i| {
                const index: u32 = @intCast((start + i) % slot_count);
                const slot = &slots[index];
                if (slot.taken.cmpxchgStrong(false, true, .acquire, .monotonic) != null) continue;
                slot.thread.store(os.threadId(), .monotonic);
                slot.realm.store(realm, .monotonic);
                slot.object.store(object, .release); // pairs with the load in `get`
                hint.store(index + 1, .monotonic);
                _ = top.fetchMax(index + 1, .monotonic);
                return handleOf(slot, index);
            }
            return null;
        }

        fn handleOf(slot: *const Slot, index: u32) u32 {
            return mark | (slot.uses.load(.monotonic) + 1) << 16 | index;
        }

        /// The number of an object that is open; null: it has none.
        pub fn find(object: *const Object) ?u32 {
            for (slots[0..top.load(.monotonic)], 0..) |*slot, index| {
                if (slot.object.load(.acquire) == object) return handleOf(slot, @intCast(index));
            }
            return null;
        }

        pub inline fn get(handle: u32) ?*Object {
            const slot = &slots[handle & (slot_count - 1)];
            if ((slot.uses.load(.monotonic) +% 1) | mark >> 16 != handle >> 16) return null;
            return slot.object.load(.acquire);
        }

        /// As `get`, at the beginning of a call that may wait or fail: nothing that an earlier one
        /// noted or waited for counts for this one.
        pub inline fn begin(handle: u32) ?*Object {
            const object = get(handle) orelse return null;
            object.startCall();
            return object;
        }

        /// Makes the number stale and hands the object back. Null: it was stale.
        pub fn remove(handle: u32) ?*Object {
            const slot = &slots[handle & (slot_count - 1)];
            if (get(handle) == null) return null;
            const object = slot.object.swap(null, .acq_rel) orelse return null;
            slot.uses.store((slot.uses.load(.monotonic) + 1) % uses_max, .monotonic);
            slot.taken.store(false, .release); // pairs with the exchange in `add`
            return object;
        }

        /// Hands back, one after another, the objects a thread has open, but for those of the realm
        /// `kept`; their numbers are stale.
        pub fn removeOf(thread: u32, kept: ?u32) ?*Object {
            for (slots[0..top.load(.monotonic)], 0..) |*slot, index| {
                if (slot.object.load(.acquire) == null) continue;
                if (slot.thread.load(.monotonic) != thread) continue;
                if (kept) |realm| if (slot.realm.load(.monotonic) == realm) continue;
                if (remove(handleOf(slot, @intCast(index)))) |object| return object;
            }
            return null;
        }

        /// As `removeOf` for all threads, of which only this one runs.
        pub fn removeAny() ?*Object {
            for (slots[0..top.load(.monotonic)], 0..) |*slot, index| {
                if (slot.object.load(.acquire) == null) continue;
                if (remove(handleOf(slot, @intCast(index)))) |object| return object;
            }
            return null;
        }
    };
}

test "a handle is good until it is removed, and never again" {
    var fault: status.Fault = .{};
    const map = try maps.create(&fault);
    defer maps.discard(map);
    const handle = maps.add(map, 0).?;
    try std.testing.expect(handle > 0 and handle <= std.math.maxInt(i32));
    try std.testing.expectEqual(map, maps.get(handle).?);
    try std.testing.expect(maps.get(handle ^ 1 << 16) == null);
    try std.testing.expect(maps.get(handle | region_mark) == null);
    try std.testing.expectEqual(map, maps.remove(handle).?);
    try std.testing.expect(maps.remove(handle) == null);
    try std.testing.expect(maps.get(handle) == null);
    for (0..maps.uses_max + 2) |_| {
        const again = maps.add(map, 0).?;
        try std.testing.expect(again >> 16 != 0);
        _ = maps.remove(again);
    }
}

test "the handles of one thread, and of one kind" {
    var fault: status.Fault = .{};
    const map = try maps.create(&fault);
    defer maps.discard(map);
    const region = try regions.create(&fault);
    defer regions.discard(region);
    const handle = maps.add(map, 7).?;
    const other = regions.add(region, 7).?;
    try std.testing.expect(isRegion(other) and !isRegion(handle));
    try std.testing.expect(maps.removeOf(os.threadId() + 1, null) == null);
    try std.testing.expect(maps.removeOf(os.threadId(), 7) == null);
    try std.testing.expectEqual(map, maps.removeOf(os.threadId(), 8).?);
    try std.testing.expect(maps.get(handle) == null);
    try std.testing.expectEqual(region, regions.removeAny().?);
    try std.testing.expect(regions.get(other) == null);
}
