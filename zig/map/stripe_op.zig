//! One visit of a writer to a stripe: from its lock, by way of recovering what a dead owner left,
//! to its unlock; and what is done there to a single key.
//!
//! Every operation has one commit: a release store to a slot word or a table word. Before it
//! nothing reachable has changed; after it the operation is complete, and what remains (counters,
//! retiring the old block) is derived. A writer's death at any store leaves its writer word set,
//! and the next holder of the stripe's lock recovers first (docs/design.md, Crashes).

const std = @import("std");
const atomics = @import("../atomics.zig");
const ends = @import("../stripe/ends.zig");
const entries = @import("../stripe/entry.zig");
const hash = @import("../stripe/hash.zig");
const heap = @import("../stripe/heap.zig");
const layout = @import("../layout.zig");
const maps = @import("map.zig");
const os = @import("../os/os.zig");
const recovery = @import("../stripe/recovery.zig");
const spaces = @import("../stripe/space.zig");
const status = @import("../status.zig");
const stripe_lock = @import("../lock/stripe_lock.zig");
const tables = @import("../stripe/table.zig");
const user_locks = @import("../lock/user_lock.zig");

const Error = status.Error;
const KeyHash = maps.KeyHash;
const Map = maps.Map;
const Slot = layout.Slot;
const Stripe = layout.Stripe;

/// Where `find` found a key, or where it would go. Good until the stripe's lock is given back or
/// another key of the stripe is stored or removed.
pub const Cursor = struct {
    key: []const u8,
    key_hash: KeyHash,
    /// The stripe's table word, 0 if it has no table.
    table_word: u64,
    is_found: bool,
    probe: tables.Probe,
};

/// One visit to a stripe. After `begin` the stripe is marked as being written to; if anything then
/// fails half way the mark stays, and the next holder of the lock recovers.
pub const StripeOp = struct {
    map: *Map,
    /// Its mutex is taken and given back at this address, also where more is mapped meanwhile.
    stripe: *Stripe,
    space: spaces.Space,
    is_writing: bool = false,
    /// Damage was met, or something was left half done: the mark stays.
    is_dirty: bool = false,

    /// Not locked yet.
    pub inline fn of(map: *Map, index: u32) StripeOp {
        const space = map.spaceOf(index);
        return .{ .map = map, .stripe = space.stripe, .space = space };
    }

    /// Takes the stripe's lock, waiting until the deadline of the call (`Segment.deadline`); a dead
    /// owner's leftovers are recovered first.
    pub fn lock(map: *Map, index: u32) Error!StripeOp {
        var op: StripeOp = .of(map, index);
        try op.enter(&map.segment.deadline);
        return op;
    }

    /// As `lock`, where the stripe is not waited for. `Timeout`: another handle has it.
    pub fn tryLock(map: *Map, index: u32) Error!StripeOp {
        var now: os.Deadline = .in(0);
        var op: StripeOp = .of(map, index);
        try op.enter(&now);
        return op;
    }

    /// Written out at each place, as the steps around it are: as a function of its own it would
    /// take a put over kernel locks 20 instructions more.
    inline fn enter(op: *StripeOp, deadline: *os.Deadline) Error!void {
        const map = op.map;
        const locked = op.lockHere().lock(map.segment.fault, deadline) catch |err| {
            if (err == error.Timeout)
                map.fault.holder_pid = @floatFromInt(atomics.load(&op.stripe.writer) >> 32);
            return err;
        };
        return op.recoverIfNeeded(locked);
    }

    /// Recovers what the owner before may have left. On an error the lock is given back.
    pub fn recoverIfNeeded(op: *StripeOp, locked: stripe_lock.Locked) Error!void {
        if (locked == .clean and atomics.load(&op.stripe.writer) == 0) return;
        const recovered = op.space.recover();
        // Whether or not it worked: the writer word says what is left to do, and a mutex that is
        // not made consistent would be useless for ever.
        if (locked == .owner_died) op.lockHere().makeConsistent();
        recovered catch |err| {
            op.lockHere().unlock();
            return err;
        };
    }

    /// As `lock`, for a change that others can see: waits while another handle has the user's lock.
    /// Its word is read under the stripe's lock, and after recovery, or the stripe would be let go
    /// with its mutex not consistent. Pairs with `UserLock.grant`. Initialised in place: returning
    /// the operation by value costs a store-to-load stall, a quarter of a small put.
    pub inline fn lockToWrite(op: *StripeOp) Error!void {
        const map = op.map;
        try op.enter(&map.segment.deadline);
        if (map.lock.admits(atomics.loadAcquire(&map.segment.header().lock_word))) return;
        op.lockHere().unlock();
        return op.lockInTurn();
    }

    fn lockInTurn(op: *StripeOp) Error!void {
        const map = op.map;
        // On success, too: the next locker waits for our stripe, and so for this write.
        defer map.lock.cancel();
        var wait: user_locks.Wait = .of(&map.segment.deadline);
        while (true) {
            map.lock.listen(&wait);
            try op.enter(&map.segment.deadline);
            const word = atomics.loadAcquire(&map.segment.header().lock_word);
            if (map.lock.admits(word)) return;
            op.lockHere().unlock();
            try map.lock.waitForHolder(word, &wait);
            try map.segment.check(); // it may have been replaced meanwhile
        }
    }

    /// Rebuilds what is derived, which also ends what this visit was writing.
    pub fn recover(op: *StripeOp) Error!void {
        try op.space.recover();
        op.is_writing = false;
    }

    inline fn lockHere(op: *const StripeOp) stripe_lock.StripeLock {
        return op.map.segment.lockAt(op.stripe, op.space.index);
    }

    pub fn begin(op: *StripeOp) void {
        std.debug.assert(!op.is_writing);
        op.is_writing = true;
        _ = recovery.beginWriting(op.stripe, op.map.segment.writer_id);
    }

    /// As `begin`, for a change that no snapshot must learn of: *begin* stays.
    pub fn beginUncounted(op: *StripeOp) void {
        std.debug.assert(!op.is_writing);
        op.is_writing = true;
        atomics.store(&op.stripe.writer, op.map.segment.writer_id);
    }

    pub fn unlock(op: *StripeOp) void {
        if (op.is_writing and !op.is_dirty)
            recovery.endWriting(op.stripe, atomics.load(&op.stripe.begin));
        op.lockHere().unlock();
    }

    /// Plain loads, which a release build leaves out together with the assertion.
    inline fn assertWriting(op: *const StripeOp) void {
        std.debug.assert(op.is_writing);
        std.debug.assert(op.stripe.writer == op.map.segment.writer_id);
    }

    /// Passes a result on. After an error the next holder of the lock recovers what is damaged or
    /// was left half done; having no space leaves nothing half done.
    pub fn markDirtyOnError(op: *StripeOp, result: anytype) @TypeOf(result) {
        if (result) |_| {} else |err| {
            if (err != error.NoSpace) op.markDirty();
        }
        return result;
    }

    fn markDirty(op: *StripeOp) void {
        if (!op.is_writing) op.begin();
        op.is_dirty = true;
        op.map.segment.deadline.is_used = true;
    }

    /// The operation has happened; what failed is only clean-up, which recovery does as well.
    pub fn afterCommit(op: *StripeOp, result: Error!void) void {
        result catch op.markDirty();
    }

    /// Looks a key up under the lock. The cursor is set in place, for the reason given above.
    pub inline fn find(
        op: *StripeOp,
        cursor: *Cursor,
        key_hash: KeyHash,
        key: []const u8,
    ) Error!void {
        const view = &op.map.segment.view;
        const cached = op.map.cachedTable(key_hash.stripe).*;
        const word = atomics.load(&op.stripe.table);
        cursor.key = key;
        cursor.key_hash = key_hash;
        cursor.table_word = word;
        const fast = key_hash.fast;
        const max = layout.value_bytes_max;
        const lookup = tables.lookupFast(view, cached, word, fast, key, max, &cursor.probe);
        cursor.is_found = lookup == .hit;
        cursor.probe.length = 0;
        cursor.probe.tag_collisions = 0;
        if (lookup == .retry) try op.findSlow(cursor);
    }

    /// Whether `find` found an entry that has not ended.
    pub inline fn isThere(op: *const StripeOp, cursor: *const Cursor) bool {
        return cursor.is_found and !op.map.isOver(cursor.probe.entry.expires());
    }

    /// The version of the entry that `find` found; 0 if there is none, or it has ended.
    pub inline fn versionOf(op: *const StripeOp, cursor: *const Cursor) u64 {
        return if (op.isThere(cursor)) cursor.probe.entry.version() else 0;
    }

    /// Looks the cursor's key up slot by slot, in the table that its table word names.
    pub noinline fn findSlow(op: *StripeOp, cursor: *Cursor) Error!void {
        const view = &op.map.segment.view;
        const fault = op.map.segment.fault;
        const opened = tables.Table.open(view, cursor.table_word) catch |err| {
            if (err != error.NoSpace) op.markDirty();
            return op.map.segment.refused(.tableDamaged, err);
        };
        const table = opened orelse return;
        op.map.cachedTable(cursor.key_hash.stripe).remember(cursor.table_word, table);
        const tag = op.map.tagFor(table, cursor.key_hash, cursor.key);
        switch (tables.find(view, table, tag, cursor.key, &cursor.probe)) {
            .found => cursor.is_found = true,
            .absent => {},
            .unmapped => return error.NoSpace,
            .full, .corrupt => {
                op.markDirty();
                return fault.withReason(.entryDamaged, error.Corrupt);
            },
        }
    }

    fn tableOf(op: *const StripeOp, cursor: *const Cursor) tables.Table {
        std.debug.assert(cursor.table_word == op.stripe.table);
        return .of(&op.map.segment.view, cursor.table_word);
    }

    /// Stores a value under the cursor's key, whether or not there is one, with its end, 0 for
    /// none. The cursor may lead to a new table afterwards.
    pub inline fn insert(
        op: *StripeOp,
        cursor: *Cursor,
        value: []const u8,
        kind: u8,
        expires: u64,
    ) Error!void {
        op.assertWriting();
        const key = cursor.key;
        const bytes = layout.Entry.bytesFor(key.len, value.len);
        // Only for a value that replaces another may the block kept back be used.
        const offset = if (cursor.is_found)
            try op.markDirtyOnError(op.space.allocReplacing(bytes, key.len))
        else if (heap.isSmall(bytes)) small: {
            try op.makeRoom(cursor, bytes);
            break :small try op.markDirtyOnError(op.space.alloc(bytes, key.len));
        } else try op.allocLarge(cursor, bytes);
        const version = atomics.load(&op.stripe.begin);
        // A crash behind it leaves a search for ended entries that finds none.
        if (expires != 0) ends.lower(op.stripe, expires);
        entries.write(op.map.segment.view.at(offset), version, key, value, kind, expires);
        op.commit(cursor, offset, expires);
    }

    /// A chunk for the entry of a new key, and room for that in the table: the chunk first, for
    /// where there is none the segment must not have grown for the table. A crash between the two
    /// leaves a chunk that recovery finds free.
    noinline fn allocLarge(op: *StripeOp, cursor: *Cursor, bytes: u64) Error!u64 {
        const offset = try op.markDirtyOnError(op.space.alloc(bytes, cursor.key.len));
        op.makeRoom(cursor, bytes) catch |err| {
            if (err == error.NoSpace) op.afterCommit(op.space.retireAtOnce(offset, bytes));
            return err;
        };
        return offset;
    }

    /// Commits the entry at `offset` under the cursor's key: insert and replace alike. The table
    /// has room (`hasRoom`, `makeRoom`). Pairs with the acquire load in `table.find`; a crash
    /// before the store leaves an unreachable block, which recovery finds free, and one behind it
    /// leaves counters and a block to be retired, which recovery rebuilds.
    pub inline fn commit(op: *StripeOp, cursor: *const Cursor, offset: u64, expires: u64) void {
        op.assertWriting();
        const table = op.tableOf(cursor);
        const tag = op.map.tagFor(table, cursor.key_hash, cursor.key);
        const slot = entries.slotWord(tag, offset);
        atomics.storeRelease(&table.slots[cursor.probe.index], slot);
        if (atomics.load(&op.stripe.next_end) != 0) op.noteEnds(cursor, expires);
        if (cursor.is_found) {
            const old = cursor.probe.entry;
            op.afterCommit(op.space.retire(old.offset, old.bytes()));
            return;
        }
        atomics.store(&op.stripe.live, atomics.load(&op.stripe.live) +% 1);
        if (cursor.probe.slot == Slot.tombstone)
            atomics.store(&op.stripe.tombstones, atomics.load(&op.stripe.tombstones) -% 1);
    }

    /// In a stripe with entries that end.
    noinline fn noteEnds(op: *StripeOp, cursor: *const Cursor, after: u64) void {
        const before = if (cursor.is_found) cursor.probe.entry.expires() else 0;
        ends.noteChange(op.stripe, before, after);
    }

    /// Whether `makeRoom` has nothing to do for a new key.
    pub fn hasRoom(op: *const StripeOp, cursor: *const Cursor, bytes: u64) bool {
        return cursor.table_word != 0 and !op.wantsRehash(cursor) and
            heap.hasSpare(op.stripe, bytes);
    }

    /// Sees to a table with room for one more, hashed so that chosen keys cannot make it slow, and
    /// to the block that is kept back beside each new key.
    inline fn makeRoom(op: *StripeOp, cursor: *Cursor, bytes: u64) Error!void {
        if (cursor.table_word == 0 or op.wantsRehash(cursor)) try op.replaceTable(cursor);
        try op.markDirtyOnError(op.space.keepSpare(bytes));
    }

    noinline fn replaceTable(op: *StripeOp, cursor: *Cursor) Error!void {
        const old = if (cursor.table_word == 0) null else op.tableOf(cursor);
        const sip = if (old) |table| op.isSuspicious(cursor) or table.sip else false;
        try op.markDirtyOnError(op.rehash(old, sip));
        try op.find(cursor, cursor.key_hash, cursor.key);
    }

    /// Whether there is no room for one more, or an attacker chose the keys.
    fn wantsRehash(op: *const StripeOp, cursor: *const Cursor) bool {
        return isFull(op.stripe, op.tableOf(cursor).slotCount()) or op.isSuspicious(cursor);
    }

    pub inline fn isFull(stripe: *const Stripe, slot_count: u64) bool {
        const live = atomics.load(&stripe.live);
        return tables.needsRehash(slot_count, live, atomics.load(&stripe.tombstones));
    }

    fn isSuspicious(op: *const StripeOp, cursor: *const Cursor) bool {
        return cursor.probe.isSuspicious() and !op.tableOf(cursor).sip;
    }

    /// A new table with the same entries, published by one store. Entries stay where they are, and
    /// are only touched when the hash changes: otherwise the slots hold all of it that matters.
    fn rehash(op: *StripeOp, old: ?tables.Table, sip: bool) Error!void {
        op.assertWriting();
        const view = &op.map.segment.view;
        const live = if (old) |table| table.entryCount() else 0;
        const log2 = tables.log2For(live + 1) orelse return error.NoSpace;
        const offset = try op.space.allocTable(tables.bytesFor(log2));
        const granule: u36 = @intCast(offset / layout.granule_bytes);
        const word = tables.wordFor(granule, log2, sip, atomics.load(&op.stripe.begin));
        const new = (try tables.Table.open(view, word)).?;
        // Damage made the old one's memory seem free: copied onto itself it would have no end.
        if (old) |table| if (new.overlaps(table)) return error.Corrupt;
        atomics.storeZeros(new.slots, new.slotCount());
        if (old) |table| {
            for (0..table.slotCount()) |i| {
                const slot = atomics.load(&table.slots[i]);
                if (slot <= Slot.tombstone) continue;
                const moved = if (sip == table.sip) slot else op.sipSlot(slot) catch |err| {
                    op.markDirty(); // the new table is in no list
                    return err;
                };
                try tables.insertSlot(new, moved);
            }
        }
        ends.restart(op.stripe); // slots move
        // Commit. Readers that hold the old table find everything in it until it is reused.
        atomics.storeRelease(&op.stripe.table, word);
        atomics.store(&op.stripe.tombstones, 0);
        atomics.store(&op.stripe.live, live);
        if (old) |table| {
            const bytes = tables.bytesFor(table.log2);
            const offset_before = @as(u64, table.granule) * layout.granule_bytes;
            op.afterCommit(op.space.retireAtOnce(offset_before, bytes));
        }
    }

    fn sipSlot(op: *StripeOp, slot: u64) Error!u64 {
        const entry = try entries.ofSlot(&op.map.segment.view, slot);
        const tag = hash.tagOf(hash.sip(&op.map.secrets, entry.key()));
        return entries.slotWord(tag, entry.offset);
    }

    /// Removes the entry that `find` found. Written out where one key and where many are deleted.
    pub inline fn remove(op: *StripeOp, cursor: *const Cursor) void {
        op.assertWriting();
        std.debug.assert(cursor.is_found);
        const table = op.tableOf(cursor);
        op.takeOut(table, cursor.probe.index, cursor.probe.entry);
        op.shrink(table);
    }

    /// Removes the entry of a slot.
    pub inline fn takeOut(
        op: *StripeOp,
        table: tables.Table,
        index: u64,
        entry: entries.EntryView,
    ) void {
        // Commit. A crash behind it leaves counters and a block to be retired.
        atomics.storeRelease(&table.slots[index], Slot.tombstone);
        atomics.store(&op.stripe.live, atomics.load(&op.stripe.live) -% 1);
        atomics.store(&op.stripe.tombstones, atomics.load(&op.stripe.tombstones) +% 1);
        if (atomics.load(&op.stripe.next_end) != 0)
            ends.noteChange(op.stripe, entry.expires(), 0);
        op.sweep(table, index);
        op.afterCommit(op.space.retire(entry.offset, entry.bytes()));
    }

    /// Behind removals: what a stripe has not much in any more becomes smaller.
    pub inline fn shrink(op: *StripeOp, table: tables.Table) void {
        const live = atomics.load(&op.stripe.live);
        if (live == 0 and atomics.load(&op.stripe.owned) >= spaces.trim_bytes_min) {
            // It was the last entry: what the stripe owned goes to the pool.
            op.dropEmptyTable();
            op.afterCommit(op.space.rebuild());
        } else if (tables.needsShrinking(table.slotCount(), live)) {
            op.rehash(table, table.sip) catch |err| {
                if (err != error.NoSpace) op.markDirty(); // without room the table stays as it is
            };
        }
    }

    /// A table that holds nothing goes, so that its chunk can. The slots decide, not the counter.
    pub fn dropEmptyTable(op: *StripeOp) void {
        op.assertWriting();
        const opened = tables.Table.open(&op.map.segment.view, atomics.load(&op.stripe.table)) catch
            return;
        const table = opened orelse return;
        if (table.entryCount() > 0) return;
        atomics.storeRelease(&op.stripe.table, 0);
    }

    /// Tombstones before an empty slot hold no probe together: each becomes empty by one store
    /// that no reader can tell from the tombstone.
    fn sweep(op: *StripeOp, table: tables.Table, index: u64) void {
        const mask = table.mask();
        if (atomics.load(&table.slots[(index + 1) & mask]) != Slot.empty) return;
        var at = index;
        while (atomics.load(&table.slots[at]) == Slot.tombstone) : (at = (at -% 1) & mask) {
            atomics.storeRelease(&table.slots[at], Slot.empty);
            atomics.store(&op.stripe.tombstones, atomics.load(&op.stripe.tombstones) -% 1);
        }
    }
};
