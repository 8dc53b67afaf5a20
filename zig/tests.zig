//! The root of the Zig tests: each file's tests are at its end.

comptime {
    _ = @import("abi_test.zig");
    _ = @import("boundary.zig");
    _ = @import("crash.zig");
    _ = @import("crash_expected_test.zig");
    _ = @import("crash_images_test.zig");
    _ = @import("crash_replay_test.zig");
    _ = @import("crash_test.zig");
    _ = @import("directory.zig");
    _ = @import("gather.zig");
    _ = @import("handles.zig");
    _ = @import("handles_test.zig");
    _ = @import("hash.zig");
    _ = @import("heap.zig");
    _ = @import("inspect.zig");
    _ = @import("layout.zig");
    _ = @import("lifetime.zig");
    _ = @import("lifetime_test.zig");
    _ = @import("map.zig");
    _ = @import("map_test.zig");
    _ = @import("operation.zig");
    _ = @import("os.zig");
    _ = @import("os/common.zig");
    _ = @import("os/linux.zig");
    _ = @import("os/linux_process.zig");
    _ = @import("os/linux_region.zig");
    _ = @import("pool.zig");
    _ = @import("range_lock.zig");
    _ = @import("raw_file.zig");
    _ = @import("recovery.zig");
    _ = @import("region.zig");
    _ = @import("region_test.zig");
    _ = @import("segment.zig");
    _ = @import("snapshot_test.zig");
    _ = @import("space.zig");
    _ = @import("status.zig");
    _ = @import("stripe_lock.zig");
    _ = @import("support_test.zig");
    _ = @import("table.zig");
    _ = @import("temporary.zig");
    _ = @import("user_lock.zig");
    _ = @import("user_lock_test.zig");
}
