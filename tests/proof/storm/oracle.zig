//! What the processes of the native storm did: memory of their parent that outlives them all. Each
//! notes what it is about to do before a call, and that it is done after it, so the next look after
//! a death finds what must be there, and which one thing may be.
//!
//! Values prove themselves: every word of one follows from its key, its sequence number, its length
//! and its place, so a reader can tell a whole value from a mixture without knowing who wrote it.

const std = @import("std");
const shmap = @import("shmap");

const linux = std.os.linux;
const os = shmap.os;

/// Slots are lines of workers: when one is killed, the next in its slot goes on with its keys.
pub const slot_count = 10;
/// The last slots are survivors: the parent does not kill them.
pub const mortal_count = 8;
/// Few keys of a slot with values of all sizes, and many with small ones.
pub const hot_count = 10;
pub const key_count = hot_count + 96;
/// Keys of a slot whose entries end (`ends.zig`).
pub const ending_count = 12;
pub const named_key_count = 8;
pub const value_bytes_max = 40_000;
pub const shared_map_count = 3;

/// One state of a key.
pub const Word = packed struct(u64) {
    /// One more than the length; 0: there is no value.
    size: u24 = 0,
    sequence: u40 = 0,

    pub fn of(bits: u64) Word {
        return @bitCast(bits);
    }

    pub fn len(word: Word) usize {
        return word.size - 1;
    }
};

/// What is known of a key. The two differ while, or when a writer died while, it was written.
pub const Key = extern struct {
    acked: u64 = 0,
    intent: u64 = 0,
    /// Not 0: the acknowledged write was compared with what is there.
    checked: u64 = 1,
};

/// What is known of a key whose entries end: of each state the end as well.
pub const Ending = extern struct { key: Key = .{}, acked_end: u64 = 0, intent_end: u64 = 0 };

/// What is known of one shared map.
pub const MapOracle = extern struct {
    keys: [slot_count][key_count]Key,
    ends: [slot_count][ending_count]Ending,
    /// Additions to the vector that compare-and-set keeps.
    added: [slot_count]Key,
    /// What the lock's next holder must be told (see `free` and so on in lock.zig).
    owed: u64,
    /// Who has the lock, as it says itself; 0: no worker.
    holder: u64,
    /// What both counters under the lock hold.
    counted: Key,
};

pub const Intent = enum(u64) { none, create, replace, unlink };

/// What is known of the name that only one slot creates, replaces and unlinks.
pub const NameOracle = extern struct {
    /// The identity of the segment it leads to, 0 for none.
    id: u64,
    intent: u64,
    /// Not 0: `clear` is under way.
    clearing: u64,
    keys: [named_key_count]Key,
    /// Segments whose unlinker died, perhaps between taking the name and noting it.
    forlorn: [8]u64,
    forlorn_count: u64,
};

pub const Call = enum(u64) {
    none,
    open,
    replace,
    unlink,
    close,
    get,
    put,
    delete,
    clear,
    lock,
    unlock,
    snapshot,
    verify,
    take,
    swap,
};
const call_count = @typeInfo(Call).@"enum".fields.len;

pub const Slot = extern struct {
    /// The number of the last worker that was, or is about to be, killed.
    doomed: u64,
    incarnation: u64,
    /// Since when the call under way is; 0: none is.
    since_ns: u64,
    call: u64,
    /// For how long this slot's workers were stopped, in all.
    stopped_ns: u64,
    next_sequence: u64,
    name: NameOracle,
};

/// What can go wrong.
pub const Kind = enum(u64) {
    lost_write,
    torn_value,
    stale_read,
    call_failed,
    wrong_answer,
    granted_twice,
    recovered_missed,
    recovered_false,
    foreign_write,
    counter_wrong,
    waited_too_long,
    name_wrong,
    orphan,
    damaged,
    died,
    panicked,
    leaked,
    left_behind,
};

pub const Violation = extern struct {
    kind: u64,
    slot: u64,
    at_kill: u64,
    details: [4]u64,
};

/// What is counted for the report.
pub const Count = enum(u64) {
    checked_writes,
    reads,
    grants,
    recovered,
    replaced,
    unlinked,
    opened,
    verified,
    snapshots,
};
const counter_count = @typeInfo(Count).@"enum".fields.len;

pub const Oracle = extern struct {
    maps: [shared_map_count]MapOracle,
    slots: [slot_count]Slot,
    /// Not 0: the survivors end, by themselves.
    over: u64,
    kills: u64,
    kills_wanted: u64,
    /// How much later than asked for the parent woke up, in all: how starved the machine is.
    starved_ns: u64,
    counts: [counter_count]u64,
    longest_ns: [call_count]u64,
    /// The most memory the first map had, in each quarter of the storm.
    allocated: [4]u64,
    violation_count: u64,
    violations: [32]Violation,

    pub fn count(oracle: *Oracle, what: Count, more: u64) void {
        _ = @atomicRmw(u64, &oracle.counts[@intFromEnum(what)], .Add, more, .monotonic);
    }

    pub fn counted(oracle: *const Oracle, what: Count) u64 {
        return load(&oracle.counts[@intFromEnum(what)]);
    }

    pub fn violate(oracle: *Oracle, kind: Kind, slot: u64, details: [4]u64) void {
        const at = @atomicRmw(u64, &oracle.violation_count, .Add, 1, .acq_rel);
        if (at >= oracle.violations.len) return;
        oracle.violations[at] = .{
            .kind = @intFromEnum(kind),
            .slot = slot,
            .at_kill = load(&oracle.kills),
            .details = details,
        };
    }

    pub fn isOver(oracle: *const Oracle) bool {
        return load(&oracle.over) != 0;
    }
};

pub fn load(word: *const u64) u64 {
    return @atomicLoad(u64, word, .seq_cst);
}

pub fn store(word: *u64, value: u64) void {
    @atomicStore(u64, word, value, .seq_cst);
}

pub fn now() u64 {
    var time: linux.timespec = undefined;
    _ = linux.clock_gettime(.MONOTONIC, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

fn patternOf(key: u64, word: Word) u64 {
    const mixed = (key *% 0x9e3779b97f4a7c15) ^ (@as(u64, @bitCast(word)) *% 0xd6e8feb86659fd93);
    return mixed ^ mixed >> 32;
}

const step = 0xa0761d6478bd642f;

/// The value of `key` in the state `word`, whose length is 16 at least.
pub fn valueOf(buffer: []u8, key: u64, word: Word) []const u8 {
    const value = buffer[0..word.len()];
    std.mem.writeInt(u64, value[0..8], key, .little);
    std.mem.writeInt(u64, value[8..16], @bitCast(word), .little);
    var next = patternOf(key, word);
    var at: usize = 16;
    while (at + 8 <= value.len) : (at += 8) {
        std.mem.writeInt(u64, value[at..][0..8], next, .little);
        next +%= step;
    }
    for (value[at..], 0..) |*byte, i| byte.* = @truncate(next >> @intCast(8 * i));
    return value;
}

/// The state a whole value of `key` is of; null for a torn or a foreign one.
pub fn stateOf(value: []const u8, key: u64) ?Word {
    if (value.len < 16 or std.mem.readInt(u64, value[0..8], .little) != key) return null;
    const word: Word = @bitCast(std.mem.readInt(u64, value[8..16], .little));
    if (word.size != value.len + 1) return null;
    var next = patternOf(key, word);
    var at: usize = 16;
    while (at + 8 <= value.len) : (at += 8) {
        if (std.mem.readInt(u64, value[at..][0..8], .little) != next) return null;
        next +%= step;
    }
    for (value[at..], 0..) |byte, i| {
        if (byte != @as(u8, @truncate(next >> @intCast(8 * i)))) return null;
    }
    return word;
}

pub fn keyOf(slot: u64, index: u64) u64 {
    return slot << 32 | index;
}

/// A key's bytes: its number, and up to 40 more.
pub fn keyBytes(buffer: *[64]u8, key: u64) []const u8 {
    @memset(buffer, 'k');
    std.mem.writeInt(u64, buffer[0..8], key, .little);
    return buffer[0 .. 8 + (key & 0xffff) * 7 % 41];
}

/// The name of a segment of this storm; the parent's process id makes it ours.
pub fn nameOf(buffer: *[64]u8, parent: u32, label: u8, number: u64) []const u8 {
    return std.fmt.bufPrint(buffer, "shmap-test-{d}-{c}{d}", .{ parent, label, number }) catch
        unreachable; // 64 bytes are enough
}
