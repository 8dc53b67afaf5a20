//! The entries of one stripe, for iteration. They are copied without a lock and validated
//! afterwards, a few at a time.
//!
//! A stripe is walked by *hash class*: the entries that share the lowest bits of their tags, and so
//! a home in the table. Classes come in the order of these bits reversed, so that a table of
//! another size goes on where the last one stopped: what writers of other keys do to the table
//! never makes an iteration start again. One class is one probe.

const std = @import("std");
const atomics = @import("../atomics.zig");
const entries = @import("../stripe/entry.zig");
const gathered = @import("gathered.zig");
const layout = @import("../layout.zig");
const read = @import("read.zig");
const status = @import("../status.zig");
const tables = @import("../stripe/table.zig");
const Map = @import("map.zig").Map;

const Detail = gathered.Detail;
const Error = status.Error;
const Refusal = @import("../segment/view.zig").Refusal;
const Slot = layout.Slot;
const Stripe = layout.Stripe;

/// The most entries that are taken at a time. A class has one or two; where one has more than this,
/// it is taken in parts.
const class_max = 64;

/// What a walk gathers: the keys that begin with `prefix`, and how much of each entry.
pub const Wanted = struct { detail: Detail, prefix: []const u8 = "" };

/// How far a walk over a stripe has come. It holds for any size of the table.
pub const Progress = struct {
    stripe: u32,
    /// What is left: tags with their bits reversed, from this one on.
    next: u32 = 0,
    /// Which hash the tags are of.
    sip: bool = false,

    const end: u32 = 1 << @bitSizeOf(layout.Tag);
};

/// What a step of a walk came to. `over`: the stripe has no more. `again`: the stripe was hashed
/// anew, and the walk is at its beginning; what was gathered before does not count.
pub const Step = enum { more, over, again };

/// The entries of one stripe, each whole; every key present throughout once, none twice. Returns
/// the gathered bytes.
pub fn gatherStripe(map: *Map, index: u32, wanted: Wanted) Error!u64 {
    try map.segment.check();
    if (index >= map.segment.view.stripeCount()) return error.InvalidArgument;
    var progress: Progress = .{ .stripe = index };
    map.gathered_len = 0;
    _ = map.takeNow(); // before any end is loaded
    while (true) {
        switch (try gatherClass(map, &progress, wanted)) {
            .more => {},
            .over => return map.gathered_len,
            .again => map.gathered_len = 0,
        }
    }
}

/// Gathers the next class of a stripe, or a part of it.
pub fn gatherClass(
    map: *Map,
    progress: *Progress,
    wanted: Wanted,
) Error!Step {
    var part: Part = .{ .start = map.gathered_len };
    for (0..read.looks_max) |i| {
        const how: How = if (i == 0) .at_once else .key_by_key;
        if (try gatherPart(map, progress, &part, wanted, how)) |step| return step;
    }
    while (map.segment.readonly) {
        if (map.segment.deadline.left(1) == 0) return error.Timeout;
        if (try gatherPart(map, progress, &part, wanted, .key_by_key)) |step| return step;
    }
    var op = try read.lockAsLastResort(map, progress.stripe);
    defer op.unlock();
    while (true) {
        if (try gatherPart(map, progress, &part, wanted, .at_once)) |step| return step;
    }
}

/// A class, or a part of one, on its way.
const Part = struct {
    /// Where its records begin.
    start: usize,
    /// Its tags end before this one, reversed. It only becomes smaller.
    to: u32 = Progress.end,
};

/// `at_once`: with their values, and all is well if the generation stood still meanwhile.
/// `key_by_key`: no key is lost that was copied whole, and each value is read as `get` does.
const How = enum { at_once, key_by_key };

/// One look at a class. Null: a writer was faster, or the class has to be taken in smaller parts.
fn gatherPart(
    map: *Map,
    progress: *Progress,
    part: *Part,
    wanted: Wanted,
    how: How,
) Error!?Step {
    const stripe = map.segment.view.stripe(progress.stripe);
    var listing: Listing = .begin(stripe);
    const table = try gathered.openTable(map, listing.table) orelse {
        // Without a table the stripe is empty: no key was there throughout.
        map.gathered_len = part.start;
        return .over;
    };
    if (table.sip != progress.sip) {
        map.gathered_len = part.start;
        if (progress.sip) return .over; // the fast hash comes back only by way of an empty stripe
        progress.sip = true;
        if (progress.next > 0) {
            progress.next = 0;
            return .again;
        }
    }
    const class_end = endOfClass(table, progress.next);
    if (part.to > class_end) {
        // Records of a smaller table's class would come again with the next one.
        part.to = class_end;
        map.gathered_len = part.start;
    }
    if (!listing.add(table, progress.next, part.to)) {
        if (part.to - progress.next > 1) {
            part.to = progress.next + (part.to - progress.next) / 2;
            map.gathered_len = part.start;
            return null;
        }
        // So many keys with the very same tag: an insert would have changed the hash before.
        if (!listing.isValid(stripe)) return null;
        return map.segment.fault.withReason(.tableDamaged, error.Corrupt);
    }
    const is_complete = switch (how) {
        .at_once => try gatherAtOnce(map, stripe, &listing, part, wanted),
        .key_by_key => try gatherKeys(map, progress, &listing, part, wanted.prefix),
    };
    if (!is_complete) return null;
    if (how == .key_by_key and wanted.detail != .keys) try addValues(map, part);
    progress.next = part.to;
    return if (progress.next == Progress.end) .over else .more;
}

/// Where the class of a reversed tag ends in this table.
fn endOfClass(table: tables.Table, reversed: u32) u32 {
    const tags = Progress.end >> @intCast(table.log2);
    return (reversed | (tags - 1)) + 1;
}

/// The slots of a class.
const Listing = struct {
    generation: u64,
    begun: u64,
    is_quiet: bool,
    table: u64,
    slots: [class_max]u64 = undefined,
    count: usize = 0,

    fn begin(stripe: *const Stripe) Listing {
        const generation = atomics.loadAcquire(&stripe.generation);
        const count = atomics.loadAcquire(&stripe.begin);
        return .{
            .generation = generation,
            .begun = count,
            .is_quiet = atomics.loadAcquire(&stripe.end) == count,
            .table = atomics.loadAcquire(&stripe.table),
        };
    }

    /// Adds the slots whose reversed tags lie from `from` up to `to`, which are of one class.
    /// False: they are too many.
    fn add(listing: *Listing, table: tables.Table, from: u32, to: u32) bool {
        const home = @bitReverse(@as(layout.Tag, @intCast(from))) & table.mask();
        for (0..table.slotCount()) |i| {
            const slot = atomics.loadAcquire(&table.slots[(home + i) & table.mask()]);
            if (slot == Slot.empty) return true;
            if (slot == Slot.tombstone) continue;
            const reversed: u32 = @bitReverse(@as(Slot, @bitCast(slot)).tag);
            if (reversed < from or reversed >= to) continue;
            if (listing.count == class_max) return false;
            listing.slots[listing.count] = slot;
            listing.count += 1;
        }
        return true;
    }

    /// Whether all that was loaded since `begin` is whole. Then every key of the class that was
    /// there throughout is in a slot: also if the table was replaced meanwhile, for nothing is
    /// stored in a table that is not the stripe's any more.
    fn isValid(listing: *const Listing, stripe: *const Stripe) bool {
        return read.isStill(stripe, listing.generation);
    }

    /// Whether the same key may be in two slots, because it was deleted and stored again meanwhile.
    fn mayRepeat(listing: *const Listing, stripe: *const Stripe) bool {
        return !listing.is_quiet or atomics.load(&stripe.begin) != listing.begun;
    }
};

/// Gathers the entries of a listing. False: a writer was faster, and nothing was gathered.
fn gatherAtOnce(
    map: *Map,
    stripe: *const Stripe,
    listing: *const Listing,
    part: *const Part,
    wanted: Wanted,
) Error!bool {
    map.gathered_len = part.start;
    const result: Error!void = for (listing.slots[0..listing.count]) |slot| {
        const entry = entries.ofSlot(&map.segment.view, slot) catch |err| break err;
        // A key that was overtaken may not look as it does; then the listing does not count.
        if (!entry.hasPrefix(wanted.prefix)) continue;
        const expires = entry.expires();
        if (map.isOver(expires)) continue;
        gathered.appendEntry(map, entry, expires, wanted.detail) catch |err| break err;
    } else {};
    if (!listing.isValid(stripe)) {
        gathered.discard(map, part.start);
        return false;
    }
    result catch |err| return damaged(map, err);
    if (listing.count > 1 and listing.mayRepeat(stripe)) gathered.dropDuplicates(map, part.start);
    return true;
}

fn damaged(map: *Map, err: Error) Error {
    if (err != error.Corrupt) return err;
    return map.segment.fault.withReason(.entryDamaged, error.Corrupt);
}

/// Gathers the keys of a listing that are not there yet. False: some could not be copied in time;
/// those that could stay. A copy of a key is whole if the generation stood still, or if that key
/// leads to the very entry it was copied from (`read.zig`).
fn gatherKeys(
    map: *Map,
    progress: *const Progress,
    listing: *const Listing,
    part: *const Part,
    prefix: []const u8,
) Error!bool {
    const stripe = map.segment.view.stripe(progress.stripe);
    var views: [class_max]entries.EntryView = undefined;
    var pairs: [class_max]read.Pair = undefined;
    var ends: [class_max]u64 = undefined;
    const slots = listing.slots[0..listing.count];
    const result: Refusal!void = for (slots, 0..) |slot, i| {
        views[i] = entries.ofSlot(&map.segment.view, slot) catch |err| break err;
        pairs[i] = .of(views[i]);
        ends[i] = views[i].expires();
    } else {};
    if (!listing.isValid(stripe)) return false;
    result catch |err| return damaged(map, err);
    var is_complete = true;
    for (views[0..slots.len], pairs[0..slots.len], ends[0..slots.len]) |entry, pair, expires| {
        if (map.isOver(expires)) continue;
        const at = map.gathered_len;
        try gathered.appendEntry(map, entry, expires, .keys);
        const key = gathered.keyOf(map.gathered, at);
        const is_whole = read.isStill(stripe, listing.generation) or
            read.isStillThere(map, progress.stripe, key, pair);
        is_complete = is_complete and is_whole;
        const is_wanted = is_whole and std.mem.startsWith(u8, key, prefix);
        if (!is_wanted or gathered.hasKey(map, part.start, at, key)) map.gathered_len = at;
    }
    return is_complete;
}

/// Puts records with values in the place of those with keys alone. A key that is gone by now was
/// not there throughout.
fn addValues(map: *Map, part: *const Part) Error!void {
    const keys_end = map.gathered_len;
    var at = part.start;
    while (at < keys_end) : (at += gathered.recordBytes(map.gathered, at))
        try appendByKey(map, at);
    gathered.removeRange(map, part.start, keys_end);
}

/// Adds a record for the key of the record at `at`.
fn appendByKey(map: *Map, at: usize) Error!void {
    const head = @sizeOf(gathered.Record);
    const start = map.gathered_len;
    const key_len = gathered.keyOf(map.gathered, at).len;
    var guess: u64 = 256;
    while (true) {
        map.gathered_len = start;
        const bytes = std.mem.alignForward(u64, key_len + guess, 8);
        const room = try gathered.reserve(map, head + bytes);
        const key = gathered.keyOf(map.gathered, at); // where it is now
        const target = room[head + key_len ..];
        const meta = try read.get(map, key, target, 0) orelse {
            map.gathered_len = start;
            return;
        };
        const is_large = gathered.isLarge(meta.len);
        if (!is_large and meta.len > target.len) {
            guess = meta.len;
            continue;
        }
        const record: gathered.Record = .{
            .key_len = @intCast(key_len),
            .value_len = meta.len,
            .kind = if (is_large) @as(u16, meta.kind) | gathered.left_out else meta.kind,
            .expires = @floatFromInt(meta.expires),
        };
        @memcpy(room[0..head], std.mem.asBytes(&record));
        @memcpy(room[head..][0..key_len], key);
        const body = key_len + if (is_large) @as(u64, 0) else meta.len;
        const end = std.mem.alignForward(u64, body, 8);
        @memset(room[head + body .. head + end], 0);
        map.gathered_len = start + head + end;
        return;
    }
}

test "a key met twice is kept once, also with its value left out" {
    const calls = @import("../testing/calls.zig");
    const support = @import("../testing/support.zig");
    const map = try support.openMap(0, 8 << 20);
    defer support.closeMap(map);
    const large: [100_000]u8 = @splat('l');
    _ = try calls.put(map, "large", &large, 1, .none);
    _ = try calls.put(map, "small", "s", 1, .none);
    const word = atomics.load(&map.segment.view.stripe(0).table);
    const table = (try gathered.openTable(map, word)).?;
    map.gathered_len = 0;
    // As if both had been deleted and stored again in later slots while the pass went on.
    for (0..2) |_| {
        for (0..table.slotCount()) |i| {
            const slot = atomics.load(&table.slots[i]);
            if (slot <= Slot.tombstone) continue;
            const entry = try entries.ofSlot(&map.segment.view, slot);
            try gathered.appendEntry(map, entry, 0, .small_values);
        }
    }
    try std.testing.expectEqual(@as(u64, 4), gathered.countRecords(map, map.gathered_len));
    gathered.dropDuplicates(map, 0);
    try std.testing.expectEqual(@as(u64, 2), gathered.countRecords(map, map.gathered_len));
}
