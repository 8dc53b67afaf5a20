//! One damaged segment after another: each is written under a name, opened as programs open it,
//! used, repaired, displaced and taken away. Any answer is right, as long as it comes
//! back, stores nothing outside, leaves nothing open, and a repair that says so has repaired.

const std = @import("std");
const linux = std.os.linux;
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const damage = @import("damage.zig");
const images = @import("images.zig");
const shapes = @import("shapes.zig");
const usage = @import("usage.zig");

const layout = shmap.layout;
const os = shmap.os;
const Image = images.Image;

/// The longest file of a case.
pub const file_bytes_max = 2 << 20;
pub const name = "m";

/// What a worker tells its parent, in memory that both see.
pub const Progress = extern struct {
    /// The number of the case at hand.
    case: u64,
    damaged: u64,
    repaired: u64,
    read: u64,
    /// What went wrong, by the kind of the case.
    found: [3]u64,
    /// Of the damaged ones: those that could be opened, and those that a repair made sound.
    opened: u64,
    mended: u64,
    /// Opening waited for its whole timeout.
    waited: u64,
    /// How long the longest case ran.
    longest_ns: u64,
    /// Of the repaired ones: entries that the damage was allowed to cost, and those kept.
    lost: u64,
    kept: u64,

    pub fn allFound(progress: *const Progress) u64 {
        return progress.found[0] + progress.found[1] + progress.found[2];
    }
};

/// How many cases of each kind there are, one kind after the other.
pub const Plan = struct {
    bits: u64,
    flips: u64,
    words: u64,
    overlaps: u64,
    forged: u64,
    shapes: u64,
    readers: u64,
    repairs: u64,

    pub fn total(plan: *const Plan) u64 {
        return plan.damaged() + plan.readers + plan.repairs;
    }

    /// Which of three kinds a case is of: damaged, damaged under a reader, repaired.
    pub fn kindOf(plan: *const Plan, number: u64) usize {
        if (number < plan.damaged()) return 0;
        return if (number < plan.damaged() + plan.readers) 1 else 2;
    }

    pub fn damaged(plan: *const Plan) u64 {
        return plan.bits + plan.flips + plan.words + plan.overlaps + plan.forged +
            plan.shapes;
    }
};

/// The bits of an image that are tried one by one: its header and the structs of its stripes.
pub fn bitsOf(image: *const Image) u64 {
    return (layout.page_bytes + image.stripes() * @sizeOf(layout.Stripe)) * 8;
}

pub const Bench = struct {
    images: []const Image,
    plan: Plan,
    seed: u64,
    directory: os.Path,
    path: os.Path,
    /// The file as a case wrote it, and as it is afterwards.
    bytes: []align(layout.page_bytes) u8,
    after: []u8,
    len: u64 = 0,
    file: os.Fd = -1,
    bounds: usage.Bounds = .{},
    progress: *Progress,
    /// What is open and mapped between two cases.
    still: ?Open = null,

    const Open = struct { descriptor: usize, pages: u64 };

    pub fn run(bench: *Bench, number: u64) void {
        bench.progress.case = number;
        var random_of = std.Random.DefaultPrng.init(bench.seed *% 0x9e3779b97f4a7c15 +% number);
        const random = random_of.random();
        const before = ranNs();
        shmap.atomics.observer = &bench.bounds.observer;
        bench.runKind(number, random);
        shmap.atomics.observer = null;
        bench.progress.longest_ns = @max(bench.progress.longest_ns, ranNs() - before);
        bench.expectNothingLeft();
    }

    fn ranNs() u64 {
        var time: linux.timespec = undefined;
        _ = linux.clock_gettime(.PROCESS_CPUTIME_ID, &time);
        return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
    }

    fn runKind(bench: *Bench, number: u64, random: std.Random) void {
        const plan = &bench.plan;
        var n = number;
        if (n < plan.bits) return bench.flipOne(n, random);
        n -= plan.bits;
        const image = &bench.images[random.uintLessThan(usize, bench.images.len)];
        bench.take(image);
        const bytes = bench.bytes[0..bench.len];
        if (n < plan.flips) {
            damage.flipSome(bytes, random);
            return bench.damaged(image, random);
        }
        n -= plan.flips;
        if (n < plan.words) {
            damage.overwrite(image, @alignCast(bytes), random);
            return bench.damaged(image, random);
        }
        n -= plan.words;
        if (n < plan.overlaps) {
            damage.overlap(image, @alignCast(bytes), random, n % 2 == 0);
            return bench.overlapped(image, random, n % 2 == 0);
        }
        n -= plan.overlaps;
        if (n < plan.forged) {
            damage.forge(image, @alignCast(bytes), random);
            return bench.damaged(image, random);
        }
        n -= plan.forged;
        if (n < plan.shapes) {
            bench.progress.damaged += 1;
            return shapes.run(bench, image, n, random);
        }
        n -= plan.shapes;
        if (n < plan.readers) return bench.damagedUnderReader(image, random);
        bench.repaired(image, random);
    }

    pub fn complain(bench: *Bench, comptime format: []const u8, parts: anytype) void {
        bench.progress.found[bench.plan.kindOf(bench.progress.case)] += 1;
        std.debug.print("seed {d}, case {d}: " ++ format ++ "\n", .{
            bench.seed, bench.progress.case,
        } ++ parts);
    }

    /// Lays an image out, to be damaged.
    pub fn take(bench: *Bench, image: *const Image) void {
        bench.len = image.bytes.len;
        @memcpy(bench.bytes[0..bench.len], image.bytes);
    }

    /// Writes what was laid out under the name.
    pub fn write(bench: *Bench) void {
        if (bench.file < 0) {
            const flags: linux.O = .{ .ACCMODE = .RDWR, .CREAT = true, .CLOEXEC = true };
            const result = linux.open(bench.path.z(), flags, 0o600);
            if (linux.errno(result) != .SUCCESS) @panic("the directory of the proof is gone");
            bench.file = @intCast(result);
        }
        _ = linux.ftruncate(bench.file, @intCast(bench.len));
        if (linux.pwrite(bench.file, bench.bytes.ptr, bench.len, 0) != bench.len)
            @panic("no room for the proof");
    }

    /// The name may lead elsewhere by now, or nowhere.
    pub fn forgetFile(bench: *Bench) void {
        _ = linux.unlink(bench.path.z());
        if (bench.file >= 0) os.close(bench.file);
        bench.file = -1;
    }

    pub fn open(bench: *Bench, opening: usage.Opening) shmap.status.Error!u32 {
        return usage.open(&bench.bounds, &bench.directory, name, opening);
    }

    fn flipOne(bench: *Bench, n: u64, random: std.Random) void {
        const whole = bitsOf(&bench.images[0]);
        // All of the first image, and then others; only some where the scale is small.
        const round = n / whole;
        const image = &bench.images[round % bench.images.len];
        const bits = bitsOf(image);
        const bit = if (bench.plan.bits >= whole) n % bits else n * whole / bench.plan.bits;
        bench.take(image);
        damage.flipBit(bench.bytes[0..bench.len], bit);
        const is_identity = bit / 8 < @offsetOf(layout.Header, "checksum") + 8;
        if (!is_identity) return bench.damaged(image, random);
        bench.progress.damaged += 1;
        bench.write();
        if (bench.open(.{ .kind = image.kind, .readonly = n % 2 == 0 })) |handle| {
            bench.complain("a header was opened with bit {d} of its identity wrong", .{bit});
            usage.close(&bench.bounds, handle);
        } else |_| bench.expectUnchanged();
        bench.displace(image, random);
    }

    /// The whole life of a damaged segment.
    fn damaged(bench: *Bench, image: *const Image, random: std.Random) void {
        bench.progress.damaged += 1;
        bench.write();
        if (random.uintLessThan(u8, 8) == 0) bench.readOnly(image, random);
        const kind = image.kind;
        if (bench.open(.{ .kind = kind })) |handle| {
            bench.progress.opened += 1;
            bench.useAndClose(image, handle, random);
            if (random.uintLessThan(u8, 16) == 0) {
                if (bench.open(.{ .kind = kind })) |again| {
                    _ = usage.verify(again, false);
                    usage.close(&bench.bounds, again);
                } else |_| {}
            }
        } else |err| {
            bench.expectUnchanged();
            // Such a segment has the state of one that lost its name: a reader waits as well.
            if (err == error.Timeout) bench.progress.waited += 1 else bench.readOnly(image, random);
        }
        bench.displace(image, random);
    }

    /// Stores and deletes so much that tables grow and shrink.
    fn overlapped(
        bench: *Bench,
        image: *const Image,
        random: std.Random,
        shrinks: bool,
    ) void {
        bench.progress.damaged += 1;
        bench.write();
        const handle = bench.open(.{ .kind = image.kind }) catch return bench.expectUnchanged();
        bench.progress.opened += 1;
        const count = image.entries.len;
        const some = if (shrinks) count else random.uintAtMost(usize, count);
        if (!shrinks and random.boolean()) usage.putNew(handle, 40);
        const from = random.int(u16);
        for (0..some) |n| {
            const key = image.entries[(from + n) % count].key;
            _ = calls.call(.shm_map_delete, .{ handle, key.ptr, calls.word(key.len) });
        }
        if (random.boolean()) usage.putNew(handle, 60);
        bench.useAndClose(image, handle, random);
    }

    fn readOnly(bench: *Bench, image: *const Image, random: std.Random) void {
        const handle = bench.open(.{ .kind = image.kind, .readonly = true }) catch return;
        defer usage.close(&bench.bounds, handle);
        _ = usage.verify(handle, false);
        for (0..8) |_| usage.act(handle, image, random);
    }

    pub fn useAndClose(
        bench: *Bench,
        image: *const Image,
        handle: u32,
        random: std.Random,
    ) void {
        if (random.uintLessThan(u8, 4) == 0) _ = usage.verify(handle, false);
        for (0..random.intRangeAtMost(u32, 6, 20)) |_| usage.act(handle, image, random);
        if (random.uintLessThan(u8, 16) == 0) bench.readOnly(image, random);
        if (random.uintLessThan(u8, 3) == 0) bench.expectMended(image, handle, random);
        const committed = usage.mapOf(handle).segment.view.committed;
        usage.close(&bench.bounds, handle);
        bench.expectUntouchedBeyond(committed);
    }

    /// Where a repair finds nothing wrong any more, nothing is.
    fn expectMended(bench: *Bench, image: *const Image, handle: u32, random: std.Random) void {
        const verdict = usage.verify(handle, true) orelse return;
        if (verdict.problems != 0) return;
        bench.progress.mended += 1;
        if (!usage.isWhole(handle)) bench.complain("not whole when repaired", .{});
        for (0..4) |_| usage.act(handle, image, random);
        const later = usage.verify(handle, false);
        if (later == null or later.?.problems != 0)
            bench.complain("unsound when used after a repair: {any}", .{later});
    }

    /// In some cases: lists the directory, replaces the segment by a fresh one, takes that away.
    pub fn displace(bench: *Bench, image: *const Image, random: std.Random) void {
        const choice = random.uintLessThan(u8, 48);
        if (choice < 4) bench.list();
        if (choice == 0) {
            _ = bench.unlinkName(image.kind) catch {};
            bench.forgetFile();
        } else if (choice == 1) {
            bench.replace(image);
            bench.forgetFile();
        }
    }

    pub fn list(bench: *Bench) void {
        var listed: [1000]u8 = undefined;
        const path = bench.directory.slice();
        _ = calls.call(.shm_segment_list, .{
            path.ptr,
            calls.word(path.len),
            &listed,
            listed.len,
            null,
        });
    }

    pub fn unlinkName(bench: *Bench, kind: layout.Kind) shmap.status.Error!bool {
        var fault: shmap.status.Fault = .{};
        const opening: usage.Opening = .{ .kind = kind };
        var options = opening.options();
        const map = try shmap.testing.support.prepared(&fault, &options);
        defer calls.discard(map);
        bench.bounds.naming = true;
        defer bench.bounds.naming = false;
        return shmap.attach.unlinkName(map, bench.directory.slice(), name, &options);
    }

    /// A fresh segment must be as good as any, also where it displaced a damaged one.
    fn replace(bench: *Bench, image: *const Image) void {
        const fresh: usage.Opening = .{
            .mode = .exclusive,
            .kind = image.kind,
            .max_bytes = 256 << 10,
            .stripe_bits = 0,
        };
        const handle = bench.open(fresh) catch return;
        defer usage.close(&bench.bounds, handle);
        const stored = calls.call(.shm_map_put, .{ handle, "k", 1, "v", 1, 1 });
        if (stored != 1 or calls.call(.shm_map_size, .{handle}) != 1)
            bench.complain("a fresh segment in place of a damaged one does not work", .{});
        if (calls.call(.shm_segment_unlink, .{handle}) != 1)
            bench.complain("a fresh segment does not have its name", .{});
    }

    fn damagedUnderReader(bench: *Bench, image: *const Image, random: std.Random) void {
        bench.progress.read += 1;
        bench.write();
        const opening: usage.Opening = .{ .kind = image.kind, .readonly = true };
        const handle = bench.open(opening) catch |err| {
            return bench.complain("an undamaged segment cannot be read: {t}", .{err});
        };
        defer usage.close(&bench.bounds, handle);
        for (0..3) |_| {
            const bytes = bench.bytes[0..bench.len];
            @memcpy(bytes, image.bytes);
            switch (random.uintLessThan(u8, 4)) {
                0, 1 => damage.overwrite(image, @alignCast(bytes), random),
                2 => damage.flipSome(bytes, random),
                else => damage.stretch(image, @alignCast(bytes), random),
            }
            // The identity was checked when the reader came; see docs/design.md, Assumptions.
            _ = linux.pwrite(bench.file, bytes.ptr + 256, bench.len - 256, 256);
            for (0..6) |_| usage.act(handle, image, random);
            _ = usage.verify(handle, false);
        }
    }

    fn repaired(bench: *Bench, image: *const Image, random: std.Random) void {
        var kept_of: [1024]bool = @splat(true);
        const cost: damage.Cost = .{ .kept = kept_of[0..image.entries.len] };
        damage.repairable(image, @alignCast(bench.bytes[0..bench.len]), random, &cost);
        bench.write();
        bench.progress.repaired += 1;
        const handle = bench.open(.{ .kind = image.kind }) catch |err|
            return bench.complain("repairable damage keeps it from opening: {t}", .{err});
        const verdict = usage.verify(handle, true);
        if (verdict == null or verdict.?.problems != 0) {
            bench.complain("unsound after a repair: {any}", .{verdict});
        } else bench.expectKept(image, handle, &cost);
        for (0..4) |_| usage.act(handle, image, random);
        const later = usage.verify(handle, false);
        if (later == null or later.?.problems != 0)
            bench.complain("unsound when used after a repair: {any}", .{later});
        const committed = usage.mapOf(handle).segment.view.committed;
        usage.close(&bench.bounds, handle);
        bench.expectUntouchedBeyond(committed);
    }

    fn expectKept(bench: *Bench, image: *const Image, handle: u32, cost: *const damage.Cost) void {
        var value: [16_001]u8 = undefined;
        for (image.entries, cost.kept) |entry, kept| {
            if (!kept) {
                bench.progress.lost += 1;
                continue;
            }
            bench.progress.kept += 1;
            const key = entry.key;
            const len: u32 = @intCast(key.len);
            const got = calls.call(.shm_map_get, .{ handle, key.ptr, len, &value, value.len });
            if (got == entry.value.len and std.mem.eql(u8, value[0..entry.value.len], entry.value))
                continue;
            bench.complain("image \"{s}\": an undamaged entry is lost: {x} ({d})", .{
                image.name, key, got,
            });
        }
        if (!usage.isWhole(handle)) bench.complain("not whole when repaired", .{});
    }

    fn readBack(bench: *Bench) []const u8 {
        var fault: shmap.status.Fault = .{};
        const len = os.readAt(&fault, bench.file, bench.after, 0) catch 0;
        return bench.after[0..len];
    }

    /// A handle that cannot open a file leaves it as it was.
    pub fn expectUnchanged(bench: *Bench) void {
        if (!std.mem.eql(u8, bench.readBack(), bench.bytes[0..bench.len]))
            bench.complain("a segment that was refused is changed", .{});
    }

    /// Behind what is committed nothing is touched, but that the only writer cuts it off; and the
    /// file is no longer than it must be.
    fn expectUntouchedBeyond(bench: *Bench, committed: u64) void {
        const now = bench.readBack();
        if (now.len == committed) return;
        if (now.len != @max(bench.len, committed))
            return bench.complain("{d} bytes committed, the file was {d} long and is {d}", .{
                committed, bench.len, now.len,
            });
        if (bench.len <= committed) return;
        if (!std.mem.eql(u8, now[committed..], bench.bytes[committed..bench.len]))
            bench.complain("bytes behind those committed are changed", .{});
    }

    fn expectNothingLeft(bench: *Bench) void {
        for (bench.bounds.maps) |map| std.debug.assert(map == null);
        if (bench.file < 0) bench.write();
        const now = openNow();
        defer bench.still = now;
        const before = bench.still orelse return;
        if (now.descriptor != before.descriptor)
            bench.complain("descriptors are left open: {d}", .{now.descriptor});
        if (now.pages != before.pages)
            bench.complain("mappings are left: {d} pages", .{now.pages -% before.pages});
    }

    /// The lowest free descriptor, and the size of the address space.
    fn openNow() Open {
        const descriptor = linux.dup(2);
        os.close(@intCast(descriptor));
        var fault: shmap.status.Fault = .{};
        const path = os.Path.of("/proc/self/statm", .{}) catch unreachable; // a constant
        const fd = os.open(&fault, &path, .read) catch return .{ .descriptor = 0, .pages = 0 };
        defer os.close(fd);
        var text: [64]u8 = undefined;
        const len = os.readAt(&fault, fd, &text, 0) catch 0;
        const end = std.mem.indexOfScalar(u8, text[0..len], ' ') orelse 0;
        const pages = std.fmt.parseInt(u64, text[0..end], 10) catch 0;
        return .{ .descriptor = descriptor, .pages = pages };
    }
};
