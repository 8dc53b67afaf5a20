//! What happens to handles whose owner goes without closing them: a thread that ends, a process
//! that forks. A process that ends needs nothing: the kernel drops its ranges.
//!
//! A Worker is a thread of its process, so the kernel keeps its ranges when it ends; a destructor
//! of the host libc closes what it had open. A lock it held is abandoned, not released, so that the
//! next holder learns of it. A forked child shares its parent's open file descriptions, and with
//! them the locks: it closes them without unlocking, and has no handles.

const std = @import("std");
const handles = @import("handles.zig");
const os = @import("os.zig");

const Key = c_uint;

const Destructor = *const fn (?*anyopaque) callconv(.c) void;

extern fn pthread_key_create(key: *Key, destructor: Destructor) c_int;
extern fn pthread_setspecific(key: Key, value: ?*const anyopaque) c_int;

const AtFork = ?*const fn () callconv(.c) void;

/// glibc's own name; the standard one is not in its shared library.
const register_atfork = @extern(
    ?*const fn (AtFork, AtFork, AtFork, ?*anyopaque) callconv(.c) c_int,
    .{ .name = "__register_atfork", .linkage = .weak },
);
const pthread_atfork = @extern(
    ?*const fn (AtFork, AtFork, AtFork) callconv(.c) c_int,
    .{ .name = "pthread_atfork", .linkage = .weak },
);

var state: std.atomic.Value(enum(u32) { unknown, preparing, ready, refused }) = .init(.unknown);
var key: Key = 0;

/// Call on the thread that opens a handle: its end will close it.
pub fn watch() void {
    while (true) switch (state.load(.acquire)) {
        .ready => break,
        .refused => return,
        .preparing => os.sleepNs(1000),
        .unknown => {
            if (state.cmpxchgStrong(.unknown, .preparing, .acquire, .monotonic) != null) continue;
            const result = pthread_key_create(&key, closeOfThread);
            watchForks();
            state.store(if (result == 0) .ready else .refused, .release);
        },
    };
    _ = pthread_setspecific(key, &key); // any value but null calls the destructor
}

fn watchForks() void {
    if (os.ifLinked(register_atfork)) |register| {
        _ = register(null, null, dropInChild, null);
    } else if (os.ifLinked(pthread_atfork)) |register| {
        _ = register(null, null, dropInChild);
    }
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
