//! The exported functions for values: a value is the one entry of a segment of its own. What all
//! exported functions have in common is said in `symbols.zig`.

const handles = @import("handles.zig");
const map_abi = @import("map.zig");
const marshal = @import("marshal.zig");
const status = @import("../status.zig");

/// Where the value of a `SharedValue` lies in its segment.
const value_key = "value";

/// As `shm_map_get_version` for the value of a value's segment; `unchanged` if its version is still
/// `version` (0: none is known).
pub export fn shm_value_get(handle: u32, version: f64, target: ?[*]u8, target_len: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    if (version > 0 and shm_value_version(handle) == version)
        return @intFromEnum(status.Status.unchanged);
    return marshal.valueWithTail(map, value_key, marshal.mutable(target, target_len));
}

/// Stores the value. `TooLarge`: `maxBytes` of the segment is less. 1.
pub export fn shm_value_put(handle: u32, value: ?[*]const u8, value_len: u32, kind: u32) i32 {
    const map = handles.maps.get(handle) orelse return status.status(error.Closed);
    const max_bytes = map.segment.header().max_bytes;
    if (max_bytes != 0 and value_len > max_bytes) {
        map.startCall();
        map.fault.needed_bytes = @floatFromInt(value_len);
        map.fault.ceiling_bytes = @floatFromInt(max_bytes);
        return status.status(error.TooLarge);
    }
    return map_abi.shm_map_put(handle, value_key, value_key.len, value, value_len, kind & 255);
}

/// The version of the value, 0 before it is first stored.
pub export fn shm_value_version(handle: u32) f64 {
    const map = handles.maps.get(handle) orelse return marshal.long(error.Closed);
    const meta = marshal.metaOf(map, value_key) catch |err| return marshal.long(err);
    return marshal.long(if (meta) |found| found.version else 0);
}
