//! One worker of the native storm: what all its work shares. It times every call, writes and checks
//! the keys of its slot, and reads those of others.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const oracles = @import("oracle.zig");

const linux = std.os.linux;
const load = oracles.load;
const store = oracles.store;
const Call = oracles.Call;
const Map = shmap.map.Map;
const Word = oracles.Word;

/// No worker that lives and runs waits longer.
const wait_ns_max = std.time.ns_per_s;
/// From here on it is looked into whose fault a wait was.
const slow_ns = 100 * std.time.ns_per_ms;
const sample_ns = 5 * std.time.ns_per_ms;
const max_bytes = 16 << 20;

/// Where the kernel says for how long this process waited for a processor.
pub fn openFigures() i32 {
    const flags: linux.O = .{ .CLOEXEC = true };
    return @intCast(@as(isize, @bitCast(linux.open("/proc/self/schedstat", flags, 0))));
}

pub const Worker = struct {
    oracle: *oracles.Oracle,
    slot: u64,
    incarnation: u64,
    parent: u32,
    random: std.Random,
    value: []u8,
    found: []u8,
    /// This process's scheduling figures, and what they said last.
    figures: i32,
    sampled_ns: u64 = 0,
    excused_ns: u64 = 0,

    pub fn mine(worker: *Worker) *oracles.Slot {
        return &worker.oracle.slots[worker.slot];
    }

    pub fn violate(worker: *Worker, kind: oracles.Kind, details: [4]u64) void {
        worker.oracle.violate(kind, worker.slot, details);
    }

    pub fn chance(worker: *Worker, one_in: u64) bool {
        return worker.random.uintLessThan(u64, one_in) == 0;
    }

    /// Notes what a call that must not fail ended with.
    pub fn failed(worker: *Worker, call: Call, err: anyerror) void {
        worker.end();
        var name: [16]u8 = @splat(' ');
        const text = @errorName(err);
        @memcpy(name[0..@min(name.len, text.len)], text[0..@min(name.len, text.len)]);
        const halves: [2]u64 = @bitCast(name);
        worker.violate(.call_failed, .{ @intFromEnum(call), 0, halves[0], halves[1] });
    }

    /// Call before a call into the library, `end` after it.
    pub fn begin(worker: *Worker, call: Call) void {
        const at = oracles.now();
        if (at - worker.sampled_ns > sample_ns) {
            worker.excused_ns = worker.excuses();
            worker.sampled_ns = at;
        }
        store(&worker.mine().call, @intFromEnum(call));
        store(&worker.mine().since_ns, at);
    }

    pub fn end(worker: *Worker) void {
        const slot = worker.mine();
        const since = load(&slot.since_ns);
        if (since == 0) return;
        store(&slot.since_ns, 0);
        var took = oracles.now() - since;
        if (took > slow_ns) took -|= worker.excuses() - worker.excused_ns;
        const longest = &worker.oracle.longest_ns[load(&slot.call)];
        _ = @atomicRmw(u64, longest, .Max, took, .monotonic);
        if (took > wait_ns_max)
            worker.violate(.waited_too_long, .{
                load(&slot.call), took / 1_000_000, shmap.os.realtimeNs() / 1_000_000, 0,
            });
    }

    /// Time that was not spent waiting for others' locks: in the run queue, stopped by the parent,
    /// and what the parent itself waited for a processor, for then so did those who hold locks.
    fn excuses(worker: *Worker) u64 {
        var text: [100]u8 = undefined;
        const len = linux.pread(worker.figures, &text, text.len, 0);
        if (linux.errno(len) != .SUCCESS) return 0;
        var words = std.mem.tokenizeAny(u8, text[0..len], " \n");
        _ = words.next();
        const queued = std.fmt.parseInt(u64, words.next() orelse "0", 10) catch 0;
        return queued + load(&worker.mine().stopped_ns) + load(&worker.oracle.starved_ns);
    }

    /// Opens a segment by its name. An error is the caller's to judge.
    pub fn open(
        worker: *Worker,
        name: []const u8,
        mode: shmap.directory.Mode,
        kind: ?shmap.layout.LockKind,
    ) !*Map {
        var options = optionsOf(kind);
        var fault: shmap.status.Fault = .{};
        const map = try shmap.testing.support.prepared(&fault, &options);
        errdefer calls.discard(map);
        worker.begin(if (mode == .exclusive) .replace else .open);
        defer worker.end();
        map.segment.directory = try shmap.directory.resolve(&map.fault, "");
        try shmap.directory.setName(&map.segment, name);
        try shmap.directory.open(&map.segment, mode, &options);
        map.begin();
        worker.oracle.count(.opened, 1);
        return map;
    }

    pub fn close(worker: *Worker, map: *Map) void {
        worker.begin(.close);
        shmap.testing.support.closeMap(map);
        worker.end();
    }

    /// Takes a name away without a handle. False: nothing had it.
    pub fn unlinkName(worker: *Worker, name: []const u8) !bool {
        var options = optionsOf(null);
        var fault: shmap.status.Fault = .{};
        const map = try shmap.testing.support.prepared(&fault, &options);
        defer calls.discard(map);
        worker.begin(.unlink);
        defer worker.end();
        return shmap.attach.unlinkName(map, "", name, &options);
    }

    fn optionsOf(kind: ?shmap.layout.LockKind) shmap.segment.Options {
        return .{
            .recover = shmap.attach.recoverSegment,
            .lock = kind,
            .stripe_bits = 2,
            .max_bytes = if (kind == null) 0 else max_bytes,
            .timeout_ms = 20_000,
        };
    }

    /// What is under a key. Null: nothing, or a violation that has been noted.
    pub fn read(worker: *Worker, map: *Map, key: u64) ?Word {
        var buffer: [64]u8 = undefined;
        worker.begin(.get);
        const value = calls.get(map, oracles.keyBytes(&buffer, key), worker.found, 0) catch |err| {
            if (err == error.Replaced) worker.end() else worker.failed(.get, err);
            return null;
        } orelse {
            worker.end();
            return null;
        };
        worker.end();
        worker.oracle.count(.reads, 1);
        return oracles.stateOf(worker.found[0..value.len], key) orelse {
            worker.violate(.torn_value, .{ key, value.len, value.version, 0 });
            return null;
        };
    }

    /// A state no key of this slot has had.
    pub fn fresh(worker: *Worker, len: ?usize) Word {
        const sequence = load(&worker.mine().next_sequence) + 1;
        store(&worker.mine().next_sequence, sequence);
        return .{
            .size = if (len) |bytes| @intCast(bytes + 1) else 0,
            .sequence = @intCast(sequence),
        };
    }

    /// Compares a key of this slot with what is known of it: what was acknowledged, or else the one
    /// write that was under way when a worker died. Then that is known, too.
    pub fn settle(
        worker: *Worker,
        map: *Map,
        key: u64,
        known: *oracles.Key,
        may_be_gone: bool,
    ) void {
        const actual = worker.read(map, key);
        const acked: Word = .of(load(&known.acked));
        const intent: Word = .of(load(&known.intent));
        if (same(actual, acked)) {
            worker.noteChecked(known);
        } else if (same(actual, intent) or (may_be_gone and actual == null)) {
            const state = actual orelse if (intent.size == 0) intent else worker.fresh(null);
            store(&known.acked, @bitCast(state));
        } else {
            const found: u64 = @bitCast(actual orelse Word{});
            worker.violate(.lost_write, .{ key, @bitCast(acked), @bitCast(intent), found });
        }
        store(&known.intent, load(&known.acked));
    }

    fn same(actual: ?Word, known: Word) bool {
        const word = actual orelse return known.size == 0;
        return word == known;
    }

    fn noteChecked(worker: *Worker, known: *oracles.Key) void {
        if (load(&known.checked) != 0) return;
        store(&known.checked, 1);
        worker.oracle.count(.checked_writes, 1);
    }

    /// Looks at a key of this slot, and gives it another state. Null: none.
    pub fn write(worker: *Worker, map: *Map, key: u64, known: *oracles.Key, len: ?usize) void {
        worker.settle(map, key, known, false);
        const before: Word = .of(load(&known.acked));
        const next = worker.fresh(len);
        var buffer: [64]u8 = undefined;
        const bytes = oracles.keyBytes(&buffer, key);
        store(&known.intent, @bitCast(next));
        if (len == null and worker.random.boolean()) {
            worker.begin(.take);
            const taken = calls.take(map, bytes, worker.found) catch |err|
                return worker.failed(.take, err);
            worker.end();
            worker.expectBefore(key, before, taken);
        } else if (len != null and worker.chance(4)) {
            const value = oracles.valueOf(worker.value, key, next);
            worker.begin(.swap);
            const old = calls.swap(map, bytes, value, 1, worker.found) catch |err|
                return worker.failed(.swap, err);
            worker.end();
            worker.expectBefore(key, before, old);
        } else if (len != null and before.size != 0 and worker.chance(3)) {
            const value = oracles.valueOf(worker.value, key, next);
            worker.begin(.put);
            const stored = calls.replace(map, bytes, value, 1, null) catch |err|
                return worker.failed(.put, err);
            worker.end();
            if (!stored) worker.violate(.wrong_answer, .{ key, 3, 0, 0 });
        } else if (len == null) {
            worker.begin(.delete);
            const was = calls.delete(map, bytes) catch |err| return worker.failed(.delete, err);
            worker.end();
            if (was != (before.size != 0)) worker.violate(.wrong_answer, .{ key, 1, 0, 0 });
        } else {
            const value = oracles.valueOf(worker.value, key, next);
            const condition: shmap.write.Condition =
                if (before.size == 0 and worker.random.boolean()) .absent else .none;
            worker.begin(.put);
            const stored = calls.put(map, bytes, value, 1, condition) catch |err|
                return worker.failed(.put, err);
            worker.end();
            if (!stored) worker.violate(.wrong_answer, .{ key, 2, 0, 0 });
        }
        store(&known.checked, 0);
        store(&known.acked, @bitCast(next));
    }

    /// What a take or a swap gave must be what was acknowledged.
    fn expectBefore(worker: *Worker, key: u64, before: Word, given: ?calls.Value) void {
        const found = given orelse {
            if (before.size != 0) worker.violate(.lost_write, .{ key, @bitCast(before), 0, 4 });
            return;
        };
        const word = oracles.stateOf(worker.found[0..found.len], key) orelse
            return worker.violate(.torn_value, .{ key, found.len, 0, 4 });
        if (word != before)
            worker.violate(.lost_write, .{ key, @bitCast(before), @bitCast(word), 4 });
    }

    /// Reads a key of any slot. Its writer notes what it does, so it is known what may be there.
    pub fn look(worker: *Worker, map: *Map, key: u64, known: *oracles.Key) void {
        const acked: Word = .of(load(&known.acked));
        const actual = worker.read(map, key);
        const intent: Word = .of(load(&known.intent));
        const acked_after: Word = .of(load(&known.acked));
        if (actual) |word| {
            const last = @max(intent.sequence, acked_after.sequence);
            if (word.sequence >= acked.sequence and word.sequence <= last) return;
            worker.violate(.stale_read, .{
                key, @bitCast(acked), @bitCast(intent), @bitCast(word),
            });
        } else if (acked.size != 0 and intent.size != 0 and acked == acked_after) {
            worker.violate(.lost_write, .{ key, @bitCast(acked), @bitCast(intent), 0 });
        }
    }

    pub fn length(worker: *Worker) usize {
        const dice = worker.random.uintLessThan(u32, 100);
        if (dice < 70) return 16 + worker.random.uintLessThan(usize, 200);
        if (dice < 92) return 16 + worker.random.uintLessThan(usize, 4000);
        return 4000 + worker.random.uintLessThan(usize, oracles.value_bytes_max - 4000);
    }
};
