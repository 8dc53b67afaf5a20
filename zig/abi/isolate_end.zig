//! What happens to handles whose isolate ends without closing them: with its thread, on a thread
//! that goes on, or in the child of a fork. A process that ends needs nothing: the kernel drops its
//! ranges.
//!
//! A Worker is a thread of its process, so the kernel keeps its ranges when it ends; a destructor
//! of the host libc closes what it had open. A lock it held is abandoned, not released, so that the
//! next holder learns of it.
//!
//! A runtime that loads a program again (`deno run --watch-hmr`) or gives each file of tests an
//! isolate of its own (`bun test --isolate`) uses the same thread for the next one, and tells no
//! program of it. Each isolate has a realm, a number that it chose by chance: where a thread comes
//! to another realm, and only one at a time can be alive on it, the handles of the one before are
//! abandoned.
//!
//! A forked child shares its parent's open file descriptions, and with
//! them the locks: it closes them without unlocking, and has no handles.

const std = @import("std");
const handles = @import("handles.zig");
const os = @import("../os/os.zig");
const user_lock = @import("../lock/user_lock.zig");

var state: std.atomic.Value(enum(u32) { unknown, preparing, ready, refused }) = .init(.unknown);

/// Call on the thread that opens a handle: its end will close it. Returns the realm that the thread
/// entered last, 0 for none.
pub fn watch() u32 {
    if (!prepare()) return 0;
    const word = os.threadWord();
    if (word == 0) os.setThreadWord(wordOf(0));
    return @intCast(word >> 1);
}

/// Not 0, so that the end of the thread is noticed.
fn wordOf(realm: u32) usize {
    return @as(usize, realm) << 1 | 1;
}

/// From now on the calling thread runs the isolate of `realm`. `is_only_one`: others that ran on it
/// have ended, and what they had open is abandoned.
pub fn enterRealm(realm: u32, is_only_one: bool) void {
    if (!prepare()) return;
    os.setThreadWord(wordOf(realm));
    if (is_only_one) abandonAllOf(os.threadId(), realm);
}

/// Closes a handle; a lock that it holds is abandoned. False: the number was stale.
pub fn abandon(handle: u32) bool {
    if (handles.isRegion(handle)) {
        abandonObject(handles.regions, handles.regions.remove(handle) orelse return false);
    } else abandonObject(handles.maps, handles.maps.remove(handle) orelse return false);
    return true;
}

fn prepare() bool {
    while (true) switch (state.load(.acquire)) {
        .ready => return true,
        .refused => return false,
        .preparing => os.sleepNs(1000),
        .unknown => {
            if (state.cmpxchgStrong(.unknown, .preparing, .acquire, .monotonic) != null) continue;
            const is_ready = os.prepareThreads(abandonOfThread);
            os.watchForks(dropInChild);
            state.store(if (is_ready) .ready else .refused, .release);
        },
    };
}

fn abandonOfThread(_: ?*anyopaque) callconv(.c) void {
    abandonAllOf(os.threadId(), null);
}

/// Abandons what a thread has open, but for the handles of the realm `kept`.
fn abandonAllOf(thread: u32, kept: ?u32) void {
    while (handles.maps.removeOf(thread, kept)) |map| abandonObject(handles.maps, map);
    while (handles.regions.removeOf(thread, kept)) |region| abandonObject(handles.regions, region);
}

fn abandonObject(table: type, object: anytype) void {
    object.lock.abandon();
    object.close();
    table.discard(object);
}

/// In the child of a fork. The mappings are not there (`MADV_DONTFORK`), and other threads, which
/// may have held anything, are not either: the memory of the handles is left as it is.
fn dropInChild() callconv(.c) void {
    user_lock.forgetHeld();
    while (handles.maps.removeAny()) |map| {
        os.close(map.segment.locks);
        os.close(map.segment.file);
    }
    while (handles.regions.removeAny()) |region| {
        os.close(region.locks);
        os.close(region.file);
    }
}
