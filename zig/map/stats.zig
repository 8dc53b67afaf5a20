//! What a map says of itself: numbers for people.

const atomics = @import("../atomics.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const range_lock = @import("../lock/range_lock.zig");
const read = @import("read.zig");
const headers = @import("../segment/header.zig");
const segments = @import("../segment/segment.zig");
const status = @import("../status.zig");
const Map = @import("map.zig").Map;

const Error = status.Error;

/// As it crosses the boundary: `f64`, little-endian.
pub const Stats = extern struct {
    entries: f64 = 0,
    allocated_bytes: f64 = 0,
    /// What should have memory behind it.
    committed_bytes: f64 = 0,
    /// 0: what the file system has.
    ceiling_bytes: f64 = 0,
    stripes: f64 = 0,
    table_slots: f64 = 0,
    tombstones: f64 = 0,
    owned_bytes: f64 = 0,
    free_bytes: f64 = 0,
    pool_free_bytes: f64 = 0,
    recoveries: f64 = 0,
    dropped: f64 = 0,
    max_bytes: f64 = 0,
    lock_kind: f64 = 0,
    created_ms: f64 = 0,
    owner: f64 = 0,
    state: f64 = 0,
    hardened_stripes: f64 = 0,
    other_writers: f64 = 0,
    expiring: f64 = 0,
    expirations: f64 = 0,
    writes: f64 = 0,
};

fn number(word: u64) f64 {
    return @floatFromInt(word);
}

/// The state as the segment knows it; of a live one, what has become of its name.
fn stateOf(segment: *segments.Segment) u64 {
    const found = atomics.load(&segment.header().state);
    if (found != @intFromEnum(layout.State.live) or !segment.hasLostItsName()) return found;
    return @intFromEnum(layout.State.unlinked);
}

/// A look without locks: each number is right by itself, not all at one instant.
pub fn stats(map: *Map) Error!Stats {
    const segment = &map.segment;
    const header = segment.header();
    const stat = try os.stat(segment.fault, segment.file);
    const committed = atomics.loadAcquire(&header.committed);
    const is_map = header.attributes & 0xff == @intFromEnum(layout.Kind.map);
    var result: Stats = .{
        .entries = number(try read.size(map)),
        .allocated_bytes = number(stat.allocated),
        .committed_bytes = number(committed -| atomics.load(&header.pool.hole_bytes)),
        // The limit of a value is that of one encoding of it, and bounds no segment.
        .ceiling_bytes = if (is_map) number(header.max_bytes) else 0,
        .stripes = number(segment.view.stripeCount()),
        .max_bytes = number(header.max_bytes),
        .lock_kind = number(@intFromEnum(headers.lockKind(header))),
        .created_ms = number(header.created_ms),
        .owner = number(stat.uid),
        .state = number(stateOf(segment)),
    };
    for (0..segment.view.stripeCount()) |i| {
        const stripe = segment.view.stripe(@intCast(i));
        const table: layout.TableWord = @bitCast(atomics.loadAcquire(&stripe.table));
        if (table.present) result.table_slots += number(@as(u64, 1) << table.log2);
        result.hardened_stripes += @floatFromInt(@intFromBool(table.sip));
        result.tombstones += number(atomics.load(&stripe.tombstones));
        result.owned_bytes += number(atomics.load(&stripe.owned));
        result.free_bytes += number(atomics.load(&stripe.free));
        result.recoveries += number(atomics.load(&stripe.recoveries));
        result.dropped += number(atomics.load(&stripe.dropped));
        result.expiring += number(atomics.load(&stripe.expiring));
        result.expirations += number(atomics.load(&stripe.expirations));
        result.writes += number(atomics.load(&stripe.begin));
    }
    const unused = segment.view.committed -| atomics.load(&header.pool.frontier);
    const unowned = atomics.load(&header.pool.free) +| atomics.load(&header.pool.parked_bytes);
    result.pool_free_bytes = number(unowned +| unused);
    // Where the system has no queries, a writer cannot tell others from itself.
    const others = (segment.readonly or os.has_range_queries) and
        try range_lock.isHeld(segment.fault, segment.locks, .writer);
    result.other_writers = @floatFromInt(@intFromBool(others));
    return result;
}
