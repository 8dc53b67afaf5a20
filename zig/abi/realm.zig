//! The exported functions for isolates that end without closing what they have open. What all
//! exported functions have in common is said in `symbols.zig`.

const std = @import("std");
const isolate_end = @import("isolate_end.zig");
const status = @import("../status.zig");

/// The calling thread runs the isolate of `realm`, a number of 32 bits but 0, from now on: what it
/// opens is that isolate's. `is_only_one` 1: those that ran on this thread before have ended, so
/// what they had open is closed, and the locks that they held are abandoned.
pub export fn shm_realm_enter(realm: f64, is_only_one: u32) i32 {
    if (!(realm >= 1 and realm <= std.math.maxInt(u32)))
        return status.status(error.InvalidArgument);
    isolate_end.enterRealm(@intFromFloat(realm), is_only_one == 1);
    return 0;
}

/// Closes a map, a value or a region whose isolate has ended. A lock that it holds is abandoned:
/// the next holder finds it `recovered`.
pub export fn shm_realm_abandon(handle: u32) i32 {
    return if (isolate_end.abandon(handle)) 0 else status.status(error.Closed);
}
