//! What one handle has mapped of its segment's file: the whole file, more than once.
//!
//! When a mapping is outgrown the file is mapped once more, from its beginning and at least twice
//! as far. What was mapped before stays, at its address, until the handle closes: all mappings show
//! the same bytes, so every pointer into an older one stays right, a mutex is unlocked at the
//! address it was locked at, by which the kernel finds it when its owner dies, and a thread that
//! sleeps on a wake sequence sleeps on. All mappings together take less than twice the last.

const std = @import("std");
const builtin = @import("builtin");
const atomics = @import("../atomics.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const status = @import("../status.zig");

const Error = status.Error;
const Fault = status.Fault;

/// A mapping reserves at least this; address space without bytes behind it costs nothing.
const bytes_min = 64 << 20;
/// The same where the process may not have as much address space as it likes.
const limited_bytes_min = 256 * 1024;
/// As many as there can be while each is twice as long as the one before, and more where the system
/// refuses that: then each growth takes one.
pub const count_max = 32;

/// What tests and proofs change, in builds that have trials (`atomics.has_trials`).
pub const Trial = struct {
    /// Whether each mapping ends where the segment does, so that every growth makes another: what
    /// would be met behind 64 MiB is then met at once. Null: SHMAP_SMALL_MAPPINGS decides.
    small: ?bool = null,
    /// How many mappings a handle may have.
    count: usize = list_len,
};

pub var trial: if (atomics.has_trials) Trial else void = if (atomics.has_trials) .{} else {};
const list_len = if (atomics.has_trials) 1024 else count_max;

pub fn areSmall() bool {
    if (!atomics.has_trials) return false;
    if (trial.small) |small| return small;
    trial.small = builtin.os.tag != .windows and std.c.getenv("SHMAP_SMALL_MAPPINGS") != null;
    return trial.small.?;
}

fn countMost() usize {
    if (!atomics.has_trials) return count_max;
    return if (areSmall()) trial.count else @min(trial.count, count_max);
}

pub const Mapping = struct { base: os.Base, bytes: u64 };

pub const Mappings = struct {
    file: os.Fd,
    access: os.Access,
    fault: *Fault,
    list: [list_len]Mapping,
    /// How many there are. The first is the one by which mutexes and wake sequences are known.
    count: usize,

    pub fn of(file: os.Fd, access: os.Access, fault: *Fault) Mappings {
        return .{
            .file = file,
            .access = access,
            .fault = fault,
            .list = undefined,
            .count = 0,
        };
    }

    pub fn slice(mappings: *const Mappings) []const Mapping {
        return mappings.list[0..mappings.count];
    }

    /// Where in the file an address is; null: in no mapping.
    pub fn offsetOf(mappings: *const Mappings, address: usize) ?u64 {
        for (mappings.slice()) |mapping| {
            const offset = address -% @intFromPtr(mapping.base);
            if (offset < mapping.bytes) return offset;
        }
        return null;
    }

    /// Maps the file once more: `least` bytes, or as many more as the system allows, at most
    /// `ceiling`. `NoSpace`: there is no address space, and nothing has changed.
    pub fn add(mappings: *Mappings, least: u64, ceiling: u64) Error!Mapping {
        const present = if (mappings.count > 0) mappings.list[mappings.count - 1].bytes else 0;
        std.debug.assert(least > present and least <= ceiling);
        if (mappings.count >= countMost()) {
            mappings.fault.errno = 0; // no call of the system has said so
            return os.noAddresses(mappings.fault, least);
        }
        const new = try mappings.map(least, @min(ceiling, wantedFor(least, present)));
        // The page tables of the one before would count every page a second time.
        if (mappings.count > 0) os.forget(mappings.list[mappings.count - 1].base, present);
        mappings.list[mappings.count] = new;
        mappings.count += 1;
        return new;
    }

    fn wantedFor(least: u64, present: u64) u64 {
        if (areSmall()) return least;
        const min: u64 = if (os.addressLimit() == null) bytes_min else limited_bytes_min;
        return @max(2 *| least, 2 *| present, min);
    }

    fn map(mappings: *Mappings, least: u64, wanted: u64) Error!Mapping {
        var bytes = wanted;
        while (true) {
            const mapped = os.map(mappings.fault, mappings.file, bytes, mappings.access);
            if (mapped) |base| return .{ .base = base, .bytes = bytes } else |err| {
                if (err != error.NoSpace or bytes == least) return err;
                const half = std.mem.alignForward(u64, bytes / 2, layout.page_bytes);
                bytes = @max(least, half);
            }
        }
    }

    pub fn unmapAll(mappings: *Mappings) void {
        for (mappings.slice()) |mapping| os.unmap(mapping.base, mapping.bytes);
        mappings.count = 0;
    }
};

test "each mapping is twice the one before, all show the same bytes, and none goes before the end" {
    const before = trial;
    trial = .{ .small = false };
    defer trial = before;
    var fault: Fault = .{};
    const made = try testFile(&fault);
    defer made.close();
    var mappings: Mappings = .of(made.file, .read_write, &fault);
    defer mappings.unmapAll();
    const first = try mappings.add(layout.page_bytes, 1 << 40);
    try std.testing.expectEqual(@as(u64, bytes_min), first.bytes);
    first.base[100] = 1;
    const second = try mappings.add(bytes_min + layout.page_bytes, 1 << 40);
    try std.testing.expectEqual(@as(u64, 2 * (bytes_min + layout.page_bytes)), second.bytes);
    try std.testing.expectEqual(@as(u8, 1), second.base[100]);
    second.base[100] = 2;
    try std.testing.expectEqual(@as(u8, 2), first.base[100]);
    // The ceiling bounds what is reserved, and `least` what is asked for at least.
    const third = try mappings.add(second.bytes + layout.page_bytes, second.bytes * 2);
    try std.testing.expectEqual(second.bytes * 2, third.bytes);
}

test "a handle that may map no more says so, and by how much" {
    var fault: Fault = .{};
    const made = try testFile(&fault);
    defer made.close();
    const before = trial;
    trial = .{ .small = true };
    defer trial = before;
    var mappings: Mappings = .of(made.file, .read_write, &fault);
    defer mappings.unmapAll();
    for (1..count_max + 1) |n| _ = try mappings.add(n * layout.page_bytes, 1 << 40);
    trial.small = false;
    const least = (count_max + 1) * layout.page_bytes;
    try std.testing.expectError(error.NoSpace, mappings.add(least, 1 << 40));
    try std.testing.expectEqual(@as(f64, least), fault.needed_bytes);
    const reason: f64 = @floatFromInt(@intFromEnum(status.Reason.addressSpace));
    try std.testing.expectEqual(reason, fault.reason);
    try std.testing.expectEqual(@as(usize, count_max), mappings.count);
}

const TestFile = struct {
    file: os.Fd,
    path: ?os.Path,

    fn close(made: TestFile) void {
        var fault: Fault = .{};
        os.close(made.file);
        if (made.path) |*path| os.unlink(&fault, path) catch {};
    }
};

fn testFile(fault: *Fault) !TestFile {
    var made: TestFile = .{ .file = os.no_file, .path = null };
    if (os.has_memory_files) {
        made.file = try os.memoryFile(fault);
    } else {
        const directory = try os.defaultDirectory(fault);
        made.path = try os.Path.of("{s}/.mappings{x}", .{ directory.slice(), os.randomWord() });
        made.file = try os.openNew(fault, &made.path.?);
    }
    try os.allocate(fault, made.file, 0, layout.page_bytes);
    return made;
}
