//! Threads that operate on one map through one mapping, for ThreadSanitizer, which knows a word by
//! its address and so cannot see two mappings of the same memory race.
//!
//!     threads threads [--scale <n>] [--seed <n>] [plant]
//!
//! Each thread opens a handle of its own, with its own description, locks and fault record, and is
//! then led to the first one's mapping. Every value says which key it belongs to and repeats one
//! number, so that a torn or foreign one shows. `plant` makes plain stores to slots that others
//! read: the sanitizer must report it. Run by tests/proof/order.mjs, which counts the reports.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const report = @import("report.zig");

const Map = shmap.map.Map;
const atomics = shmap.atomics;
const support = shmap.testing.support;

const thread_count = 4;
const key_count = 400;
const words_max = 300;
/// A thread that has not come to its end by then never will.
const patience_seconds = 300;

const Shared = struct {
    maps: [thread_count]*Map,
    operations: u64,
    seed: u64,
    plant: bool,
    found: std.atomic.Value(u64) = .init(0),
    done: std.atomic.Value(u64) = .init(0),
    ended: std.atomic.Value(u32) = .init(0),

    fn complain(shared: *Shared, comptime format: []const u8, values: anytype) void {
        _ = shared.found.fetchAdd(1, .monotonic);
        std.debug.print("seed {d}: " ++ format ++ "\n", .{shared.seed} ++ values);
    }
};

/// One thread's work.
const Worker = struct {
    shared: *Shared,
    map: *Map,
    index: usize,
    random: std.Random,
    words: [words_max]u64 = undefined,

    fn put(worker: *Worker, key: u64) !void {
        const len = worker.random.intRangeAtMost(usize, 1, worker.limit());
        const number = worker.random.int(u32);
        for (worker.words[0..len]) |*word| word.* = key << 32 | number;
        const bytes = std.mem.sliceAsBytes(worker.words[0..len]);
        _ = try calls.put(worker.map, std.mem.asBytes(&key), bytes, 1, .none);
    }

    /// Mostly small values; some that have a chunk of their own would need more than this.
    fn limit(worker: *Worker) usize {
        return if (worker.random.uintLessThan(u8, 20) == 0) words_max else 12;
    }

    fn get(worker: *Worker, key: u64) !void {
        var bytes: [words_max * 8]u8 align(8) = undefined;
        const value = try calls.get(worker.map, std.mem.asBytes(&key), &bytes, 0) orelse return;
        worker.check(key, std.mem.bytesAsSlice(u64, bytes[0..value.len]));
    }

    fn check(worker: *Worker, key: u64, words: []align(8) const u64) void {
        if (words.len == 0) return worker.shared.complain("an empty value under {d}", .{key});
        for (words) |word| {
            if (word >> 32 == key and word == words[0]) continue;
            return worker.shared.complain("{x} under {d}", .{ word, key });
        }
    }

    /// The records of a bulk copy, each as checked as a value that was got.
    fn checkGathered(worker: *Worker, len: u64) void {
        const Record = shmap.gathered.Record;
        var at: u64 = 0;
        while (at < len) {
            const bytes = worker.map.gathered[at..len];
            const record: *const Record = @ptrCast(@alignCast(bytes.ptr));
            const body = record.key_len + @as(u64, record.value_len);
            const key = std.mem.bytesToValue(u64, bytes[@sizeOf(Record)..][0..8]);
            const value = bytes[@sizeOf(Record) + 8 ..][0..record.value_len];
            worker.check(key, @alignCast(std.mem.bytesAsSlice(u64, value)));
            at += @sizeOf(Record) + std.mem.alignForward(u64, body, 8);
        }
    }

    fn lock(worker: *Worker, key: u64) !void {
        _ = try calls.acquire(worker.map, 10_000);
        defer calls.release(worker.map, false);
        try worker.put(key);
        try worker.get(key);
    }

    fn step(worker: *Worker) !void {
        const key = worker.random.uintLessThan(u64, key_count);
        const map = worker.map;
        switch (worker.random.uintLessThan(u32, 10_000)) {
            0 => try calls.clear(map),
            1...10 => worker.checkGathered(try calls.snapshot(map)),
            11...40 => worker.checkGathered(try calls.gatherStripe(
                map,
                worker.random.uintLessThan(u32, map.segment.view.stripeCount()),
                false,
            )),
            41...140 => if (try calls.size(map) > key_count)
                worker.shared.complain("too many", .{}),
            141...170 => try worker.lock(key),
            171...172 => _ = try calls.stats(map),
            173...2999 => try worker.put(key),
            3000...4499 => _ = try calls.delete(map, std.mem.asBytes(&key)),
            else => try worker.get(key),
        }
    }

    fn run(worker: *Worker) void {
        for (0..worker.shared.operations) |i| {
            worker.step() catch |err| {
                worker.shared.complain("thread {d}, step {d}: {t}", .{ worker.index, i, err });
                break;
            };
            _ = worker.shared.done.fetchAdd(1, .monotonic);
            if (worker.shared.plant and worker.index == 0) worker.storePlainly() catch return;
        }
        _ = worker.shared.ended.fetchAdd(1, .monotonic);
    }

    /// The fault: stores to slots that are no atomic ones, of what stands there. Under the lock, so
    /// that nothing is lost and only readers can race with them.
    fn storePlainly(worker: *Worker) !void {
        var op = try shmap.stripe_op.StripeOp.lock(worker.map, 0);
        defer op.unlock();
        const opened = try shmap.table.Table.open(&worker.map.segment.view, op.stripe.table);
        const table = opened orelse return;
        for (table.slots[0..table.slotCount()]) |*slot| {
            const word: *volatile u64 = slot; // or nothing would be left of the store
            word.* = atomics.load(slot);
        }
    }
};

fn start(worker_index: usize, shared: *Shared) void {
    var random = std.Random.DefaultPrng.init(shared.seed +% worker_index);
    var worker: Worker = .{
        .shared = shared,
        .map = shared.maps[worker_index],
        .index = worker_index,
        .random = random.random(),
    };
    worker.run();
}

/// Ends the process when the threads do not: they may be waiting for each other.
fn watch(shared: *Shared) void {
    for (0..patience_seconds * 10) |_| {
        if (shared.ended.load(.monotonic) == thread_count) return;
        shmap.os.sleepNs(100 * std.time.ns_per_ms);
    }
    std.debug.print("seed {d}: hangs after {d}\n", .{ shared.seed, shared.done.load(.monotonic) });
    std.process.exit(2);
}

pub fn main(init: std.process.Init) !void {
    const arguments: report.Arguments = try .of(init);
    const operations = arguments.scaled(5_000_000);
    const first = try support.openMap(2, 8 << 20);
    var shared: Shared = .{
        .maps = undefined,
        .operations = operations / thread_count + 1,
        .seed = arguments.seed,
        .plant = arguments.words.len > 0 and std.mem.eql(u8, arguments.words[0], "plant"),
    };
    // So small that it is mapped once: all threads then work on the first handle's mapping.
    for (&shared.maps) |*map| {
        map.* = try support.openAgain(first, 10_000);
        map.*.segment.view.base = first.segment.view.base;
        map.*.segment.front = first.segment.front;
        map.*.begin(); // the user's lock looks at the words of the mapping it was begun with
    }
    var threads: [thread_count]std.Thread = undefined;
    for (&threads, 0..) |*thread, i| thread.* = try std.Thread.spawn(.{}, start, .{ i, &shared });
    watch(&shared);
    for (threads) |thread| thread.join();
    support.expectSound(first) catch |err| shared.complain("afterwards: {t}", .{err});
    for (shared.maps) |map| support.closeMap(map);
    support.closeMap(first);
    try report.say(init.io, .{
        .part = 8,
        .what = "operations under ThreadSanitizer",
        .tried = shared.done.load(.monotonic),
        .found = shared.found.load(.monotonic),
        .least = operations,
        .seed = arguments.seed,
        .note = "4 threads on one mapping: get, put, delete, clear, lock, snapshot, size",
    });
    if (shared.found.load(.monotonic) > 0) std.process.exit(1);
}
