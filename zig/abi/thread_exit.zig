//! What happens to handles whose owner goes without closing them: a thread that ends, a process
//! that forks. A process that ends needs nothing: the kernel drops its ranges.
//!
//! A Worker is a thread of its process, so the kernel keeps its ranges when it ends; a destructor
//! of the host libc closes what it had open. A lock it held is abandoned, not released, so that the
//! next holder learns of it. A forked child shares its parent's open file descriptions, and with
//! them the locks: it closes them without unlocking, and has no handles.

const std = @import("std");
const handles = @import("handles.zig");
const os = @import("../os/os.zig");

var state: std.atomic.Value(enum(u32) { unknown, preparing, ready, refused }) = .init(.unknown);

/// Call on the thread that opens a handle: its end will close it.
pub fn watch() void {
    while (true) switch (state.load(.acquire)) {
        .ready => break,
        .refused => return,
        .preparing => os.sleepNs(1000),
        .unknown => {
            if (state.cmpxchgStrong(.unknown, .preparing, .acquire, .monotonic) != null) continue;
            const is_ready = os.prepareThreads(closeOfThread);
            os.watchForks(dropInChild);
            state.store(if (is_ready) .ready else .refused, .release);
        },
    };
    os.watchThread();
}

fn closeOfThread(_: ?*anyopaque) callconv(.c) void {
    const thread = os.threadId();
    while (handles.maps.removeOf(thread)) |map| {
        map.lock.abandon();
        map.close();
        handles.maps.discard(map);
    }
    while (handles.regions.removeOf(thread)) |region| {
        region.lock.abandon();
        region.close();
        handles.regions.discard(region);
    }
}

/// In the child of a fork. The mappings are not there (`MADV_DONTFORK`), and other threads, which
/// may have held anything, are not either: the memory of the handles is left as it is.
fn dropInChild() callconv(.c) void {
    while (handles.maps.removeAny()) |map| {
        os.close(map.segment.locks);
        os.close(map.segment.file);
    }
    while (handles.regions.removeAny()) |region| {
        os.close(region.locks);
        os.close(region.file);
    }
}
