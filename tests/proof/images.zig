//! Small segments to be damaged: how they are made, and where in them everything lies. The same
//! bytes in every run, so that a damaged one can be made again from a seed and a number.

const std = @import("std");
const shmap = @import("shmap");

const calls = shmap.testing.calls;

const atomics = shmap.atomics;
const handles = shmap.handles;
const layout = shmap.layout;
const tables = shmap.table;
const Map = shmap.map.Map;

/// An entry of an undamaged image; places are offsets.
pub const Entry = struct {
    slot: u64,
    offset: u64,
    /// What it takes of its chunk.
    bytes: u64,
    key: []const u8,
    value: []const u8,
};

pub const Table = struct { offset: u64, slots: u64 };

pub const Image = struct {
    name: []const u8,
    kind: layout.Kind,
    stripe_bits: u6,
    /// The file.
    bytes: []align(layout.page_bytes) u8,
    ceiling: u64,
    entries: []const Entry,
    tables: []const Table,
    /// First words of free blocks, which link them.
    links: []const u64,
    /// Chunks that stripes own.
    chunks: []const u64,
    /// Chunks in the pool's bins.
    vacant: []const u64,

    pub fn dataStart(image: *const Image) u64 {
        return layout.dataOffset(image.stripe_bits);
    }

    pub fn stripes(image: *const Image) u64 {
        return @as(u64, 1) << image.stripe_bits;
    }
};

const Ending = enum {
    /// Closed in an orderly way.
    clean,
    /// Killed between two operations.
    left,
    /// Killed inside a put.
    writing,
    /// Killed inside a put, and inside the pool.
    claiming,
    /// Killed while it held the user's lock.
    holding,
};

const Recipe = struct {
    name: []const u8,
    lock: layout.LockKind = .robust,
    stripe_bits: u6 = 0,
    ceiling: u64 = 256 << 10,
    kind: layout.Kind = .map,
    keys: u32 = 60,
    large: u32 = 2,
    sip: bool = false,
    full: bool = false,
    ending: Ending = .clean,
};

/// The first has four stripes and everything in it: every single bit of it is tried.
const recipes = [_]Recipe{
    .{ .name = "four stripes", .stripe_bits = 2, .ceiling = 512 << 10, .sip = true },
    .{ .name = "one stripe", .keys = 90, .large = 3 },
    .{ .name = "SipHash", .sip = true, .keys = 20, .ending = .left },
    .{ .name = "kernel lock", .lock = .kernel, .stripe_bits = 1, .ceiling = 1 << 20 },
    .{ .name = "killed writing", .stripe_bits = 1, .ending = .writing },
    .{ .name = "killed claiming", .lock = .kernel, .ending = .claiming },
    .{ .name = "killed claiming", .stripe_bits = 2, .sip = true, .ending = .claiming },
    .{ .name = "killed holding the lock", .keys = 40, .ending = .holding },
    .{ .name = "full", .ceiling = 72 << 10, .keys = 30, .large = 1, .full = true },
    .{ .name = "empty", .stripe_bits = 2, .ceiling = 1 << 20, .keys = 0, .large = 0 },
    .{ .name = "value", .kind = .value, .keys = 0, .large = 0 },
};

/// Makes all of them.
pub fn make(gpa: std.mem.Allocator) ![]const Image {
    const images = try gpa.alloc(Image, recipes.len);
    for (images, &recipes, 0..) |*image, *recipe, number|
        image.* = try makeOne(gpa, recipe, number);
    return images;
}

fn makeOne(gpa: std.mem.Allocator, recipe: *const Recipe, number: u64) !Image {
    var random_of = std.Random.DefaultPrng.init(number + 1);
    const random = random_of.random();
    const map = try open(recipe, random);
    defer {
        map.close();
        calls.discard(map);
    }
    if (recipe.kind == .value) {
        const text = "a value that is replaced";
        for (0..5) |n| _ = try calls.put(map, "value", text[0 .. n + 3], 1, .none);
    } else if (recipe.keys > 0) try fill(map, recipe, random);
    const bytes = try imageOf(gpa, map, recipe.ending);
    return scan(gpa, recipe, bytes);
}

/// An empty map in which nothing is left to chance.
fn open(recipe: *const Recipe, random: std.Random) !*Map {
    var fault: shmap.status.Fault = .{};
    const options: shmap.segment.Options = .{
        .recover = shmap.attach.recoverSegment,
        .kind = recipe.kind,
        .lock = recipe.lock,
        .stripe_bits = recipe.stripe_bits,
        .max_bytes = recipe.ceiling,
    };
    const map = try shmap.testing.support.prepared(&fault, &options);
    errdefer calls.discard(map);
    try shmap.directory.anonymous(&map.segment, &options);
    const header = map.segment.header();
    header.id = random.int(u64);
    header.created_ms = 1_700_000_000_000;
    for (&header.fast_secrets) |*word| word.* = random.int(u64);
    for (&header.sip_secrets) |*word| word.* = random.int(u64);
    header.checksum = layout.checksum(header);
    map.segment.writer_id = 4_000_000 << 32 | 1; // no process has this number
    map.begin();
    return map;
}

fn put(map: *Map, random: std.Random, key: []const u8, len: usize) !void {
    var value: [16_000]u8 = undefined;
    random.bytes(value[0..len]);
    _ = try calls.put(map, key, value[0..len], 1, .none);
}

fn keyOf(buffer: *[64]u8, n: u64) []const u8 {
    const padding = "-a-somewhat-longer-key"[0 .. n * 7 % 22];
    return std.fmt.bufPrint(buffer, "k{d}{s}", .{ n, padding }) catch unreachable; // it fits
}

/// Entries of all sizes, replaced ones, tombstones, and blocks that wait in the retired lists.
fn fill(map: *Map, recipe: *const Recipe, random: std.Random) !void {
    if (recipe.sip) {
        for (0..18) |n| {
            const key = shmap.hash.collidingKey(&map.secrets, n);
            _ = try calls.put(map, &key, std.mem.asBytes(&n), 2, .none);
        }
    }
    var buffer: [64]u8 = undefined;
    for (0..recipe.keys) |n| {
        const len = if (n % 9 == 0) random.uintLessThan(usize, 1500) else n % 60;
        try put(map, random, keyOf(&buffer, n), len);
    }
    for (0..recipe.large) |n| try put(map, random, keyOf(&buffer, 1000 + n), 4200 + n * 1900);
    if (recipe.full) {
        for (0..4000) |n| put(map, random, keyOf(&buffer, 2000 + n), 100) catch break;
    }
    for (0..recipe.keys) |n| {
        if (n % 3 == 0) try put(map, random, keyOf(&buffer, n), n % 40);
        if (n % 4 == 1) _ = try calls.delete(map, keyOf(&buffer, n));
    }
    if (recipe.large > 0) _ = try calls.delete(map, keyOf(&buffer, 1000));
}

/// Keeps the memory as it is before some store, as a process killed there leaves it.
const Kill = struct {
    observer: atomics.Observer = .{ .seen = look },
    map: *Map,
    ending: Ending,
    stores: u32 = 0,
    taken: ?[]align(layout.page_bytes) u8 = null,
    gpa: std.mem.Allocator,

    fn look(observer: *atomics.Observer, _: *const u64, _: u64) void {
        const kill: *Kill = @fieldParentPtr("observer", observer);
        const inside = kill.ending == .writing or kill.map.segment.header().pool.writer != 0;
        if (!inside) return;
        kill.stores += 1;
        if (kill.stores == 5) kill.taken = copy(kill.gpa, kill.map) catch null;
    }
};

fn copy(gpa: std.mem.Allocator, map: *Map) ![]align(layout.page_bytes) u8 {
    const bytes = map.segment.view.base[0..map.segment.view.committed];
    const memory = try gpa.alignedAlloc(u8, .fromByteUnits(layout.page_bytes), bytes.len);
    @memcpy(memory, bytes);
    return memory;
}

fn imageOf(gpa: std.mem.Allocator, map: *Map, ending: Ending) ![]align(layout.page_bytes) u8 {
    switch (ending) {
        .left, .clean => {
            const bytes = try copy(gpa, map);
            const header: *layout.Header = @ptrCast(bytes.ptr);
            header.clean = @intFromBool(ending == .clean);
            return bytes;
        },
        .holding => {
            _ = try calls.acquire(map, 1000);
            const bytes = try copy(gpa, map);
            const header: *layout.Header = @ptrCast(bytes.ptr);
            header.holder_pid = map.segment.writer_id >> 32;
            header.holder_since_ms = header.created_ms;
            return bytes;
        },
        .writing, .claiming => {
            var kill: Kill = .{ .map = map, .ending = ending, .gpa = gpa };
            atomics.observer = &kill.observer;
            defer atomics.observer = null;
            const value: [5000]u8 = @splat('x');
            _ = try calls.put(map, "killed", &value, 1, .none);
            return kill.taken orelse error.TooFewStores;
        },
    }
}

/// A look at an image in private memory, through the library's own checks.
pub fn viewOf(bytes: []align(layout.page_bytes) u8, stripe_bits: u6) shmap.view.View {
    return .ofMemory(bytes, stripe_bits);
}

const Lists = struct {
    entries: std.ArrayList(Entry) = .empty,
    tables: std.ArrayList(Table) = .empty,
    links: std.ArrayList(u64) = .empty,
    chunks: std.ArrayList(u64) = .empty,
    vacant: std.ArrayList(u64) = .empty,
};

fn scan(
    gpa: std.mem.Allocator,
    recipe: *const Recipe,
    bytes: []align(layout.page_bytes) u8,
) !Image {
    var view = viewOf(bytes, recipe.stripe_bits);
    var lists: Lists = .{};
    for (0..view.stripeCount()) |i| {
        const stripe = view.stripe(@intCast(i));
        try scanTable(gpa, &view, stripe, &lists);
        for (&stripe.lists) |*head| {
            var link = head.*;
            while (link != 0 and view.covers(link, 16)) : (link = view.at(link)[0])
                try lists.links.append(gpa, link);
        }
        var walk = shmap.pool.Walk.of(&view, @intCast(i));
        while (try walk.step()) |chunk| try lists.chunks.append(gpa, chunk.offset);
    }
    for (&view.header().pool.bins) |*bin| {
        var link = bin.*;
        while (link != 0 and view.covers(link, 64)) : (link = view.chunk(link).next)
            try lists.vacant.append(gpa, link);
    }
    return .{
        .name = recipe.name,
        .kind = recipe.kind,
        .stripe_bits = recipe.stripe_bits,
        .bytes = bytes,
        .ceiling = recipe.ceiling,
        .entries = lists.entries.items,
        .tables = lists.tables.items,
        .links = lists.links.items,
        .chunks = lists.chunks.items,
        .vacant = lists.vacant.items,
    };
}

fn scanTable(
    gpa: std.mem.Allocator,
    view: *shmap.view.View,
    stripe: *layout.Stripe,
    lists: *Lists,
) !void {
    const table = try tables.Table.open(view, stripe.table) orelse return;
    const offset = @as(u64, table.granule) * layout.granule_bytes;
    try lists.tables.append(gpa, .{ .offset = offset, .slots = table.slotCount() });
    for (0..table.slotCount()) |i| {
        const word = table.slots[i];
        if (word <= layout.Slot.tombstone) continue;
        const found = try shmap.entry.ofSlot(view, word);
        const key = found.offset + @sizeOf(layout.Entry);
        const value = key + layout.words(found.sizes.key_len) * 8;
        try lists.entries.append(gpa, .{
            .slot = offset + i * 8,
            .offset = found.offset,
            .bytes = found.bytes(),
            .key = view.base[key..][0..found.sizes.key_len],
            .value = view.base[value..][0..found.sizes.value_len],
        });
    }
}
