//! What a file must be before it is used, and before anything is stored into it.

const std = @import("std");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const status = @import("../status.zig");

const Error = status.Error;
const Fault = status.Fault;
const Header = layout.Header;

/// The owner of a file may put anything there at any time, so only files of this user and of root
/// are used, unless the caller trusts the owner.
pub fn checkOwner(fault: *Fault, stat: *const os.Stat, allow_foreign_owner: bool) Error!void {
    if (stat.uid == os.userId() or stat.uid == 0 or allow_foreign_owner) return;
    fault.found = @floatFromInt(stat.uid);
    return fault.withReason(.foreignOwner, error.PermissionDenied);
}

/// Whether anything may be stored into the file of this header: it is of this layout, and its
/// identity is whole. What another layout has at our places is not ours to change; not even its
/// `state`, for which that layout may have another meaning or another protocol.
pub fn mayStoreTo(header: *const Header) bool {
    return header.magic == layout.magic and header.version == layout.layout_version and
        layout.checksum(header) == header.checksum;
}

/// The header of a file that `mayStoreTo`, mapped alone.
pub fn mapHeader(fault: *Fault, file: os.Fd) Error!*Header {
    return @ptrCast(try os.map(fault, file, layout.page_bytes, .read_write));
}

pub fn unmapHeader(header: *Header) void {
    os.unmap(@ptrCast(@alignCast(header)), layout.page_bytes);
}

/// Makes sure that blocks which are allocated stay the file's, or refuses: a store that needs a new
/// block where the disk is full ends the process by a signal.
pub fn keepBlocks(fault: *Fault, file: os.Fd, overwrites: os.Overwrites) Error!void {
    switch (overwrites) {
        .in_place => return,
        .in_place_if_told => if (os.overwriteInPlace(fault, file)) return else |_| {},
        .elsewhere => fault.errno = 0, // no call of the system has said so
    }
    return fault.withReason(.filesystem, error.Unsupported);
}

test checkOwner {
    var fault: Fault = .{};
    var stat = std.mem.zeroInit(os.Stat, .{});
    for ([_]u32{ os.userId(), 0 }) |known| {
        stat.uid = known;
        try checkOwner(&fault, &stat, false);
    }
    stat.uid = os.userId() +% 12_345;
    try std.testing.expectError(error.PermissionDenied, checkOwner(&fault, &stat, false));
    try std.testing.expectEqual(@as(f64, @floatFromInt(stat.uid)), fault.found);
    try checkOwner(&fault, &stat, true);
}

test mayStoreTo {
    var header = std.mem.zeroes(Header);
    header.magic = layout.magic;
    header.version = layout.layout_version;
    header.checksum = layout.checksum(&header);
    try std.testing.expect(mayStoreTo(&header));
    for ([_]u64{ layout.layout_version - 1, layout.layout_version + 1 }) |other| {
        header.version = other;
        header.checksum = layout.checksum(&header);
        try std.testing.expect(!mayStoreTo(&header));
    }
    header.version = layout.layout_version;
    try std.testing.expect(!mayStoreTo(&header)); // its checksum is that of another
}

test "a file system that moves what is written is refused, or told not to" {
    const support = @import("../testing/support.zig");
    var fault: Fault = .{};
    const path = try os.Path.of("{s}/shmap-{x}", .{ support.directory_of_files, os.randomWord() });
    const file = try os.openNew(&fault, &path);
    defer os.unlink(&fault, &path) catch {};
    defer os.close(file);
    try keepBlocks(&fault, file, .in_place);
    try std.testing.expectError(error.Unsupported, keepBlocks(&fault, file, .elsewhere));
    const reason: f64 = @floatFromInt(@intFromEnum(status.Reason.filesystem));
    try std.testing.expectEqual(reason, fault.reason);
    // Whether this file system can be told or not, the answer is one of the two.
    keepBlocks(&fault, file, .in_place_if_told) catch |err|
        try std.testing.expectEqual(error.Unsupported, err);
}
