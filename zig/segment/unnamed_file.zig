//! What takes the place of memory without a name where other processes cannot reach that: on
//! systems that have none, and on Linux for a process whose descriptors are closed to others. It is
//! a file with a random name of ours in the platform's directory, `.~<16 hex>`. The last handle
//! that leaves removes the name; where that handle was killed, a list does, or one of the next
//! makers: to look for such files is to read the directory, which may be long.
//!
//! A handle that uses such a file holds WRITER or READER on it. A handle that makes, attaches or
//! leaves holds LIFECYCLE meanwhile, so that no other removes the name of a file that is about to
//! be used.

const std = @import("std");
const os = @import("../os/os.zig");
const range_lock = @import("../lock/range_lock.zig");
const status = @import("../status.zig");

const Error = status.Error;
const Fault = status.Fault;

const mark = ".~";
/// A name of ours, of its number; and how long it is.
pub const name_format = mark ++ "{x:0>16}";
pub const name_bytes = mark.len + 16;

/// How long a handle that leaves waits for LIFECYCLE. A handle that holds it for longer is
/// attaching, and will leave later.
const patience_ms = 100;

pub const NewFile = struct { file: os.Fd, locks: os.Fd, number: u64 };

pub fn pathOf(fault: *Fault, number: u64) Error!os.Path {
    const directory = try os.defaultDirectory(fault);
    return os.Path.of("{s}/" ++ name_format, .{ directory.slice(), number });
}

/// One in so many makers of files with a name of ours reads the directory for what the dead left.
const due_every = 64;

/// Whether this maker is one of those. By chance, so that also processes that make one file each
/// read the directory as seldom.
pub fn isDue() bool {
    return os.randomWord() % due_every == 0;
}

/// A new empty file, opened twice, with LIFECYCLE held by the second description.
pub fn make(fault: *Fault, deadline: *os.Deadline) Error!NewFile {
    if (isDue()) reap() catch {}; // a leftover of others must not fail this call
    while (true) {
        const number = os.randomWord();
        const path = try pathOf(fault, number);
        const file = os.openNew(fault, &path) catch |err| {
            if (err == error.Exists) continue;
            return err;
        };
        errdefer os.close(file);
        errdefer os.unlink(fault, &path) catch {}; // a leftover is reaped later
        const locks = try os.openAgain(fault, file, .read_write);
        errdefer os.close(locks);
        try range_lock.lockBefore(fault, locks, .lifecycle, deadline);
        // Until LIFECYCLE was ours, another process could reap it.
        if (leadsTo(&path, file)) return .{ .file = file, .locks = locks, .number = number };
        os.close(locks);
        os.close(file);
    }
}

/// `NotFound`: no handle uses it any more.
pub fn open(fault: *Fault, number: u64) Error!os.Fd {
    const path = try pathOf(fault, number);
    return os.open(fault, &path, .read_write) catch |err| {
        return if (err == error.NotFound) fault.withReason(.identity, err) else err;
    };
}

/// Whether the name still leads to this file.
pub fn leadsTo(path: *const os.Path, file: os.Fd) bool {
    var fault: Fault = .{};
    const named = os.statName(&fault, path) catch return false;
    const opened = os.stat(&fault, file) catch return false;
    return named.same(opened);
}

/// Gives up WRITER and READER, and removes the name if no other handle has them. The caller has
/// unmapped the file, and closes `locks` next.
pub fn leave(locks: os.Fd, number: u64) void {
    var fault: Fault = .{};
    const path = pathOf(&fault, number) catch return;
    var patience: os.Deadline = .in(patience_ms);
    const is_alone = range_lock.lockBefore(&fault, locks, .lifecycle, &patience);
    range_lock.unlock(locks, .writer);
    range_lock.unlock(locks, .reader);
    is_alone catch return;
    if (leadsTo(&path, locks)) removeUnused(&fault, &path, locks) catch {}; // it is reaped later
}

/// Removes the name of a file that was never used.
pub fn remove(number: u64) void {
    var fault: Fault = .{};
    const path = pathOf(&fault, number) catch return;
    os.unlink(&fault, &path) catch {}; // a leftover is reaped later
}

/// With LIFECYCLE held.
fn removeUnused(fault: *Fault, path: *const os.Path, locks: os.Fd) Error!void {
    if (try range_lock.isHeld(fault, locks, .writer)) return;
    if (try range_lock.isHeld(fault, locks, .reader)) return;
    try os.unlink(fault, path);
}

/// Removes the files that killed processes left.
pub fn reap() Error!void {
    var fault: Fault = .{}; // what others left behind is not the caller's failure
    const directory = try os.defaultDirectory(&fault);
    var names = try os.namesIn(&fault, &directory);
    defer names.close();
    while (try names.next(&fault)) |entry| {
        const number = numberOf(entry) orelse continue;
        reapOne(&fault, number) catch continue;
    }
}

fn reapOne(fault: *Fault, number: u64) Error!void {
    const path = try pathOf(fault, number);
    const orphan: Orphan = try .open(fault, &path);
    defer orphan.close();
    try removeUnused(fault, &path, orphan.file);
}

/// A file that a dead maker may have left behind, with LIFECYCLE held.
pub const Orphan = struct {
    file: os.Fd,
    stat: os.Stat,

    /// Fails if it belongs to another user, if another handle holds LIFECYCLE, or if the name leads
    /// elsewhere by now.
    pub fn open(fault: *Fault, path: *const os.Path) Error!Orphan {
        const file = try os.open(fault, path, .read_write);
        errdefer os.close(file);
        const stat = try os.stat(fault, file);
        if (!stat.regular or stat.uid != os.userId()) return error.PermissionDenied;
        if (!try range_lock.tryLock(fault, file, .lifecycle, .exclusive)) return error.Locked;
        errdefer range_lock.unlockAll(file);
        if (!(try os.statName(fault, path)).same(stat)) return error.NotFound;
        return .{ .file = file, .stat = stat };
    }

    pub fn close(orphan: Orphan) void {
        range_lock.unlockAll(orphan.file);
        os.close(orphan.file);
    }
};

/// The number in a name of ours, or null.
pub fn numberOf(name: []const u8) ?u64 {
    if (name.len != name_bytes or !std.mem.startsWith(u8, name, mark)) return null;
    for (name[mark.len..]) |c| if (!std.ascii.isDigit(c) and !(c >= 'a' and c <= 'f')) return null;
    return std.fmt.parseInt(u64, name[mark.len..], 16) catch null;
}

test numberOf {
    try std.testing.expectEqual(@as(?u64, 0x1f), numberOf(".~000000000000001f"));
    for ([_][]const u8{ ".~1f", "..~00000000001f", ".~000000000000001F", "jobs" }) |other|
        try std.testing.expectEqual(@as(?u64, null), numberOf(other));
}

test "the last handle that leaves removes the name, and a killed one leaves it to others" {
    var fault: Fault = .{};
    var deadline: os.Deadline = .in(1000);
    const made = try make(&fault, &deadline);
    const path = try pathOf(&fault, made.number);
    try std.testing.expect(try range_lock.tryLock(&fault, made.locks, .writer, .shared));
    range_lock.unlock(made.locks, .lifecycle);
    const other = try open(&fault, made.number);
    try std.testing.expect(try range_lock.tryLock(&fault, other, .reader, .shared));
    try reap();
    leave(made.locks, made.number);
    os.close(made.locks);
    os.close(made.file);
    _ = try os.statName(&fault, &path);
    range_lock.unlockAll(other);
    os.close(other); // without leaving
    try reap();
    try std.testing.expectError(error.NotFound, open(&fault, made.number));
}

test "of many makers, few read the directory" {
    var fault: Fault = .{};
    const before = os.directory_reads;
    const count = 400;
    for (0..count) |_| {
        var deadline: os.Deadline = .in(1000);
        const made = try make(&fault, &deadline);
        remove(made.number);
        os.close(made.locks);
        os.close(made.file);
    }
    // Six in the mean; more than forty come once in 10^19 times.
    try std.testing.expect(os.directory_reads - before <= 40);
}
