//! The exported function that tells why the last call on a handle failed. What all exported
//! functions have in common is said in `symbols.zig`.

const std = @import("std");
const handles = @import("handles.zig");
const os = @import("../os/os.zig");
const status = @import("../status.zig");

const Fault = status.Fault;

/// The record `Fault` of a handle's last failure; reading clears it.
pub export fn shm_fault(handle: u32, target: ?[*]u8) i32 {
    const fault = faultOf(handle) orelse return status.status(error.Closed);
    const bytes = target orelse return status.status(error.InvalidArgument);
    // The number is that of the holder's own PID namespace, and may mean nothing in this one.
    const holder: u32 = std.math.lossyCast(u32, fault.holder_pid);
    if (holder > 0 and fault.reason == 0 and !os.isLiving(holder))
        fault.reason = @floatFromInt(@intFromEnum(status.Reason.holderElsewhere));
    @memcpy(bytes[0..@sizeOf(Fault)], std.mem.asBytes(fault));
    fault.* = .{};
    return 0;
}

fn faultOf(handle: u32) ?*Fault {
    if (handles.isRegion(handle))
        return if (handles.regions.get(handle)) |region| &region.fault else null;
    return if (handles.maps.get(handle)) |map| &map.fault else null;
}
