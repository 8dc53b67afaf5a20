//! What the tests and the proofs share: ways to open and close maps without the boundary, and the
//! random keys and values they work with.

const std = @import("std");
const calls = @import("calls.zig");
const builtin = @import("builtin");
const directory = @import("../segment/directory.zig");
const handles = @import("../abi/handles.zig");
const attach = @import("../map/attach.zig");
const layout = @import("../layout.zig");
const maps = @import("../map/map.zig");
const os = @import("../os/os.zig");
const segments = @import("../segment/segment.zig");
const spaces = @import("../stripe/space.zig");
const status = @import("../status.zig");
const stripe_lock = @import("../lock/stripe_lock.zig");

const Map = maps.Map;

/// Whether a test can go on in a child that it forks, and judge its end. Elsewhere it is skipped.
pub const has_forks = builtin.os.tag == .linux;
/// The lock of a segment that is not told which.
pub const usual_lock: layout.LockKind = if (os.has_robust_mutex) .robust else .kernel;
/// Where tests put files of a user's.
pub const directory_of_files = if (builtin.os.tag == .windows) "." else "/tmp";

/// How often to repeat what takes a lock: less where each lock is a call of the system or two.
pub fn times(count: u64) u64 {
    return if (builtin.os.tag == .windows) count / 10 else count;
}

/// A map ready for one of the ways to open it (`attach.zig`, `directory.zig`).
pub fn prepared(fault: *status.Fault, options: *const segments.Options) !*Map {
    const map = try handles.maps.create(fault);
    attach.prepare(map, options);
    return map;
}

pub fn openMap(stripe_bits: u6, max_bytes: u64) !*Map {
    return openMapOf(usual_lock, stripe_bits, max_bytes);
}

pub fn openMapOf(lock: layout.LockKind, stripe_bits: u6, max_bytes: u64) !*Map {
    var fault: status.Fault = .{};
    const options: segments.Options = .{
        .recover = attach.recoverSegment,
        .lock = lock,
        .stripe_bits = stripe_bits,
        .max_bytes = max_bytes,
        .timeout_ms = 10_000,
    };
    const map = try prepared(&fault, &options);
    errdefer calls.discard(map);
    try directory.anonymous(&map.segment, &options);
    map.begin();
    return map;
}

/// One more handle on an anonymous map.
pub fn openAgain(map: *Map, timeout_ms: f64) !*Map {
    var buffer: [200]u8 = undefined;
    return openToken(buffer[0..try map.segment.token(&buffer)], timeout_ms);
}

/// One more handle on an anonymous map, for reading only.
pub fn openReader(map: *Map, timeout_ms: f64) !*Map {
    var buffer: [200]u8 = undefined;
    return openTokenFor(.read, buffer[0..try map.segment.token(&buffer)], timeout_ms);
}

pub fn openToken(token: []const u8, timeout_ms: f64) !*Map {
    return openTokenFor(.read_write, token, timeout_ms);
}

fn openTokenFor(access: os.Access, token: []const u8, timeout_ms: f64) !*Map {
    var fault: status.Fault = .{};
    var options: segments.Options = .{
        .recover = attach.recoverSegment,
        .readonly = access == .read,
        .timeout_ms = timeout_ms,
    };
    const other = try prepared(&fault, &options);
    errdefer calls.discard(other);
    try directory.attachToken(&other.segment, token, &options);
    other.begin();
    return other;
}

pub fn closeMap(map: *Map) void {
    map.close();
    calls.discard(map);
}

pub fn expectSound(map: *Map) !void {
    const verdict = try calls.verify(map);
    if (verdict.problems != 0 or verdict.busy != 0) {
        std.debug.print("verify: {any}\n", .{verdict});
        return error.TestUnexpectedResult;
    }
    try std.testing.expectEqual(verdict.entries, @as(f64, @floatFromInt(try calls.size(map))));
    const blocks = try Blocks.of(map) orelse return;
    if (!blocks.areRight()) {
        std.debug.print("{any}\n", .{blocks});
        return error.TestUnexpectedResult;
    }
}

/// What the file of a segment takes of its file system, beside what the segment's words say.
pub const Blocks = struct {
    allocated: u64,
    /// By `committed` and the holes of all extents that park.
    told: u64,
    /// Behind `committed`: what a writer left that died while it grew the segment, until the next
    /// sole writer cuts it off.
    behind: u64,

    /// With the pool's lock, so that no process allocates or punches meanwhile. Null: there is
    /// nothing to compare.
    pub fn of(map: *Map) !?Blocks {
        const segment = &map.segment;
        if (!os.has_holes or segment.readonly) return null;
        segment.deadline = .in(10_000);
        _ = try spaces.lockPool(segment);
        defer spaces.unlockPool(segment);
        const stat = try os.stat(segment.fault, segment.file);
        return .{
            .allocated = stat.allocated,
            .told = segment.blockBytes(),
            .behind = stat.size -| segment.view.committed,
        };
    }

    /// No fewer, or a store would be a signal where the file system is full; and no more, or the
    /// memory of what is gone would not come back.
    pub fn areRight(blocks: Blocks) bool {
        return blocks.allocated >= blocks.told and
            blocks.allocated <= blocks.told + blocks.behind;
    }
};

/// What a test changes in the `trial` of a module, from `with` to `end`.
pub fn Trying(comptime module: type) type {
    return struct {
        before: module.Trial,

        const Self = @This();

        pub fn with(trial: module.Trial) Self {
            const trying: Self = .{ .before = module.trial };
            module.trial = trial;
            return trying;
        }

        pub fn end(trying: Self) void {
            module.trial = trying.before;
        }
    };
}

/// Zeroed memory for one `T` that forked processes share. It is not unmapped: it ends with them.
pub fn shared(comptime T: type) !*T {
    const memory = try std.posix.mmap(
        null,
        std.mem.alignForward(usize, @sizeOf(T), layout.page_bytes),
        .{ .READ = true, .WRITE = true },
        .{ .TYPE = .SHARED, .ANONYMOUS = true },
        -1,
        0,
    );
    return @ptrCast(memory.ptr);
}

/// What the kernel leaves in the lock word of a robust mutex whose owner died.
pub const owner_died: u32 = 1 << 30;

/// Which half-word of a mutex the kernel marks when its owner dies: this libc's, by trying it.
pub fn mutexWord() !usize {
    const Lock = struct {
        var mutex: [64]u8 align(64) = undefined;

        fn takeAndDie() void {
            var fault: status.Fault = .{};
            const lock: stripe_lock.StripeLock = .{ .robust = &mutex };
            var deadline: os.Deadline = .in(1000);
            // On an error nothing is marked, and that is noticed.
            _ = lock.lock(&fault, &deadline) catch {};
        }
    };
    try stripe_lock.init(&Lock.mutex);
    (try std.Thread.spawn(.{}, Lock.takeAndDie, .{})).join();
    const halves: *const [16]u32 = @ptrCast(&Lock.mutex);
    for (halves, 0..) |half, i| if (half == owner_died) return i;
    return error.NoSuchMutex;
}

pub fn seedOf(default: u64) u64 {
    if (builtin.os.tag == .windows) return default;
    const text = std.testing.environ.getPosix("SHMAP_SEED") orelse return default;
    return std.fmt.parseInt(u64, text, 10) catch default;
}

/// An amount of work at the default size, more or less of it by SHMAP_TEST_SCALE; at least 1.
pub fn scaled(amount: u64) u64 {
    if (builtin.os.tag == .windows) return amount;
    const text = std.testing.environ.getPosix("SHMAP_TEST_SCALE") orelse return amount;
    const scale = std.fmt.parseFloat(f64, text) catch return amount;
    return @max(1, @as(u64, @intFromFloat(@as(f64, @floatFromInt(amount)) * scale)));
}

/// Random keys and values, the same for the same seed.
pub const Source = struct {
    random: std.Random,
    key_buffer: [600]u8 = undefined,
    value_buffer: [40_000]u8 = undefined,

    pub fn key(source: *Source, count: u32) []const u8 {
        const n = source.random.uintLessThan(u32, count);
        const len = 4 + (n * 7) % (if (n % 11 == 0) @as(u32, 500) else 20);
        @memset(source.key_buffer[0..len], 'k');
        std.mem.writeInt(u32, source.key_buffer[0..4], n, .little);
        return source.key_buffer[0..len];
    }

    pub fn value(source: *Source) []const u8 {
        const len = switch (source.random.uintLessThan(u8, 20)) {
            0 => 0,
            1 => source.random.uintLessThan(usize, source.value_buffer.len),
            2...4 => source.random.uintLessThan(usize, 2000),
            else => source.random.uintLessThan(usize, 60),
        };
        source.random.bytes(source.value_buffer[0..len]);
        return source.value_buffer[0..len];
    }
};
