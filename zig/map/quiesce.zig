//! What a locker of a map waits for: that every write which began before it did is over.

const maps = @import("map.zig");
const os = @import("../os/os.zig");
const status = @import("../status.zig");
const StripeOp = @import("stripe_op.zig").StripeOp;

const Error = status.Error;

/// The writers of one map, as `UserLock` wants them.
pub const MapWriters = struct {
    map: *maps.Map,

    /// Writers look at the lock word alone, which only an exclusive locker stores.
    pub const allows_shared = false;

    /// Takes and gives back the lock of every stripe, all within one deadline: what was being
    /// written when this began is over when it ends, and what dead writers left is recovered. A
    /// stripe that is damaged beyond locking is passed by, for no writer can enter it either.
    pub fn quiesce(writers: MapWriters, deadline: *os.Deadline) Error!void {
        const map = writers.map;
        try map.segment.check(); // it may have been replaced while the locker waited
        const before = map.segment.deadline;
        defer map.segment.deadline.goBackTo(before);
        map.segment.deadline = deadline.*;
        for (0..map.segment.view.stripeCount()) |i| {
            quiesceStripe(map, @intCast(i)) catch |err| if (err != error.Corrupt) return err;
        }
    }
};

fn quiesceStripe(map: *maps.Map, index: u32) Error!void {
    var op = try StripeOp.lock(map, index);
    op.unlock();
}
