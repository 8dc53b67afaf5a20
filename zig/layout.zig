//! Every byte that is shared, drawn once.
//!
//!     0        Header     identity, hot words, facts; the Pool at 2048      one page
//!     4096     Stripe[n]  locks, tables, counters, lists of free blocks     n = 1 << stripe_bits
//!     ...      chunks     whole units of 1 KiB, each owned by one stripe or free in the pool
//!     committed           nothing beyond is touched: no blocks are allocated there
//!     ceiling             nothing beyond is mapped
//!
//! All shared words are `u64`, little-endian, aligned to 8. Places are byte offsets from the start
//! of the segment, or granules (16 bytes) where a slot word must hold them; never pointers, because
//! each process maps the segment elsewhere.
//!
//! **Truth** is: `state` and `committed` of the header, `table` and `chunks` of each stripe, the
//! slot words of the table it names, the entries those reach, and the headers of owned chunks.
//! Everything else is derived and rebuilt from the truth by recovery.

const std = @import("std");

pub const magic: u64 = std.mem.readInt(u64, "shmap\r\n\x1a", .little);
pub const layout_version = 3;

pub const page_bytes = 4096;
/// What slot words and retired lists count in.
pub const granule_bytes = 16;
/// What the pool and chunk headers count in.
pub const unit_bytes = 1024;

pub const Kind = enum(u8) { map = 0, value = 1, region = 2 };
pub const LockKind = enum(u8) { robust = 0, kernel = 1 };

/// `replacing` is settled by whoever reads it: see `segment.zig`.
pub const State = enum(u64) { live = 1, replacing = 2, replaced = 3, unlinked = 4, _ };

/// The user's lock as far as others must know it; who holds it is the kernel's to say (range USER).
/// Truth about `owed`: a `held` word without a holder, or this bit, means that the last holder did
/// not release.
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
    shape: u64,
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
    _identity: [9]u64,

    // One line, read by every call, written rarely.
    state: u64,
    committed: u64,
    /// A `LockWord`: who may write.
    lock_word: u64,
    /// Its lower half counts releases of the user's lock; those who wait for one sleep on it.
    bell: u64,
    /// The same for the place of the first in line.
    next_bell: u64,
    /// A hint: not 0 while somebody is first in line. A stale one costs a look at the range NEXT.
    want: u64,
    _hot: [2]u64,

    // Who holds the user's lock; decides nothing.
    holder_pid: u64,
    holder_thread: u64,
    holder_since_ms: u64,
    _holder: [5]u64,

    // Facts of the living writers, written by a sole writer under LIFE.
    libc: u64,
    mutex_shape: u64,
    pid_namespace: u64,
    boot: [2]u64,
    /// 1 while nobody is attached and the last writer left in an orderly way.
    clean: u64,
    _facts: [2]u64,

    _rest: [200]u64,

    pool: Pool,
    _tail: [176]u64,
};

pub const pool_bin_count = 64;

/// Which units belong to nobody. Everything but the mutex is derived: `pool.zig` rebuilds it from
/// the chunk lists of all stripes.
pub const Pool = extern struct {
    mutex: [64]u8 align(64),
    /// Who is inside, 0 for nobody; set when the lock is taken over means: rebuild.
    writer: u64,
    /// Units from here to `committed` have never been handed out since the last rebuild.
    frontier: u64,
    /// Bytes in the bins.
    free: u64,
    /// Bytes released since the last rebuild.
    released: u64,
    _line: [4]u64,
    bins: [pool_bin_count]u64,
};

pub const class_count = 56;
/// Blocks of a batch.
pub const batch_max = 16;
/// A power of two that holds the three batches in use.
pub const batch_count = 4;

/// One stripe: its own lock, table, counters and blocks.
pub const Stripe = extern struct {
    mutex: [64]u8 align(64),

    // Read by lock-free readers; written when a table is published or a generation ends.
    generation: u64,
    table: u64,
    recoveries: u64,
    dropped: u64,
    _read: [4]u64,

    // One line, written by every operation, under the stripe's lock. Two processes that write to
    // the same stripe hand each line written to each other: hence few.
    writer: u64,
    begin: u64,
    end: u64,
    live: u64,
    tombstones: u64,
    /// Blocks in the newest batch, and how many bytes more it takes before it is full.
    retired_count: u64,
    retired_room: u64,
    /// Blocks in the batch two generations old, which may be used again.
    ripe_count: u64,

    // The stripe's space, written when something else than a ripe block is taken.
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
    /// Blocks in the batch of the generation before.
    older_count: u64,

    /// A block kept back so that a full segment can still replace values; 0 for none.
    spare: u64,
    spare_bytes: u64,
    _spare: [6]u64,

    lists: [class_count]u64,
    /// Blocks retired in generation g lie in batch g modulo `batch_count`.
    batches: [batch_count][batch_max]u64,
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
    _pad: [4]u64,
};

pub fn chunkCheck(offset: u64) u64 {
    return (offset ^ 0x63_68_75_6e_6b) *% 0x9e3779b97f4a7c15;
}

/// An entry: this header, the key, zero-padded to 8, then the value, zero-padded to 8. Immutable
/// from the moment a slot names it until two generations after none does.
pub const Entry = extern struct {
    /// The stripe's begin count when it was written: unique in the stripe for all time.
    version: u64,
    /// value length (32 bits) | key length (16) | kind (8) | 0 (8), from the lowest.
    sizes: u64,
    /// Milliseconds since 1970 when it ends, 0 for never. Not used yet.
    expires: u64,

    pub const Sizes = packed struct(u64) {
        value_len: u32,
        key_len: u16,
        kind: u8,
        _unused: u8 = 0,
    };

    pub fn bytesFor(key_len: u64, value_len: u64) u64 {
        return @sizeOf(Entry) + words(key_len) * 8 + words(value_len) * 8;
    }
};

/// A slot of a table. The home of a tag in a table of 2^n slots is its lowest n bits.
pub const Slot = packed struct(u64) {
    granule: u36,
    tag: u28,

    pub const empty: u64 = 0;
    pub const tombstone: u64 = 1;
};

/// What `Stripe.table` holds; 0 is no table. The hash kind lies in the same word, so that nobody
/// probes a table with the hash of another; and a serial, so that whoever sees the same word twice
/// has not missed that another table was there in between.
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

/// What one handle sees of a segment: where it is mapped and how much of it may be touched.
pub const View = struct {
    base: [*]align(page_bytes) u8,
    /// A checked copy of the header's `committed`; the shared word only grows.
    committed: u64,
    ceiling: u64,
    /// `dataOffset` of the stripes: nothing that can be damaged leads before it.
    data_start: u64,
    stripe_bits: u6,
    /// Asks whoever made the view to check a larger `committed` (is the file as long?) and adopt
    /// it. False: it is not so.
    refresh: *const fn (view: *View) bool,

    pub inline fn header(view: *const View) *Header {
        return @ptrCast(view.base);
    }

    pub inline fn stripeCount(view: *const View) u32 {
        return @as(u32, 1) << @intCast(view.stripe_bits);
    }

    pub inline fn stripe(view: *const View, index: u32) *Stripe {
        const stripes: [*]Stripe = @ptrCast(@alignCast(view.base + page_bytes));
        return &stripes[index];
    }

    /// Whether `bytes` bytes at `offset` lie inside the data and may be touched.
    pub inline fn covers(view: *View, offset: u64, bytes: u64) bool {
        if (view.coversNow(offset, bytes)) return true;
        return view.refresh(view) and view.coversNow(offset, bytes);
    }

    /// As `covers`, as far as is known without a look at what others have added.
    pub inline fn coversNow(view: *const View, offset: u64, bytes: u64) bool {
        return offset >= view.data_start and offset +| bytes <= view.committed;
    }

    pub inline fn at(view: *const View, offset: u64) [*]u64 {
        return @ptrCast(@alignCast(view.base + offset));
    }

    pub inline fn chunk(view: *const View, offset: u64) *Chunk {
        return @ptrCast(@alignCast(view.base + offset));
    }
};

comptime {
    std.debug.assert(@sizeOf(Header) == page_bytes);
    std.debug.assert(@offsetOf(Header, "checksum") == 22 * 8);
    std.debug.assert(@offsetOf(Header, "state") == 256);
    std.debug.assert(@offsetOf(Header, "holder_pid") == 320);
    std.debug.assert(@offsetOf(Header, "libc") == 384);
    std.debug.assert(@offsetOf(Header, "pool") == 2048);
    std.debug.assert(@sizeOf(Pool) == 640);
    std.debug.assert(@sizeOf(Stripe) % 64 == 0);
    std.debug.assert(@offsetOf(Stripe, "generation") == 64);
    std.debug.assert(@offsetOf(Stripe, "writer") == 128);
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

test "a layout of a known size" {
    try std.testing.expectEqual(@as(u64, 4096 + 64 * @sizeOf(Stripe)), dataOffset(6));
}
