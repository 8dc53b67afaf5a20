//! The exported function that tells why the last call on a handle failed. What all exported
//! functions have in common is said in `symbols.zig`.

const std = @import("std");
const handles = @import("handles.zig");
const status = @import("../status.zig");

const Fault = status.Fault;

/// The record `Fault` of a handle's last failure; reading clears it.
pub export fn shm_fault(handle: u32, target: ?[*]u8) i32 {
    const fault = faultOf(handle) orelse return status.status(error.Closed);
    const bytes = target orelse return status.status(error.InvalidArgument);
    @memcpy(bytes[0..@sizeOf(Fault)], std.mem.asBytes(fault));
    fault.* = .{};
    return 0;
}

fn faultOf(handle: u32) ?*Fault {
    if (handles.isRegion(handle))
        return if (handles.regions.get(handle)) |region| &region.fault else null;
    return if (handles.maps.get(handle)) |map| &map.fault else null;
}
