//! One open map: its segment, its lock, and what this handle keeps of both. What is done with a map
//! stands in the files beside this one, an operation or a family of them each.

const std = @import("std");
const hash = @import("../stripe/hash.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const status = @import("../status.zig");
const tables = @import("../stripe/table.zig");
const Segment = @import("../segment/segment.zig").Segment;
const Space = @import("../stripe/space.zig").Space;
const UserLock = @import("../lock/user_lock.zig").UserLock;

/// A key's stripe, and the fast hash from which its slot follows, too.
pub const KeyHash = struct { stripe: u32, fast: u64 };

/// As many as a map without a ceiling has stripes.
const cached_count = 64;

pub const Map = struct {
    segment: Segment,
    lock: UserLock,
    fault: status.Fault,
    secrets: hash.Secrets,
    /// What a bulk call gathered for `bulk.takeGathered`; memory private to this handle.
    gathered: []align(os.page_bytes) u8,
    gathered_len: usize,
    /// The stripes' tables as last seen; where there are more stripes, some share a place.
    cached: [cached_count]tables.CachedTable,

    /// Call once the segment is attached.
    pub fn begin(map: *Map) void {
        const header = map.segment.frontHeader();
        map.secrets = .of(header);
        map.gathered = &.{};
        map.gathered_len = 0;
        map.cached = @splat(.empty);
        map.lock.init(.{
            .header = header,
            .locks = map.segment.locks,
            .fault = &map.fault,
            .readonly = map.segment.readonly,
        });
    }

    /// A lock that is held counts as released.
    pub fn close(map: *Map) void {
        map.lock.close();
        map.segment.close();
        os.freePages(map.gathered);
    }

    pub inline fn hashOf(map: *const Map, key: []const u8) KeyHash {
        return map.hashFrom(hash.fast(&map.secrets, key));
    }

    pub inline fn hashFrom(map: *const Map, fast: u64) KeyHash {
        return .{ .stripe = hash.stripeOf(fast, map.segment.view.stripe_bits), .fast = fast };
    }

    /// The tag that `table` knows the key by.
    pub inline fn tagFor(
        map: *const Map,
        table: tables.Table,
        key_hash: KeyHash,
        key: []const u8,
    ) layout.Tag {
        return hash.tagOf(if (table.sip) hash.sip(&map.secrets, key) else key_hash.fast);
    }

    pub inline fn spaceOf(map: *Map, index: u32) Space {
        return .of(&map.segment, &map.secrets, index);
    }

    pub inline fn cachedTable(map: *Map, index: u32) *tables.CachedTable {
        return &map.cached[index % cached_count];
    }
};
