//! Tests of how segments get and lose their names: what an open may look at, and what it may store.

const std = @import("std");
const attach = @import("../map/attach.zig");
const calls = @import("../testing/calls.zig");
const directories = @import("directory.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const segments = @import("segment.zig");
const status = @import("../status.zig");
const support = @import("../testing/support.zig");
const temporary_name = @import("temporary_name.zig");

const Fault = status.Fault;
const Map = @import("../map/map.zig").Map;

const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const expectError = std.testing.expectError;

const place = support.directory_of_files;

/// A name of this test's own. Its segment is removed by `forget`.
const Name = struct {
    text: os.Path,

    fn fresh() !Name {
        return .{ .text = try .of("shmap-name-{d}-{x}", .{ os.pid(), os.randomWord() }) };
    }

    fn path(name: *const Name) !os.Path {
        return os.Path.of("{s}/{s}", .{ place, name.text.slice() });
    }

    fn options() segments.Options {
        return .{ .recover = attach.recoverSegment, .stripe_bits = 0, .timeout_ms = 5000 };
    }

    fn open(name: *const Name, mode: directories.Mode, readonly: bool) !*Map {
        var fault: Fault = .{};
        return name.openWith(&fault, mode, readonly, null);
    }

    fn openWith(
        name: *const Name,
        fault: *Fault,
        mode: directories.Mode,
        readonly: bool,
        lock: ?layout.LockKind,
    ) !*Map {
        var asked = options();
        asked.readonly = readonly;
        asked.lock = lock;
        const map = try support.prepared(fault, &asked);
        errdefer {
            fault.* = map.fault;
            calls.discard(map);
        }
        try attach.openByName(map, place, name.text.slice(), mode, &asked);
        return map;
    }

    fn close(name: *const Name, mode: directories.Mode, readonly: bool) !void {
        support.closeMap(try name.open(mode, readonly));
    }

    fn unlink(name: *const Name) !bool {
        var fault: Fault = .{};
        const asked = options();
        const map = try support.prepared(&fault, &asked);
        defer calls.discard(map);
        return attach.unlinkName(map, place, name.text.slice(), &asked);
    }

    fn forget(name: *const Name) void {
        var fault: Fault = .{};
        const full = name.path() catch return;
        os.unlink(&fault, &full) catch {};
    }
};

test "no open and no unlink reads the directory, and few replacements do" {
    const name: Name = try .fresh();
    defer name.forget();
    const before = os.directory_reads;
    try name.close(.create, false);
    try expectError(error.Exists, name.open(.create, false));
    try name.close(.shared, false);
    try name.close(.attach, false);
    try name.close(.attach, true);
    const map = try name.open(.shared, false);
    try expect(try calls.unlinkOwn(map));
    support.closeMap(map);
    try expectError(error.NotFound, name.open(.attach, false));
    try name.close(.exclusive, false);
    if (os.removes_mapped_files) try expect(try name.unlink());
    try expectEqual(before, os.directory_reads);
    if (!os.removes_mapped_files) return; // each replacement there leaves a file to be looked for
    const count = 100;
    for (0..count) |_| try name.close(.exclusive, false);
    // One or two in the mean; more than twenty come once in 10^16 times.
    try expect(os.directory_reads - before <= 20);
}

test "what dead makers left goes with the next open, exclusive, unlink or list" {
    const name: Name = try .fresh();
    defer name.forget();
    var fault: Fault = .{};
    const directory = try os.Path.of("{s}", .{place});
    const Way = enum { attach, exclusive, unlink, list };
    for (std.enums.values(Way)) |way| {
        try name.close(.shared, false);
        const left = try temporary_name.pathOf(&directory, name.text.slice(), 3);
        os.close(try os.openNew(&fault, &left));
        const random = try temporary_name.pathOf(&directory, name.text.slice(), os.randomWord());
        os.close(try os.openNew(&fault, &random));
        defer os.unlink(&fault, &random) catch {};
        switch (way) {
            .attach => try name.close(.attach, true),
            .exclusive => try name.close(.exclusive, false),
            .unlink => try expect(try name.unlink()),
            .list => _ = try directories.list(&fault, &directory, &.{}),
        }
        try expectError(error.NotFound, os.statName(&fault, &left));
        if (way == .list) try expectError(error.NotFound, os.statName(&fault, &random));
    }
}

/// A byte of the header that makes it another layout's, or a damaged one of ours.
const Change = enum {
    version,
    checksum,

    fn offset(change: Change) u64 {
        return switch (change) {
            .version => @offsetOf(layout.Header, "version"),
            .checksum => @offsetOf(layout.Header, "checksum"),
        };
    }
};

test "replacing, unlinking and reaping store nothing into a file of another layout" {
    if (!os.removes_mapped_files) return error.SkipZigTest; // its name is needed to read it there
    const directory = try os.Path.of("{s}", .{place});
    const Way = enum { exclusive, unlink, reap };
    for (std.enums.values(Change)) |change| for (std.enums.values(Way)) |way| {
        const name: Name = try .fresh();
        defer name.forget();
        var fault: Fault = .{};
        try name.close(.create, false);
        const path = try name.path();
        const file = try os.open(&fault, &path, .read_write);
        defer os.close(file);
        _ = try os.writeAt(&fault, file, &.{0x77}, change.offset());
        var before: [layout.page_bytes]u8 = undefined;
        try expectEqual(before.len, try os.readAt(&fault, file, &before, 0));
        switch (way) {
            .exclusive => try name.close(.exclusive, false),
            .unlink => try expect(try name.unlink()),
            .reap => {
                const left = try temporary_name.pathOf(&directory, name.text.slice(), 0);
                try os.link(&fault, &path, &left);
                try os.unlink(&fault, &path);
                try name.close(.shared, false);
                try expectError(error.NotFound, os.statName(&fault, &left));
            },
        }
        var after: [layout.page_bytes]u8 = undefined;
        try expectEqual(after.len, try os.readAt(&fault, file, &after, 0));
        try std.testing.expectEqualSlices(u8, &before, &after);
    };
}

test "a displaced or unlinked segment of this layout says so" {
    const name: Name = try .fresh();
    defer name.forget();
    const first = try name.open(.create, false);
    defer support.closeMap(first);
    const second = try name.open(.exclusive, false);
    defer support.closeMap(second);
    try expectEqual(layout.State.replaced, first.segment.state());
    try expect(try name.unlink());
    try expectEqual(layout.State.unlinked, second.segment.state());
}

test "without /proc a segment has a name and kernel locks, or says what it lacks" {
    if (!os.has_memory_files) return error.SkipZigTest; // no other system has one
    const name: Name = try .fresh();
    defer name.forget();
    var fault: Fault = .{};
    os.system.proc = "/nowhere";
    defer os.system.proc = "/proc";
    for ([_]directories.Mode{ .shared, .create, .exclusive }) |mode| {
        fault = .{};
        try expectError(error.Unsupported, name.openWith(&fault, mode, false, null));
        try expectEqual(@as(f64, @intFromEnum(status.Reason.noFacts)), fault.reason);
    }
    const full = try name.path();
    try expectError(error.NotFound, os.statName(&fault, &full));
    for ([_]directories.Mode{ .create, .attach, .exclusive, .shared }) |mode| {
        const map = try name.openWith(&fault, mode, false, .kernel);
        defer support.closeMap(map);
        _ = try calls.put(map, "key", "value", 1, .none);
        _ = try calls.acquire(map, 1000);
        calls.release(map, false);
    }
    const reader = try name.open(.attach, true);
    var buffer: [8]u8 = undefined;
    try expect(try calls.get(reader, "key", &buffer, 0) != null);
    support.closeMap(reader);
    const directory = try os.Path.of("{s}", .{place});
    for (0..temporary_name.known_names) |number| {
        const left = try temporary_name.pathOf(&directory, name.text.slice(), number);
        try expectError(error.NotFound, os.statName(&fault, &left));
    }
    try expectError(error.Unsupported, support.openMapOf(.kernel, 0, 0)); // it has no name
    os.system.proc = "/proc";
    // A robust one is shared by those that know who they are, and read by all.
    const robust = try name.openWith(&fault, .exclusive, false, .robust);
    defer support.closeMap(robust);
    os.system.proc = "/nowhere";
    fault = .{};
    try expectError(error.Unsupported, name.openWith(&fault, .attach, false, null));
    try expectEqual(@as(f64, @intFromEnum(status.Reason.noFacts)), fault.reason);
    support.closeMap(try name.open(.attach, true));
    try expect(try name.unlink());
}
