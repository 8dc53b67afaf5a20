//! A process that uses the release library, carried through one call of it instruction by
//! instruction, and what each instruction changed in its segment.
//!
//! The process is forked here, so what it is to do lies in memory both sides see. It stops itself
//! three times: when it has a segment, before the call, and after it.

const std = @import("std");
const linux = std.os.linux;
const shmap = @import("shmap");

const calls = shmap.testing.calls;
const Change = shmap.testing.images.Change;
const Header = shmap.layout.Header;
const Site = shmap.testing.images.Site;

extern fn fork() linux.pid_t;
extern fn raise(signal: c_int) c_int;
extern fn _exit(code: c_int) noreturn;

pub const keys_max = 32;
const commands_max = 64;
const value_bytes_max = 8192;
const value_key = "value";
const codec = "msgpackr";

/// One exported call.
pub const Command = extern struct {
    call: Call,
    /// Which key; for `put_many` the first of `count`.
    key: u32 = 0,
    count: u32 = 1,
    value_len: u32 = 0,
    /// What the value's bytes are made from.
    salt: u32 = 0,

    pub const Call = enum(u32) {
        put,
        add,
        compare_and_set,
        delete,
        clear,
        put_many,
        repair,
        lock,
        unlock,
        value_put,
        take,
        swap,
        replace,
        delete_version,
        count,
    };
};

/// What both sides see.
pub const Script = extern struct {
    flags: u32,
    max_bytes: f64,
    key_count: u32,
    key_lens: [keys_max]u32,
    keys: [keys_max][64]u8,
    count: u32,
    commands: [commands_max]Command,
    /// The answers of the process: its segment, and how its calls ended; the first is to be 0.
    token_len: i32,
    token: [200]u8,
    failed: i32,
    result: i32,

    pub fn key(script: *const Script, i: usize) []const u8 {
        return script.keys[i][0..script.key_lens[i]];
    }

    pub fn addKey(script: *Script, bytes: []const u8) void {
        @memcpy(script.keys[script.key_count][0..bytes.len], bytes);
        script.key_lens[script.key_count] = @intCast(bytes.len);
        script.key_count += 1;
    }

    pub fn add(script: *Script, command: Command) void {
        script.commands[script.count] = command;
        script.count += 1;
    }
};

/// What a call stores: a value, or the records of several.
pub const Values = struct {
    bytes: [value_bytes_max]u8 align(8),

    pub fn fill(values: *Values, script: *const Script, command: *const Command) void {
        if (command.call == .put_many) return values.fillRecords(script, command);
        for (values.bytes[0..command.value_len], 0..) |*byte, i|
            byte.* = @truncate(command.salt *% 31 +% i *% 7 +% 1);
    }

    fn fillRecords(values: *Values, script: *const Script, command: *const Command) void {
        var at: usize = 0;
        for (0..command.count) |i| {
            const key = script.key(command.key + i);
            const record: shmap.gathered.Record = .{
                .key_len = @intCast(key.len),
                .value_len = command.value_len,
                .kind = 1,
            };
            @memcpy(values.bytes[at..][0..16], std.mem.asBytes(&record));
            @memcpy(values.bytes[at + 16 ..][0..key.len], key);
            @memset(values.bytes[at + 16 + key.len ..][0..command.value_len], @truncate(i +% 1));
            at += 16 + std.mem.alignForward(usize, key.len + command.value_len, 8);
        }
    }
};

const Bytes = ?[*]const u8;

/// The library as its callers know it.
pub const Library = struct {
    file: std.DynLib,
    anonymous: *const fn (Bytes, u32, u32, f64, f64, ?[*]u8) callconv(.c) i32,
    attach: *const fn (Bytes, u32, Bytes, u32, u32, f64, ?[*]u8) callconv(.c) i32,
    token: *const fn (u32, ?[*]u8, u32) callconv(.c) i32,
    put: *const fn (u32, Bytes, u32, Bytes, u32, u32) callconv(.c) i32,
    putVersion: *const fn (u32, Bytes, u32, Bytes, u32, u32, f64, f64) callconv(.c) i32,
    getVersion: *const fn (u32, Bytes, u32, ?[*]u8, u32) callconv(.c) i32,
    delete: *const fn (u32, Bytes, u32) callconv(.c) i32,
    clear: *const fn (u32) callconv(.c) i32,
    putMany: *const fn (u32, Bytes, u32, u32, u32) callconv(.c) i32,
    verify: *const fn (u32, u32, ?[*]u8, u32) callconv(.c) i32,
    acquire: *const fn (u32, u32, f64) callconv(.c) i32,
    release: *const fn (u32, u32) callconv(.c) i32,
    valuePut: *const fn (u32, Bytes, u32, u32) callconv(.c) i32,
    take: *const fn (u32, Bytes, u32, ?[*]u8, u32) callconv(.c) i32,
    swap: *const fn (u32, Bytes, u32, Bytes, u32, u32, f64, ?[*]u8, u32) callconv(.c) i32,
    replace: *const fn (u32, Bytes, u32, Bytes, u32, u32, f64, f64) callconv(.c) i32,
    deleteVersion: *const fn (u32, Bytes, u32, f64) callconv(.c) i32,
    increment: *const fn (u32, Bytes, u32, f64, f64, f64, ?[*]u8, u32) callconv(.c) i32,

    pub fn open(path: []const u8) !Library {
        var library: Library = undefined;
        library.file = try std.DynLib.open(path);
        const names = .{
            .{ "anonymous", "shm_segment_anonymous" },
            .{ "attach", "shm_segment_attach" },
            .{ "token", "shm_segment_token" },
            .{ "put", "shm_map_put" },
            .{ "putVersion", "shm_map_put_version" },
            .{ "getVersion", "shm_map_get_version" },
            .{ "delete", "shm_map_delete" },
            .{ "clear", "shm_map_clear" },
            .{ "putMany", "shm_map_put_many" },
            .{ "verify", "shm_map_verify" },
            .{ "acquire", "shm_lock_acquire" },
            .{ "release", "shm_lock_release" },
            .{ "valuePut", "shm_value_put" },
            .{ "take", "shm_map_take" },
            .{ "swap", "shm_map_swap" },
            .{ "replace", "shm_map_replace" },
            .{ "deleteVersion", "shm_map_delete_version" },
            .{ "increment", "shm_map_increment" },
        };
        inline for (names) |name| {
            const Function = @FieldType(Library, name[0]);
            @field(library, name[0]) = library.file.lookup(Function, name[1]) orelse
                return error.NoSuchSymbol;
        }
        return library;
    }
};

/// The process itself.
const Child = struct {
    library: *const Library,
    script: *Script,
    handle: u32 = 0,
    values: Values = undefined,

    fn live(child: *Child) void {
        const library = child.library;
        const script = child.script;
        var fault: [128]u8 = undefined;
        const made =
            library.anonymous(codec, codec.len, script.flags, script.max_bytes, 1000, &fault);
        if (made <= 0) return child.fail(made);
        script.token_len = library.token(@intCast(made), &script.token, script.token.len);
        _ = raise(@intFromEnum(linux.SIG.STOP));
        // Once more, with the secrets that the other side wrote meanwhile.
        const len: u32 = @intCast(script.token_len);
        const kind = script.flags & 1;
        const got = library.attach(&script.token, len, codec, codec.len, kind, 1000, &fault);
        if (got <= 0) return child.fail(got);
        child.handle = @intCast(got);
        const last = script.count - 1;
        for (script.commands[0..last]) |*command| {
            const result = child.call(command);
            if (result < 0) return child.fail(result);
        }
        // What the loader does at a first call, and a copy of the value, come before.
        const command = &script.commands[last];
        child.note(command);
        child.values.fill(child.script, command);
        _ = raise(@intFromEnum(linux.SIG.STOP));
        script.result = child.callFilled(command);
        _ = raise(@intFromEnum(linux.SIG.STOP));
    }

    /// Counts the call that is about to be made, for the proof's table of calls.
    fn note(child: *Child, command: *const Command) void {
        const is_kernel = shmap.marshal.Flags.lockKernel.in(child.script.flags);
        const on: calls.On = if (is_kernel) .kernel else .robust;
        calls.note(switch (command.call) {
            .put, .add => .shm_map_put,
            .compare_and_set => .shm_map_put_version,
            .delete => .shm_map_delete,
            .clear => .shm_map_clear,
            .put_many => .shm_map_put_many,
            .repair => .shm_map_verify,
            .lock => .shm_lock_acquire,
            .unlock => .shm_lock_release,
            .value_put => .shm_value_put,
            .take => .shm_map_take,
            .swap => .shm_map_swap,
            .replace => .shm_map_replace,
            .delete_version => .shm_map_delete_version,
            .count => .shm_map_increment,
        }, on);
        if (command.call == .compare_and_set or command.call == .delete_version)
            calls.note(.shm_map_get_version, on);
    }

    fn fail(child: *Child, result: i32) void {
        child.script.failed = if (result == 0) -1 else result;
    }

    fn versionOf(child: *Child, key: []const u8) f64 {
        var room: [value_bytes_max + 9]u8 = undefined;
        const key_len: u32 = @intCast(key.len);
        const got = child.library.getVersion(child.handle, key.ptr, key_len, &room, room.len);
        if (got < 0) return 0;
        return @bitCast(room[@as(usize, @intCast(got)) + 1 ..][0..8].*);
    }

    /// That there was no value is no failure.
    fn noneIsZero(result: i32) i32 {
        return if (result == @intFromEnum(shmap.status.Status.absent)) 0 else result;
    }

    fn call(child: *Child, command: *const Command) i32 {
        child.note(command);
        child.values.fill(child.script, command);
        return child.callFilled(command);
    }

    fn callFilled(child: *Child, command: *const Command) i32 {
        const library = child.library;
        const handle = child.handle;
        const key = child.script.key(command.key);
        const key_len: u32 = @intCast(key.len);
        const value = &child.values.bytes;
        const len = command.value_len;
        var room: [value_bytes_max + 9]u8 = undefined;
        return switch (command.call) {
            .put => library.put(handle, key.ptr, key_len, value, len, 1),
            .add => library.put(handle, key.ptr, key_len, value, len, 256 + 2),
            .compare_and_set => blk: {
                const version = child.versionOf(key);
                break :blk library.putVersion(handle, key.ptr, key_len, value, len, 3, version, 0);
            },
            .delete_version => blk: {
                const version = child.versionOf(key);
                break :blk library.deleteVersion(handle, key.ptr, key_len, version);
            },
            .take => noneIsZero(library.take(handle, key.ptr, key_len, &room, room.len)),
            .swap => noneIsZero(
                library.swap(handle, key.ptr, key_len, value, len, 4, 0, &room, room.len),
            ),
            .replace => library.replace(handle, key.ptr, key_len, value, len, 5, -1, 0),
            .count => library.increment(handle, key.ptr, key_len, 1, 0, 0, &room, room.len),
            .delete => library.delete(handle, key.ptr, key_len),
            .clear => library.clear(handle),
            .put_many => library.putMany(handle, value, value.len, command.count, 0),
            .repair => library.verify(handle, 1, value, value.len),
            .lock => library.acquire(handle, 0, 1000),
            .unlock => library.release(handle, 0),
            .value_put => library.valuePut(handle, value, len, 1),
        };
    }
};

/// A process on its way.
pub const Stepper = struct {
    pid: linux.pid_t,
    script: *Script,
    /// Its segment's file, and what is mapped of it.
    file: shmap.os.Fd = -1,
    memory: []u64 = &.{},
    steps: u64 = 0,

    /// Forks it, and waits until it has its segment. `bytes` of that can be seen.
    pub fn start(library: *const Library, script: *Script, bytes: u64) !Stepper {
        script.failed = 0;
        const pid = fork();
        if (pid < 0) return error.NoProcess;
        if (pid == 0) {
            const kill_me = @intFromEnum(linux.SIG.KILL);
            _ = linux.prctl(@intFromEnum(linux.PR.SET_PDEATHSIG), kill_me, 0, 0, 0);
            _ = linux.ptrace(linux.PTRACE.TRACEME, 0, 0, 0, 0);
            var child: Child = .{ .library = library, .script = script };
            child.live();
            _exit(0);
        }
        var stepper: Stepper = .{ .pid = pid, .script = script };
        errdefer stepper.end();
        try stepper.expectStop();
        _ = linux.ptrace(linux.PTRACE.SETOPTIONS, pid, 0, linux.PTRACE.O.EXITKILL, 0);
        try stepper.look(bytes);
        return stepper;
    }

    pub fn end(stepper: *Stepper) void {
        _ = linux.kill(stepper.pid, .KILL);
        var status: u32 = 0;
        while (linux.errno(linux.waitpid(stepper.pid, &status, 0)) == .INTR) {}
        const memory = stepper.memory;
        if (memory.len > 0) shmap.os.unmap(@ptrCast(@alignCast(memory.ptr)), memory.len * 8);
        if (stepper.file >= 0) shmap.os.close(stepper.file);
    }

    fn look(stepper: *Stepper, bytes: u64) !void {
        const script = stepper.script;
        var parts = std.mem.splitScalar(u8, script.token[0..@intCast(script.token_len)], ':');
        _ = parts.next();
        _ = parts.next();
        const number = try std.fmt.parseInt(u32, parts.next() orelse "", 10);
        var fault: shmap.status.Fault = .{};
        const path: shmap.os.Path = try .of("/proc/{d}/fd/{d}", .{ stepper.pid, number });
        stepper.file = try shmap.os.system.openLink(&fault, &path, .read_write);
        const base = try shmap.os.map(&fault, stepper.file, bytes, .read_write);
        stepper.memory = @as([*]u64, @ptrCast(base))[0 .. bytes / 8];
    }

    pub fn header(stepper: *const Stepper) *Header {
        return @ptrCast(@alignCast(stepper.memory.ptr));
    }

    /// Waits until it stops itself.
    fn expectStop(stepper: *Stepper) !void {
        if (try stepper.wait() != .STOP) return error.ChildDied;
    }

    fn wait(stepper: *Stepper) !linux.SIG {
        var status: u32 = 0;
        while (linux.errno(linux.waitpid(stepper.pid, &status, 0)) == .INTR) {}
        if (linux.W.IFSTOPPED(status)) return linux.W.STOPSIG(status);
        std.debug.print("the process ended: {x}, {d}\n", .{ status, stepper.script.failed });
        return error.ChildDied;
    }

    fn go(stepper: *Stepper, request: u32) void {
        _ = linux.ptrace(request, stepper.pid, 0, 0, 0);
    }

    /// Lets it run to its next stop.
    pub fn proceed(stepper: *Stepper) !void {
        stepper.go(linux.PTRACE.CONT);
        try stepper.expectStop();
    }

    fn committed(stepper: *const Stepper) u64 {
        return @min(stepper.header().committed / 8, stepper.memory.len);
    }

    /// The mutexes that are locked, as in `Change`.
    fn held(stepper: *const Stepper, site: *const Site) u16 {
        if (!site.isRobust()) return 0;
        const halves: [*]const u32 = @ptrCast(stepper.memory.ptr);
        var bits: u16 = 0;
        for (0..site.stripeCount() + 1) |i| {
            const offset = site.mutexOffset(i) + 4 * site.mutex_word;
            bits |= @as(u16, @intFromBool(halves[offset / 4] != 0)) << @intCast(i);
        }
        return bits;
    }

    /// Steps through the call. All that changed is added to `log`; the segment as it was before is
    /// what `last` holds, and what it is now afterwards.
    pub fn step(
        stepper: *Stepper,
        site: *const Site,
        last: []u64,
        log: *std.ArrayList(Change),
    ) !void {
        var held_before = stepper.held(site);
        while (true) {
            stepper.go(linux.PTRACE.SINGLESTEP);
            const signal = try stepper.wait();
            if (signal == .STOP) return;
            if (signal != .TRAP) return error.ChildDied;
            stepper.steps += 1;
            const first = log.items.len;
            try stepper.compare(site, last, held_before, log);
            if (log.items.len > first) log.items[log.items.len - 1].joined = false;
            held_before = stepper.held(site);
        }
    }

    fn compare(
        stepper: *Stepper,
        site: *const Site,
        last: []u64,
        held_before: u16,
        log: *std.ArrayList(Change),
    ) !void {
        const page = 512;
        const words = stepper.committed();
        var from: usize = 0;
        while (from < words) : (from += page) {
            const now = stepper.memory[from..@min(words, from + page)];
            const old = last[from..][0..now.len];
            if (std.mem.eql(u64, now, old)) continue;
            for (now, old, from..) |new, *was, at| {
                if (new == was.*) continue;
                defer was.* = new;
                if (site.inMutex(8 * at)) continue;
                if (8 * at == @offsetOf(Header, "committed")) try stepper.expectBlocks(new);
                try log.append(site.gpa, .{
                    .at = @intCast(at),
                    .held = held_before,
                    .joined = true,
                    .old = was.*,
                    .new = new,
                });
            }
        }
    }

    fn expectBlocks(stepper: *Stepper, bytes: u64) !void {
        var fault: shmap.status.Fault = .{};
        const stat = try shmap.os.stat(&fault, stepper.file);
        if (stat.size < bytes or stat.allocated < bytes) return error.CommittedWithoutBlocks;
    }
};
