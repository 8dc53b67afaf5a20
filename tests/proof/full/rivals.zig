//! Several that want the last bytes of one file system: two maps, and a file that takes all there
//! is and goes away again.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const Flags = shmap.marshal.Flags;
const world = @import("../act/world.zig");
const linux = std.os.linux;
const os = shmap.os;

const Fault = shmap.status.Fault;
const Seen = world.Seen;
const no_space = @intFromEnum(shmap.status.Status.noSpace);

const Story = struct {
    report: *world.Report,
    directory: []const u8,
    flags: u32,
    random: std.Random,

    fn open(story: Story, name: []const u8) ?Seen {
        var fault: Fault = .{};
        const handle = world.openUnbounded(story.directory, name, story.flags, &fault);
        if (handle < 0) {
            story.report.complain("open of {s} gave {d}", .{ name, handle });
            return null;
        }
        return .{ .handle = @intCast(handle), .is_value = false };
    }

    /// Keys from 1000 on until nothing fits. How many were stored.
    fn fill(story: Story, seen: Seen) usize {
        var key: usize = 1000;
        while (key < 1_000_000) : (key += 1) {
            const number: u8 = if (story.random.uintLessThan(u8, 8) == 0) 3 else 2;
            const status = seen.put(key, number);
            if (status == no_space and number == 2) break;
            if (status != 1 and status != no_space) {
                story.report.complain("a put gave {d}", .{status});
                break;
            }
        }
        return key - 1000;
    }

    /// The first keys are as they were told to be, and can be replaced by as much.
    fn goesOn(story: Story, seen: Seen, content: *const world.Content) void {
        var found: world.Content = undefined;
        const status = seen.look(&found);
        if (status < 0) return story.report.complain("a read gave {d}", .{status});
        if (!std.mem.eql(u8, &found, content))
            story.report.complain("what was stored has changed", .{});
        for (0..24) |key| {
            const stored = seen.put(key, 1);
            if (stored != 1 and stored != no_space)
                story.report.complain("a replacement gave {d}", .{stored});
        }
    }

    /// Takes all that is left.
    fn eat(story: Story) void {
        var fault: Fault = .{};
        const path = os.Path.of("{s}/food", .{story.directory}) catch return;
        const fd = os.openNew(&fault, &path) catch
            return story.report.complain("no other file", .{});
        defer os.close(fd);
        var at: u64 = 0;
        for ([_]u64{ 1 << 20, 64 << 10, 4096 }) |step| {
            while (linux.errno(linux.fallocate(fd, 0, @intCast(at), @intCast(step))) == .SUCCESS)
                at += step;
        }
    }

    fn spew(story: Story) void {
        var fault: Fault = .{};
        const path = os.Path.of("{s}/food", .{story.directory}) catch return;
        os.unlink(&fault, &path) catch story.report.complain("the other file stays", .{});
    }

    /// Nothing new can be made, and nothing is left of the attempt.
    fn cannotBegin(story: Story) void {
        var fault: Fault = .{};
        const handle = world.openUnbounded(story.directory, "late", story.flags, &fault);
        if (handle != no_space) story.report.complain("open without space gave {d}", .{handle});
        const path = os.Path.of("{s}/region", .{story.directory}) catch return;
        const bits = @intFromEnum(Flags.regionRead) | @intFromEnum(Flags.regionWrite);
        const bytes = std.mem.asBytes(&fault);
        const region = calls.call(.shm_region_open, .{
            path.z(),
            calls.word(path.len),
            0,
            9999,
            bits,
            bytes,
        });
        if (region != no_space) story.report.complain("a region gave {d}", .{region});
        const own = os.Path.of("{s}", .{story.directory}) catch return;
        var names = os.Names.of(&fault, &own) catch return;
        defer names.close();
        while (names.next(&fault) catch null) |entry| {
            for ([_][]const u8{ ".", "..", "map", "rival", "food" }) |known| {
                if (std.mem.eql(u8, entry, known)) break;
            } else story.report.complain("left over: {s}", .{entry});
        }
    }
};

/// A map with something in it; another takes all space, or a plain file does; then it is given
/// back, and the first goes on.
pub fn run(
    report: *world.Report,
    directory: []const u8,
    is_kernel: bool,
    random: std.Random,
) void {
    const story: Story = .{
        .report = report,
        .directory = directory,
        .flags = if (is_kernel) 64 | 128 else 64,
        .random = random,
    };
    const seen = story.open("map") orelse return;
    const content = world.base(false);
    for (content, 0..) |number, key| {
        if (number != world.absent and seen.put(key, number) != 1)
            return report.complain("the first puts failed", .{});
    }
    const rival = story.open("rival") orelse return;
    _ = story.fill(rival);
    story.goesOn(seen, &content);
    _ = story.fill(seen);
    story.goesOn(seen, &content);
    rival.expectSound(report);
    _ = calls.call(.shm_segment_unlink, .{rival.handle});
    _ = calls.call(.shm_segment_close, .{rival.handle});
    const more = story.fill(seen);
    if (more == 0) report.complain("the space that came back is not used", .{});
    story.goesOn(seen, &content);
    if (calls.call(.shm_map_clear, .{seen.handle}) != 0) report.complain("clear failed", .{});
    for (content, 0..) |number, key| {
        if (number != world.absent and seen.put(key, number) != 1)
            report.complain("a cleared map takes nothing", .{});
    }
    story.eat();
    _ = story.fill(seen);
    story.goesOn(seen, &content);
    story.cannotBegin();
    story.spew();
    if (story.fill(seen) == 0) report.complain("the space of the other file is not used", .{});
    story.goesOn(seen, &content);
    seen.expectSound(report);
    _ = calls.call(.shm_segment_close, .{seen.handle});
    report.is_done = true;
}
