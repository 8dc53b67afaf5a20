//! The temporary names under which makers of a segment work, `.<name>.~<16 hex>`, and how those of
//! dead makers go.
//!
//! A temporary name is judged by LIFECYCLE and by the file it leads to, never by what is inside: a
//! living maker holds LIFECYCLE on the file. The first few names of each segment are known, so an
//! open finds what a dead maker left under them by four system calls, however many other files lie
//! beside. A random name is taken only where all of those are.

const std = @import("std");
const atomics = @import("../atomics.zig");
const layout = @import("../layout.zig");
const file_checks = @import("file_checks.zig");
const os = @import("../os/os.zig");
const headers = @import("header.zig");
const status = @import("../status.zig");
const unnamed_file = @import("unnamed_file.zig");

const Error = status.Error;
const Fault = status.Fault;

/// So many temporary names of a segment are known. A maker that meets all of them taken, by living
/// makers or by files that are not ours, takes a random one.
pub const known_names = 4;

pub fn pathOf(directory: *const os.Path, name: []const u8, number: u64) Error!os.Path {
    return os.Path.of("{s}/.{s}" ++ unnamed_file.name_format, .{ directory.slice(), name, number });
}

/// The names that a maker may take, in the order in which it tries them, without end.
pub const Candidates = struct {
    directory: *const os.Path,
    name: []const u8,
    tried: u64 = 0,

    pub fn next(candidates: *Candidates) Error!os.Path {
        const number = if (candidates.tried < known_names) candidates.tried else os.randomWord();
        candidates.tried += 1;
        return pathOf(candidates.directory, candidates.name, number);
    }
};

/// Takes a temporary name away, if it still leads to this file. The caller holds LIFECYCLE on the
/// file, so no other process takes the name away after the look, for another maker to have it.
pub fn remove(path: *const os.Path, file: os.Fd) void {
    var fault: Fault = .{};
    if (unnamed_file.leadsTo(path, file)) os.unlink(&fault, path) catch {}; // it is reaped later
}

/// Removes the temporary names of dead makers: those of `name`, or of all names when it is empty.
/// Reads the whole directory, so no open does this: a list does, and some makers (`reapSometimes`).
pub fn reap(directory: *const os.Path, name: []const u8) Error!void {
    var fault: Fault = .{}; // what others left behind is not this call's failure
    var names = try os.namesIn(&fault, directory);
    defer names.close();
    while (try names.next(&fault)) |entry| {
        const official = officialOf(entry) orelse continue;
        if (name.len > 0 and !std.mem.eql(u8, name, official)) continue;
        const path = try os.Path.of("{s}/{s}", .{ directory.slice(), entry });
        reapAt(directory, &path, official) catch continue;
    }
}

/// As `reap` of one name, as far as its temporary names are known: without reading the directory.
pub fn reapKnown(directory: *const os.Path, name: []const u8) void {
    for (0..known_names) |number| {
        const path = pathOf(directory, name, number) catch return;
        reapAt(directory, &path, name) catch continue; // mostly there is none
    }
}

/// As `reap` of one name, by one in many of those who call it: makers that need a temporary name.
/// So the random ones of dead makers go, too, and those that older versions left.
pub fn reapSometimes(directory: *const os.Path, name: []const u8) void {
    if (unnamed_file.isDue()) reap(directory, name) catch {}; // as above
}

/// Removes a temporary name of `official` if its maker died. Fails if there is nothing to remove.
pub fn reapAt(directory: *const os.Path, path: *const os.Path, official: []const u8) Error!void {
    var record: Fault = .{};
    const fault = &record;
    const orphan: unnamed_file.Orphan = try .open(fault, path);
    defer orphan.close();
    const file = orphan.file;
    if (headers.readHeader(fault, file)) |header| {
        const real = try os.Path.of("{s}/{s}", .{ directory.slice(), official });
        const named = os.statName(fault, &real);
        const displaced = if (named) |stat| !stat.same(orphan.stat) else |err| blk: {
            if (err != error.NotFound) return err;
            break :blk true;
        };
        if (displaced and file_checks.mayStoreTo(&header)) try markReplaced(fault, file);
    } else |_| {
        // Never completed, so no handle can be attached; but only if it is not another file.
        var start: [8]u8 = @splat(0);
        _ = try os.readAt(fault, file, &start, 0);
        if (!std.mem.allEqual(u8, &start, 0)) return;
    }
    try os.unlink(fault, path);
}

fn markReplaced(fault: *Fault, file: os.Fd) Error!void {
    const header = try file_checks.mapHeader(fault, file);
    defer file_checks.unmapHeader(header);
    if (atomics.loadAcquire(&header.state) == @intFromEnum(layout.State.unlinked)) return;
    atomics.storeRelease(&header.state, @intFromEnum(layout.State.replaced));
}

/// The name a temporary name was made for, or null.
fn officialOf(entry: []const u8) ?[]const u8 {
    if (entry.len <= 1 + unnamed_file.name_bytes or entry[0] != '.') return null;
    const end = entry.len - unnamed_file.name_bytes;
    return if (unnamed_file.numberOf(entry[end..]) == null) null else entry[1..end];
}

test officialOf {
    try std.testing.expectEqualStrings("jobs", officialOf(".jobs.~0123456789abcdef").?);
    try std.testing.expectEqualStrings("a.~b", officialOf(".a.~b.~0123456789abcdef").?);
    try std.testing.expect(officialOf(".jobs.swp") == null);
    try std.testing.expect(officialOf(".jobs.~0123456789abcdeg") == null);
    try std.testing.expect(officialOf("..~0123456789abcdef") == null);
}

test "the names of dead makers go without a look at the directory, and those of living ones stay" {
    const support = @import("../testing/support.zig");
    const range_lock = @import("../lock/range_lock.zig");
    var fault: Fault = .{};
    const directory = try os.Path.of("{s}", .{support.directory_of_files});
    const name = try os.Path.of("shmap-names-{x}", .{os.randomWord()});
    var candidates: Candidates = .{ .directory = &directory, .name = name.slice() };
    var paths: [known_names]os.Path = undefined;
    var files: [known_names]os.Fd = undefined;
    for (&paths, &files) |*path, *file| {
        path.* = try candidates.next();
        file.* = try os.openNew(&fault, path);
    }
    defer for (&paths, files) |*path, file| {
        os.unlink(&fault, path) catch {};
        os.close(file);
    };
    // A maker that lives, and a file that is not ours.
    const living = try os.openAgain(&fault, files[1], .read_write);
    defer os.close(living);
    try std.testing.expect(try range_lock.tryLock(&fault, living, .lifecycle, .exclusive));
    _ = try os.writeAt(&fault, files[2], "a letter to a friend", 0);
    const before = os.directory_reads;
    reapKnown(&directory, name.slice());
    try std.testing.expectEqual(before, os.directory_reads);
    for (&paths, 0..) |*path, number| {
        const stays = number == 1 or number == 2;
        const found = if (os.statName(&fault, path)) |_| true else |_| false;
        try std.testing.expectEqual(stays, found);
    }
    // Behind the known names come random ones.
    const random = try candidates.next();
    for (&paths) |*path| try std.testing.expect(!std.mem.eql(u8, path.slice(), random.slice()));
    // Another maker has the first name by now: it is not taken from it.
    const other = try os.openNew(&fault, &paths[0]);
    defer os.close(other);
    remove(&paths[0], files[0]);
    _ = try os.statName(&fault, &paths[0]);
    remove(&paths[0], other);
    try std.testing.expectError(error.NotFound, os.statName(&fault, &paths[0]));
}
