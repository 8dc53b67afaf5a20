//! The exported functions for the user's lock of a segment or a region. What all exported functions
//! have in common is said in `symbols.zig`.

const std = @import("std");
const handles = @import("handles.zig");
const marshal = @import("marshal.zig");
const os = @import("../os/os.zig");
const quiesce = @import("../map/quiesce.zig");
const status = @import("../status.zig");
const user_lock = @import("../lock/user_lock.zig");

const Error = status.Error;
const UserLock = user_lock.UserLock;

/// Where a waiting task can sleep: a number for `shm_wake_wait`, and what the wake sequence reads
/// now. `f64`, little-endian.
pub const WakeTicket = extern struct { address: f64, count: f64 };

/// The same for all handles whose locks exclude each other.
pub const Identity = extern struct { device: u64, inode: u64 };

fn lockOf(handle: u32) Error!*UserLock {
    if (handles.isRegion(handle))
        return &(handles.regions.get(handle) orelse return error.Closed).lock;
    return &(handles.maps.get(handle) orelse return error.Closed).lock;
}

/// As `lockOf`, at the beginning of a call that may fail.
fn beginAtLockOf(handle: u32) Error!*UserLock {
    if (handles.isRegion(handle))
        return &(handles.regions.begin(handle) orelse return error.Closed).lock;
    return &(handles.maps.begin(handle) orelse return error.Closed).lock;
}

/// Takes the user's lock of a segment or a region, waiting for it. 0, or 1: its last holder died
/// holding it. `shared` is for regions.
pub export fn shm_lock_acquire(handle: u32, shared: u32, timeout_ms: f64) i32 {
    if (!(timeout_ms >= 0)) return status.status(error.InvalidArgument);
    const recovered = acquire(handle, shared == 1, timeout_ms) catch |err|
        return status.status(err);
    return @intFromBool(recovered);
}

fn acquire(handle: u32, shared: bool, timeout_ms: f64) Error!bool {
    if (handles.isRegion(handle)) {
        const region = handles.regions.begin(handle) orelse return error.Closed;
        return region.lock.acquire(shared, timeout_ms, user_lock.NoWriters{});
    }
    const map = handles.maps.begin(handle) orelse return error.Closed;
    try map.segment.check(); // what has been replaced can no longer be locked
    return map.lock.acquire(shared, timeout_ms, quiesce.MapWriters{ .map = map });
}

/// As `shm_lock_acquire`, in one attempt; `absent`: another handle has it, or goes first. A caller
/// that has waited for 10 ms in all may become the head of the queue, until it has the lock or
/// `shm_lock_cancel`.
pub export fn shm_lock_try(handle: u32, shared: u32, waited_ms: f64) i32 {
    if (!(waited_ms >= 0)) return status.status(error.InvalidArgument);
    const waited_ns: u64 = @intFromFloat(@min(waited_ms, 1000) * std.time.ns_per_ms);
    const got = attempt(handle, shared == 1, waited_ns) catch |err| switch (err) {
        error.Timeout => null, // a write that had begun did not end
        else => return status.status(err),
    };
    const recovered = got orelse {
        if (lockOf(handle)) |lock| lock.noteHolder() else |_| {}
        return @intFromEnum(status.Status.absent);
    };
    return @intFromBool(recovered);
}

fn attempt(handle: u32, shared: bool, waited_ns: u64) Error!?bool {
    const now: os.Deadline = .in(0);
    if (handles.isRegion(handle)) {
        const region = handles.regions.begin(handle) orelse return error.Closed;
        return region.lock.attempt(shared, waited_ns, &now, user_lock.NoWriters{});
    }
    const map = handles.maps.begin(handle) orelse return error.Closed;
    try map.segment.check();
    return map.lock.attempt(shared, waited_ns, &now, quiesce.MapWriters{ .map = map });
}

/// Where a waiting task can sleep if the next `shm_lock_try` fails: the record `WakeTicket`. Its
/// length; 0: there is no wake sequence.
pub export fn shm_lock_wake_seq(handle: u32, target: ?[*]u8, target_len: u32) i32 {
    const lock = lockOf(handle) catch |err| return status.status(err);
    const found = lock.wakeSeqToAwait() orelse return 0;
    const ticket: WakeTicket = .{
        .address = @floatFromInt(@intFromPtr(found.wake_seq)),
        .count = @floatFromInt(found.count),
    };
    return marshal.answer(std.mem.asBytes(&ticket), target, target_len);
}

/// Sleeps until a wake sequence moves, at most `ms`, unless it has moved since it read `count`.
/// Only the kernel looks where `address` leads, so a handle may be closed meanwhile: the sleep then
/// ends, at once or in its time. To be called off the isolate's thread.
pub export fn shm_wake_wait(address: f64, count: u32, ms: f64) i32 {
    if (!(address >= os.page_bytes and address < 1 << 53 and ms >= 0 and ms <= 1000))
        return status.status(error.InvalidArgument);
    if (!os.has_shared_futex) return status.status(error.Unsupported);
    const aligned = @as(usize, @intFromFloat(address)) & ~@as(usize, 7);
    os.sleepOn(@ptrFromInt(aligned), count, @intFromFloat(ms * std.time.ns_per_ms));
    return 0;
}

/// The caller of `shm_lock_try` gives up.
pub export fn shm_lock_cancel(handle: u32) i32 {
    const lock = lockOf(handle) catch |err| return status.status(err);
    lock.cancel();
    return 0;
}

/// Gives the lock back; nothing if it is not held. `stays_owed` 1: this holder did not make good
/// what the dead one before left, so the next holder finds the lock `recovered`, too.
pub export fn shm_lock_release(handle: u32, stays_owed: u32) i32 {
    const lock = lockOf(handle) catch |err| return status.status(err);
    lock.release(stays_owed == 1);
    return 0;
}

/// 1: this or another handle holds the lock.
pub export fn shm_lock_held(handle: u32) i32 {
    const lock = beginAtLockOf(handle) catch |err| return status.status(err);
    const held = lock.isHeld() catch |err| return status.status(err);
    return @intFromBool(held);
}

/// The record `Identity`: 16 bytes that are the same for all handles whose locks exclude each
/// other.
pub export fn shm_lock_identity(handle: u32, target: ?[*]u8, target_len: u32) i32 {
    const lock = beginAtLockOf(handle) catch |err| return status.status(err);
    const stat = os.stat(lock.target.fault, lock.target.locks) catch |err|
        return status.status(err);
    const identity: Identity = .{ .device = stat.device, .inode = stat.inode };
    return marshal.answer(std.mem.asBytes(&identity), target, target_len);
}
