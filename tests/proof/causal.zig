//! Two writers in chains of cause and effect, and processes that take snapshots beside them.
//!
//! A variable is a key whose number only grows. Causes are written by one process; the other reads
//! them and writes what it read to their effects. So no snapshot may show an effect that is ahead
//! of its cause, whichever of the two lies in the stripe that is copied first. Two more variables
//! grow independently; a reader notes in which order it saw them, and no snapshot may contradict
//! it. All processes are killed, restarted and stopped at random moments, also inside an operation.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const crowd = @import("crowd.zig");

const Map = shmap.map.Map;
const linux = std.os.linux;

const stripe_bits = 2;
/// How long a snapshot may wait for the stripe of a stopped writer before it gives up.
const timeout_ms = 250;
/// Far longer than that: then it hangs.
const hang_ns = 10 * std.time.ns_per_s;

/// Each in a stripe of its own choice, and who writes it from which cause.
const Variable = struct { stripe: u32, writer: u1, cause: ?usize = null };

const variables = [_]Variable{
    .{ .stripe = 0, .writer = 0 },
    .{ .stripe = 3, .writer = 1, .cause = 0 },
    .{ .stripe = 3, .writer = 0 },
    .{ .stripe = 0, .writer = 1, .cause = 2 },
    .{ .stripe = 2, .writer = 0 },
    .{ .stripe = 0, .writer = 1, .cause = 4 },
    .{ .stripe = 3, .writer = 0, .cause = 5 },
    .{ .stripe = 1, .writer = 1, .cause = 6 },
    .{ .stripe = 0, .writer = 0 },
    .{ .stripe = 3, .writer = 1 },
};
/// The independent ones.
const pair = [2]usize{ 8, 9 };

const Numbers = [variables.len]u64;

const writers = 2;
/// One snapshots with a handle that may write, one with a handle that may not.
const takers = 2;
const processes = writers + takers + 1;
const reader = writers + takers;

/// Two numbers seen one after the other, or at once.
const Sightings = struct {
    count: u64,
    all: [1 << 16][2]u64,

    fn add(sightings: *Sightings, numbers: [2]u64) void {
        const at = sightings.count;
        if (at == sightings.all.len) return;
        if (at > 0 and std.mem.eql(u64, &sightings.all[at - 1], &numbers)) return;
        sightings.all[at] = numbers;
        @atomicStore(u64, &sightings.count, at + 1, .release);
    }

    fn seen(sightings: *const Sightings) []const [2]u64 {
        return sightings.all[0..sightings.count];
    }
};

/// What all processes of a round share.
pub const Board = struct {
    halt: u64,
    found: u64,
    taken: [takers]u64,
    timeouts: [takers]u64,
    writes: [writers]u64,
    reads: u64,
    dying_at: [processes]u64,
    keys: [variables.len][8]u8,
    /// The first of the pair and then the second; or the second and then the first.
    ordered: [2]Sightings,
    shown: [takers]Sightings,

    fn isOver(board: *const Board) bool {
        return @atomicLoad(u64, &board.halt, .acquire) != 0;
    }

    fn violation(board: *Board, comptime format: []const u8, parts: anytype) void {
        const before = @atomicRmw(u64, &board.found, .Add, 1, .monotonic);
        if (before < 10) std.debug.print("causal: " ++ format ++ "\n", parts);
    }
};

/// A number as a value: so often that a torn one shows.
const Value = struct {
    words: [24]u64,
    len: usize,

    fn of(number: u64) Value {
        return .{ .words = @splat(number), .len = 1 + number % 24 };
    }

    fn bytes(value: *const Value) []const u8 {
        return std.mem.sliceAsBytes(value.words[0..value.len]);
    }

    fn read(from: []const u8) ?u64 {
        if (from.len < 8) return null;
        const number = std.mem.readInt(u64, from[0..8], .little);
        return if (std.mem.eql(u8, Value.of(number).bytes(), from)) number else null;
    }
};

const Process = struct {
    board: *Board,
    map: *Map,
    index: usize,
    random: std.Random,
    delays: *crowd.Delays,

    fn get(process: *Process, variable: usize) !u64 {
        var buffer: [256]u8 = undefined;
        const value = try calls.get(process.map, &process.board.keys[variable], &buffer, 0) orelse
            return error.Gone;
        if (value.len > buffer.len) return error.Torn;
        return Value.read(buffer[0..value.len]) orelse error.Torn;
    }

    fn write(process: *Process) !void {
        const variable = if (process.random.boolean())
            pair[process.index]
        else
            process.random.uintLessThan(usize, variables.len);
        if (variables[variable].writer != process.index) return;
        const number = if (variables[variable].cause) |cause|
            try process.get(cause)
        else
            try process.get(variable) + 1;
        const value: Value = .of(number);
        process.delays.arm();
        const key = &process.board.keys[variable];
        _ = calls.put(process.map, key, value.bytes(), 1, .none) catch |err| {
            // A writer was stopped inside that stripe: the next attempt is another.
            if (err == error.Timeout) return;
            return err;
        };
        process.board.writes[process.index] += 1;
        // A snapshot misses what was published beside it only while nothing else begins.
        if (process.random.boolean()) process.delays.wait();
    }

    /// Effects first: a reader that has seen one sees its cause, too.
    fn read(process: *Process) !void {
        for (variables, 0..) |variable, effect| {
            const cause = variable.cause orelse continue;
            const later = try process.get(effect);
            const sooner = try process.get(cause);
            if (later > sooner)
                process.board.violation("a reader saw {d} and then {d}", .{ later, sooner });
        }
        for (0..60) |i| {
            const way = i % 2;
            const first = try process.get(pair[way]);
            const second = try process.get(pair[1 - way]);
            process.board.ordered[way].add(.{ first, second });
        }
        process.board.reads += 1;
    }

    fn readAll(process: *Process) !Numbers {
        var numbers: Numbers = undefined;
        for (&numbers, 0..) |*number, i| number.* = try process.get(i);
        return numbers;
    }

    fn take(process: *Process, last: *Numbers) !void {
        const board = process.board;
        const taker = process.index - writers;
        const before = try process.readAll();
        process.delays.arm();
        const len = calls.snapshot(process.map) catch |err| {
            if (err != error.Timeout) return err;
            board.timeouts[taker] += 1;
            return;
        };
        const shown = try numbersIn(board, process.map.gathered[0..len]);
        const after = try process.readAll();
        for (shown, 0..) |number, i| {
            if (number < before[i] or number > after[i])
                board.violation("variable {d}: {d} before, {d} shown, {d} after", .{
                    i, before[i], number, after[i],
                });
            if (number < last[i])
                board.violation("variable {d} went back from {d} to {d}", .{ i, last[i], number });
            const cause = variables[i].cause orelse continue;
            if (number > shown[cause])
                board.violation("variable {d} is {d}, its cause {d}", .{
                    i, number, shown[cause],
                });
        }
        board.shown[taker].add(.{ shown[pair[0]], shown[pair[1]] });
        last.* = shown;
        _ = @atomicRmw(u64, &board.taken[taker], .Add, 1, .release);
    }

    fn numbersIn(board: *Board, bytes: []const u8) !Numbers {
        var numbers: Numbers = @splat(0);
        var at: usize = 0;
        while (at < bytes.len) {
            const head = std.mem.bytesToValue(shmap.gathered.Record, bytes[at..][0..16]);
            const body = bytes[at + 16 ..][0 .. head.key_len + head.value_len];
            for (&numbers, &board.keys) |*number, *key| {
                if (!std.mem.eql(u8, body[0..head.key_len], key)) continue;
                if (number.* != 0) return error.Twice;
                number.* = Value.read(body[head.key_len..]) orelse return error.Torn;
            }
            at += 16 + std.mem.alignForward(usize, body.len, 8);
        }
        for (numbers) |number| if (number == 0) return error.Gone;
        return numbers;
    }

    fn live(process: *Process) !void {
        var last: Numbers = @splat(0);
        while (!process.board.isOver()) {
            if (process.index < writers) {
                try process.write();
            } else if (process.index == reader) {
                try process.read();
            } else try process.take(&last);
        }
    }
};

const Task = struct { board: *Board, token: []const u8, index: usize, seed: u64 };

fn work(task: Task) u8 {
    run(task) catch |err| {
        task.board.violation("process {d}: {t}", .{ task.index, err });
        return 1;
    };
    return 0;
}

fn run(task: Task) !void {
    const readonly = task.index == reader or task.index == writers + 1;
    const map = try crowd.attach(task.token, readonly, 20_000);
    map.segment.timeout_ms = timeout_ms;
    var prng = std.Random.DefaultPrng.init(task.seed);
    var other = std.Random.DefaultPrng.init(~task.seed);
    const random = prng.random();
    // A writer that is inside an operation most of the time leaves the double collect a chance.
    const often = [_]u32{ 1, 3, 20 };
    var delays: crowd.Delays = .{
        .every = if (task.index < writers) often[random.uintLessThan(usize, 3)] else 60,
        .deadly = 200,
        .span = 5,
        .dying_at = &task.board.dying_at[task.index],
        .random = other.random(),
    };
    delays.start();
    var process: Process = .{
        .board = task.board,
        .map = map,
        .index = task.index,
        .random = random,
        .delays = &delays,
    };
    try process.live();
}

pub const Outcome = struct {
    snapshots: u64 = 0,
    kills: u64 = 0,
    stops: u64 = 0,
    beside_stopped: u64 = 0,
    timeouts: u64 = 0,
    orders: u64 = 0,
    found: u64 = 0,
};

const Round = struct {
    gpa: std.mem.Allocator,
    board: *Board,
    map: *Map,
    token: []const u8,
    random: std.Random,
    pids: [processes]linux.pid_t = @splat(0),
    outcome: Outcome = .{},

    fn start(round: *Round, index: usize) !void {
        round.pids[index] = try crowd.spawn(round.map, Task{
            .board = round.board,
            .token = round.token,
            .index = index,
            .seed = round.random.int(u64),
        }, work);
    }

    /// Puts new processes in the places of the dead.
    fn reap(round: *Round) !void {
        for (0..processes) |index| {
            const end = crowd.ended(round.pids[index], false) orelse continue;
            round.pids[index] = 0;
            switch (end) {
                .code => return error.WorkerFailed, // it has said why
                .signal => |number| if (number != @intFromEnum(linux.SIG.KILL)) {
                    round.board.violation("process {d}: signal {d}", .{ index, number });
                    return error.WorkerFailed;
                },
            }
            round.outcome.kills += 1;
            try round.start(index);
        }
    }

    fn disturb(round: *Round) !void {
        const index = round.random.uintLessThan(usize, processes);
        const writes = index < writers;
        switch (round.random.uintLessThan(u8, 100)) {
            0...29 => if (writes or round.random.uintLessThan(u8, 5) == 0)
                crowd.signal(round.pids[index], .KILL),
            30...79 => {
                round.outcome.stops += 1;
                crowd.signal(round.pids[index], .STOP);
                shmap.os.sleepNs(round.random.uintLessThan(u64, 3_000_000));
                crowd.signal(round.pids[index], .CONT);
            },
            80...89 => try round.stopWriters(),
            else => {},
        }
    }

    /// No taker of snapshots waits for a stopped writer for ever.
    fn stopWriters(round: *Round) !void {
        const pids = round.pids[0..writers];
        for (pids) |pid| crowd.signal(pid, .STOP);
        defer for (pids) |pid| crowd.signal(pid, .CONT);
        const board = round.board;
        const before = board.taken;
        const deadline = crowd.now() + hang_ns;
        for (0..takers) |taker| {
            while (@atomicLoad(u64, &board.taken[taker], .acquire) < before[taker] + 2) {
                if (crowd.now() > deadline) {
                    board.violation("taker {d} waits for a stopped writer", .{taker});
                    return error.Hangs;
                }
                shmap.os.sleepNs(50_000);
                try round.reap(); // some die by themselves
            }
        }
        round.outcome.beside_stopped += 1;
    }

    fn go(round: *Round, until_ns: u64, least: u64) !void {
        defer round.endAll();
        for (0..processes) |index| try round.start(index);
        while (crowd.now() < until_ns) {
            const board = round.board;
            if (board.taken[0] >= least and board.taken[1] >= least) break;
            shmap.os.sleepNs(round.random.uintLessThan(u64, 4_000_000));
            try round.reap();
            try round.disturb();
        }
    }

    fn endAll(round: *Round) void {
        @atomicStore(u64, &round.board.halt, 1, .release);
        const deadline = crowd.now() + hang_ns;
        for (round.pids, 0..) |pid, index| {
            if (pid == 0) continue;
            crowd.signal(pid, .CONT);
            while (crowd.ended(pid, false) == null) {
                if (crowd.now() < deadline) {
                    shmap.os.sleepNs(200_000);
                    continue;
                }
                round.board.violation("process {d} does not come to an end", .{index});
                crowd.signal(pid, .KILL);
                _ = crowd.ended(pid, true);
                break;
            }
        }
    }

    /// Whether any snapshot contradicts the order in which the reader saw the pair: it saw the one
    /// as it was shown not yet, and then the other as it was shown no longer.
    fn judge(round: *Round) !void {
        const board = round.board;
        for (0..2) |way| {
            const orders = try round.gpa.dupe([2]u64, board.ordered[way].seen());
            defer round.gpa.free(orders);
            round.outcome.orders += orders.len;
            std.mem.sort([2]u64, orders, {}, isEarlier);
            // Of all that were seen with a first number at least as large, the least second one.
            var least: u64 = std.math.maxInt(u64);
            var i = orders.len;
            while (i > 0) {
                i -= 1;
                least = @min(least, orders[i][1]);
                orders[i][1] = least;
            }
            for (&board.shown) |*shown| for (shown.seen()) |numbers| {
                const first = numbers[way];
                const second = numbers[1 - way];
                const at = std.sort.upperBound([2]u64, orders, first, compareFirst);
                if (at < orders.len and orders[at][1] < second)
                    board.violation("shown {d} with {d}, but seen {d} and then {d} (way {d})", .{
                        first, second, orders[at][0], orders[at][1], way,
                    });
            };
        }
    }

    fn isEarlier(_: void, a: [2]u64, b: [2]u64) bool {
        return a[0] < b[0];
    }

    fn compareFirst(first: u64, order: [2]u64) std.math.Order {
        return std.math.order(first, order[0]);
    }
};

/// The first key after `from` that lies in a stripe.
fn keyIn(map: *const Map, stripe: u32, from: u64) [8]u8 {
    var number = from;
    while (true) : (number += 1) {
        const key: [8]u8 = @bitCast(number);
        if (map.hashOf(&key).stripe == stripe) return key;
    }
}

/// One map, until `least` snapshots were taken by each, or until then.
pub fn play(
    gpa: std.mem.Allocator,
    board: *Board,
    lock: shmap.layout.LockKind,
    seed: u64,
    least: u64,
    until_ns: u64,
) !Outcome {
    @memset(std.mem.asBytes(board), 0);
    const map = try shmap.testing.support.openMapOf(lock, stripe_bits, 16 << 20);
    defer shmap.testing.support.closeMap(map);
    for (variables, &board.keys, 1..) |variable, *key, i| {
        key.* = keyIn(map, variable.stripe, 1000 * i);
        _ = try calls.put(map, key, Value.of(1).bytes(), 1, .none);
    }
    for (0..24) |i| {
        const key: [8]u8 = @bitCast(100_000 + i);
        _ = try calls.put(map, &key, "only here to be copied", 1, .none);
    }
    var buffer: [200]u8 = undefined;
    var prng = std.Random.DefaultPrng.init(seed);
    var round: Round = .{
        .gpa = gpa,
        .board = board,
        .map = map,
        .token = buffer[0..try map.segment.token(&buffer)],
        .random = prng.random(),
    };
    round.go(until_ns, least) catch |err| board.violation("{t}", .{err});
    try round.judge();
    for (board.taken) |taken| round.outcome.snapshots += taken;
    for (board.timeouts) |timeouts| round.outcome.timeouts += timeouts;
    round.outcome.found = board.found;
    if (board.writes[0] == 0 or board.writes[1] == 0) return error.NobodyWrote;
    return round.outcome;
}
