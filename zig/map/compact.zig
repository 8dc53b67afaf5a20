//! Giving memory back to the system: all of it, when a caller asks, and a little now and then.

const atomics = @import("../atomics.zig");
const os = @import("../os/os.zig");
const spaces = @import("../stripe/space.zig");
const status = @import("../status.zig");
const Map = @import("map.zig").Map;
const StripeOp = @import("stripe_op.zig").StripeOp;

const Error = status.Error;

/// Gives back what can be: of every stripe what it can spare, and of that, and of what lay free,
/// all if no other handle is attached, else what large values left. How many bytes less the file
/// takes than before.
pub fn compact(map: *Map) Error!u64 {
    try map.segment.checkWritable();
    const segment = &map.segment;
    const before = (try os.stat(segment.fault, segment.file)).allocated;
    for (0..segment.view.stripeCount()) |i| {
        // One that is busy, stopped or damaged has nothing to spare; others may.
        var op = StripeOp.tryLock(map, @intCast(i)) catch continue;
        defer op.unlock();
        if (atomics.load(&op.stripe.chunks) == 0) continue;
        op.begin();
        if (atomics.load(&op.stripe.live) == 0) op.dropEmptyTable();
        op.afterCommit(op.space.rebuild());
    }
    if (try segment.becomeAlone()) {
        defer segment.endAlone();
        try spaces.giveBackAlone(segment);
    } else try spaces.giveBackParked(segment);
    const after = (try os.stat(segment.fault, segment.file)).allocated;
    return before -| after;
}

/// What must happen now and then, also where no process stores anything: a step of giving back
/// what large values left, behind each look for ended entries. Costs two loads where there is
/// nothing to do. True: there may be more to do.
pub fn upkeep(map: *Map) Error!bool {
    return spaces.upkeep(&map.segment);
}
