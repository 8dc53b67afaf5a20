//! Entries of the native storm that end. Their writer notes which end it gives, and the clock of
//! ends is read before and behind each call: an entry that is there had an end beyond the first
//! reading, and one that is not had none beyond the second.

const shmap = @import("shmap");
const oracles = @import("oracle.zig");

const calls = shmap.testing.calls;
const load = oracles.load;
const store = oracles.store;
const Ending = oracles.Ending;
const Map = shmap.map.Map;
const MapOracle = oracles.MapOracle;
const Word = oracles.Word;
const Worker = @import("worker.zig").Worker;

/// Beyond the keys without an end.
const first_key = 0x8000;
const longest_ms = 60;

fn keyAt(worker: *const Worker, index: u64) u64 {
    return oracles.keyOf(worker.slot, first_key + index);
}

fn clock() u64 {
    return shmap.os.endClockMs();
}

/// Looks at each of this slot's keys, or at those that a death left in doubt.
pub fn settleAll(worker: *Worker, map: *Map, known: *MapOracle, all: bool) void {
    for (&known.ends[worker.slot], 0..) |*ending, i| {
        const doubtful = load(&ending.key.acked) != load(&ending.key.intent) or
            load(&ending.acked_end) != load(&ending.intent_end);
        if (all or doubtful) settle(worker, map, keyAt(worker, i), ending);
    }
}

/// Compares what is there with what was acknowledged, or else with the one call that was under way
/// when a worker died. Then that is known, too.
fn settle(worker: *Worker, map: *Map, key: u64, ending: *Ending) void {
    var buffer: [64]u8 = undefined;
    const before_ms = clock();
    worker.begin(.get);
    const found = calls.getEntry(map, oracles.keyBytes(&buffer, key), worker.found) catch |err|
        return worker.failed(.get, err);
    worker.end();
    const after_ms = clock();
    const acked: Word = .of(load(&ending.key.acked));
    const intent: Word = .of(load(&ending.key.intent));
    const acked_end = load(&ending.acked_end);
    const intent_end = load(&ending.intent_end);
    const entry = found orelse {
        if (!isOver(acked, acked_end, after_ms) and !isOver(intent, intent_end, after_ms))
            worker.violate(.lost_write, .{ key, @bitCast(acked), acked_end, after_ms });
        return note(ending, .{}, 0);
    };
    const word = oracles.stateOf(worker.found[0..entry.len], key) orelse
        return worker.violate(.torn_value, .{ key, entry.len, entry.version, 5 });
    const is_known = word == acked and entry.expires == acked_end or
        word == intent and entry.expires == intent_end;
    if (!is_known or entry.expires <= before_ms)
        worker.violate(.stale_read, .{ key, @bitCast(word), entry.expires, before_ms });
    note(ending, word, entry.expires);
}

fn isOver(word: Word, end: u64, now_ms: u64) bool {
    return word.size == 0 or end <= now_ms;
}

fn note(ending: *Ending, word: Word, end: u64) void {
    intend(ending, word, end);
    acknowledge(ending, word, end);
}

fn intend(ending: *Ending, word: Word, end: u64) void {
    store(&ending.intent_end, end);
    store(&ending.key.intent, @bitCast(word));
}

fn acknowledge(ending: *Ending, word: Word, end: u64) void {
    store(&ending.acked_end, end);
    store(&ending.key.acked, @bitCast(word));
}

/// Stores, adds, touches or deletes one of this slot's keys, or has what has ended removed.
pub fn operate(worker: *Worker, map: *Map, known: *MapOracle) void {
    if (worker.chance(50)) {
        worker.begin(.delete);
        _ = calls.prune(map) catch |err| return worker.failed(.delete, err);
        return worker.end();
    }
    const index = worker.random.uintLessThan(u64, oracles.ending_count);
    const key = keyAt(worker, index);
    const ending = &known.ends[worker.slot][index];
    settle(worker, map, key, ending);
    const end = clock() + 1 + worker.random.uintLessThan(u64, longest_ms);
    switch (worker.random.uintLessThan(u32, 10)) {
        0...3 => put(worker, map, key, ending, end, .none),
        4...5 => put(worker, map, key, ending, end, .absent),
        6...8 => change(worker, map, key, ending, end),
        else => change(worker, map, key, ending, null),
    }
}

fn put(
    worker: *Worker,
    map: *Map,
    key: u64,
    ending: *Ending,
    end: u64,
    condition: shmap.write.Condition,
) void {
    var buffer: [64]u8 = undefined;
    const acked: Word = .of(load(&ending.key.acked));
    const acked_end = load(&ending.acked_end);
    const next = worker.fresh(16 + worker.random.uintLessThan(usize, 100));
    const value = oracles.valueOf(worker.value, key, next);
    intend(ending, next, end);
    const before_ms = clock();
    worker.begin(.put);
    const bytes = oracles.keyBytes(&buffer, key);
    const stored = calls.putUntil(map, bytes, value, 1, condition, end) catch |err|
        return worker.failed(.put, err);
    worker.end();
    if (stored) {
        acknowledge(ending, next, end);
        if (condition == .absent and !isOver(acked, acked_end, clock()))
            worker.violate(.wrong_answer, .{ key, 5, acked_end, before_ms });
        return;
    }
    intend(ending, acked, acked_end);
    if (condition == .none or isOver(acked, acked_end, before_ms))
        worker.violate(.wrong_answer, .{ key, 6, acked_end, before_ms });
}

/// Gives an entry another end, or deletes it; either says whether it was there.
fn change(worker: *Worker, map: *Map, key: u64, ending: *Ending, end: ?u64) void {
    var buffer: [64]u8 = undefined;
    const bytes = oracles.keyBytes(&buffer, key);
    const acked: Word = .of(load(&ending.key.acked));
    const acked_end = load(&ending.acked_end);
    if (end) |ms| intend(ending, acked, ms) else intend(ending, .{}, 0);
    const before_ms = clock();
    worker.begin(if (end == null) .delete else .put);
    const result = if (end) |ms| calls.touch(map, bytes, ms) else calls.delete(map, bytes);
    const was = result catch |err| return worker.failed(.delete, err);
    worker.end();
    const is_right = if (was)
        !isOver(acked, acked_end, before_ms)
    else
        isOver(acked, acked_end, clock());
    if (!is_right) worker.violate(.wrong_answer, .{ key, 7, acked_end, before_ms });
    if (was and end != null) acknowledge(ending, acked, end.?) else note(ending, .{}, 0);
}

/// When all workers are gone: looks at every key of this slot and deletes it, ended or not.
pub fn finish(worker: *Worker, map: *Map, known: *MapOracle) void {
    settleAll(worker, map, known, true);
    for (&known.ends[worker.slot], 0..) |*ending, i|
        change(worker, map, keyAt(worker, i), ending, null);
}
