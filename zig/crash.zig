//! The one place through which every store to shared memory goes.
//!
//! A killed process leaves the stores it had retired, in program order, on every architecture we
//! run on; so what a crash can leave behind is a prefix of the stores in the order the *compiler*
//! gave them. Each function here is therefore also a compiler barrier. Other processors need more:
//! `publish` is a release store, and `storeFence` and `loadFence` order what release and acquire do
//! not (docs/design.md, Read).
//!
//! In a build that records stores (the tests', the proofs') an `Observer` may be set: it is told of
//! every store, and so a test can lay out again what a crash after any of them leaves, or die there
//! itself. A release build contains none of that.

const std = @import("std");
const builtin = @import("builtin");

/// Whether an observer can be set: in tests, and in programs whose root file asks for it.
pub const recording = builtin.is_test or @hasDecl(@import("root"), "records_stores");

/// Told of every store just before it is made.
pub const Observer = struct {
    seen: *const fn (observer: *Observer, word: *const u64, value: u64) void,
};

/// Who is told of this thread's stores. Recording builds only.
pub threadlocal var observer: if (recording) ?*Observer else void = if (recording) null else {};

/// Called before a value is copied out: a test lets the writers overtake a reader there. Recording
/// builds only.
pub threadlocal var pause: Pause = if (recording) null else {};
const Pause = if (recording) ?*const fn () void else void;

/// One store: the address it went to and what it wrote.
pub const Store = struct { address: usize, value: u64 };

/// Notes the stores made while it observes.
pub const Recorder = struct {
    observer: Observer = .{ .seen = add },
    stores: std.ArrayList(Store) = .empty,
    gpa: std.mem.Allocator,

    fn add(observer_of: *Observer, word: *const u64, value: u64) void {
        const self: *Recorder = @fieldParentPtr("observer", observer_of);
        self.stores.append(self.gpa, .{ .address = @intFromPtr(word), .value = value }) catch
            @panic("the crash recorder ran out of memory");
    }
};

inline fn note(word: *const u64, value: u64) void {
    if (recording) {
        if (observer) |told| told.seen(told, word, value);
    }
}

/// Keeps the compiler from moving any memory access across it.
inline fn compilerBarrier() void {
    asm volatile ("" ::: .{ .memory = true });
}

/// A store whose order matters to a crash, not to another processor: derived words, counters,
/// and the contents of blocks nobody can reach yet.
pub inline fn store(word: *u64, value: u64) void {
    compilerBarrier();
    note(word, value);
    @atomicStore(u64, word, value, .monotonic);
}

/// A commit: everything stored before is visible to whoever sees this value with an acquire load.
pub inline fn publish(word: *u64, value: u64) void {
    compilerBarrier();
    note(word, value);
    @atomicStore(u64, word, value, .release);
}

/// Replaces `old` by `new` if it is still there, as a commit. False: it is not.
pub inline fn replace(word: *u64, old: u64, new: u64) bool {
    compilerBarrier();
    if (@cmpxchgStrong(u64, word, old, new, .acq_rel, .acquire) != null) return false;
    note(word, new);
    return true;
}

/// Adds one to the lower half of a word, whoever else does so: a bell. Pairs with `os.bellCount`.
pub inline fn bump(word: *u64) void {
    compilerBarrier();
    const halves: *[2]u32 = @ptrCast(word);
    const before = @atomicRmw(u32, &halves[0], .Add, 1, .release);
    note(word, before +% 1);
}

/// Orders all earlier stores before all later ones (StoreStore), for other processors.
pub inline fn storeFence() void {
    switch (builtin.cpu.arch) {
        .aarch64 => asm volatile ("dmb ishst" ::: .{ .memory = true }),
        .x86_64 => compilerBarrier(),
        else => @compileError("storeFence is not written for this processor"),
    }
}

/// Orders all earlier loads before all later ones (LoadLoad).
pub inline fn loadFence() void {
    switch (builtin.cpu.arch) {
        .aarch64 => asm volatile ("dmb ishld" ::: .{ .memory = true }),
        .x86_64 => compilerBarrier(),
        else => @compileError("loadFence is not written for this processor"),
    }
}

/// Loads that pair with `publish`.
pub inline fn acquire(word: *const u64) u64 {
    return @atomicLoad(u64, word, .acquire);
}

/// Loads of words that are checked afterwards, by generation or under a lock.
pub inline fn load(word: *const u64) u64 {
    return @atomicLoad(u64, word, .monotonic);
}

/// The eight bytes at `bytes[at..]`, fewer at the end: zero-padded, little-endian.
pub inline fn wordOf(bytes: []const u8, at: usize) u64 {
    if (at + 8 <= bytes.len) return std.mem.readInt(u64, bytes[at..][0..8], .little);
    return tailOf(bytes[at..]);
}

fn tailOf(bytes: []const u8) u64 {
    var word: u64 = 0;
    for (bytes, 0..) |byte, i| word |= @as(u64, byte) << @intCast(8 * i);
    return word;
}

/// Fills a block nobody can reach yet: `bytes`, zero-padded to whole words.
pub fn fill(target: [*]u64, bytes: []const u8) void {
    compilerBarrier();
    const whole = bytes.len / 8;
    for (0..whole) |i| {
        const word = std.mem.readInt(u64, bytes[8 * i ..][0..8], .little);
        note(&target[i], word);
        @atomicStore(u64, &target[i], word, .monotonic);
    }
    if (bytes.len % 8 != 0) store(&target[whole], tailOf(bytes[8 * whole ..]));
    compilerBarrier();
}

/// Zeroes words nobody can reach yet. Word by word: a reader that comes too late, and will refuse
/// what it read, may still be loading them.
pub fn zero(target: [*]u64, count: usize) void {
    compilerBarrier();
    for (target[0..count]) |*word| {
        note(word, 0);
        @atomicStore(u64, word, 0, .monotonic);
    }
    compilerBarrier();
}

/// Copies `len` bytes out of the segment while others may be overwriting them; the caller checks
/// the generation afterwards. Word by word, because a plain copy would be a data race.
pub fn copyOut(target: [*]u8, source: [*]const u64, len: usize) void {
    if (recording) {
        if (pause) |wait| wait();
    }
    const whole = len / 8;
    var i: usize = 0;
    while (i + 4 <= whole) : (i += 4) {
        inline for (0..4) |k| {
            std.mem.writeInt(u64, target[8 * (i + k) ..][0..8], load(&source[i + k]), .little);
        }
    }
    while (i < whole) : (i += 1) {
        std.mem.writeInt(u64, target[8 * i ..][0..8], load(&source[i]), .little);
    }
    if (len % 8 != 0) {
        var word = load(&source[whole]);
        for (target[8 * whole .. len]) |*byte| {
            byte.* = @truncate(word);
            word >>= 8;
        }
    }
}

test copyOut {
    var words: [3]u64 = undefined;
    fill(&words, "seventeen bytes!!");
    var bytes: [17]u8 = undefined;
    copyOut(&bytes, &words, 17);
    try std.testing.expectEqualStrings("seventeen bytes!!", &bytes);
    try std.testing.expectEqual(@as(u64, '!'), words[2]);
}

test "a recorder notes every store in order" {
    var stores: Recorder = .{ .gpa = std.testing.allocator };
    defer stores.stores.deinit(stores.gpa);
    observer = &stores.observer;
    defer observer = null;
    var words: [4]u64 = undefined;
    store(&words[0], 1);
    publish(&words[1], 2);
    fill(words[2..].ptr, "ab");
    zero(words[3..].ptr, 1);
    try std.testing.expectEqual(@as(usize, 4), stores.stores.items.len);
    try std.testing.expectEqual(@intFromPtr(&words[1]), stores.stores.items[1].address);
    try std.testing.expectEqual(@as(u64, 'a' | 'b' << 8), stores.stores.items[2].value);
}
