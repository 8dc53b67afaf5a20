//! The user's lock and compare-and-set in the native storm: who has the lock is alone, learns of
//! every holder that died and of no other, and no addition is lost or made twice.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const oracles = @import("oracle.zig");
const workers = @import("worker.zig");

const load = oracles.load;
const store = oracles.store;
const Map = shmap.map.Map;
const MapOracle = oracles.MapOracle;
const Worker = workers.Worker;

/// What `owed` may say: no holder died with the lock, it cannot be told, or else the serial of a
/// holder that has not released; with `releasing`, of one that perhaps has.
const free = 0;
const unknown = 1 << 62;
const releasing = 1 << 63;

const first_counter = oracles.keyOf(100, 1);
const second_counter = oracles.keyOf(100, 2);
const vector_key = "the vector";

var owed_before: u64 = 0;

/// The writers of a map, and a note of the last thing a locker does before it is granted the lock:
/// until the grant is noted, the next holder after its death may be told either way.
const WatchedWriters = struct {
    writers: shmap.quiesce.MapWriters,
    known: *MapOracle,

    pub const allows_shared = false;

    pub fn quiesce(watched: WatchedWriters, deadline: *shmap.os.Deadline) shmap.status.Error!void {
        try watched.writers.quiesce(deadline);
        owed_before = load(&watched.known.owed);
        store(&watched.known.owed, unknown);
    }
};

/// Who a worker is: its slot and which of that slot's workers.
fn nameOf(worker: *const Worker) u64 {
    return worker.incarnation << 8 | worker.slot | 0x80;
}

fn isDoomed(worker: *Worker, name: u64) bool {
    const slot = &worker.oracle.slots[name & 0x7f];
    return load(&slot.doomed) >= name >> 8;
}

/// Locks, writes several keys, looks whether another worker did, and unlocks.
pub fn section(worker: *Worker, map: *Map, known: *MapOracle) void {
    const writers: WatchedWriters = .{ .writers = .{ .map = map }, .known = known };
    worker.begin(.lock);
    const recovered = map.lock.acquire(false, 20_000, writers) catch |err|
        return worker.failed(.lock, err);
    worker.end();
    judge(worker, recovered);
    const before = @atomicRmw(u64, &known.holder, .Xchg, nameOf(worker), .seq_cst);
    if (before != 0 and !isDoomed(worker, before))
        worker.violate(.granted_twice, .{ before, nameOf(worker), 0, 0 });
    const serial: u64 = map.lock.serial;
    store(&known.owed, serial);
    worker.oracle.count(.grants, 1);
    worker.oracle.count(.recovered, @intFromBool(recovered));
    const versions = othersOf(worker, map);
    countUp(worker, map, known, recovered);
    for (0..worker.random.uintLessThan(usize, 3)) |_| {
        const index = worker.random.uintLessThan(u64, oracles.hot_count);
        const own = &known.keys[worker.slot][index];
        worker.write(map, oracles.keyOf(worker.slot, index), own, worker.length());
    }
    linger(worker);
    for (versions, othersOf(worker, map)) |was, is| {
        if (was != is) worker.violate(.foreign_write, .{ was, is, 0, 0 });
    }
    if (@cmpxchgStrong(u64, &known.holder, nameOf(worker), 0, .seq_cst, .seq_cst)) |other|
        worker.violate(.granted_twice, .{ other, nameOf(worker), 1, 0 });
    unlock(worker, map, known, serial, recovered and worker.chance(3));
}

/// `keep`: as `SharedValue.update` releases, which passes on what it was told.
fn unlock(worker: *Worker, map: *Map, known: *MapOracle, serial: u64, keep: bool) void {
    const leaving = releasing | serial;
    store(&known.owed, leaving);
    worker.begin(.unlock);
    calls.release(map, keep);
    worker.end();
    // Unless another worker has been granted the lock since.
    const after: u64 = if (keep) serial else free;
    _ = @cmpxchgStrong(u64, &known.owed, leaving, after, .seq_cst, .seq_cst);
}

fn judge(worker: *Worker, recovered: bool) void {
    if (owed_before == free and recovered)
        worker.violate(.recovered_false, .{ 0, 0, 0, 0 });
    const ambiguous = owed_before & (unknown | releasing) != 0;
    if (owed_before != free and !ambiguous and !recovered)
        worker.violate(.recovered_missed, .{ owed_before, 0, 0, 0 });
}

const other_count = oracles.slot_count * oracles.hot_count;

/// The versions of the hot keys of all other slots; one's own count as 0.
fn othersOf(worker: *Worker, map: *Map) [other_count]u64 {
    var versions: [other_count]u64 = @splat(0);
    var buffer: [64]u8 = undefined;
    for (0..oracles.slot_count) |slot| {
        if (slot == worker.slot) continue;
        for (0..oracles.hot_count) |index| {
            const key = oracles.keyBytes(&buffer, oracles.keyOf(slot, index));
            const value = calls.get(map, key, &.{}, 0) catch |err| {
                worker.failed(.get, err);
                continue;
            };
            if (value) |found| versions[slot * oracles.hot_count + index] = found.version;
        }
    }
    return versions;
}

fn linger(worker: *Worker) void {
    const until = oracles.now() + worker.random.uintLessThan(u64, 60_000);
    while (oracles.now() < until) {}
    if (worker.chance(20)) shmap.os.sleepNs(200_000);
}

fn readCounter(worker: *Worker, map: *Map, key: u64) u64 {
    var value: u64 = 0;
    worker.begin(.get);
    _ = calls.get(map, std.mem.asBytes(&key), std.mem.asBytes(&value), 0) catch |err|
        worker.failed(.get, err);
    worker.end();
    return value;
}

fn putCounter(worker: *Worker, map: *Map, key: u64, value: u64) void {
    worker.begin(.put);
    _ = calls.put(map, std.mem.asBytes(&key), std.mem.asBytes(&value), 1, .none) catch |err|
        return worker.failed(.put, err);
    worker.end();
}

/// Two counters that are always the same, but where a holder died between them.
fn countUp(worker: *Worker, map: *Map, known: *MapOracle, recovered: bool) void {
    const acked = load(&known.counted.acked);
    const intent = load(&known.counted.intent);
    const first = readCounter(worker, map, first_counter);
    const second = readCounter(worker, map, second_counter);
    // One that died here left the first ahead of the second, and each that did meant to add one.
    const whole = first == acked and second == acked;
    const broken = acked <= second and second <= first and first <= intent;
    const excused = recovered or owed_before & (unknown | releasing) != 0;
    if (!whole and !(excused and broken))
        worker.violate(.counter_wrong, .{ acked, intent, first, second });
    const next = @max(first, second, intent) + 1;
    store(&known.counted.intent, next);
    putCounter(worker, map, first_counter, next);
    if (worker.chance(4)) linger(worker);
    putCounter(worker, map, second_counter, next);
    store(&known.counted.acked, next);
    worker.oracle.count(.checked_writes, 1);
}

const Vector = [oracles.slot_count + 1]u64;

fn sumOf(vector: *const Vector) u64 {
    var sum: u64 = 0x5bd1e995;
    for (vector[0..oracles.slot_count]) |n| sum = (sum ^ n) *% 0x9e3779b97f4a7c15;
    return sum;
}

/// Reads the vector; what it says of this slot must be what this slot knows. Gives the version.
fn readVector(worker: *Worker, map: *Map, known: *MapOracle, vector: *Vector) ?u64 {
    var acked: [oracles.slot_count]u64 = undefined;
    for (&acked, &known.added) |*n, *added| n.* = load(&added.acked);
    vector.* = @splat(0);
    worker.begin(.get);
    const value = calls.get(map, vector_key, std.mem.asBytes(vector), 0) catch |err| {
        worker.failed(.get, err);
        return null;
    };
    worker.end();
    if (value != null and vector[oracles.slot_count] != sumOf(vector)) {
        worker.violate(.torn_value, .{ 0, value.?.len, value.?.version, 1 });
        return null;
    }
    for (&acked, &known.added, vector[0..oracles.slot_count], 0..) |n, *added, is, slot| {
        const most = @max(load(&added.intent), load(&added.acked));
        if (is < n or is > most) worker.violate(.counter_wrong, .{ slot, n, most, is });
    }
    return if (value) |found| found.version else 0;
}

/// After a death: the addition under way was made or was not.
pub fn settleVector(worker: *Worker, map: *Map, known: *MapOracle) void {
    var vector: Vector = undefined;
    _ = readVector(worker, map, known, &vector) orelse return;
    const added = &known.added[worker.slot];
    store(&added.acked, vector[worker.slot]);
    store(&added.intent, vector[worker.slot]);
}

/// Adds one to this slot's place in a vector that all slots write, by compare-and-set.
pub fn add(worker: *Worker, map: *Map, known: *MapOracle) void {
    const added = &known.added[worker.slot];
    for (0..20) |_| {
        var vector: Vector = undefined;
        const version = readVector(worker, map, known, &vector) orelse return;
        const next = load(&added.acked) + 1;
        vector[worker.slot] = next;
        vector[oracles.slot_count] = sumOf(&vector);
        store(&added.intent, next);
        worker.begin(.put);
        const stored = calls.put(map, vector_key, std.mem.asBytes(&vector), 1, .{
            .version = version,
        }) catch |err| return worker.failed(.put, err);
        worker.end();
        store(if (stored) &added.acked else &added.intent, if (stored) next else next - 1);
        if (!stored) continue;
        worker.oracle.count(.checked_writes, 1);
        return;
    }
}

/// What is left to be seen at the end, when all workers are gone.
pub fn forget(worker: *Worker, map: *Map) void {
    for ([_][]const u8{
        std.mem.asBytes(&first_counter),
        std.mem.asBytes(&second_counter),
        vector_key,
    }) |key| _ = calls.delete(map, key) catch |err| worker.failed(.delete, err);
}
