//! Users and the owners of files, for Windows, as numbers: a hash of the security identifier, and 0
//! for the system and its administrators, who own what an administrator makes.

const std = @import("std");
const api = @import("windows_api.zig");

const owner_information = 1; // OWNER_SECURITY_INFORMATION
const query_token = 8; // TOKEN_QUERY
const token_user = 1; // TokenUser

/// Of no user.
const unknown = std.math.maxInt(u32);

const system = [_]u8{ 1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0 };
const administrators = [_]u8{ 1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 32, 2, 0, 0 };

fn numberOf(room: []const u8, offset: usize) u32 {
    if (offset + 8 > room.len) return unknown;
    const len = 8 + 4 * @as(usize, room[offset + 1]);
    if (offset + len > room.len) return unknown;
    const identifier = room[offset..][0..len];
    if (std.mem.eql(u8, identifier, &system)) return 0;
    if (std.mem.eql(u8, identifier, &administrators)) return 0;
    return std.hash.Fnv1a_32.hash(identifier) | 1;
}

/// The owner of an open file.
pub fn ofFile(handle: api.Handle) u32 {
    var room: [512]u8 align(8) = undefined;
    var needed: u32 = 0;
    if (api.GetKernelObjectSecurity(handle, owner_information, &room, room.len, &needed) == 0)
        return unknown;
    return numberOf(&room, std.mem.readInt(u32, room[4..8], .little)); // SECURITY_DESCRIPTOR
}

/// The user this process acts for.
pub fn ofProcess() u32 {
    var token: api.Handle = null;
    if (api.OpenProcessToken(api.self, query_token, &token) == 0) return unknown - 1;
    defer _ = api.CloseHandle(token);
    var room: [512]u8 align(8) = undefined;
    var needed: u32 = 0;
    if (api.GetTokenInformation(token, token_user, &room, room.len, &needed) == 0)
        return unknown - 1;
    const address = std.mem.readInt(usize, room[0..@sizeOf(usize)], .little); // TOKEN_USER
    return numberOf(&room, address -% @intFromPtr(&room));
}

test numberOf {
    try std.testing.expectEqual(0, numberOf(&system, 0));
    try std.testing.expectEqual(0, numberOf(&administrators, 0));
    try std.testing.expectEqual(unknown, numberOf(administrators[0..12], 0));
    var other = administrators;
    other[8] = 33;
    try std.testing.expect(numberOf(&other, 0) % 2 == 1);
}
