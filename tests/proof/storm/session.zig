//! The life of a worker of the native storm, and what is looked at when all of them are gone.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const ends = @import("ends.zig");
const locks = @import("lock.zig");
const names = @import("names.zig");
const oracles = @import("oracle.zig");
const workers = @import("worker.zig");

const Blocks = shmap.testing.support.Blocks;
const linux = std.os.linux;
const load = oracles.load;
const store = oracles.store;
const Map = shmap.map.Map;
const MapOracle = oracles.MapOracle;
const Worker = workers.Worker;

/// The survivors keep the first two maps open, so that no worker is ever alone there; in the last
/// one a worker often is, and makes its mutexes anew.
const kept_count = 2;
const kinds = [oracles.shared_map_count]shmap.layout.LockKind{ .robust, .kernel, .robust };

const workers_nice = 5;

var value_buffer: [oracles.value_bytes_max + 64]u8 = undefined;
var found_buffer: [oracles.value_bytes_max + 64]u8 = undefined;
var source: std.Random.DefaultPrng = undefined;

fn born(oracle: *oracles.Oracle, slot: u64, parent: u32, seed: u64) Worker {
    // No worker outlives the parent.
    _ = linux.prctl(@intFromEnum(linux.PR.SET_PDEATHSIG), @intFromEnum(linux.SIG.KILL), 0, 0, 0);
    // Or the parent, which must wake up in time, would wait for those it is to kill.
    _ = linux.syscall3(.setpriority, 0, 0, workers_nice);
    source = .init(seed);
    return .{
        .oracle = oracle,
        .slot = slot,
        .incarnation = load(&oracle.slots[slot].incarnation),
        .parent = parent,
        .random = source.random(),
        .value = &value_buffer,
        .found = &found_buffer,
        .figures = workers.openFigures(),
    };
}

/// Works until it is killed, a survivor until the storm is over.
pub fn live(oracle: *oracles.Oracle, slot: u64, parent: u32, seed: u64) noreturn {
    var worker = born(oracle, slot, parent, seed);
    // The last worker's call, if one was under way, is not this one's.
    store(&worker.mine().since_ns, 0);
    if (slot < oracles.mortal_count) {
        while (true) session(&worker);
    }
    var kept: [kept_count]*Map = undefined;
    for (&kept, 0..) |*map, i| map.* = openShared(&worker, i) orelse linux.exit(2);
    names.fight(&worker, 800);
    while (!oracle.isOver()) {
        const dice = worker.random.uintLessThan(u32, 10);
        if (dice < kept_count * 3) {
            const index = dice % kept_count;
            work(&worker, kept[index], index, 1 + worker.random.uintLessThan(usize, 200));
            if (index == 0) noteAllocated(&worker, kept[0]);
        } else if (dice < 8) session(&worker) else names.fight(&worker, 60);
    }
    for (kept) |map| worker.close(map);
    linux.exit(0);
}

fn openShared(worker: *Worker, index: usize) ?*Map {
    var buffer: [64]u8 = undefined;
    const name = oracles.nameOf(&buffer, worker.parent, 'm', index);
    return worker.open(name, .shared, kinds[index]) catch |err| {
        worker.failed(.open, err);
        return null;
    };
}

/// One visit somewhere: from an open to a close.
fn session(worker: *Worker) void {
    const dice = worker.random.uintLessThan(u32, 100);
    if (dice < 15) return names.own(worker);
    if (dice < 25) {
        const slot = worker.random.uintLessThan(u64, oracles.slot_count);
        if (slot != worker.slot) names.visit(worker, slot);
        return;
    }
    const index: usize = if (dice < 60) 0 else if (dice < 78) 1 else 2;
    const map = openShared(worker, index) orelse return;
    work(worker, map, index, 1 + worker.random.uintLessThan(usize, 300));
    worker.close(map);
}

/// So many operations on a shared map, after a look at what this slot has there.
fn work(worker: *Worker, map: *Map, index: usize, operations: usize) void {
    const known = &worker.oracle.maps[index];
    settle(worker, map, known, worker.chance(8));
    for (0..operations) |_| {
        if (worker.slot >= oracles.mortal_count and worker.oracle.isOver()) return;
        operate(worker, map, known);
    }
}

/// Looks at all that a death left in doubt, and at some or all of the rest.
fn settle(worker: *Worker, map: *Map, known: *MapOracle, all: bool) void {
    for (&known.keys[worker.slot], 0..) |*key, i| {
        const doubtful = load(&key.acked) != load(&key.intent);
        if (!all and !doubtful and i >= oracles.hot_count and !worker.chance(8)) continue;
        worker.settle(map, oracles.keyOf(worker.slot, i), key, false);
    }
    ends.settleAll(worker, map, known, all);
    locks.settleVector(worker, map, known);
}

fn operate(worker: *Worker, map: *Map, known: *MapOracle) void {
    const dice = worker.random.uintLessThan(u32, 1000);
    if (dice < 400) {
        const len: ?usize = if (worker.chance(6)) null else worker.length();
        write(worker, map, known, worker.random.uintLessThan(u64, oracles.hot_count), len);
    } else if (dice < 450) {
        breathe(worker, map, known);
    } else if (dice < 550) {
        ends.operate(worker, map, known);
    } else if (dice < 800) {
        const slot = worker.random.uintLessThan(u64, oracles.slot_count);
        const index = worker.random.uintLessThan(u64, oracles.key_count);
        worker.look(map, oracles.keyOf(slot, index), &known.keys[slot][index]);
    } else if (dice < 900) {
        locks.add(worker, map, known);
    } else if (dice < 990) {
        locks.section(worker, map, known);
    } else if (dice < 998) readAll(worker, map) else verify(worker, map);
}

fn write(worker: *Worker, map: *Map, known: *MapOracle, index: u64, len: ?usize) void {
    worker.write(map, oracles.keyOf(worker.slot, index), &known.keys[worker.slot][index], len);
}

/// Many small entries come or go, so that tables and chunks do.
fn breathe(worker: *Worker, map: *Map, known: *MapOracle) void {
    const goes = worker.random.boolean();
    for (oracles.hot_count..oracles.key_count) |index| {
        const len: ?usize = if (goes) null else 16 + worker.random.uintLessThan(usize, 80);
        write(worker, map, known, index, len);
    }
}

/// Everything at one instant; every value must be whole.
fn readAll(worker: *Worker, map: *Map) void {
    worker.begin(.snapshot);
    const bytes = calls.snapshot(map) catch |err| return worker.failed(.snapshot, err);
    worker.end();
    worker.oracle.count(.snapshots, 1);
    var at: u64 = 0;
    while (at < bytes) {
        const record = std.mem.bytesToValue(shmap.gathered.Record, map.gathered[at..][0..16]);
        const body = map.gathered[at + 16 ..][0 .. record.key_len + record.value_len];
        at += 16 + std.mem.alignForward(u64, body.len, 8);
        if (record.key_len < 8) continue;
        const key = std.mem.readInt(u64, body[0..8], .little);
        if (key >> 32 >= oracles.slot_count) continue; // counters and the vector
        if (oracles.stateOf(body[record.key_len..], key) == null)
            worker.violate(.torn_value, .{ key, record.value_len, 0, 2 });
    }
}

fn verify(worker: *Worker, map: *Map) void {
    worker.begin(.verify);
    const verdict = calls.verify(map) catch |err| return worker.failed(.verify, err);
    worker.end();
    worker.oracle.count(.verified, 1);
    if (verdict.problems != 0 or verdict.busy != 0) worker.violate(.damaged, .{
        @intFromFloat(verdict.reason), @intFromFloat(verdict.stripe), 0, 0,
    });
    compareBlocks(worker, map);
}

/// What the file takes beside what the segment's words say.
fn compareBlocks(worker: *Worker, map: *Map) void {
    const found = Blocks.of(map) catch |err| return worker.failed(.verify, err);
    var blocks = found orelse return;
    // With small extents, late readers load from values that are too short to be read by way of the
    // kernel, and each load of a hole takes a page: until that place is used again.
    if (shmap.parked.areSmall()) blocks.behind = std.math.maxInt(u40);
    if (!blocks.areRight())
        worker.violate(.leaked, .{ blocks.allocated, blocks.told, blocks.behind, 4 });
}

fn noteAllocated(worker: *Worker, map: *Map) void {
    const stat = shmap.os.stat(&map.fault, map.segment.file) catch return;
    const oracle = worker.oracle;
    const quarter = @min(3, 4 * load(&oracle.kills) / oracle.kills_wanted);
    _ = @atomicRmw(u64, &oracle.allocated[quarter], .Max, stat.allocated, .monotonic);
}

/// When all workers are gone: all that was acknowledged is there, nothing else is, and nothing is
/// left of it when it is deleted.
pub fn finish(oracle: *oracles.Oracle, parent: u32) noreturn {
    var worker = born(oracle, 0, parent, 1);
    for (0..oracles.shared_map_count) |index| {
        const map = openShared(&worker, index) orelse continue;
        finishMap(&worker, map, index);
        if (!(calls.unlinkOwn(map) catch false))
            worker.violate(.name_wrong, .{ index, 0, 105, 0 });
        worker.close(map);
    }
    for (0..oracles.slot_count) |slot| names.finish(&worker, slot);
    var buffer: [64]u8 = undefined;
    _ = worker.unlinkName(oracles.nameOf(&buffer, parent, 'z', 0)) catch |err|
        worker.failed(.unlink, err);
    // One look at the directory removes the temporary names that the dead left.
    var fault: shmap.status.Fault = .{};
    const directory = shmap.directory.resolve(&fault, "") catch linux.exit(2);
    _ = shmap.directory.list(&fault, &directory, &.{}) catch linux.exit(2);
    linux.exit(0);
}

fn finishMap(worker: *Worker, map: *Map, index: usize) void {
    const known = &worker.oracle.maps[index];
    verify(worker, map);
    locks.section(worker, map, known);
    var count: u64 = 3; // two counters and the vector
    for (0..oracles.slot_count) |slot| {
        worker.slot = slot;
        settle(worker, map, known, true);
        ends.finish(worker, map, known);
        for (&known.keys[slot]) |*key| {
            count += @intFromBool(oracles.Word.of(load(&key.acked)).size != 0);
        }
    }
    const size = calls.size(map) catch 0;
    if (known.added[0].acked != 0 and size != count)
        worker.violate(.wrong_answer, .{ 0, count, size, 3 });
    for (0..oracles.slot_count) |slot| {
        worker.slot = slot;
        for (0..oracles.key_count) |i| {
            const key = &known.keys[slot][i];
            if (oracles.Word.of(load(&key.acked)).size != 0) write(worker, map, known, i, null);
        }
    }
    locks.forget(worker, map);
    verify(worker, map);
    const stats = calls.stats(map) catch |err| return worker.failed(.verify, err);
    const usable = stats.committed_bytes - @as(f64, @floatFromInt(map.segment.view.data_start));
    // An empty stripe keeps what is not worth a pass to give back.
    const kept: f64 = @floatFromInt(map.segment.view.stripeCount() * shmap.space.trim_bytes_min);
    const whole = stats.pool_free_bytes + stats.owned_bytes == usable;
    if (stats.entries != 0 or stats.owned_bytes >= kept or !whole)
        worker.violate(.leaked, .{
            @intFromFloat(stats.entries),
            @intFromFloat(stats.owned_bytes),
            @intFromFloat(stats.pool_free_bytes),
            @intFromFloat(usable),
        });
}
