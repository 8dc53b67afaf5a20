//! Raw regions: a user's file, or anonymous memory, mapped and copied to and from, byte by byte.
//!
//! A region over a user's file has nothing of ours in it, and any process may cut its file short
//! at any time: touching it then would end in a signal. So all copies go through the kernel. What
//! is shared is read from the file, whose pages the mapping shows: that takes a third of the time
//! of a copy from the mapping, and ends where the file does. Writes go to the mapping, for through
//! the file they could make it longer again; how long it is afterwards decides how much counts.
//!
//! An anonymous region is a memory file whose first page is a header like a segment's. It is sealed
//! against being cut short, so there plain copies do.

const std = @import("std");
const layout = @import("../layout.zig");
const file_checks = @import("../segment/file_checks.zig");
const os = @import("../os/os.zig");
const range_lock = @import("../lock/range_lock.zig");
const raw_file = @import("raw_file.zig");
const headers = @import("../segment/header.zig");
const status = @import("../status.zig");
const unnamed_file = @import("../segment/unnamed_file.zig");
const user_lock = @import("../lock/user_lock.zig");

const Error = status.Error;
const Fault = status.Fault;
const HandedOut = @import("handed_out.zig").HandedOut;

pub const Access = os.Use;

pub const length_max = 1 << 53;

/// How long an open waits for others that lengthen the same file.
const lengthen_ms = 5000;

/// Where the data of an anonymous region begins.
const data_start = layout.page_bytes;

/// An open region. `handles.regions.create` sets `fault` before it is opened.
pub const Region = struct {
    fault: Fault,
    lock: user_lock.UserLock,
    /// Mapped; what a token leads to.
    file: os.Fd,
    /// Carries all range locks; never mapped.
    locks: os.Fd,
    access: Access,
    /// What the caller got from `descriptor`.
    handed_out: HandedOut,
    base: os.Base,
    /// How much is mapped: the header, if there is one, and `length`.
    mapped: u64,
    length: u64,
    /// Null over a user's file.
    header: ?*layout.Header,
    /// The number of the file where memory without a name has one (`unnamed_file.zig`).
    unnamed: ?u64,
    /// Whether the kernel copies for us.
    copies_by_kernel: bool,

    /// Over the file a path leads to. `length` 0: as long as it is. A missing one is made if it can
    /// be given its length.
    pub fn openPath(region: *Region, path: []const u8, length: u64, access: Access) Error!void {
        const fault = &region.fault;
        if (path.len == 0 or std.mem.indexOfScalar(u8, path, 0) != null or length > length_max)
            return error.InvalidArgument;
        const full = try raw_file.pathOf(fault, path);
        const opening = access.ofFile();
        var is_new = false;
        region.file = os.openUser(fault, &full, opening, .nothing) catch |err| blk: {
            if (err != error.NotFound or opening == .read or length == 0) return err;
            break :blk try make(fault, &full, &is_new);
        };
        errdefer os.close(region.file);
        errdefer if (is_new) unmake(region.file, &full);
        try region.overFile(length, access, &full);
    }

    fn make(fault: *Fault, path: *const os.Path, is_new: *bool) Error!os.Fd {
        fault.* = .{};
        const file = os.openUser(fault, path, .read_write, .new) catch |err| {
            if (err != error.Exists) return err;
            // Another process was faster, or a link leads to a file that does not exist yet.
            return os.openUser(fault, path, .read_write, .missing);
        };
        is_new.* = true;
        return file;
    }

    /// Takes back the file of an open that failed, if nothing has become of it.
    fn unmake(file: os.Fd, path: *const os.Path) void {
        var fault: Fault = .{};
        const stat = os.stat(&fault, file) catch return;
        const named = os.statName(&fault, path) catch return;
        if (stat.size == 0 and named.same(stat)) os.unlink(&fault, path) catch {}; // no harm done
    }

    /// Over the file a descriptor of this process leads to, opened once more.
    pub fn openDescriptor(
        region: *Region,
        number: i32,
        length: u64,
        access: Access,
    ) Error!void {
        if (length > length_max) return error.InvalidArgument;
        region.file = try os.reopen(&region.fault, number, access);
        errdefer os.close(region.file);
        try region.overFile(length, access, null);
    }

    /// Over the open file; `path`: where it was found.
    fn overFile(region: *Region, length: u64, access: Access, path: ?*const os.Path) Error!void {
        const fault = &region.fault;
        const stat = try os.stat(fault, region.file);
        if (!stat.regular) return fault.withReason(.notRegularFile, error.Incompatible);
        try region.openLocks(access.ofFile(), path);
        errdefer os.close(region.locks);
        if (length == 0 and stat.size == 0) return fault.withReason(.emptyFile, error.Incompatible);
        region.access = access;
        region.length = if (length > 0) length else stat.size;
        region.mapped = region.length;
        region.header = null;
        region.unnamed = null;
        if (stat.size < region.length and access.ofFile() == .read) {
            fault.used_bytes = @floatFromInt(stat.size);
            fault.needed_bytes = @floatFromInt(region.length);
            return fault.withReason(.tooShort, error.Incompatible);
        }
        // Before the file is made longer: nothing can fail afterwards, so nothing is to take back.
        region.base = try os.mapUser(fault, region.file, region.mapped, access);
        errdefer os.unmap(region.base, region.mapped);
        if (stat.size < region.length) try region.lengthen();
        region.ready();
    }

    /// A descriptor of the file for the caller, who may close it at any time.
    pub fn descriptor(region: *Region) Error!os.Fd {
        return region.handed_out.get(&region.fault, region.file, region.access.ofFile());
    }

    /// Opens the region's file once more, for its range locks. By its path, if the system cannot
    /// follow descriptors.
    fn openLocks(region: *Region, opening: os.Access, path: ?*const os.Path) Error!void {
        const fault = &region.fault;
        region.locks = os.openAgain(fault, region.file, opening) catch |err| blk: {
            if (err != error.Unsupported) return err;
            const again = try os.openUser(fault, path orelse return err, opening, .nothing);
            errdefer os.close(again);
            const is_same = (try os.stat(fault, again)).same(try os.stat(fault, region.file));
            break :blk if (is_same) again else return error.NotFound;
        };
    }

    fn ready(region: *Region) void {
        region.copies_by_kernel = true;
        region.handed_out = .none;
        region.fault = .{};
        region.lock.init(.{
            .header = region.header,
            .locks = region.locks,
            .fault = &region.fault,
            .readonly = region.access.ofFile() == .read,
        });
    }

    /// One opener at a time, so that one that fails can take back what it added.
    fn lengthen(region: *Region) Error!void {
        const fault = &region.fault;
        var deadline: os.Deadline = .in(lengthen_ms);
        try range_lock.lockBefore(fault, region.locks, .lifecycle, &deadline);
        defer range_lock.unlock(region.locks, .lifecycle);
        const size = (try os.stat(fault, region.file)).size;
        if (size < region.length)
            try raw_file.lengthen(fault, region.file, size, region.length);
    }

    /// In memory, without a name.
    pub fn anonymous(region: *Region, length: u64) Error!void {
        if (length == 0 or length > length_max) return error.InvalidArgument;
        try region.openMemory(data_start + length);
        errdefer region.closeMemory();
        try region.mapMemory(length);
        const header = region.header.?; // all zeros
        header.magic = layout.magic;
        header.version = layout.layout_version;
        header.attributes = @intFromEnum(layout.Kind.region);
        header.ceiling = region.mapped;
        header.max_bytes = length;
        header.created_ms = os.realtimeNs() / std.time.ns_per_ms;
        header.id = os.randomWord();
        header.checksum = layout.checksum(header);
        header.committed = region.mapped;
        header.state = @intFromEnum(layout.State.live);
        if (region.unnamed != null) range_lock.unlock(region.locks, .lifecycle);
        region.ready();
    }

    fn openMemory(region: *Region, bytes: u64) Error!void {
        region.unnamed = null;
        if (os.has_memory_files and os.isOpenToUser()) return region.openSealed(bytes);
        region.openByNumber(bytes) catch |err| {
            if (!os.has_memory_files) return err;
            region.unnamed = null;
            region.fault = .{}; // no other process will find it
            return region.openSealed(bytes);
        };
    }

    fn openSealed(region: *Region, bytes: u64) Error!void {
        region.file = try os.sealedMemory(&region.fault, bytes);
        errdefer os.close(region.file);
        return region.openLocks(.read_write, null);
    }

    /// A file with a name of ours, in place of memory without one.
    fn openByNumber(region: *Region, bytes: u64) Error!void {
        const fault = &region.fault;
        var deadline: os.Deadline = .in(lengthen_ms);
        const made = try unnamed_file.make(fault, &deadline);
        region.file = made.file;
        region.locks = made.locks;
        region.unnamed = made.number;
        errdefer region.closeMemory();
        try raw_file.lengthen(fault, made.file, 0, bytes);
        if (!try range_lock.tryLock(fault, made.locks, .reader, .shared)) return error.System;
    }

    /// Gives back what is open but not mapped.
    fn closeMemory(region: *Region) void {
        if (region.unnamed) |number| {
            range_lock.unlock(region.locks, .lifecycle);
            unnamed_file.leave(region.locks, number);
        }
        range_lock.unlockAll(region.locks);
        os.close(region.locks);
        os.close(region.file);
    }

    fn mapMemory(region: *Region, length: u64) Error!void {
        region.access = .{ .read = true, .write = true, .private = false };
        region.length = length;
        region.mapped = data_start + length;
        const base = try os.mapUser(&region.fault, region.file, region.mapped, region.access);
        region.base = base;
        region.header = @ptrCast(base);
    }

    /// To the anonymous region a token names, of this or another process; of another user's if
    /// `allow_foreign_owner`.
    pub fn attach(region: *Region, text: []const u8, allow_foreign_owner: bool) Error!void {
        const fault = &region.fault;
        if (std.mem.startsWith(u8, text, "name:")) {
            fault.found = std.math.maxInt(u8); // a map or a value: regions have no names
            return fault.withReason(.otherKind, error.Incompatible);
        }
        region.unnamed = null;
        if (std.mem.startsWith(u8, text, "file:"))
            return region.attachNamed(text, allow_foreign_owner);
        const name = try Token.parse(text);
        region.file = try os.openMemoryOf(fault, name.pid, name.fd, .read_write);
        errdefer os.close(region.file);
        const length = try checkMemory(
            fault,
            region.file,
            name.id,
            .by_descriptor,
            allow_foreign_owner,
        );
        try region.openLocks(.read_write, null);
        errdefer os.close(region.locks);
        try region.mapMemory(length);
        region.ready();
    }

    /// As `attach`, where memory that others can reach has a name.
    fn attachNamed(region: *Region, text: []const u8, allow_foreign_owner: bool) Error!void {
        const fault = &region.fault;
        var parts = std.mem.splitScalar(u8, text["file:".len..], ':');
        const number = try Token.number(u64, parts.first(), 16);
        const id = try Token.number(u64, parts.next(), 16);
        if (parts.next() != null) return error.InvalidArgument;
        region.file = try unnamed_file.open(fault, number);
        {
            errdefer os.close(region.file);
            try region.openLocks(.read_write, null);
        }
        region.unnamed = number;
        errdefer region.closeMemory();
        var deadline: os.Deadline = .in(lengthen_ms);
        try range_lock.lockBefore(fault, region.locks, .lifecycle, &deadline);
        const path = try unnamed_file.pathOf(fault, number);
        if (!unnamed_file.leadsTo(&path, region.file))
            return fault.withReason(.identity, error.NotFound);
        const length = try checkMemory(fault, region.file, id, .by_number, allow_foreign_owner);
        if (!try range_lock.tryLock(fault, region.locks, .reader, .shared)) return error.System;
        try region.mapMemory(length);
        range_lock.unlock(region.locks, .lifecycle);
        region.ready();
    }

    /// Every call that may fail begins so: with no word of an earlier failure in the record.
    pub fn startCall(region: *Region) void {
        region.fault.clear();
    }

    /// Gives everything back. Ranges explicitly: a mapping or a forked child would keep them.
    pub fn close(region: *Region) void {
        region.lock.close();
        region.handed_out.close();
        if (region.unnamed != null) {
            os.unmap(region.base, region.mapped); // the last to leave cannot remove what is mapped
            return region.closeMemory();
        }
        range_lock.unlockAll(region.locks);
        os.close(region.locks);
        os.close(region.file);
        os.unmap(region.base, region.mapped);
    }

    /// Copies from `offset` on; fewer bytes than asked for where the region ends, or its file by
    /// now.
    pub fn read(region: *Region, offset: u64, target: []u8) Error!u64 {
        if (!region.access.read) return error.WriteOnly;
        return region.transfer(.from_mapping, offset, target.ptr, target.len);
    }

    /// Copies to `offset` on; fewer bytes where the region ends, or its file by now.
    pub fn write(region: *Region, offset: u64, bytes: []const u8) Error!u64 {
        if (!region.access.write) return error.ReadOnly;
        // Only read from: the direction says so.
        return region.transfer(.to_mapping, offset, @constCast(bytes.ptr), bytes.len);
    }

    fn transfer(
        region: *Region,
        direction: os.Direction,
        offset: u64,
        own: [*]u8,
        wanted: u64,
    ) Error!u64 {
        if (offset >= region.length) return error.InvalidArgument;
        const bytes = @min(wanted, region.length - offset);
        if (bytes == 0) return 0;
        if (region.header != null) {
            plainCopy(direction, region.base + data_start + offset, own, bytes);
            return bytes;
        }
        if (direction == .to_mapping or region.access.private)
            return region.transferMapped(direction, offset, own, bytes);
        const found = try os.readAt(&region.fault, region.file, own[0..bytes], offset);
        return if (found > 0) found else region.fault.withReason(.truncated, error.Corrupt);
    }

    fn transferMapped(
        region: *Region,
        direction: os.Direction,
        offset: u64,
        own: [*]u8,
        bytes: u64,
    ) Error!u64 {
        const fault = &region.fault;
        const copied = if (region.copies_by_kernel)
            try region.copyByKernel(direction, offset, own, bytes)
        else
            try region.copyDirectly(direction, offset, own, bytes);
        // Beyond the end of the file, but within its last page, a copy succeeds and is lost.
        const size = try os.length(fault, region.locks);
        const counted = if (region.access.private) copied else @min(copied, size -| offset);
        if (counted > 0) return counted;
        if (size <= offset) return fault.withReason(.truncated, error.Corrupt);
        var byte: [1]u8 = undefined;
        _ = try os.readAt(fault, region.file, &byte, offset); // the disk may have failed
        _ = try raw_file.noteSpace(fault, region.file, bytes);
        return fault.withReason(.fileSystemFull, error.NoSpace);
    }

    /// Ends before the first page that has nothing behind it. What cannot be mapped can perhaps be
    /// read: a hole, while a file system in memory is full.
    fn copyByKernel(
        region: *Region,
        direction: os.Direction,
        offset: u64,
        own: [*]u8,
        bytes: u64,
    ) Error!u64 {
        const fault = &region.fault;
        var done: u64 = 0;
        var step = bytes;
        while (done < bytes) {
            const at = offset + done;
            const len = @min(step, bytes - done);
            const from = own + done;
            const count = os.copy(fault, direction, region.base + at, from, len) catch |err| {
                if (err != error.Unsupported) return err;
                region.copies_by_kernel = false;
                fault.* = .{};
                return done + try region.copyDirectly(direction, at, from, bytes - done);
            };
            done += count;
            if (count > 0) {
                step = bytes;
                continue;
            }
            const in_page = @min(bytes - done, os.page_bytes - at % os.page_bytes);
            if (len > in_page) {
                step = in_page; // a kernel that copies all or nothing
                continue;
            }
            if (direction == .to_mapping) break;
            const found = try os.readAt(fault, region.file, own[done..][0..in_page], at);
            if (found == 0) break;
            done += found;
            step = bytes;
        }
        return done;
    }

    /// Where the kernel does not copy for us. A file cut short during the call becomes longer again
    /// by a write; and by a copy from or to a private mapping this process ends in a signal.
    fn copyDirectly(
        region: *Region,
        direction: os.Direction,
        offset: u64,
        own: [*]u8,
        bytes: u64,
    ) Error!u64 {
        const fault = &region.fault;
        const left = @min(bytes, (try os.length(fault, region.locks)) -| offset);
        if (region.access.private) {
            plainCopy(direction, region.base + offset, own, left);
            return left;
        }
        return os.writeAt(fault, region.file, own[0..left], offset);
    }

    /// Has everything written so far reach the disk.
    pub fn flush(region: *Region) Error!void {
        if (region.header != null) return; // memory, and nothing behind it
        const fault = &region.fault;
        try os.sync(fault, region.file, region.base, region.mapped);
        if (try os.length(fault, region.locks) < region.length)
            return fault.withReason(.truncated, error.Corrupt);
    }

    /// Writes the token; its length, which may exceed the target's. A user's file has a path, and
    /// needs none.
    pub fn token(region: *Region, target: []u8) Error!usize {
        const header = region.header orelse return error.Unsupported;
        const text = if (region.unnamed) |number|
            try os.Path.of("file:{x:0>16}:{x:0>16}", .{ number, header.id })
        else
            try os.Path.of("fd:{d}:{d}:{x:0>16}", .{ os.pid(), region.file, header.id });
        if (text.len <= target.len) @memcpy(target[0..text.len], text.slice());
        return text.len;
    }
};

fn plainCopy(direction: os.Direction, mapped: [*]u8, own: [*]u8, bytes: u64) void {
    switch (direction) {
        .from_mapping => @memcpy(own[0..bytes], mapped[0..bytes]),
        .to_mapping => @memcpy(mapped[0..bytes], own[0..bytes]),
    }
}

/// `fd:<pid>:<descriptor>:<id>`
const Token = struct {
    pid: u32,
    fd: u31,
    id: u64,

    fn parse(text: []const u8) Error!Token {
        var parts = std.mem.splitScalar(u8, text, ':');
        if (!std.mem.eql(u8, parts.first(), "fd")) return error.InvalidArgument;
        const token: Token = .{
            .pid = try number(u32, parts.next(), 10),
            .fd = try number(u31, parts.next(), 10),
            .id = try number(u64, parts.next(), 16),
        };
        return if (parts.next() == null) token else error.InvalidArgument;
    }

    fn number(comptime T: type, text: ?[]const u8, base: u8) Error!T {
        return std.fmt.parseInt(T, text orelse "", base) catch error.InvalidArgument;
    }
};

const Found = enum { by_descriptor, by_number };

/// Checks a memory file before anything of it is mapped, and gives the length of its data. A file
/// with a name of ours cannot be sealed, but only this user can open it.
fn checkMemory(
    fault: *Fault,
    file: os.Fd,
    id: u64,
    found: Found,
    allow_foreign_owner: bool,
) Error!u64 {
    const stat = try os.stat(fault, file);
    try file_checks.checkOwner(fault, &stat, allow_foreign_owner);
    const header = try headers.readHeader(fault, file);
    try headers.checkIdentity(fault, &header, .region);
    if (header.id != id) return fault.withReason(.identity, error.NotFound);
    if (header.attributes >> 8 != 0 or header.max_bytes == 0 or header.max_bytes > length_max)
        return fault.withReason(.checksum, error.Corrupt);
    // Plain copies rely on both. A sealed file is as long as it was a moment ago.
    const is_cut = stat.size < data_start + header.max_bytes;
    if (is_cut or (found == .by_descriptor and !os.isSealed(file)))
        return fault.withReason(.truncated, error.Corrupt);
    return header.max_bytes;
}
