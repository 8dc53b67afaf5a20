//! The library's modules by name: the root of the shared library, of its tests, and of the programs
//! that look inside it (the proof, the benchmarks).

const std = @import("std");

/// What callers in other languages use: one file for each noun.
pub const abi = struct {
    pub const symbols = @import("abi/symbols.zig");
    pub const segment = @import("abi/segment.zig");
    pub const map = @import("abi/map.zig");
    pub const entry = @import("abi/entry.zig");
    pub const value = @import("abi/value.zig");
    pub const lock = @import("abi/lock.zig");
    pub const fault = @import("abi/fault.zig");
    pub const region = @import("abi/region.zig");
    pub const realm = @import("abi/realm.zig");
};

pub const atomics = @import("atomics.zig");
pub const layout = @import("layout.zig");
pub const status = @import("status.zig");

pub const handles = @import("abi/handles.zig");
pub const marshal = @import("abi/marshal.zig");
pub const isolate_end = @import("abi/isolate_end.zig");

pub const attach = @import("map/attach.zig");
pub const attach_test = @import("map/attach_test.zig");
pub const bigint = @import("map/bigint.zig");
pub const bulk = @import("map/bulk.zig");
pub const compact = @import("map/compact.zig");
pub const conditions = @import("map/conditions.zig");
pub const count = @import("map/count.zig");
pub const expiry = @import("map/expiry.zig");
pub const gathered = @import("map/gathered.zig");
pub const iterate = @import("map/iterate.zig");
pub const map = @import("map/map.zig");
pub const put_fast = @import("map/put_fast.zig");
pub const quiesce = @import("map/quiesce.zig");
pub const read = @import("map/read.zig");
pub const read_into = @import("map/read_into.zig");
pub const scan = @import("map/scan.zig");
pub const snapshot = @import("map/snapshot.zig");
pub const stats = @import("map/stats.zig");
pub const stats_test = @import("map/stats_test.zig");
pub const stripe_op = @import("map/stripe_op.zig");
pub const verify = @import("map/verify.zig");
pub const write = @import("map/write.zig");

pub const chunk = @import("stripe/chunk.zig");
pub const ends = @import("stripe/ends.zig");
pub const entry = @import("stripe/entry.zig");
pub const hash = @import("stripe/hash.zig");
pub const heap = @import("stripe/heap.zig");
pub const parked = @import("stripe/parked.zig");
pub const pool = @import("stripe/pool.zig");
pub const recovery = @import("stripe/recovery.zig");
pub const space = @import("stripe/space.zig");
pub const table = @import("stripe/table.zig");

pub const directory = @import("segment/directory.zig");
pub const file_checks = @import("segment/file_checks.zig");
pub const format = @import("segment/format.zig");
pub const header = @import("segment/header.zig");
pub const mappings = @import("segment/mappings.zig");
pub const segment = @import("segment/segment.zig");
pub const temporary_name = @import("segment/temporary_name.zig");
pub const unnamed_file = @import("segment/unnamed_file.zig");
pub const view = @import("segment/view.zig");

pub const range_lock = @import("lock/range_lock.zig");
pub const stripe_lock = @import("lock/stripe_lock.zig");
pub const user_lock = @import("lock/user_lock.zig");

pub const handed_out = @import("region/handed_out.zig");
pub const raw_file = @import("region/raw_file.zig");
pub const region = @import("region/region.zig");

pub const os = @import("os/os.zig");

/// What tests and proofs share.
pub const testing = struct {
    pub const calls = @import("testing/calls.zig");
    pub const small_file_system = @import("testing/small_file_system.zig");
    pub const support = @import("testing/support.zig");
    pub const image_maps = @import("testing/image_maps.zig");
    pub const images = @import("testing/images.zig");
    pub const replay = @import("testing/replay.zig");
    pub const expected = @import("testing/expected.zig");
};

comptime {
    _ = abi.symbols; // exports functions that nothing here refers to
}

test {
    std.testing.refAllDecls(@This());
    std.testing.refAllDecls(abi);
    std.testing.refAllDecls(testing);
    _ = @import("abi/abi_test.zig");
    _ = @import("abi/handles_test.zig");
    _ = @import("abi/isolate_end_test.zig");
    _ = @import("abi/waits_test.zig");
    _ = @import("lock/user_lock_test.zig");
    _ = @import("map/bulk_test.zig");
    _ = @import("map/conditions_test.zig");
    _ = @import("map/scan_test.zig");
    _ = @import("map/expiry_test.zig");
    _ = @import("map/map_test.zig");
    _ = @import("map/mapping_test.zig");
    _ = @import("map/parked_test.zig");
    _ = @import("map/snapshot_test.zig");
    _ = @import("map/starve_test.zig");
    _ = @import("region/region_test.zig");
    _ = @import("segment/directory_test.zig");
    _ = @import("testing/crash_test.zig");
    _ = @import("os/common.zig");
    _ = @import("os/linux.zig");
    _ = @import("os/linux_process.zig");
    _ = @import("os/linux_region.zig");
    _ = @import("os/macos.zig");
    _ = @import("os/macos_process.zig");
    _ = @import("os/macos_region.zig");
    _ = @import("os/posix.zig");
    _ = @import("os/windows.zig");
    _ = @import("os/windows_api.zig");
    _ = @import("os/windows_memory.zig");
    _ = @import("os/windows_owner.zig");
    _ = @import("os/windows_process.zig");
    _ = @import("os/windows_region.zig");
}
