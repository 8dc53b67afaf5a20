//! Threads and forked processes that go without closing what they opened, as everybody opens it.

const std = @import("std");
const abi = @import("abi.zig");
const handles = @import("handles.zig");
const os = @import("os.zig");

fn openAnonymous() !u32 {
    var fault: [128]u8 = undefined;
    const handle = abi.shm_segment_anonymous("test", 4, 0, 0, 1000, &fault);
    try std.testing.expect(handle > 0);
    return @intCast(handle);
}

fn attach(token: []const u8) u32 {
    var fault: [128]u8 = undefined;
    const len: u32 = @intCast(token.len);
    return @intCast(abi.shm_segment_attach(token.ptr, len, "test", 4, 0, 1000, &fault));
}

test "a thread that ends gives back what it had open, and its lock as that of a dead holder" {
    const handle = try openAnonymous();
    defer _ = abi.shm_segment_close(handle);
    var buffer: [200]u8 = undefined;
    const token = buffer[0..@intCast(abi.shm_segment_token(handle, &buffer, buffer.len))];
    var other: u32 = 0;
    const thread = try std.Thread.spawn(.{}, struct {
        fn run(text: []const u8, theirs: *u32) void {
            theirs.* = attach(text);
            if (abi.shm_lock_acquire(theirs.*, 0, 1000) != 0) @panic("not granted");
            if (abi.shm_region_anonymous(100, null) <= 0) @panic("no region");
        }
    }.run, .{ token, &other });
    thread.join();
    try std.testing.expectEqual(@as(i32, -12), abi.shm_segment_close(other));
    try std.testing.expectEqual(@as(i32, 1), abi.shm_lock_acquire(handle, 0, 0)); // recovered
    try std.testing.expect(handles.regions.removeAny() == null);
}

test "a forked child has no handles, and does not keep its parent's lock" {
    const handle = try openAnonymous();
    var buffer: [200]u8 = undefined;
    const token = buffer[0..@intCast(abi.shm_segment_token(handle, &buffer, buffer.len))];
    const other = attach(token);
    defer _ = abi.shm_segment_close(other);
    try std.testing.expectEqual(@as(i32, 0), abi.shm_lock_acquire(handle, 0, 0));
    const child = std.c.fork();
    if (child == 0) {
        const closed = abi.shm_segment_close(handle) == -12 and abi.shm_lock_release(other, 0) == -12;
        if (!closed) std.os.linux.exit(1);
        while (true) os.sleepNs(std.time.ns_per_s);
    }
    defer {
        _ = std.os.linux.kill(child, .KILL);
        var how: u32 = 0;
        _ = std.os.linux.waitpid(child, &how, 0);
    }
    try std.testing.expectEqual(@as(i32, -1), abi.shm_lock_try(other, 0, 0));
    _ = abi.shm_segment_close(handle);
    try std.testing.expectEqual(@as(i32, 0), abi.shm_lock_acquire(other, 0, 0));
    var how: u32 = 0;
    const wnohang = 1;
    try std.testing.expectEqual(@as(usize, 0), std.os.linux.waitpid(child, &how, wnohang));
}
