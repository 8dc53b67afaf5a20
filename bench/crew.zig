//! Processes that work on one map when they are told to, each on a core of its own as far as there
//! are enough, and count what they have done. They attach by the map's token and stay; between two
//! orders they sleep.

const std = @import("std");
const linux = std.os.linux;
const figures = @import("figures.zig");

const Histogram = figures.Histogram;
const Key = figures.Key;

pub const seats_max = 4;
/// Operations between two looks at the word that ends the work.
const batch = 64;
/// How many times the wanted time is waited for a first operation, where the machine gives the
/// processes no processor: a rate of zero cannot be compared with.
const turns_max = 100;
/// One in so many operations of mixed work is a `set`.
const mixed_share = 20;
const patience_ns = 60 * std.time.ns_per_s;

pub const Work = enum(u32) {
    /// `get` of every key, in random order.
    read,
    /// `set` of every key, or of this process's share of them, in random order.
    write,
    /// `set` of one key that is the same for all.
    write_same,
    /// As `read`, with one `set` among twenty operations.
    mix,
    /// What the machine itself allows: 32 bytes copied out of an array in shared memory with as
    /// many places as the map has keys, as far apart as entries lie.
    plain_read,
    /// The same, copied in, each process to its own places.
    plain_write,
    /// As `plain_write`, each holding one of as many locks as a map has stripes, which is a word in
    /// a line of its own: what a lock alone costs that two processes hand to each other.
    locked_write,
    /// As `write`, to another map, which no other process has.
    write_elsewhere,
};

pub const Job = struct {
    work: Work,
    /// Which part of the keys is this process's, of how many.
    share: u32 = 0,
    shares: u32 = 1,
    is_timed: bool = false,
};

/// What one process is told, and what it answers; each side writes lines of its own.
const Seat = extern struct {
    serial: u32 align(128),
    work: Work,
    share: u32,
    shares: u32,
    is_timed: u32,
    ready: u32 align(128),
    done: u32,
    operations: u64,
    gets: Histogram align(128),
    sets: Histogram,
};

const Board = extern struct {
    /// The number of the last order; who has none sleeps on it.
    order: u32,
    go: u32 align(128),
    stop: u32,
    seats: [seats_max]Seat,
};

/// A lock, and a word that only its holder writes.
const Line = extern struct { held: u64 align(64), count: u64 };

const lock_count = 1 << 6;

/// As an entry of the map with such a key and value has it.
const place_bytes = 80;

fn load(word: anytype) @typeInfo(@TypeOf(word)).pointer.child {
    return @atomicLoad(@typeInfo(@TypeOf(word)).pointer.child, word, .acquire);
}

fn store(word: anytype, value: @typeInfo(@TypeOf(word)).pointer.child) void {
    @atomicStore(@typeInfo(@TypeOf(word)).pointer.child, word, value, .release);
}

pub const Crew = struct {
    board: *Board,
    places: []u8,
    locks: []Line,
    key_count: u64,
    pids: [seats_max]linux.pid_t = @splat(0),

    /// Starts the processes. Assumes the map holds the first `key_count` keys.
    pub fn hire(handle: u32, key_count: u64) Crew {
        var crew: Crew = .{
            .board = &figures.shared(Board, 1)[0],
            .places = figures.shared(u8, key_count * place_bytes),
            .locks = figures.shared(Line, lock_count),
            .key_count = key_count,
        };
        @memset(crew.places, 1);
        const token: figures.Token = .of(handle);
        for (&crew.pids, 0..) |*pid, i| {
            const worker: Worker = .{ .crew = &crew, .token = &token, .index = i };
            pid.* = figures.fork(&worker, Worker.live);
        }
        return crew;
    }

    pub fn dismiss(crew: *const Crew) void {
        for (crew.pids) |pid| figures.end(pid);
    }

    /// Returns when every process with a job has warmed up and begun.
    pub fn start(crew: *const Crew, jobs: []const Job) void {
        const board = crew.board;
        const serial = board.order + 1;
        for (jobs, board.seats[0..jobs.len]) |job, *seat| {
            seat.work = job.work;
            seat.share = job.share;
            seat.shares = job.shares;
            seat.is_timed = @intFromBool(job.is_timed);
            seat.gets = .empty;
            seat.sets = .empty;
            store(&seat.operations, 0);
            store(&seat.serial, serial);
        }
        store(&board.order, serial);
        _ = linux.futex_3arg(&board.order, .{ .cmd = .WAKE, .private = false }, seats_max);
        for (0..jobs.len) |seat| crew.await(seat, "ready", serial);
        store(&board.go, serial);
    }

    /// Returns when all have ended.
    pub fn stop(crew: *const Crew, jobs: []const Job) void {
        const serial = crew.board.order;
        store(&crew.board.stop, serial);
        for (0..jobs.len) |seat| crew.await(seat, "done", serial);
    }

    fn await(crew: *const Crew, seat: usize, comptime word: []const u8, serial: u32) void {
        const until = figures.now() + patience_ns;
        while (load(&@field(crew.board.seats[seat], word)) != serial) {
            if (figures.now() > until) crew.giveUp(seat, word);
            figures.sleep(200);
        }
    }

    fn giveUp(crew: *const Crew, seat: usize, word: []const u8) noreturn {
        var how: u32 = 0;
        const is_gone = linux.waitpid(crew.pids[seat], &how, linux.W.NOHANG) != 0;
        const state = if (is_gone) "has ended" else "does not answer";
        const work = @tagName(crew.board.seats[seat].work);
        std.debug.panic("process {d} {s}: {s} not {s}, {x}", .{ seat, state, work, word, how });
    }

    pub fn operations(crew: *const Crew, seat: usize) u64 {
        return load(&crew.board.seats[seat].operations);
    }

    /// Operations a second of one process, while it works.
    pub fn rateOf(crew: *const Crew, seat: usize, us: u64) f64 {
        return crew.rate(seat, seat + 1, us);
    }

    /// Lets them work for a while. Operations a second, of all together.
    pub fn run(crew: *const Crew, jobs: []const Job, us: u64) f64 {
        crew.start(jobs);
        defer crew.stop(jobs);
        return crew.rate(0, jobs.len, us);
    }

    /// Operations a second of the seats from `first` to before `end`, while they work.
    fn rate(crew: *const Crew, first: usize, end: usize, us: u64) f64 {
        const from = figures.now();
        const before = crew.sum(first, end);
        for (0..turns_max) |_| {
            figures.sleep(us);
            if (crew.sum(first, end) != before) break;
        }
        const count = crew.sum(first, end) - before;
        return perSecond(count, figures.now() - from);
    }

    fn sum(crew: *const Crew, first: usize, end: usize) u64 {
        var total: u64 = 0;
        for (first..end) |seat| total += crew.operations(seat);
        return total;
    }

    /// What took how long in the last run of timed work.
    pub fn timesOf(crew: *const Crew, comptime which: enum { gets, sets }, count: usize) Histogram {
        var all: Histogram = .empty;
        for (crew.board.seats[0..count]) |*seat| all.merge(&@field(seat, @tagName(which)));
        return all;
    }
};

fn perSecond(count: u64, ns: u64) f64 {
    return @as(f64, @floatFromInt(count)) / @as(f64, @floatFromInt(ns)) * std.time.ns_per_s;
}

/// The cores this bench may use, as it was started.
var allowed: ?linux.cpu_set_t = null;

pub fn coreCount() usize {
    if (allowed == null) {
        allowed = @splat(0);
        _ = linux.sched_getaffinity(0, @sizeOf(linux.cpu_set_t), &allowed.?);
    }
    return linux.CPU_COUNT(allowed.?);
}

/// Keeps this process on one of the cores it may use.
pub fn pin(index: usize) void {
    const count = coreCount();
    if (count == 0) return;
    var left = index % count;
    for (0..@bitSizeOf(linux.cpu_set_t)) |cpu| {
        const bit = @as(usize, 1) << @intCast(cpu % 64);
        if (allowed.?[cpu / 64] & bit == 0) continue;
        if (left == 0) {
            var one: linux.cpu_set_t = @splat(0);
            one[cpu / 64] = bit;
            linux.sched_setaffinity(0, &one) catch {};
            return;
        }
        left -= 1;
    }
}

/// Lets this process run on any of them again.
pub fn unpin() void {
    if (allowed) |cores| linux.sched_setaffinity(0, &cores) catch {};
}

const Worker = struct {
    crew: *const Crew,
    token: *const figures.Token,
    index: usize,
    seat: *Seat = undefined,
    handle: u32 = 0,
    keys: []Key = &.{},
    numbers: []u32 = &.{},
    random: std.Random.DefaultPrng = undefined,
    /// Where the last work left off.
    at: usize = 0,

    fn live(example: *const Worker) void {
        var worker = example.*;
        const crew = worker.crew;
        const board = crew.board;
        pin(worker.index);
        worker.seat = &board.seats[worker.index];
        worker.random = .init(worker.index);
        const room = figures.shared(Key, crew.key_count);
        const numbers = figures.shared(u32, crew.key_count);
        const shared_map = worker.token.attach();
        var own_map: ?u32 = null;
        var served: u32 = 0;
        while (true) {
            const serial = load(&board.order);
            if (serial == served) {
                const wait: linux.FUTEX_OP = .{ .cmd = .WAIT, .private = false };
                _ = linux.futex_4arg(&board.order, wait, serial, null);
                continue;
            }
            served = serial;
            if (load(&worker.seat.serial) != serial) continue;
            worker.handle = shared_map;
            if (worker.seat.work == .write_elsewhere) {
                if (own_map == null) {
                    own_map = figures.anonymous(0);
                    figures.fill(own_map.?, crew.key_count);
                }
                worker.handle = own_map.?;
            }
            worker.choose(room, numbers);
            worker.work(crew.key_count * 2);
            worker.seat.gets = .empty;
            worker.seat.sets = .empty;
            store(&worker.seat.ready, serial);
            while (load(&board.go) != serial) std.Thread.yield() catch {};
            worker.work(null);
            store(&worker.seat.done, serial);
        }
    }

    /// The keys of this order, laid out in the order in which they will be used, so that looking
    /// for the next one costs nothing.
    fn choose(worker: *Worker, room: []Key, numbers: []u32) void {
        const seat = worker.seat;
        var count: usize = 0;
        var n: u32 = seat.share;
        while (n < worker.crew.key_count) : (n += seat.shares) {
            numbers[count] = n;
            count += 1;
        }
        if (seat.work == .write_same) count = 1;
        worker.numbers = numbers[0..count];
        worker.random.random().shuffle(u32, worker.numbers);
        if (seat.work == .write_same) worker.numbers[0] = 0;
        worker.keys = room[0..count];
        for (worker.keys, worker.numbers) |*key, number| key.* = .of(number);
        worker.at = 0;
    }

    /// `limit` operations, or until the word says stop.
    fn work(worker: *Worker, limit: ?u64) void {
        switch (worker.seat.work) {
            inline .read, .write, .mix => |what| {
                if (worker.seat.is_timed == 1)
                    worker.loop(what, true, limit)
                else
                    worker.loop(what, false, limit);
            },
            .write_same, .write_elsewhere => if (worker.seat.is_timed == 1)
                worker.loop(.write, true, limit)
            else
                worker.loop(.write, false, limit),
            inline .plain_read, .plain_write, .locked_write => |what| worker.loop(
                what,
                false,
                limit,
            ),
        }
    }

    fn loop(worker: *Worker, comptime what: Work, comptime is_timed: bool, limit: ?u64) void {
        const seat = worker.seat;
        const board = worker.crew.board;
        var count: u64 = 0;
        while (if (limit) |most| count < most else load(&board.stop) != seat.serial) {
            for (0..batch) |_| {
                const begin = if (is_timed) figures.ticks() else 0;
                const is_set = worker.once(what);
                if (is_timed) {
                    const duration = figures.ticks() - begin;
                    (if (is_set) &seat.sets else &seat.gets).add(duration);
                }
                worker.at += 1;
                if (worker.at == worker.keys.len) worker.at = 0;
            }
            count += batch;
            if (limit == null) store(&seat.operations, count);
        }
    }

    /// One operation. True: it was a `set`.
    inline fn once(worker: *Worker, comptime what: Work) bool {
        const key = worker.keys[worker.at].slice();
        var target: [64]u8 = undefined;
        switch (what) {
            .write => {
                _ = figures.put(worker.handle, key, &figures.value);
                return true;
            },
            .mix => if (worker.random.next() % mixed_share == 0) {
                _ = figures.put(worker.handle, key, &figures.value);
                return true;
            },
            .plain_read, .plain_write, .locked_write => {
                const offset = @as(usize, worker.numbers[worker.at]) * place_bytes;
                const place = worker.crew.places[offset..][0..figures.value_bytes];
                if (what == .plain_read) {
                    target[0..figures.value_bytes].* = place.*;
                    std.mem.doNotOptimizeAway(&target);
                    return false;
                }
                // Any of them, as a hash chooses.
                const lock = worker.numbers[worker.at] *% 0x9e3779b1 >> 26;
                const line = &worker.crew.locks[lock];
                if (what == .locked_write) {
                    while (@cmpxchgWeak(u64, &line.held, 0, 1, .acquire, .monotonic) != null) {}
                    line.count += 1;
                }
                place.* = figures.value;
                std.mem.doNotOptimizeAway(place);
                if (what == .locked_write) _ = @atomicRmw(u64, &line.held, .Xchg, 0, .release);
                return true;
            },
            else => {},
        }
        if (figures.get(worker.handle, key, &target) != figures.value_bytes)
            @panic("a value is not what was stored");
        std.mem.doNotOptimizeAway(&target);
        return false;
    }
};
