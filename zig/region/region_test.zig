//! Tests of raw regions: files opened in every way, cut short, beyond 4 GiB, and memory by token.

const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const raw_file = @import("raw_file.zig");
const regions = @import("region.zig");
const status = @import("../status.zig");
const support = @import("../testing/support.zig");
const user_lock = @import("../lock/user_lock.zig");

const Access = regions.Access;
const Fault = status.Fault;
const Region = regions.Region;

const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const expectError = std.testing.expectError;

const read_only: Access = .{ .read = true, .write = false, .private = false };
const write_only: Access = .{ .read = false, .write = true, .private = false };
const read_write: Access = .{ .read = true, .write = true, .private = false };
const private_write: Access = .{ .read = true, .write = true, .private = true };

/// A path of this process's own, without a file.
fn testPath() os.Path {
    const parts = .{ support.directory_of_files, os.pid(), os.randomWord() };
    return os.Path.of("{s}/shmap-region-{d}-{x}", parts) catch unreachable; // it is short
}

fn testRegion(region: *Region) *Region {
    region.fault = .{};
    return region;
}

/// One attempt at an exclusive lock.
fn attempt(region: *Region) status.Error!?bool {
    const now: os.Deadline = .in(0);
    return region.lock.attempt(false, 0, &now, user_lock.NoWriters{});
}

fn remove(path: *const os.Path) void {
    var fault: Fault = .{};
    os.unlink(&fault, path) catch {};
}

fn reason(region: *const Region) status.Reason {
    return @enumFromInt(@as(u32, @intFromFloat(region.fault.reason)));
}

test "openPath makes, lengthens and maps a file, and says what it cannot" {
    const path = testPath();
    defer remove(&path);
    var memory: [2]Region = undefined;
    const region = testRegion(&memory[0]);
    const other = testRegion(&memory[1]);
    try expectError(error.NotFound, region.openPath(path.slice(), 10_000, read_only));
    try expectError(error.NotFound, region.openPath(path.slice(), 0, read_write));
    try expectError(error.InvalidArgument, region.openPath("", 0, read_only));
    try expectError(error.InvalidArgument, region.openPath("a\x00b", 0, read_only));
    const directory = support.directory_of_files;
    try expectError(error.Incompatible, region.openPath(directory, 0, read_only));
    const device = if (builtin.os.tag == .windows) "NUL" else "/dev/null";
    try expectError(error.Incompatible, region.openPath(device, 0, read_only));

    try region.openPath(path.slice(), 10_000, read_write);
    try expectEqual(@as(u64, 3), try region.write(9_997, "abcdef"));
    try other.openPath(path.slice(), 0, read_only);
    defer other.close();
    var target: [20]u8 = @splat('x');
    try expectEqual(@as(u64, 4), try other.read(9_996, &target));
    try std.testing.expectEqualStrings("\x00abcxx", target[0..6]);
    try expectError(error.InvalidArgument, other.read(10_000, &target));
    try expectError(error.InvalidArgument, other.read(std.math.maxInt(u64), &target));
    try expectEqual(@as(u64, 0), try other.read(0, target[0..0]));
    try expectError(error.ReadOnly, other.write(0, "a"));
    try region.flush();
    region.close();

    const too_long = testRegion(region).openPath(path.slice(), 10_001, read_only);
    try expectError(error.Incompatible, too_long);
    try expectEqual(status.Reason.tooShort, reason(region));
    try expectEqual(@as(f64, 10_000), region.fault.used_bytes);
    try expectError(error.Incompatible, region.openPath(path.slice(), 10_001, private_write));
    try testRegion(region).openPath(path.slice(), 20_000, write_only);
    defer region.close();
    try expectError(error.WriteOnly, region.read(0, &target));
    try expectEqual(@as(u64, 1), try region.write(19_999, "ab"));
    try expectError(error.Unsupported, region.token(&target));
}

test "an open that fails takes its new file back, and an empty file cannot be mapped" {
    const path = testPath();
    defer remove(&path);
    var memory: Region = undefined;
    const region = testRegion(&memory);
    const too_long = region.openPath(path.slice(), 1 << 52, read_write);
    try expectError(error.NoSpace, too_long);
    try expectError(error.NotFound, os.statName(&region.fault, &path));
    const file = try os.openNew(&region.fault, &path);
    try expectError(error.Incompatible, region.openPath(path.slice(), 0, read_write));
    try expectEqual(status.Reason.emptyFile, reason(region));
    defer os.close(file);
    if (!os.has_descriptors) return;
    try expectError(error.Incompatible, region.openDescriptor(file, 0, read_only));
    try expectError(error.NotFound, region.openDescriptor(999, 0, read_only));
}

test "openDescriptor opens the file once more, with no more rights than the descriptor has" {
    if (!os.has_memory_files) return error.SkipZigTest; // by Linux's own calls
    const path = testPath();
    defer remove(&path);
    var memory: Region = undefined;
    const region = testRegion(&memory);
    const file = try os.openNew(&region.fault, &path);
    try region.openDescriptor(file, 5_000, read_write);
    os.close(file);
    try expectEqual(@as(u64, 5), try region.write(4_000, "hello"));
    region.close();
    const reader = try os.open(&region.fault, &path, .read);
    defer os.close(reader);
    try expectError(error.PermissionDenied, region.openDescriptor(reader, 0, read_write));
    const neither: linux.O = @bitCast(@as(u32, 3)); // the fourth access mode, for ioctl alone
    const bare = try os.system.check(&region.fault, linux.open(path.z(), neither, 0));
    defer os.close(@intCast(bare));
    try expectError(error.PermissionDenied, region.openDescriptor(@intCast(bare), 0, read_only));
    try testRegion(region).openDescriptor(reader, 0, private_write);
    defer region.close();
    var target: [5]u8 = undefined;
    try expectEqual(@as(u64, 5), try region.read(4_000, &target));
    try std.testing.expectEqualStrings("hello", &target);
    try expectEqual(@as(u64, 5), try region.write(4_000, "HELLO"));
    try expectEqual(@as(u64, 5), try region.read(4_000, &target));
    try std.testing.expectEqualStrings("HELLO", &target);
    _ = try os.readAt(&region.fault, reader, &target, 4_000);
    try std.testing.expectEqualStrings("hello", &target);
}

test "a file cut short ends copies early or with an error, of every kind of copy" {
    if (!os.has_memory_files) return error.SkipZigTest; // by Linux's own calls
    var fault: Fault = .{};
    const bytes: [9_000]u8 = @splat('w');
    for ([_]Access{ read_write, private_write }) |access| {
        for ([_]bool{ true, false }) |copies_by_kernel| {
            const path = testPath();
            defer remove(&path);
            var memory: Region = undefined;
            const region = testRegion(&memory);
            try region.openPath(path.slice(), 20_000, read_write);
            if (access.private) {
                region.close();
                try testRegion(region).openPath(path.slice(), 0, access);
            }
            defer region.close();
            region.copies_by_kernel = copies_by_kernel;
            const file = try os.open(&fault, &path, .read_write);
            defer os.close(file);
            try expectEqual(@as(usize, 0), std.os.linux.ftruncate(file, 5_000));
            var target: [9_000]u8 = undefined;
            // A private mapping reaches to the end of the page.
            const end: u64 = if (access.private and copies_by_kernel) 8_192 else 5_000;
            try expectEqual(end, try region.read(0, &target));
            try expectEqual(end, try region.write(0, &bytes));
            try expectError(error.Corrupt, region.read(8_192, &target));
            try expectEqual(status.Reason.truncated, reason(region));
            try expectError(error.Corrupt, region.write(8_192, &bytes));
            try expectError(error.Corrupt, region.flush());
            try expectEqual(@as(u64, 5_000), try os.length(&fault, file));
            try expectEqual(copies_by_kernel, region.copies_by_kernel);
        }
    }
}

test "an anonymous region is reached by its token, and only by it" {
    if (!os.has_memory_files) return error.SkipZigTest; // see the test of a file's token
    var memory: [2]Region = undefined;
    const region = testRegion(&memory[0]);
    const other = testRegion(&memory[1]);
    try expectError(error.InvalidArgument, region.anonymous(0));
    try expectError(error.NoSpace, region.anonymous(1 << 50));
    try testRegion(region).anonymous(10_000);
    try expectEqual(@as(u64, 10_000), try region.write(0, &@as([10_000]u8, @splat('a'))));
    try region.flush();
    var buffer: [64]u8 = undefined;
    const text = buffer[0..try region.token(&buffer)];
    try other.attach(text, false);
    try expectEqual(@as(u64, 10_000), other.length);
    try expectEqual(@as(u64, 4), try other.write(9_996, "hello"));
    var target: [4]u8 = undefined;
    try expectEqual(@as(u64, 4), try region.read(9_996, &target));
    try std.testing.expectEqualStrings("hell", &target);
    try expect(std.os.linux.errno(std.os.linux.ftruncate(region.file, 100)) == .PERM);

    try expect(!try region.lock.acquire(false, 0, user_lock.NoWriters{}));
    try expectEqual(@as(?bool, null), try attempt(other));
    other.close();
    region.lock.release(false);
    const last = &text[text.len - 1];
    const digit = last.*;
    last.* = if (digit == '0') '1' else '0';
    try expectError(error.NotFound, testRegion(other).attach(text, false));
    last.* = digit;
    region.header.?.max_bytes += 1;
    try expectError(error.Corrupt, other.attach(text, false));
    region.header.?.checksum = layout.checksum(region.header.?);
    try expectError(error.Corrupt, other.attach(text, false)); // the file is not as long
    region.header.?.attributes = @intFromEnum(layout.Kind.map);
    region.header.?.checksum = layout.checksum(region.header.?);
    try expectError(error.Incompatible, other.attach(text, false));
    region.close();
    try expectError(error.NotFound, other.attach(text, false));
    for ([_][]const u8{ "", "fd:1", "fd:1:2:x", "fd:1:2:3:4", "fd:-1:2:3" }) |wrong|
        try expectError(error.InvalidArgument, other.attach(wrong, false));
    try expectError(error.Incompatible, other.attach("name:/dev/shm:jobs:0", false));
}

test "a region whose file could be cut short is not attached to" {
    if (!os.has_memory_files) return error.SkipZigTest; // no memory file can be made by hand
    var memory: [2]Region = undefined;
    const region = testRegion(&memory[0]);
    try region.anonymous(10_000);
    defer region.close();
    const file = try os.memoryFile(&region.fault);
    defer os.close(file);
    const whole = region.base[0..region.mapped];
    try expectEqual(whole.len, try os.writeAt(&region.fault, file, whole, 0));
    var buffer: [64]u8 = undefined;
    const parts = .{ os.pid(), file, region.header.?.id };
    const text = try std.fmt.bufPrint(&buffer, "fd:{d}:{d}:{x:0>16}", parts);
    try expectError(error.Corrupt, testRegion(&memory[1]).attach(text, false));
}

test "a region of another user is not attached to, unless the caller trusts its owner" {
    if (!os.has_memory_files) return error.SkipZigTest; // a file of another user is not opened
    if (linux.geteuid() != 0) return error.SkipZigTest; // only root can give a file away
    var memory: [2]Region = undefined;
    const region = testRegion(&memory[0]);
    const other = testRegion(&memory[1]);
    try region.anonymous(1000);
    defer region.close();
    const stranger = 12_345;
    _ = try os.system.check(&region.fault, linux.fchown(region.file, stranger, stranger));
    var buffer: [64]u8 = undefined;
    const text = buffer[0..try region.token(&buffer)];
    try expectError(error.PermissionDenied, other.attach(text, false));
    try expectEqual(status.Reason.foreignOwner, reason(other));
    try expectEqual(@as(f64, stranger), other.fault.found);
    try testRegion(other).attach(text, true);
    other.close();
}

test "a failed reservation leaves a file as long as it was, with what others appended" {
    if (!os.has_memory_files) return error.SkipZigTest; // by Linux's own calls
    const path = testPath();
    defer remove(&path);
    var fault: Fault = .{};
    const file = try os.openNew(&fault, &path);
    defer os.close(file);
    _ = try os.writeAt(&fault, file, "a line\n", 0);
    const reserved = 1 << 20;
    try os.reserve(&fault, file, 7, reserved);
    const full = try os.stat(&fault, file);
    try expectEqual(@as(u64, 7), full.size);
    // Another program appends before this one gives up: its bytes stay.
    _ = try os.writeAt(&fault, file, "another\n", 7);
    raw_file.giveBack(file, 7);
    try expectEqual(@as(u64, 15), (try os.stat(&fault, file)).size);
    // Where none does, the blocks go, and the bytes stay.
    raw_file.giveBack(file, 15);
    const after = try os.stat(&fault, file);
    try expectEqual(@as(u64, 15), after.size);
    try expect(after.allocated < full.allocated);
    var text: [15]u8 = undefined;
    _ = try os.readAt(&fault, file, &text, 0);
    try std.testing.expectEqualStrings("a line\nanother\n", &text);
    try raw_file.lengthen(&fault, file, 7, 100); // what another lengthened is never cut
    try expectEqual(@as(u64, 100), (try os.stat(&fault, file)).size);
    try raw_file.lengthen(&fault, file, 7, 50);
    try expectEqual(@as(u64, 100), (try os.stat(&fault, file)).size);
}

test "without /proc a region has a path, or says what it lacks" {
    if (!os.has_memory_files) return error.SkipZigTest; // no other system has one
    os.system.proc = "/nowhere";
    defer os.system.proc = "/proc";
    const path = testPath();
    defer remove(&path);
    var memory: Region = undefined;
    const region = testRegion(&memory);
    try region.openPath(path.slice(), 5000, read_write);
    try expectEqual(@as(u64, 2), try region.write(0, "hi"));
    try expect(!try region.lock.acquire(false, 0, user_lock.NoWriters{}));
    region.lock.release(false);
    region.close();
    const file = try os.open(&region.fault, &path, .read_write);
    defer os.close(file);
    try expectError(error.Unsupported, testRegion(region).openDescriptor(file, 0, read_only));
    try expectEqual(status.Reason.noProc, reason(region));
    try expectError(error.Unsupported, testRegion(region).anonymous(100));
    try expectEqual(status.Reason.noProc, reason(region));
    try expectError(error.Unsupported, testRegion(region).attach("fd:1:3:1", false));
    try expectEqual(status.Reason.noProc, reason(region));
}

test "a region in a file with a name of ours is reached by its token until the last has left" {
    if (os.has_memory_files) return error.SkipZigTest; // it has no name here
    var memory: [2]Region = undefined;
    const region = testRegion(&memory[0]);
    const other = testRegion(&memory[1]);
    try expectError(error.NoSpace, region.anonymous(1 << 50));
    try testRegion(region).anonymous(100_000);
    try expectEqual(@as(u64, 100_000), try region.write(0, &@as([100_000]u8, @splat('a'))));
    var buffer: [64]u8 = undefined;
    const text = buffer[0..try region.token(&buffer)];
    try other.attach(text, false);
    try expectEqual(@as(u64, 4), try other.write(99_996, "hello"));
    var target: [4]u8 = undefined;
    try expectEqual(@as(u64, 4), try region.read(99_996, &target));
    try std.testing.expectEqualStrings("hell", &target);
    try expect(!try region.lock.acquire(false, 0, user_lock.NoWriters{}));
    try expectEqual(@as(?bool, null), try attempt(other));
    region.close();
    try expect(!try other.lock.acquire(false, 0, user_lock.NoWriters{}));
    other.lock.release(false);
    try testRegion(region).attach(text, false);
    other.close();
    const last = &text[text.len - 1];
    const digit = last.*;
    last.* = if (digit == '0') '1' else '0';
    try expectError(error.NotFound, testRegion(other).attach(text, false));
    last.* = digit;
    region.close();
    try expectError(error.NotFound, testRegion(other).attach(text, false));
    for ([_][]const u8{ "", "file:1", "file:1:x", "file:1:2:3" }) |wrong|
        try expectError(error.InvalidArgument, other.attach(wrong, false));
}

test "beyond 4 GiB" {
    const path = testPath();
    defer remove(&path);
    var memory: Region = undefined;
    const region = testRegion(&memory);
    const file = try os.openNew(&region.fault, &path);
    defer os.close(file);
    const length = 5 << 30;
    try os.cut(&region.fault, file, length);
    try region.openPath(path.slice(), 0, read_write);
    defer region.close();
    try expectEqual(@as(u64, length), region.length);
    for ([_]u64{ (4 << 30) - 2, (4 << 30) + 1, length - 5 }) |offset| {
        var target: [5]u8 = undefined;
        try expectEqual(@as(u64, 5), try region.write(offset, "far o"));
        try expectEqual(@as(u64, 5), try region.read(offset, &target));
        try std.testing.expectEqualStrings("far o", &target);
    }
}

fn grab(path: *const os.Path) noreturn {
    var memory: Region = undefined;
    const region = testRegion(&memory);
    region.openPath(path.slice(), 0, read_write) catch linux.exit(1);
    while (true) {
        _ = region.lock.acquire(false, 60_000, user_lock.NoWriters{}) catch linux.exit(2);
        const until = os.monotonicNs() + std.time.ns_per_ms;
        while (os.monotonicNs() < until) {}
        region.lock.release(false);
    }
}

test "a process that locks a file again at once does not starve those who only read it" {
    if (!support.has_forks) return error.SkipZigTest; // no fork here
    const path = testPath();
    defer remove(&path);
    var memory: Region = undefined;
    const region = testRegion(&memory);
    os.close(try os.openNew(&region.fault, &path));
    try region.openPath(path.slice(), 100, read_write);
    region.close();
    const greedy = std.c.fork();
    if (greedy == 0) grab(&path);
    defer {
        _ = linux.kill(greedy, .KILL);
        var how: u32 = 0;
        _ = linux.waitpid(greedy, &how, 0);
    }
    try testRegion(region).openPath(path.slice(), 0, read_only);
    defer region.close();
    while (!try region.lock.isHeld()) os.sleepNs(100_000);
    for (0..20) |_| {
        _ = try region.lock.acquire(true, 1000, user_lock.NoWriters{});
        region.lock.release(false);
        os.sleepNs(2 * std.time.ns_per_ms);
    }
}
