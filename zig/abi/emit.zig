//! The build tool behind `zig build abi`: prints `src/ffi/abi.ts` from the exported declarations.

const std = @import("std");
const shmap = @import("shmap");

const abi = shmap.abi;
const layout = shmap.layout;
const status = shmap.status;

/// What each type is called in TypeScript's table; any other does not cross.
fn word(comptime T: type) []const u8 {
    return switch (T) {
        void => "void",
        u32 => "u32",
        i32 => "i32",
        f64 => "f64",
        ?[*]const u8, ?[*]u8 => "bytes",
        else => @compileError("not an ABI type: " ++ @typeName(T)),
    };
}

fn numbers(out: *std.Io.Writer, name: []const u8, comptime Numbers: type) !void {
    try out.print("\nexport const {s} = {{\n", .{name});
    inline for (@typeInfo(Numbers).@"enum".fields) |field|
        try out.print("  {s}: {d},\n", .{ field.name, field.value });
    try out.writeAll("} as const;\n");
}

fn emit(out: *std.Io.Writer) !void {
    try out.print(
        \\// Written by `zig build abi` from zig/abi/exports.zig. Do not edit.
        \\
        \\export const fingerprint = 0x{x:0>8};
        \\
        \\export const layoutVersion = {d};
        \\
    , .{ abi.shm_fingerprint(), layout.layout_version });
    try numbers(out, "statuses", status.Status);
    try numbers(out, "reasons", status.Reason);
    try numbers(out, "flags", abi.Flags);
    try out.writeAll("\nexport const symbols = {\n");
    @setEvalBranchQuota(10_000);
    inline for (@typeInfo(abi).@"struct".decls) |symbol| {
        const T = @TypeOf(@field(abi, symbol.name));
        if (@typeInfo(T) == .@"fn") {
            const function = @typeInfo(T).@"fn";
            try out.print("  {s}: {{ args: [", .{symbol.name});
            inline for (function.params, 0..) |parameter, i|
                try out.print("{s}\"{s}\"", .{ if (i == 0) "" else ", ", word(parameter.type.?) });
            try out.print("], returns: \"{s}\" }},\n", .{word(function.return_type.?)});
        }
    }
    try out.writeAll("} as const;\n");
}

pub fn main(init: std.process.Init) !void {
    var buffer: [4096]u8 = undefined;
    var out = std.Io.File.stdout().writer(init.io, &buffer);
    try emit(&out.interface);
    try out.interface.flush();
}
