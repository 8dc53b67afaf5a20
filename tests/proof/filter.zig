//! A kernel that lacks what file systems may lack: files without a name, and the exchange of two.

const std = @import("std");
const linux = std.os.linux;

const Instruction = extern struct { code: u16, jump_true: u8 = 0, jump_false: u8 = 0, k: u32 };
const Program = extern struct { len: u16, instructions: [*]const Instruction };

const load_word = 0x20;
const jump_equal = 0x15;
const and_word = 0x54;
const give_back = 0x06;

const allow = 0x7fff0000;
const fail_with = 0x00050000;

fn argument(index: u32) u32 {
    return 16 + 8 * index; // in struct seccomp_data, the lower half
}

const tmpfile: u32 = @bitCast(linux.O{ .TMPFILE = true, .DIRECTORY = true });

fn failure(errno: linux.E) u32 {
    return fail_with | @as(u32, @intFromEnum(errno));
}

/// From here on this process gets EOPNOTSUPP for O_TMPFILE and EINVAL for RENAME_EXCHANGE.
pub fn withoutUnnamedFiles() !void {
    const openers = if (@hasField(linux.SYS, "open")) linux.SYS.open else linux.SYS.openat;
    const instructions = [_]Instruction{
        .{ .code = load_word, .k = 0 },
        .{ .code = jump_equal, .k = @intFromEnum(openers), .jump_true = 3 },
        .{ .code = jump_equal, .k = @intFromEnum(linux.SYS.openat), .jump_true = 5 },
        .{ .code = jump_equal, .k = @intFromEnum(linux.SYS.renameat2), .jump_true = 8 },
        .{ .code = give_back, .k = allow },
        .{ .code = load_word, .k = argument(1) },
        .{ .code = and_word, .k = tmpfile },
        .{ .code = jump_equal, .k = tmpfile, .jump_true = 7, .jump_false = 6 },
        .{ .code = load_word, .k = argument(2) },
        .{ .code = and_word, .k = tmpfile },
        .{ .code = jump_equal, .k = tmpfile, .jump_true = 4, .jump_false = 3 },
        .{ .code = give_back, .k = allow },
        .{ .code = load_word, .k = argument(4) },
        .{ .code = jump_equal, .k = 2, .jump_true = 2 },
        .{ .code = give_back, .k = allow },
        .{ .code = give_back, .k = failure(.OPNOTSUPP) },
        .{ .code = give_back, .k = failure(.INVAL) },
    };
    const program: Program = .{ .len = instructions.len, .instructions = &instructions };
    _ = linux.prctl(@intFromEnum(linux.PR.SET_NO_NEW_PRIVS), 1, 0, 0, 0);
    const mode_filter = 2;
    const result = linux.prctl(
        @intFromEnum(linux.PR.SET_SECCOMP),
        mode_filter,
        @intFromPtr(&program),
        0,
        0,
    );
    if (linux.errno(result) != .SUCCESS) return error.NoFilter;
}
