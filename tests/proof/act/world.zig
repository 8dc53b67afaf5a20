//! What the processes of one case share, and how each of them looks at a map: through the exported
//! functions alone, key by key.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const Flags = shmap.marshal.Flags;
const linux = std.os.linux;

pub const codec = "msgpackr";
pub const name = "map";
/// The most a segment here may take: room for the growth, few stripes.
const ceiling_bytes: f64 = 7 << 20;
const timeout_ms = 3000;

/// How many keys are looked at.
pub const key_count = 27;
/// What all processes see of a key: the number of its value, or one of these.
pub const absent = 0;
pub const wrong = 255;
pub const Content = [key_count]u8;

pub const Report = extern struct {
    /// What the act returned, or the first failure of its steps.
    status: f64 = 0,
    /// What the library noted of that failure.
    errno: f64 = 0,
    /// Descriptors and pages of address space before the act, and when all was closed again.
    before: [2]u32 = .{ 0, 0 },
    after: [2]u32 = .{ 0, 0 },
    is_done: bool = false,
    /// The act ended, and the same call made again did what it is for.
    is_repeated: bool = false,
    content: Content = @splat(wrong),
    trouble_len: u32 = 0,
    trouble: [240]u8 = undefined,

    /// The first thing that went wrong, in words.
    pub fn complain(report: *Report, comptime format: []const u8, parts: anytype) void {
        if (report.trouble_len > 0) return;
        const text = std.fmt.bufPrint(&report.trouble, format, parts) catch &report.trouble;
        report.trouble_len = @intCast(text.len);
    }

    pub fn troubles(report: *const Report) []const u8 {
        return report.trouble[0..report.trouble_len];
    }
};

/// A page shared by the processes of a case.
pub const World = extern struct {
    actor: Report = .{},
    keeper: Report = .{},
    checker: Report = .{},
    preparer: Report = .{},
    /// What the checker found before it opened anything.
    was_named: bool = false,
    recovered: f64 = 0,
    file_bytes: u64 = 0,
    token_len: u32 = 0,
    token: [200]u8 = undefined,
};

var value_room: [3 << 20]u8 = undefined;
var read_room: [3 << 20]u8 = undefined;

fn lengthOf(key: usize, number: u8) usize {
    return switch (number) {
        3 => 10_240,
        4 => 2_600_000,
        5 => 12_288,
        else => 30 + key + number,
    };
}

fn valueOf(key: usize, number: u8) []const u8 {
    const bytes = value_room[0..lengthOf(key, number)];
    var fill = std.Random.DefaultPrng.init(key * 256 + number);
    fill.fill(bytes);
    return bytes;
}

/// A map, or a value, as one process sees it.
pub const Seen = struct {
    handle: u32,
    is_value: bool,

    fn keyOf(buffer: *[16]u8, key: usize) []const u8 {
        return std.fmt.bufPrint(buffer, "key {d}", .{key}) catch unreachable; // fits
    }

    pub fn put(seen: Seen, key: usize, number: u8) i32 {
        const value = valueOf(key, number);
        const len: u32 = @intCast(value.len);
        if (seen.is_value) return calls.call(.shm_value_put, .{ seen.handle, value.ptr, len, 1 });
        var buffer: [16]u8 = undefined;
        const text = keyOf(&buffer, key);
        return calls.call(.shm_map_put, .{
            seen.handle,
            text.ptr,
            calls.word(text.len),
            value.ptr,
            len,
            1,
        });
    }

    pub fn delete(seen: Seen, key: usize) i32 {
        var buffer: [16]u8 = undefined;
        const text = keyOf(&buffer, key);
        return calls.call(.shm_map_delete, .{ seen.handle, text.ptr, calls.word(text.len) });
    }

    /// The number of the value a key has. Below zero: a failure.
    pub fn get(seen: Seen, key: usize) i32 {
        var buffer: [16]u8 = undefined;
        const text = keyOf(&buffer, key);
        const len = if (seen.is_value)
            calls.call(.shm_value_get, .{ seen.handle, 0, &read_room, read_room.len })
        else
            calls.call(.shm_map_get, .{
                seen.handle,
                text.ptr,
                calls.word(text.len),
                &read_room,
                read_room.len,
            });
        if (len == -1) return absent;
        if (len < 0) return len;
        for (1..6) |number| {
            const bytes = valueOf(key, @intCast(number));
            if (std.mem.eql(u8, bytes, read_room[0..@intCast(len)])) return @intCast(number);
        }
        return wrong;
    }

    /// Every key's number. Below zero: the first failure.
    pub fn look(seen: Seen, content: *Content) i32 {
        content.* = @splat(absent);
        const count: usize = if (seen.is_value) 1 else key_count;
        for (0..count) |key| {
            const number = seen.get(key);
            if (number < 0) return number;
            content[key] = @intCast(number);
        }
        return 0;
    }

    /// Complains of every invariant that does not hold.
    pub fn expectSound(seen: Seen, report: *Report) void {
        var verdict: [6]f64 = undefined;
        const bytes = std.mem.asBytes(&verdict);
        const len = calls.call(.shm_map_verify, .{ seen.handle, 0, bytes, bytes.len });
        if (len < 0) return report.complain("verify: status {d}", .{len});
        if (verdict[5] != 0) report.complain("verify: {d} parts are busy", .{verdict[5]});
        if (verdict[0] != 0)
            report.complain("verify: {d} problems, reason {d}", .{ verdict[0], verdict[3] });
    }

    /// The same, and that what can be read is what is counted: there are no other keys.
    pub fn examine(seen: Seen, report: *Report) void {
        seen.expectSound(report);
        var live: f64 = 0;
        var content: Content = undefined;
        const found = seen.look(&content);
        if (found < 0) report.complain("reading: status {d}", .{found});
        for (content, 0..) |number, key| {
            if (number == wrong) report.complain("key {d} has a value that no act stored", .{key});
            live += @floatFromInt(@intFromBool(number != absent));
        }
        const size = calls.call(.shm_map_size, .{seen.handle});
        if (size != live) report.complain("size {d} of {d} entries", .{ size, live });
    }

    /// What the library noted of the last failure on this handle.
    pub fn errno(seen: Seen) f64 {
        var fault: shmap.status.Fault = .{};
        _ = calls.call(.shm_fault, .{ seen.handle, std.mem.asBytes(&fault) });
        return fault.errno;
    }
};

/// What all maps are at first: small values, and one with chunks of its own.
pub fn base(is_value: bool) Content {
    var content: Content = @splat(absent);
    const small: usize = if (is_value) 1 else 24;
    @memset(content[0..small], 1);
    if (!is_value) content[24] = 3;
    return content;
}

/// Opens the map of the case.
pub fn open(directory: []const u8, flags: u32, fault: *shmap.status.Fault) i32 {
    return openAs(directory, name, flags, fault);
}

pub fn openAs(
    directory: []const u8,
    called: []const u8,
    flags: u32,
    fault: *shmap.status.Fault,
) i32 {
    const attaches = @intFromEnum(Flags.modeAttach) | @intFromEnum(Flags.readonly);
    const most: f64 = if (flags & attaches == 0) ceiling_bytes else 0;
    return openUpTo(directory, called, flags, most, fault);
}

/// As `openAs`, with nothing stated of how large it may become.
pub fn openUnbounded(
    directory: []const u8,
    called: []const u8,
    flags: u32,
    fault: *shmap.status.Fault,
) i32 {
    return openUpTo(directory, called, flags, 0, fault);
}

fn openUpTo(
    directory: []const u8,
    called: []const u8,
    flags: u32,
    most_bytes: f64,
    fault: *shmap.status.Fault,
) i32 {
    return calls.call(.shm_segment_open, .{
        directory.ptr,
        calls.word(directory.len),
        called.ptr,
        calls.word(called.len),
        codec,
        codec.len,
        flags,
        0o600,
        most_bytes,
        timeout_ms,
        std.mem.asBytes(fault),
    });
}

pub fn attach(token: []const u8, fault: *shmap.status.Fault) i32 {
    const len: u32 = @intCast(token.len);
    const bytes = std.mem.asBytes(fault);
    return calls.call(.shm_segment_attach, .{
        token.ptr,
        len,
        codec,
        codec.len,
        0,
        timeout_ms,
        bytes,
    });
}

/// How many descriptors this process has, and how many pages of address space.
pub fn held() [2]u32 {
    var count: u32 = 0;
    for (3..64) |fd| {
        const flags = linux.fcntl(@intCast(fd), linux.F.GETFD, 0);
        count += @intFromBool(linux.errno(flags) == .SUCCESS);
    }
    var fault: shmap.status.Fault = .{};
    const path = shmap.os.Path.of("/proc/self/statm", .{}) catch unreachable; // a constant
    const fd = shmap.os.open(&fault, &path, .read) catch return .{ count, 0 };
    defer shmap.os.close(fd);
    var buffer: [64]u8 = undefined;
    const len = shmap.os.readAt(&fault, fd, &buffer, 0) catch 0;
    var words = std.mem.tokenizeScalar(u8, buffer[0..len], ' ');
    return .{ count, std.fmt.parseInt(u32, words.next() orelse "", 10) catch 0 };
}
