//! The system, as the rest of the library sees it: one name for each thing that is asked of it, and
//! what every platform's files promise. They lie in `zig/os`, and are the only ones that make
//! system calls, but for the libc's mutex in `stripe_lock.zig`.
//!
//! A failed call notes the system's own number of the error in the `Fault` and comes back as one of
//! `status.Error`; a call that a signal interrupts is made again.
//!
//! What a platform does not have is said by a constant, known when the library is compiled, and the
//! functions for it fail with `Unsupported`. What each platform does instead is in docs/design.md,
//! Platforms.

const std = @import("std");
const builtin = @import("builtin");
const atomics = @import("../atomics.zig");
const common = @import("common.zig");
const status = @import("../status.zig");

const Error = status.Error;
const Fault = status.Fault;

/// The platform's own files, for tools that serve one platform only.
pub const system = switch (builtin.os.tag) {
    .linux => @import("linux.zig"),
    .macos => @import("macos.zig"),
    .windows => @import("windows.zig"),
    else => @compileError("shmap is not written for this system"),
};
const process = switch (builtin.os.tag) {
    .linux => @import("linux_process.zig"),
    .macos => @import("macos_process.zig"),
    .windows => @import("windows_process.zig"),
    else => unreachable,
};
const regions = switch (builtin.os.tag) {
    .linux => @import("linux_region.zig"),
    .macos => @import("macos_region.zig"),
    .windows => @import("windows_region.zig"),
    else => unreachable,
};

pub const page_bytes = common.page_bytes;
pub const Access = common.Access;
pub const Base = common.Base;
pub const Direction = common.Direction;
pub const Fd = common.Fd;
pub const FileSystem = common.FileSystem;
pub const Make = common.Make;
pub const Mode = common.Mode;
pub const Overwrites = common.Overwrites;
pub const Pages = common.Pages;
pub const Path = common.Path;
pub const Stat = common.Stat;
pub const Use = common.Use;
pub const no_file = common.no_file;
pub const ifLinked = common.ifLinked;
pub const note = common.note;

/// Files without a name, and memory files that other processes reach by a descriptor's number, if
/// this one `isOpenToUser`. Else both are files with names of ours, removed by the last handle that
/// leaves.
pub const has_memory_files: bool = system.has_memory_files;
/// A mutex that the kernel passes on when its owner dies. Without it segments have kernel locks.
pub const has_robust_mutex: bool = system.has_robust_mutex;
/// The kernel sleeps on a word of shared memory, and looks at it in our stead.
pub const has_shared_futex: bool = system.has_shared_futex;
/// The kernel says whether a range is locked by others, without locking it.
pub const has_range_queries: bool = system.has_range_queries;
/// The numbers by which a runtime knows open files are those of the system.
pub const has_descriptors: bool = system.has_descriptors;
/// The kernel gives private memory a larger place by itself.
pub const has_page_moves: bool = system.has_page_moves;
/// A file gives back the blocks of some of its bytes, which then read as zeros, and a file that is
/// lengthened needs none.
pub const has_holes: bool = system.has_holes;
/// A file can be removed while a process has it mapped. Without it the file is renamed instead.
pub const removes_mapped_files: bool = system.removes_mapped_files;
/// Bytes that no name of a file may have.
pub const name_separators: []const u8 = system.name_separators;
/// Numbers of errors that are noted without a call that failed.
pub const Number = system.Number;

/// Where segments lie that are not told where.
pub const defaultDirectory: fn (*Fault) Error!Path = system.defaultDirectory;

/// Opens an existing file by its own name, for itself alone: a link is refused, not followed.
pub const open: fn (*Fault, *const Path, Access) Error!Fd = system.open;
/// A second open file description of the same file, with ranges of its own. `NotFound`,
/// `Unsupported`: the system cannot find the file by its description, or no file.
pub const openAgain: fn (*Fault, Fd, Access) Error!Fd = system.openAgain;
/// Opens a memory file of ours through another process's descriptor. `NotFound`: the number leads
/// to nothing of that kind; it may be anything by now, and is looked at before it is followed; or
/// there is no such process. `PermissionDenied`: the system does not let us look.
pub const openMemoryOf: fn (*Fault, u32, u31, Access) Error!Fd = system.openMemoryOf;
pub const openDirectory: fn (*Fault, *const Path) Error!Fd = system.openDirectory;
/// The path of an open directory, absolute, and without links where the system knows it. It was
/// opened by the path given.
pub const directoryPath: fn (*Fault, Fd, *const Path) Error!Path = system.directoryPath;
/// A file without a name, which `openAgain` and `linkUnnamed` can find. `Unsupported`: there is no
/// such thing there.
pub const openUnnamed: fn (*Fault, *const Path) Error!Fd = system.openUnnamed;
/// Makes a file that only this user may open. `Exists`: something has the name.
pub const openNew: fn (*Fault, *const Path) Error!Fd = system.openNew;
/// A file in memory without a name.
pub const memoryFile: fn (*Fault) Error!Fd = system.memoryFile;
pub const close: fn (Fd) void = system.close;

pub const stat: fn (*Fault, Fd) Error!Stat = system.stat;
/// Of the name itself, not of what a link leads to.
pub const statName: fn (*Fault, *const Path) Error!Stat = system.statName;
/// Reads at most as many bytes as there is room for, from an offset on; fewer at the end of the
/// file.
pub const readAt: fn (*Fault, Fd, []u8, u64) Error!usize = system.readAt;
/// Allocates the blocks of `[from, to)`, so that touching them can never be answered by a signal.
/// On failure the file may have grown in part, and `cut` gives that back.
pub const allocate: fn (*Fault, Fd, u64, u64) Error!void = system.allocate;
/// Lengthens a file to so many bytes, and allocates nothing. `Unsupported`: not `has_holes`.
pub const lengthen: fn (*Fault, Fd, u64) Error!void = system.lengthen;
/// Gives back the blocks of the whole pages `[from, to)`, which read as zeros from now on: by
/// `readAt` without a block, through a mapping by way of a new one, or by a signal if there is
/// none. `Unsupported`: not here, and nothing changed.
pub const punch: fn (*Fault, Fd, u64, u64) Error!void = system.punch;
/// Whether a load of a hole through a mapping can be answered by no signal.
pub const areHolesSafe: fn (Fd) bool = system.areHolesSafe;

/// Reserves address space for so many bytes of the file and maps it there; what lies beyond its end
/// becomes part of the mapping by `extend`.
pub const map: fn (*Fault, Fd, u64, Access) Error!Base = system.map;
/// Makes `[from, to)` of a grown file part of a mapping. Assumes that `[0, from)` is.
pub const extend = system.extend;
/// Lets go of the system's own tables for a shared mapping, which stays as it is: a page that is
/// touched again costs a little.
pub const forget: fn (Base, u64) void = system.forget;
/// Notes that there is no address space for so many bytes, and how much this process may have.
pub const noAddresses: fn (*Fault, u64) Error = system.noAddresses;
/// How much address space this process may have; null: as much as there is.
pub const addressLimit: fn () ?u64 = system.addressLimit;
/// Gives back a mapping of so many bytes, as they were asked for.
pub const unmap: fn (Base, u64) void = system.unmap;
/// Private memory, zeroed, whole pages.
pub const pages: fn (*Fault, u64) Error!Pages = system.pages;
pub const freePages: fn (Pages) void = system.freePages;

/// Gives an unnamed file a name. `Exists`: another file has it.
pub const linkUnnamed: fn (*Fault, Fd, *const Path) Error!void = system.linkUnnamed;
/// Gives a named file another name; it may keep the one it had. `Exists`: another file
/// has the new one.
pub const link: fn (*Fault, *const Path, *const Path) Error!void = system.link;
/// Gives the second name to the file of the first, and takes it from any other. In one step where
/// the system can, and then true. False: the file that had the name has lost it, and none has it.
pub const exchange: fn (*Fault, *const Path, *const Path) Error!bool = system.exchange;
/// Takes a name away: nothing is found by it any more.
pub const unlink: fn (*Fault, *const Path) Error!void = system.unlink;
pub const setPermissions: fn (*Fault, Fd, u32) Error!void = system.setPermissions;
/// The names in a directory, without allocating: `namesIn`, `next` until null, `close`.
pub const Names = system.Names;

/// How many directories were read so far, which takes as long as they are. Counted for tests alone.
pub var directory_reads: if (builtin.is_test) u64 else void = if (builtin.is_test) 0 else {};

pub fn namesIn(fault: *Fault, directory: *const Path) Error!Names {
    if (builtin.is_test) directory_reads += 1;
    return Names.of(fault, directory);
}

pub const fileSystem: fn (*Fault, Fd) Error!FileSystem = system.fileSystem;
/// Has a new, empty file overwritten in place, on a file system that does so if told.
pub const overwriteInPlace: fn (*Fault, Fd) Error!void = system.overwriteInPlace;

/// Locks one byte. False: another handle holds it. Never waits. Assumes that this description holds
/// nothing there.
pub const lockRange: fn (*Fault, Fd, i64, Mode) Error!bool = system.lockRange;
/// From shared to exclusive. False: another handle holds it, too; then this one may have lost it.
pub const upgradeRange: fn (*Fault, Fd, i64) Error!bool = system.upgradeRange;
/// From exclusive to shared, without a moment in between.
pub const downgradeRange: fn (Fd, i64) void = system.downgradeRange;
pub const unlockRange: fn (Fd, i64) void = system.unlockRange;
/// Unlocks everything from a byte on; what is held is among so many bytes, where that matters, or
/// the description closes now.
pub const unlockRanges: fn (Fd, i64, u32) void = system.unlockRanges;
/// Whether another description holds the byte in any mode. Without `has_range_queries` this locks
/// it for a moment, and takes what this description itself holds for another's.
pub const isRangeLocked: fn (*Fault, Fd, i64) Error!bool = system.isRangeLocked;

/// Opens a user's file, following links: it is theirs. `new`: `Exists` if anything has the name.
pub const openUser: fn (*Fault, *const Path, Access, Make) Error!Fd = regions.openUser;
/// Opens a descriptor's file once more. Its own rights bind us, though the file might grant more to
/// another process that opens it anew.
pub const reopen: fn (*Fault, Fd, Use) Error!Fd = regions.reopen;
/// Another number for the same open file description, which a program may be given.
pub const duplicate: fn (*Fault, Fd) Error!Fd = regions.duplicate;
/// Whether two numbers lead to the same open file description.
pub const areTwins: fn (Fd, Fd) bool = regions.areTwins;
/// How long the file is now. Of a description that is not the user's: this may move its position.
pub const length: fn (*Fault, Fd) Error!u64 = regions.length;
/// Cuts or lengthens a file to so many bytes.
pub const cut: fn (*Fault, Fd, u64) Error!void = regions.cut;
/// Asks for the blocks of `[from, to)` beyond the end of a file, which stays where it is. On
/// failure there may be some; cutting the file to its own length gives them back. `Unsupported`:
/// there is no such thing there.
pub const reserve: fn (*Fault, Fd, u64, u64) Error!void = regions.reserve;
/// A file in memory that no process can cut short.
pub const sealedMemory: fn (*Fault, u64) Error!Fd = regions.sealedMemory;
/// Whether no other process can cut the file short.
pub const isSealed: fn (Fd) bool = regions.isSealed;
/// Maps a region's file, which reaches that far, or will; private where asked for.
pub const mapUser: fn (*Fault, Fd, u64, Use) Error!Base = regions.mapUser;
/// Has what was written to the mapping written to its file.
pub const sync: fn (*Fault, Fd, Base, u64) Error!void = regions.sync;
/// Writes within the file. Assumes that it reaches that far: beyond its end this would lengthen it.
pub const writeAt: fn (*Fault, Fd, []const u8, u64) Error!usize = regions.writeAt;
/// Copies between a mapping and own memory by way of the kernel, which stops before a page that
/// cannot be touched. How much; `Unsupported`: the kernel does not offer it, or not to us.
pub const copy: fn (*Fault, Direction, [*]u8, [*]u8, usize) Error!usize = regions.copy;

pub const random: fn ([]u8) void = process.random;
pub const pid: fn () u32 = process.pid;
/// Whether a process of this PID namespace has the number; true where that cannot be said.
pub const isLiving: fn (u32) bool = process.isLiving;
/// Whether other processes of this user may open what this one has open, by the numbers of its
/// descriptors. Not if it has gained rights by being started, or has changed its user.
pub const isOpenToUser: fn () bool = process.isOpenToUser;
/// The calling thread's id, which no other living thread of this process has.
pub const threadId: fn () u32 = process.threadId;
/// This user, as the owner of a file is known; 0 is the administrator.
pub const userId: fn () u32 = process.userId;
/// This process's PID namespace. `Unsupported`: the machine does not tell, and two processes that
/// both do not know may well be in two. 0 on a system without robust mutexes, where none asks.
pub const pidNamespace: fn (*Fault) Error!u64 = process.pidNamespace;
/// This boot's random id. As `pidNamespace`, if the machine does not tell.
pub const bootId: fn (*Fault) Error![2]u64 = process.bootId;
pub const sleepNs: fn (u64) void = process.sleepNs;

/// Once for each copy of the library: has a function called at the end of every watched thread, and
/// keeps the library loaded. False: the system refuses.
pub const prepareThreads: fn (common.AtEnd) bool = process.prepareThreads;
/// A word of the calling thread, 0 at first. Not before `prepareThreads` has said true.
pub const threadWord: fn () usize = process.threadWord;
/// Sets it. The end of a thread whose word is not 0 calls the function of `prepareThreads`.
pub const setThreadWord: fn (usize) void = process.setThreadWord;
/// Has a function called in the child of every fork.
pub const watchForks: fn (common.AtFork) void = process.watchForks;

/// Whole pages that hold so many bytes, with what the old ones had, which are gone. On failure
/// nothing changes.
pub fn growPages(fault: *Fault, old: Pages, bytes: u64) Error!Pages {
    if (has_page_moves) return system.growPages(fault, old, bytes);
    const grown = try pages(fault, bytes);
    @memcpy(grown[0..old.len], old);
    freePages(old);
    return grown;
}

pub fn randomWord() u64 {
    var bytes: [8]u8 = undefined;
    random(&bytes);
    return @bitCast(bytes);
}

/// How long a waiter that looks at a wake sequence sleeps before it looks again, at most; a
/// platform says what is the least (`look_ns_min`).
const look_ns_max = 2 * std.time.ns_per_ms;

/// The half of a shared word that counts, where a futex can be.
fn low(word: *const u64) *const u32 {
    const halves: *const [2]u32 = @ptrCast(word);
    return &halves[0]; // little-endian, as everything shared
}

/// What a wake sequence reads now; hand it to `sleepOn`.
pub fn wakeSeq(wake_seq: *const u64) u32 {
    return @atomicLoad(u32, low(wake_seq), .acquire); // pairs with `atomics.increment`
}

/// Sleeps until the wake sequence moves, at most `ns`, unless it has moved since it read `count`.
/// May also return for no reason.
pub fn sleepOn(wake_seq: *const u64, count: u32, ns: u64) void {
    const word = low(wake_seq);
    if (has_shared_futex) process.sleepOn(word, count, ns) else poll(word, count, ns);
}

/// Looks at the word again and again.
fn poll(word: *const u32, count: u32, ns: u64) void {
    const end = monotonicNs() +| ns;
    var step: u64 = process.look_ns_min;
    while (@atomicLoad(u32, word, .acquire) == count) { // pairs with `atomics.increment`
        const left = end -| monotonicNs();
        if (left == 0) return;
        sleepNs(@min(step, left));
        step = @min(step * 2, look_ns_max);
    }
}

/// Wakes all that sleep on the wake sequence, in every process. Without `has_shared_futex` they
/// wake by themselves.
pub fn wakeAll(wake_seq: *const u64) void {
    if (has_shared_futex) process.wakeAll(low(wake_seq));
}

/// What tests see of the clocks on their own thread, and change. A release has none of it.
pub const clocks = if (builtin.is_test) struct {
    /// How often each was read.
    pub threadlocal var monotonic_reads: u64 = 0;
    pub threadlocal var wall_reads: u64 = 0;
    /// How far the wall clock was set forward or back.
    pub threadlocal var wall_step_ns: i64 = 0;
    /// How many deadlines began.
    pub threadlocal var deadlines: u64 = 0;
} else struct {};

/// Nanoseconds since some moment, by the clock of all waits: no program sets it.
pub fn monotonicNs() u64 {
    if (builtin.is_test) clocks.monotonic_reads += 1;
    return process.monotonicNs();
}

/// Nanoseconds since 1970, for people to read. People also set it, so no wait looks at it.
pub fn realtimeNs() u64 {
    const now = process.realtimeNs();
    if (!builtin.is_test) return now;
    clocks.wall_reads += 1;
    return @intCast(@as(i128, now) + clocks.wall_step_ns);
}

/// What the clock of ends reads on this thread, and how often it was read. Recording builds only.
pub threadlocal var end_clock: if (atomics.recording) ?u64 else void =
    if (atomics.recording) null else {};
pub threadlocal var end_clock_reads: if (atomics.recording) u64 else void =
    if (atomics.recording) 0 else {};

/// Milliseconds since 1970, by the clock that entries end by: it lags by up to a tick of the
/// machine, and never runs ahead of `realtimeNs`.
pub fn endClockMs() u64 {
    if (atomics.recording) {
        end_clock_reads += 1;
        if (end_clock) |ms| return ms;
    }
    return process.coarseRealtimeNs() / std.time.ns_per_ms;
}

/// The end of a call's patience. It begins when it is first asked what is left of it, which is when
/// something was busy: a call that meets nothing busy reads no clock. One is made for each call,
/// and all that the call waits for on its way asks that very one.
pub const Deadline = struct {
    timeout_ms: f64,
    /// 0: it has not begun.
    end_ns: u64 = 0,
    /// Whether it has begun, or its call may have noted something in the record of failures: the
    /// next call must not go on with either (`Map.startQuickCall`).
    is_used: bool = false,

    /// From here on a timeout has no end.
    const forever_ms = 1e12;

    pub fn in(timeout_ms: f64) Deadline {
        return .{ .timeout_ms = timeout_ms };
    }

    /// Nanoseconds left, at most `most`; 0 when it has passed.
    pub fn left(deadline: *Deadline, most: u64) u64 {
        if (deadline.timeout_ms <= 0) return 0;
        if (!(deadline.timeout_ms < forever_ms)) return most;
        const now = monotonicNs();
        if (deadline.end_ns == 0) {
            if (builtin.is_test) clocks.deadlines += 1;
            deadline.end_ns = now + nsOf(deadline.timeout_ms);
            deadline.is_used = true;
        }
        return @min(deadline.end_ns -| now, most);
    }

    /// Begins it, where something was in the way that is not waited for here.
    pub fn begin(deadline: *Deadline) void {
        _ = deadline.left(1);
    }

    /// Ends a step of a call that had a deadline of its own: the call goes on with `before`. If the
    /// step began its deadline, or noted something, the next call still begins anew.
    pub fn goBackTo(deadline: *Deadline, before: Deadline) void {
        const is_used = deadline.is_used or before.is_used;
        deadline.* = before;
        deadline.is_used = is_used;
    }

    /// Whether the time since it began is over. Reads no clock before it has begun.
    pub fn hasPassed(deadline: *Deadline) bool {
        return deadline.end_ns != 0 and deadline.left(1) == 0;
    }

    /// As this one, but with so many milliseconds left at least.
    pub fn atLeast(deadline: *const Deadline, ms: f64) Deadline {
        const timeout_ms = @max(deadline.timeout_ms, ms);
        if (deadline.end_ns == 0) return .in(timeout_ms);
        return .{
            .timeout_ms = timeout_ms,
            .is_used = true,
            .end_ns = @max(deadline.end_ns, monotonicNs() + nsOf(ms)),
        };
    }

    fn nsOf(ms: f64) u64 {
        return @intFromFloat(ms * std.time.ns_per_ms);
    }
};

test "a deadline begins when it is first asked, and then stands" {
    const expect = std.testing.expect;
    const before = clocks.monotonic_reads;
    var soon: Deadline = .in(1000);
    var never: Deadline = .in(std.math.inf(f64));
    var now: Deadline = .in(0);
    try expect(never.left(7) == 7 and now.left(7) == 0);
    try expect(clocks.monotonic_reads == before and soon.end_ns == 0);
    sleepNs(2 * std.time.ns_per_ms);
    const least = monotonicNs() + 1000 * std.time.ns_per_ms;
    try expect(soon.left(7) == 7 and soon.end_ns >= least);
    const end = soon.end_ns;
    sleepNs(2 * std.time.ns_per_ms);
    try expect(soon.left(std.math.maxInt(u64)) <= 998 * std.time.ns_per_ms);
    try expect(soon.end_ns == end);
}

test "a deadline with so much left at least ends no sooner than it did" {
    const expect = std.testing.expect;
    var soon: Deadline = .in(5);
    try expect(soon.atLeast(10).timeout_ms == 10 and soon.atLeast(1).timeout_ms == 5);
    _ = soon.left(1);
    try expect(soon.atLeast(0).end_ns == soon.end_ns);
    const later = soon.atLeast(1000);
    try expect(later.end_ns > soon.end_ns + 900 * std.time.ns_per_ms);
    var now: Deadline = .in(0);
    var extended = now.atLeast(1000);
    try expect(now.left(1) == 0 and extended.left(1) == 1);
}
