//! How a call can end: the error set every file of the engine shares, the stable numbers the
//! boundary returns for it, and the record that carries the numbers of a failure.

const std = @import("std");

/// Every way a call can fail. One switch, `status`, turns it into a number.
pub const Error = error{
    NotFound,
    Exists,
    PermissionDenied,
    NoSpace,
    /// As `NoSpace`, of a call that left something half done: the address space was missing where
    /// all else was there. The next holder of the lock recovers it.
    Unmapped,
    TooLarge,
    Timeout,
    Locked,
    Corrupt,
    Incompatible,
    Replaced,
    Closed,
    ReadOnly,
    WriteOnly,
    Unsupported,
    System,
    InvalidArgument,
};

/// What the boundary returns below zero. Numbers are stable; new ones are appended.
pub const Status = enum(i32) {
    absent = -1,
    notFound = -2,
    exists = -3,
    permissionDenied = -4,
    noSpace = -5,
    tooLarge = -6,
    timeout = -7,
    locked = -8,
    corrupt = -9,
    incompatible = -10,
    replaced = -11,
    closed = -12,
    readOnly = -13,
    writeOnly = -14,
    unsupported = -15,
    system = -16,
    invalidArgument = -17,
    unchanged = -18,
};

/// Why, where one status has several causes. Numbers are stable; new ones are appended.
pub const Reason = enum(u32) {
    none = 0,
    notASegment = 1,
    layoutVersion = 2,
    otherKind = 3,
    otherCodec = 4,
    otherLock = 5,
    otherMaxBytes = 6,
    otherLibc = 7,
    otherPidNamespace = 8,
    foreignOwner = 9,
    networkFileSystem = 10,
    truncated = 11,
    checksum = 12,
    notRegularFile = 13,
    addressSpace = 14,
    fileSystemFull = 15,
    ceilingReached = 16,
    tableDamaged = 17,
    entryDamaged = 18,
    chunksDamaged = 19,
    identity = 20,
    filesystem = 21,
    tooShort = 22,
    emptyFile = 23,
    noProc = 24,
    noFacts = 25,
    holderElsewhere = 26,
    nameGone = 27,
    noSuchProcess = 28,
    hiddenProcess = 29,
};

/// The numbers of a failure, as they cross the boundary: eight `f64`, little-endian, and a text
/// found (a codec's id), zero-padded.
pub const Fault = extern struct {
    errno: f64 = 0,
    needed_bytes: f64 = 0,
    used_bytes: f64 = 0,
    ceiling_bytes: f64 = 0,
    holder_pid: f64 = 0,
    stored_count: f64 = 0,
    reason: f64 = 0,
    found: f64 = 0,
    text: [64]u8 = @splat(0),

    /// Forgets the numbers. The text is an open's alone, whose record is its own.
    pub inline fn clear(fault: *Fault) void {
        inline for (@typeInfo(Fault).@"struct".fields) |field| {
            if (field.type == f64) @field(fault, field.name) = 0;
        }
    }

    /// Notes why and hands the error on: `return fault.withReason(.truncated, error.Corrupt)`.
    pub fn withReason(fault: *Fault, reason: Reason, err: Error) Error {
        fault.reason = @floatFromInt(@intFromEnum(reason));
        return err;
    }
};

/// The stable number of an error.
pub fn status(err: Error) i32 {
    return @intFromEnum(switch (err) {
        error.NotFound => Status.notFound,
        error.Exists => .exists,
        error.PermissionDenied => .permissionDenied,
        error.NoSpace, error.Unmapped => .noSpace,
        error.TooLarge => .tooLarge,
        error.Timeout => .timeout,
        error.Locked => .locked,
        error.Corrupt => .corrupt,
        error.Incompatible => .incompatible,
        error.Replaced => .replaced,
        error.Closed => .closed,
        error.ReadOnly => .readOnly,
        error.WriteOnly => .writeOnly,
        error.Unsupported => .unsupported,
        error.System => .system,
        error.InvalidArgument => .invalidArgument,
    });
}

test status {
    try std.testing.expectEqual(@as(i32, -9), status(error.Corrupt));
    try std.testing.expectEqual(@as(usize, 128), @sizeOf(Fault));
}
