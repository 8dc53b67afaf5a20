//! Every byte that is shared, drawn once.
//!
//!     0        Header     identity, hot words, facts; the Pool at 2048      one page
//!     4096     Stripe[n]  locks, tables, counters, lists of free blocks     n = 1 << stripe_bits
//!     ...      chunks     whole units of 1 KiB, each owned by one stripe or free in the pool
//!     committed           nothing beyond is touched: no blocks are allocated there; and none need
//!                         be before it in extents that park, from `Chunk.dense` on
//!     ceiling             nothing beyond is mapped
//!
//! All shared words are `u64`, little-endian, aligned to 8. Places are byte offsets from the start
//! of the segment, or granules (16 bytes) where a slot word must hold them; never pointers, because
//! each process maps the segment elsewhere.
//!
//! Magic, version and `state` stay where they are in every layout to come, so that each version of
//! the library can tell what it found. Nothing is stored into a file of another layout.
//!
//! Some words stand here for what is yet to be built, so that nothing has to move for it: they are
//! named in `reserved`, and are zero until a later layout gives them their meaning.
//!
//! **Truth** is: `state` and `committed` of the header, `table` and `chunks` of each stripe, the
//! slot words of the table it names, the entries those reach, `parked` and `moving` of the pool,
//! and the headers of owned chunks and of parked extents. Everything else is derived and rebuilt
//! from the truth by recovery.

const std = @import("std");

pub const magic: u64 = std.mem.readInt(u64, "shmap\r\n\x1a", .little);
pub const layout_version = 6;

pub const page_bytes = 4096;
/// What slot words and retired lists count in.
pub const granule_bytes = 16;
/// What the pool and chunk headers count in.
pub const unit_bytes = 1024;

pub const Kind = enum(u8) { map = 0, value = 1, region = 2 };
pub const LockKind = enum(u8) { robust = 0, kernel = 1 };

/// A caller that reads `replacing` finishes or undoes a replacement whose maker died
/// (`Segment.resolveReplacement`).
pub const State = enum(u64) { live = 1, replacing = 2, replaced = 3, unlinked = 4, _ };

/// Cached state of the user's lock, so that writers need no system call. The kernel's range lock
/// USER decides who holds it. `owed` is authoritative: the last holder died, and the next one must
/// be told; a `held` word that no handle holds USER for means the same.
pub const LockWord = packed struct(u64) {
    state: enum(u2) { free = 0, pending = 1, held = 2, abandoned = 3 },
    owed: bool,
    /// Counts acquisitions, so that no word comes twice.
    serial: u61,
};

pub const codec_bytes_max = 64;
pub const key_bytes_max = 65_535;
pub const value_bytes_max = 1 << 30;

pub const Header = extern struct {
    // Identity: written before the segment has a name, then constant, covered by `checksum`.
    magic: u64,
    version: u64,
    /// Kind, lock kind, log2 of the stripe count: a byte each, from the lowest.
    attributes: u64,
    ceiling: u64,
    /// The user's `maxBytes`, 0 if none was stated.
    max_bytes: u64,
    created_ms: u64,
    /// Random; what a token must match.
    id: u64,
    fast_secrets: [4]u64,
    sip_secrets: [2]u64,
    codec_len: u64,
    codec: [8]u64,
    checksum: u64,
    /// Reserved: the user's `maxEntries`, 0 if none was stated.
    max_entries: u64,
    /// Reserved: bytes of the sketch of a bounded map, between stripes and chunks.
    sketch_bytes: u64,
    _identity: [7]u64,

    // One cache line, read by every call, written rarely.
    state: u64,
    committed: u64,
    /// A `LockWord`: who may write.
    lock_word: u64,
    /// The wake sequence of the user's lock: its lower half counts releases, and waiters sleep on
    /// it.
    wake_seq: u64,
    /// The same for the head of the queue: counts how often a waiter gave that place up.
    head_wake_seq: u64,
    /// A hint: not 0 while a waiter is the head of the queue. A stale one costs one question about
    /// the range QUEUE_HEAD.
    has_head: u64,
    /// Reserved: which classes of keys are watched. Every writer loads it behind its commit.
    watched: u64,
    _hot: u64,

    // The last locker, for messages; decides nothing.
    holder_pid: u64,
    holder_thread: u64,
    /// Zero: a lock that is free is granted without a look at a clock.
    holder_since_ms: u64,
    /// Reserved: grows with every grant of the user's lock.
    fence: u64,
    _holder: [4]u64,

    // Facts of the living writers, written by a sole writer under LIFECYCLE.
    libc: u64,
    mutex_abi: u64,
    pid_namespace: u64,
    boot: [2]u64,
    /// 1 while no writer is attached and the last one closed in an orderly way.
    clean: u64,
    /// When entries that have ended were last looked for in every stripe, so that of many processes
    /// one does. A hint: any value is valid.
    swept_ms: u64,
    _facts: u64,

    /// Reserved: the wake sequence of those who watch the whole map.
    watch_all: u64 align(64),
    _watch: [7]u64,
    /// Reserved: for each class of keys, which of its parts are watched, and a wake sequence.
    watch_bells: [64]u64,
    /// Reserved: the chunk of key locks, with what all stripes share of them; 0 for none.
    key_locks: u64,
    _rest: [127]u64,

    pool: Pool,
    _tail: [176]u64,
};

pub const pool_bin_count = 64;

/// Which units belong to no stripe. Everything but the mutex, `parked` and `moving` is derived:
/// `pool.zig` rebuilds it from the chunk lists of all stripes and the list of parked extents.
pub const Pool = extern struct {
    mutex: [64]u8 align(64),
    /// Writer id while the pool is being changed, else 0. Non-zero on lock acquisition means that
    /// the previous holder died: rebuild.
    writer: u64,
    /// Units from here to `committed` have never been handed out since the last rebuild.
    frontier: u64,
    /// Bytes in the bins.
    free: u64,
    /// Bytes released since the last rebuild.
    released: u64,
    /// The parked extents that no stripe owns, a list through their headers. Truth.
    parked: u64,
    /// A `Moving`: the extent on its way to or from that list, or being given its blocks or robbed
    /// of them. Truth.
    moving: u64,
    /// Bytes with blocks of the extents in that list.
    parked_bytes: u64,
    /// Bytes without blocks of all extents that park, in that list or a stripe's.
    hole_bytes: u64,
    bins: [pool_bin_count]u64,
};

pub const class_count = 56;
/// Blocks of a limbo list.
pub const limbo_max = 16;
/// A power of two that holds the three limbo lists in use.
pub const limbo_count = 4;

/// One stripe: its own lock, table, counters and blocks.
pub const Stripe = extern struct {
    mutex: [64]u8 align(64),

    // Read by lock-free readers; written when a table is published or a generation ends.
    generation: u64,
    table: u64,
    recoveries: u64,
    dropped: u64,
    /// No entry of the stripe is to be removed for its end earlier than this, in milliseconds since
    /// 1970; 0: none has an end. Lowered before the end of an entry is stored.
    next_end: u64,
    _read: [3]u64,

    // One cache line, written by every operation, under the stripe's lock. Two processes that write
    // to the same stripe pass every written line between their processors: hence few.
    /// Writer id while the stripe is being changed, else 0. Non-zero on lock acquisition means that
    /// the previous holder died: recover.
    writer: u64,
    /// Operations begun, and finished.
    begin: u64,
    end: u64,
    live: u64,
    tombstones: u64,
    /// Blocks in the newest limbo list, and how many bytes more it takes before it is full.
    retired_count: u64,
    limbo_room: u64,
    /// Blocks in the limbo list two generations old, which may be used again.
    reclaimable_count: u64,

    // The stripe's space, written when something else than a reclaimable block is taken.
    bump: u64,
    bump_end: u64,
    /// Bit c: `lists[c]` is not empty.
    nonempty: u64,
    /// Bytes in `lists` and between `bump` and `bump_end`.
    free: u64,
    /// Bytes that came to the lists since the last rebuild.
    freed: u64,
    /// Bytes of all chunks, without their headers.
    owned: u64,
    /// The newest of this stripe's chunks; they form a list through their headers. Truth, changed
    /// only with the pool's lock held as well.
    chunks: u64,
    /// Blocks in the limbo list of the generation before.
    aging_count: u64,

    /// A block kept back so that a full segment can still replace values; 0 for none.
    spare: u64,
    spare_bytes: u64,
    /// Reserved: the verdict of the last commit of several keys whose lowest stripe this is, and
    /// the journal of one that changes this stripe. Both are truth.
    commit: u64,
    journal: u64,
    /// Reserved: where this stripe's share of the key locks lies, and how large it is.
    key_locks: u64,
    _spare: [3]u64,

    /// Entries that have an end.
    expiring: u64,
    /// Entries that were removed because they had ended.
    expirations: u64,
    /// Reserved: entries that were removed to stay within bounds.
    evictions: u64,
    /// The slot where the search for ended entries goes on, 0 before a new round, and the least end
    /// that this round has met.
    sweep_slot: u64,
    sweep_least: u64,
    _upkeep: [3]u64,

    lists: [class_count]u64,
    /// Blocks retired in generation g lie in the list g modulo `limbo_count`.
    limbo: [limbo_count][limbo_max]u64,
};

/// The head of a chunk. `units` and `stripe` are written before the chunk is in its stripe's list;
/// `next` is truth while it is, `previous` a derived short cut.
pub const Chunk = extern struct {
    /// units << 32 | (stripe + 1); stripe + 1 == 0 while it lies in the pool.
    extent: u64,
    next: u64,
    previous: u64,
    /// Tells a chunk from other bytes: `chunkCheck` of its own offset.
    check: u64,
    /// 1: the chunk is an extent for one large value, and is parked when no stripe owns it.
    parks: u64,
    /// Of such a one: how many of its first bytes surely have blocks.
    dense: u64,
    /// Of such a one: since when no stripe owns it, by the clock of all waits.
    parked_ms: u64,
    _pad: u64,
};

/// What `Pool.moving` says of an extent, for the next holder of the pool's lock if this one dies.
pub const Moving = packed struct(u64) {
    /// `fresh`: it reaches to the end of the segment, and may have no header yet. `all`: what
    /// no stripe owns may have holes.
    kind: enum(u8) { none = 0, extent = 1, fresh = 2, all = 3, _ },
    /// Its place, in pages.
    page: u56,

    pub const none: u64 = 0;

    pub fn of(kind: @FieldType(Moving, "kind"), offset: u64) u64 {
        std.debug.assert(offset % page_bytes == 0);
        return @bitCast(Moving{ .kind = kind, .page = @intCast(offset / page_bytes) });
    }
};

/// Words that no process of this layout stores to.
pub const reserved = .{
    .header = .{
        "max_entries", "sketch_bytes", "_identity", "watched",     "_hot",      "fence", "_holder",
        "_facts",      "watch_all",    "_watch",    "watch_bells", "key_locks", "_rest", "_tail",
    },
    .stripe = .{
        "_read", "commit", "journal", "key_locks", "_spare", "evictions", "_upkeep",
    },
};

/// Whether these reserved words of a header, pool or stripe are zero, as this layout has them.
pub fn areZero(part: anytype, comptime names: anytype) bool {
    inline for (names) |name| {
        if (!std.mem.allEqual(u8, std.mem.asBytes(&@field(part, name)), 0)) return false;
    }
    return true;
}

pub fn chunkCheck(offset: u64) u64 {
    return (offset ^ 0x63_68_75_6e_6b) *% 0x9e3779b97f4a7c15;
}

/// An entry: this header, the key, zero-padded to 8, then the value, zero-padded to 8. Immutable,
/// but for `expires`, from the moment a slot names it until two generations after none does.
pub const Entry = extern struct {
    /// The stripe's begin count when it was written: unique in the stripe for all time.
    version: u64,
    /// `Sizes`.
    sizes: u64,
    /// Milliseconds since 1970 when it ends, 0 for never. Stored in place by `touch`.
    expires: u64,

    pub const Sizes = packed struct(u64) {
        /// At most `value_bytes_max`. The highest bit is reserved: it marks an entry whose commit
        /// is not decided yet.
        value_len: u32,
        key_len: u16,
        kind: u8,
        /// How much longer an entry that has ended is kept (`graceMs`). Nothing stores another
        /// value than 0 yet.
        grace: u8 = 0,
    };

    /// Milliseconds that `Sizes.grace` stands for: 0, or a number of four bits, the highest set,
    /// shifted by the five highest bits of the byte: from 9 ms to a year.
    pub fn graceMs(grace: u8) u64 {
        if (grace == 0) return 0;
        return @as(u64, 8 + (grace & 7)) << @intCast(grace >> 3);
    }

    pub fn bytesFor(key_len: u64, value_len: u64) u64 {
        return @sizeOf(Entry) + words(key_len) * 8 + words(value_len) * 8;
    }
};

/// A short, partial hash of a key. Because the tag is short, collisions are possible: two keys with
/// the same tag need not be equal. Where tags differ, the keys do, and need not be compared.
pub const Tag = u28;

/// A slot of a table. The home of a tag in a table of 2^n slots is its lowest n bits.
pub const Slot = packed struct(u64) {
    granule: u36,
    tag: Tag,

    pub const empty: u64 = 0;
    pub const tombstone: u64 = 1;
};

/// What `Stripe.table` holds; 0 is no table. The hash kind lies in the same word, so that no reader
/// probes a table with the hash of another; and a serial, so that a reader that sees the same word
/// twice knows that no other table was there in between.
pub const TableWord = packed struct(u64) {
    granule: u36,
    log2: u6,
    sip: bool,
    present: bool,
    serial: u20,
};

pub const table_log2_max = 28;

pub inline fn words(bytes: u64) u64 {
    return (bytes + 7) / 8;
}

pub fn dataOffset(stripe_bits: u6) u64 {
    const end = page_bytes + (@as(u64, @sizeOf(Stripe)) << stripe_bits);
    return std.mem.alignForward(u64, end, unit_bytes);
}

comptime {
    std.debug.assert(@sizeOf(Header) == page_bytes);
    std.debug.assert(@offsetOf(Header, "checksum") == 22 * 8);
    std.debug.assert(@offsetOf(Header, "magic") == 0);
    std.debug.assert(@offsetOf(Header, "version") == 8);
    std.debug.assert(@offsetOf(Header, "state") == 256);
    std.debug.assert(@offsetOf(Header, "holder_pid") == 320);
    std.debug.assert(@offsetOf(Header, "libc") == 384);
    std.debug.assert(@offsetOf(Header, "watch_all") == 448);
    std.debug.assert(@offsetOf(Header, "watch_bells") == 512);
    std.debug.assert(@offsetOf(Header, "pool") == 2048);
    std.debug.assert(@sizeOf(Pool) == 640);
    std.debug.assert(@sizeOf(Stripe) % 64 == 0);
    std.debug.assert(@offsetOf(Stripe, "generation") == 64);
    std.debug.assert(@offsetOf(Stripe, "writer") == 128);
    std.debug.assert(@offsetOf(Stripe, "spare") == 256);
    std.debug.assert(@offsetOf(Stripe, "expiring") == 320);
    std.debug.assert(@sizeOf(Chunk) == 64);
    std.debug.assert(@sizeOf(Entry) == 24);
}

/// A check of the words that never change; not a defence against an attacker, who could compute it.
pub fn checksum(header: *const Header) u64 {
    const all: [*]const u64 = @ptrCast(header);
    var sum: u64 = 0xcbf29ce484222325;
    for (all[0 .. @offsetOf(Header, "checksum") / 8]) |word| {
        sum = (sum ^ word) *% 0x100000001b3;
        sum ^= sum >> 29;
    }
    return sum;
}

test checksum {
    var header: Header = std.mem.zeroes(Header);
    const before = checksum(&header);
    header.codec[7] ^= 1 << 63;
    try std.testing.expect(before != checksum(&header));
}

test areZero {
    var stripe: Stripe = std.mem.zeroes(Stripe);
    stripe.live = 1;
    try std.testing.expect(areZero(&stripe, reserved.stripe));
    stripe._upkeep[2] = 1 << 63;
    try std.testing.expect(!areZero(&stripe, reserved.stripe));
}

test "a grace grows with its byte, in steps of an eighth at most" {
    var before: u64 = 0;
    for (1..256) |grace| {
        const ms = Entry.graceMs(@intCast(grace));
        try std.testing.expect(ms > before and (before < 8 or ms - before <= before / 8));
        before = ms;
    }
    try std.testing.expect(before > 365 * std.time.ms_per_day);
}

test "a layout of a known size" {
    try std.testing.expectEqual(@as(u64, 4096 + 64 * @sizeOf(Stripe)), dataOffset(6));
}
