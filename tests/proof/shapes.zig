//! Files of the wrong length, and names that lead to something else altogether.

const std = @import("std");
const linux = std.os.linux;
const shmap = @import("shmap");
const cases = @import("cases.zig");
const images = @import("images.zig");
const usage = @import("usage.zig");

const layout = shmap.layout;
const Bench = cases.Bench;
const Image = images.Image;

const Shape = enum {
    cut_at_page,
    cut_anywhere,
    extended,
    extended_a_little,
    zeros,
    text,
    program,
    magic,
    version,
    foreign_version,
    other_kind,
    fifo,
    folder,
    link,
    dangling_link,
};

/// The n-th of these cases.
pub fn run(bench: *Bench, image: *const Image, n: u64, random: std.Random) void {
    const shape: Shape = @enumFromInt(n % @typeInfo(Shape).@"enum".fields.len);
    const round = n / @typeInfo(Shape).@"enum".fields.len;
    const bytes = bench.bytes;
    const header: *layout.Header = @ptrCast(bytes.ptr);
    switch (shape) {
        .cut_at_page => bench.len = round % (bench.len / layout.page_bytes) * layout.page_bytes,
        .cut_anywhere => bench.len = random.uintLessThan(u64, bench.len),
        .extended => return extended(bench, image, random.uintLessThan(u64, 1 << 20), random),
        .extended_a_little => return extended(bench, image, 1 + n % 9000, random),
        .zeros => @memset(bytes[0..bench.len], 0),
        .text => for (bytes[0..bench.len], 0..) |*byte, i| {
            byte.* = "not a segment\n"[i % 14];
        },
        .program => @memcpy(bytes[0..16], "\x7fELF\x02\x01\x01" ++ "\x00" ** 9),
        .magic => header.magic ^= @as(u64, 1) << random.int(u6),
        .version => header.version = random.int(u64) >> random.int(u6) | 1 << 20,
        .foreign_version => {
            header.version = layout.layout_version + 1 + round % 5;
            header.checksum = layout.checksum(header);
        },
        .other_kind => return otherKind(bench, image),
        .fifo, .folder, .link, .dangling_link => return foreignName(bench, image, shape),
    }
    const is_ours = shape == .cut_at_page or shape == .cut_anywhere or
        shape == .version or shape == .foreign_version;
    if (bench.len < 8) return refused(bench, image, false, random);
    refused(bench, image, is_ours, random);
}

/// What cannot be opened is left as it is; what was never ours keeps its name too.
fn refused(bench: *Bench, image: *const Image, is_ours: bool, random: std.Random) void {
    bench.write();
    for ([_]usage.Opening{
        .{ .kind = image.kind },
        .{ .kind = image.kind, .readonly = true },
        .{ .kind = image.kind, .mode = .shared },
    }) |opening| {
        const handle = bench.open(opening) catch |err| {
            if (err != error.Corrupt and err != error.Incompatible)
                bench.complain("refused by {t}", .{err});
            bench.expectUnchanged();
            continue;
        };
        usage.close(&bench.bounds, handle);
        bench.complain("it was opened", .{});
    }
    if (is_ours) return bench.displace(image, random);
    bench.list();
    expectKeepsName(bench, image);
    bench.expectUnchanged();
}

fn expectKeepsName(bench: *Bench, image: *const Image) void {
    if (bench.unlinkName(image.kind)) |_| {
        bench.complain("a foreign file lost its name", .{});
    } else |_| {}
    const opening: usage.Opening = .{ .mode = .exclusive, .kind = image.kind, .stripe_bits = 0 };
    if (bench.open(opening)) |handle| {
        usage.close(&bench.bounds, handle);
        bench.complain("a foreign file was displaced", .{});
    } else |_| {}
}

/// A longer file than what is committed is nothing special.
fn extended(bench: *Bench, image: *const Image, more: u64, random: std.Random) void {
    @memset(bench.bytes[bench.len..][0..more], 0xa5);
    bench.len += more;
    bench.write();
    const handle = bench.open(.{ .kind = image.kind }) catch |err|
        return bench.complain("a longer file cannot be opened: {t}", .{err});
    const verdict = usage.verify(handle, false);
    if (verdict == null or verdict.?.problems != 0)
        bench.complain("a longer file is unsound: {any}", .{verdict});
    bench.useAndClose(image, handle, random);
}

fn otherKind(bench: *Bench, image: *const Image) void {
    bench.write();
    const other: layout.Kind = if (image.kind == .map) .value else .map;
    if (bench.open(.{ .kind = other })) |handle| {
        usage.close(&bench.bounds, handle);
        bench.complain("a segment of another kind was opened", .{});
    } else |err| if (err != error.Incompatible) bench.complain("refused by {t}", .{err});
    var looked_for = image.*;
    looked_for.kind = other;
    expectKeepsName(bench, &looked_for);
    bench.expectUnchanged();
}

fn foreignName(bench: *Bench, image: *const Image, shape: Shape) void {
    const path = bench.path.z();
    bench.write();
    var aside = shmap.os.Path.of("{s}-aside", .{bench.path.slice()}) catch unreachable; // it fits
    if (shape == .link) _ = linux.link(path, aside.z());
    bench.forgetFile();
    _ = switch (shape) {
        .fifo => linux.mknod(path, linux.S.IFIFO | 0o600, 0),
        .folder => linux.mkdir(path, 0o700),
        else => linux.symlink(aside.z(), path),
    };
    for ([_]usage.Opening{
        .{ .kind = image.kind },
        .{ .kind = image.kind, .readonly = true },
        .{ .kind = image.kind, .mode = .shared },
    }) |opening| {
        if (bench.open(opening)) |handle| {
            usage.close(&bench.bounds, handle);
            bench.complain("{t} was opened", .{shape});
        } else |err| if (err != error.Incompatible)
            bench.complain("{t} was refused by {t}", .{ shape, err });
    }
    bench.list();
    expectKeepsName(bench, image);
    if (linux.errno(if (shape == .folder) linux.rmdir(path) else linux.unlink(path)) != .SUCCESS)
        bench.complain("{t} is gone", .{shape});
    _ = linux.unlink(aside.z());
}
