//! How segments get, keep and lose their names: create, attach, exclusive replacement, unlink,
//! list, and the clean-up behind processes that died at it.
//!
//! A name leads to a complete, live segment or to nothing. Every change of what it leads to is one
//! `link`, `rename` or `unlink`, made under LIFECYCLE of the segment that loses the name, and the
//! loser's state word tells those attached. The order of steps and what a crash between any two
//! leaves is in docs/design.md, Operations.

const std = @import("std");
const layout = @import("../layout.zig");
const atomics = @import("../atomics.zig");
const file_checks = @import("file_checks.zig");
const os = @import("../os/os.zig");
const range_lock = @import("../lock/range_lock.zig");
const formats = @import("format.zig");
const headers = @import("header.zig");
const segments = @import("segment.zig");
const status = @import("../status.zig");
const temporary_name = @import("temporary_name.zig");
const unnamed_file = @import("unnamed_file.zig");

const Error = status.Error;
const Fault = status.Fault;
const Options = segments.Options;
const Segment = segments.Segment;

pub const Mode = enum { shared, create, attach, exclusive };

/// Makes sense of a directory as the user wrote it: absolute, without links, checked to exist.
pub fn resolve(fault: *Fault, directory: []const u8) Error!os.Path {
    const given = if (directory.len == 0)
        try os.defaultDirectory(fault)
    else
        try os.Path.of("{s}", .{directory});
    const fd = try os.openDirectory(fault, &given);
    defer os.close(fd);
    if ((try os.fileSystem(fault, fd)).network)
        return fault.withReason(.networkFileSystem, error.Unsupported);
    return os.directoryPath(fault, fd, &given) catch given;
}

/// Checks `name`, which becomes part of a path.
pub fn setName(segment: *Segment, name: []const u8) Error!void {
    if (name.len == 0 or name.len > segments.name_bytes_max) return error.InvalidArgument;
    if (name[0] == '.' or std.mem.indexOfAny(u8, name, os.name_separators) != null)
        return error.InvalidArgument;
    @memcpy(segment.name[0..name.len], name);
    segment.name_len = name.len;
}

/// Opens the segment's name as `mode` asks. The caller has set `directory`, `name`, `fault`,
/// `timeout_ms`, `deadline` and `writer_id`; on failure nothing is held.
pub fn open(segment: *Segment, mode: Mode, options: *const Options) Error!void {
    const deadline = &segment.deadline;
    temporary_name.reapKnown(&segment.directory, segment.nameSlice());
    return switch (mode) {
        .attach => attach(segment, options, deadline),
        .create => create(segment, options),
        .exclusive => replace(segment, options, deadline),
        .shared => while (true) {
            attach(segment, options, deadline) catch |err| {
                if (err != error.NotFound) return err;
                create(segment, options) catch |again| {
                    if (again != error.Exists) return again;
                    // Another process made it between our two looks.
                    if (deadline.left(1) == 0) return attach(segment, options, deadline);
                    continue;
                };
            };
            break;
        },
    };
}

/// Opens the segment's file once more, for its range locks. By the name it has, if the system
/// cannot follow descriptors.
fn openLocks(segment: *Segment, named: ?*const os.Path) Error!void {
    const access: os.Access = if (segment.readonly) .read else .read_write;
    var fault: Fault = .{};
    segment.locks = os.openAgain(&fault, segment.file, access) catch |err| blk: {
        if (err == error.NotFound or err == error.Unsupported) {
            if (named) |path| break :blk try openByName(segment, path, access);
        }
        segment.fault.* = fault;
        return err;
    };
}

/// Opens the name again and makes sure that it is the same file.
fn openByName(segment: *Segment, path: *const os.Path, access: os.Access) Error!os.Fd {
    const fault = segment.fault;
    const fd = try os.open(fault, path, access);
    errdefer os.close(fd);
    if (!(try os.stat(fault, fd)).same(try os.stat(fault, segment.file))) return error.NotFound;
    return fd;
}

/// Attaches to what the name leads to. `NotFound`: nothing.
fn attach(segment: *Segment, options: *const Options, deadline: *os.Deadline) Error!void {
    const path = try segment.path();
    while (true) {
        if (try attachOnce(segment, &path, options, deadline)) return;
        if (deadline.left(1) == 0) return error.Timeout;
        os.sleepNs(50_000);
    }
}

/// False: the segment lost its name while we looked.
fn attachOnce(
    segment: *Segment,
    path: *const os.Path,
    options: *const Options,
    deadline: *os.Deadline,
) Error!bool {
    segment.file = try os.open(segment.fault, path, if (options.readonly) .read else .read_write);
    {
        errdefer os.close(segment.file);
        try openLocks(segment, path);
    }
    errdefer segment.abandon();
    try adopt(segment, options, deadline);
    errdefer segment.unmap();
    const attached = try finishAttach(segment, options, deadline);
    if (!attached) {
        segment.abandon();
        segment.unmap();
    }
    return attached;
}

fn finishAttach(segment: *Segment, options: *const Options, deadline: *os.Deadline) Error!bool {
    if (options.readonly) {
        const state = segment.state();
        return segment.hasItsName() and (state == .live or state == .replacing);
    }
    try range_lock.lockBefore(segment.fault, segment.locks, .lifecycle, deadline);
    if (!segment.hasItsName()) return false;
    // Its replacer died before the exchange: we hold LIFECYCLE and the name still means this one.
    if (segment.state() == .replacing) segment.setState(.live);
    if (segment.state() != .live) {
        return if (segment.state() == .unlinked or segment.state() == .replaced)
            false
        else
            segment.fault.withReason(.checksum, error.Corrupt);
    }
    try segment.attachWriter(options, deadline);
    // LIFECYCLE may have been let go in between, and the name changed hands.
    const still = segment.hasItsName();
    range_lock.unlock(segment.locks, .reader);
    range_lock.unlock(segment.locks, .lifecycle);
    return still;
}

/// Checks an opened file from outside and maps it, with READER taken before: from then on the file
/// only grows.
fn adopt(segment: *Segment, options: *const Options, deadline: *os.Deadline) Error!void {
    const fault = segment.fault;
    const stat = try os.stat(fault, segment.file);
    try checkFile(fault, &stat, options);
    try segment.enter(deadline);
    const header = try headers.readHeader(fault, segment.file);
    // The size after the header: it only grows by now, and always before `committed` does.
    const size = (try os.stat(fault, segment.file)).size;
    try segments.checkHeader(fault, &header, size, options);
    try segment.map(&header);
}

fn checkFile(fault: *Fault, stat: *const os.Stat, options: *const Options) Error!void {
    if (!stat.regular) return fault.withReason(.notRegularFile, error.Incompatible);
    return file_checks.checkOwner(fault, stat, options.allow_foreign_owner);
}

/// A complete segment without a name. `temporary` is set where the file system wants one.
fn make(segment: *Segment, options: *const Options, temporary: *?os.Path) Error!void {
    const deadline = &segment.deadline;
    while (true) {
        makeOnce(segment, options, temporary) catch |err| {
            if (err != error.Exists or deadline.left(1) == 0) return err;
            continue;
        };
        return;
    }
}

/// `Exists`: the temporary name leads to the file of another process.
fn makeOnce(segment: *Segment, options: *const Options, temporary: *?os.Path) Error!void {
    const fault = segment.fault;
    temporary.* = null;
    segment.file = os.openUnnamed(fault, &segment.directory) catch |err| blk: {
        if (err != error.Unsupported) return err;
        break :blk try openTemporary(segment, temporary);
    };
    // As another process would: without LIFECYCLE the name may lead to another maker's file by now.
    errdefer if (temporary.*) |path| // what this fails to remove is reaped later
        temporary_name.reapAt(&segment.directory, &path, segment.nameSlice()) catch {};
    {
        errdefer os.close(segment.file);
        // What the umask may have taken away: without it the file could not be opened a second
        // time.
        try os.setPermissions(fault, segment.file, 0o600);
        try openLocks(segment, if (temporary.*) |*path| path else null);
    }
    errdefer segment.abandon();
    try range_lock.lockBefore(fault, segment.locks, .lifecycle, &segment.deadline);
    // Until its maker had LIFECYCLE, another process could reap a file with a name.
    if (temporary.*) |path| {
        const named = os.statName(fault, &path) catch return error.Exists;
        if (!named.same(try os.stat(fault, segment.file))) return error.Exists;
    }
    try formats.format(segment, options);
}

/// A new file under a temporary name.
fn openTemporary(segment: *Segment, temporary: *?os.Path) Error!os.Fd {
    var candidates = candidatesOf(segment);
    while (true) {
        const path = try candidates.next();
        const file = os.openNew(segment.fault, &path) catch |err| {
            if (err == error.Exists) continue;
            return err;
        };
        temporary.* = path;
        return file;
    }
}

/// A temporary name for a file without one.
fn linkTemporary(segment: *Segment) Error!os.Path {
    var candidates = candidatesOf(segment);
    while (true) {
        const path = try candidates.next();
        os.linkUnnamed(segment.fault, segment.file, &path) catch |err| {
            if (err == error.Exists) continue;
            return err;
        };
        return path;
    }
}

fn candidatesOf(segment: *const Segment) temporary_name.Candidates {
    temporary_name.reapSometimes(&segment.directory, segment.nameSlice());
    return .{ .directory = &segment.directory, .name = segment.nameSlice() };
}

/// Drops a segment that never got a name, with LIFECYCLE held.
fn discard(segment: *Segment, temporary: ?os.Path) void {
    if (temporary) |path| temporary_name.remove(&path, segment.file);
    segment.abandon();
    segment.unmap();
}

/// `Exists`: the name is taken.
fn create(segment: *Segment, options: *const Options) Error!void {
    const path = try segment.path();
    var temporary: ?os.Path = null;
    try make(segment, options, &temporary);
    errdefer discard(segment, temporary);
    try giveName(segment, temporary, &path);
    if (temporary) |old| temporary_name.remove(&old, segment.file);
    range_lock.unlock(segment.locks, .lifecycle);
}

fn giveName(segment: *Segment, temporary: ?os.Path, path: *const os.Path) Error!void {
    if (temporary) |from| return os.link(segment.fault, &from, path);
    return os.linkUnnamed(segment.fault, segment.file, path);
}

/// A segment that has the name, held by LIFECYCLE just long enough to take it over. Mapped only
/// as far as its header, and only if that may be stored to: those who use a damaged file, or one of
/// another layout, go on with it as if its name had been unlinked by hand.
const Displaced = struct {
    file: os.Fd,
    header: ?*layout.Header,

    /// Null: the name leads elsewhere by now.
    fn lock(
        segment: *Segment,
        path: *const os.Path,
        options: *const Options,
        deadline: *os.Deadline,
    ) Error!?Displaced {
        const fault = segment.fault;
        const file = try os.open(fault, path, .read_write);
        errdefer os.close(file);
        const stat = try os.stat(fault, file);
        try checkFile(fault, &stat, options);
        const is_ours = try checkOurs(fault, file, options);
        try range_lock.lockBefore(fault, file, .lifecycle, deadline);
        errdefer range_lock.unlockAll(file);
        const named = os.statName(fault, path) catch |err| {
            if (err != error.NotFound) return err;
            range_lock.unlockAll(file);
            os.close(file);
            return null;
        };
        if (!named.same(stat)) {
            range_lock.unlockAll(file);
            os.close(file);
            return null;
        }
        return .{
            .file = file,
            .header = if (is_ours) try file_checks.mapHeader(fault, file) else null,
        };
    }

    fn setState(displaced: *const Displaced, state: layout.State) void {
        const header = displaced.header orelse return;
        atomics.storeRelease(&header.state, @intFromEnum(state));
    }

    fn unlock(displaced: *const Displaced) void {
        range_lock.unlockAll(displaced.file);
        os.close(displaced.file);
        if (displaced.header) |header| file_checks.unmapHeader(header);
    }
};

/// A file that is not ours, or a segment of another kind, is never displaced or unlinked; a damaged
/// one of ours is, and one of another layout. False: of those two, and nothing may be stored there.
fn checkOurs(fault: *Fault, file: os.Fd, options: *const Options) Error!bool {
    const header = headers.readHeader(fault, file) catch |err| {
        return if (err == error.Corrupt) false else err;
    };
    if (!file_checks.mayStoreTo(&header)) return false;
    const found = header.attributes & 0xff;
    if (found != @intFromEnum(options.kind)) {
        fault.found = @floatFromInt(found);
        return fault.withReason(.otherKind, error.Incompatible);
    }
    return true;
}

/// A fresh segment under the name, in place of what it led to. Those attached to the old one find
/// out by its state.
fn replace(segment: *Segment, options: *const Options, deadline: *os.Deadline) Error!void {
    const fault = segment.fault;
    const path = try segment.path();
    // Where a file in use cannot be removed, each replacement leaves one under a random name.
    if (!os.removes_mapped_files)
        temporary_name.reap(&segment.directory, segment.nameSlice()) catch {};
    var temporary: ?os.Path = null;
    try make(segment, options, &temporary);
    errdefer discard(segment, temporary);
    while (true) {
        if (giveName(segment, temporary, &path)) {
            if (temporary) |old| temporary_name.remove(&old, segment.file);
            break;
        } else |err| if (err != error.Exists) return err;
        const displaced = Displaced.lock(segment, &path, options, deadline) catch |err| {
            if (err == error.NotFound) continue;
            return err;
        } orelse {
            if (deadline.left(1) == 0) return error.Timeout; // others are faster every time
            continue;
        };
        defer displaced.unlock();
        if (temporary == null) temporary = try linkTemporary(segment);
        // From here to the exchange a crash leaves `replacing` under the old name: the next caller
        // finds LIFECYCLE free and the name unchanged, and sets it back to live.
        displaced.setState(.replacing);
        const is_ours = os.exchange(fault, &temporary.?, &path) catch |err| {
            displaced.setState(.live);
            if (err == error.NotFound) continue; // the name is gone: link again
            return err;
        };
        // A crash here leaves the old one `replacing` under the temporary name: the next caller
        // finds that its name leads elsewhere, and sets it to replaced.
        displaced.setState(.replaced);
        if (!is_ours) continue; // the name was free meanwhile, and may be taken again
        temporary_name.remove(&temporary.?, displaced.file); // plain rename left none
        break;
    }
    range_lock.unlock(segment.locks, .lifecycle);
}

/// Takes a name away. False: nothing had it.
pub fn unlinkName(segment: *Segment, options: *const Options) Error!bool {
    const deadline = &segment.deadline;
    const path = try segment.path();
    while (true) {
        const displaced = (Displaced.lock(segment, &path, options, deadline) catch |err|
            return if (err == error.NotFound) false else err) orelse {
            if (deadline.left(1) == 0) return error.Timeout; // others are faster every time
            continue;
        };
        errdefer displaced.unlock();
        // First the name, then the state: the other order, killed in between, leaves a name that
        // leads to an unlinked segment for ever.
        try os.unlink(segment.fault, &path);
        displaced.setState(.unlinked);
        displaced.unlock();
        temporary_name.reapKnown(&segment.directory, segment.nameSlice());
        // Mapped, if only by this call, it has a temporary name where that keeps a file.
        if (!os.removes_mapped_files)
            temporary_name.reap(&segment.directory, segment.nameSlice()) catch {};
        return true;
    }
}

/// As `unlinkName`, for the very segment this handle is attached to.
pub fn unlinkOwn(segment: *Segment) Error!bool {
    if (segment.name_len == 0 or segment.unnamed != null) return false;
    const deadline = &segment.deadline;
    try range_lock.lockBefore(segment.fault, segment.locks, .lifecycle, deadline);
    defer range_lock.unlock(segment.locks, .lifecycle);
    switch (segment.nameLeads()) {
        .here => {},
        .elsewhere => return false,
        .unknown => return error.System,
    }
    const path = try segment.path();
    try os.unlink(segment.fault, &path);
    segment.setState(.unlinked);
    temporary_name.reapKnown(&segment.directory, segment.nameSlice());
    return true;
}

/// An unnamed segment in memory.
pub fn anonymous(segment: *Segment, options: *const Options) Error!void {
    const fault = segment.fault;
    if (!os.has_memory_files) return anonymousByName(segment, options);
    // By a descriptor of this process no other would find it. Without room for a file, or without
    // its directory, that must do.
    if (!os.isOpenToUser()) if (anonymousByName(segment, options)) return else |_| {
        segment.name_len = 0;
        segment.unnamed = null;
        fault.* = .{};
    };
    segment.file = try os.memoryFile(fault);
    {
        errdefer os.close(segment.file);
        try openLocks(segment, null);
    }
    errdefer segment.abandon();
    if (!try range_lock.tryLock(fault, segment.locks, .lifecycle, .exclusive)) return error.System;
    try formats.format(segment, options);
    range_lock.unlock(segment.locks, .lifecycle);
}

/// As `anonymous`, where only memory with a name can be reached by others.
fn anonymousByName(segment: *Segment, options: *const Options) Error!void {
    const made = try unnamed_file.make(segment.fault, &segment.deadline);
    segment.file = made.file;
    segment.locks = made.locks;
    errdefer unnamed_file.remove(made.number);
    errdefer segment.abandon();
    try segment.nameUnnamed(made.number);
    try formats.format(segment, options);
    range_lock.unlock(segment.locks, .lifecycle);
}

/// Attaches to the segment a token names. The caller has set what `open` needs, but for the name.
pub fn attachToken(segment: *Segment, token: []const u8, options: *Options) Error!void {
    const last = std.mem.lastIndexOfScalar(u8, token, ':') orelse return error.InvalidArgument;
    if (token.len - last - 1 != 16) return error.InvalidArgument;
    options.id = std.fmt.parseInt(u64, token[last + 1 ..], 16) catch return error.InvalidArgument;
    const body = token[0..last];
    if (std.mem.startsWith(u8, body, "name:")) {
        const colon = std.mem.lastIndexOfScalar(u8, body, ':') orelse return error.InvalidArgument;
        if (colon < "name:".len) return error.InvalidArgument;
        const name = body[colon + 1 ..];
        try setName(segment, name);
        segment.directory = try resolve(segment.fault, body["name:".len..colon]);
        return attach(segment, options, &segment.deadline);
    }
    if (std.mem.startsWith(u8, body, "file:")) {
        const number = std.fmt.parseInt(u64, body["file:".len..], 16) catch
            return error.InvalidArgument;
        try segment.nameUnnamed(number);
        return attach(segment, options, &segment.deadline);
    }
    if (!std.mem.startsWith(u8, body, "fd:")) return error.InvalidArgument;
    var parts = std.mem.splitScalar(u8, body["fd:".len..], ':');
    const pid = std.fmt.parseInt(u32, parts.next() orelse "", 10) catch
        return error.InvalidArgument;
    const fd = std.fmt.parseInt(u31, parts.next() orelse "", 10) catch
        return error.InvalidArgument;
    if (parts.next() != null) return error.InvalidArgument;
    return attachDescriptor(segment, pid, fd, options);
}

fn attachDescriptor(segment: *Segment, pid: u32, fd: u31, options: *const Options) Error!void {
    const fault = segment.fault;
    const access: os.Access = if (options.readonly) .read else .read_write;
    segment.file = try os.openMemoryOf(fault, pid, fd, access);
    {
        errdefer os.close(segment.file);
        try openLocks(segment, null);
    }
    errdefer segment.abandon();
    const deadline = &segment.deadline;
    try adopt(segment, options, deadline);
    errdefer segment.unmap();
    if (options.readonly) return;
    try range_lock.lockBefore(fault, segment.locks, .lifecycle, deadline);
    try segment.attachWriter(options, deadline);
    range_lock.unlock(segment.locks, .reader);
    range_lock.unlock(segment.locks, .lifecycle);
}

/// One line of a listing, as it crosses the boundary; the name follows, zero-padded to 8.
pub const Listed = extern struct {
    name_len: u32,
    kind: u32,
    in_use: u32,
    locked: u32,
    bytes: f64,
    entries: f64,
    owner: f64,
    created_ms: f64,
};

/// Writes a `Listed` and a name for every segment in the directory that this user may look at.
/// Returns the length of all, which may exceed the target.
pub fn list(fault: *Fault, directory: *const os.Path, target: []u8) Error!usize {
    temporary_name.reap(directory, "") catch {}; // a leftover of others must not fail this call
    unnamed_file.reap() catch {};
    var names = try os.namesIn(fault, directory);
    defer names.close();
    var at: usize = 0;
    while (try names.next(fault)) |entry| {
        if (entry[0] == '.' or entry.len > segments.name_bytes_max) continue;
        const line = look(fault, directory, entry) catch |err| switch (err) {
            error.System, error.NoSpace => return err, // it may well be one
            else => continue, // not a segment, or not for us
        };
        const bytes = @sizeOf(Listed) + std.mem.alignForward(usize, entry.len, 8);
        if (at + bytes <= target.len) {
            @memset(target[at .. at + bytes], 0);
            @memcpy(target[at..][0..@sizeOf(Listed)], std.mem.asBytes(&line));
            @memcpy(target[at + @sizeOf(Listed) ..][0..entry.len], entry);
        }
        at += bytes;
    }
    return at;
}

/// Reads, never maps: the file may be anything.
fn look(fault: *Fault, directory: *const os.Path, entry: []const u8) Error!Listed {
    const path = try os.Path.of("{s}/{s}", .{ directory.slice(), entry });
    const file = try os.open(fault, &path, .read);
    defer os.close(file);
    const stat = try os.stat(fault, file);
    if (!stat.regular) return error.Incompatible;
    const header = try headers.readHeader(fault, file);
    if (header.version != layout.layout_version or layout.checksum(&header) != header.checksum)
        return error.Incompatible;
    var entries: u64 = 0;
    const stripes = @as(u64, 1) << @min(headers.stripeBits(&header), 10);
    var buffer: [16]layout.Stripe = undefined;
    var index: u64 = 0;
    while (index < stripes) : (index += buffer.len) {
        const offset = layout.page_bytes + index * @sizeOf(layout.Stripe);
        const bytes = std.mem.sliceAsBytes(buffer[0..@min(buffer.len, stripes - index)]);
        if (try os.readAt(fault, file, bytes, offset) < bytes.len) break;
        for (buffer[0..@min(buffer.len, stripes - index)]) |*stripe| entries +|= stripe.live;
    }
    const used = try range_lock.isHeld(fault, file, .writer) or
        try range_lock.isHeld(fault, file, .reader);
    return .{
        .name_len = @intCast(entry.len),
        .kind = @intCast(header.attributes & 0xff),
        .in_use = @intFromBool(used),
        .locked = @intFromBool(try range_lock.isHeld(fault, file, .user)),
        .bytes = @floatFromInt(stat.allocated),
        .entries = @floatFromInt(entries),
        .owner = @floatFromInt(stat.uid),
        .created_ms = @floatFromInt(header.created_ms),
    };
}
