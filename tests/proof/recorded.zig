//! The parts of the proof that see every store before it is made, in one program: the engine is
//! compiled once for all of them.
//!
//!     shmap-proof-recorded enumerate|life|step|history|corrupt [--scale <n>] [--seed <n>] [words]

const std = @import("std");
const corrupt = @import("corrupt.zig");
const report = @import("report.zig");

pub const records_stores = true;
/// Only workers of `corrupt` leave out the trace (`corrupt.notePanic`).
pub const panic = std.debug.FullPanic(corrupt.notePanic);

pub fn main(init: std.process.Init) !u8 {
    return report.runPart(.{
        .enumerate = @import("enumerate.zig"),
        .life = @import("life.zig"),
        .step = @import("step.zig"),
        .history = @import("history.zig"),
        .corrupt = corrupt,
    }, init);
}
