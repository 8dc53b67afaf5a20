//! The yardstick: the least a table of this kind can do. The same hash, the same slot words, the
//! same probing and the same word-wise copies as the engine's, in the same kind of memory, but one
//! process, one table of a size stated beforehand, values overwritten where they lie, no lock, no
//! checks, no versions. What it costs less than the engine is what sharing and safety cost.

const std = @import("std");
const shmap = @import("shmap");
const hash = shmap.hash;
const layout = shmap.layout;
const tables = shmap.table;
const os = shmap.os;

const Slot = layout.Slot;
const granule_bytes = layout.granule_bytes;

/// What lies before key and value, each padded to whole words.
const Head = packed struct(u64) { value_len: u32, key_len: u16, kind: u8, _unused: u8 = 0 };

pub const Table = struct {
    memory: []align(os.page_bytes) u8,
    slots: []u64,
    secrets: hash.Secrets,
    /// Blocks from here on were never used.
    top: u64,
    /// The first block that was freed, 0 for none; the next one's offset lies in it. All entries
    /// of the benchmark are of one size.
    free: u64,

    pub fn init(entries_max: u64) !Table {
        const log2 = tables.log2For(entries_max).?;
        const bytes = tables.bytesFor(log2) + (entries_max + 1) * 96;
        const memory = try sharedMemory(std.mem.alignForward(u64, bytes, os.page_bytes));
        const slots: [*]u64 = @ptrCast(memory.ptr);
        return .{
            .memory = memory,
            .slots = slots[0 .. @as(u64, 1) << log2],
            .secrets = .{
                .fast = .{
                    0x9e3779b97f4a7c15,
                    0xbf58476d1ce4e5b9,
                    0x94d049bb133111eb,
                    0xd6e8feb86659fd93,
                },
                .sip = @splat(0),
            },
            .top = tables.bytesFor(log2),
            .free = 0,
        };
    }

    pub fn deinit(table: *Table) void {
        std.posix.munmap(table.memory);
    }

    fn at(table: *const Table, offset: u64) [*]u64 {
        return @ptrCast(@alignCast(table.memory.ptr + offset));
    }

    const KeyHash = struct { index: u64, tag: layout.Tag, entry: ?[*]u64, vacant: ?u64 };

    inline fn find(table: *const Table, key: []const u8) KeyHash {
        const tag: layout.Tag = @truncate(hash.fast(&table.secrets, key));
        const mask = table.slots.len - 1;
        var index = tag & mask;
        var vacant: ?u64 = null;
        while (true) : (index = (index + 1) & mask) {
            const word = table.slots[index];
            if (word == Slot.empty)
                return .{ .index = index, .tag = tag, .entry = null, .vacant = vacant };
            if (word == Slot.tombstone) {
                vacant = vacant orelse index;
                continue;
            }
            const slot: Slot = @bitCast(word);
            if (slot.tag != tag) continue;
            const entry = table.at(@as(u64, slot.granule) * granule_bytes);
            if (sameKey(entry, key))
                return .{ .index = index, .tag = tag, .entry = entry, .vacant = vacant };
        }
    }

    /// The length of the value, which is copied with its kind behind it if it fits; -1 for none.
    pub noinline fn get(
        table: *Table,
        key: [*]const u8,
        key_len: u32,
        target: [*]u8,
        target_len: u32,
    ) callconv(.c) i32 {
        const entry = table.find(key[0..key_len]).entry orelse return -1;
        const head: Head = @bitCast(entry[0]);
        if (head.value_len < target_len) {
            const source = entry + 1 + layout.words(head.key_len);
            shmap.atomics.copyOut(target[0..target_len], source, head.value_len);
            target[head.value_len] = head.kind;
        }
        return @intCast(head.value_len);
    }

    /// Overwrites the value where it lies; assumes one of the same length. Else stores a new one.
    pub noinline fn put(
        table: *Table,
        key: [*]const u8,
        key_len: u32,
        value: [*]const u8,
        value_len: u32,
        kind: u32,
    ) callconv(.c) i32 {
        const place = table.find(key[0..key_len]);
        const entry = place.entry orelse table.block(24 + key_len + value_len);
        const key_words = layout.words(key_len);
        if (place.entry == null) {
            shmap.atomics.storeBytes(entry + 1, key[0..key_len]);
            const offset = @intFromPtr(entry) - @intFromPtr(table.memory.ptr);
            table.slots[place.vacant orelse place.index] = shmap.entry.slotWord(place.tag, offset);
        }
        entry[0] = @bitCast(Head{
            .value_len = value_len,
            .key_len = @intCast(key_len),
            .kind = @truncate(kind),
        });
        shmap.atomics.storeBytes(entry + 1 + key_words, value[0..value_len]);
        return 1;
    }

    fn block(table: *Table, bytes: u64) [*]u64 {
        if (table.free != 0) {
            const words = table.at(table.free);
            table.free = words[0];
            return words;
        }
        const offset = table.top;
        table.top += std.mem.alignForward(u64, bytes, granule_bytes);
        return table.at(offset);
    }

    pub noinline fn delete(table: *Table, key: [*]const u8, key_len: u32) callconv(.c) i32 {
        const place = table.find(key[0..key_len]);
        const entry = place.entry orelse return 0;
        const mask = table.slots.len - 1;
        // As the engine does: tombstones that no probe needs any more become empty again.
        table.slots[place.index] = Slot.tombstone;
        if (table.slots[(place.index + 1) & mask] == Slot.empty) {
            var index = place.index;
            while (table.slots[index] == Slot.tombstone) : (index = (index -% 1) & mask)
                table.slots[index] = Slot.empty;
        }
        entry[0] = table.free;
        table.free = @intFromPtr(entry) - @intFromPtr(table.memory.ptr);
        return 1;
    }
};

inline fn sameKey(entry: [*]const u64, key: []const u8) bool {
    const head: Head = @bitCast(entry[0]);
    if (head.key_len != key.len) return false;
    const whole = key.len / 8;
    for (0..whole) |i| {
        if (entry[1 + i] != shmap.atomics.wholeWord(key, i)) return false;
    }
    return key.len % 8 == 0 or entry[1 + whole] == shmap.atomics.lastWord(key);
}

/// A file in memory, mapped and shared, as the engine's is.
fn sharedMemory(bytes: u64) ![]align(os.page_bytes) u8 {
    const flags: std.posix.MAP = .{ .TYPE = .SHARED, .ANONYMOUS = true, .POPULATE = true };
    return std.posix.mmap(null, bytes, .{ .READ = true, .WRITE = true }, flags, -1, 0);
}
