//! Tokens of a process whose descriptors are closed to others, and of processes that are not there.

const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;
const directory = @import("../segment/directory.zig");
const os = @import("../os/os.zig");
const regions = @import("../region/region.zig");
const status = @import("../status.zig");
const support = @import("../testing/support.zig");
const unnamed_file = @import("../segment/unnamed_file.zig");

const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;

/// As the kernel does to a process with file capabilities, or that has changed its user.
fn closeToUser(is_closed: bool) void {
    _ = linux.prctl(@intFromEnum(linux.PR.SET_DUMPABLE), @intFromBool(!is_closed), 0, 0, 0);
}

test "a process that is closed to others hands on a map by a file with a name of ours" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    closeToUser(true);
    defer closeToUser(false);
    const map = try support.openMap(2, 0);
    var buffer: [200]u8 = undefined;
    const token = buffer[0..try map.segment.token(&buffer)];
    try expect(std.mem.startsWith(u8, token, "file:"));
    const other = try support.openToken(token, 1000);
    try expect(!map.segment.hasLostItsName());
    support.closeMap(map);
    var second: [200]u8 = undefined;
    try std.testing.expectEqualStrings(token, second[0..try other.segment.token(&second)]);
    const number = other.segment.unnamed.?;
    support.closeMap(other);
    var fault: status.Fault = .{};
    try std.testing.expectError(error.NotFound, unnamed_file.open(&fault, number));
}

test "a list removes the file of a process that was closed to others and killed" {
    if (!support.has_forks) return error.SkipZigTest;
    closeToUser(true);
    defer closeToUser(false);
    const number = try support.shared(u64);
    const child = linux.fork();
    if (child == 0) {
        const map = support.openMap(2, 0) catch linux.exit_group(1);
        number.* = map.segment.unnamed orelse 0;
        linux.exit_group(0);
    }
    var ended: u32 = undefined;
    _ = linux.waitpid(@intCast(child), &ended, 0);
    var fault: status.Fault = .{};
    os.close(try unnamed_file.open(&fault, number.*));
    const path = try directory.resolve(&fault, "");
    _ = try directory.list(&fault, &path, &.{});
    try std.testing.expectError(error.NotFound, unnamed_file.open(&fault, number.*));
}

test "a process that is closed to others hands on a region by a file with a name of ours" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    closeToUser(true);
    defer closeToUser(false);
    var region: regions.Region = undefined;
    region.fault = .{};
    try region.anonymous(5000);
    _ = try region.write(4990, "ten bytes!");
    var buffer: [200]u8 = undefined;
    const token = buffer[0..try region.token(&buffer)];
    try expect(std.mem.startsWith(u8, token, "file:"));
    var other: regions.Region = undefined;
    other.fault = .{};
    try other.attach(token, false);
    region.close();
    var bytes: [10]u8 = undefined;
    try expectEqual(@as(u64, 10), try other.read(4990, &bytes));
    try std.testing.expectEqualStrings("ten bytes!", &bytes);
    other.close();
    other.fault = .{};
    try std.testing.expectError(error.NotFound, other.attach(token, false));
}

test "a token of a process that is not there says so" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    var fault: status.Fault = .{};
    const reason = status.Reason.noSuchProcess;
    try std.testing.expectError(error.NotFound, os.openMemoryOf(&fault, 1 << 30, 3, .read));
    try expectEqual(@as(f64, @floatFromInt(@intFromEnum(reason))), fault.reason);
    try expectEqual(@as(f64, 1 << 30), fault.found);
    fault = .{};
    try std.testing.expectError(error.NotFound, os.openMemoryOf(&fault, os.pid(), 9999, .read));
    try expectEqual(@as(f64, @floatFromInt(@intFromEnum(status.Reason.identity))), fault.reason);
}
