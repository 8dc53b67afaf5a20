//! Reading a value into memory of the caller, of which nothing behind the value may change.

const std = @import("std");
const atomics = @import("../atomics.zig");
const read = @import("read.zig");
const status = @import("../status.zig");
const Map = @import("map.zig").Map;
const Meta = @import("../stripe/entry.zig").Meta;

const Error = status.Error;

/// Copies the value of `key` if it fits and its kind is among `kinds`, a bit for each. Null: there
/// is none. A value that is replaced by a shorter one during the call may leave bytes of its own
/// behind that.
pub fn getInto(map: *Map, key: []const u8, kinds: u32, target: []u8) Error!?Meta {
    while (true) {
        const meta = try read.getMeta(map, key) orelse return null;
        const is_wanted = meta.kind < 32 and kinds & @as(u32, 1) << @intCast(meta.kind) != 0;
        if (!is_wanted or meta.len > target.len) return meta;
        // The fast path needs room for a step more, and writes there.
        const rest_len = @min(atomics.step_bytes, target.len - meta.len);
        var behind: [atomics.step_bytes]u8 = undefined;
        const rest = target[meta.len..][0..rest_len];
        @memcpy(behind[0..rest_len], rest);
        defer @memcpy(rest, behind[0..rest_len]);
        const found = try read.get(map, key, target[0 .. meta.len + rest_len], 0);
        // Of another length it was replaced meanwhile, as often as this happens.
        if (found) |now| if (now.len == meta.len) return now;
    }
}

test getInto {
    const calls = @import("../testing/calls.zig");
    const support = @import("../testing/support.zig");
    const map = try support.openMap(0, 4 << 20);
    defer support.closeMap(map);
    for (0..100) |len| {
        var value: [100]u8 = @splat('v');
        try std.testing.expect(try calls.put(map, "key", value[0..len], 3, .none));
        for ([_]usize{ 0, 1, 7, 31, 32, 33, 99, 140 }) |room| {
            var target: [150]u8 = @splat('-');
            const meta = (try getInto(map, "key", 1 << 3, target[0..room])).?;
            try std.testing.expect(meta.len == len and meta.kind == 3);
            const copied = if (len <= room) len else 0;
            try std.testing.expect(std.mem.allEqual(u8, target[0..copied], 'v'));
            try std.testing.expect(std.mem.allEqual(u8, target[copied..], '-'));
        }
    }
    var none: [0]u8 = .{};
    try std.testing.expectEqual(@as(?Meta, null), try getInto(map, "absent", 1, &none));
}
