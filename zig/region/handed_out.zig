//! The descriptor of its file that a region hands to its caller: one that the caller may close at
//! any time, and that the region closes when it is closed itself, if the caller has not.
//!
//! The number alone does not tell which it is: once the caller has closed it, the system gives it
//! to the next file that is opened. So the region keeps a twin, another number for the same open
//! file description. It is never used for anything else: what the caller does with the description
//! (moving its position, unlocking) harms nothing.

const std = @import("std");
const os = @import("../os/os.zig");
const status = @import("../status.zig");

const Error = status.Error;
const Fault = status.Fault;

pub const HandedOut = struct {
    number: os.Fd,
    twin: os.Fd,

    pub const none: HandedOut = .{ .number = os.no_file, .twin = os.no_file };

    /// The number that was handed out, if the caller has not closed it; else `file` opened once
    /// more.
    pub fn get(handed: *HandedOut, fault: *Fault, file: os.Fd, access: os.Access) Error!os.Fd {
        if (handed.isOpen()) return handed.number;
        handed.close();
        const twin = try os.openAgain(fault, file, access);
        errdefer os.close(twin);
        handed.* = .{ .number = try os.duplicate(fault, twin), .twin = twin };
        return handed.number;
    }

    fn isOpen(handed: *const HandedOut) bool {
        return handed.twin != os.no_file and os.areTwins(handed.twin, handed.number);
    }

    pub fn close(handed: *HandedOut) void {
        if (handed.twin == os.no_file) return;
        if (handed.isOpen()) os.close(handed.number);
        os.close(handed.twin);
        handed.* = .none;
    }
};

test "a number that the caller closed is left to the file that has it now" {
    if (!os.has_memory_files) return error.SkipZigTest;
    var fault: Fault = .{};
    const file = try os.memoryFile(&fault);
    defer os.close(file);
    var handed: HandedOut = .none;
    const first = try handed.get(&fault, file, .read_write);
    try std.testing.expect(first != file);
    try std.testing.expectEqual(first, try handed.get(&fault, file, .read_write));
    os.close(first);
    const other = try os.openAgain(&fault, file, .read_write); // the same file, by the same number
    defer os.close(other);
    try std.testing.expectEqual(first, other);
    const second = try handed.get(&fault, file, .read_write);
    try std.testing.expect(second != first);
    os.close(second);
    const another = try os.openAgain(&fault, file, .read_write);
    defer os.close(another);
    try std.testing.expectEqual(second, another);
    handed.close();
    _ = try os.stat(&fault, other);
    _ = try os.stat(&fault, another);
}

test "a number that the caller left open closes with its region" {
    if (!os.has_memory_files) return error.SkipZigTest;
    var fault: Fault = .{};
    const file = try os.memoryFile(&fault);
    defer os.close(file);
    var handed: HandedOut = .none;
    const number = try handed.get(&fault, file, .read_write);
    handed.close();
    try std.testing.expectError(error.System, os.stat(&fault, number));
    handed.close();
}
