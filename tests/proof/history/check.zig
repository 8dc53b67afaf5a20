//! Whether a history of operations on a map is linearisable: whether each of them can be thought to
//! have taken effect at one moment between its call and its return.
//!
//! Keys are independent, so each has a history of its own. It is gone through in the order of
//! time, with the set of all configurations there may be: the value, and which of the operations
//! under way have taken effect already. When an operation returns, those under way may take effect
//! in any order, and only configurations remain in which this one has, with the result it reported.
//! The operation of a process that was killed may take effect until the process is gone, or never.
//! An empty set is a violation. This is exact: nothing is sampled, and nothing is given up.
//!
//! While a process has the user's lock, only its own calls may change anything. The lock itself is
//! checked, too: one holder at a time, and the next one learns of a holder's death.

const std = @import("std");

pub const Kind = enum(u8) {
    get,
    put,
    add,
    delete,
    exchange,
    clear,
    lock,
    unlock,
    take,
    swap,
    replace,
    /// Adds one to a number; on keys whose values are numbers.
    count,
};

/// One operation, as its process noted it.
pub const Record = extern struct {
    call: u64 = 0,
    /// 0: it did not return.
    ret: u64 = 0,
    /// When the process that did not return from it was gone for certain.
    died: u64 = 0,
    /// What it stores: no two store the same, but for `count`.
    value: u64 = 0,
    /// `get`, `take`, `swap`: what it found, 0 for nothing. `exchange`: what it replaces. `count`:
    /// the sum. `lock`: 1 if the holder before had died.
    found: u64 = 0,
    version: u64 = 0,
    key: u32 = 0,
    kind: Kind = .get,
    slot: u8 = 0,
    /// What it reported: whether it changed something, whether the lock was granted.
    ok: bool = false,
    _unused: u8 = 0,
};

/// A process was killed, at `at` or a little later.
pub const Kill = struct { slot: u8, at: u64, died: u64 };

pub const slots_max = 8;
const configurations_max = 1024;
const none = std.math.maxInt(u32);

const Configuration = struct { value: u64, done: u8 };

/// What is known of one key.
const Key = struct {
    configurations: [configurations_max]Configuration = undefined,
    count: usize = 1,
    pending: [slots_max]u32 = @splat(none),
    /// A violation was found: what follows means nothing.
    broken: bool = false,

    fn isIdle(key: *const Key) bool {
        for (key.pending) |index| if (index != none) return false;
        return true;
    }
};

/// In this order when times are equal, which makes the check lenient, never wrong.
const Event = struct {
    at: u64,
    what: enum(u8) { release, kill, call, ret, grant, death, gone },
    index: u32,

    fn before(_: void, a: Event, b: Event) bool {
        if (a.at != b.at) return a.at < b.at;
        return @intFromEnum(a.what) < @intFromEnum(b.what);
    }
};

pub const Checker = struct {
    gpa: std.mem.Allocator,
    records: []const Record,
    kills: []const Kill,
    keys: []Key,
    /// Nothing is printed: the checker's own test.
    quiet: bool = false,
    found: u64 = 0,
    widest: usize = 1,
    holder: ?u8 = null,
    /// Whether the next holder must be told of a death.
    owed: enum { no, perhaps, yes } = .no,
    /// Processes that were killed inside `lock` or `unlock`, and may not be gone yet.
    vague: u8 = 0,

    pub fn init(
        gpa: std.mem.Allocator,
        records: []const Record,
        kills: []const Kill,
        key_count: u32,
    ) !Checker {
        const keys = try gpa.alloc(Key, key_count);
        for (keys) |*key| {
            key.* = .{};
            key.configurations[0] = .{ .value = 0, .done = 0 };
        }
        return .{ .gpa = gpa, .records = records, .kills = kills, .keys = keys };
    }

    pub fn deinit(checker: *Checker) void {
        checker.gpa.free(checker.keys);
    }

    /// Returns how many violations there are; no more than one for each key.
    pub fn run(checker: *Checker) !u64 {
        const events = try checker.eventsInOrder();
        defer checker.gpa.free(events);
        for (events) |event| checker.step(event);
        return checker.found;
    }

    fn eventsInOrder(checker: *Checker) ![]Event {
        var events: std.ArrayList(Event) = .empty;
        errdefer events.deinit(checker.gpa);
        for (checker.records, 0..) |*record, i| {
            const index: u32 = @intCast(i);
            const gpa = checker.gpa;
            switch (record.kind) {
                .lock => if (record.ret != 0 and record.ok)
                    try events.append(gpa, .{ .at = record.ret, .what = .grant, .index = index }),
                .unlock => try events.append(
                    gpa,
                    .{ .at = record.call, .what = .release, .index = index },
                ),
                else => {
                    try events.append(gpa, .{ .at = record.call, .what = .call, .index = index });
                    if (record.ret != 0) {
                        try events.append(gpa, .{ .at = record.ret, .what = .ret, .index = index });
                    } else try events.append(
                        gpa,
                        .{ .at = record.died, .what = .death, .index = index },
                    );
                },
            }
        }
        for (checker.kills, 0..) |killed, i| {
            const index: u32 = @intCast(i);
            try events.append(checker.gpa, .{ .at = killed.at, .what = .kill, .index = index });
            try events.append(checker.gpa, .{ .at = killed.died, .what = .gone, .index = index });
        }
        std.mem.sort(Event, events.items, {}, Event.before);
        return events.toOwnedSlice(checker.gpa);
    }

    fn step(checker: *Checker, event: Event) void {
        switch (event.what) {
            .call, .ret, .death => {
                const record = &checker.records[event.index];
                const keys = if (record.kind == .clear)
                    checker.keys
                else
                    checker.keys[record.key..][0..1];
                for (keys) |*key| {
                    if (key.broken) continue;
                    switch (event.what) {
                        .call => key.pending[record.slot] = event.index,
                        .ret => checker.settle(key, record.slot, event.index, true),
                        .death => checker.settle(key, record.slot, event.index, false),
                        else => unreachable, // the outer switch
                    }
                }
            },
            .grant => checker.grant(event.index),
            .release => checker.release(event.index),
            .kill => checker.kill(checker.kills[event.index]),
            .gone => checker.vague &= ~bitOf(checker.kills[event.index].slot),
        }
    }

    fn bitOf(slot: u8) u8 {
        return @as(u8, 1) << @intCast(slot);
    }

    /// All operations under way take effect, in any order, or not yet.
    fn expand(checker: *Checker, key: *Key) void {
        var at: usize = 0;
        while (at < key.count) : (at += 1) {
            const from = key.configurations[at];
            for (key.pending, 0..) |index, i| {
                const slot: u8 = @intCast(i);
                if (index == none or from.done & bitOf(slot) != 0) continue;
                const value = valueAfter(&checker.records[index], from.value) orelse continue;
                if (value != from.value and checker.holder != null and checker.holder.? != slot)
                    continue;
                if (!add(key, .{ .value = value, .done = from.done | bitOf(slot) }))
                    return checker.violation(key, index, "more configurations than there is room");
            }
        }
        checker.widest = @max(checker.widest, key.count);
    }

    /// False: there are too many.
    fn add(key: *Key, configuration: Configuration) bool {
        for (key.configurations[0..key.count]) |other| {
            if (other.value == configuration.value and other.done == configuration.done)
                return true;
        }
        if (key.count == configurations_max) return false;
        key.configurations[key.count] = configuration;
        key.count += 1;
        return true;
    }

    /// What the key holds when the operation has taken effect. Null: it cannot have, for it
    /// reported something else.
    fn valueAfter(record: *const Record, value: u64) ?u64 {
        const returned = record.ret != 0;
        const changes = switch (record.kind) {
            .get => return if (!returned or record.found == value) value else null,
            .clear => return 0,
            .take => return if (!returned or record.found == value) 0 else null,
            .swap => return if (!returned or record.found == value) record.value else null,
            .count => return if (!returned or record.found == value + 1) value + 1 else null,
            .put => true,
            .replace => value != 0,
            .add => value == 0,
            .delete => value != 0,
            .exchange => value == record.found,
            .lock, .unlock => unreachable, // never pending on a key
        };
        if (returned and record.ok != changes) return null;
        if (!changes) return value;
        return if (record.kind == .delete) 0 else record.value;
    }

    /// An operation is over. `effective`: it has taken effect; otherwise it may have or not.
    fn settle(checker: *Checker, key: *Key, slot: u8, index: u32, effective: bool) void {
        checker.expand(key);
        if (key.broken) return;
        const all = key.count;
        key.count = 0;
        for (0..all) |i| {
            const configuration = key.configurations[i];
            if (effective and configuration.done & bitOf(slot) == 0) continue;
            const done = configuration.done & ~bitOf(slot);
            // Never more than were read, so nothing is overwritten before its turn.
            _ = add(key, .{ .value = configuration.value, .done = done });
        }
        key.pending[slot] = none;
        if (key.count == 0) checker.violation(key, index, "no order explains this operation");
    }

    fn grant(checker: *Checker, index: u32) void {
        const record = &checker.records[index];
        if (checker.holder != null) checker.complain(index, "the lock has two holders");
        // All that others had begun is over: what has not happened by now happens afterwards.
        for (checker.keys) |*key| if (!key.broken and !key.isIdle()) checker.expand(key);
        const told = record.found == 1;
        if (told and checker.owed == .no and checker.vague == 0)
            checker.complain(index, "told of a death that was none");
        if (!told and checker.owed == .yes) checker.complain(index, "not told of a holder's death");
        checker.owed = .no;
        checker.holder = record.slot;
    }

    fn release(checker: *Checker, index: u32) void {
        if (checker.holder == checker.records[index].slot) checker.holder = null;
    }

    fn kill(checker: *Checker, killed: Kill) void {
        switch (checker.lastOfLock(killed)) {
            .neither => return,
            .inside => {
                checker.vague |= bitOf(killed.slot);
                if (checker.owed == .no) checker.owed = .perhaps;
            },
            .held => checker.owed = .yes,
        }
        if (checker.holder == killed.slot) checker.holder = null;
    }

    /// What a killed process had to do with the lock at its end.
    fn lastOfLock(checker: *const Checker, killed: Kill) enum { neither, inside, held } {
        var last: ?*const Record = null;
        for (checker.records) |*record| {
            if (record.slot != killed.slot or record.call > killed.died) continue;
            if (record.kind != .lock and record.kind != .unlock) continue;
            if (last == null or record.call > last.?.call) last = record;
        }
        const record = last orelse return .neither;
        if (record.ret == 0) return if (record.died == killed.died) .inside else .neither;
        if (record.kind == .unlock or !record.ok) return .neither;
        // Granted, and not released; but perhaps to a process before this one of the same slot.
        for (checker.kills) |other| {
            if (other.slot == killed.slot and other.died < killed.died and
                other.died > record.ret) return .neither;
        }
        return .held;
    }

    fn complain(checker: *Checker, index: u32, why: []const u8) void {
        checker.found += 1;
        if (checker.quiet) return;
        std.debug.print("{s}:\n", .{why});
        print(&checker.records[index], true);
    }

    fn violation(checker: *Checker, key: *Key, index: u32, why: []const u8) void {
        key.broken = true;
        checker.found += 1;
        if (checker.quiet) return;
        const number = (@intFromPtr(key) - @intFromPtr(checker.keys.ptr)) / @sizeOf(Key);
        const record = &checker.records[index];
        const end = if (record.ret != 0) record.ret else record.died;
        std.debug.print("key {d}, {s}; holder: {?d}\n", .{ number, why, checker.holder });
        // Everything on this key that was under way at the time, and what came right before.
        var from = record.call;
        for (checker.records) |*other| {
            if (isOn(other, number) and other.call <= end and
                (other.ret == 0 or other.ret >= record.call)) from = @min(from, other.call);
        }
        var before: ?*const Record = null;
        for (checker.records) |*other| {
            if (!isOn(other, number) or other.ret == 0 or other.ret >= from) continue;
            if (before == null or other.ret > before.?.ret) before = other;
        }
        if (before) |other| print(other, false);
        for (checker.records) |*other| {
            if (isOn(other, number) and other.call <= end and (other.ret == 0 or other.ret >= from))
                print(other, other == record);
        }
    }

    fn isOn(record: *const Record, key: usize) bool {
        return record.key == key or record.kind == .clear or record.kind == .lock or
            record.kind == .unlock;
    }

    fn print(record: *const Record, mark: bool) void {
        std.debug.print("{s} {d}..{d} died {d} process {d}: {t} {x} found {x} version {d}, {}\n", .{
            if (mark) ">" else " ",
            record.call,
            record.ret,
            record.died,
            record.slot,
            record.kind,
            record.value,
            record.found,
            record.version,
            record.ok,
        });
    }
};

/// One violation or none in a small history.
fn isLinearisable(gpa: std.mem.Allocator, records: []const Record, kills: []const Kill) !bool {
    var checker: Checker = try .init(gpa, records, kills, 1);
    defer checker.deinit();
    checker.quiet = true;
    return try checker.run() == 0;
}

pub const Case = struct {
    name: []const u8,
    good: bool,
    records: []const Record,
    kills: []const Kill = &.{},
};

/// Null: every case is judged as it should be. Otherwise the first that is not.
pub fn misjudged(gpa: std.mem.Allocator, cases: []const Case) !?[]const u8 {
    for (cases) |case| {
        if (try isLinearisable(gpa, case.records, case.kills) != case.good) return case.name;
    }
    return null;
}
