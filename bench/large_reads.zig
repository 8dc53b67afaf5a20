//! How fast large values are read while another process writes other keys as fast as it can: beside
//! no process, beside such a writer, and beside one that writes to another map, which shows what a
//! busy neighbour costs by itself.

const std = @import("std");
const abi = @import("shmap").abi;
const crews = @import("crew.zig");
const figures = @import("figures.zig");

const Flags = @import("shmap").marshal.Flags;
const Row = figures.Row;

const Sizes = struct {
    /// Bytes of a value.
    values: [3]u32,
    passes: usize,
    run_us: u64,

    const whole: Sizes = .{
        .values = .{ 64 << 10, 1 << 20, 64 << 20 },
        .passes = 5,
        .run_us = 500_000,
    };
    const smoke: Sizes = .{
        .values = .{ 64 << 10, 128 << 10, 2 << 20 },
        .passes = 2,
        .run_us = 5000,
    };
};

/// The writer's keys; the value that is read has another one.
const others = 1000;

fn writeOthers(token: *const figures.Token) void {
    crews.pin(1);
    const handle = token.attach();
    while (true) {
        var key: figures.Key = .of(0);
        for (0..others) |_| {
            _ = figures.put(handle, key.slice(), &figures.value);
            key.step();
        }
    }
}

/// Reads for so long, at least three times; how often in a second.
fn rateOf(handle: u32, target: []u8, run_us: u64) f64 {
    const from = figures.now();
    var count: u64 = 0;
    while (count < 3 or figures.now() - from < run_us * 1000) : (count += 1) {
        const len = figures.get(handle, "large", target);
        if (len + 1 != target.len) @panic("another value");
    }
    const ns: f64 = @floatFromInt(figures.now() - from);
    return @as(f64, @floatFromInt(count)) / (ns / std.time.ns_per_s);
}

fn attachReader(token: *const figures.Token) u32 {
    const codec = figures.codec;
    const flags = @intFromEnum(Flags.readonly);
    const attachTo = abi.segment.shm_segment_attach;
    return figures.must(attachTo(&token.bytes, token.len, codec, codec.len, flags, 500, null));
}

pub fn run(is_smoke: bool) void {
    const sizes: Sizes = if (is_smoke) .smoke else .whole;
    crews.pin(0);
    defer crews.unpin();
    for (sizes.values) |bytes| runOf(sizes, bytes);
}

fn runOf(sizes: Sizes, bytes: u32) void {
    const map = figures.anonymous(0);
    defer _ = abi.segment.shm_segment_close(map);
    const elsewhere = figures.anonymous(0);
    defer _ = abi.segment.shm_segment_close(elsewhere);
    // Private memory would be copied, page by page, by the first read after each fork.
    const target = figures.shared(u8, bytes + 1);
    @memset(target, 7);
    _ = figures.put(map, "large", target[0..bytes]);
    const tokens = [_]figures.Token{ .of(map), .of(elsewhere) };
    const reader = attachReader(&tokens[0]);
    defer _ = abi.segment.shm_segment_close(reader);
    _ = rateOf(reader, target, 0); // touches all pages
    var rates: [3][figures.passes_max]f64 = undefined;
    for (0..sizes.passes) |pass| {
        rates[0][pass] = rateOf(reader, target, sizes.run_us);
        for (&tokens, rates[1..]) |*token, *rate| {
            const writer = figures.fork(token, writeOthers);
            defer figures.end(writer);
            figures.sleep(2000); // until it writes
            rate[pass] = rateOf(reader, target, sizes.run_us);
        }
    }
    const case = "large reads beside a writer of other keys";
    const neighbour = "large reads beside a writer to another map, times alone";
    const passes = sizes.passes;
    rowOf(case ++ ", times alone", "shmap", bytes)
        .ratio(rates[1][0..passes], rates[0][0..passes]);
    rowOf(case ++ ", times beside one to another map", "shmap", bytes)
        .ratio(rates[1][0..passes], rates[2][0..passes]);
    rowOf(neighbour, "floor", bytes).ratio(rates[2][0..passes], rates[0][0..passes]);
    rowOf("large reads alone", "shmap", bytes).passes("ops/s", .most, rates[0][0..passes]);
    rowOf(case, "shmap", bytes).passes("ops/s", .most, rates[1][0..passes]);
}

fn rowOf(case: []const u8, who: []const u8, bytes: u32) Row {
    return Row.of("processes", case, who).with("keys", others).with("value", bytes);
}
