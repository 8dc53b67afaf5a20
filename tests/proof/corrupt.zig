//! Segments damaged while no process is attached: one that opens it gets errors or wrong data, no
//! signal, no endless call and no store outside; and what can be repaired, a repair repairs.
//!
//!     shmap-proof-recorded corrupt [--scale <n>] [--seed <n>]
//!     shmap-proof-recorded corrupt [--scale <n>] --seed <n> case <number>
//!
//! Two workers share the cases. A worker that dies, or does not come to the end of a case, costs
//! that case and is followed by another, so the number of the case says what happened.

const std = @import("std");
const linux = std.os.linux;
const shmap = @import("shmap");
const cases = @import("cases.zig");
const images = @import("images.zig");
const report = @import("report.zig");

const os = shmap.os;
const Bench = cases.Bench;
const Progress = cases.Progress;

/// Set in processes that meet damage: there a trace takes so long that a crash would pass for a
/// case without an end. A replay has one.
var is_terse = false;

/// What the program does in a panic.
pub fn notePanic(message: []const u8, address: ?usize) noreturn {
    if (!is_terse) std.debug.defaultPanic(message, address);
    std.debug.print("{s}\n", .{message});
    std.process.abort();
}

/// From here on a signal ends this process at once, and the trace stays away.
fn beTerse() void {
    is_terse = true;
    const end: std.posix.Sigaction = .{
        .handler = .{ .handler = std.posix.SIG.DFL },
        .mask = std.posix.sigemptyset(),
        .flags = 0,
    };
    for ([_]std.posix.SIG{ .SEGV, .BUS, .ILL, .FPE }) |signal| {
        std.posix.sigaction(signal, &end, null);
    }
}

const worker_count = 2;
/// A case that runs for longer does not end; one that sleeps may wait for others.
const running_ns_max = 2 * std.time.ns_per_s;
const sleeping_ns_max = 30 * std.time.ns_per_s;
/// A part that found as many need not look for more.
const found_max = 20;
/// A worker is followed by another after this many cases.
const batch = 4000;

extern "c" fn fork() c_int;

const Worker = struct {
    number: u64,
    bench: Bench,
    pid: linux.pid_t = 0,
    /// The case the parent saw last, and when the worker began it.
    seen: u64 = 0,
    running_since: u64 = 0,
    sleeping_since: u64 = 0,
    next: u64,
    done: bool = false,
};

const Context = struct { seed: u64, plan: cases.Plan, images: []const images.Image };

pub fn main(init: std.process.Init) !void {
    const arguments = try report.Arguments.of(init);
    const gpa = init.arena.allocator();
    const context: Context = .{
        .seed = arguments.seed,
        .plan = planOf(&arguments),
        .images = try images.make(gpa),
    };
    var workers: [worker_count]Worker = undefined;
    for (&workers, 0..) |*worker, n| worker.* = try prepare(gpa, &context, n);
    if (arguments.words.len == 2) {
        const number = try std.fmt.parseInt(u64, arguments.words[1], 10);
        const clean = replay(&workers[0], number);
        for (&workers) |*worker| cleanUp(worker);
        std.process.exit(if (clean) 0 else 1);
    }
    supervise(&workers);
    const sum = sumOf(&workers);
    try say(init.io, gpa, &arguments, &context.plan, &sum);
    const plan = &context.plan;
    const all = sum.damaged >= plan.damaged() and sum.read >= plan.readers and
        sum.repaired >= plan.repairs;
    for (&workers) |*worker| cleanUp(worker);
    if (sum.allFound() > 0 or !all) std.process.exit(1);
}

/// One case, in a process of its own; a crash comes with a trace.
fn replay(worker: *Worker, number: u64) bool {
    const child = fork();
    if (child == 0) {
        worker.bench.run(number);
        std.debug.print("{any}\n", .{worker.bench.progress.*});
        std.c._exit(0);
    }
    var status: u32 = 0;
    _ = linux.waitpid(child, &status, 0);
    return status == 0 and worker.bench.progress.allFound() == 0;
}

fn planOf(arguments: *const report.Arguments) cases.Plan {
    return .{
        .bits = arguments.scaled(80_000),
        .flips = arguments.scaled(49_000),
        .words = arguments.scaled(56_000),
        .overlaps = arguments.scaled(5_000),
        .forged = arguments.scaled(8_000),
        .shapes = arguments.scaled(3_000),
        .readers = arguments.scaled(3_000),
        .repairs = arguments.scaled(8_000),
    };
}

fn prepare(gpa: std.mem.Allocator, context: *const Context, number: u64) !Worker {
    const directory = try os.Path.of("/dev/shm/shmap-test-{d}-corrupt{d}", .{ os.pid(), number });
    if (linux.errno(linux.mkdir(directory.z(), 0o700)) != .SUCCESS) return error.NoDirectory;
    const progress = try shmap.testing.support.shared(Progress);
    return .{
        .number = number,
        .next = number,
        .bench = .{
            .images = context.images,
            .plan = context.plan,
            .seed = context.seed,
            .directory = directory,
            .path = try os.Path.of("{s}/{s}", .{ directory.slice(), cases.name }),
            .bytes = try gpa.alignedAlloc(u8, .fromByteUnits(4096), cases.file_bytes_max),
            .after = try gpa.alloc(u8, cases.file_bytes_max),
            .progress = progress,
        },
    };
}

/// Removes what a worker's cases left, also where it was killed.
fn cleanUp(worker: *Worker) void {
    var fault: shmap.status.Fault = .{};
    const directory = &worker.bench.directory;
    var names = os.Names.of(&fault, directory) catch return;
    while (names.next(&fault) catch null) |entry| {
        const path = os.Path.of("{s}/{s}", .{ directory.slice(), entry }) catch continue;
        if (linux.errno(linux.unlink(path.z())) != .SUCCESS) _ = linux.rmdir(path.z());
    }
    names.close();
    _ = linux.rmdir(directory.z());
}

/// Cases from `worker.next` on, every second one.
fn work(worker: *Worker) noreturn {
    beTerse();
    _ = linux.prctl(@intFromEnum(linux.PR.SET_PDEATHSIG), @intFromEnum(linux.SIG.KILL), 0, 0, 0);
    // What a case needs of the stack is there before the first: it is no mapping left behind.
    growStack();
    const total = worker.bench.plan.total();
    var n = worker.next;
    var left: u32 = batch;
    while (n < total and left > 0) : (n += worker_count) {
        worker.bench.run(n);
        left -= 1;
    }
    worker.bench.progress.case = n;
    std.c._exit(0);
}

noinline fn growStack() void {
    var most: [1 << 20]u8 = undefined;
    const touched: []volatile u8 = &most;
    var at: usize = most.len;
    while (at > 0) : (at -= os.page_bytes) touched[at - 1] = 0;
}

fn start(worker: *Worker) void {
    if (worker.next >= worker.bench.plan.total()) {
        worker.done = true;
        return;
    }
    worker.bench.progress.case = worker.next;
    const child = fork();
    if (child < 0) @panic("no process can be made");
    if (child == 0) work(worker);
    worker.pid = child;
    worker.seen = worker.next;
    worker.running_since = 0;
    worker.sleeping_since = os.monotonicNs();
}

fn supervise(workers: []Worker) void {
    for (workers) |*worker| start(worker);
    while (true) {
        var done = true;
        for (workers) |*worker| {
            if (!worker.done) watch(worker);
            if (sumOf(workers).allFound() >= found_max) return stop(workers);
            done = done and worker.done;
        }
        if (done) return;
        os.sleepNs(5 * std.time.ns_per_ms);
    }
}

fn stop(workers: []Worker) void {
    for (workers) |*worker| {
        if (worker.done) continue;
        _ = linux.kill(worker.pid, .KILL);
        var status: u32 = 0;
        _ = linux.waitpid(worker.pid, &status, 0);
        worker.done = true;
    }
}

fn watch(worker: *Worker) void {
    const progress = worker.bench.progress;
    var status: u32 = 0;
    if (linux.waitpid(worker.pid, &status, linux.W.NOHANG) == worker.pid) {
        const at = @atomicLoad(u64, &progress.case, .acquire);
        worker.next = at;
        if (status != 0) {
            blame(worker, "it ended its process by signal {d}", status & 0x7f);
            worker.next = at + worker_count;
        }
        return start(worker);
    }
    const now = os.monotonicNs();
    const running = runningNs(worker.pid);
    const at = @atomicLoad(u64, &progress.case, .acquire);
    if (at != worker.seen) {
        worker.seen = at;
        worker.running_since = running;
        worker.sleeping_since = now;
        return;
    }
    const ran = running -| worker.running_since;
    const slept = now -| worker.sleeping_since;
    if (ran < running_ns_max and slept < sleeping_ns_max) return;
    _ = linux.kill(worker.pid, .KILL);
    _ = linux.waitpid(worker.pid, &status, 0);
    blame(worker, "it does not end: ran for {d} ms", ran / std.time.ns_per_ms);
    worker.next = at + worker_count;
    start(worker);
}

fn blame(worker: *Worker, comptime what: []const u8, number: u64) void {
    const progress = worker.bench.progress;
    progress.found[worker.bench.plan.kindOf(progress.case)] += 1;
    const of = .{ worker.bench.seed, progress.case, number };
    std.debug.print("seed {d}, case {d}: " ++ what ++ "\n", of);
}

/// How long a process has run, without the time that other processes took.
fn runningNs(pid: linux.pid_t) u64 {
    // The kernel's number for the clock of a process.
    const clock: i32 = ~pid << 3 | 2;
    var time: linux.timespec = undefined;
    const id: usize = @bitCast(@as(isize, clock));
    const result = linux.syscall2(.clock_gettime, id, @intFromPtr(&time));
    if (linux.errno(result) != .SUCCESS) return 0;
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

fn sumOf(workers: []const Worker) Progress {
    var sum = std.mem.zeroes(Progress);
    for (workers) |*worker| {
        inline for (@typeInfo(Progress).@"struct".fields) |field| {
            const here = @field(worker.bench.progress, field.name);
            if (comptime std.mem.eql(u8, field.name, "longest_ns")) {
                sum.longest_ns = @max(sum.longest_ns, here);
            } else if (field.type == u64) @field(sum, field.name) += here else {
                for (&@field(sum, field.name), here) |*all, one| all.* += one;
            }
        }
    }
    return sum;
}

fn say(
    io: std.Io,
    gpa: std.mem.Allocator,
    arguments: *const report.Arguments,
    plan: *const cases.Plan,
    sum: *const Progress,
) !void {
    const bits = cases.bitsOf(&(try images.make(gpa))[0]);
    try report.say(io, .{
        .part = 6,
        .what = "damaged segments",
        .tried = sum.damaged,
        .found = sum.found[0],
        .least = arguments.scaled(200_000),
        .seed = arguments.seed,
        .note = try std.fmt.allocPrint(
            gpa,
            "{d} of {d} single bits, {d} could be opened, {d} were sound after a repair, " ++
                "{d} waited for the timeout; the longest case ran for {d} ms",
            .{
                @min(plan.bits, bits),
                bits,
                sum.opened,
                sum.mended,
                sum.waited,
                sum.longest_ns / std.time.ns_per_ms,
            },
        ),
    });
    try report.say(io, .{
        .part = 6,
        .what = "damaged under readers",
        .tried = sum.read,
        .found = sum.found[1],
        .least = arguments.scaled(3_000),
        .seed = arguments.seed,
        .note = "three times each, while a reader was attached",
    });
    try report.say(io, .{
        .part = 6,
        .what = "repaired",
        .tried = sum.repaired,
        .found = sum.found[2],
        .least = arguments.scaled(5_000),
        .seed = arguments.seed,
        .note = try std.fmt.allocPrint(
            gpa,
            "{d} undamaged entries kept, {d} damaged ones or beside such",
            .{ sum.kept, sum.lost },
        ),
    });
}
