//! What a segment's header says of it, and of the processes that share it. Every word is input.

const std = @import("std");
const atomics = @import("../atomics.zig");
const layout = @import("../layout.zig");
const os = @import("../os/os.zig");
const status = @import("../status.zig");
const stripe_lock = @import("../lock/stripe_lock.zig");

const Error = status.Error;
const Fault = status.Fault;
const Header = layout.Header;

/// No segment is longer.
pub const ceiling_max: u64 = 1 << 40;

/// What must be the same for all living writers of a segment that share mutexes.
pub const Facts = struct {
    libc: u64,
    mutex_abi: u64,
    pid_namespace: u64,
    boot: [2]u64,

    pub fn ofThisProcess(fault: *Fault) Error!Facts {
        return .{
            .libc = stripe_lock.libcFact(),
            .mutex_abi = stripe_lock.mutexAbi(),
            .pid_namespace = try os.pidNamespace(fault),
            .boot = try os.bootId(fault),
        };
    }

    pub fn write(facts: *const Facts, header: *Header) void {
        atomics.store(&header.libc, facts.libc);
        atomics.store(&header.mutex_abi, facts.mutex_abi);
        atomics.store(&header.pid_namespace, facts.pid_namespace);
        atomics.store(&header.boot[0], facts.boot[0]);
        atomics.store(&header.boot[1], facts.boot[1]);
    }

    /// Null: the same.
    pub fn differing(facts: *const Facts, header: *const Header) ?status.Reason {
        if (facts.libc != atomics.load(&header.libc)) return .otherLibc;
        if (facts.mutex_abi != atomics.load(&header.mutex_abi)) return .otherLibc;
        if (facts.pid_namespace != atomics.load(&header.pid_namespace)) return .otherPidNamespace;
        if (facts.boot[0] != atomics.load(&header.boot[0])) return .otherLibc;
        if (facts.boot[1] != atomics.load(&header.boot[1])) return .otherLibc;
        return null;
    }
};

/// What the word `attributes` holds.
pub const Attributes = packed struct(u64) { kind: u8, lock: u8, stripe_bits: u8, _unused: u40 = 0 };

pub fn stripeBits(header: *const Header) u6 {
    return @truncate(@as(Attributes, @bitCast(header.attributes)).stripe_bits);
}

/// How many blocks a segment may take. The limit of a value bounds one encoding of it, not these.
pub fn blockLimit(header: *const Header) u64 {
    const kind = @as(Attributes, @bitCast(header.attributes)).kind;
    if (kind != @intFromEnum(layout.Kind.map) or header.max_bytes == 0) return header.ceiling;
    return @min(header.ceiling, std.mem.alignBackward(u64, header.max_bytes, layout.page_bytes));
}

pub fn lockKind(header: *const Header) layout.LockKind {
    return if (@as(Attributes, @bitCast(header.attributes)).lock == 1) .kernel else .robust;
}

/// Reads a file's header without mapping it, and checks that the file is a segment of ours.
pub fn readHeader(fault: *Fault, fd: os.Fd) Error!Header {
    var header: Header align(8) = undefined;
    const bytes = std.mem.asBytes(&header);
    const len = try os.readAt(fault, fd, bytes, 0);
    if (len < 8 or header.magic != layout.magic) {
        return fault.withReason(.notASegment, error.Incompatible);
    }
    if (len < bytes.len) return fault.withReason(.truncated, error.Corrupt);
    return header;
}

/// Checks what says how to read the rest: version, checksum, kind.
pub fn checkIdentity(fault: *Fault, header: *const Header, kind: layout.Kind) Error!void {
    if (header.version != layout.layout_version) {
        fault.found = @floatFromInt(header.version);
        return fault.withReason(.layoutVersion, error.Incompatible);
    }
    if (layout.checksum(header) != header.checksum)
        return fault.withReason(.checksum, error.Corrupt);
    const found = @as(Attributes, @bitCast(header.attributes)).kind;
    if (found != @intFromEnum(kind)) {
        fault.found = @floatFromInt(found);
        return fault.withReason(.otherKind, error.Incompatible);
    }
}
