//! One process's hold on a segment: the mapping, the two descriptions, growth, and the step from
//! "a complete file" to "attached". How segments get and lose their names is in `directory.zig`.
//!
//! A handle that may write holds the range WRITER shared for life; a read-only one READER. A handle
//! that gets WRITER exclusively under LIFECYCLE is the only writer and may do what must not happen
//! beside another: make the mutexes anew, recover what dead writers left, write its facts.

const std = @import("std");
const layout = @import("../layout.zig");
const atomics = @import("../atomics.zig");
const os = @import("../os/os.zig");
const headers = @import("header.zig");
const range_lock = @import("../lock/range_lock.zig");
const stripe_lock = @import("../lock/stripe_lock.zig");
const status = @import("../status.zig");
const unnamed_file = @import("unnamed_file.zig");
const views = @import("view.zig");

const Attributes = headers.Attributes;
const Error = status.Error;
const Facts = headers.Facts;
const Fault = status.Fault;
const Header = layout.Header;
const Mappings = @import("mappings.zig").Mappings;
const Refusal = views.Refusal;
const View = views.View;

pub const name_bytes_max = 200;

/// A growth step: a quarter of what there is, within these bounds. The upper bound keeps the
/// longest pause short; allocation costs the same per page in any step.
const growth_bytes_min = 64 * 1024;
const growth_bytes_max = 4 << 20;

/// How long facts that differ may be those of a writer whose memory is still being torn down.
const facts_patience_ms = 1000;

/// What an open asks for. Null: not stated, take what the segment has.
pub const Options = struct {
    kind: layout.Kind = .map,
    readonly: bool = false,
    allow_foreign_owner: bool = false,
    lock: ?layout.LockKind = null,
    permissions: u32 = 0o600,
    max_bytes: u64 = 0,
    timeout_ms: f64 = 5000,
    codec: []const u8 = "msgpackr",
    /// Tests ask for few stripes.
    stripe_bits: ?u6 = null,
    /// The identity a token names.
    id: ?u64 = null,
    /// Recovers what dead writers left: all stripes, or those that are marked. Called while this
    /// handle is the only writer.
    recover: *const fn (segment: *Segment, all: bool) Error!void,
};

pub const Segment = struct {
    view: View,
    /// The first mapping: mutexes and wake sequences are known by their addresses there.
    front: os.Base,
    /// Mapped; grows the file; what an unnamed segment's token leads to.
    file: os.Fd,
    /// Carries all range locks; never mapped.
    locks: os.Fd,
    directory: os.Path,
    name: [name_bytes_max]u8,
    /// 0: unnamed.
    name_len: usize,
    /// The number of the file where memory without a name has one (`unnamed_file.zig`).
    unnamed: ?u64,
    readonly: bool,
    lock_kind: layout.LockKind,
    timeout_ms: f64,
    /// When the call that is on its way ends, with all that it waits for. A handle makes one call
    /// at a time, each of which begins with a new one (`Map.startCall`).
    deadline: os.Deadline,
    /// What this handle writes into writer words: pid << 32 | 1, so never 0. Only messages read it.
    writer_id: u64,
    fault: *Fault,
    mappings: Mappings,
    /// How many blocks it may take: the user's `maxBytes`, or the ceiling.
    block_limit: u64,
    /// When this handle next looks for blocks to give back, by the clock of all waits.
    punch_due_ns: u64,
    /// Whether large values are copied through the mapping (`read.zig`). Null: not known yet.
    holes_are_safe: ?bool,

    pub fn header(segment: *const Segment) *Header {
        return segment.view.header();
    }

    /// The header as the first mapping shows it.
    pub fn frontHeader(segment: *const Segment) *Header {
        return @ptrCast(segment.front);
    }

    /// A stripe as the first mapping shows it.
    pub inline fn stripe(segment: *const Segment, index: u32) *layout.Stripe {
        return views.stripeAt(segment.front, index);
    }

    pub fn nameSlice(segment: *const Segment) []const u8 {
        return segment.name[0..segment.name_len];
    }

    /// Takes the name of an unnamed file where the system has no memory without one.
    pub fn nameUnnamed(segment: *Segment, number: u64) Error!void {
        segment.unnamed = number;
        segment.directory = try os.defaultDirectory(segment.fault);
        const full = try unnamed_file.pathOf(segment.fault, number);
        const name = full.slice()[segment.directory.len + 1 ..];
        @memcpy(segment.name[0..name.len], name);
        segment.name_len = name.len;
    }

    pub fn path(segment: *const Segment) Error!os.Path {
        return os.Path.of("{s}/{s}", .{ segment.directory.slice(), segment.nameSlice() });
    }

    /// Where this segment's name leads. `unknown`: this process may not look.
    pub fn nameLeads(segment: *Segment) enum { here, elsewhere, unknown } {
        var fault: Fault = .{};
        const full = segment.path() catch return .unknown;
        const named = os.statName(&fault, &full) catch |err| {
            if (err == error.NotFound) return .elsewhere;
            segment.fault.errno = fault.errno;
            return .unknown;
        };
        const mine = os.stat(&fault, segment.file) catch {
            segment.fault.errno = fault.errno;
            return .unknown;
        };
        return if (named.same(mine)) .here else .elsewhere;
    }

    pub fn hasItsName(segment: *Segment) bool {
        return segment.nameLeads() == .here;
    }

    /// Whether it has a name that leads elsewhere, or nowhere: any program may remove the file, or
    /// put another one in its place, and tells no segment.
    pub fn hasLostItsName(segment: *Segment) bool {
        if (segment.name_len == 0 or segment.unnamed != null) return false;
        return segment.nameLeads() == .elsewhere;
    }

    pub inline fn state(segment: *const Segment) layout.State {
        return @enumFromInt(atomics.loadAcquire(&segment.header().state));
    }

    /// Whether it is plainly what those attached to it go on with.
    pub inline fn isCurrent(segment: *const Segment) bool {
        const found = segment.state();
        return found == .live or found == .unlinked;
    }

    /// The lock of a stripe. A mutex is given back at the address at which it was taken: the kernel
    /// walks a dead thread's list of addresses, and would come to nothing by way of another one.
    pub inline fn lockOf(segment: *const Segment, index: u32) stripe_lock.StripeLock {
        return segment.lockAt(segment.stripe(index), index);
    }

    /// As `lockOf`, at the address by which the caller knows the stripe.
    pub inline fn lockAt(
        segment: *const Segment,
        at: *layout.Stripe,
        index: u32,
    ) stripe_lock.StripeLock {
        if (segment.lock_kind == .kernel) return segment.range(.ofStripe(index));
        return .{ .robust = &at.mutex };
    }

    /// The lock of the pool, which is held while the segment grows, and may be mapped once more.
    pub fn poolLock(segment: *const Segment) stripe_lock.StripeLock {
        if (segment.lock_kind == .kernel) return segment.range(.pool);
        return .{ .robust = &segment.frontHeader().pool.mutex };
    }

    fn range(segment: *const Segment, byte: range_lock.Byte) stripe_lock.StripeLock {
        return .{ .kernel = .{ .fd = segment.locks, .byte = byte } };
    }

    pub fn setState(segment: *Segment, to: layout.State) void {
        atomics.storeRelease(&segment.header().state, @intFromEnum(to));
    }

    /// What every call asks first: is the segment still the one its name means?
    pub inline fn check(segment: *Segment) Error!void {
        if (!segment.isCurrent()) try segment.resolveReplacement();
    }

    /// As `check`, before a write.
    pub inline fn checkWritable(segment: *Segment) Error!void {
        if (segment.readonly) return error.ReadOnly;
        try segment.check();
    }

    /// The slow path of `check`. An unlinked segment lives on for those attached to it. `replacing`
    /// is the mark of a replacement in progress: if its maker is gone (LIFECYCLE is free), the name
    /// tells how far it came, and the caller that notices finishes it.
    fn resolveReplacement(segment: *Segment) Error!void {
        segment.deadline.is_used = true;
        switch (segment.state()) {
            .live, .unlinked => return,
            .replaced => return error.Replaced,
            .replacing => {},
            _ => return segment.fault.withReason(.checksum, error.Corrupt),
        }
        const leads = segment.nameLeads();
        if (leads == .unknown) return;
        if (segment.readonly) return if (leads == .here) {} else error.Replaced;
        if (!try range_lock.tryLock(segment.fault, segment.locks, .lifecycle, .exclusive)) return;
        defer range_lock.unlock(segment.locks, .lifecycle);
        if (segment.state() == .replacing)
            segment.setState(if (segment.hasItsName()) .live else .replaced);
        if (segment.state() == .replaced) return error.Replaced;
    }

    /// Maps the file by a copy of its header that `checkHeader` has checked.
    pub fn map(segment: *Segment, header_copy: *const Header) Error!void {
        std.debug.assert(header_copy.committed <= header_copy.ceiling);
        const access: os.Access = if (segment.readonly) .read else .read_write;
        segment.mappings = .of(segment.file, access, segment.fault);
        const first = try segment.mappings.add(header_copy.committed, header_copy.ceiling);
        segment.front = first.base;
        segment.view = .{
            .base = first.base,
            .mapped = first.bytes,
            .committed = header_copy.committed,
            .ceiling = header_copy.ceiling,
            .data_start = layout.dataOffset(headers.stripeBits(header_copy)),
            .stripe_bits = headers.stripeBits(header_copy),
            .mappings = &segment.mappings,
        };
        segment.lock_kind = headers.lockKind(header_copy);
        segment.block_limit = headers.blockLimit(header_copy);
        segment.punch_due_ns = 0;
        segment.holes_are_safe = null;
    }

    pub fn unmap(segment: *Segment) void {
        segment.mappings.unmapAll();
    }

    /// Sees what other processes have added. `NoSpace`: this process has no address space for it.
    pub fn refresh(segment: *Segment) Error!void {
        return switch (segment.view.refresh()) {
            .current => {},
            .damaged => segment.fault.withReason(.truncated, error.Corrupt),
            .unmapped => error.NoSpace,
        };
    }

    /// The error of a part of the segment that may not be touched: damage of that kind, or bytes
    /// for which this process has no address space, which are no sign of any.
    pub fn refused(segment: *const Segment, damage: status.Reason, why: Refusal) Error {
        if (why == error.NoSpace) return why; // the reason stands in the fault record
        return segment.fault.withReason(damage, why);
    }

    /// How many blocks it takes: all below `committed`, but for the holes of extents that park.
    pub fn blockBytes(segment: *const Segment) u64 {
        return segment.view.committed -| atomics.load(&segment.header().pool.hole_bytes);
    }

    /// How much it may still grow by within `block_limit`, with the pool's lock held.
    fn blocksLeft(segment: *const Segment) u64 {
        return segment.block_limit -| segment.blockBytes();
    }

    /// Makes room for `bytes` more at the end, with the pool's lock held. On failure the file
    /// system is as full as before.
    pub fn grow(segment: *Segment, bytes: u64) Error!void {
        const committed = try segment.beginGrowth(bytes);
        const step = std.math.clamp(committed / 4, growth_bytes_min, growth_bytes_max);
        const wanted = std.mem.alignForward(u64, committed + @max(step, bytes), layout.page_bytes);
        const least = std.mem.alignForward(u64, committed + bytes, layout.page_bytes);
        const limit = @min(segment.view.ceiling, committed +| segment.blocksLeft());
        if (least > limit) return segment.fault.withReason(.ceilingReached, error.NoSpace);
        var to = @min(wanted, limit);
        const free_to = try segment.freeTo();
        if (least > free_to) return segment.fileSystemFull();
        if (to > free_to) to = least;
        errdefer segment.cutTo(committed);
        os.allocate(segment.fault, segment.file, committed, to) catch |err| {
            if (err != error.NoSpace or least == to) return err;
            segment.cutTo(committed);
            to = least; // a generous step did not fit; the smallest may
            try os.allocate(segment.fault, segment.file, committed, to);
        };
        // Commit: blocks first, then the mapping, then the words that say so. A crash between them
        // leaves a file longer than `committed`: the next growth allocates the same range again,
        // and the next sole writer cuts it off.
        try segment.view.extend(to);
        atomics.storeRelease(&segment.header().committed, to); // pairs with `View.refresh`
    }

    /// As `grow`, for an extent that is to park: exactly `whole` bytes, of which the first `dense`
    /// have blocks. Returns its offset; `Pool.moving` names it, for it is in no list yet.
    pub fn growWithHole(segment: *Segment, dense: u64, whole: u64) Error!u64 {
        std.debug.assert(dense % layout.page_bytes == 0 and whole % layout.page_bytes == 0);
        const committed = try segment.beginGrowth(dense);
        const to = committed + whole;
        if (to > segment.view.ceiling or dense > segment.blocksLeft())
            return segment.fault.withReason(.ceilingReached, error.NoSpace);
        if (committed + dense > try segment.freeTo()) return segment.fileSystemFull();
        // What a dead process allocated there would be blocks in the hole.
        if (os.has_holes) try os.cut(segment.fault, segment.file, committed);
        errdefer segment.cutTo(committed);
        try os.allocate(segment.fault, segment.file, committed, committed + dense);
        if (whole > dense) try os.lengthen(segment.fault, segment.file, to);
        try segment.view.extend(to);
        const pool = &segment.header().pool;
        // Before it is there: the rebuild behind a crash must not take it for ordinary space. With
        // a crash between the two it came to nothing, and the file is longer than `committed`.
        atomics.storeRelease(&pool.moving, layout.Moving.of(.fresh, committed));
        atomics.storeRelease(&segment.header().committed, to); // pairs with `View.refresh`
        atomics.store(&pool.hole_bytes, atomics.load(&pool.hole_bytes) +% (whole - dense));
        return committed;
    }

    /// Allocates blocks in a hole of an extent that `Pool.moving` names, with the pool's lock held.
    /// On failure the caller gives back what there are.
    pub fn fillHole(segment: *Segment, from: u64, to: u64) Error!void {
        std.debug.assert(segment.header().pool.moving != layout.Moving.none);
        segment.noteSpace(to - from);
        if (to - from > segment.blocksLeft())
            return segment.fault.withReason(.ceilingReached, error.NoSpace);
        const file_system = try os.fileSystem(segment.fault, segment.file);
        if (file_system.bytes > 0 and to - from > file_system.free) return segment.fileSystemFull();
        try os.allocate(segment.fault, segment.file, from, to);
    }

    fn beginGrowth(segment: *Segment, bytes: u64) Error!u64 {
        const header_words = segment.header();
        std.debug.assert(header_words.pool.writer != 0);
        const committed = atomics.loadAcquire(&header_words.committed);
        if (committed != segment.view.committed) try segment.refresh();
        segment.noteSpace(bytes);
        return committed;
    }

    fn fileSystemFull(segment: *Segment) Error {
        os.note(segment.fault, @intFromEnum(os.Number.no_space));
        return segment.fault.withReason(.fileSystemFull, error.NoSpace);
    }

    /// How long the file could become. What a dead process allocated behind `committed` is ours.
    fn freeTo(segment: *Segment) Error!u64 {
        const file_system = try os.fileSystem(segment.fault, segment.file);
        // It has no size, as memory has none.
        if (file_system.bytes == 0) return headers.ceiling_max;
        return (try os.stat(segment.fault, segment.file)).size +| file_system.free;
    }

    /// Gives back what lies behind `committed`, where no process touches anything. With the pool's
    /// lock held, or as the only writer: no other may grow the segment meanwhile. A crash before it
    /// leaves a file that is too long, as one in `grow` does.
    fn cutTo(segment: *Segment, committed: u64) void {
        std.debug.assert(committed >= segment.view.committed);
        var fault: Fault = .{}; // the caller reads why the segment could not grow
        os.cut(&fault, segment.file, committed) catch {};
    }

    pub fn noteSpace(segment: *Segment, needed: u64) void {
        segment.deadline.is_used = true;
        segment.fault.needed_bytes = @floatFromInt(needed);
        segment.fault.used_bytes = @floatFromInt(segment.blockBytes());
        segment.fault.ceiling_bytes = @floatFromInt(segment.block_limit);
    }

    /// Everything under LIFECYCLE (docs/design.md, Open, attach, close). Leaves LIFECYCLE held, for
    /// the caller to check the name and to give it back.
    pub fn attachWriter(
        segment: *Segment,
        options: *const Options,
        deadline: *os.Deadline,
    ) Error!void {
        var patience: os.Deadline = .in(@min(options.timeout_ms, facts_patience_ms));
        const shares_mutexes = headers.lockKind(segment.header()) == .robust;
        const facts: ?Facts = if (shares_mutexes) try .ofThisProcess(segment.fault) else null;
        while (true) {
            const fault = segment.fault;
            // Exclusive from no lock at all: two that upgraded from shared would both fail.
            if (try range_lock.tryLock(fault, segment.locks, .writer, .exclusive)) {
                try segment.becomeSoleWriter(facts, options);
                range_lock.downgrade(segment.locks, .writer);
                return;
            }
            if (try range_lock.tryLock(fault, segment.locks, .writer, .shared)) {
                const own = facts orelse return;
                const differing = own.differing(segment.header()) orelse return;
                range_lock.unlock(segment.locks, .writer);
                if (patience.left(1) == 0) return fault.withReason(differing, error.Incompatible);
            }
            // A dying writer keeps WRITER until its memory is torn down; others may have LIFECYCLE
            // meanwhile.
            range_lock.unlock(segment.locks, .lifecycle);
            if (deadline.left(1) == 0) return error.Timeout;
            os.sleepNs(2 * std.time.ns_per_ms);
            try range_lock.lockBefore(fault, segment.locks, .lifecycle, deadline);
        }
    }

    /// A crash anywhere in here drops LIFECYCLE and WRITER together, so the next attacher is sole
    /// again and starts from the beginning.
    fn becomeSoleWriter(
        segment: *Segment,
        facts: ?Facts,
        options: *const Options,
    ) Error!void {
        const head = segment.header();
        if (layout.LockKind.robust == headers.lockKind(head)) {
            try stripe_lock.init(&head.pool.mutex);
            for (0..segment.view.stripeCount()) |i|
                try stripe_lock.init(&segment.view.stripe(@intCast(i)).mutex);
        }
        const all = atomics.load(&head.clean) != 1;
        try options.recover(segment, all);
        try segment.cutLeftover();
        atomics.store(&head.clean, 0);
        if (facts) |own| own.write(head);
    }

    /// Gives back what a writer allocated that was killed while it grew the segment. As the only
    /// writer. If `committed` is damaged there is more in use than it says: then the file stays.
    fn cutLeftover(segment: *Segment) Error!void {
        const committed = segment.view.committed;
        if ((try os.stat(segment.fault, segment.file)).size <= committed) return;
        if (atomics.load(&segment.header().committed) != committed) return;
        if (atomics.load(&segment.header().pool.frontier) <= committed) segment.cutTo(committed);
    }

    /// Takes READER, before anything is read that the only handle attached may take back: it has
    /// READER exclusively while it cuts the file short, and is waited for. A writer gives READER
    /// back when it is attached.
    pub fn enter(segment: *Segment, deadline: *os.Deadline) Error!void {
        return range_lock.lockAsBefore(segment.fault, segment.locks, .reader, .shared, deadline);
    }

    /// Gets LIFECYCLE, WRITER and READER for a writer that has WRITER shared. From then on no other
    /// handle is attached or attaches, and there is no late reader. False: others are.
    pub fn becomeAlone(segment: *Segment) Error!bool {
        std.debug.assert(!segment.readonly);
        if (!os.has_holes) return false; // there is nothing that could be done then
        const fault = segment.fault;
        if (!try range_lock.tryLock(fault, segment.locks, .lifecycle, .exclusive)) return false;
        if (range_lock.upgrade(fault, segment.locks, .writer)) |is_sole| {
            if (is_sole) {
                if (range_lock.tryLock(fault, segment.locks, .reader, .exclusive)) |is_alone| {
                    if (is_alone) return true;
                } else |_| {}
                range_lock.downgrade(segment.locks, .writer);
            }
        } else |_| {}
        range_lock.unlock(segment.locks, .lifecycle);
        return false;
    }

    /// Lets others attach again.
    pub fn endAlone(segment: *Segment) void {
        range_lock.unlock(segment.locks, .reader);
        range_lock.downgrade(segment.locks, .writer);
        range_lock.unlock(segment.locks, .lifecycle);
    }

    /// As `becomeAlone`, for a writer that attaches: it has LIFECYCLE and WRITER exclusively, and
    /// READER shared.
    pub fn isAloneAtAttach(segment: *Segment) bool {
        if (!os.has_holes) return false;
        return range_lock.upgrade(segment.fault, segment.locks, .reader) catch false;
    }

    /// Takes back what lies from `to` on, where no stripe owns anything: first the word, by which
    /// others know what they may touch, and then the bytes. Only while no other handle is attached.
    /// A crash in between leaves a file that is too long, which the next sole writer cuts.
    pub fn shrink(segment: *Segment, to: u64) void {
        const view = &segment.view;
        std.debug.assert(to % layout.page_bytes == 0 and to <= view.committed);
        const bytes = view.committed - to;
        if (bytes == 0) return;
        atomics.storeRelease(&segment.header().committed, to);
        view.committed = to;
        atomics.willBeZeros(view.at(to), bytes / 8);
        segment.cutTo(to);
    }

    /// Leaves. A sole writer leaves the clean mark, so that the next one need not look at every
    /// stripe. Ranges are given back explicitly: a mapping or a forked child would keep them.
    pub fn close(segment: *Segment) void {
        if (!segment.readonly) {
            var fault: Fault = .{};
            const sole = range_lock.upgrade(&fault, segment.locks, .writer) catch false;
            if (sole) atomics.storeRelease(&segment.header().clean, 1);
        }
        if (segment.unnamed) |number| {
            segment.unmap();
            unnamed_file.leave(segment.locks, number);
            return segment.abandon();
        }
        segment.abandon();
        segment.unmap();
    }

    /// Gives back ranges and descriptions, but not the mapping.
    pub fn abandon(segment: *Segment) void {
        range_lock.unlockAll(segment.locks);
        os.close(segment.locks);
        os.close(segment.file);
    }

    /// Writes the token (docs/design.md, Tokens); the returned length may exceed the target.
    /// `NotFound`: the name, by which others would look for it, no longer leads here.
    pub fn token(segment: *Segment, target: []u8) Error!usize {
        const id = segment.header().id;
        if (segment.hasLostItsName()) return segment.fault.withReason(.nameGone, error.NotFound);
        const text = if (segment.unnamed) |number|
            try os.Path.of("file:{x:0>16}:{x:0>16}", .{ number, id })
        else if (segment.name_len > 0)
            try os.Path.of("name:{s}:{s}:{x:0>16}", .{
                segment.directory.slice(), segment.nameSlice(), id,
            })
        else
            try os.Path.of("fd:{d}:{d}:{x:0>16}", .{ os.pid(), segment.file, id });
        if (text.len <= target.len) @memcpy(target[0..text.len], text.slice());
        return text.len;
    }
};

/// Checks everything an attaching handle relies on, and what it asked for. Every word is input.
pub fn checkHeader(
    fault: *Fault,
    header: *const Header,
    size: u64,
    options: *const Options,
) Error!void {
    try headers.checkIdentity(fault, header, options.kind);
    const attributes: Attributes = @bitCast(header.attributes);
    if (attributes.lock > 1 or attributes.stripe_bits > 10 or attributes._unused != 0 or
        header.ceiling % layout.page_bytes != 0 or header.ceiling > headers.ceiling_max or
        header.codec_len > layout.codec_bytes_max)
        return fault.withReason(.checksum, error.Corrupt);
    if (header.committed % layout.page_bytes != 0 or header.committed > header.ceiling or
        header.committed < layout.dataOffset(@intCast(attributes.stripe_bits)))
        return fault.withReason(.truncated, error.Corrupt);
    if (!layout.areZero(header, layout.reserved.header))
        return fault.withReason(.checksum, error.Corrupt);
    if (header.committed > size) return fault.withReason(.truncated, error.Corrupt);
    if (header.state < 1 or header.state > 4) return fault.withReason(.checksum, error.Corrupt);
    const codec = std.mem.asBytes(&header.codec)[0..header.codec_len];
    if (!std.mem.eql(u8, codec, options.codec)) {
        fault.text = @bitCast(header.codec);
        return fault.withReason(.otherCodec, error.Incompatible);
    }
    if (options.max_bytes != 0 and options.max_bytes != header.max_bytes) {
        fault.found = @floatFromInt(header.max_bytes);
        return fault.withReason(.otherMaxBytes, error.Incompatible);
    }
    if (options.lock) |lock| {
        if (lock != headers.lockKind(header)) {
            fault.found = @floatFromInt(attributes.lock);
            return fault.withReason(.otherLock, error.Incompatible);
        }
    }
    // Its writers were on another system, whose mutexes this one does not have.
    if (headers.lockKind(header) == .robust and !os.has_robust_mutex)
        return fault.withReason(.otherLock, error.Incompatible);
    if (options.id) |id| {
        if (header.id != id) return fault.withReason(.identity, error.NotFound);
    }
}
