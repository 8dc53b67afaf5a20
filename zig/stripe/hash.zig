//! Key hashes. Both are keyed with secrets drawn when a segment is created, so that only a
//! process that can read the segment can choose keys that collide.
//!
//! `fast` has the shape of wyhash (Wang Yi, final version 4) with all four constants secret. An
//! attacker who learns the secrets can choose keys that collide; a stripe that sees too many such
//! collisions changes to `sip`, which is SipHash-1-3 (Aumasson and Bernstein), a keyed hash with no
//! such collisions known.

const std = @import("std");
const layout = @import("../layout.zig");

pub const Secrets = struct {
    fast: [4]u64,
    sip: [16]u8,

    pub fn of(header: *const layout.Header) Secrets {
        return .{ .fast = header.fast_secrets, .sip = @bitCast(header.sip_secrets) };
    }
};

const SipHash = std.crypto.auth.siphash.SipHash64(1, 3);

pub fn sip(secrets: *const Secrets, key: []const u8) u64 {
    return SipHash.toInt(key, &secrets.sip);
}

/// The stripe that a key belongs to: the topmost bits of its fast hash.
pub inline fn stripeOf(hash_value: u64, stripe_bits: u6) u32 {
    return @intCast(hash_value >> 1 >> 63 - stripe_bits);
}

/// The tag of a key: the lowest bits of the hash that its stripe's table uses.
pub inline fn tagOf(hash_value: u64) layout.Tag {
    return @truncate(hash_value);
}

inline fn read(comptime bytes: usize, p: []const u8) u64 {
    return std.mem.readInt(std.meta.Int(.unsigned, 8 * bytes), p[0..bytes], .little);
}

inline fn mix(a: u64, b: u64) u64 {
    const product = @as(u128, a) * b;
    return @as(u64, @truncate(product)) ^ @as(u64, @truncate(product >> 64));
}

pub inline fn fast(secrets: *const Secrets, key: []const u8) u64 {
    const s = &secrets.fast;
    var seed = s[0];
    var a: u64 = 0;
    var b: u64 = 0;
    const len = key.len;
    if (len <= 16) {
        if (len >= 4) {
            const middle = (len >> 3) << 2;
            a = read(4, key) << 32 | read(4, key[middle..]);
            b = read(4, key[len - 4 ..]) << 32 | read(4, key[len - 4 - middle ..]);
        } else if (len > 0) {
            a = @as(u64, key[0]) << 16 | @as(u64, key[len >> 1]) << 8 | key[len - 1];
        }
    } else {
        var rest = key;
        if (rest.len > 48) {
            var seed1 = seed;
            var seed2 = seed;
            while (rest.len > 48) : (rest = rest[48..]) {
                seed = mix(read(8, rest) ^ s[1], read(8, rest[8..]) ^ seed);
                seed1 = mix(read(8, rest[16..]) ^ s[2], read(8, rest[24..]) ^ seed1);
                seed2 = mix(read(8, rest[32..]) ^ s[3], read(8, rest[40..]) ^ seed2);
            }
            seed ^= seed1 ^ seed2;
        }
        while (rest.len > 16) : (rest = rest[16..]) {
            seed = mix(read(8, rest) ^ s[1], read(8, rest[8..]) ^ seed);
        }
        a = read(8, key[len - 16 ..]);
        b = read(8, key[len - 8 ..]);
    }
    const product = @as(u128, a ^ s[1]) * (b ^ seed);
    const low: u64 = @truncate(product);
    const high: u64 = @truncate(product >> 64);
    return mix(low ^ s[2] ^ len, high ^ s[3]);
}

const test_secrets: Secrets = .{
    .fast = .{ 0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 0xd6e8feb86659fd93 },
    .sip = @splat(7),
};

test fast {
    // Every byte of keys of every length around the block sizes changes the hash.
    var key: [130]u8 = undefined;
    for (&key, 0..) |*byte, i| byte.* = @truncate(i *% 37);
    for (0..key.len) |len| {
        const before = fast(&test_secrets, key[0..len]);
        for (0..len) |i| {
            key[i] ^= 1;
            try std.testing.expect(before != fast(&test_secrets, key[0..len]));
            key[i] ^= 1;
        }
        if (len > 0) try std.testing.expect(before != fast(&test_secrets, key[0 .. len - 1]));
    }
}

test "fast spreads sequential keys evenly over stripes and slots" {
    var counts: [64]u32 = @splat(0);
    var low: [64]u32 = @splat(0);
    var buffer: [32]u8 = undefined;
    for (0..64_000) |i| {
        const key = try std.fmt.bufPrint(&buffer, "user:session:{d}", .{i});
        const h = fast(&test_secrets, key);
        counts[@intCast(h >> 58)] += 1;
        low[@intCast(h & 63)] += 1;
    }
    for (counts, low) |a, b| {
        try std.testing.expect(a > 800 and a < 1200);
        try std.testing.expect(b > 800 and b < 1200);
    }
}

/// Keys that collide entirely under `fast`, for a caller that knows the secrets: products with 0.
pub fn collidingKey(secrets: *const Secrets, n: u64) [16]u8 {
    var key: [16]u8 = undefined;
    const s1 = secrets.fast[1];
    std.mem.writeInt(u32, key[0..4], @truncate(s1 >> 32), .little);
    std.mem.writeInt(u32, key[4..8], @truncate(n), .little);
    std.mem.writeInt(u32, key[8..12], @truncate(s1), .little);
    std.mem.writeInt(u32, key[12..16], @truncate(n >> 32), .little);
    return key;
}

test collidingKey {
    const a = collidingKey(&test_secrets, 1);
    const b = collidingKey(&test_secrets, 2);
    try std.testing.expectEqual(fast(&test_secrets, &a), fast(&test_secrets, &b));
    try std.testing.expect(sip(&test_secrets, &a) != sip(&test_secrets, &b));
}
