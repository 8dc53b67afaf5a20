//! A mapping that is outgrown while others hold pointers into it, and one that cannot grow.

const std = @import("std");
const atomics = @import("../atomics.zig");
const attach = @import("attach.zig");
const calls = @import("../testing/calls.zig");
const directory = @import("../segment/directory.zig");
const layout = @import("../layout.zig");
const mappings = @import("../segment/mappings.zig");
const os = @import("../os/os.zig");
const parked = @import("../stripe/parked.zig");
const gathered = @import("gathered.zig");
const headers = @import("../segment/header.zig");
const segments = @import("../segment/segment.zig");
const status = @import("../status.zig");
const support = @import("../testing/support.zig");
const tables = @import("../stripe/table.zig");
const Map = @import("map.zig").Map;

const linux = std.os.linux;
const large: [40_000]u8 = @splat('l');
const kept_bytes = 3000;

/// A trial for the length of a test.
const Trying = support.Trying(mappings);

fn expectAddressSpace(map: *const Map) !void {
    const reason: f64 = @floatFromInt(@intFromEnum(status.Reason.addressSpace));
    try std.testing.expectEqual(reason, map.fault.reason);
    try std.testing.expect(map.fault.needed_bytes > 0);
}

fn putNumbered(map: *Map, from: u32, to: u32) !void {
    for (from..to) |n| {
        var value: [kept_bytes]u8 = @splat(@truncate(n));
        _ = try calls.put(map, std.mem.asBytes(&@as(u32, @intCast(n))), &value, 1, .none);
    }
}

fn expectNumbered(map: *Map, from: u32, to: u32) !void {
    var room: [kept_bytes + 64]u8 = undefined;
    for (from..to) |n| {
        const key = std.mem.asBytes(&@as(u32, @intCast(n)));
        const value = (try calls.get(map, key, &room, 0)).?;
        try std.testing.expectEqual(@as(u32, kept_bytes), value.len);
        try std.testing.expect(std.mem.allEqual(u8, room[0..value.len], @truncate(n)));
    }
}

/// Whether the entry of a key begins before a place and ends behind it.
fn straddles(map: *Map, key: []const u8, place: u64) !bool {
    const hash = map.hashOf(key);
    const view = &map.segment.view;
    const table = tables.Table.of(view, view.stripe(hash.stripe).table);
    var probe: tables.Probe = undefined;
    const tag = map.tagFor(table, hash, key);
    try std.testing.expectEqual(.found, tables.find(view, table, tag, key, &probe));
    const entry = probe.entry;
    return entry.offset + @sizeOf(layout.Entry) <= place and entry.offset + entry.bytes() > place;
}

test "an entry that begins below the end of a mapping and ends behind it is read whole" {
    const trying: Trying = .with(.{ .small = true });
    defer trying.end();
    // Small extents end where the segment does.
    const extents: support.Trying(parked) = .with(.{ .small = false });
    defer extents.end();
    var room: [large.len + 64]u8 = undefined;
    var straddling: u32 = 0;
    for (1..40) |round| {
        const writer = try support.openMap(0, 0);
        defer support.closeMap(writer);
        _ = try calls.put(writer, "first", large[0 .. 977 * round], 1, .none);
        const lister = try support.openAgain(writer, 10_000);
        defer support.closeMap(lister);
        const reader = try support.openReader(writer, 10_000);
        defer support.closeMap(reader);
        const end = reader.segment.view.mapped;
        for (0..6) |n| _ = try calls.put(writer, &.{@intCast(n)}, large[0..30_000], 1, .none);
        for (0..6) |n| straddling += @intFromBool(try straddles(writer, &.{@intCast(n)}, end));
        // As the first of all that they read there.
        _ = try calls.snapshot(lister);
        var at: usize = 0;
        while (at < lister.gathered_len) : (at += gathered.recordBytes(lister.gathered, at)) {
            const key = gathered.keyOf(lister.gathered, at);
            const len = if (key.len == 1) 30_000 else 977 * round;
            const value = lister.gathered[at + @sizeOf(gathered.Record) + key.len ..][0..len];
            try std.testing.expect(std.mem.allEqual(u8, value, 'l'));
        }
        for (0..6) |n| {
            const value = (try calls.get(reader, &.{@intCast(n)}, &room, 0)).?;
            try std.testing.expectEqual(@as(u32, 30_000), value.len);
            try std.testing.expect(std.mem.allEqual(u8, room[0..value.len], 'l'));
        }
    }
    try std.testing.expect(straddling > 0);
}

test "what was mapped stays mapped, and two handles grow past each other" {
    const trying: Trying = .with(.{ .small = true });
    defer trying.end();
    for ([_]layout.LockKind{ support.usual_lock, .kernel }) |lock| {
        const first = try support.openMapOf(lock, 2, 0);
        defer support.closeMap(first);
        const second = try support.openAgain(first, 10_000);
        defer support.closeMap(second);
        const front = first.segment.front;
        for (0..20) |round| {
            const from: u32 = @intCast(round * 100);
            const map = if (round % 2 == 0) first else second;
            try putNumbered(map, from, from + 100);
            _ = try calls.put(map, "replaced", large[0 .. round * 1900], 1, .none);
            _ = try calls.delete(map, std.mem.asBytes(&@as(u32, from)));
            try putNumbered(map, from, from + 1);
        }
        try std.testing.expect(first.segment.mappings.count > 10);
        for ([_]*Map{ first, second }) |map| {
            try expectNumbered(map, 0, 2000);
            try support.expectSound(map);
        }
        // Every mapping shows the same header, the first one where it always was.
        try std.testing.expectEqual(front, first.segment.front);
        for (first.segment.mappings.slice()) |mapping| {
            const header: *const layout.Header = @ptrCast(mapping.base);
            try std.testing.expectEqual(first.segment.header().id, header.id);
            try std.testing.expectEqual(first.segment.header().committed, header.committed);
        }
    }
}

test "bytes for which there is no address space are NoSpace, and no damage" {
    const trying: Trying = .with(.{ .small = true });
    defer trying.end();
    const full = try support.openMap(2, 0);
    defer support.closeMap(full);
    try putNumbered(full, 0, 40);
    const limited = try support.openAgain(full, 10_000);
    defer support.closeMap(limited);
    try expectNumbered(limited, 0, 40);
    try putNumbered(full, 40, 400);
    mappings.trial.count = limited.segment.mappings.count;
    var room: [4000]u8 = undefined;
    var refused: u32 = 0;
    for (0..400) |n| {
        const key = std.mem.asBytes(&@as(u32, @intCast(n)));
        if (calls.get(limited, key, &room, 0)) |value| {
            try std.testing.expectEqual(@as(u32, kept_bytes), value.?.len);
        } else |err| {
            try std.testing.expectEqual(error.NoSpace, err);
            try expectAddressSpace(limited);
            refused += 1;
        }
        // Neither a write nor a check takes it for damage, and both leave the stripe as it was.
        _ = calls.put(limited, key, "short", 1, .none) catch |err| {
            try std.testing.expectEqual(error.NoSpace, err);
            try expectAddressSpace(limited);
        };
    }
    try std.testing.expect(refused > 0);
    try std.testing.expectError(error.NoSpace, calls.verify(limited));
    try std.testing.expectError(error.NoSpace, calls.snapshot(limited));
    try std.testing.expectError(error.NoSpace, calls.gatherStripe(limited, 0, false));
    try std.testing.expectEqual(@as(u64, 400), try calls.size(limited));
    mappings.trial.count = (mappings.Trial{}).count;
    for ([_]*Map{ full, limited }) |map| try support.expectSound(map);
    const stats = try calls.stats(limited);
    try std.testing.expectEqual(@as(f64, 0), stats.dropped);
    try std.testing.expectEqual(@as(f64, 0), stats.recoveries);
}

test "a recovery that cannot reach a chunk drops nothing" {
    const trying: Trying = .with(.{ .small = true });
    defer trying.end();
    const full = try support.openMap(0, 0);
    defer support.closeMap(full);
    // A table that both reach, for entries that only one does.
    for (0..200) |n|
        _ = try calls.put(full, std.mem.asBytes(&@as(u32, @intCast(n))), "tiny", 1, .none);
    const limited = try support.openAgain(full, 10_000);
    defer support.closeMap(limited);
    try putNumbered(full, 0, 200);
    // As a writer leaves it that dies behind its first store.
    atomics.store(&full.segment.stripe(0).writer, full.segment.writer_id);
    mappings.trial.count = limited.segment.mappings.count;
    for (0..3) |_| {
        try std.testing.expectError(error.NoSpace, calls.put(limited, "key", "v", 1, .none));
        try expectAddressSpace(limited);
        try std.testing.expectError(error.NoSpace, calls.repair(limited));
        const recovered = attach.recoverSegment(&limited.segment, true);
        try std.testing.expectError(error.NoSpace, recovered);
    }
    try std.testing.expect(full.segment.stripe(0).writer != 0);
    mappings.trial.count = (mappings.Trial{}).count;
    try expectNumbered(full, 0, 200);
    try putNumbered(full, 200, 201);
    try expectNumbered(full, 0, 201);
    try support.expectSound(full);
    try std.testing.expectEqual(@as(f64, 0), (try calls.stats(full)).dropped);
}

test "a growth that cannot be mapped gives its blocks back, and small values go on" {
    const trying: Trying = .with(.{ .small = true });
    defer trying.end();
    const map = try support.openMap(1, 0);
    defer support.closeMap(map);
    try putNumbered(map, 0, 100);
    const committed = map.segment.view.committed;
    mappings.trial.count = map.segment.mappings.count;
    var fault: status.Fault = .{};
    const huge = try os.pages(&fault, 10 << 20);
    defer os.freePages(huge);
    for (0..3) |_| {
        try std.testing.expectError(error.NoSpace, calls.put(map, "huge", huge, 1, .none));
        try expectAddressSpace(map);
        const stat = try os.stat(&fault, map.segment.file);
        if (os.removes_mapped_files) try std.testing.expectEqual(committed, stat.size);
        try std.testing.expectEqual(committed, map.segment.header().committed);
        try putNumbered(map, 0, 1);
    }
    try std.testing.expectEqual(@as(f64, 0), (try calls.stats(map)).recoveries);
    try support.expectSound(map);
    mappings.trial.count = (mappings.Trial{}).count;
    _ = try calls.put(map, "huge", huge, 1, .none);
    try support.expectSound(map);
}

/// A map with a name of its own in the usual directory.
const Named = struct {
    name_buffer: [40]u8,
    name: []const u8,

    fn of(named: *Named) !void {
        named.name = try std.fmt.bufPrint(&named.name_buffer, "shmap-test-{d}-{x}", .{
            os.pid(), os.randomWord(),
        });
    }

    fn open(named: *const Named, mode: directory.Mode) !*Map {
        var fault: status.Fault = .{};
        const options: segments.Options = .{
            .recover = attach.recoverSegment,
            .lock = support.usual_lock,
        };
        const map = try support.prepared(&fault, &options);
        errdefer calls.discard(map);
        try attach.openByName(map, "", named.name, mode, &options);
        return map;
    }

    fn file(named: *const Named) !os.Fd {
        var fault: status.Fault = .{};
        const where = try os.defaultDirectory(&fault);
        const path = try os.Path.of("{s}/{s}", .{ where.slice(), named.name });
        return os.open(&fault, &path, .read_write);
    }

    fn remove(named: *const Named) void {
        const map = named.open(.attach) catch return;
        _ = calls.unlinkOwn(map) catch {};
        support.closeMap(map);
    }
};

test "a file system bounds no segment, and a sole writer cuts off what a dead one had allocated" {
    if (!os.removes_mapped_files) return error.SkipZigTest; // a mapped file is not cut there
    var named: Named = undefined;
    try named.of();
    defer named.remove();
    const map = try named.open(.create);
    try std.testing.expectEqual(headers.ceiling_max, map.segment.header().ceiling);
    try std.testing.expectEqual(@as(f64, 0), (try calls.stats(map)).ceiling_bytes);
    try putNumbered(map, 0, 50);
    const committed = map.segment.view.committed;
    support.closeMap(map);

    var fault: status.Fault = .{};
    const file = try named.file();
    defer os.close(file);
    try os.allocate(&fault, file, committed, committed + (1 << 20));
    support.closeMap(try named.open(.attach));
    try std.testing.expectEqual(committed, (try os.stat(&fault, file)).size);

    // Where `committed` is damaged, more is in use than it says, and nothing is cut off.
    const base = try os.map(&fault, file, layout.page_bytes, .read_write);
    defer os.unmap(base, layout.page_bytes);
    const header: *layout.Header = @ptrCast(base);
    header.committed = layout.dataOffset(headers.stripeBits(header));
    header.committed = std.mem.alignForward(u64, header.committed, layout.page_bytes);
    for ([_]u64{ 1, 0 }) |clean| {
        header.clean = clean;
        if (named.open(.attach)) |other| support.closeMap(other) else |_| {}
        try std.testing.expectEqual(committed, (try os.stat(&fault, file)).size);
    }
    header.committed = committed;
}

/// Ends the process at the n-th store after a growth has mapped the file once more, while the locks
/// of a stripe and of the pool are held.
const Kill = struct {
    observer: atomics.Observer = .{ .seen = look },
    map: *Map,
    had: usize,
    left: u32,

    fn look(observer: *atomics.Observer, _: *const u64, _: u64) void {
        const kill: *Kill = @fieldParentPtr("observer", observer);
        if (kill.map.segment.mappings.count == kill.had) return;
        if (kill.left == 0) _ = linux.kill(@intCast(os.pid()), .KILL);
        kill.left -= 1;
    }
};

fn growAndDie(parent: *Map, token: []const u8, stores: u32) noreturn {
    os.close(parent.segment.locks);
    os.close(parent.segment.file);
    const map = support.openToken(token, 5000) catch linux.exit(1);
    var kill: Kill = .{ .map = map, .had = map.segment.mappings.count, .left = stores };
    atomics.observer = &kill.observer;
    for (0..1000) |n| {
        _ = calls.put(map, std.mem.asBytes(&n), large[0..9000], 1, .none) catch linux.exit(2);
        if (map.segment.mappings.count > kill.had) linux.exit(3);
    }
    linux.exit(4);
}

test "a process killed between a growth's mapping and its unlocks blocks no other" {
    if (!support.has_forks or !os.has_robust_mutex) return error.SkipZigTest;
    const trying: Trying = .with(.{ .small = true });
    defer trying.end();
    var killed: u32 = 0;
    var stores: u32 = 0;
    // Most stores of the call are those of the value.
    while (stores < 2000) : (stores += if (stores < 40) 1 else 43) {
        const map = try support.openMap(0, 0);
        defer support.closeMap(map);
        var buffer: [200]u8 = undefined;
        const token = buffer[0..try map.segment.token(&buffer)];
        const child = std.c.fork();
        if (child == 0) growAndDie(map, token, stores);
        var how: u32 = 0;
        _ = linux.waitpid(child, &how, 0);
        if (!linux.W.IFSIGNALED(how)) { // the growing call was over
            try std.testing.expectEqual(@as(u32, 3), linux.W.EXITSTATUS(how));
            break;
        }
        killed += 1;
        _ = try calls.put(map, "other", "goes on", 1, .none);
        try support.expectSound(map);
    }
    try std.testing.expect(killed > 40 and stores < 2000);
}
