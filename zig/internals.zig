//! What the proofs reach into: every file of the library under its own name.

pub const abi = @import("abi.zig");
pub const boundary = @import("boundary.zig");
pub const crash = @import("crash.zig");
pub const directory = @import("directory.zig");
pub const gather = @import("gather.zig");
pub const handles = @import("handles.zig");
pub const hash = @import("hash.zig");
pub const heap = @import("heap.zig");
pub const inspect = @import("inspect.zig");
pub const layout = @import("layout.zig");
pub const lifetime = @import("lifetime.zig");
pub const map = @import("map.zig");
pub const os = @import("os.zig");
pub const pool = @import("pool.zig");
pub const range_lock = @import("range_lock.zig");
pub const raw_file = @import("raw_file.zig");
pub const recovery = @import("recovery.zig");
pub const region = @import("region.zig");
pub const segment = @import("segment.zig");
pub const space = @import("space.zig");
pub const status = @import("status.zig");
pub const stripe_lock = @import("stripe_lock.zig");
pub const table = @import("table.zig");
pub const user_lock = @import("user_lock.zig");
pub const support = @import("support_test.zig");
