//! Names in the native storm: each slot has one that only it creates, replaces, clears and unlinks,
//! while others attach to what it leads to; and the survivors fight over one more.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const oracles = @import("oracle.zig");
const workers = @import("worker.zig");

const load = oracles.load;
const store = oracles.store;
const Intent = oracles.Intent;
const Map = shmap.map.Map;
const NameOracle = oracles.NameOracle;
const Worker = workers.Worker;

fn idOf(map: *Map) u64 {
    return map.segment.header().id;
}

fn intentOf(known: *const NameOracle) Intent {
    return @enumFromInt(load(&known.intent));
}

fn keyOf(slot: u64, index: u64) u64 {
    return oracles.keyOf(200 + slot, index);
}

/// Notes what the name leads to now: a segment without keys, or nothing. The intent last: until it
/// is gone, the next opener after a death looks for both.
fn noteFresh(known: *NameOracle, id: u64) void {
    for (&known.keys) |*key| {
        store(&key.acked, 0);
        store(&key.intent, 0);
        store(&key.checked, 1);
    }
    store(&known.clearing, 0);
    store(&known.id, id);
    store(&known.intent, @intFromEnum(Intent.none));
}

/// Attaches to one's own name. Null: it leads to nothing. After a death: what was under way has
/// happened or has not.
fn settle(worker: *Worker) ?*Map {
    const known = &worker.mine().name;
    var buffer: [64]u8 = undefined;
    const name = oracles.nameOf(&buffer, worker.parent, 'n', worker.slot);
    const intent = intentOf(known);
    const before = load(&known.id);
    const map: ?*Map = worker.open(name, .attach, null) catch |err| blk: {
        if (err != error.NotFound) worker.failed(.open, err);
        break :blk null;
    };
    const found = if (map) |opened| idOf(opened) else 0;
    if (found != before) {
        const fits = switch (intent) {
            .none => false,
            .create, .replace => found != 0,
            .unlink => found == 0,
        };
        if (!fits) worker.violate(.name_wrong, .{ before, found, @intFromEnum(intent), 0 });
        if (intent == .unlink) {
            const at = load(&known.forlorn_count) % known.forlorn.len;
            store(&known.forlorn[at], before);
            store(&known.forlorn_count, at + 1);
        }
        noteFresh(known, found);
    } else store(&known.intent, @intFromEnum(Intent.none));
    if (map) |opened| settleKeys(worker, opened);
    return map;
}

fn settleKeys(worker: *Worker, map: *Map) void {
    const known = &worker.mine().name;
    const clearing = load(&known.clearing) != 0;
    for (&known.keys, 0..) |*key, i| worker.settle(map, keyOf(worker.slot, i), key, clearing);
    store(&known.clearing, 0);
}

fn write(worker: *Worker, map: *Map) void {
    const known = &worker.mine().name;
    for (0..2 + worker.random.uintLessThan(usize, 20)) |_| {
        const index = worker.random.uintLessThan(usize, known.keys.len);
        const len: ?usize = if (worker.chance(6)) null else worker.length();
        worker.write(map, keyOf(worker.slot, index), &known.keys[index], len);
    }
    if (worker.chance(3)) clear(worker, map);
}

fn clear(worker: *Worker, map: *Map) void {
    const known = &worker.mine().name;
    store(&known.clearing, 1);
    worker.begin(.clear);
    calls.clear(map) catch |err| return worker.failed(.clear, err);
    worker.end();
    for (&known.keys) |*key| {
        const gone = worker.fresh(null);
        store(&key.intent, @bitCast(gone));
        store(&key.acked, @bitCast(gone));
        store(&key.checked, 0);
    }
    settleKeys(worker, map);
}

/// One turn at the own name: from what it leads to now to something else.
pub fn own(worker: *Worker) void {
    const known = &worker.mine().name;
    var buffer: [64]u8 = undefined;
    const name = oracles.nameOf(&buffer, worker.parent, 'n', worker.slot);
    var old = settle(worker);
    const kind: shmap.layout.LockKind = if (worker.chance(5)) .kernel else .robust;
    var map = old;
    if (old == null or worker.chance(3)) {
        const mode: shmap.directory.Mode = if (old != null or worker.chance(3))
            .exclusive
        else if (worker.random.boolean()) .create else .shared;
        store(&known.intent, @intFromEnum(if (old == null) Intent.create else Intent.replace));
        map = worker.open(name, mode, kind) catch |err| return worker.failed(.replace, err);
        noteFresh(known, idOf(map.?));
        worker.oracle.count(.replaced, 1);
    } else old = null;
    if (old) |replaced| {
        if (calls.put(replaced, "late", "value", 1, .none)) |_| {
            worker.violate(.name_wrong, .{ idOf(replaced), idOf(map.?), 100, 0 });
        } else |err| if (err != error.Replaced) worker.failed(.put, err);
        worker.close(replaced);
    }
    write(worker, map.?);
    if (worker.chance(2)) unlink(worker, map.?, name);
    worker.close(map.?);
}

fn takeName(worker: *Worker, map: *Map, name: []const u8) !bool {
    if (worker.random.boolean()) return worker.unlinkName(name);
    worker.begin(.unlink);
    defer worker.end();
    return calls.unlinkOwn(map);
}

fn unlink(worker: *Worker, map: *Map, name: []const u8) void {
    const known = &worker.mine().name;
    store(&known.intent, @intFromEnum(Intent.unlink));
    const was = takeName(worker, map, name) catch |err| return worker.failed(.unlink, err);
    if (!was) worker.violate(.name_wrong, .{ idOf(map), 0, 101, 0 });
    noteFresh(known, 0);
    worker.oracle.count(.unlinked, 1);
    _ = calls.put(map, "orphan", "lives on", 1, .none) catch |err| worker.failed(.put, err);
}

/// One turn at another worker's name: attaches, reads, writes keys that no check relies on.
pub fn visit(worker: *Worker, slot: u64) void {
    const known = &worker.oracle.slots[slot].name;
    var buffer: [64]u8 = undefined;
    const name = oracles.nameOf(&buffer, worker.parent, 'n', slot);
    const before = load(&known.id);
    const settled = intentOf(known) == .none;
    const map = worker.open(name, .attach, null) catch |err| {
        if (err != error.NotFound) worker.failed(.open, err);
        if (settled and before != 0 and isStill(known, before))
            worker.violate(.name_wrong, .{ before, 0, 102, slot });
        return;
    };
    defer worker.close(map);
    if (settled and before != idOf(map) and isStill(known, before))
        worker.violate(.name_wrong, .{ before, idOf(map), 103, slot });
    for (0..oracles.named_key_count) |i| _ = worker.read(map, keyOf(slot, i));
    const mine = oracles.keyOf(300 + worker.slot, worker.random.uintLessThan(u64, 4));
    var bytes: [64]u8 = undefined;
    const value = oracles.valueOf(worker.value, mine, worker.fresh(worker.length()));
    worker.begin(.put);
    _ = calls.put(map, oracles.keyBytes(&bytes, mine), value, 1, .none) catch |err| {
        if (err == error.Replaced) worker.end() else worker.failed(.put, err);
        return;
    };
    worker.end();
    if (isOrphan(map) and !isForlorn(known, idOf(map)))
        worker.violate(.orphan, .{ idOf(map), load(&known.id), load(&known.intent), slot });
}

/// Whether a name has led to this segment all the while.
fn isStill(known: *const NameOracle, id: u64) bool {
    return intentOf(known) == .none and load(&known.id) == id;
}

/// Whether a segment thinks that it has its name, and has not. Under LIFECYCLE, so that no other
/// handle changes that meanwhile.
fn isOrphan(map: *Map) bool {
    const segment = &map.segment;
    var deadline: shmap.os.Deadline = .in(20_000);
    shmap.range_lock.lockBefore(segment.fault, segment.locks, .lifecycle, &deadline) catch
        return true;
    defer shmap.range_lock.unlock(segment.locks, .lifecycle);
    return segment.state() == .live and segment.nameLeads() == .elsewhere;
}

/// Whether the process that unlinked a segment died, perhaps before it could note that.
fn isForlorn(known: *const NameOracle, id: u64) bool {
    if (load(&known.id) == id and intentOf(known) == .unlink) return true;
    for (&known.forlorn) |*forlorn| if (load(forlorn) == id) return true;
    return false;
}

/// The survivors' own name: both replace it, unlink it by name and attach, as fast as they can, and
/// no worker dies at it. So there is no excuse for a segment that is live and has no name.
pub fn fight(worker: *Worker, rounds: usize) void {
    var buffer: [64]u8 = undefined;
    const name = oracles.nameOf(&buffer, worker.parent, 'z', 0);
    for (0..rounds) |_| {
        const dice = worker.random.uintLessThan(u32, 3);
        if (dice == 0) {
            _ = worker.unlinkName(name) catch |err| return worker.failed(.unlink, err);
            continue;
        }
        const map = worker.open(name, if (dice == 1) .exclusive else .shared, null) catch |err|
            return worker.failed(.replace, err);
        defer worker.close(map);
        shmap.os.sleepNs(worker.random.uintLessThan(u64, 30_000));
        if (isOrphan(map)) worker.violate(.orphan, .{ idOf(map), 0, 0, 1000 });
    }
}

/// At the end, when all workers are gone: the name leads to what it must, and is taken away.
pub fn finish(worker: *Worker, slot: u64) void {
    worker.slot = slot;
    const map = settle(worker) orelse return;
    const verdict = calls.verify(map) catch |err| return worker.failed(.verify, err);
    if (verdict.problems != 0 or verdict.busy != 0)
        worker.violate(.damaged, .{ 200 + slot, 0, 0, 0 });
    if (!(calls.unlinkOwn(map) catch false))
        worker.violate(.name_wrong, .{ idOf(map), 0, 104, slot });
    worker.close(map);
}
