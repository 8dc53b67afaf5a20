//! Small histories, made by hand, that the checker of `check.zig` must judge rightly before
//! it is believed about others.

const check = @import("check.zig");

const Case = check.Case;
const Record = check.Record;

fn get(slot: u8, call: u64, ret: u64, found: u64) Record {
    return .{ .slot = slot, .call = call, .ret = ret, .kind = .get, .found = found };
}

fn put(slot: u8, call: u64, ret: u64, value: u64) Record {
    return .{ .slot = slot, .call = call, .ret = ret, .kind = .put, .value = value, .ok = true };
}

fn add(slot: u8, call: u64, ret: u64, value: u64, ok: bool) Record {
    return .{ .slot = slot, .call = call, .ret = ret, .kind = .add, .value = value, .ok = ok };
}

fn delete(slot: u8, call: u64, ret: u64, ok: bool) Record {
    return .{ .slot = slot, .call = call, .ret = ret, .kind = .delete, .ok = ok };
}

fn exchange(slot: u8, call: u64, ret: u64, old: u64, value: u64, ok: bool) Record {
    return .{
        .slot = slot,
        .call = call,
        .ret = ret,
        .kind = .exchange,
        .found = old,
        .value = value,
        .ok = ok,
    };
}

fn take(slot: u8, call: u64, ret: u64, found: u64) Record {
    return .{ .slot = slot, .call = call, .ret = ret, .kind = .take, .found = found };
}

fn swap(slot: u8, call: u64, ret: u64, found: u64, value: u64) Record {
    return .{
        .slot = slot,
        .call = call,
        .ret = ret,
        .kind = .swap,
        .found = found,
        .value = value,
    };
}

fn replace(slot: u8, call: u64, ret: u64, value: u64, ok: bool) Record {
    return .{ .slot = slot, .call = call, .ret = ret, .kind = .replace, .value = value, .ok = ok };
}

fn count(slot: u8, call: u64, ret: u64, sum: u64) Record {
    return .{ .slot = slot, .call = call, .ret = ret, .kind = .count, .found = sum };
}

/// An operation its process did not return from.
fn cut(record: Record, died: u64) Record {
    var copy = record;
    copy.ret = 0;
    copy.died = died;
    copy.ok = false;
    return copy;
}

fn lock(slot: u8, call: u64, ret: u64, told: bool) Record {
    return .{
        .slot = slot,
        .call = call,
        .ret = ret,
        .kind = .lock,
        .found = @intFromBool(told),
        .ok = true,
    };
}

fn unlock(slot: u8, call: u64, ret: u64) Record {
    return .{ .slot = slot, .call = call, .ret = ret, .kind = .unlock };
}

pub const all = [_]Case{
    .{ .name = "a read of what was put", .good = true, .records = &.{
        get(0, 1, 2, 0), put(0, 3, 4, 7), get(1, 5, 6, 7),
    } },
    .{ .name = "a stale read", .good = false, .records = &.{
        put(0, 1, 2, 7), put(0, 3, 4, 8), get(1, 5, 6, 7),
    } },
    .{ .name = "a stale read of nothing", .good = false, .records = &.{
        put(0, 1, 2, 7), get(1, 5, 6, 0),
    } },
    .{ .name = "a value out of nowhere", .good = false, .records = &.{
        put(0, 1, 2, 7), get(1, 5, 6, 9),
    } },
    .{ .name = "a read from the future", .good = false, .records = &.{
        get(1, 1, 2, 7), put(0, 3, 4, 7),
    } },
    .{ .name = "an overlapping read, old", .good = true, .records = &.{
        put(0, 1, 2, 7), put(0, 3, 9, 8), get(1, 4, 5, 7),
    } },
    .{ .name = "overlapping reads, old and then new", .good = true, .records = &.{
        put(0, 1, 2, 7), put(0, 3, 9, 8), get(1, 4, 5, 7), get(1, 6, 7, 8),
    } },
    .{ .name = "overlapping reads, new and then old", .good = false, .records = &.{
        put(0, 1, 2, 7), put(0, 3, 9, 8), get(1, 4, 5, 8), get(2, 6, 7, 7),
    } },
    .{ .name = "two readers that disagree about two puts", .good = false, .records = &.{
        put(0, 1, 20, 7), put(1, 1, 20, 8), get(2, 2, 3, 7),
        get(2, 6, 7, 8),  get(3, 8, 9, 7),  get(3, 10, 11, 8),
    } },
    .{ .name = "puts that overlap, seen in one order", .good = true, .records = &.{
        put(0, 1, 20, 7), put(1, 1, 20, 8), get(2, 2, 3, 8), get(3, 4, 5, 7), get(3, 21, 22, 7),
    } },
    .{ .name = "delete twice", .good = false, .records = &.{
        put(0, 1, 2, 7), delete(0, 3, 4, true), delete(1, 5, 6, true),
    } },
    .{ .name = "two deletes at a time, both of which had it", .good = false, .records = &.{
        put(0, 1, 2, 7), delete(0, 3, 8, true), delete(1, 4, 7, true),
    } },
    .{ .name = "delete of nothing that claims something", .good = false, .records = &.{
        delete(0, 3, 4, true),
    } },
    .{ .name = "delete that claims there was nothing", .good = false, .records = &.{
        put(0, 1, 2, 7), delete(0, 3, 4, false),
    } },
    .{ .name = "delete beside a put", .good = true, .records = &.{
        put(0, 1, 6, 7), delete(1, 2, 3, false), delete(1, 4, 5, true), get(1, 7, 8, 0),
    } },
    .{ .name = "two that add at a time", .good = true, .records = &.{
        add(0, 1, 6, 7, true), add(1, 2, 5, 8, false), get(1, 7, 8, 7),
    } },
    .{ .name = "two that add, both of which did", .good = false, .records = &.{
        add(0, 1, 6, 7, true), add(1, 2, 5, 8, true),
    } },
    .{ .name = "a lost update", .good = false, .records = &.{
        put(0, 1, 2, 7),               get(0, 3, 4, 7),
        get(1, 3, 4, 7),               exchange(0, 5, 8, 7, 8, true),
        exchange(1, 6, 9, 7, 9, true),
    } },
    .{ .name = "an update that was refused", .good = true, .records = &.{
        put(0, 1, 2, 7),   exchange(0, 5, 8, 7, 8, true), exchange(1, 6, 9, 7, 9, false),
        get(1, 10, 11, 8),
    } },
    .{ .name = "an update refused for no reason", .good = false, .records = &.{
        put(0, 1, 2, 7), exchange(1, 6, 9, 7, 9, false),
    } },
    .{ .name = "two that take at a time, one of which got it", .good = true, .records = &.{
        put(0, 1, 2, 7), take(0, 3, 8, 7), take(1, 4, 7, 0), get(0, 9, 10, 0),
    } },
    .{ .name = "two that take, both of which got it", .good = false, .records = &.{
        put(0, 1, 2, 7), take(0, 3, 8, 7), take(1, 4, 7, 7),
    } },
    .{ .name = "a take that left it there", .good = false, .records = &.{
        put(0, 1, 2, 7), take(0, 3, 4, 7), get(0, 5, 6, 7),
    } },
    .{ .name = "a killed take, and another that got it", .good = true, .records = &.{
        put(0, 1, 2, 7), cut(take(1, 3, 0, 0), 10), take(0, 4, 5, 7), get(0, 11, 12, 0),
    }, .kills = &.{.{ .slot = 1, .at = 5, .died = 10 }} },
    .{ .name = "swaps that each got the one before", .good = true, .records = &.{
        swap(0, 1, 9, 0, 7), swap(1, 2, 8, 7, 8), swap(0, 10, 11, 8, 9), get(1, 12, 13, 9),
    } },
    .{ .name = "two swaps that got the same", .good = false, .records = &.{
        put(0, 1, 2, 6), swap(0, 3, 9, 6, 7), swap(1, 3, 8, 6, 8),
    } },
    .{ .name = "replacing nothing", .good = false, .records = &.{replace(0, 1, 2, 7, true)} },
    .{ .name = "replacing what was deleted meanwhile", .good = true, .records = &.{
        put(0, 1, 2, 7), delete(0, 3, 9, true), replace(1, 4, 8, 8, false), get(0, 10, 11, 0),
    } },
    .{ .name = "steps that were all counted", .good = true, .records = &.{
        count(0, 1, 9, 2), count(1, 2, 8, 1), count(0, 10, 11, 3), get(1, 12, 13, 3),
    } },
    .{ .name = "a step that was lost", .good = false, .records = &.{
        count(0, 1, 9, 1), count(1, 2, 8, 1), get(1, 12, 13, 1),
    } },
    .{ .name = "a step that was counted twice", .good = false, .records = &.{
        count(0, 1, 2, 1), get(1, 3, 4, 2),
    } },
    .{ .name = "a killed step that was counted", .good = true, .records = &.{
        count(0, 1, 2, 1), cut(count(1, 3, 0, 0), 10), count(0, 11, 12, 3),
    }, .kills = &.{.{ .slot = 1, .at = 5, .died = 10 }} },
    .{ .name = "a killed step that was counted twice", .good = false, .records = &.{
        count(0, 1, 2, 1), cut(count(1, 3, 0, 0), 10), count(0, 11, 12, 4),
    }, .kills = &.{.{ .slot = 1, .at = 5, .died = 10 }} },
    .{ .name = "a killed put that happened", .good = true, .records = &.{
        put(0, 1, 2, 7),   cut(put(1, 3, 0, 8), 10), get(0, 4, 5, 7), get(0, 6, 7, 8),
        get(0, 11, 12, 8),
    }, .kills = &.{.{ .slot = 1, .at = 5, .died = 10 }} },
    .{ .name = "a killed put that did not", .good = true, .records = &.{
        put(0, 1, 2, 7), cut(put(1, 3, 0, 8), 10), get(0, 11, 12, 7),
    }, .kills = &.{.{ .slot = 1, .at = 5, .died = 10 }} },
    .{ .name = "a killed put that happened after the death", .good = false, .records = &.{
        put(0, 1, 2, 7), cut(put(1, 3, 0, 8), 10), get(0, 11, 12, 7), get(0, 13, 14, 8),
    }, .kills = &.{.{ .slot = 1, .at = 5, .died = 10 }} },
    .{ .name = "a killed put that was undone", .good = false, .records = &.{
        put(0, 1, 2, 7), cut(put(1, 3, 0, 8), 10), get(0, 4, 5, 8), get(0, 11, 12, 7),
    }, .kills = &.{.{ .slot = 1, .at = 5, .died = 10 }} },
    .{ .name = "a killed delete and a killed put, in either order", .good = true, .records = &.{
        put(0, 1, 2, 7), cut(put(1, 3, 0, 8), 10), cut(delete(2, 3, 0, false), 10),
        get(0, 4, 5, 0), get(0, 11, 12, 8),
    }, .kills = &.{ .{ .slot = 1, .at = 5, .died = 10 }, .{ .slot = 2, .at = 5, .died = 10 } } },
    .{ .name = "a write of another under the lock", .good = false, .records = &.{
        put(0, 1, 2, 7),  lock(0, 3, 4, false), get(0, 5, 6, 7), put(1, 3, 12, 8), get(0, 7, 8, 8),
        unlock(0, 9, 10),
    } },
    .{ .name = "a write of another that waited for the lock", .good = true, .records = &.{
        put(0, 1, 2, 7),  lock(0, 3, 4, false), get(0, 5, 6, 7), put(1, 3, 12, 8), put(0, 7, 8, 9),
        unlock(0, 9, 10), get(0, 13, 14, 8),
    } },
    .{ .name = "a write of another that returned under the lock", .good = false, .records = &.{
        lock(0, 3, 4, false), put(1, 5, 6, 8), unlock(0, 9, 10),
    } },
    .{ .name = "a write after the holder's death", .good = true, .records = &.{
        lock(0, 3, 4, false), cut(put(0, 5, 0, 7), 9), put(1, 5, 8, 8), lock(2, 10, 11, true),
        get(2, 12, 13, 8),
    }, .kills = &.{.{ .slot = 0, .at = 7, .died = 9 }} },
    .{ .name = "a holder's death that the next is not told of", .good = false, .records = &.{
        lock(0, 3, 4, false), lock(1, 10, 11, false),
    }, .kills = &.{.{ .slot = 0, .at = 7, .died = 9 }} },
    .{ .name = "told of a death that was none", .good = false, .records = &.{
        lock(0, 3, 4, false), unlock(0, 5, 6), lock(1, 10, 11, true),
    } },
    .{ .name = "two holders", .good = false, .records = &.{
        lock(0, 3, 4, false), lock(1, 5, 6, false),
    } },
};
