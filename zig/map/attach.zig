//! From a segment to an open map: the three ways to open one, and what a sole writer recovers
//! before any other process may attach.

const atomics = @import("../atomics.zig");
const directory = @import("../segment/directory.zig");
const hash = @import("../stripe/hash.zig");
const os = @import("../os/os.zig");
const segments = @import("../segment/segment.zig");
const spaces = @import("../stripe/space.zig");
const status = @import("../status.zig");
const Map = @import("map.zig").Map;

const Error = status.Error;
const Options = segments.Options;
const Space = spaces.Space;

/// Makes a map ready to be opened. Its `fault` is set already.
pub fn prepare(map: *Map, options: *const Options) void {
    map.segment.fault = &map.fault;
    map.segment.name_len = 0;
    map.segment.unnamed = null;
    map.segment.readonly = options.readonly;
    map.segment.timeout_ms = options.timeout_ms;
    map.segment.deadline = .in(options.timeout_ms);
    map.segment.writer_id = @as(u64, os.pid()) << 32 | 1;
}

pub fn openByName(
    map: *Map,
    directory_bytes: []const u8,
    name: []const u8,
    mode: directory.Mode,
    options: *const Options,
) Error!void {
    try nameSegment(map, directory_bytes, name);
    try directory.open(&map.segment, mode, options);
    map.begin();
}

pub fn openAnonymous(map: *Map, options: *const Options) Error!void {
    try directory.anonymous(&map.segment, options);
    map.begin();
}

pub fn openByToken(map: *Map, token: []const u8, options: *Options) Error!void {
    try directory.attachToken(&map.segment, token, options);
    map.begin();
}

/// Removes a name without opening what it leads to. False: nothing had it.
pub fn unlinkName(
    map: *Map,
    directory_bytes: []const u8,
    name: []const u8,
    options: *const Options,
) Error!bool {
    try nameSegment(map, directory_bytes, name);
    return directory.unlinkName(&map.segment, options);
}

fn nameSegment(map: *Map, directory_bytes: []const u8, name: []const u8) Error!void {
    map.segment.directory = try directory.resolve(&map.fault, directory_bytes);
    try directory.setName(&map.segment, name);
}

/// What a sole writer does before any other process may attach: recovers every stripe whose writer
/// died, or, with `all`, every stripe, because the last writer did not close in an orderly way.
/// Then it gives back what lies free, if no reader is attached either.
pub fn recoverSegment(segment: *segments.Segment, all: bool) Error!void {
    // A dead writer may have grown the segment after this handle mapped it.
    try segment.refresh();
    const secrets: hash.Secrets = .of(segment.header());
    const pool = &segment.header().pool;
    if (all or atomics.load(&pool.writer) != 0) {
        atomics.storeRelease(&pool.writer, segment.writer_id);
        // A damaged list fails those calls that need it; reading goes on.
        spaces.rebuildPool(segment, pool) catch |err| if (err != error.Corrupt) return err;
        atomics.storeRelease(&pool.writer, 0);
    }
    for (0..segment.view.stripeCount()) |i| {
        const space: Space = .of(segment, &secrets, @intCast(i));
        const stripe = space.stripe;
        if (!all and atomics.load(&stripe.writer) == 0) continue;
        if (atomics.load(&stripe.table) == 0 and atomics.load(&stripe.chunks) == 0 and
            atomics.load(&stripe.writer) == 0) continue;
        space.recover() catch |err| if (err != error.Corrupt) return err;
    }
    spaces.giveBackAttaching(segment);
}
