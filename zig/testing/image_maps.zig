//! The maps of crash images: made with secrets of their own, and attached to once more.

const std = @import("std");
const attaching = @import("../map/attach.zig");
const calls = @import("calls.zig");
const chunks = @import("../stripe/chunk.zig");
const directory = @import("../segment/directory.zig");
const layout = @import("../layout.zig");
const maps = @import("../map/map.zig");
const segments = @import("../segment/segment.zig");
const status = @import("../status.zig");
const support = @import("support.zig");

const Header = layout.Header;
const Map = maps.Map;

/// What kind of segment to make.
pub const Shape = struct {
    kind: layout.Kind = .map,
    lock: layout.LockKind = support.usual_lock,
    stripe_bits: ?u6 = 0,
    max_bytes: u64 = 1 << 20,
    /// Where the segment's secrets come from, so that the same happens again.
    seed: u64 = 0,
};

/// A new anonymous segment.
pub fn make(shape: Shape) !*Map {
    var fault: status.Fault = .{};
    const options: segments.Options = .{
        .kind = shape.kind,
        .recover = attaching.recoverSegment,
        .lock = shape.lock,
        .stripe_bits = shape.stripe_bits,
        .max_bytes = shape.max_bytes,
        .timeout_ms = 2000,
    };
    const map = try support.prepared(&fault, &options);
    errdefer calls.discard(map);
    try directory.anonymous(&map.segment, &options);
    const header = map.segment.header();
    var random = std.Random.DefaultPrng.init(shape.seed);
    for (&header.fast_secrets) |*word| word.* = random.next();
    for (&header.sip_secrets) |*word| word.* = random.next();
    header.checksum = layout.checksum(header);
    map.begin();
    return map;
}

/// One more handle on the map of a token, of the kind that `victim` is.
pub fn attach(token: []const u8, victim: *const Map, readonly: bool) !*Map {
    var fault: status.Fault = .{};
    var options: segments.Options = .{
        .kind = @enumFromInt(@as(u8, @truncate(victim.segment.header().attributes))),
        .readonly = readonly,
        .recover = attaching.recoverSegment,
        .timeout_ms = 2000,
    };
    const map = try support.prepared(&fault, &options);
    errdefer calls.discard(map);
    try directory.attachToken(&map.segment, token, &options);
    map.begin();
    return map;
}

pub fn close(map: *Map) void {
    map.close();
    calls.discard(map);
}

/// How many bytes need no blocks while `committed` is stored: in holes, and behind the first
/// page of an extent that comes with it.
pub fn holesBefore(shadow: []const u64, committed: u64) u64 {
    const pool = @offsetOf(Header, "pool");
    const holes = shadow[(pool + @offsetOf(layout.Pool, "hole_bytes")) / 8];
    const word = shadow[(pool + @offsetOf(layout.Pool, "moving")) / 8];
    const moving: layout.Moving = @bitCast(word);
    if (moving.kind != .fresh) return holes;
    const before = shadow[@offsetOf(Header, "committed") / 8];
    return holes + (committed -| before -| layout.page_bytes);
}

/// Whether the words allow a hole, just before it is made, of so many words from an offset on: they
/// lie behind `committed`, or behind `dense` of an extent that no stripe owns and that `moving`
/// names. In another order, a crash in between leaves a word that promises blocks, and none there.
pub fn mayBeEmptied(shadow: []const u64, from: u64, count: u64) bool {
    if (from >= shadow[@offsetOf(Header, "committed") / 8]) return true;
    const pool = @offsetOf(Header, "pool");
    const moving: layout.Moving = @bitCast(shadow[(pool + @offsetOf(layout.Pool, "moving")) / 8]);
    const extent = switch (moving.kind) {
        .extent, .fresh => @as(u64, moving.page) * layout.page_bytes,
        // The one that was parked last.
        .all => shadow[(pool + @offsetOf(layout.Pool, "parked")) / 8],
        else => return false,
    };
    if (extent == 0 or extent % layout.page_bytes != 0 or extent >= from) return false;
    const head: *const layout.Chunk = @ptrCast(&shadow[extent / 8]);
    const described: chunks.Extent = @bitCast(head.extent);
    const end = extent + @as(u64, described.units) * layout.unit_bytes;
    return described.owner == 0 and head.parks == 1 and extent + head.dense <= from and
        from + 8 * count <= end;
}
