//! One open map: its segment, its lock, and what this handle keeps of both. What is done with a map
//! stands in the files beside this one, an operation or a family of them each.

const std = @import("std");
const hash = @import("../stripe/hash.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const spaces = @import("../stripe/space.zig");
const status = @import("../status.zig");
const tables = @import("../stripe/table.zig");
const Segment = @import("../segment/segment.zig").Segment;
const Space = spaces.Space;
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
    /// This call's *now*, in milliseconds since 1970; 0: it was not asked for yet.
    now_ms: u64,
    /// Whether this handle goes on with a search for ended entries that it has begun
    /// (`expiry.sweep`).
    is_sweeping: bool,
    /// The stripes' tables as last seen; where there are more stripes, some share a place.
    cached: [cached_count]tables.CachedTable,

    /// Call once the segment is attached.
    pub fn begin(map: *Map) void {
        const header = map.segment.frontHeader();
        map.secrets = .of(header);
        map.gathered = &.{};
        map.gathered_len = 0;
        map.now_ms = 0;
        map.is_sweeping = false;
        map.cached = @splat(.empty);
        map.lock.init(.{
            .header = header,
            .locks = map.segment.locks,
            .fault = &map.fault,
            .readonly = map.segment.readonly,
        });
    }

    /// Every call that may wait or fail begins so: with a deadline of its own, and with no word of
    /// an earlier failure in the record. The fast paths of `get` and `put` do neither; what is rare
    /// on the way out of them begins so instead.
    pub inline fn startCall(map: *Map) void {
        map.now_ms = 0;
        map.fault.clear();
        map.segment.deadline = .in(map.segment.timeout_ms);
        map.segment.deadline.is_used = true;
    }

    /// As `startCall`, for the slow path of a put, and for a delete, of which nearly all wait for
    /// nothing and note nothing: then the next one has nothing to clear. What does note something
    /// and may go well all the same marks the deadline: `Segment.noteSpace`, what resolves a
    /// replacement, `StripeOp.markDirty`, and the second try of a put; and so does every failure.
    pub inline fn startQuickCall(map: *Map) void {
        if (map.segment.deadline.is_used) map.restart();
    }

    noinline fn restart(map: *Map) void {
        map.startCall();
        map.segment.deadline.is_used = false;
    }

    /// The moment by which this call decides what has ended: one for all that it does, read when it
    /// first meets an entry with an end.
    pub fn now(map: *Map) u64 {
        return if (map.now_ms != 0) map.now_ms else map.takeNow();
    }

    /// Reads the clock for this call, which has not, or whose *now* must be later than what it has
    /// done so far. The next call must not go on with it (`startQuickCall`).
    pub noinline fn takeNow(map: *Map) u64 {
        map.now_ms = @max(os.endClockMs(), 1);
        map.segment.deadline.is_used = true;
        return map.now_ms;
    }

    /// Whether an entry with this end has ended. For one that is not there throughout under a lock,
    /// `expires` must have been loaded after this call's *now* was read, or an entry that was
    /// touched in between would seem to be gone.
    pub inline fn isOver(map: *Map, expires: u64) bool {
        return expires != 0 and expires <= map.now();
    }

    /// A lock that is held counts as released.
    pub fn close(map: *Map) void {
        map.lock.close();
        spaces.giveBackLeaving(&map.segment);
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
