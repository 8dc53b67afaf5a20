//! The build tool behind `zig build abi`: prints `src/ffi/abi.ts` from `symbols.zig`.

const std = @import("std");
const shmap = @import("shmap");

const symbols = shmap.abi.symbols;

/// What each type is called in TypeScript's tables; any other does not cross.
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

fn emitNumbers(out: *std.Io.Writer, comptime name: []const u8, comptime Numbers: type) !void {
    try out.print("\nexport const {s} = {{\n", .{name});
    inline for (@typeInfo(Numbers).@"enum".fields) |field|
        try out.print("  {s}: {d},\n", .{ field.name, field.value });
    try out.writeAll("} as const;\n");
}

/// A name of ours as TypeScript writes it: `key_len` is `keyLen`.
fn camel(comptime name: []const u8) []const u8 {
    comptime {
        var text: []const u8 = "";
        var is_upper = false;
        for (name) |byte| {
            if (byte == '_') {
                is_upper = true;
                continue;
            }
            text = text ++ [1]u8{if (is_upper) std.ascii.toUpper(byte) else byte};
            is_upper = false;
        }
        return text;
    }
}

/// What a field of a record is called: a number, or bytes with their count.
fn fieldWord(comptime T: type) []const u8 {
    return switch (T) {
        u8, u16, u32, f64 => @typeName(T),
        u64 => "bytes8", // an opaque word
        [64]u8 => "bytes64",
        else => @compileError("not a field of a record: " ++ @typeName(T)),
    };
}

fn emitRecord(out: *std.Io.Writer, comptime name: []const u8, comptime Record: type) !void {
    try out.print("  {s}: {{\n    bytes: {d},\n    fields: {{\n", .{ name, @sizeOf(Record) });
    inline for (@typeInfo(Record).@"struct".fields) |field| {
        if (field.name[0] == '_') continue;
        try out.print("      {s}: [{d}, \"{s}\"],\n", .{
            comptime camel(field.name), @offsetOf(Record, field.name), fieldWord(field.type),
        });
    }
    try out.writeAll("    },\n  },\n");
}

fn emitFunction(out: *std.Io.Writer, comptime name: []const u8, comptime T: type) !void {
    const function = @typeInfo(T).@"fn";
    try out.print("  {s}: {{ args: [", .{name});
    inline for (function.params, 0..) |parameter, i|
        try out.print("{s}\"{s}\"", .{ if (i == 0) "" else ", ", word(parameter.type.?) });
    try out.print("], returns: \"{s}\" }},\n", .{word(function.return_type.?)});
}

fn emit(out: *std.Io.Writer) !void {
    try out.print(
        \\// Written by `zig build abi` from zig/abi/symbols.zig. Do not edit.
        \\
        \\export const fingerprint = 0x{x:0>8};
        \\
        \\export const layoutVersion = {d};
        \\
    , .{ symbols.shm_fingerprint(), shmap.layout.layout_version });
    @setEvalBranchQuota(100_000);
    inline for (@typeInfo(@TypeOf(symbols.numbers)).@"struct".fields) |list|
        try emitNumbers(out, list.name, @field(symbols.numbers, list.name));
    try out.writeAll("\nexport const records = {\n");
    inline for (@typeInfo(@TypeOf(symbols.records)).@"struct".fields) |record|
        try emitRecord(out, record.name, @field(symbols.records, record.name));
    try out.writeAll("} as const;\n\nexport const symbols = {\n");
    try symbols.forEachFunction(out, emitFunction);
    try out.writeAll("} as const;\n");
}

pub fn main(init: std.process.Init) !void {
    var buffer: [4096]u8 = undefined;
    var out = std.Io.File.stdout().writer(init.io, &buffer);
    try emit(&out.interface);
    try out.interface.flush();
}
