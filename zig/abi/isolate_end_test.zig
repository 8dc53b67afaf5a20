//! Threads and forked processes that go without closing what they opened, as all of them open it.

const std = @import("std");
const linux = std.os.linux;
const abi = @import("../root.zig").abi;
const handles = @import("handles.zig");
const os = @import("../os/os.zig");
const support = @import("../testing/support.zig");

fn openAnonymous() !u32 {
    var fault: [128]u8 = undefined;
    const handle = abi.segment.shm_segment_anonymous("test", 4, 0, 0, 1000, &fault);
    try std.testing.expect(handle > 0);
    return @intCast(handle);
}

fn attach(token: []const u8) u32 {
    var fault: [128]u8 = undefined;
    const len: u32 = @intCast(token.len);
    return @intCast(abi.segment.shm_segment_attach(token.ptr, len, "test", 4, 0, 1000, &fault));
}

test "a thread that ends gives back what it had open, and its lock as that of a dead holder" {
    const handle = try openAnonymous();
    defer _ = abi.segment.shm_segment_close(handle);
    var buffer: [200]u8 = undefined;
    const token = buffer[0..@intCast(abi.segment.shm_segment_token(handle, &buffer, buffer.len))];
    var other: u32 = 0;
    const thread = try std.Thread.spawn(.{}, struct {
        fn run(text: []const u8, theirs: *u32) void {
            theirs.* = attach(text);
            if (abi.lock.shm_lock_acquire(theirs.*, 0, 1000) != 0) @panic("not granted");
            if (abi.region.shm_region_anonymous(100, null) <= 0) @panic("no region");
        }
    }.run, .{ token, &other });
    thread.join();
    try std.testing.expectEqual(@as(i32, -12), abi.segment.shm_segment_close(other));
    try std.testing.expectEqual(@as(i32, 1), abi.lock.shm_lock_acquire(handle, 0, 0)); // recovered
    try std.testing.expect(handles.regions.removeAny() == null);
}

test "a forked child has no handles, and keeps none of its parent's locks when that dies" {
    if (!support.has_forks) return error.SkipZigTest; // no fork here
    const handle = try openAnonymous();
    defer _ = abi.segment.shm_segment_close(handle);
    var buffer: [200]u8 = undefined;
    const token = buffer[0..@intCast(abi.segment.shm_segment_token(handle, &buffer, buffer.len))];
    var pipe: [2]os.Fd = undefined;
    try std.testing.expectEqual(linux.E.SUCCESS, linux.errno(linux.pipe2(&pipe, .{})));
    defer for (pipe) |fd| os.close(fd);
    const parent = std.c.fork();
    if (parent == 0) {
        if (abi.segment.shm_segment_close(handle) != -12) linux.exit(1);
        const theirs = attach(token);
        if (abi.lock.shm_lock_acquire(theirs, 0, 1000) != 0) linux.exit(2);
        const child = std.c.fork();
        if (child == 0 and abi.lock.shm_lock_release(theirs, 0) != -12) linux.exit(3);
        if (child != 0) _ = linux.write(pipe[1], std.mem.asBytes(&child).ptr, 4);
        while (true) os.sleepNs(std.time.ns_per_s);
    }
    var child: linux.pid_t = 0;
    _ = linux.read(pipe[0], std.mem.asBytes(&child).ptr, 4);
    try std.testing.expect(child > 0);
    defer _ = linux.kill(child, .KILL);
    try std.testing.expectEqual(@as(i32, -1), abi.lock.shm_lock_try(handle, 0, 0));
    _ = linux.kill(parent, .KILL);
    var how: u32 = 0;
    _ = linux.waitpid(parent, &how, 0);
    try std.testing.expect(linux.W.IFSIGNALED(how));
    const recovered = abi.lock.shm_lock_acquire(handle, 0, 1000);
    try std.testing.expectEqual(@as(i32, 1), recovered);
    try std.testing.expectEqual(linux.E.SUCCESS, linux.errno(linux.kill(child, @enumFromInt(0))));
}

test "a thread that comes to another realm gives back what the one before had open" {
    const expect = std.testing.expectEqual;
    const handle = try openAnonymous();
    defer _ = abi.segment.shm_segment_close(handle);
    var buffer: [200]u8 = undefined;
    const token = buffer[0..@intCast(abi.segment.shm_segment_token(handle, &buffer, buffer.len))];
    const thread = try std.Thread.spawn(.{}, struct {
        fn runs(text: []const u8) void {
            run(text) catch @panic("not as expected");
        }

        fn run(text: []const u8) !void {
            try expect(@as(i32, 0), abi.realm.shm_realm_enter(7, 1));
            const first = attach(text);
            const region: u32 = @intCast(abi.region.shm_region_anonymous(100, null));
            try expect(@as(i32, 0), abi.lock.shm_lock_acquire(first, 0, 1000));
            // The same realm again, as a second copy of the module enters it: nothing ends.
            try expect(@as(i32, 0), abi.realm.shm_realm_enter(7, 1));
            try expect(@as(f64, 100), abi.region.shm_region_length(region));
            // Another one, beside which the first may go on.
            try expect(@as(i32, 0), abi.realm.shm_realm_enter(8, 0));
            const second = attach(text);
            try expect(@as(i32, -8), abi.lock.shm_lock_acquire(second, 0, 60_000)); // locked
            try expect(@as(i32, -8), abi.map.shm_map_put(second, "k", 1, "v", 1, 6));
            try expect(@as(i32, 0), abi.realm.shm_realm_enter(8, 1));
            try expect(@as(i32, -12), abi.segment.shm_segment_close(first));
            try expect(@as(i32, -12), abi.region.shm_region_close(region));
            try expect(@as(i32, 1), abi.lock.shm_lock_acquire(second, 0, 1000)); // recovered
            try expect(@as(i32, 0), abi.realm.shm_realm_abandon(second));
            try expect(@as(i32, -12), abi.realm.shm_realm_abandon(second));
        }
    }.runs, .{token});
    thread.join();
    try expect(@as(i32, 1), abi.lock.shm_lock_acquire(handle, 0, 0)); // abandoned: recovered
    try expect(@as(i32, -17), abi.realm.shm_realm_enter(0, 1));
}
