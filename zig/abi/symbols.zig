//! The C ABI: every function, record and number that crosses the boundary between the library and
//! its callers, and the fingerprint of all of them. `zig build abi` writes `src/ffi/abi.ts` from
//! this file.
//!
//! Words: `u32` for handles, counts and flags; `i32` for results; `f64` for sizes, milliseconds and
//! what else may exceed 32 bits, exact up to 2^53; bytes (a pointer, null for nothing, and a `u32`
//! length), which belong to the caller. Results: zero and up is the answer, below zero a `Status`.
//! Lengths follow snprintf: a result that does not fit its target is not copied, and its length is
//! returned all the same. `fault` is always the record `Fault`.
//!
//! The fingerprint sees names, types and places, not what a function does: one that comes to do
//! something else gets another name.

const std = @import("std");
const counters = @import("../map/count.zig");
const marshal = @import("marshal.zig");
const status = @import("../status.zig");

/// The files that export functions, one for each noun. There are no others.
pub const nouns = .{
    @import("segment.zig"),
    @import("map.zig"),
    @import("entry.zig"),
    @import("value.zig"),
    @import("lock.zig"),
    @import("fault.zig"),
    @import("region.zig"),
    @import("realm.zig"),
};

/// The structures that callers read, by the names that they know them by.
pub const records = .{
    .Fault = status.Fault,
    .Stats = @import("../map/stats.zig").Stats,
    .Verdict = @import("../map/verify.zig").Verdict,
    .Listed = @import("../segment/directory.zig").Listed,
    .Record = @import("../map/gathered.zig").Record,
    .Answer = @import("../map/bulk.zig").Answer,
    .ValueTail = marshal.ValueTail,
    .EntryTail = @import("entry.zig").EntryTail,
    .ScanCursor = @import("../map/scan.zig").Cursor,
    .Counted = counters.Counted,
    .WakeTicket = @import("lock.zig").WakeTicket,
    .Identity = @import("lock.zig").Identity,
};

/// The numbers that callers know by name.
pub const numbers = .{
    .statuses = status.Status,
    .reasons = status.Reason,
    .flags = marshal.Flags,
    .numberKinds = @import("../map/bigint.zig").Kind,
    .outcomes = counters.Outcome,
};

/// What this library speaks; `src/ffi/native.ts` refuses any other.
pub export fn shm_fingerprint() u32 {
    return comptime fingerprint();
}

/// Calls `each(context, name, Function)` for every exported function.
pub fn forEachFunction(context: anytype, comptime each: anytype) !void {
    try each(context, "shm_fingerprint", @TypeOf(shm_fingerprint));
    inline for (nouns) |noun| {
        inline for (@typeInfo(noun).@"struct".decls) |declaration| {
            const T = @TypeOf(@field(noun, declaration.name));
            if (@typeInfo(T) == .@"fn") try each(context, declaration.name, T);
        }
    }
}

/// A hash of every function's name and type, of every record's size and fields, and of every
/// number.
fn fingerprint() u32 {
    @setEvalBranchQuota(500_000);
    var hash = std.hash.Fnv1a_32.init();
    forEachFunction(&hash, struct {
        fn add(of: *std.hash.Fnv1a_32, comptime name: []const u8, comptime T: type) !void {
            of.update(name);
            of.update(@typeName(T));
        }
    }.add) catch unreachable; // it returns no error
    for (@typeInfo(@TypeOf(records)).@"struct".fields) |record| {
        const Record = @field(records, record.name);
        hash.update(std.fmt.comptimePrint("{s}:{d}", .{ record.name, @sizeOf(Record) }));
        for (@typeInfo(Record).@"struct".fields) |field| {
            hash.update(std.fmt.comptimePrint("{s} {s} at {d}", .{
                field.name, @typeName(field.type), @offsetOf(Record, field.name),
            }));
        }
    }
    for (@typeInfo(@TypeOf(numbers)).@"struct".fields) |list| {
        for (@typeInfo(@field(numbers, list.name)).@"enum".fields) |number|
            hash.update(std.fmt.comptimePrint("{s}={d}", .{ number.name, number.value }));
    }
    return hash.final();
}

comptime {
    for (nouns) |noun| _ = noun; // exports what nothing else refers to
    // The fingerprint covers the place of each field, which only an extern struct fixes; and a
    // caller has no use for an address.
    for (@typeInfo(@TypeOf(records)).@"struct".fields) |record| {
        const Record = @field(records, record.name);
        std.debug.assert(@typeInfo(Record).@"struct".layout == .@"extern");
        for (@typeInfo(Record).@"struct".fields) |field|
            std.debug.assert(@typeInfo(field.type) != .pointer);
    }
}

test forEachFunction {
    var count: usize = 0;
    try forEachFunction(&count, struct {
        fn check(of: *usize, comptime name: []const u8, comptime T: type) !void {
            of.* += 1;
            try std.testing.expect(std.mem.startsWith(u8, name, "shm_"));
            try std.testing.expect(@typeInfo(T).@"fn".calling_convention.eql(.c));
        }
    }.check);
    try std.testing.expect(count > nouns.len);
}
