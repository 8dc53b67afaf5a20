//! What a crash leaves, laid out and looked at: the tests and the proofs share it.
//!
//! A `Site` is one segment whose every word is known, with those who come after a death: a handle
//! that may write (the survivor) and one that only reads. It undoes all that they change, so laying
//! out the next image costs no more than the words in which it differs. How the images come about
//! is in `replay.zig`.

const std = @import("std");
const calls = @import("calls.zig");
const entries = @import("../stripe/entry.zig");
const builtin = @import("builtin");
const atomics = @import("../atomics.zig");
const expectations = @import("expected.zig");
const directory = @import("../segment/directory.zig");
const gathered = @import("../map/gathered.zig");
const handles = @import("../abi/handles.zig");
const attaching = @import("../map/attach.zig");
const image_maps = @import("image_maps.zig");
const layout = @import("../layout.zig");
const maps = @import("../map/map.zig");
const os = @import("../os/os.zig");
const pools = @import("../stripe/pool.zig");
const recovery = @import("../stripe/recovery.zig");
const spaces = @import("../stripe/space.zig");
const status = @import("../status.zig");
const stripe_lock = @import("../lock/stripe_lock.zig");
const support = @import("support.zig");

const Allocator = std.mem.Allocator;
const Expected = expectations.Expected;
const Header = layout.Header;
const Map = maps.Map;
const StripeOp = @import("../map/stripe_op.zig").StripeOp;
const Stored = expectations.Stored;

pub const Shape = image_maps.Shape;
pub const make = image_maps.make;
pub const close = image_maps.close;
const attach = image_maps.attach;

/// One word that changed.
pub const Change = struct {
    /// Which word of the segment.
    at: u32,
    /// The mutexes that were locked just before: a bit for each stripe, then one for the pool.
    held: u16,
    /// Whether the change after this one happened in the same instant.
    joined: bool = false,
    old: u64,
    new: u64,
};

/// Who comes first after the death.
pub const Way = enum { writer, repair, sole_all, sole_marked, locker };

const owner_died = support.owner_died;

/// The place of a stripe's words that recovery must move.
const Marks = struct { writer: u64, count: u64, generation: u64, dropped: u64 };

const stripes_max = 15;
const keys_max = 1024;

pub const Site = struct {
    gpa: Allocator,
    survivor: *Map,
    reader: *Map,
    /// What every word should be; only the bytes of mutexes may differ.
    shadow: []u64,
    /// Everything that changed, so that it can be undone.
    changes: std.ArrayList(Change) = .empty,
    observer: atomics.Observer = .{ .seen = seen, .emptied = emptied },
    /// Whose stores are seen: handles map the segment again and again.
    victim: *Map,
    /// All of the segment, however much of it a handle has mapped.
    memory: os.Base,
    /// No process may store anything now.
    is_quiet: bool = false,
    /// How long the file must be for all changes to be made and undone, if it was cut. 0: it was
    /// not.
    longest: u64 = 0,
    /// What the observer found wrong.
    wrong: ?anyerror = null,
    /// `committed` as a handle knows it that has not looked since.
    stale_committed: u64,
    mutex_word: usize,
    scratch: []align(8) u8 = &.{},
    room: []u8,
    states: [keys_max]u2 = undefined,
    looks: u64 = 0,
    /// Whether entries may have ends. Their clock stands while a site is looked at.
    has_ends: bool = false,

    /// A site over the segment of `victim`.
    pub fn init(gpa: Allocator, victim: *Map) !Site {
        const view = &victim.segment.view;
        var buffer: [200]u8 = undefined;
        const token = buffer[0..try victim.segment.token(&buffer)];
        const survivor = try attach(token, victim, false);
        errdefer close(survivor);
        const reader = try attach(token, victim, true);
        errdefer close(reader);
        const shadow = try gpa.alloc(u64, @min(view.ceiling, 16 << 20) / 8);
        errdefer gpa.free(shadow);
        var fault: status.Fault = .{};
        const file = survivor.segment.file;
        const whole = try os.map(&fault, file, shadow.len * 8, .read_write);
        errdefer os.unmap(whole, shadow.len * 8);
        @memset(shadow, 0);
        const memory: [*]const u64 = @ptrCast(view.base);
        @memcpy(shadow[0 .. view.committed / 8], memory[0 .. view.committed / 8]);
        return .{
            .gpa = gpa,
            .survivor = survivor,
            .reader = reader,
            .shadow = shadow,
            .victim = victim,
            .memory = whole,
            .stale_committed = view.committed,
            .mutex_word = if (os.has_robust_mutex) try support.mutexWord() else 0,
            .room = try gpa.alloc(u8, 1 << 20),
        };
    }

    pub fn deinit(site: *Site) void {
        os.unmap(site.memory, site.shadow.len * 8);
        close(site.survivor);
        close(site.reader);
        site.changes.deinit(site.gpa);
        site.gpa.free(site.shadow);
        site.gpa.free(site.scratch);
        site.gpa.free(site.room);
    }

    fn words(site: *const Site) [*]u64 {
        return @ptrCast(site.memory);
    }

    /// Where in the segment an address is that a handle stores to.
    fn offsetOf(site: *const Site, address: usize) ?u64 {
        for ([_]*const Map{ site.victim, site.survivor }) |map| {
            const offset = map.segment.mappings.offsetOf(address) orelse continue;
            return if (offset < site.shadow.len * 8) offset else null;
        }
        return null;
    }

    fn header(site: *const Site) *Header {
        return site.survivor.segment.header();
    }

    pub fn stripeCount(site: *const Site) u32 {
        return site.survivor.segment.view.stripeCount();
    }

    // What changes.

    fn seen(observer: *atomics.Observer, word: *const u64, value: u64) void {
        const site: *Site = @fieldParentPtr("observer", observer);
        const offset = site.offsetOf(@intFromPtr(word)) orelse
            return site.blame(error.StoreOutsideTheSegment);
        if (site.is_quiet) site.blame(error.ReaderStored);
        if (offset + 8 > site.shadow[@offsetOf(Header, "committed") / 8])
            return site.blame(error.StoreBeyondCommitted);
        if (offset == @offsetOf(Header, "committed")) {
            if (!site.hasBlocks(value)) site.blame(error.CommittedWithoutBlocks);
            if (site.isShort()) site.blame(error.CutTooEarly);
        }
        const at: u32 = @intCast(offset / 8);
        site.changes.append(site.gpa, .{
            .at = at,
            .held = site.heldNow(),
            .old = site.shadow[at],
            .new = value,
        }) catch @panic("no memory for the changes");
        site.shadow[at] = value;
    }

    /// As a store to each word, those of a page in one instant. What is emptied may lie behind
    /// `committed` by now.
    fn emptied(observer: *atomics.Observer, target: [*]const u64, count: usize) void {
        const site: *Site = @fieldParentPtr("observer", observer);
        const offset = site.offsetOf(@intFromPtr(target)) orelse
            return site.blame(error.StoreOutsideTheSegment);
        if (site.is_quiet) site.blame(error.ReaderStored);
        if (!image_maps.mayBeEmptied(site.shadow, offset, count)) site.blame(error.HoleTooEarly);
        const words_of_page = layout.page_bytes / 8;
        const end = @min(offset / 8 + count, site.shadow.len);
        const held = site.heldNow();
        site.longest = @max(site.longest, end * 8);
        for (offset / 8..end) |at| {
            site.changes.append(site.gpa, .{
                .at = @intCast(at),
                .held = held,
                .joined = (at + 1) % words_of_page != 0 and at + 1 < end,
                .old = site.shadow[at],
                .new = 0,
            }) catch @panic("no memory for the changes");
            site.shadow[at] = 0;
        }
    }

    fn blame(site: *Site, err: anyerror) void {
        if (site.wrong == null) site.wrong = err;
    }

    /// Fails if the observer saw something that must not be.
    pub fn expectNothingWrong(site: *Site) !void {
        if (site.wrong) |err| return err;
    }

    /// Whether the file has memory behind its first `bytes`.
    fn hasBlocks(site: *Site, bytes: u64) bool {
        var fault: status.Fault = .{};
        const segment = &site.survivor.segment;
        const stat = os.stat(&fault, segment.file) catch return false;
        // What is looked at lies in a mapping that knows nothing of this growth.
        os.extend(&fault, segment.file, site.memory, 0, bytes, .read_write) catch return false;
        // What stands in for Windows where there is none moves the end of a file without blocks.
        const counts_blocks = builtin.os.tag != .windows;
        const blocks = bytes -| image_maps.holesBefore(site.shadow, bytes);
        return stat.size >= bytes and (stat.allocated >= blocks or !counts_blocks);
    }

    /// Whether the file ends before the present `committed`.
    fn isShort(site: *const Site) bool {
        var fault: status.Fault = .{};
        const stat = os.stat(&fault, site.survivor.segment.file) catch return true;
        return stat.size < site.shadow[@offsetOf(Header, "committed") / 8];
    }

    /// Makes a file that was cut as long again: its words are put back one by one.
    fn lengthen(site: *Site) void {
        if (site.longest == 0) return;
        var fault: status.Fault = .{};
        const file = site.survivor.segment.file;
        const stat = os.stat(&fault, file) catch @panic("a file without a length");
        if (stat.size >= site.longest) return;
        os.lengthen(&fault, file, site.longest) catch @panic("a file that grows no more");
    }

    pub fn apply(site: *Site, change: Change) void {
        site.lengthen();
        site.words()[change.at] = change.new;
        site.shadow[change.at] = change.new;
    }

    /// As `apply`, to be undone.
    pub fn make(site: *Site, change: Change) !void {
        try site.changes.append(site.gpa, change);
        site.apply(change);
    }

    /// Undoes all but the first `mark` changes, newest first.
    pub fn undo(site: *Site, mark: usize) void {
        site.lengthen();
        while (site.changes.items.len > mark) {
            const change = site.changes.pop().?;
            site.words()[change.at] = change.old;
            site.shadow[change.at] = change.old;
        }
    }

    /// Fails if a store went round the observer.
    pub fn expectShadow(site: *Site) !void {
        const committed = site.shadow[@offsetOf(Header, "committed") / 8];
        for (site.words()[0 .. committed / 8], site.shadow[0 .. committed / 8], 0..) |a, b, at| {
            if (a != b and !site.inMutex(8 * at)) {
                std.debug.print("word {d}: {x}, not {x}\n", .{ at, a, b });
                return error.StoreNotObserved;
            }
        }
    }

    /// Whether a byte of the segment belongs to a mutex.
    pub fn inMutex(site: *const Site, offset: u64) bool {
        const pool = @offsetOf(Header, "pool");
        if (offset >= pool and offset < pool + 64) return true;
        const first = layout.page_bytes;
        if (offset < first or offset >= first + site.stripeCount() * @sizeOf(layout.Stripe))
            return false;
        return (offset - first) % @sizeOf(layout.Stripe) < 64;
    }

    /// Takes over another segment of the same shape, word by word.
    pub fn adopt(site: *Site, image: []const u64) !void {
        const segment = &site.survivor.segment;
        const theirs: *const Header = @ptrCast(@alignCast(image.ptr));
        if (theirs.ceiling != segment.view.ceiling or theirs.attributes != site.header().attributes)
            return error.OtherShape;
        var fault: status.Fault = .{};
        const bytes = @min(segment.view.ceiling, site.shadow.len * 8);
        try os.allocate(&fault, segment.file, 0, bytes); // what it may grow to
        const used = site.shadow[@offsetOf(Header, "committed") / 8] / 8;
        if (used > image.len) {
            @memset(site.words()[image.len..used], 0);
            @memset(site.shadow[image.len..used], 0);
        }
        @memcpy(site.words()[0..image.len], image);
        @memcpy(site.shadow[0..image.len], image);
        try site.remakeMutexes();
        site.stale_committed = theirs.committed;
        for ([_]*Map{ site.survivor, site.reader }) |map| {
            map.secrets = .of(theirs);
            try know(map, theirs.committed);
        }
    }

    // The mutexes: of the stripes, then of the pool.

    /// Where the bytes of one are.
    pub fn mutexOffset(site: *const Site, i: usize) usize {
        if (i == site.stripeCount()) return @offsetOf(Header, "pool");
        return layout.page_bytes + i * @sizeOf(layout.Stripe);
    }

    fn mutexOf(site: *const Site, i: usize) *align(64) [64]u8 {
        return @ptrCast(@alignCast(site.memory + site.mutexOffset(i)));
    }

    fn lockWordOf(site: *const Site, i: usize) *u32 {
        const halves: *[16]u32 = @ptrCast(site.mutexOf(i));
        return &halves[site.mutex_word];
    }

    pub fn isRobust(site: *const Site) bool {
        return site.survivor.segment.lock_kind == .robust;
    }

    pub fn heldNow(site: *const Site) u16 {
        var held: u16 = 0;
        if (!site.isRobust()) return held;
        for (0..site.stripeCount() + 1) |i|
            held |= @as(u16, @intFromBool(site.lockWordOf(i).* != 0)) << @intCast(i);
        return held;
    }

    /// As the kernel leaves them when the owner of those in `held` dies.
    fn layMutexes(site: *Site, held: u16) void {
        if (!site.isRobust()) return;
        for (0..site.stripeCount() + 1) |i|
            site.lockWordOf(i).* = if (held >> @intCast(i) & 1 != 0) owner_died else 0;
    }

    fn remakeMutexes(site: *Site) !void {
        if (!site.isRobust()) return;
        for (0..site.stripeCount() + 1) |i| try stripe_lock.init(site.mutexOf(i));
    }

    // Those who come after.

    /// What is stored under each key. To be freed with `forget`.
    pub fn read(site: *Site, map: *Map, keys: []const []const u8) ![]Stored {
        const all = try site.gpa.alloc(Stored, keys.len);
        @memset(all, .{ .bytes = null });
        errdefer site.forget(all);
        for (keys, all) |key, *stored| {
            const value = try site.valueOf(map, key) orelse continue;
            const bytes = try site.gpa.dupe(u8, site.room[0..value.len]);
            stored.* = .{
                .bytes = bytes,
                .kind = value.kind,
                .version = value.version,
                .expires = value.expires,
            };
        }
        return all;
    }

    /// The value of a key, in `room`; where entries end, with its end.
    fn valueOf(site: *Site, map: *Map, key: []const u8) !?entries.Meta {
        var value = try calls.get(map, key, site.room, 0) orelse return null;
        if (!site.has_ends) return value;
        const entry = try calls.getEntry(map, key, site.room) orelse return error.NoEntry;
        if (entry.version != value.version) return error.OtherVersion;
        value.expires = entry.expires;
        return value;
    }

    pub fn forget(site: *Site, all: []Stored) void {
        for (all) |stored| if (stored.bytes) |bytes| site.gpa.free(bytes);
        site.gpa.free(all);
    }

    /// What has ended is counted until it is removed.
    fn expectSize(site: *const Site, map: *Map, present: u64) !void {
        const size = try calls.size(map);
        if (size < present or (!site.has_ends and size > present)) return error.WrongSize;
    }

    /// A look without a lock; `whole`: also at everything at once. How many keys there are.
    fn look(
        site: *Site,
        map: *Map,
        expected: *const Expected,
        states: []u2,
        whole: bool,
    ) !u64 {
        site.is_quiet = true;
        defer site.is_quiet = false;
        site.looks += 1;
        var present: u64 = 0;
        var sum: u64 = 0;
        for (expected.keys, expected.before, expected.after, states) |key, *old, *new, *state| {
            const value = try site.valueOf(map, key);
            state.* = (if (old.is(value, site.room)) expectations.as_before else 0) |
                (if (new.is(value, site.room)) expectations.as_after else 0);
            if (state.* == 0) return error.NeitherOldNorNew;
            const found = value orelse continue;
            present += 1;
            sum +%= expectations.sumOf(key, site.room[0..found.len]);
        }
        const key_by_turns = expected.keys[site.looks % expected.keys.len];
        try expectations.expectOneAnswer(map, key_by_turns, site.room);
        try site.expectSize(map, present);
        if (!whole) return present;
        const all = if (site.looks % 4 == 0)
            try expectations.ofStripes(map)
        else
            expectations.ofGathered(map, try calls.snapshot(map));
        if (all.count != present) return error.WrongCount;
        if (all.sum != sum) return error.WrongContents;
        return present;
    }

    /// The stripe's words that recovery moves.
    fn marksOf(site: *const Site, index: usize) Marks {
        const stripe = site.survivor.segment.view.stripe(@intCast(index));
        return .{
            .writer = stripe.writer,
            .count = @max(stripe.begin, stripe.end),
            .generation = stripe.generation,
            .dropped = stripe.dropped,
        };
    }

    /// Readers on what the dead left, then recovery, the invariants, and readers and writers again.
    /// The segment is then as it was.
    pub fn check(site: *Site, expected: *Expected, held: u16, way: Way, thorough: bool) !void {
        const mark = site.changes.items.len;
        defer site.undo(mark);
        try site.arrive();
        site.layMutexes(held);
        atomics.observer = &site.observer;
        defer atomics.observer = null;
        const states = site.states[0..expected.keys.len];
        const first = if (site.looks % 8 < 4) site.survivor else site.reader;
        const present = try site.look(first, expected, states, true);
        try expected.order(states);
        var marks: [stripes_max]Marks = undefined;
        for (0..site.stripeCount()) |i| marks[i] = site.marksOf(i);
        try site.recover(expected, way);
        try site.expectSound(thorough);
        for (0..site.stripeCount()) |i|
            try site.expectMoved(i, marks[i], held >> @intCast(i) & 1 != 0, way);
        var recovered: [keys_max]u2 = undefined;
        const second = if (first == site.reader) site.survivor else site.reader;
        _ = try site.look(second, expected, recovered[0..states.len], thorough);
        if (!std.mem.eql(u2, states, recovered[0..states.len])) return error.RecoveryChangedIt;
        if (thorough) try site.write(expected, present);
        if (site.heldNow() != 0) return error.LockLeftHeld;
        try site.expectNothingWrong();
    }

    /// Those who come know nothing, or what there was before.
    fn arrive(site: *Site) !void {
        const committed = site.header().committed;
        const stale = @min(site.stale_committed, committed);
        try know(site.survivor, if (site.looks % 3 == 0) stale else committed);
        try know(site.reader, if (site.looks % 3 == 1) stale else committed);
    }

    /// Has a handle know of so much of the segment.
    fn know(map: *Map, committed: u64) !void {
        const view = &map.segment.view;
        view.committed = @min(view.committed, committed);
        try view.extend(committed);
    }

    /// Recovery in one of the ways it happens. With `writer` it happens in `expectSound`.
    pub fn recover(site: *Site, expected: *Expected, way: Way) !void {
        const map = site.survivor;
        switch (way) {
            .writer => {},
            .repair => {
                const verdict = try calls.repair(map);
                if (verdict.problems != 0 or verdict.busy != 0) return error.RepairedUnsound;
                if (verdict.dropped != 0) return error.RepairDropped;
            },
            .sole_all, .sole_marked => {
                try site.remakeMutexes();
                try attaching.recoverSegment(&map.segment, way == .sole_all);
            },
            .locker => {
                const owed = try calls.acquire(map, 1000);
                defer calls.release(map, false);
                if (owed != expected.owed[0] and owed != expected.owed[1]) return error.WronglyOwed;
                if (expected.owed[0] == expected.owed[1]) return;
                if (owed != expected.owed[1] and expected.owed_progress) return error.OweWentBack;
                if (owed == expected.owed[1]) expected.owed_progress = true;
            },
        }
    }

    /// The changes that recovery makes; they are undone again. To be freed.
    pub fn recoveryOf(site: *Site, expected: *Expected, held: u16, way: Way) ![]Change {
        const mark = site.changes.items.len;
        defer site.undo(mark);
        try site.arrive();
        site.layMutexes(held);
        atomics.observer = &site.observer;
        defer atomics.observer = null;
        try site.recover(expected, way);
        try site.expectSound(false);
        return site.gpa.dupe(Change, site.changes.items[mark..]);
    }

    /// The changes that an operation makes here; they are undone again. To be freed.
    pub fn changesOf(site: *Site, act: anytype) ![]Change {
        const mark = site.changes.items.len;
        defer site.undo(mark);
        atomics.observer = &site.observer;
        defer atomics.observer = null;
        try act.run(site.survivor);
        return site.gpa.dupe(Change, site.changes.items[mark..]);
    }

    /// Every invariant of every stripe and of the pool, each under its lock.
    pub fn expectSound(site: *Site, thorough: bool) !void {
        const map = site.survivor;
        const view = &map.segment.view;
        for (0..site.stripeCount()) |i| {
            const index: u32 = @intCast(i);
            var op = try StripeOp.lock(map, index);
            defer op.unlock();
            const bytes = try recovery.Marks.scratchBytes(view, index);
            const report = recovery.check(view, &map.secrets, index, try site.zeroed(bytes));
            if (report.problems == 0) continue;
            std.debug.print("stripe {d}: {any}\n", .{ i, report });
            return error.Unsound;
        }
        {
            const pool = try spaces.lockPool(&map.segment);
            defer spaces.unlockPool(&map.segment);
            const marks = try site.zeroed(pools.scratchWords(view) * 8);
            if (!pools.isSound(view, pool, @ptrCast(marks))) return error.PoolUnsound;
        }
        if (site.header().pool.writer != 0) return error.PoolMarkLeft;
        if (!thorough) return;
        for ([_]*Map{ map, site.reader }) |handle| {
            const verdict = try calls.verify(handle);
            if (verdict.problems != 0 or verdict.dropped != 0 or verdict.busy != 0)
                return error.VerifyFailed;
        }
    }

    fn zeroed(site: *Site, bytes: u64) ![]align(8) u8 {
        const len = std.mem.alignForward(u64, bytes, 8);
        if (len > site.scratch.len) {
            site.gpa.free(site.scratch);
            site.scratch = &.{};
            site.scratch = try site.gpa.alignedAlloc(u8, .@"8", len * 2);
        }
        @memset(site.scratch[0..len], 0);
        return site.scratch[0..len];
    }

    /// No mark is left, both counts agree, and they moved wherever recovery had to do anything: who
    /// copied before must see that.
    fn expectMoved(site: *Site, index: usize, before: Marks, held: bool, way: Way) !void {
        const stripe = site.survivor.segment.view.stripe(@intCast(index));
        if (stripe.writer != 0) return error.WriterMarkLeft;
        if (stripe.begin != stripe.end) return error.CountsDisagree;
        if (stripe.dropped != before.dropped) return error.Dropped;
        const is_sole = way == .sole_all or way == .sole_marked;
        if (before.writer == 0 and (!held or is_sole)) return;
        if (stripe.begin <= before.count) return error.BeginDidNotMove;
        if (stripe.generation -% before.generation < 2) return error.GenerationDidNotMove;
    }

    /// A key is stored and deleted again. A full segment may refuse to store.
    fn write(site: *Site, expected: *const Expected, present: u64) !void {
        const map = site.survivor;
        const key = expected.keys[site.looks % expected.keys.len];
        const before = try calls.get(map, key, site.room, 0);
        _ = calls.put(map, key, "afterwards", 9, .none) catch |err| {
            if (err != error.NoSpace) return err;
            return site.expectSound(false);
        };
        const after = try calls.get(map, key, site.room, 0) orelse return error.NotStored;
        if (!std.mem.eql(u8, site.room[0..after.len], "afterwards")) return error.NotStored;
        const version = if (before) |found| found.version else 0;
        if (after.version <= version) return error.VersionDidNotGrow;
        if (!try calls.delete(map, key)) return error.NotDeleted;
        if (try calls.get(map, key, site.room, 0) != null) return error.NotDeleted;
        const left = present - @intFromBool(before != null);
        try site.expectSize(map, left);
        try site.expectSound(false);
    }
};
