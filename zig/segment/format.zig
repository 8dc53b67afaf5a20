//! Makes segments.

const std = @import("std");
const atomics = @import("../atomics.zig");
const file_checks = @import("file_checks.zig");
const headers = @import("header.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const segments = @import("segment.zig");

const Error = @import("../status.zig").Error;
const Header = layout.Header;
const Options = segments.Options;
const Segment = segments.Segment;

/// How much longer than its blocks a segment may become. Extents with holes are not joined: each
/// doubling of what large values take, and there are eleven up to the largest, may have as many
/// bytes as all blocks, in extents up to twice as long.
const places_for_blocks = 32;

/// More stripes let more writers in at once, and cost their space in a small segment.
fn stripeBitsFor(options: *const Options, room: u64) u6 {
    if (options.stripe_bits) |bits| return bits;
    if (options.kind == .value) return 0;
    if (room >= 64 << 20) return 6;
    if (room >= 8 << 20) return 5;
    return if (room >= 1 << 20) 4 else 3;
}

/// Makes a complete, live segment in an empty file that has no name yet, with LIFECYCLE held, and
/// takes WRITER on it: from its first moment with a name it is attached.
pub fn format(segment: *Segment, options: *const Options) Error!void {
    const fault = segment.fault;
    const lock: layout.LockKind = options.lock orelse
        if (os.has_robust_mutex) .robust else .kernel;
    if (lock == .robust and !os.has_robust_mutex) {
        fault.errno = 0; // no call of the system has said so
        return error.Unsupported;
    }
    const file_system = try os.fileSystem(fault, segment.file);
    if (file_system.network) return fault.withReason(.networkFileSystem, error.Unsupported);
    try file_checks.keepBlocks(fault, segment.file, file_system.overwrites);
    var limit = headers.ceiling_max;
    if (options.kind == .map and options.max_bytes > 0) limit = @min(limit, options.max_bytes);
    limit = std.mem.alignBackward(u64, limit, layout.page_bytes);
    // Blocks are bounded by the user. What has holes may lie in many places beside them.
    const ceiling = @min(headers.ceiling_max, limit *| places_for_blocks);

    var header: Header = std.mem.zeroes(Header);
    // The file system bounds nothing for good, as it may be made larger; but in a small one the
    // stripes would take much of it.
    const room = if (file_system.bytes > 0) @min(limit, file_system.bytes) else limit;
    const bits = stripeBitsFor(options, room);
    const data_start = layout.dataOffset(bits);
    const committed = std.mem.alignForward(u64, data_start, layout.page_bytes);
    fault.needed_bytes = @floatFromInt(committed);
    fault.ceiling_bytes = @floatFromInt(limit);
    if (committed > limit) return fault.withReason(.ceilingReached, error.NoSpace);
    try os.allocate(fault, segment.file, 0, committed);
    header.magic = layout.magic;
    header.version = layout.layout_version;
    header.attributes = @bitCast(headers.Attributes{
        .kind = @intFromEnum(options.kind),
        .lock = @intFromEnum(lock),
        .stripe_bits = bits,
    });
    header.ceiling = ceiling;
    header.max_bytes = options.max_bytes;
    header.created_ms = os.realtimeNs() / std.time.ns_per_ms;
    header.id = os.randomWord();
    for (&header.fast_secrets) |*word| word.* = os.randomWord();
    for (&header.sip_secrets) |*word| word.* = os.randomWord();
    header.codec_len = options.codec.len;
    @memcpy(std.mem.asBytes(&header.codec)[0..options.codec.len], options.codec);
    header.committed = committed;
    header.state = @intFromEnum(layout.State.live);
    header.pool.frontier = data_start;
    header.clean = 1;
    try segment.map(&header);
    errdefer segment.unmap();
    header.checksum = layout.checksum(&header);
    atomics.storeBytes(@ptrCast(segment.header()), std.mem.asBytes(&header));
    try segment.attachWriter(options, &segment.deadline);
    try os.setPermissions(fault, segment.file, options.permissions);
}
