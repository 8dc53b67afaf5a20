//! Kernel range locks: who is attached, who may repair.
//!
//! Open-file-description locks on single bytes far beyond any data. The kernel drops them with
//! their holder, of any libc or PID namespace. One open file description is one owner, and a
//! mapping pins a description's locks; so every handle has a description of its own for them that
//! is never mapped, and gives them back by an explicit unlock (docs/design.md, Who is alive).

const std = @import("std");
const os = @import("../os/os.zig");
const status = @import("../status.zig");

const Fault = status.Fault;

/// The bytes, each with its meaning while locked.
pub const Byte = enum(i64) {
    /// Exclusive, briefly: attach as writer, replacement, unlinking, reaping.
    lifecycle = 1 << 62,
    /// Shared for a writing handle's life; exclusive while initialising.
    writer,
    /// Shared for a read-only handle's life, and while a writer attaches; exclusive while the only
    /// handle cuts the file short.
    reader,
    /// Exclusive while the user's lock is held.
    user,
    /// Exclusive while waiting for the user's lock as the head of the queue.
    queue_head,
    /// Exclusive inside one call, where the pool has no mutex (`lock: "kernel"`).
    pool,
    /// The same for stripe 0; the others follow.
    stripes,
    _,

    pub fn ofStripe(index: u32) Byte {
        return @enumFromInt(@intFromEnum(Byte.stripes) + index);
    }
};

pub const Mode = os.Mode;

/// False: another description holds it. Never waits. This description does not hold it yet.
pub fn tryLock(fault: *Fault, fd: os.Fd, byte: Byte, mode: Mode) status.Error!bool {
    return os.lockRange(fault, fd, @intFromEnum(byte), mode);
}

/// Makes a shared lock exclusive. False: another description holds it, too, or does by now; then
/// this one may hold it no more.
pub fn upgrade(fault: *Fault, fd: os.Fd, byte: Byte) status.Error!bool {
    return os.upgradeRange(fault, fd, @intFromEnum(byte));
}

/// Makes an exclusive lock shared, without a moment in between.
pub fn downgrade(fd: os.Fd, byte: Byte) void {
    os.downgradeRange(fd, @intFromEnum(byte));
}

pub fn unlock(fd: os.Fd, byte: Byte) void {
    os.unlockRange(fd, @intFromEnum(byte));
}

/// Gives back every range this description holds. A stripe's is held inside one call only.
pub fn unlockAll(fd: os.Fd) void {
    const first = @intFromEnum(Byte.lifecycle);
    os.unlockRanges(fd, first, @intFromEnum(Byte.stripes) - first);
}

/// Whether another description holds the byte in any mode. This one does not, or the system has
/// queries (`os.has_range_queries`).
pub fn isHeld(fault: *Fault, fd: os.Fd, byte: Byte) status.Error!bool {
    return os.isRangeLocked(fault, fd, @intFromEnum(byte));
}

/// Takes a byte exclusively, asking again every 20 to 220 us until the deadline.
pub fn lockBefore(fault: *Fault, fd: os.Fd, byte: Byte, deadline: *os.Deadline) status.Error!void {
    return lockAsBefore(fault, fd, byte, .exclusive, deadline);
}

/// As `lockBefore`, in either mode.
pub fn lockAsBefore(
    fault: *Fault,
    fd: os.Fd,
    byte: Byte,
    mode: Mode,
    deadline: *os.Deadline,
) status.Error!void {
    while (!try tryLock(fault, fd, byte, mode)) {
        if (deadline.left(1) == 0) return error.Timeout;
        os.sleepNs(20_000 + os.randomWord() % 200_000);
    }
}

test "two descriptions exclude each other" {
    var fault: Fault = .{};
    const directory = @import("../testing/support.zig").directory_of_files;
    const path = try os.Path.of("{s}/shmap-range-{x}", .{ directory, os.randomWord() });
    const first = try os.openNew(&fault, &path);
    const fds = [2]os.Fd{ first, try os.open(&fault, &path, .read_write) };
    defer os.unlink(&fault, &path) catch {};
    defer for (fds) |fd| os.close(fd);
    try std.testing.expect(try tryLock(&fault, fds[0], .writer, .exclusive));
    try std.testing.expect(!try tryLock(&fault, fds[1], .writer, .shared));
    downgrade(fds[0], .writer);
    try std.testing.expect(try tryLock(&fault, fds[1], .writer, .shared));
    try std.testing.expect(try isHeld(&fault, fds[0], .writer) or !os.has_range_queries);
    try std.testing.expect(!try isHeld(&fault, fds[0], .lifecycle));
    unlockAll(fds[1]);
    try std.testing.expect(try upgrade(&fault, fds[0], .writer));
    try std.testing.expect(try isHeld(&fault, fds[1], .writer));
    try std.testing.expect(!try tryLock(&fault, fds[1], .writer, .shared));
    var soon: os.Deadline = .in(1);
    try std.testing.expectError(error.Timeout, lockBefore(&fault, fds[1], .writer, &soon));
    unlock(fds[0], .writer);
    try lockBefore(&fault, fds[1], .writer, &soon); // free: it asks for no time
    os.close(try os.openAgain(&fault, fds[1], .read_write)); // takes no lock with it
    try std.testing.expect(try isHeld(&fault, fds[0], .writer));
    const stripe: Byte = .ofStripe(1023);
    try std.testing.expect(try tryLock(&fault, fds[0], stripe, .exclusive));
    try std.testing.expect(!try tryLock(&fault, fds[1], stripe, .exclusive));
    try std.testing.expect(try tryLock(&fault, fds[1], .ofStripe(1022), .exclusive));
    unlock(fds[0], stripe);
    try std.testing.expect(try tryLock(&fault, fds[1], stripe, .exclusive));
}
