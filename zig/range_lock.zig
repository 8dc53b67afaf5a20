//! Kernel range locks: who is attached, who may repair.
//!
//! Open-file-description locks on single bytes far beyond any data. The kernel drops them with
//! their holder, whatever its libc or PID namespace. One open file description is one owner, and a
//! mapping pins a description's locks; so every handle has a description of its own for them that
//! is never mapped, and gives them back by an explicit unlock (docs/design.md, Who is alive).

const std = @import("std");
const os = @import("os.zig");
const status = @import("status.zig");

const Fault = status.Fault;

/// The bytes, each with its meaning while locked.
pub const Byte = enum(i64) {
    /// Exclusive, briefly: attach as writer, replacement, unlinking, reaping.
    life = 1 << 62,
    /// Shared for a writing handle's life; exclusive while initialising.
    writer,
    /// Shared for a read-only handle's life.
    reader,
    /// Exclusive while the user's lock is held.
    user,
    /// Exclusive while waiting as the first in line for the user's lock.
    next,
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

/// False: somebody else holds it. Never waits; also changes a held lock from shared to exclusive
/// and back.
pub fn tryLock(fault: *Fault, fd: os.Fd, byte: Byte, mode: Mode) status.Error!bool {
    return os.lockRange(fault, fd, @intFromEnum(byte), mode);
}

pub fn unlock(fd: os.Fd, byte: Byte) void {
    os.unlockRange(fd, @intFromEnum(byte));
}

/// Gives back every range this description holds. A stripe's is held inside one call only.
pub fn unlockAll(fd: os.Fd) void {
    const first = @intFromEnum(Byte.life);
    os.unlockRanges(fd, first, @intFromEnum(Byte.stripes) - first);
}

/// Whether another description holds the byte in any mode.
pub fn isHeld(fault: *Fault, fd: os.Fd, byte: Byte) status.Error!bool {
    return os.isRangeLocked(fault, fd, @intFromEnum(byte));
}

/// Takes a byte exclusively, asking again every 20 to 220 us until the deadline.
pub fn lockBefore(fault: *Fault, fd: os.Fd, byte: Byte, deadline: os.Deadline) status.Error!void {
    while (!try tryLock(fault, fd, byte, .exclusive)) {
        if (deadline.left(1) == 0) return error.Timeout;
        os.sleepNs(20_000 + os.randomWord() % 200_000);
    }
}

fn testFiles(fault: *Fault) ![2]os.Fd {
    const a = try os.memoryFile(fault);
    return .{ a, try os.openAgain(fault, a, .read_write) };
}

test "two descriptions exclude each other; a mapping's does not outlive an explicit unlock" {
    var fault: Fault = .{};
    const fds = try testFiles(&fault);
    defer for (fds) |fd| os.close(fd);
    try std.testing.expect(try tryLock(&fault, fds[0], .writer, .shared));
    try std.testing.expect(try tryLock(&fault, fds[1], .writer, .shared));
    try std.testing.expect(!try tryLock(&fault, fds[0], .writer, .exclusive));
    try std.testing.expect(try isHeld(&fault, fds[0], .writer));
    try std.testing.expect(!try isHeld(&fault, fds[0], .life));
    unlockAll(fds[1]);
    try std.testing.expect(!try isHeld(&fault, fds[0], .writer));
    try std.testing.expect(try tryLock(&fault, fds[0], .writer, .exclusive));
    try std.testing.expect(!try tryLock(&fault, fds[1], .writer, .shared));
    try std.testing.expectError(error.Timeout, lockBefore(&fault, fds[1], .writer, .in(1)));
    unlock(fds[0], .writer);
    try lockBefore(&fault, fds[1], .writer, .in(1000));
}
