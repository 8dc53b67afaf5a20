//! The parts of the proof whose processes run at full speed, in one program: the engine is compiled
//! once for all of them.
//!
//!     shmap-proof-plain storm|full|act [--scale <n>] [--seed <n>] [words …]

const std = @import("std");
const report = @import("report.zig");
const storm = @import("storm.zig");

/// The storm runs with small mappings and extents, too (`run.mjs`).
pub const has_trials = true;
/// Only workers of the storm say something before the trace (`storm.notePanic`).
pub const panic = std.debug.FullPanic(storm.notePanic);

pub fn main(init: std.process.Init) !u8 {
    return report.runPart(.{
        .storm = storm,
        .full = @import("full.zig"),
        .act = @import("act.zig"),
    }, init);
}
