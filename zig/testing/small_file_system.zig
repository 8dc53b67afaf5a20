//! A file system in memory of a few MiB, for a process that leaves for mounts of its own.

const std = @import("std");
const os = @import("../os/os.zig");
const status = @import("../status.zig");

const Fault = status.Fault;
const linux = std.os.linux;

fn writeFile(comptime path: []const u8, text: []const u8) void {
    var fault: Fault = .{};
    const full = os.Path.of(path, .{}) catch unreachable; // a constant
    const fd = os.open(&fault, &full, .read_write) catch return;
    defer os.close(fd);
    _ = linux.write(fd, text.ptr, text.len);
}

/// Goes to a mount namespace of its own; what is mounted there goes with its last process. Why not,
/// where that is refused.
pub fn leaveForOwnMounts() ?[]const u8 {
    const uid = os.userId();
    const gid = linux.getegid();
    const is_root = uid == 0 and linux.errno(linux.unshare(linux.CLONE.NEWNS)) == .SUCCESS;
    if (!is_root) {
        const spaces = linux.CLONE.NEWUSER | linux.CLONE.NEWNS;
        if (linux.errno(linux.unshare(spaces)) != .SUCCESS)
            return "no user namespace to mount a file system in";
        var buffer: [64]u8 = undefined;
        writeFile("/proc/self/setgroups", "deny");
        const users = std.fmt.bufPrint(&buffer, "0 {d} 1", .{uid}) catch unreachable; // fits
        writeFile("/proc/self/uid_map", users);
        const groups = std.fmt.bufPrint(&buffer, "0 {d} 1", .{gid}) catch unreachable; // fits
        writeFile("/proc/self/gid_map", groups);
    }
    const flags = linux.MS.REC | linux.MS.PRIVATE;
    if (linux.errno(linux.mount("none", "/", null, flags, 0)) != .SUCCESS)
        return "the mounts cannot be made private";
    return null;
}

/// Mounts a new one there. Why not, where that is refused.
pub fn mount(directory: *const os.Path, mib: u32) ?[]const u8 {
    var buffer: [32]u8 = undefined;
    const size = std.fmt.bufPrintZ(&buffer, "size={d}m", .{mib}) catch unreachable; // fits
    const result = linux.mount("shmap-test", directory.z(), "tmpfs", 0, @intFromPtr(size.ptr));
    return if (linux.errno(result) == .SUCCESS) null else "no file system in memory to mount";
}
