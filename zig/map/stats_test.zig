//! What a map says of its name, when another program has removed or replaced the file.

const std = @import("std");
const attach = @import("attach.zig");
const calls = @import("../testing/calls.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const segments = @import("../segment/segment.zig");
const stats = @import("stats.zig");
const status = @import("../status.zig");
const support = @import("../testing/support.zig");
const Map = @import("map.zig").Map;

fn open(name: []const u8) !*Map {
    var fault: status.Fault = .{};
    const options: segments.Options = .{ .recover = attach.recoverSegment, .stripe_bits = 2 };
    const map = try support.prepared(&fault, &options);
    errdefer calls.discard(map);
    try attach.openByName(map, support.directory_of_files, name, .shared, &options);
    return map;
}

fn stateOf(map: *Map) !layout.State {
    return @enumFromInt(@as(u64, @intFromFloat((try stats.stats(map)).state)));
}

test "a name that leads elsewhere, or nowhere, is seen" {
    if (!os.removes_mapped_files) return error.SkipZigTest;
    var fault: status.Fault = .{};
    const name = "shmap-test-name-that-leads-elsewhere";
    const first = try open(name);
    defer support.closeMap(first);
    const path = try first.segment.path();
    var buffer: [200]u8 = undefined;
    _ = try first.segment.token(&buffer);
    try std.testing.expectEqual(layout.State.live, try stateOf(first));
    try os.unlink(&fault, &path);
    try std.testing.expectEqual(layout.State.unlinked, try stateOf(first));
    try std.testing.expectError(error.NotFound, first.segment.token(&buffer));
    const second = try open(name);
    defer support.closeMap(second);
    defer os.unlink(&fault, &path) catch {};
    try std.testing.expectEqual(layout.State.unlinked, try stateOf(first));
    try std.testing.expectEqual(layout.State.live, try stateOf(second));
    try std.testing.expectError(error.NotFound, first.segment.token(&buffer));
}
