//! The processes whose histories are checked: random operations on few keys, each noted before and
//! after, and a process that kills and stops them meanwhile.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const check = @import("check.zig");
const crowd = @import("../crowd.zig");
const values = @import("values.zig");

const idOf = values.idOf;
const keyOf = values.keyOf;
const torn = values.torn;
const value_bytes_max = values.value_bytes_max;
const valueOf = values.valueOf;
const KeyBytes = values.KeyBytes;
const Map = shmap.map.Map;
const Record = check.Record;
const linux = std.os.linux;

pub const workers_max = 6;
/// The parent's own reads at the end come last.
pub const slots = workers_max + 1;
const records_max = 16 * 1024;
/// Keys that have numbers; their numbers in the records follow those of the other keys.
const counters = 2;
/// What a call may take: far longer than a process is ever stopped.
const timeout_ms = 20_000;
const round_ns_max = 90 * std.time.ns_per_s;

/// How one round is set up.
pub const Setting = struct {
    lock: shmap.layout.LockKind,
    stripe_bits: u6,
    keys: u32,
    workers: u8,
    /// The parent keeps a handle that only reads: when all workers are gone, the next one that
    /// attaches is the only writer, and recovers everything.
    parent_reads: bool,
    operations: u32,
    seed: u64,
};

/// One worker's notes, in memory that outlives it.
const Log = struct {
    count: u64,
    dying_at: u64,
    records: [records_max]Record,
};

pub const Logs = [slots]Log;

/// One process and its handle.
const Worker = struct {
    map: *Map,
    log: *Log,
    slot: u8,
    setting: *const Setting,
    random: std.Random,
    delays: *crowd.Delays,
    last_ns: u64 = 0,
    value: [value_bytes_max]u8 = undefined,
    seen: [value_bytes_max + 1]u8 = undefined,
    key: KeyBytes = undefined,

    /// Later than any time noted before.
    fn now(worker: *Worker) u64 {
        while (true) {
            const time = crowd.now();
            if (time == worker.last_ns) continue;
            worker.last_ns = time;
            return time;
        }
    }

    /// Notes calls that come now; they count from here on.
    fn called(worker: *Worker, records: []const Record) []Record {
        const at = worker.log.count;
        const noted = worker.log.records[at..][0..records.len];
        @memcpy(noted, records);
        worker.delays.arm();
        const time = worker.now();
        for (noted) |*record| {
            record.slot = worker.slot;
            record.call = time;
        }
        @atomicStore(u64, &worker.log.count, at + records.len, .release);
        return noted;
    }

    /// Notes that they returned. The time last: with it the rest counts.
    fn returned(worker: *Worker, records: []Record) void {
        const time = worker.now();
        for (records) |*record| @atomicStore(u64, &record.ret, time, .release);
    }

    fn nextId(worker: *const Worker, ahead: u64) u64 {
        return @as(u64, worker.slot + 1) << 32 | (worker.log.count + ahead + 1);
    }

    fn anyKey(worker: *Worker) u32 {
        // Half of them on two keys, however many there are.
        if (worker.random.boolean()) return worker.random.uintLessThan(u32, 2);
        return worker.random.uintLessThan(u32, worker.setting.keys);
    }

    fn get(worker: *Worker, n: u32) !*Record {
        const key = keyOf(n, &worker.key);
        const record = worker.called(&.{.{ .kind = .get, .key = n }});
        if (try calls.get(worker.map, key, &worker.seen, 0)) |value| {
            const whole = value.len <= value_bytes_max;
            record[0].found = if (whole) idOf(worker.seen[0..value.len]) else torn;
            record[0].version = value.version;
        }
        worker.returned(record);
        return &record[0];
    }

    fn put(worker: *Worker, n: u32, kind: check.Kind, old: u64, version: u64) !void {
        const key = keyOf(n, &worker.key);
        const id = worker.nextId(0);
        const value = valueOf(id, &worker.value);
        const record = worker.called(&.{.{ .kind = kind, .key = n, .value = id, .found = old }});
        record[0].ok = try calls.put(worker.map, key, value, 1, switch (kind) {
            .put => .none,
            .add => .absent,
            .replace => .present,
            else => .{ .version = version },
        });
        worker.returned(record);
    }

    fn delete(worker: *Worker, n: u32) !void {
        const key = keyOf(n, &worker.key);
        const record = worker.called(&.{.{ .kind = .delete, .key = n }});
        record[0].ok = try calls.delete(worker.map, key);
        worker.returned(record);
    }

    fn take(worker: *Worker, n: u32) !void {
        const key = keyOf(n, &worker.key);
        const record = worker.called(&.{.{ .kind = .take, .key = n }});
        record[0].found = worker.idIn(try calls.take(worker.map, key, &worker.seen));
        worker.returned(record);
    }

    fn swap(worker: *Worker, n: u32) !void {
        const key = keyOf(n, &worker.key);
        const id = worker.nextId(0);
        const value = valueOf(id, &worker.value);
        const record = worker.called(&.{.{ .kind = .swap, .key = n, .value = id }});
        record[0].found = worker.idIn(try calls.swap(worker.map, key, value, 1, &worker.seen));
        worker.returned(record);
    }

    /// Which value lies in `seen`.
    fn idIn(worker: *const Worker, value: ?calls.Value) u64 {
        const found = value orelse return 0;
        return if (found.len < worker.seen.len) idOf(worker.seen[0..found.len]) else torn;
    }

    /// One of the keys that have numbers: one more, or what is there is taken, or only read.
    fn countOn(worker: *Worker) !void {
        const n = worker.setting.keys + worker.random.uintLessThan(u32, counters);
        var buffer: KeyBytes = undefined;
        const key = std.fmt.bufPrint(&buffer, "count {d}", .{n - worker.setting.keys}) catch
            unreachable; // it has room for any
        const kind: check.Kind = switch (worker.random.uintLessThan(u8, 20)) {
            0 => .take,
            1...5 => .get,
            else => .count,
        };
        const record = worker.called(&.{.{ .kind = kind, .key = n }});
        record[0].found = switch (kind) {
            .count => blk: {
                var counted: shmap.count.Counted = undefined;
                const outcome = try calls.increment(worker.map, key, 1, 0, &counted);
                if (outcome != .counted) return error.NotCounted;
                break :blk @intFromFloat(counted.value);
            },
            .get => worker.numberIn(try calls.getValue(worker.map, key, &worker.seen)),
            else => worker.numberIn(try calls.take(worker.map, key, &worker.seen)),
        };
        worker.returned(record);
    }

    fn numberIn(worker: *const Worker, value: ?calls.Value) u64 {
        const found = value orelse return 0;
        if (found.len != 8) return torn;
        const number: f64 = @bitCast(worker.seen[0..8].*);
        return if (number >= 0 and number < 1 << 53) @intFromFloat(number) else torn;
    }

    /// What `update` does: reads, and stores if that is still there.
    fn update(worker: *Worker, n: u32) !void {
        const before = try worker.get(n);
        if (worker.random.uintLessThan(u8, 4) == 0) worker.delays.wait();
        try worker.put(n, .exchange, before.found, before.version);
    }

    fn clear(worker: *Worker) !void {
        const record = worker.called(&.{.{ .kind = .clear }});
        try calls.clear(worker.map);
        record[0].ok = true;
        worker.returned(record);
    }

    /// Different keys, one after the other, in one call.
    fn putMany(worker: *Worker) !void {
        const count = worker.random.intRangeAtMost(u32, 2, @min(4, worker.setting.keys));
        const first = worker.random.uintLessThan(u32, worker.setting.keys);
        var records: [4]Record = undefined;
        var bytes: [4 * (value_bytes_max + 64)]u8 align(8) = undefined;
        var len: usize = 0;
        for (records[0..count], 0..) |*record, i| {
            const n: u32 = @intCast((first + i) % worker.setting.keys);
            const id = worker.nextId(i);
            record.* = .{ .kind = .put, .key = n, .value = id, .ok = true };
            const key = keyOf(n, &worker.key);
            const value = valueOf(id, &worker.value);
            const head: shmap.gathered.Record = .{
                .key_len = @intCast(key.len),
                .value_len = @intCast(value.len),
                .kind = 1,
            };
            for ([_][]const u8{ std.mem.asBytes(&head), key, value }) |part| {
                @memcpy(bytes[len..][0..part.len], part);
                len += part.len;
            }
            len = std.mem.alignForward(usize, len, 8);
        }
        const noted = worker.called(records[0..count]);
        var stored: u32 = 0;
        try calls.putMany(worker.map, bytes[0..len], count, &stored);
        worker.returned(noted);
    }

    /// A snapshot, or one stripe: a read of every key it covers, absent ones too.
    fn look(worker: *Worker) !void {
        worker.delays.arm();
        const call = worker.now();
        const len = try calls.snapshot(worker.map);
        const ret = worker.now();
        var records: [16]Record = undefined;
        for (records[0..worker.setting.keys], 0..) |*record, n| {
            record.* = .{ .kind = .get, .key = @intCast(n), .slot = worker.slot };
            record.call = call;
            record.ret = ret;
        }
        var at: usize = 0;
        const bytes = worker.map.gathered[0..len];
        while (at < len) {
            const head = std.mem.bytesToValue(shmap.gathered.Record, bytes[at..][0..16]);
            const key = bytes[at + 16 ..][0..head.key_len];
            if (key[0] == 'c') { // a counter: its readers are those of `count`
                at += 16 + std.mem.alignForward(usize, head.key_len + head.value_len, 8);
                continue;
            }
            const n = std.fmt.parseInt(u32, key["key ".len..], 10) catch return error.Corrupt;
            const id = idOf(bytes[at + 16 + head.key_len ..][0..head.value_len]);
            records[n].found = if (records[n].found == 0) id else torn; // the same key twice
            at += 16 + std.mem.alignForward(usize, head.key_len + head.value_len, 8);
        }
        const from = worker.log.count;
        const count = worker.setting.keys;
        @memcpy(worker.log.records[from..][0..count], records[0..count]);
        @atomicStore(u64, &worker.log.count, from + count, .release);
    }

    fn underLock(worker: *Worker) !void {
        const locked = worker.called(&.{.{ .kind = .lock }});
        const told = try calls.acquire(worker.map, timeout_ms);
        locked[0].found = @intFromBool(told);
        locked[0].ok = true;
        worker.returned(locked);
        const n = worker.anyKey();
        for (0..worker.random.intRangeAtMost(u32, 1, 4)) |_| {
            const before = try worker.get(n);
            if (worker.random.boolean()) worker.delays.wait();
            switch (worker.random.uintLessThan(u8, 4)) {
                0 => try worker.put(n, .put, 0, 0),
                1 => try worker.put(n, .exchange, before.found, before.version),
                2 => try worker.delete(n),
                else => _ = try worker.get(worker.anyKey()),
            }
        }
        const unlocked = worker.called(&.{.{ .kind = .unlock }});
        calls.release(worker.map, false);
        worker.returned(unlocked);
    }

    fn act(worker: *Worker) !void {
        const few = worker.setting.keys <= 16;
        switch (worker.random.uintLessThan(u16, 1000)) {
            0...239 => _ = try worker.get(worker.anyKey()),
            240...299 => try worker.countOn(),
            300...334 => try worker.take(worker.anyKey()),
            335...369 => try worker.swap(worker.anyKey()),
            370...404 => try worker.put(worker.anyKey(), .replace, 0, 0),
            405...619 => try worker.put(worker.anyKey(), .put, 0, 0),
            620...719 => try worker.put(worker.anyKey(), .add, 0, 0),
            720...829 => try worker.delete(worker.anyKey()),
            830...934 => try worker.update(worker.anyKey()),
            935...969 => try worker.putMany(),
            970...984 => try worker.underLock(),
            985...994 => if (few) try worker.look(),
            995...996 => try worker.clear(),
            else => std.Thread.yield() catch {},
        }
    }
};

/// What a child needs to know.
const Task = struct {
    token: []const u8,
    setting: *const Setting,
    log: *Log,
    slot: u8,
    quota: u64,
    seed: u64,
};

fn work(task: Task) u8 {
    const map = crowd.attach(task.token, false, timeout_ms) catch |err|
        return failed(task.log, err);
    var prng = std.Random.DefaultPrng.init(task.seed);
    var other = std.Random.DefaultPrng.init(~task.seed);
    var delays: crowd.Delays = .{
        .every = 40,
        .deadly = 40,
        // Most operations make some ten stores, those with large values hundreds.
        .span = 9,
        .dying_at = &task.log.dying_at,
        .random = other.random(),
    };
    delays.start();
    var worker: Worker = .{
        .map = map,
        .log = task.log,
        .slot = task.slot,
        .setting = task.setting,
        .random = prng.random(),
        .delays = &delays,
    };
    while (task.log.count < task.quota) worker.act() catch |err| return failed(task.log, err);
    return 0;
}

fn failed(log: *Log, err: anyerror) u8 {
    std.debug.print("operation {d}: {t}\n", .{ log.count, err });
    return 1;
}

/// What came of a round.
pub const Outcome = struct {
    operations: u64 = 0,
    kills: u64 = 0,
    stops: u64 = 0,
    found: u64 = 0,
    widest: usize = 0,
};

const Round = struct {
    gpa: std.mem.Allocator,
    setting: *const Setting,
    logs: *Logs,
    map: *Map,
    token: []const u8,
    random: std.Random,
    pids: [workers_max]linux.pid_t = @splat(0),
    killed_at: [workers_max]u64 = @splat(0),
    stopped: [workers_max]bool = @splat(false),
    kills: std.ArrayList(check.Kill) = .empty,
    outcome: Outcome = .{},

    fn startWorker(round: *Round, slot: u8) !void {
        const quota = @min(round.setting.operations / round.setting.workers, records_max - 64);
        const log = &round.logs[slot];
        log.dying_at = 0;
        round.killed_at[slot] = 0;
        round.stopped[slot] = false;
        round.pids[slot] = try crowd.spawn(round.map, Task{
            .token = round.token,
            .setting = round.setting,
            .log = log,
            .slot = slot,
            .quota = quota,
            .seed = round.random.int(u64),
        }, work);
    }

    fn kill(round: *Round, slot: u8) void {
        if (round.killed_at[slot] == 0) round.killed_at[slot] = crowd.now();
        crowd.signal(round.pids[slot], .KILL);
    }

    /// Notes an end; a killed worker's last operations get the time by which it was gone.
    fn reap(round: *Round, slot: u8, wait: bool) !bool {
        const end = crowd.ended(round.pids[slot], wait) orelse return false;
        const died = crowd.now();
        round.pids[slot] = 0;
        const log = &round.logs[slot];
        switch (end) {
            .code => |code| {
                if (code != 0) round.outcome.found += 1;
                return true;
            },
            .signal => |number| if (number != @intFromEnum(linux.SIG.KILL)) {
                std.debug.print("process {d} ended by signal {d}\n", .{ slot, number });
                round.outcome.found += 1;
            },
        }
        var at = log.count;
        while (at > 0) : (at -= 1) {
            const record = &log.records[at - 1];
            if (record.ret != 0 or record.died != 0) break;
            record.died = died;
        }
        var killed_at = if (round.killed_at[slot] == 0) died else round.killed_at[slot];
        if (log.dying_at != 0 and log.dying_at < killed_at)
            killed_at = log.dying_at;
        // A signal takes a while to arrive: one that noted something after it was still there, and
        // kept what it held.
        if (log.count > 0) {
            const last = &log.records[log.count - 1];
            killed_at = @max(killed_at, @max(last.call, last.ret) + 1);
        }
        try round.kills.append(round.gpa, .{
            .slot = slot,
            .at = killed_at,
            .died = died,
        });
        round.outcome.kills += 1;
        try round.startWorker(slot);
        return true;
    }

    fn disturb(round: *Round) !void {
        const slot = round.random.uintLessThan(u8, round.setting.workers);
        if (round.pids[slot] == 0) return;
        if (round.stopped[slot]) {
            round.stopped[slot] = false;
            return crowd.signal(round.pids[slot], .CONT);
        }
        switch (round.random.uintLessThan(u8, 100)) {
            0...39 => round.kill(slot),
            40...59 => {
                crowd.signal(round.pids[slot], .STOP);
                round.stopped[slot] = true;
                round.outcome.stops += 1;
            },
            60...63 => {
                for (round.pids, 0..) |pid, i| if (pid != 0) round.kill(@intCast(i));
                // All of them gone before the first is back.
                const pids = round.pids;
                for (pids) |pid| if (pid != 0) waitUntilGone(pid);
            },
            else => {},
        }
    }

    /// Waits without reaping: that is done where the end is noted.
    fn waitUntilGone(pid: linux.pid_t) void {
        var info: linux.siginfo_t = undefined;
        _ = linux.waitid(.PID, pid, &info, linux.W.EXITED | linux.W.NOWAIT, null);
    }

    fn run(round: *Round) !void {
        defer round.kills.deinit(round.gpa);
        for (0..round.setting.workers) |slot| try round.startWorker(@intCast(slot));
        errdefer round.endAll();
        const deadline = crowd.now() + round_ns_max;
        while (true) {
            var alive = false;
            for (0..round.setting.workers) |i| {
                const slot: u8 = @intCast(i);
                if (round.pids[slot] == 0) continue;
                alive = true;
                _ = try round.reap(slot, false);
            }
            if (!alive) break;
            if (crowd.now() > deadline) return error.TookTooLong;
            shmap.os.sleepNs(round.random.uintLessThan(u64, 2_000_000));
            try round.disturb();
        }
        try round.readAll();
        try round.judge();
    }

    fn endAll(round: *Round) void {
        for (&round.pids) |*pid| {
            if (pid.* == 0) continue;
            crowd.signal(pid.*, .KILL);
            _ = crowd.ended(pid.*, true);
            pid.* = 0;
        }
    }

    /// What is there at the end belongs to the history.
    fn readAll(round: *Round) !void {
        const log = &round.logs[workers_max];
        var none: u64 = 0;
        var delays: crowd.Delays = .{
            .every = std.math.maxInt(u32),
            .deadly = 0,
            .span = 0,
            .dying_at = &none,
            .random = round.random,
        };
        var reader: Worker = .{
            .map = round.map,
            .log = log,
            .slot = workers_max,
            .setting = round.setting,
            .random = round.random,
            .delays = &delays,
        };
        for (0..round.setting.keys) |n| _ = try reader.get(@intCast(n));
        const other = try crowd.attach(round.token, false, timeout_ms);
        defer shmap.testing.support.closeMap(other);
        shmap.testing.support.expectSound(other) catch {
            round.outcome.found += 1;
        };
    }

    fn judge(round: *Round) !void {
        var records: std.ArrayList(Record) = .empty;
        defer records.deinit(round.gpa);
        for (round.logs) |*log| try records.appendSlice(round.gpa, log.records[0..log.count]);
        var checker: check.Checker =
            try .init(round.gpa, records.items, round.kills.items, round.setting.keys + counters);
        defer checker.deinit();
        round.outcome.found += try checker.run();
        round.outcome.widest = checker.widest;
        round.outcome.found += try sameVersions(round.gpa, records.items);
        round.outcome.operations += countOf(records.items);
    }

    /// A snapshot is one operation, however many keys it reads.
    fn countOf(records: []const Record) u64 {
        var count: u64 = 0;
        for (records, 0..) |*record, i| {
            const again = i > 0 and records[i - 1].call == record.call and
                records[i - 1].slot == record.slot;
            count += @intFromBool(!again);
        }
        return count;
    }

    /// A value has one version, and no other value of any key in its stripe has the same: `update`
    /// relies on it. Here: no other of the same key.
    fn sameVersions(gpa: std.mem.Allocator, records: []const Record) !u64 {
        var ids: std.AutoHashMapUnmanaged([2]u64, u64) = .empty;
        defer ids.deinit(gpa);
        var found: u64 = 0;
        for (records) |*record| {
            if (record.kind != .get or record.found == 0 or record.version == 0) continue;
            const entry = try ids.getOrPut(gpa, .{ record.key, record.version });
            if (entry.found_existing and entry.value_ptr.* != record.found) {
                found += 1;
                std.debug.print("key {d}: version {d} of {x} and of {x}\n", .{
                    record.key,
                    record.version,
                    entry.value_ptr.*,
                    record.found,
                });
            }
            entry.value_ptr.* = record.found;
        }
        return found;
    }
};

/// One history, from an empty map to the verdict.
pub fn play(gpa: std.mem.Allocator, logs: *Logs, setting: *const Setting) !Outcome {
    for (logs) |*log| {
        @memset(log.records[0..log.count], .{});
        log.count = 0;
    }
    const made = try shmap.testing.support.openMapOf(setting.lock, setting.stripe_bits, 64 << 20);
    var map = made;
    var buffer: [200]u8 = undefined;
    if (setting.parent_reads) {
        defer shmap.testing.support.closeMap(made);
        map = try crowd.attach(buffer[0..try made.segment.token(&buffer)], true, timeout_ms);
    }
    defer shmap.testing.support.closeMap(map);
    var prng = std.Random.DefaultPrng.init(setting.seed);
    var round: Round = .{
        .gpa = gpa,
        .setting = setting,
        .logs = logs,
        .map = map,
        .token = buffer[0..try map.segment.token(&buffer)],
        .random = prng.random(),
    };
    try round.run();
    return round.outcome;
}
