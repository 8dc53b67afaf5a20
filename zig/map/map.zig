//! The map: the lock-free read, and what writes, each a visit to one stripe after another
//! (`stripe_op.zig`), or to one.

const std = @import("std");
const layout = @import("../layout.zig");
const crash = @import("../atomics.zig");
const hash = @import("../stripe/hash.zig");
const tables = @import("../stripe/table.zig");
const operations = @import("stripe_op.zig");
const puts = @import("put_fast.zig");
const recovery = @import("../stripe/recovery.zig");
const user_locks = @import("../lock/user_lock.zig");
const status = @import("../status.zig");
const segments = @import("../segment/segment.zig");
const spaces = @import("../stripe/space.zig");
const os = @import("../os/os.zig");

const Error = status.Error;
const Fault = status.Fault;
const Stripe = layout.Stripe;
const Segment = segments.Segment;
const Space = spaces.Space;
const UserLock = user_locks.UserLock;

/// How often a read is tried again when its blocks were recycled under it, before it queues for
/// the stripe's lock. Each needs two promotions during one read.
const read_tries_max = 8;

/// A key's place: its stripe, and the hash everything else follows from.
pub const Place = struct { index: u32, fast: u64 };

/// What a put asks of the entry it replaces.
pub const Condition = union(enum) { none, absent, version: u64 };

pub const Value = tables.Value;
pub const Operation = operations.Operation;

/// As many as a map without a ceiling has stripes.
const known_count = 64;

pub const Map = struct {
    segment: Segment,
    lock: UserLock,
    fault: Fault,
    secrets: hash.Secrets,
    /// What a bulk call gathered for `gathered`; memory private to this handle.
    gathered: []align(os.page_bytes) u8,
    gathered_len: usize,
    /// The stripes' tables; some share a place where there are more stripes.
    known: [known_count]tables.Known,

    /// Call once the segment is attached.
    pub fn begin(map: *Map) void {
        const header = map.segment.header();
        map.secrets = secretsOf(header);
        map.gathered = &.{};
        map.gathered_len = 0;
        map.known = @splat(.empty);
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
        return map.placeAt(hash.fast(&map.secrets, key));
    }

    pub inline fn placeAt(map: *const Map, fast: u64) Place {
        return .{ .index = recovery.indexOf(&map.segment.view, fast), .fast = fast };
    }

    pub inline fn tagFor(
        map: *const Map,
        table: tables.Table,
        place: Place,
        key: []const u8,
    ) tables.Tag {
        return recovery.tagOf(if (table.sip) hash.sip(&map.secrets, key) else place.fast);
    }

    pub inline fn spaceOf(map: *Map, index: u32) Space {
        return .{
            .segment = &map.segment,
            .secrets = &map.secrets,
            .index = index,
            .stripe = map.segment.view.stripe(index),
        };
    }

    pub inline fn knownTable(map: *Map, index: u32) *tables.Known {
        return &map.known[index % known_count];
    }

    /// Copies the value of `key` into `target` if it fits with `reserve` bytes to spare. Takes no
    /// lock, stores nothing, waits for nobody, dead or alive. Null: there is none.
    pub fn get(map: *Map, key: []const u8, target: []u8, reserve: u32) Error!?Value {
        std.debug.assert(reserve <= crash.step_bytes);
        var value: Value = undefined;
        return switch (map.getQuickly(key, target, &value)) {
            .found => value,
            .absent => null,
            .unsure => map.getAnyway(key, target, reserve),
        };
    }

    /// As `get`, without a copy.
    pub fn describe(map: *Map, key: []const u8) Error!?Value {
        var value: Value = undefined;
        return switch (map.getQuickly(key, null, &value)) {
            .found => value,
            .absent => null,
            .unsure => map.getAnyway(key, &.{}, 1),
        };
    }

    /// As `get` if all is as it nearly always is, and the value fits with `crash.step_bytes` to
    /// spare; without a target it is not copied. `unsure`: it is not, and `getAnyway` decides. Kept
    /// apart so that nothing has to survive a call on the usual way.
    pub inline fn getQuickly(
        map: *Map,
        key: []const u8,
        target: ?[]u8,
        value: *Value,
    ) tables.Sight {
        const place = map.placeOf(key);
        const stripe = map.segment.view.stripe(place.index);
        const generation = crash.acquire(&stripe.generation);
        const word = crash.acquire(&stripe.table);
        const known = map.knownTable(place.index).*;
        var probe: tables.Probe = undefined;
        if (!map.segment.isCurrent()) return .unsure;
        const sight = tables.glance(&map.segment.view, known, word, place.fast, key, &probe);
        if (sight == .unsure) return .unsure;
        if (sight == .found) {
            if (target) |room| if (!probe.found.copyQuickly(key.len, room)) return .unsure;
            value.* = probe.found.told();
        }
        return if (isStill(stripe, generation)) sight else .unsure;
    }

    /// Whether what was read since the generation was `generation` is whole. Pairs with the fence
    /// in `heap.promote`: if a block was reused while we read it, the generation shows. One step is
    /// harmless: a block is reused after two.
    inline fn isStill(stripe: *const Stripe, generation: u64) bool {
        crash.loadFence();
        return crash.load(&stripe.generation) -% generation <= 1;
    }

    /// The way of every read that is not the usual one. After some tries, which means a large value
    /// under constant change, it takes the stripe's lock, or tries until `timeout`.
    pub noinline fn getAnyway(
        map: *Map,
        key: []const u8,
        target: []u8,
        reserve: u32,
    ) Error!?Value {
        try map.segment.check();
        const place = map.placeOf(key);
        const stripe = map.segment.view.stripe(place.index);
        var tries: u32 = 0;
        var deadline: ?os.Deadline = null;
        while (true) : (tries += 1) {
            const generation = crash.acquire(&stripe.generation);
            const result = map.read(stripe, place, key, target, reserve);
            if (isStill(stripe, generation)) return result;
            map.segment.fault.reason = 0; // what looked damaged was only being reused
            if (tries < read_tries_max) continue;
            if (!map.segment.readonly) break;
            if (deadline == null) deadline = .in(map.segment.timeout_ms);
            if (deadline.?.left(1) == 0) return error.Timeout;
        }
        var op = try Operation.lock(map, place.index);
        defer op.unlock();
        return map.read(stripe, place, key, target, reserve);
    }

    fn read(
        map: *Map,
        stripe: *Stripe,
        place: Place,
        key: []const u8,
        target: []u8,
        reserve: u32,
    ) Error!?Value {
        const view = &map.segment.view;
        const fault = map.segment.fault;
        const word = crash.acquire(&stripe.table);
        const opened = tables.Table.open(view, word) catch
            return fault.because(.tableDamaged, error.Corrupt);
        const table = opened orelse return null;
        map.knownTable(place.index).learn(word, table);
        var probe: tables.Probe = undefined;
        switch (tables.find(view, table, map.tagFor(table, place, key), key, &probe)) {
            .found => {
                probe.found.copyOut(target, reserve);
                return probe.found.told();
            },
            .absent, .full => return null, // full: no such key in a table without a gap
            .corrupt => return fault.because(.entryDamaged, error.Corrupt),
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
        if (condition == .none and puts.quickly(map, key, value, kind)) return true;
        return map.putAnyway(key, value, kind, condition);
    }

    /// The way of every put that is not the usual one.
    pub fn putAnyway(
        map: *Map,
        key: []const u8,
        value: []const u8,
        kind: u8,
        condition: Condition,
    ) Error!bool {
        return map.putOnce(key, value, kind, condition) catch |err| {
            if (err != error.NoSpace) return err;
            return map.putReclaiming(key, value, kind, condition);
        };
    }

    /// The second try: what other stripes hold free may be all that was missing.
    noinline fn putReclaiming(
        map: *Map,
        key: []const u8,
        value: []const u8,
        kind: u8,
        condition: Condition,
    ) Error!bool {
        const why = map.fault;
        if (!try map.reclaim()) {
            map.fault = why;
            return error.NoSpace;
        }
        return map.putOnce(key, value, kind, condition);
    }

    fn putOnce(
        map: *Map,
        key: []const u8,
        value: []const u8,
        kind: u8,
        condition: Condition,
    ) Error!bool {
        try map.segment.checkWritable();
        try map.checkSize(layout.Entry.bytesFor(key.len, value.len), value.len);
        const place = map.placeOf(key);
        var op: Operation = .of(map, place.index);
        try op.lockToWrite();
        defer op.unlock();
        try op.find(place, key);
        switch (condition) {
            .none => {},
            .absent => if (op.found) return false,
            .version => |wanted| {
                const version = if (op.found) op.probe.found.version() else 0;
                if (version != wanted) return false;
            },
        }
        op.begin();
        try op.insert(place, key, value, kind);
        return true;
    }

    /// Refuses what could never be stored.
    inline fn checkSize(map: *Map, bytes: u64, value_len: usize) Error!void {
        const view = &map.segment.view;
        const fits = bytes + layout.unit_bytes <= view.ceiling - view.data_start;
        if (fits and value_len <= layout.value_bytes_max) return;
        map.segment.noteSpace(bytes);
        return error.TooLarge;
    }

    /// False: there was none.
    pub fn delete(map: *Map, key: []const u8) Error!bool {
        try map.segment.checkWritable();
        const place = map.placeOf(key);
        map.knownTable(place.index).prefetch(place.fast);
        var op: Operation = .of(map, place.index);
        try op.lockToWrite();
        defer op.unlock();
        try op.find(place, key);
        if (!op.found) return false;
        op.begin();
        op.remove();
        return true;
    }

    /// Empties stripe after stripe; each is a commit of its own.
    pub fn clear(map: *Map) Error!void {
        try map.segment.checkWritable();
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
