//! Sums of whole numbers of any size, in the bytes that `src/values/kinds.ts` stores bigints as.

const std = @import("std");

/// The kinds of stored values that are numbers. `src/values/kinds.ts` has them all; these must be
/// known here, because counting is done under a stripe's lock.
pub const Kind = enum(u8) {
    /// A `f64`.
    number = 6,
    /// An `i64`.
    int64 = 7,
    /// A magnitude that no `i64` holds, most significant byte first; positive, or negative.
    positive = 8,
    negative = 9,
};

/// A whole number. Its magnitude has the most significant byte first, and may begin with zeros.
pub const Whole = struct {
    is_negative: bool,
    magnitude: []const u8,

    /// The number that these bytes stand for; those of an `i64` are written to `room`, too. Null:
    /// they are no whole number.
    pub fn of(kind: u8, bytes: []const u8, room: *[8]u8) ?Whole {
        switch (kind) {
            @intFromEnum(Kind.int64) => {
                if (bytes.len != 8) return null;
                const number = std.mem.readInt(i64, bytes[0..8], .little);
                std.mem.writeInt(u64, room, @abs(number), .big);
                return .{ .is_negative = number < 0, .magnitude = room };
            },
            @intFromEnum(Kind.positive) => return .{ .is_negative = false, .magnitude = bytes },
            @intFromEnum(Kind.negative) => return .{ .is_negative = true, .magnitude = bytes },
            else => return null,
        }
    }

    fn trimmed(number: Whole) Whole {
        var rest = number.magnitude;
        while (rest.len > 0 and rest[0] == 0) rest = rest[1..];
        return .{ .is_negative = number.is_negative, .magnitude = rest };
    }
};

/// How a number is stored.
pub const Stored = struct { kind: Kind, bytes: []const u8 };

/// The sum, as it is stored. `room` has a byte more than the longer magnitude, and eight at least.
pub fn sum(one: Whole, other: Whole, room: []u8) Stored {
    const a = one.trimmed();
    const b = other.trimmed();
    if (a.is_negative == b.is_negative)
        return stored(a.is_negative, addMagnitudes(a.magnitude, b.magnitude, room), room);
    return switch (compare(a.magnitude, b.magnitude)) {
        .lt => stored(b.is_negative, subtract(b.magnitude, a.magnitude, room), room),
        else => stored(a.is_negative, subtract(a.magnitude, b.magnitude, room), room),
    };
}

fn compare(a: []const u8, b: []const u8) std.math.Order {
    if (a.len != b.len) return std.math.order(a.len, b.len);
    return std.mem.order(u8, a, b);
}

/// The byte of this worth, counted from the least significant one.
fn digit(magnitude: []const u8, worth: usize) u8 {
    return if (worth < magnitude.len) magnitude[magnitude.len - 1 - worth] else 0;
}

fn addMagnitudes(a: []const u8, b: []const u8, room: []u8) []u8 {
    const result = room[0 .. @max(a.len, b.len) + 1];
    var carry: u16 = 0;
    for (0..result.len) |worth| {
        carry += @as(u16, digit(a, worth)) + digit(b, worth);
        result[result.len - 1 - worth] = @truncate(carry);
        carry >>= 8;
    }
    std.debug.assert(carry == 0);
    return result;
}

/// `a` is not less than `b`.
fn subtract(a: []const u8, b: []const u8, room: []u8) []u8 {
    const result = room[0..a.len];
    var borrow: i16 = 0;
    for (0..result.len) |worth| {
        const difference = @as(i16, digit(a, worth)) - digit(b, worth) - borrow;
        borrow = @intFromBool(difference < 0);
        result[result.len - 1 - worth] = @truncate(@as(u16, @bitCast(difference)));
    }
    std.debug.assert(borrow == 0);
    return result;
}

/// A magnitude at the start of `room`, as it is stored.
fn stored(is_negative: bool, magnitude: []const u8, room: []u8) Stored {
    const short = (Whole{ .is_negative = is_negative, .magnitude = magnitude }).trimmed().magnitude;
    if (short.len <= 8) {
        var value: u64 = 0;
        for (short) |byte| value = value << 8 | byte;
        const least = @as(u64, 1) << 63;
        if (value < least or is_negative and value == least) {
            const number = if (is_negative) 0 -% value else value;
            std.mem.writeInt(u64, room[0..8], number, .little);
            return .{ .kind = .int64, .bytes = room[0..8] };
        }
    }
    return .{ .kind = if (is_negative) .negative else .positive, .bytes = short };
}

fn expectSum(comptime T: type, a: T, b: T, random: std.Random) !void {
    var rooms: [2][@sizeOf(T)]u8 = undefined;
    var eights: [2][8]u8 = undefined;
    var numbers: [2]Whole = undefined;
    for ([_]T{ a, b }, &rooms, &eights, &numbers) |number, *room, *eight, *whole| {
        const is_small = number >= std.math.minInt(i64) and number <= std.math.maxInt(i64);
        if (is_small and random.boolean()) {
            std.mem.writeInt(i64, room[0..8], @intCast(number), .little);
            whole.* = Whole.of(7, room[0..8], eight).?;
        } else {
            const Magnitude = std.meta.Int(.unsigned, @bitSizeOf(T));
            std.mem.writeInt(Magnitude, room, @abs(number), .big);
            whole.* = Whole.of(if (number < 0) 9 else 8, room, eight).?;
        }
    }
    var room: [@sizeOf(T) + 1]u8 = undefined;
    const result = sum(numbers[0], numbers[1], &room);
    const expected = @as(i256, a) + b;
    var eight: [8]u8 = undefined;
    const whole = Whole.of(@intFromEnum(result.kind), result.bytes, &eight).?;
    var value: i256 = 0;
    for (whole.magnitude) |byte| value = value * 256 + byte;
    try std.testing.expectEqual(expected, if (whole.is_negative) -value else value);
    // One number is stored in one way.
    const is_small = expected >= std.math.minInt(i64) and expected <= std.math.maxInt(i64);
    try std.testing.expectEqual(is_small, result.kind == .int64);
    if (!is_small) try std.testing.expect(result.bytes[0] != 0);
}

test sum {
    var prng: std.Random.DefaultPrng = .init(11);
    const random = prng.random();
    const edges = [_]i128{
        0,                         1,
        -1,                        std.math.maxInt(i64),
        std.math.minInt(i64),      @as(i128, std.math.maxInt(i64)) + 1,
        -(@as(i128, 1) << 63) - 1, (1 << 64) - 1,
        1 << 64,                   std.math.maxInt(i120),
        std.math.minInt(i128) + 1, 255,
        -256,                      std.math.maxInt(i128),
    };
    for (edges) |a| for (edges) |b| try expectSum(i128, a, b, random);
    for (0..10_000) |_| {
        const a = random.int(i128) >> random.int(u7);
        const b = random.int(i128) >> random.int(u7);
        if (a != std.math.minInt(i128) and b != std.math.minInt(i128))
            try expectSum(i128, a, b, random);
    }
    var room: [8]u8 = undefined;
    try std.testing.expectEqual(null, Whole.of(7, "short", &room));
    try std.testing.expectEqual(null, Whole.of(6, "eight by", &room));
}
