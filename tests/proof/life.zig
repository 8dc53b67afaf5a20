//! Every store and every system call of a segment's life may be the last one: creation, attach,
//! exclusive replacement, unlinking, growth, the user's lock, and the clean-up behind the dead.
//!
//! A forked process acts and is killed before its n-th store, or on entering its n-th system call,
//! for every n there is; and so is a second one that comes after it. The real kernel drops what
//! they held. Then others find what is promised: a name leads to a whole segment or to nothing,
//! each key is old or new, no process waits, the next holder finds the lock `recovered` after a
//! death and after no other end, and no file is left behind.

const std = @import("std");
const linux = std.os.linux;
const shmap = @import("shmap");
const report = @import("report.zig");
const stages = @import("stage.zig");

const Death = stages.Death;
const Scenario = stages.Scenario;
const Stage = stages.Stage;

const Counts = struct {
    deaths: u64 = 0,
    nested: u64 = 0,
    found: u64 = 0,
};

/// The deaths of a second process that are tried behind one death of the first: all of them behind
/// each so many of the first.
const Nesting = struct { every: u64, stride: u64 };

/// What follows a death: the same act again, or an ordinary visit.
const Second = enum { same, visit };

pub fn main(init: std.process.Init) !void {
    const arguments: report.Arguments = try .of(init);
    var stage: Stage = try .init();
    var counts: Counts = .{};
    const only = if (arguments.words.len > 0) arguments.words[0] else "";
    for ([_]shmap.layout.LockKind{ .robust, .kernel }) |kind| {
        for (&stages.scenarios) |*scenario| {
            if (std.mem.indexOf(u8, scenario.name, only) == null) continue;
            try enumerate(&stage, scenario, kind, &arguments, &counts);
        }
    }
    if (stage.leakedDescriptors()) |more| {
        std.debug.print("{d} descriptors more than at the start\n", .{more});
        counts.found += 1;
    }
    stage.deinit();
    try report.say(init.io, .{
        .part = 1,
        .what = "deaths in a segment's life",
        .tried = counts.deaths,
        .found = counts.found,
        .least = 11_000 / strideAt(arguments.scale),
        .note = if (strideAt(arguments.scale) == 1)
            "before every store and at every system call"
        else
            "before one store in five and at every system call",
    });
    try report.say(init.io, .{
        .part = 1,
        .what = "deaths behind such a death",
        .tried = counts.nested,
        .found = counts.found,
        .least = if (arguments.scale < 1) 0 else arguments.scaled(15_000),
    });
    if (counts.found > 0) std.process.exit(1);
}

/// Kills the act at each of its stores and system calls, and at some of these its successor at each
/// of its own.
fn enumerate(
    stage: *Stage,
    scenario: *const Scenario,
    kind: shmap.layout.LockKind,
    arguments: *const report.Arguments,
    counts: *Counts,
) !void {
    const before = counts.*;
    for ([_]Death.Place{ .store, .call }) |place| {
        const stride = if (place == .store) strideAt(arguments.scale) else 1;
        var number: u64 = 1 + arguments.seed % stride;
        while (true) : (number += stride) {
            const death: Death = .{ .place = place, .number = number };
            const reached = try attempt(stage, scenario, kind, &.{death}, .visit, counts);
            counts.deaths += 1;
            if (!reached) break;
            const nesting = nestingAt(arguments.scale, death);
            if (number < nesting.every or number % nesting.every >= stride) continue;
            for ([_]Second{ .same, .visit }) |second|
                try enumerateNested(stage, scenario, kind, death, second, nesting.stride, counts);
        }
    }
    std.debug.print("{s} {s}: {d} deaths, {d} nested\n", .{
        @tagName(kind),
        scenario.name,
        counts.deaths - before.deaths,
        counts.nested - before.nested,
    });
}

/// At small scales the act is killed before one of so many stores, beginning with one that the seed
/// chooses.
fn strideAt(scale: f64) u64 {
    return if (scale < 0.2) 5 else 1;
}

fn nestingAt(scale: f64, death: Death) Nesting {
    const every: f64 = if (death.place == .call) 19 else 199;
    return .{
        .every = @max(1, @as(u64, @intFromFloat(every / @max(scale, 0.02)))),
        .stride = if (scale > 1) 1 else if (scale == 1) 7 else 29,
    };
}

fn enumerateNested(
    stage: *Stage,
    scenario: *const Scenario,
    kind: shmap.layout.LockKind,
    first: Death,
    second: Second,
    stride: u64,
    counts: *Counts,
) !void {
    for ([_]Death.Place{ .store, .call }) |place| {
        var number: u64 = 1 + first.number % stride;
        while (true) : (number += if (place == .call) 1 else stride) {
            const deaths = [_]Death{ first, .{ .place = place, .number = number } };
            const reached = try attempt(stage, scenario, kind, &deaths, second, counts);
            if (!reached) break;
            counts.nested += 1;
        }
    }
}

/// One scenario from its beginning, with these deaths; false when the last was never reached.
fn attempt(
    stage: *Stage,
    scenario: *const Scenario,
    kind: shmap.layout.LockKind,
    deaths: []const Death,
    second: Second,
    counts: *Counts,
) !bool {
    try stage.reset(kind);
    try scenario.prepare(stage);
    var reached = false;
    for (deaths, 0..) |death, i| {
        const act = if (i == 0 or second == .same) scenario.act else stages.visit;
        reached = stage.die(act, death) catch |err| {
            complain(scenario, kind, deaths, second, err);
            counts.found += 1;
            return false;
        };
    }
    stage.examine(scenario, deaths) catch |err| {
        complain(scenario, kind, deaths, second, err);
        counts.found += 1;
    };
    return reached;
}

fn complain(
    scenario: *const Scenario,
    kind: shmap.layout.LockKind,
    deaths: []const Death,
    second: Second,
    err: anyerror,
) void {
    std.debug.print("{s} {s}:", .{ @tagName(kind), scenario.name });
    for (deaths) |death| std.debug.print(" {s} {d}", .{ @tagName(death.place), death.number });
    std.debug.print(" ({s} second): {t}\n", .{ @tagName(second), err });
}
