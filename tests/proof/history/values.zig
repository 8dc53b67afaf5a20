//! The keys and values of histories.

const std = @import("std");

/// A torn value, which no process wrote.
pub const torn = std.math.maxInt(u64);
pub const value_bytes_max = 5 * 1024;

/// The value of an id: its length and every byte follow from it, so that a torn one shows.
pub fn valueOf(id: u64, buffer: *[value_bytes_max]u8) []const u8 {
    const h = mix(id);
    const len: usize = @intCast(switch (h % 16) {
        0...7 => 8 + (h >> 8) % 57,
        8...11 => 65 + (h >> 8) % 500,
        12...14 => 600 + (h >> 8) % 2000,
        else => 2600 + (h >> 8) % (value_bytes_max - 2600),
    });
    var at: usize = 0;
    while (at < len) : (at += 8) {
        const word = std.mem.toBytes(if (at == 0) id else mix(id +% at));
        const n = @min(8, len - at);
        @memcpy(buffer[at..][0..n], word[0..n]);
    }
    return buffer[0..len];
}

fn mix(x: u64) u64 {
    var z = x +% 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) *% 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) *% 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

pub fn idOf(bytes: []const u8) u64 {
    if (bytes.len < 8) return torn;
    const id = std.mem.readInt(u64, bytes[0..8], .little);
    var buffer: [value_bytes_max]u8 = undefined;
    return if (std.mem.eql(u8, valueOf(id, &buffer), bytes)) id else torn;
}

pub const KeyBytes = [24]u8;

pub fn keyOf(n: u32, buffer: *KeyBytes) []const u8 {
    return std.fmt.bufPrint(buffer, "key {d}", .{n}) catch unreachable; // it has room for any
}
