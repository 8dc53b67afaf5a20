//! One visit of a writer to a stripe: from its lock, by way of recovering what a dead owner left,
//! to its unlock; and what is done there to a single key.
//!
//! Every operation has one commit: a release store to a slot word or a table word. Before it
//! nothing reachable has changed; after it the operation is complete, and what remains (counters,
//! retiring the old block) is derived. A writer's death at any store leaves its writer word set,
//! and whoever takes the stripe's lock next recovers first (docs/design.md, Crashes).

const std = @import("std");
const layout = @import("../layout.zig");
const crash = @import("../atomics.zig");
const hash = @import("../stripe/hash.zig");
const heap = @import("../stripe/heap.zig");
const put = @import("put_fast.zig");
const tables = @import("../stripe/table.zig");
const recovery = @import("../stripe/recovery.zig");
const spaces = @import("../stripe/space.zig");
const status = @import("../status.zig");
const stripe_lock = @import("../lock/stripe_lock.zig");
const user_locks = @import("../lock/user_lock.zig");
const maps = @import("map.zig");

const Error = status.Error;
const Map = maps.Map;
const Place = maps.Place;
const Slot = layout.Slot;
const Stripe = layout.Stripe;
const Space = spaces.Space;

/// Marks a stripe as being written to: from here on a crash is somebody's to recover from. The new
/// begin count.
pub inline fn beginWriting(stripe: *Stripe, me: u64) u64 {
    const count = crash.load(&stripe.begin) +% 1;
    crash.store(&stripe.writer, me);
    crash.store(&stripe.begin, count);
    crash.storeFence(); // a snapshot that sees a store of ours sees `begin` moved
    return count;
}

/// Takes the mark away again; a crash between the two stores makes the next visitor recover.
pub inline fn endWriting(stripe: *Stripe, count: u64) void {
    crash.publish(&stripe.end, count);
    crash.publish(&stripe.writer, 0);
}

/// One visit to a stripe: from its lock to its unlock. After `begin` the stripe is marked as being
/// written to; if anything then fails half way the mark stays, and the next visitor recovers.
pub const Operation = struct {
    map: *Map,
    stripe: *Stripe,
    space: Space,
    writing: bool = false,
    healthy: bool = true,
    /// What `find` left: the stripe's table word, 0 if it has no table, and where the key is in it,
    /// or would go.
    table_word: u64 = undefined,
    found: bool = undefined,
    probe: tables.Probe = undefined,

    /// Not locked yet.
    pub inline fn of(map: *Map, index: u32) Operation {
        const space = map.spaceOf(index);
        return .{ .map = map, .stripe = space.stripe, .space = space };
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
        return op.settle(locked);
    }

    /// Recovers what whoever had the lock before may have left.
    pub fn settle(op: *Operation, locked: stripe_lock.Locked) Error!void {
        if (locked == .clean and crash.load(&op.stripe.writer) == 0) return;
        const recovered = op.recover();
        // Whether or not it worked: the writer word says what is left to do, and a mutex that is
        // not made consistent would be useless for ever.
        const entrance = op.guardHere();
        if (locked == .owner_died) entrance.makeConsistent();
        recovered catch |err| {
            entrance.unlock();
            return err;
        };
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
        endWriting(op.stripe, count);
    }

    pub fn begin(op: *Operation) void {
        op.writing = true;
        _ = beginWriting(op.stripe, op.map.segment.me);
    }

    pub fn unlock(op: *Operation) void {
        if (op.writing and op.healthy) {
            endWriting(op.stripe, crash.load(&op.stripe.begin));
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

    /// Looks a key up under the lock.
    pub inline fn find(op: *Operation, place: Place, key: []const u8) Error!void {
        const view = &op.map.segment.view;
        const known = op.map.knownTable(place.index).*;
        op.table_word = crash.load(&op.stripe.table);
        const sight = tables.glance(view, known, op.table_word, place.fast, key, &op.probe);
        op.found = sight == .found;
        op.probe.probes = 0;
        op.probe.twins = 0;
        if (sight == .unsure) return op.findAnyway(place, key);
    }

    /// As `find`, slot by slot.
    pub noinline fn findAnyway(op: *Operation, place: Place, key: []const u8) Error!void {
        const view = &op.map.segment.view;
        const fault = op.map.segment.fault;
        const opened = tables.Table.open(view, op.table_word) catch {
            op.distrust();
            return fault.because(.tableDamaged, error.Corrupt);
        };
        const table = opened orelse return;
        op.map.knownTable(place.index).learn(op.table_word, table);
        switch (tables.find(view, table, op.map.tagFor(table, place, key), key, &op.probe)) {
            .found => op.found = true,
            .absent => {},
            .full, .corrupt => {
                op.distrust();
                return fault.because(.entryDamaged, error.Corrupt);
            },
        }
    }

    /// The table that `find` looked in. Assumes that there is one.
    fn tableHere(op: *const Operation) tables.Table {
        return .of(&op.map.segment.view, op.table_word);
    }

    /// Assumes that `find` has looked for the key.
    pub fn insert(
        op: *Operation,
        place: Place,
        key: []const u8,
        value: []const u8,
        kind: u8,
    ) Error!void {
        const bytes = layout.Entry.bytesFor(key.len, value.len);
        if (!op.found) try op.makeRoom(place, key, bytes);
        // Only for a value that replaces another may the block kept back be used.
        const allocated = if (op.found) op.space.allocReplacing(bytes) else op.space.alloc(bytes);
        const offset = try op.guard(allocated);
        put.fill(op.map.segment.view.at(offset), crash.load(&op.stripe.begin), key, value, kind);
        op.commit(place, key, offset);
    }

    /// Commit: insert and replace alike. Pairs with the acquire load in `table.find`; a crash
    /// before it leaves an unreachable block, which recovery finds free. Assumes that `find` has
    /// looked for the key, and a table with room.
    pub fn commit(op: *Operation, place: Place, key: []const u8, offset: u64) void {
        const at = op.tableHere();
        const tag = op.map.tagFor(at, place, key);
        crash.publish(&at.slots[op.probe.index], tables.slotWord(tag, offset));
        if (op.found) {
            const old = op.probe.found;
            op.afterCommit(op.space.retire(old.offset, old.bytes()));
            return;
        }
        crash.store(&op.stripe.live, crash.load(&op.stripe.live) +% 1);
        if (op.probe.slot == Slot.tombstone)
            crash.store(&op.stripe.tombstones, crash.load(&op.stripe.tombstones) -% 1);
    }

    /// Whether `makeRoom` has nothing to do for a new key.
    pub fn hasRoom(op: *const Operation, bytes: u64) bool {
        return op.table_word != 0 and !op.wantsRehash() and heap.hasSpare(op.stripe, bytes);
    }

    /// Sees to a table with room for one more, hashed so that chosen keys cannot make it slow, and
    /// to the block that is kept back beside each new key.
    fn makeRoom(op: *Operation, place: Place, key: []const u8, bytes: u64) Error!void {
        if (op.table_word == 0) {
            try op.guard(op.rehash(null, false));
            try op.find(place, key);
        } else if (op.wantsRehash()) {
            const old = op.tableHere();
            try op.guard(op.rehash(old, op.isSuspicious() or old.sip));
            try op.find(place, key);
        }
        try op.guard(op.space.keepSpare(bytes));
    }

    /// Whether there is no room for one more, or somebody chose the keys.
    fn wantsRehash(op: *const Operation) bool {
        return isFull(op.stripe, op.tableHere().slotCount()) or op.isSuspicious();
    }

    pub inline fn isFull(stripe: *const Stripe, slot_count: u64) bool {
        const live = crash.load(&stripe.live);
        return tables.needsRehash(slot_count, live, crash.load(&stripe.tombstones));
    }

    fn isSuspicious(op: *const Operation) bool {
        return op.probe.suspicious() and !op.tableHere().sip;
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
            const offset_before = @as(u64, table.granule) * layout.granule_bytes;
            op.afterCommit(op.space.retireAtOnce(offset_before, bytes));
        }
    }

    fn sipSlot(op: *Operation, slot: u64) Error!u64 {
        const found = try tables.entryAt(&op.map.segment.view, slot);
        const key = std.mem.sliceAsBytes(found.key()[0..layout.words(found.sizes.key_len)]);
        const tag = recovery.tagOf(hash.sip(&op.map.secrets, key[0..found.sizes.key_len]));
        return tables.slotWord(tag, found.offset);
    }

    pub fn remove(op: *Operation) void {
        const at = op.tableHere();
        const found = op.probe.found;
        // Commit.
        crash.publish(&at.slots[op.probe.index], Slot.tombstone);
        crash.store(&op.stripe.live, crash.load(&op.stripe.live) -% 1);
        crash.store(&op.stripe.tombstones, crash.load(&op.stripe.tombstones) +% 1);
        op.sweep(at, op.probe.index);
        op.afterCommit(op.space.retire(found.offset, found.bytes()));
        const live = crash.load(&op.stripe.live);
        if (live == 0 and crash.load(&op.stripe.owned) >= spaces.trim_bytes_min) {
            // The last one out: what the stripe had goes to whoever needs it.
            op.dropEmptyTable();
            op.afterCommit(op.space.rebuild());
        } else if (tables.needsShrinking(at.slotCount(), live)) {
            op.rehash(at, at.sip) catch |err| {
                if (err != error.NoSpace) op.distrust(); // without room the table stays as it is
            };
        }
    }

    /// A table that holds nothing goes, so that its chunk can. The slots decide, not the counter.
    pub fn dropEmptyTable(op: *Operation) void {
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
