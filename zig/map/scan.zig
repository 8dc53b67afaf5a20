//! Keys page by page. A page ends at a place in an order of the keys that is the same in every
//! process and for as long as the segment lives: the one that their fast hash gives. Neither a
//! table of another size nor SipHash changes it, so any process goes on where another one stopped.
//!
//! Within a stripe it is the order in which `iterate.zig` walks a table of the fast hash. A table
//! of SipHash has another one: such a stripe is gathered as a whole for each page.

const std = @import("std");
const gathered = @import("gathered.zig");
const hash = @import("../stripe/hash.zig");
const iterate = @import("iterate.zig");
const layout = @import("../layout.zig");
const maps = @import("map.zig");
const status = @import("../status.zig");

const Error = status.Error;
const Map = maps.Map;
const tag_bits = @bitSizeOf(layout.Tag);

/// A place in the order. It is before the key that it is the place of.
const Place = struct {
    /// The key's stripe, its tag with the bits reversed, the rest of its fast hash.
    hash: u64 = 0,
    /// Its SipHash, where a key before it has the very same fast hash; else 0. Two keys that agree
    /// in both are not known to exist.
    tie: u64 = 0,
};

/// Where a scan begins and, behind a page, where the next one does.
pub const Cursor = extern struct {
    hash: u64 = 0,
    tie: u64 = 0,
    /// 1: there are more keys, from here on.
    more: u32 = 0,
    _unused: u32 = 0,
};

/// Gathers the next keys with this prefix, `limit` at most, and moves the cursor. Every key that
/// stays is in exactly one page. Returns the gathered bytes.
pub fn scan(map: *Map, prefix: []const u8, cursor: *Cursor, limit: u32) Error!u64 {
    if (limit == 0) return error.InvalidArgument;
    try map.segment.check();
    map.gathered_len = 0;
    _ = map.takeNow(); // before any end is loaded
    const from: Place = .{ .hash = cursor.hash, .tie = cursor.tie };
    var page: Page = .{ .map = map, .prefix = prefix, .from = from, .limit = limit };
    cursor.* = .{};
    const first = hash.stripeOf(from.hash, map.segment.view.stripe_bits);
    for (first..map.segment.view.stripeCount()) |i| {
        const next = try page.addStripe(@intCast(i)) orelse continue;
        cursor.* = .{ .hash = next.hash, .tie = next.tie, .more = 1 };
        break;
    }
    return map.gathered_len;
}

const Page = struct {
    map: *Map,
    prefix: []const u8,
    /// Keys before this place do not belong to the page, or are in it.
    from: Place,
    limit: u64,
    count: u64 = 0,

    /// Adds the keys of a stripe. Null: all of them have their place in the page; else where the
    /// next page begins.
    fn addStripe(page: *Page, index: u32) Error!?Place {
        const map = page.map;
        const bits = map.segment.view.stripe_bits;
        const wanted: iterate.Wanted = .{ .detail = .keys, .prefix = page.prefix };
        var progress: iterate.Progress = .{ .stripe = index };
        if (hash.stripeOf(page.from.hash, bits) == index)
            progress.next = @as(layout.Tag, @truncate(page.from.hash >> restBits(bits)));
        while (true) {
            const start = map.gathered_len;
            const step = try iterate.gatherClass(map, &progress, wanted);
            if (progress.sip) {
                // Or it has become one of SipHash: what was added before stays.
                map.gathered_len = start;
                return page.addHardened(index, wanted);
            }
            if (try page.settle(start)) |next| return next;
            if (step == .over) return null;
            page.from = placeAt(index, bits, progress.next);
        }
    }

    /// As `addStripe`, where the table is not in our order.
    fn addHardened(page: *Page, index: u32, wanted: iterate.Wanted) Error!?Place {
        const start = page.map.gathered_len;
        var progress: iterate.Progress = .{ .stripe = index, .sip = true };
        while (true) {
            const step = try iterate.gatherClass(page.map, &progress, wanted);
            std.debug.assert(step != .again); // the hash changes once
            if (step == .over) return page.settle(start);
        }
    }

    /// Judges the records from `start` on. Those before `from` go; of the others, which are next in
    /// our order, those stay that fit into the page. As `addStripe`.
    fn settle(page: *Page, start: usize) Error!?Place {
        const count = page.keep(start, .{ .from = page.from });
        const room = page.limit - page.count;
        page.count += @min(count, room);
        if (count <= room) return null;
        const next = try page.placeNumber(start, count, room);
        const kept = page.keep(start, .{ .before = next });
        std.debug.assert(kept <= room);
        return page.shortest(start, next);
    }

    const Bounds = struct { from: Place = .{}, before: ?Place = null };

    /// Keeps the records from `start` on whose keys have their places within these bounds. How many
    /// these are.
    fn keep(page: *Page, start: usize, bounds: Bounds) u64 {
        const map = page.map;
        const end = map.gathered_len;
        var at = start;
        var to = start;
        var count: u64 = 0;
        while (at < end) {
            const bytes = gathered.recordBytes(map.gathered, at);
            const key = gathered.keyOf(map.gathered, at);
            const is_kept = !page.isBefore(key, bounds.from) and
                if (bounds.before) |before| page.isBefore(key, before) else true;
            if (is_kept) {
                if (to < at) std.mem.copyForwards(
                    u8,
                    map.gathered[to..][0..bytes],
                    map.gathered[at..][0..bytes],
                );
                to += bytes;
                count += 1;
            }
            at += bytes;
        }
        map.gathered_len = to;
        return count;
    }

    fn isBefore(page: *const Page, key: []const u8, place: Place) bool {
        const of_key = page.hashPlace(key);
        if (of_key != place.hash) return of_key < place.hash;
        return place.tie > 0 and hash.sip(&page.map.secrets, key) < place.tie;
    }

    fn hashPlace(page: *const Page, key: []const u8) u64 {
        return ordered(hash.fast(&page.map.secrets, key), page.map.segment.view.stripe_bits);
    }

    /// The place, in our order, of that many-th of the `count` records from `start` on.
    fn placeNumber(page: *Page, start: usize, count: u64, number: u64) Error!Place {
        const map = page.map;
        const end = map.gathered_len;
        _ = try gathered.reserve(map, count * @sizeOf(Place));
        defer map.gathered_len = end;
        const room: []align(8) u8 = @alignCast(map.gathered[end..][0 .. count * @sizeOf(Place)]);
        const places = std.mem.bytesAsSlice(Place, room);
        var at = start;
        for (places) |*place| {
            const key = gathered.keyOf(map.gathered, at);
            place.* = .{ .hash = page.hashPlace(key), .tie = hash.sip(&map.secrets, key) };
            at += gathered.recordBytes(map.gathered, at);
        }
        std.sort.heap(Place, places, {}, isLess);
        return places[number];
    }

    /// A place without its tie where no record from `start` on needs it.
    fn shortest(page: *const Page, start: usize, place: Place) Place {
        const map = page.map;
        var at = start;
        while (at < map.gathered_len) : (at += gathered.recordBytes(map.gathered, at)) {
            if (page.hashPlace(gathered.keyOf(map.gathered, at)) == place.hash) return place;
        }
        return .{ .hash = place.hash };
    }
};

fn isLess(_: void, a: Place, b: Place) bool {
    return if (a.hash != b.hash) a.hash < b.hash else a.tie < b.tie;
}

/// How many bits of a fast hash are neither the stripe nor the tag.
fn restBits(stripe_bits: u6) u6 {
    return 64 - tag_bits - stripe_bits;
}

/// A fast hash with its bits in the order of the walk.
fn ordered(fast: u64, stripe_bits: u6) u64 {
    const rest_bits = restBits(stripe_bits);
    const rest = fast >> tag_bits & (@as(u64, 1) << rest_bits) - 1;
    const reversed: u32 = @bitReverse(hash.tagOf(fast));
    return placeAt(hash.stripeOf(fast, stripe_bits), stripe_bits, reversed).hash | rest;
}

/// Where a stripe's keys with this reversed tag begin.
fn placeAt(index: u32, stripe_bits: u6, reversed: u32) Place {
    const stripe = @as(u64, index) << 1 << (63 - stripe_bits);
    return .{ .hash = stripe | @as(u64, reversed) << restBits(stripe_bits) };
}

test ordered {
    var prng: std.Random.DefaultPrng = .init(3);
    for ([_]u6{ 0, 1, 6, 12 }) |bits| {
        for (0..1000) |_| {
            const fast = prng.random().int(u64);
            const place = ordered(fast, bits);
            try std.testing.expectEqual(hash.stripeOf(fast, bits), hash.stripeOf(place, bits));
            const tag: layout.Tag = @truncate(place >> restBits(bits));
            try std.testing.expectEqual(@as(layout.Tag, @truncate(fast)), @bitReverse(tag));
            // Another bit of the hash is another place.
            const other = fast ^ @as(u64, 1) << prng.random().int(u6);
            try std.testing.expect(ordered(other, bits) != place);
        }
    }
}
