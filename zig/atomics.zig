//! Loads, stores and fences on shared words: every store to shared memory goes through here.
//!
//! A killed process leaves the stores it had retired, in program order, on every architecture we
//! run on; so what a crash can leave behind is a prefix of the stores in the order the *compiler*
//! gave them. Each function here is therefore also a compiler barrier. Other processors need more:
//! `storeRelease` is a release store, and `storeFence` and `loadFence` order what release and
//! acquire do not (docs/design.md, Read).
//!
//! In a build that records stores (the tests', the proofs') an `Observer` may be set: it is called
//! before every store, and so a test can lay out again what a crash after any of them leaves, or
//! die there itself. A release build contains none of that.

const std = @import("std");
const builtin = @import("builtin");

/// Whether an observer can be set: in tests, and in programs whose root file asks for it.
pub const recording = builtin.is_test or @hasDecl(@import("root"), "records_stores");
/// Whether a test or a proof can have the engine work with small sizes, so that what is rare
/// happens often (`Trial`, of some files): there, and in programs that ask for this alone.
pub const has_trials = recording or @hasDecl(@import("root"), "has_trials");

/// Called with every store just before it is made.
pub const Observer = struct {
    seen: *const fn (observer: *Observer, word: *const u64, value: u64) void,
    /// Called before pages are emptied: so many words become zeros, page by page.
    emptied: *const fn (observer: *Observer, words: [*]const u64, count: usize) void = seeEach,

    /// As a store to each word.
    fn seeEach(of: *Observer, words: [*]const u64, count: usize) void {
        for (words[0..count]) |*word| of.seen(of, word, 0);
    }
};

/// Sees this thread's stores. Recording builds only.
pub threadlocal var observer: if (recording) ?*Observer else void = if (recording) null else {};

/// Called before a value is copied out: a test lets the writers overtake a reader there. Recording
/// builds only.
pub threadlocal var pause: Pause = if (recording) null else {};
const Pause = if (recording) ?*const fn () void else void;

/// Where a test can stop a reader (`reached`): it has a slot, and will look at the entry that the
/// slot names; or it has copied a piece of a value, and will look whether the entry is still there;
/// or it has read the clock, and will load the end of the entry.
pub const Moment = enum { slot_loaded, piece_copied, clock_read };

/// Called at each such moment. Recording builds only.
pub threadlocal var moment: OnMoment = if (recording) null else {};
const OnMoment = if (recording) ?*const fn (Moment) void else void;

pub inline fn reached(at: Moment) void {
    if (recording) {
        if (moment) |call| call(at);
    }
}

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
        if (observer) |current| current.seen(current, word, value);
    }
}

/// Keeps the compiler from moving any memory access across it.
inline fn compilerBarrier() void {
    asm volatile ("" ::: .{ .memory = true });
}

/// A store whose order matters to a crash, not to another processor: derived words, counters,
/// and the contents of blocks that no reader can reach yet.
pub inline fn store(word: *u64, value: u64) void {
    compilerBarrier();
    note(word, value);
    @atomicStore(u64, word, value, .monotonic);
}

/// A commit: everything stored before is visible to a reader that sees this value with
/// `loadAcquire`.
pub inline fn storeRelease(word: *u64, value: u64) void {
    compilerBarrier();
    note(word, value);
    @atomicStore(u64, word, value, .release);
}

/// Replaces `old` by `new` if it is still there, as a commit. False: it is not.
pub inline fn compareAndSwap(word: *u64, old: u64, new: u64) bool {
    compilerBarrier();
    if (@cmpxchgStrong(u64, word, old, new, .acq_rel, .acquire) != null) return false;
    note(word, new);
    return true;
}

/// Adds one to the lower half of a word that others increment, too: a wake sequence. Pairs with
/// `os.wakeSeq`.
pub inline fn increment(word: *u64) void {
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

/// Loads that pair with `storeRelease`.
pub inline fn loadAcquire(word: *const u64) u64 {
    return @atomicLoad(u64, word, .acquire);
}

/// Loads of words that are checked afterwards, by generation or under a lock.
pub inline fn load(word: *const u64) u64 {
    return @atomicLoad(u64, word, .monotonic);
}

/// The bytes as words, little-endian: one that is whole.
pub inline fn wholeWord(bytes: []const u8, index: usize) u64 {
    return read(u64, bytes.ptr + 8 * index);
}

inline fn read(comptime Word: type, bytes: [*]const u8) u64 {
    return std.mem.readInt(Word, bytes[0..@sizeOf(Word)], .little);
}

/// The `bytes.len % 8` last bytes, of which there is at least one, zero-padded. By loads that
/// overlap instead of byte by byte: how many there are, a processor cannot foresee.
pub inline fn lastWord(bytes: []const u8) u64 {
    const len = bytes.len;
    const end = bytes.ptr + len;
    const tail_bits: u6 = @intCast(len % 8 * 8);
    if (len > 8) return read(u64, end - 8) >> @intCast(64 - @as(u7, tail_bits));
    // Where the loads below overlap they have the same bits.
    if (len >= 4) return read(u32, bytes.ptr) | read(u32, end - 4) << (tail_bits - 32);
    const middle: u6 = @intCast(len / 2 * 8);
    const ends = bytes[0] | @as(u64, bytes[len - 1]) << (tail_bits - 8);
    return ends | @as(u64, bytes[len / 2]) << middle;
}

/// Stores `bytes`, zero-padded to whole words, in a block that no reader can reach yet.
pub inline fn storeBytes(target: [*]u64, bytes: []const u8) void {
    compilerBarrier();
    const whole = bytes.len / 8;
    for (0..whole) |i| {
        const word = wholeWord(bytes, i);
        note(&target[i], word);
        @atomicStore(u64, &target[i], word, .monotonic);
    }
    if (bytes.len % 8 != 0) store(&target[whole], lastWord(bytes));
    compilerBarrier();
}

/// Zeroes words that no reader can reach yet. Word by word: a reader that is too late, and will
/// refuse what it read, may still be loading them.
pub fn storeZeros(target: [*]u64, count: usize) void {
    compilerBarrier();
    for (target[0..count]) |*word| {
        note(word, 0);
        @atomicStore(u64, word, 0, .monotonic);
    }
    compilerBarrier();
}

/// Says that words are about to become zeros by another way than a store: the system gives back the
/// pages that they are on. For the crash images these are stores as all others.
pub inline fn willBeZeros(target: [*]u64, count: usize) void {
    compilerBarrier();
    if (recording) {
        if (observer) |current| current.emptied(current, target, count);
    }
}

/// A copy out of the segment begins, by loads or by way of the kernel.
pub inline fn beginCopy() void {
    if (recording) {
        if (pause) |wait| wait();
    }
}

/// Copies `len` bytes out of the segment while others may be overwriting them; the caller checks
/// the generation afterwards. Word by word, because a plain copy would be a data race. Behind them,
/// `target` may get the zeros of the last word as well.
pub inline fn copyOut(target: []u8, source: [*]const u64, len: usize) void {
    beginCopy();
    var count = len / 8;
    if (target.len >= (count + 1) * 8) {
        count += @intFromBool(len % 8 != 0);
    } else if (len % 8 != 0) copyTail(target.ptr, load(&source[count]), count, len);
    for (0..count) |i|
        std.mem.writeInt(u64, target[8 * i ..][0..8], load(&source[i]), .little);
}

/// What `copySteps` copies at a time.
pub const step_bytes = 32;

/// As `copyOut`, in whole steps, of which there is always one: up to `step_bytes` more than `len`
/// are read and written. So there is nothing to decide for all but large values.
pub inline fn copySteps(target: [*]u8, source: [*]const u64, len: usize) void {
    beginCopy();
    var done: usize = 0;
    while (true) {
        inline for (0..step_bytes / 8) |i| {
            const word = load(&source[done / 8 + i]);
            std.mem.writeInt(u64, target[done + 8 * i ..][0..8], word, .little);
        }
        done += step_bytes;
        if (done >= len) return;
    }
}

/// Writes the last bytes of a copy, which lie in `word`, by stores that overlap (see `lastWord`).
fn copyTail(target: [*]u8, word: u64, whole: usize, len: usize) void {
    const tail = target + 8 * whole;
    const tail_len = len % 8;
    if (tail_len >= 4) {
        const shift: u6 = @intCast(8 * tail_len - 32);
        std.mem.writeInt(u32, tail[0..4], @truncate(word), .little);
        std.mem.writeInt(u32, (tail + tail_len - 4)[0..4], @truncate(word >> shift), .little);
        return;
    }
    const middle: u6 = @intCast(tail_len / 2 * 8);
    const last: u6 = @intCast(tail_len * 8 - 8);
    tail[0] = @truncate(word);
    tail[tail_len / 2] = @truncate(word >> middle);
    tail[tail_len - 1] = @truncate(word >> last);
}

test "bytes of any length come back, zero-padded in between" {
    const text = "forty bytes, each of them another: ABCDE";
    for (1..text.len + 1) |len| {
        var words: [5]u64 = @splat(std.math.maxInt(u64));
        storeBytes(&words, text[0..len]);
        var padded: [40]u8 = @splat(0);
        @memcpy(padded[0..len], text[0..len]);
        const whole = std.mem.alignForward(usize, len, 8);
        const stored = std.mem.sliceAsBytes(&words)[0..whole];
        try std.testing.expectEqualSlices(u8, padded[0..whole], stored);
        if (len % 8 != 0)
            try std.testing.expectEqual(words[whole / 8 - 1], lastWord(text[0..len]));
        // With room behind them, and without any.
        for ([_]usize{ 48, len }) |room| {
            var bytes: [48]u8 = @splat('-');
            copyOut(bytes[0..room], &words, len);
            try std.testing.expectEqualStrings(text[0..len], bytes[0..len]);
            try std.testing.expectEqual(@as(u8, '-'), bytes[@min(room, whole)]);
        }
    }
}

test "a recorder notes every store in order" {
    var stores: Recorder = .{ .gpa = std.testing.allocator };
    defer stores.stores.deinit(stores.gpa);
    observer = &stores.observer;
    defer observer = null;
    var words: [4]u64 = undefined;
    store(&words[0], 1);
    storeRelease(&words[1], 2);
    storeBytes(words[2..].ptr, "ab");
    storeZeros(words[3..].ptr, 1);
    try std.testing.expectEqual(@as(usize, 4), stores.stores.items.len);
    try std.testing.expectEqual(@intFromPtr(&words[1]), stores.stores.items[1].address);
    try std.testing.expectEqual(@as(u64, 'a' | 'b' << 8), stores.stores.items[2].value);
}
