//! The map's operations: lock a stripe, act, publish, retire; and the lock-free read.
//!
//! Every operation has one commit: a release store to a slot word or a table word. Before it
//! nothing reachable has changed; after it the operation is complete, and what remains (counters,
//! retiring the old block) is derived. A writer's death at any store leaves its writer word set,
//! and whoever takes the stripe's lock next recovers first (docs/design.md, Crashes).

const std = @import("std");
const layout = @import("layout.zig");
const crash = @import("crash.zig");
const hash = @import("hash.zig");
const tables = @import("table.zig");
const recovery = @import("recovery.zig");
const stripe_lock = @import("stripe_lock.zig");
const user_locks = @import("user_lock.zig");
const status = @import("status.zig");
const segments = @import("segment.zig");
const spaces = @import("space.zig");
const os = @import("os.zig");

const Error = status.Error;
const Fault = status.Fault;
const Slot = layout.Slot;
const Stripe = layout.Stripe;
const Segment = segments.Segment;
const Space = spaces.Space;
const UserLock = user_locks.UserLock;

/// How often a read is tried again when its blocks were recycled under it, before it queues for
/// the stripe's lock. Each needs two promotions during one read.
const read_tries_max = 8;

/// A key's place: its stripe, and the hash everything else follows from.
const Place = struct { index: u32, fast: u64 };

/// What a put asks of the entry it replaces.
pub const Condition = union(enum) { none, absent, version: u64 };

/// A value on its way out, as the last read of this handle left it.
pub const Value = struct { len: u32, kind: u8, version: u64 };

pub const Map = struct {
    segment: Segment,
    lock: UserLock,
    fault: Fault,
    secrets: hash.Secrets,
    /// What a bulk call gathered for `gathered`; memory private to this handle.
    gathered: []align(os.page_bytes) u8,
    gathered_len: usize,

    /// Call once the segment is attached.
    pub fn begin(map: *Map) void {
        const header = map.segment.header();
        map.secrets = secretsOf(header);
        map.gathered = &.{};
        map.gathered_len = 0;
        map.lock.init(.{
            .header = header,
            .locks = map.segment.locks,
            .fault = &map.fault,
            .readonly = map.segment.readonly,
            .pass = passStripes,
        });
    }

    /// A lock that is held counts as released.
    pub fn close(map: *Map) void {
        map.lock.close();
        map.segment.close();
        os.freePages(map.gathered);
    }

    pub inline fn placeOf(map: *const Map, key: []const u8) Place {
        const fast = hash.fast(&map.secrets, key);
        return .{ .index = recovery.indexOf(&map.segment.view, fast), .fast = fast };
    }

    inline fn tagFor(
        map: *const Map,
        table: tables.Table,
        place: Place,
        key: []const u8,
    ) tables.Tag {
        return recovery.tagOf(if (table.sip) hash.sip(&map.secrets, key) else place.fast);
    }

    fn spaceOf(map: *Map, index: u32) Space {
        return .{ .segment = &map.segment, .secrets = &map.secrets, .index = index };
    }

    /// Copies the value of `key` into `target` if it fits with `reserve` bytes to spare. Null:
    /// there is none. Takes no lock, stores nothing, waits for nobody, dead or alive.
    pub inline fn get(map: *Map, key: []const u8, target: []u8, reserve: u32) Error!?Value {
        try map.segment.check();
        const place = map.placeOf(key);
        const stripe = map.segment.view.stripe(place.index);
        for (0..read_tries_max) |_| {
            const generation = crash.acquire(&stripe.generation);
            const result = map.read(stripe, place, key, target, reserve);
            // Pairs with the fence in `heap.promote`: if a block was reused while we read it, the
            // generation shows. One step is harmless: a block is reused after two.
            crash.loadFence();
            if (crash.load(&stripe.generation) -% generation <= 1) return result;
            map.segment.fault.reason = 0; // what looked damaged was only being reused
        }
        return map.getLocked(place, key, target, reserve);
    }

    inline fn read(
        map: *Map,
        stripe: *Stripe,
        place: Place,
        key: []const u8,
        target: []u8,
        reserve: u32,
    ) Error!?Value {
        const view = &map.segment.view;
        const opened = tables.Table.open(view, crash.acquire(&stripe.table)) catch
            return map.segment.fault.because(.tableDamaged, error.Corrupt);
        const table = opened orelse return null;
        const probe = tables.find(view, table, map.tagFor(table, place, key), key) catch |err|
            switch (err) {
                error.Full => return null, // no such key in a table without a gap
                error.Corrupt => return map.segment.fault.because(.entryDamaged, error.Corrupt),
            };
        const found = probe.found orelse return null;
        const len = found.sizes.value_len;
        if (len + @as(u64, reserve) <= target.len) crash.copyOut(target.ptr, found.value(), len);
        return .{ .len = len, .kind = found.sizes.kind, .version = found.version() };
    }

    /// The way out for a reader whom writers keep overtaking: large values under constant change.
    fn getLocked(
        map: *Map,
        place: Place,
        key: []const u8,
        target: []u8,
        reserve: u32,
    ) Error!?Value {
        const stripe = map.segment.view.stripe(place.index);
        if (!map.segment.readonly) {
            var op = try Operation.lock(map, place.index);
            defer op.unlock();
            return map.read(stripe, place, key, target, reserve);
        }
        const deadline = os.Deadline.in(map.segment.timeout_ms);
        while (true) {
            const generation = crash.acquire(&stripe.generation);
            const result = map.read(stripe, place, key, target, reserve);
            crash.loadFence(); // as in `get`
            if (crash.load(&stripe.generation) -% generation <= 1) return result;
            if (deadline.left(1) == 0) return error.Timeout;
        }
    }

    /// Stores a value. False: the condition did not hold, and nothing changed.
    pub fn put(
        map: *Map,
        key: []const u8,
        value: []const u8,
        kind: u8,
        condition: Condition,
    ) Error!bool {
        if (value.len > layout.value_bytes_max) return error.TooLarge;
        const view = &map.segment.view;
        const bytes = layout.Entry.bytesFor(key.len, value.len);
        if (bytes + layout.unit_bytes > view.ceiling - view.data_start) {
            map.segment.noteSpace(bytes);
            return error.TooLarge;
        }
        return map.putOnce(key, value, kind, condition) catch |err| {
            // What other stripes hold free may be all that is missing.
            if (err != error.NoSpace) return err;
            const why = map.fault;
            if (!try map.reclaim()) {
                map.fault = why;
                return err;
            }
            return map.putOnce(key, value, kind, condition);
        };
    }

    fn putOnce(
        map: *Map,
        key: []const u8,
        value: []const u8,
        kind: u8,
        condition: Condition,
    ) Error!bool {
        if (map.segment.readonly) return error.ReadOnly;
        try map.segment.check();
        const place = map.placeOf(key);
        var op: Operation = .of(map, place.index);
        try op.lockToWrite();
        defer op.unlock();
        const before = try op.find(place, key);
        switch (condition) {
            .none => {},
            .absent => if (before.probe.found != null) return false,
            .version => |wanted| {
                const version = if (before.probe.found) |found| found.version() else 0;
                if (version != wanted) return false;
            },
        }
        op.begin();
        try op.insert(place, key, value, kind, before);
        return true;
    }

    /// False: there was none.
    pub fn delete(map: *Map, key: []const u8) Error!bool {
        if (map.segment.readonly) return error.ReadOnly;
        try map.segment.check();
        const place = map.placeOf(key);
        var op: Operation = .of(map, place.index);
        try op.lockToWrite();
        defer op.unlock();
        const before = try op.find(place, key);
        const found = before.probe.found orelse return false;
        op.begin();
        op.remove(before.table.?, before.probe.index, found);
        return true;
    }

    /// Empties stripe after stripe; each is a commit of its own.
    pub fn clear(map: *Map) Error!void {
        if (map.segment.readonly) return error.ReadOnly;
        try map.segment.check();
        for (0..map.segment.view.stripeCount()) |i| {
            var op: Operation = .of(map, @intCast(i));
            try op.lockToWrite();
            defer op.unlock();
            if (crash.load(&op.stripe.table) == 0) continue;
            op.begin();
            // Commit. What the table reached is found free by the rebuild, now or by recovery.
            crash.publish(&op.stripe.table, 0);
            op.afterCommit(op.space.rebuild());
        }
        spaces.joinPool(&map.segment);
    }

    /// Exact whenever no write is in progress; a stripe somebody died in is counted slot by slot.
    pub fn size(map: *Map) Error!u64 {
        try map.segment.check();
        var total: u64 = 0;
        for (0..map.segment.view.stripeCount()) |i| {
            const stripe = map.segment.view.stripe(@intCast(i));
            if (crash.acquire(&stripe.writer) == 0) {
                total +|= crash.load(&stripe.live);
            } else total +|= try map.countSlots(stripe);
        }
        return total;
    }

    fn countSlots(map: *Map, stripe: *Stripe) Error!u64 {
        const deadline = os.Deadline.in(map.segment.timeout_ms);
        while (true) {
            const generation = crash.acquire(&stripe.generation);
            const opened = tables.Table.open(&map.segment.view, crash.acquire(&stripe.table)) catch
                return map.segment.fault.because(.tableDamaged, error.Corrupt);
            const count = if (opened) |table| table.entryCount() else 0;
            crash.loadFence(); // as in `get`: was the table still one when we had counted it?
            if (crash.load(&stripe.generation) -% generation <= 1) return count;
            if (deadline.left(1) == 0) return error.Timeout;
        }
    }

    /// Gives back to the pool what any stripe can spare. False: none could.
    fn reclaim(map: *Map) Error!bool {
        var any = false;
        for (0..map.segment.view.stripeCount()) |i| {
            const stripe = map.segment.view.stripe(@intCast(i));
            const is_empty = crash.load(&stripe.live) == 0 and crash.load(&stripe.owned) > 0;
            if (!is_empty and !map.spaceOf(@intCast(i)).holdsReusable()) continue;
            // A stripe that is busy, stopped or damaged has nothing to spare; others may.
            var op = Operation.lockWithin(map, @intCast(i), 0) catch continue;
            defer op.unlock();
            op.begin();
            if (is_empty) op.dropEmptyTable();
            op.afterCommit(op.space.rebuild());
            any = true;
        }
        if (any) spaces.joinPool(&map.segment);
        return any;
    }
};

pub fn secretsOf(header: *const layout.Header) hash.Secrets {
    return .{ .fast = header.fast_secrets, .sip = @bitCast(header.sip_secrets) };
}

/// A key looked up under the lock.
const Before = struct { table: ?tables.Table, probe: tables.Probe };

/// One visit to a stripe: from its lock to its unlock. After `begin` the stripe is marked as being
/// written to; if anything then fails half way the mark stays, and the next visitor recovers.
pub const Operation = struct {
    map: *Map,
    stripe: *Stripe,
    space: Space,
    writing: bool = false,
    healthy: bool = true,

    /// Not locked yet.
    pub inline fn of(map: *Map, index: u32) Operation {
        const stripe = map.segment.view.stripe(index);
        return .{ .map = map, .stripe = stripe, .space = map.spaceOf(index) };
    }

    /// Takes the stripe's lock; a dead owner's leftovers are recovered first.
    pub fn lock(map: *Map, index: u32) Error!Operation {
        return lockWithin(map, index, map.segment.timeout_ms);
    }

    pub fn lockWithin(map: *Map, index: u32, timeout_ms: f64) Error!Operation {
        var op: Operation = .of(map, index);
        try op.enter(timeout_ms);
        return op;
    }

    fn enter(op: *Operation, timeout_ms: f64) Error!void {
        const map = op.map;
        const entrance = op.guardHere();
        const locked = entrance.lock(map.segment.fault, timeout_ms) catch |err| {
            if (err == error.Timeout)
                map.fault.holder_pid = @floatFromInt(crash.load(&op.stripe.writer) >> 32);
            return err;
        };
        if (locked == .owner_died or crash.load(&op.stripe.writer) != 0) {
            const recovered = op.recover();
            // Whether or not it worked: the writer word says what is left to do, and a mutex
            // that is not made consistent would be useless for ever.
            if (locked == .owner_died) entrance.makeConsistent();
            recovered catch |err| {
                entrance.unlock();
                return err;
            };
        }
    }

    /// As `lock`, for a change that others can see: waits while somebody else has the user's lock.
    /// Its word is read under the stripe's lock, and after recovery, or the stripe would be let go
    /// with its mutex not consistent. Pairs with `UserLock.grant`. In place, because a copy of an
    /// operation just begun waits for its stores: a quarter of what a small put costs.
    pub inline fn lockToWrite(op: *Operation) Error!void {
        const map = op.map;
        try op.enter(map.segment.timeout_ms);
        if (map.lock.admits(crash.acquire(&map.segment.header().lock_word))) return;
        op.guardHere().unlock();
        return op.lockInTurn();
    }

    fn lockInTurn(op: *Operation) Error!void {
        const map = op.map;
        // When we are through, too: whoever locks next waits for our stripe, and so for this write.
        defer map.lock.cancel();
        var wait: user_locks.Wait = .of(map.segment.timeout_ms);
        while (true) {
            map.lock.listen(&wait);
            try op.enter(map.segment.timeout_ms);
            const word = crash.acquire(&map.segment.header().lock_word);
            if (map.lock.admits(word)) return;
            op.guardHere().unlock();
            try map.lock.giveWay(word, &wait);
            try map.segment.check(); // it may have been replaced meanwhile
        }
    }

    fn guardHere(op: *const Operation) stripe_lock.Guard {
        return op.map.segment.guardOf(op.space.index);
    }

    /// Assumes the lock, or that nobody else is attached.
    pub fn recover(op: *Operation) Error!void {
        crash.publish(&op.stripe.writer, op.map.segment.me);
        // Both counts move, so that a snapshot that began before does not mistake what it copied
        // for the present.
        const count = @max(crash.load(&op.stripe.begin), crash.load(&op.stripe.end)) +% 1;
        crash.publish(&op.stripe.begin, count);
        crash.storeFence();
        try op.space.rebuild();
        crash.store(&op.stripe.recoveries, crash.load(&op.stripe.recoveries) +% 1);
        crash.publish(&op.stripe.end, count);
        crash.publish(&op.stripe.writer, 0);
    }

    /// From here on a crash is somebody's to recover from.
    pub fn begin(op: *Operation) void {
        op.writing = true;
        crash.store(&op.stripe.writer, op.map.segment.me);
        crash.store(&op.stripe.begin, crash.load(&op.stripe.begin) +% 1);
        crash.storeFence(); // a snapshot that sees a store of ours sees `begin` moved
    }

    pub fn unlock(op: *Operation) void {
        if (op.writing and op.healthy) {
            crash.publish(&op.stripe.end, crash.load(&op.stripe.begin));
            crash.publish(&op.stripe.writer, 0);
        }
        op.guardHere().unlock();
    }

    /// Passes an error on. What is damaged, or was left half done, the next visitor recovers;
    /// having no space leaves nothing half done.
    pub fn guard(op: *Operation, result: anytype) @TypeOf(result) {
        if (result) |_| {} else |err| {
            if (err != error.NoSpace) op.distrust();
        }
        return result;
    }

    fn distrust(op: *Operation) void {
        if (!op.writing) op.begin();
        op.healthy = false;
    }

    /// The operation has happened; what failed is only clean-up, which recovery does as well.
    pub fn afterCommit(op: *Operation, result: Error!void) void {
        result catch op.distrust();
    }

    fn find(op: *Operation, place: Place, key: []const u8) Error!Before {
        const view = &op.map.segment.view;
        const fault = op.map.segment.fault;
        const opened = tables.Table.open(view, crash.load(&op.stripe.table)) catch {
            op.distrust();
            return fault.because(.tableDamaged, error.Corrupt);
        };
        const table = opened orelse return .{ .table = null, .probe = .{} };
        const probe = tables.find(view, table, op.map.tagFor(table, place, key), key) catch {
            op.distrust();
            return fault.because(.entryDamaged, error.Corrupt);
        };
        return .{ .table = table, .probe = probe };
    }

    fn insert(
        op: *Operation,
        place: Place,
        key: []const u8,
        value: []const u8,
        kind: u8,
        before: Before,
    ) Error!void {
        const view = &op.map.segment.view;
        const at = try op.guard(op.makeRoom(place, key, before));
        const bytes = layout.Entry.bytesFor(key.len, value.len);
        const offset = if (at.probe.found != null)
            try op.guard(op.space.allocReplacing(bytes))
        else blk: {
            try op.guard(op.space.keepSpare(bytes));
            break :blk try op.guard(op.space.alloc(bytes));
        };
        const entry = view.at(offset);
        crash.store(&entry[0], crash.load(&op.stripe.begin));
        crash.store(&entry[1], @bitCast(layout.Entry.Sizes{
            .value_len = @intCast(value.len),
            .key_len = @intCast(key.len),
            .kind = kind,
        }));
        crash.store(&entry[2], 0);
        crash.fill(entry + 3, key);
        crash.fill(entry + 3 + layout.words(key.len), value);
        // Commit: insert and replace alike. Pairs with the acquire load in `table.find`; a crash
        // before it leaves an unreachable block, which recovery finds free.
        const tag = op.map.tagFor(at.table.?, place, key);
        crash.publish(&at.table.?.slots[at.probe.index], tables.slotWord(tag, offset));
        if (at.probe.found) |old| {
            op.afterCommit(op.space.retire(old.offset, old.bytes()));
            return;
        }
        crash.store(&op.stripe.live, crash.load(&op.stripe.live) +% 1);
        if (at.probe.slot == Slot.tombstone)
            crash.store(&op.stripe.tombstones, crash.load(&op.stripe.tombstones) -% 1);
    }

    /// Sees to a table with room for one more, hashed so that chosen keys cannot make it slow.
    fn makeRoom(op: *Operation, place: Place, key: []const u8, before: Before) Error!Before {
        const table = before.table orelse {
            try op.rehash(null, false);
            return op.find(place, key);
        };
        const suspicious = before.probe.suspicious() and !table.sip;
        if (before.probe.found == null) {
            const live = crash.load(&op.stripe.live);
            const tombstones = crash.load(&op.stripe.tombstones);
            if (tables.needsRehash(table.slotCount(), live, tombstones) or suspicious) {
                try op.rehash(table, suspicious or table.sip);
                return op.find(place, key);
            }
        }
        return before;
    }

    /// A new table with the same entries, published by one store. Entries stay where they are, and
    /// are only touched when the hash changes: otherwise the slots hold all of it that matters.
    fn rehash(op: *Operation, old: ?tables.Table, sip: bool) Error!void {
        const view = &op.map.segment.view;
        const live = if (old) |table| table.entryCount() else 0;
        const log2 = tables.log2For(live + 1) orelse return error.NoSpace;
        const offset = try op.space.alloc(tables.bytesFor(log2));
        const granule: u36 = @intCast(offset / layout.granule_bytes);
        const word = tables.wordFor(granule, log2, sip, crash.load(&op.stripe.begin));
        const new = (try tables.Table.open(view, word)).?;
        // Damage made the old one's memory seem free: copied onto itself it would have no end.
        if (old) |table| if (new.overlaps(table)) return error.Corrupt;
        crash.zero(new.slots, new.slotCount());
        if (old) |table| {
            for (0..table.slotCount()) |i| {
                const slot = crash.load(&table.slots[i]);
                if (slot <= Slot.tombstone) continue;
                tables.place(new, if (sip == table.sip) slot else try op.sipSlot(slot));
            }
        }
        // Commit. Readers that hold the old table find everything in it until it is reused.
        crash.publish(&op.stripe.table, word);
        crash.store(&op.stripe.tombstones, 0);
        crash.store(&op.stripe.live, live);
        if (old) |table| {
            const bytes = tables.bytesFor(table.log2);
            op.afterCommit(op.space.retire(@as(u64, table.granule) * layout.granule_bytes, bytes));
        }
    }

    fn sipSlot(op: *Operation, slot: u64) Error!u64 {
        const found = try tables.entryAt(&op.map.segment.view, slot);
        const key = std.mem.sliceAsBytes(found.key()[0..layout.words(found.sizes.key_len)]);
        const tag = recovery.tagOf(hash.sip(&op.map.secrets, key[0..found.sizes.key_len]));
        return tables.slotWord(tag, found.offset);
    }

    fn remove(op: *Operation, table: tables.Table, index: u64, found: tables.Found) void {
        // Commit.
        crash.publish(&table.slots[index], Slot.tombstone);
        crash.store(&op.stripe.live, crash.load(&op.stripe.live) -% 1);
        crash.store(&op.stripe.tombstones, crash.load(&op.stripe.tombstones) +% 1);
        op.sweep(table, index);
        op.afterCommit(op.space.retire(found.offset, found.bytes()));
        const live = crash.load(&op.stripe.live);
        if (live == 0 and crash.load(&op.stripe.owned) >= spaces.trim_bytes_min) {
            // The last one out: what the stripe had goes to whoever needs it.
            op.dropEmptyTable();
            op.afterCommit(op.space.rebuild());
        } else if (tables.needsShrinking(table.slotCount(), live)) {
            op.rehash(table, table.sip) catch |err| {
                if (err != error.NoSpace) op.distrust(); // without room the table stays as it is
            };
        }
    }

    /// A table that holds nothing goes, so that its chunk can. The slots decide, not the counter.
    fn dropEmptyTable(op: *Operation) void {
        const opened = tables.Table.open(&op.map.segment.view, crash.load(&op.stripe.table)) catch
            return;
        const table = opened orelse return;
        if (table.entryCount() > 0) return;
        crash.publish(&op.stripe.table, 0);
    }

    /// Tombstones before an empty slot hold no probe together: each becomes empty by one store
    /// that no reader can tell from the tombstone.
    fn sweep(op: *Operation, table: tables.Table, index: u64) void {
        const mask = table.mask();
        if (crash.load(&table.slots[(index + 1) & mask]) != Slot.empty) return;
        var at = index;
        while (crash.load(&table.slots[at]) == Slot.tombstone) : (at = (at -% 1) & mask) {
            crash.publish(&table.slots[at], Slot.empty);
            crash.store(&op.stripe.tombstones, crash.load(&op.stripe.tombstones) -% 1);
        }
    }
};

/// The way of a locker through every stripe: whatever was being written when it began is over when
/// it ends, and what the dead left is recovered. Where damage is, nobody else gets to write either.
fn passStripes(lock: *UserLock, timeout_ms: f64) Error!void {
    const map: *Map = @fieldParentPtr("lock", lock);
    try map.segment.check(); // it may have been replaced while we waited
    var deadline: ?os.Deadline = null;
    for (0..map.segment.view.stripeCount()) |i| {
        passStripe(map, @intCast(i), timeout_ms, &deadline) catch |err|
            if (err != error.Corrupt) return err;
    }
}

fn passStripe(map: *Map, index: u32, timeout_ms: f64, deadline: *?os.Deadline) Error!void {
    var op = Operation.lockWithin(map, index, 0) catch |err| blk: {
        if (err != error.Timeout) return err;
        if (deadline.* == null) deadline.* = .in(timeout_ms);
        break :blk try Operation.lockWithin(map, index, deadline.*.?.leftMs());
    };
    op.unlock();
}
