//! Where processes act and die: a directory of its own, an old map under one name, perhaps a living
//! bystander attached to it, and a page that outlives all and knows which one was granted the lock.

const std = @import("std");
const linux = std.os.linux;
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const filter = @import("filter.zig");

const atomics = shmap.atomics;
const layout = shmap.layout;
const os = shmap.os;
const support = shmap.testing.support;
const Map = shmap.map.Map;
const Mode = shmap.directory.Mode;

/// Where a process is killed: before its n-th store, or on entering its n-th system call.
pub const Death = struct {
    place: Place,
    number: u64,

    pub const Place = enum { store, call };
};

/// What may be found under the name after a death.
const Worlds = struct { absent: bool = false, old: bool = false, fresh: bool = false };

pub const Scenario = struct {
    name: []const u8,
    prepare: *const fn (stage: *Stage) anyerror!void,
    act: *const fn (stage: *Stage) anyerror!void,
    may_find: Worlds,
};

const name = "m";
const old_keys = [_][]const u8{ "a", "b", "c", "d" };
const changed_key = "b";
const timeout_ms = 3000;

/// Survives every child.
const Witness = extern struct {
    /// Stores seen by the process that acts, and the one before which it dies; 0 for none.
    stores: u64,
    kill_at: u64,
    /// Not 0: an actor was granted the lock, has not released it, and no later holder was told.
    owed: u64,
    /// Whether it is the process that acts now which has the lock.
    holding: u64,
};

pub const Stage = struct {
    path_buffer: [64]u8,
    path_len: usize,
    kind: layout.LockKind,
    bystander: ?*Map,
    /// The identity of the segment that the bystander is attached to.
    bystander_id: u64,
    /// Of a segment that an act must make grow.
    committed_before: u64,
    witness: *Witness,
    descriptors: u64,

    pub fn init() !Stage {
        var stage: Stage = undefined;
        const format = "/dev/shm/shmap-test-{d}-life";
        stage.path_len = (try std.fmt.bufPrintZ(&stage.path_buffer, format, .{os.pid()})).len;
        stage.bystander = null;
        if (linux.errno(linux.mkdir(stage.path(), 0o700)) != .SUCCESS) return error.NoDirectory;
        stage.witness = try support.shared(Witness);
        stage.descriptors = countDescriptors();
        return stage;
    }

    pub fn deinit(stage: *Stage) void {
        stage.clear();
        _ = linux.rmdir(stage.path());
    }

    pub fn path(stage: *Stage) [:0]const u8 {
        return stage.path_buffer[0..stage.path_len :0];
    }

    pub fn leakedDescriptors(stage: *Stage) ?u64 {
        stage.clear();
        const now = countDescriptors();
        return if (now > stage.descriptors) now - stage.descriptors else null;
    }

    fn clear(stage: *Stage) void {
        if (stage.bystander) |map| support.closeMap(map);
        stage.bystander = null;
        var fault: shmap.status.Fault = .{};
        const full = os.Path.of("{s}", .{stage.path()}) catch return;
        var names = os.Names.of(&fault, &full) catch return;
        defer names.close();
        while (names.next(&fault) catch null) |entry| {
            if (isDots(entry)) continue;
            const file = os.Path.of("{s}/{s}", .{ stage.path(), entry }) catch continue;
            os.unlink(&fault, &file) catch {}; // the checks count what is left
        }
    }

    /// An empty directory, no process attached, no death untold.
    pub fn reset(stage: *Stage, kind: layout.LockKind) !void {
        stage.clear();
        stage.kind = kind;
        stage.witness.* = std.mem.zeroes(Witness);
    }

    pub fn open(stage: *Stage, mode: Mode, readonly: bool) !*Map {
        var fault: shmap.status.Fault = .{};
        const options: shmap.segment.Options = .{
            .recover = shmap.attach.recoverSegment,
            .lock = stage.kind,
            .stripe_bits = 1,
            .max_bytes = if (mode == .attach) 0 else 1 << 20,
            .timeout_ms = timeout_ms,
            .readonly = readonly,
        };
        const map = try shmap.testing.support.prepared(&fault, &options);
        errdefer calls.discard(map);
        map.segment.directory = try shmap.directory.resolve(&map.fault, stage.path());
        try shmap.directory.setName(&map.segment, name);
        try shmap.directory.open(&map.segment, mode, &options);
        map.begin();
        return map;
    }

    /// Runs `act` in a process that dies there. False: it came to its end first.
    pub fn die(stage: *Stage, act: *const fn (*Stage) anyerror!void, death: Death) !bool {
        stage.witness.stores = 0;
        stage.witness.holding = 0;
        stage.witness.kill_at = if (death.place == .store) death.number else 0;
        const child = std.c.fork();
        if (child < 0) return error.NoProcess;
        if (child == 0) stage.live(act, death.place == .call);
        const how = try if (death.place == .call) killAtCall(child, death.number) else reap(child);
        if (linux.W.IFSIGNALED(how) and linux.W.TERMSIG(how) == .KILL) return true;
        if (linux.W.IFEXITED(how) and linux.W.EXITSTATUS(how) == 0) return false;
        return error.ActFailed;
    }

    fn live(stage: *Stage, act: *const fn (*Stage) anyerror!void, traced: bool) noreturn {
        // A forked child shares the bystander's descriptions, and would keep its ranges.
        if (stage.bystander) |map| {
            os.close(map.segment.locks);
            os.close(map.segment.file);
        }
        if (traced) {
            _ = linux.ptrace(linux.PTRACE.TRACEME, 0, 0, 0, 0);
            _ = linux.kill(@intCast(os.pid()), .STOP);
        }
        watched = stage.witness;
        atomics.observer = &observer;
        act(stage) catch |err| {
            std.debug.print("the act failed: {t}\n", .{err});
            linux.exit(1);
        };
        linux.exit(0);
    }

    /// What must be true after the deaths.
    pub fn examine(stage: *Stage, scenario: *const Scenario, deaths: []const Death) !void {
        const locks_first = deaths[deaths.len - 1].number % 2 == 0;
        const map = stage.open(.attach, false) catch |err| {
            if (err != error.NotFound) return err;
            if (!scenario.may_find.absent) return error.NameLost;
            if (stage.bystander) |other| try expectWorks(other);
            const fresh = try stage.open(.shared, false);
            defer support.closeMap(fresh);
            if (try calls.size(fresh) != 0) return error.NotEmpty;
            return stage.expectFiles();
        };
        defer support.closeMap(map);
        try expectWorld(map, scenario.may_find);
        if (locks_first) try stage.expectLock(map);
        try expectWorks(map);
        if (!locks_first) try stage.expectLock(map);
        try stage.examineBystander(map, scenario.may_find);
        try stage.examineReader();
        try stage.expectFiles();
    }

    /// The next holder sees a death that no holder has seen, and only that.
    fn expectLock(stage: *Stage, map: *Map) !void {
        const recovered = try calls.acquire(map, timeout_ms);
        calls.release(map, false);
        if (recovered != (stage.witness.owed != 0)) return error.WronglyRecovered;
        stage.witness.owed = 0;
        if (try calls.acquire(map, timeout_ms)) return error.RecoveredTwice;
        calls.release(map, false);
    }

    /// What was replaced says so; what was unlinked lives on for those attached.
    fn examineBystander(stage: *Stage, map: *Map, may_find: Worlds) !void {
        const other = stage.bystander orelse return;
        const is_same = map.segment.header().id == stage.bystander_id;
        if (is_same or may_find.absent) return expectWorks(other);
        if (calls.get(other, "a", &.{}, 0)) |_| return error.NotToldOfReplacement else |err| {
            if (err != error.Replaced) return err;
        }
    }

    fn examineReader(stage: *Stage) !void {
        const reader = try stage.open(.attach, true);
        defer support.closeMap(reader);
        var buffer: [8]u8 = undefined;
        const value = try calls.get(reader, "afterwards", &buffer, 0) orelse return error.LostWrite;
        if (!std.mem.eql(u8, buffer[0..value.len], "alive")) return error.LostWrite;
    }

    fn expectFiles(stage: *Stage) !void {
        if (try stage.hasStray()) return error.LeftBehind;
    }

    /// Whether there is anything but the one file.
    fn hasStray(stage: *Stage) !bool {
        var fault: shmap.status.Fault = .{};
        const full = try os.Path.of("{s}", .{stage.path()});
        var names = try os.Names.of(&fault, &full);
        defer names.close();
        while (try names.next(&fault)) |entry| {
            if (!std.mem.eql(u8, entry, name) and !isDots(entry)) return true;
        }
        return false;
    }
};

fn isDots(entry: []const u8) bool {
    return std.mem.eql(u8, entry, ".") or std.mem.eql(u8, entry, "..");
}

fn expectWorks(map: *Map) !void {
    _ = try calls.put(map, "afterwards", "alive", 1, .none);
    try support.expectSound(map);
}

/// All of the old keys, or none of them; the changed one may be old or new in either.
fn expectWorld(map: *Map, may_find: Worlds) !void {
    var buffer: [8]u8 = undefined;
    var kept: u64 = 0;
    for (old_keys) |key| {
        const value = try calls.get(map, key, &buffer, 0) orelse continue;
        if (std.mem.eql(u8, buffer[0..value.len], "old")) kept += 1 else {
            if (!std.mem.eql(u8, key, changed_key)) return error.WrongValue;
            if (!std.mem.eql(u8, buffer[0..value.len], "new")) return error.WrongValue;
        }
    }
    const others: u64 = old_keys.len - 1;
    if (kept >= others and may_find.old) return;
    if (kept == 0 and may_find.fresh) return;
    return error.WrongWorld;
}

fn countDescriptors() u64 {
    var fault: shmap.status.Fault = .{};
    const full = os.Path.of("/proc/self/fd", .{}) catch return 0;
    var names = os.Names.of(&fault, &full) catch return 0;
    defer names.close();
    var count: u64 = 0;
    while (names.next(&fault) catch null) |_| count += 1;
    return count;
}

var watched: *Witness = undefined;
var observer: atomics.Observer = .{ .seen = see };

/// Dies before the store it was told of, or notes what it makes known. Of an exchange we are told
/// when it has been made.
fn see(_: *atomics.Observer, word: *const u64, value: u64) void {
    watched.stores += 1;
    const dies = watched.stores == watched.kill_at;
    if (!dies or atomics.load(word) == value) noteLock(word, value);
    if (dies) _ = linux.kill(@intCast(os.pid()), .KILL);
}

fn noteLock(word: *const u64, value: u64) void {
    const at = @intFromPtr(word) % os.page_bytes;
    if (at != @offsetOf(layout.Header, "lock_word")) return;
    const page: *const layout.Header = @ptrFromInt(@intFromPtr(word) - at);
    if (page.magic != layout.magic) return; // a word of the data in the same place of its page
    const next: layout.LockWord = @bitCast(value);
    if (next.state == .held) {
        watched.owed = 1;
        watched.holding = 1;
    } else if (next.state == .free and watched.holding != 0) {
        watched.owed = 0;
        watched.holding = 0;
    }
}

fn reap(child: linux.pid_t) !u32 {
    var how: u32 = 0;
    while (true) {
        const result = linux.waitpid(child, &how, 0);
        switch (linux.errno(result)) {
            .SUCCESS => return how,
            .INTR => {},
            else => return error.NoChild,
        }
    }
}

/// Lets a traced child run to its n-th system call, and no further.
fn killAtCall(child: linux.pid_t, number: u64) !u32 {
    var how = try reap(child); // it stops itself when it is ready
    var stops: u64 = 0;
    while (linux.W.IFSTOPPED(how)) {
        if (stops == 2 * number - 1) { // each call stops on entry and on its way out
            _ = linux.kill(child, .KILL);
            return reap(child);
        }
        _ = linux.ptrace(linux.PTRACE.SYSCALL, child, 0, 0, 0);
        how = try reap(child);
        stops += 1;
    }
    return how;
}

fn nothing(_: *Stage) !void {}

/// The old map, which no process has open.
fn old(stage: *Stage) !void {
    const map = try stage.open(.create, false);
    defer support.closeMap(map);
    for (old_keys) |key| _ = try calls.put(map, key, "old", 1, .none);
}

fn oldWithBystander(stage: *Stage) !void {
    try old(stage);
    stage.bystander = try stage.open(.attach, false);
    stage.bystander_id = stage.bystander.?.segment.header().id;
}

/// As `oldWithBystander`, with hardly a free byte.
fn nearlyFull(stage: *Stage) !void {
    try oldWithBystander(stage);
    const map = stage.bystander.?;
    const filler: [1000]u8 = @splat('f');
    const before = map.segment.header().committed;
    stage.committed_before = before;
    for (0..400) |i| {
        _ = try calls.put(map, std.mem.asBytes(&i), &filler, 1, .none);
        const used = map.segment.header().pool.frontier;
        if (map.segment.header().committed != before) return error.GrownTooEarly;
        if (before - used < 6 * 1024) return;
    }
    return error.NotFull;
}

/// As `old`, left by a process that was killed in the middle of a put.
fn dirty(stage: *Stage) !void {
    try old(stage);
    if (!try stage.die(attachAndPut, .{ .place = .store, .number = 12 })) return error.NotReached;
}

fn dirtyWithBystander(stage: *Stage) !void {
    try oldWithBystander(stage);
    if (!try stage.die(attachAndPut, .{ .place = .store, .number = 3 })) return error.NotReached;
}

fn attachAndPut(stage: *Stage) !void {
    const map = try stage.open(.attach, false);
    _ = try calls.put(map, changed_key, "new", 1, .none);
}

/// The user's lock of a process that was killed while it held it.
fn deadHolder(stage: *Stage) !void {
    try oldWithBystander(stage);
    const never: Death = .{ .place = .store, .number = 1 << 40 };
    if (!try stage.die(holdAndDie, never)) return error.NotReached;
}

fn holdAndDie(stage: *Stage) !void {
    const map = try stage.open(.attach, false);
    _ = try calls.acquire(map, timeout_ms);
    _ = linux.kill(@intCast(os.pid()), .KILL);
}

/// What a maker leaves that is killed between giving the name and taking the temporary one away.
fn leftover(stage: *Stage) !void {
    try old(stage);
    for (1..200) |number| {
        _ = try stage.die(replaceNamed, .{ .place = .call, .number = number });
        if (try stage.hasStray()) return;
    }
    return error.NotReached;
}

fn replaceNamed(stage: *Stage) !void {
    try filter.withoutUnnamedFiles();
    const map = try stage.open(.exclusive, false);
    support.closeMap(map);
}

/// An ordinary process: opens, writes, locks and writes, closes.
pub fn visit(stage: *Stage) !void {
    const map = try stage.open(.shared, false);
    _ = try calls.put(map, changed_key, "new", 1, .none);
    _ = try calls.acquire(map, timeout_ms);
    _ = try calls.put(map, changed_key, "new", 1, .none);
    calls.release(map, false);
    support.closeMap(map);
}

fn visitNamed(stage: *Stage) !void {
    try filter.withoutUnnamedFiles();
    return visit(stage);
}

fn replace(stage: *Stage) !void {
    const map = try stage.open(.exclusive, false);
    _ = try calls.put(map, changed_key, "new", 1, .none);
    support.closeMap(map);
}

fn replaceByRename(stage: *Stage) !void {
    try filter.withoutUnnamedFiles();
    return replace(stage);
}

fn unlink(stage: *Stage) !void {
    var fault: shmap.status.Fault = .{};
    var options: shmap.segment.Options = .{
        .recover = shmap.attach.recoverSegment,
        .timeout_ms = timeout_ms,
    };
    const map = try shmap.testing.support.prepared(&fault, &options);
    _ = try shmap.attach.unlinkName(map, stage.path(), name, &options);
}

fn unlinkOwn(stage: *Stage) !void {
    const map = stage.open(.attach, false) catch |err| {
        return if (err == error.NotFound) {} else err;
    };
    _ = try calls.unlinkOwn(map);
    support.closeMap(map);
}

fn read(stage: *Stage) !void {
    const map = try stage.open(.attach, true);
    var buffer: [8]u8 = undefined;
    _ = try calls.get(map, "a", &buffer, 0);
    support.closeMap(map);
}

fn grow(stage: *Stage) !void {
    const map = try stage.open(.attach, false);
    const large: [6000]u8 = @splat('l');
    _ = try calls.put(map, "large", &large, 1, .none);
    if (map.segment.header().committed == stage.committed_before) return error.NotGrown;
    support.closeMap(map);
}

fn attemptLock(stage: *Stage) !void {
    const map = try stage.open(.attach, false);
    _ = try calls.attempt(map, 0);
    _ = try calls.put(map, changed_key, "new", 1, .none);
    calls.release(map, true);
    _ = try calls.acquire(map, timeout_ms);
    support.closeMap(map);
}

fn clear(stage: *Stage) !void {
    const map = try stage.open(.attach, false);
    try calls.clear(map);
    for (old_keys) |key| _ = try calls.put(map, key, "old", 1, .none);
    support.closeMap(map);
}

const was_old: Worlds = .{ .old = true };

pub const scenarios = [_]Scenario{
    .{
        .name = "create, use and close",
        .prepare = nothing,
        .act = visit,
        .may_find = .{ .absent = true, .fresh = true },
    },
    .{
        .name = "create without unnamed files",
        .prepare = nothing,
        .act = visitNamed,
        .may_find = .{ .absent = true, .fresh = true },
    },
    .{ .name = "attach alone", .prepare = old, .act = visit, .may_find = was_old },
    .{ .name = "attach after a death", .prepare = dirty, .act = visit, .may_find = was_old },
    .{
        .name = "attach beside others",
        .prepare = oldWithBystander,
        .act = visit,
        .may_find = was_old,
    },
    .{
        .name = "meet a dead writer's stripe",
        .prepare = dirtyWithBystander,
        .act = visit,
        .may_find = was_old,
    },
    .{ .name = "attach for reading", .prepare = dirty, .act = read, .may_find = was_old },
    .{ .name = "meet a dead holder", .prepare = deadHolder, .act = visit, .may_find = was_old },
    .{ .name = "lock and hand on", .prepare = deadHolder, .act = attemptLock, .may_find = was_old },
    .{ .name = "grow", .prepare = nearlyFull, .act = grow, .may_find = was_old },
    .{
        .name = "replace nothing",
        .prepare = nothing,
        .act = replace,
        .may_find = .{ .absent = true, .fresh = true },
    },
    .{
        .name = "replace an old one",
        .prepare = old,
        .act = replace,
        .may_find = .{ .old = true, .fresh = true },
    },
    .{
        .name = "replace one in use",
        .prepare = oldWithBystander,
        .act = replace,
        .may_find = .{ .old = true, .fresh = true },
    },
    .{
        .name = "replace by plain rename",
        .prepare = oldWithBystander,
        .act = replaceByRename,
        .may_find = .{ .old = true, .fresh = true },
    },
    .{
        .name = "clean up behind the dead",
        .prepare = leftover,
        .act = visit,
        .may_find = .{ .old = true, .fresh = true },
    },
    .{
        .name = "unlink by name",
        .prepare = oldWithBystander,
        .act = unlink,
        .may_find = .{ .old = true, .absent = true, .fresh = true },
    },
    .{
        .name = "unlink by handle",
        .prepare = oldWithBystander,
        .act = unlinkOwn,
        .may_find = .{ .old = true, .absent = true, .fresh = true },
    },
};
