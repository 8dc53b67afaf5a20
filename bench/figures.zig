//! What the native benches share: clocks, processes that end with the bench, keys, and figures as
//! lines of JSON on the standard output (bench/README.md).

const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;
const abi = @import("shmap").abi;

pub const codec = "bench";
pub const value_bytes = 32;
/// The kind byte of bytes; only the TypeScript side reads it.
const kind = 13;

/// Whether the argument `--smoke` asks for the same code over tiny sizes.
pub fn isSmoke(init: std.process.Init.Minimal) bool {
    var arguments = init.args.iterate();
    _ = arguments.next();
    const argument = arguments.next() orelse return false;
    if (std.mem.eql(u8, argument, "--smoke")) return true;
    std.debug.print("usage: [--smoke]\n", .{});
    std.process.exit(2);
}

pub fn now() u64 {
    return clock(.MONOTONIC);
}

/// What the calling thread has had of a processor.
pub fn cpuTime() u64 {
    return clock(.THREAD_CPUTIME_ID);
}

fn clock(id: linux.clockid_t) u64 {
    var time: linux.timespec = undefined;
    _ = linux.clock_gettime(id, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

/// The time in units of its own: cheaper than `now`, for what takes some ten nanoseconds. What came
/// before is over when it is read, and nothing behind it has begun.
pub inline fn ticks() u64 {
    if (builtin.cpu.arch != .x86_64) return now();
    var low: u32 = undefined;
    var high: u32 = undefined;
    asm volatile ("rdtscp\nlfence"
        : [low] "={eax}" (low),
          [high] "={edx}" (high),
        :
        : .{ .ecx = true, .memory = true });
    return @as(u64, high) << 32 | low;
}

/// Nanoseconds a tick.
pub fn tickNs() f64 {
    if (builtin.cpu.arch != .x86_64) return 1;
    const from = now();
    const first = ticks();
    sleep(20_000);
    const last = ticks();
    return @as(f64, @floatFromInt(now() - from)) / @as(f64, @floatFromInt(last - first));
}

pub fn sleep(us: u64) void {
    const time: linux.timespec = .{
        .sec = @intCast(us / 1_000_000),
        .nsec = @intCast(us % 1_000_000 * 1000),
    };
    _ = linux.nanosleep(&time, null);
}

pub fn spin(us: u64) void {
    const until = now() + us * 1000;
    while (now() < until) std.atomic.spinLoopHint();
}

/// Runs as a process of its own, which does not outlive this one, not even stopped.
pub fn fork(context: anytype, comptime run: fn (@TypeOf(context)) void) linux.pid_t {
    const parent = linux.getpid();
    const pid = std.c.fork();
    if (pid < 0) @panic("cannot fork");
    if (pid != 0) return pid;
    const death = @intFromEnum(linux.PR.SET_PDEATHSIG);
    _ = linux.prctl(death, @intFromEnum(linux.SIG.KILL), 0, 0, 0);
    if (linux.getppid() != parent) linux.exit(1);
    run(context);
    linux.exit(0);
}

/// Kills a process that `fork` started, and returns when it is gone.
pub fn end(pid: linux.pid_t) void {
    _ = linux.kill(pid, .KILL);
    var how: u32 = 0;
    while (linux.errno(linux.waitpid(pid, &how, 0)) == .INTR) {}
}

/// Memory that the processes forked from here on share, zeroed.
pub fn shared(comptime T: type, count: usize) []T {
    const len = std.mem.alignForward(usize, @sizeOf(T) * count, 4096);
    const flags: linux.MAP = .{ .TYPE = .SHARED, .ANONYMOUS = true };
    const address = linux.mmap(null, len, .{ .READ = true, .WRITE = true }, flags, -1, 0);
    if (linux.errno(address) != .SUCCESS) @panic("no memory");
    return @as([*]T, @ptrFromInt(address))[0..count];
}

/// The keys of all benches: `user:session:<n>`.
pub const Key = struct {
    const prefix = "user:session:";

    bytes: [23]u8,
    len: u8,

    pub fn of(n: u64) Key {
        var key: Key = undefined;
        const text = std.fmt.bufPrint(&key.bytes, prefix ++ "{d}", .{n}) catch unreachable; // fits
        key.len = @intCast(text.len);
        return key;
    }

    pub fn slice(key: *const Key) []const u8 {
        return key.bytes[0..key.len];
    }

    /// The key of the next number, for a fraction of what writing it out costs.
    pub fn step(key: *Key) void {
        var at = key.len;
        while (at > prefix.len) {
            at -= 1;
            if (key.bytes[at] != '9') {
                key.bytes[at] += 1;
                return;
            }
            key.bytes[at] = '0';
        }
        // All digits were nines: one more of them.
        key.bytes[prefix.len] = '1';
        key.bytes[key.len] = '0';
        key.len += 1;
    }
};

pub const value: [value_bytes]u8 = "a value of thirty-two bytes, yes".*;

/// A call of the library that must succeed.
pub inline fn must(result: i32) u32 {
    if (result < 0) fail(result);
    return @intCast(result);
}

fn fail(result: i32) noreturn {
    @branchHint(.cold);
    std.debug.panic("the library says {d}", .{result});
}

pub fn anonymous(flags: u32) u32 {
    return must(abi.segment.shm_segment_anonymous(codec, codec.len, flags, 0, 5000, null));
}

/// What leads another process to a segment.
pub const Token = struct {
    bytes: [256]u8,
    len: u32,

    pub fn of(handle: u32) Token {
        var token: Token = undefined;
        token.len = must(abi.segment.shm_segment_token(handle, &token.bytes, token.bytes.len));
        return token;
    }

    pub fn attach(token: *const Token) u32 {
        const bytes: [*]const u8 = &token.bytes;
        const attachTo = abi.segment.shm_segment_attach;
        return must(attachTo(bytes, token.len, codec, codec.len, 0, 60_000, null));
    }
};

pub inline fn put(handle: u32, key: []const u8, bytes: []const u8) u32 {
    const key_len: u32 = @intCast(key.len);
    const len: u32 = @intCast(bytes.len);
    return must(abi.map.shm_map_put(handle, key.ptr, key_len, bytes.ptr, len, kind));
}

/// The length of the value. The target has room for one byte more, its kind.
pub inline fn get(handle: u32, key: []const u8, target: []u8) u32 {
    const key_len: u32 = @intCast(key.len);
    return must(abi.map.shm_map_get(handle, key.ptr, key_len, target.ptr, @intCast(target.len)));
}

/// Stores the first `count` keys.
pub fn fill(handle: u32, count: u64) void {
    var key: Key = .of(0);
    for (0..count) |_| {
        _ = put(handle, key.slice(), &value);
        key.step();
    }
}

/// Counts of durations, 64 to a doubling, so that any percentile is right within 1.6 %. Lies in
/// shared memory; one process adds, another reads when that is over.
pub const Histogram = extern struct {
    const bucket_count = 64 * 40;

    counts: [bucket_count]u32,
    total: u64,
    longest: u64,

    pub const empty: Histogram = .{ .counts = @splat(0), .total = 0, .longest = 0 };

    pub inline fn add(histogram: *Histogram, duration: u64) void {
        const exponent: u64 = @max(63 - @clz(duration | 1), 6);
        const bucket = (exponent - 6) * 64 + (duration >> @intCast(exponent - 6));
        histogram.counts[@min(bucket, bucket_count - 1)] += 1;
        histogram.total += 1;
        histogram.longest = @max(histogram.longest, duration);
    }

    pub fn merge(histogram: *Histogram, other: *const Histogram) void {
        for (&histogram.counts, &other.counts) |*count, more| count.* += more;
        histogram.total += other.total;
        histogram.longest = @max(histogram.longest, other.longest);
    }

    pub fn percentile(histogram: *const Histogram, share: f64) f64 {
        const rank = share * @as(f64, @floatFromInt(histogram.total));
        var seen: f64 = 0;
        for (&histogram.counts, 0..) |count, bucket| {
            seen += @floatFromInt(count);
            if (seen < rank or count == 0) continue;
            if (bucket < 128) return @floatFromInt(bucket);
            const exponent: u6 = @intCast(bucket / 64 - 1);
            const from = (64 + bucket % 64) << exponent;
            return @floatFromInt(from + (@as(u64, 1) << exponent) / 2);
        }
        return @floatFromInt(histogram.longest);
    }
};

pub const passes_max = 16;

/// The percentiles of several passes.
pub const Latency = struct {
    const shares = [_]f64{ 0.5, 0.99, 0.999 };

    passes: [shares.len][passes_max]f64 = undefined,
    count: usize = 0,
    longest: f64 = 0,

    /// `scale`: what one of the histogram's units is of the row's.
    pub fn add(latency: *Latency, histogram: *const Histogram, scale: f64) void {
        for (shares, &latency.passes) |share, *passes|
            passes[latency.count] = histogram.percentile(share) * scale;
        const longest = @as(f64, @floatFromInt(histogram.longest)) * scale;
        latency.longest = @max(latency.longest, longest);
        latency.count += 1;
    }
};

/// The one in the middle; sorts them.
pub fn median(values: []f64) f64 {
    std.mem.sort(f64, values, {}, std.sort.asc(f64));
    const middle = values.len / 2;
    return if (values.len % 2 == 1) values[middle] else (values[middle - 1] + values[middle]) / 2;
}

/// A line of JSON in the making.
pub const Row = struct {
    text: [1024]u8 = undefined,
    len: usize = 0,

    pub fn of(bench: []const u8, case: []const u8, who: []const u8) Row {
        const row: Row = .{};
        return row.with("bench", bench).with("case", case).with("who", who);
    }

    pub fn with(row: Row, comptime name: []const u8, what: anytype) Row {
        var longer = row;
        longer.append("{s}\"{s}\":", .{ if (row.len == 0) "{" else ",", name });
        switch (@typeInfo(@TypeOf(what))) {
            .int, .comptime_int => longer.append("{d}", .{what}),
            .float => longer.number(what),
            else => longer.append("\"{s}\"", .{@as([]const u8, what)}),
        }
        return longer;
    }

    /// Four digits say all that a measurement can.
    fn number(row: *Row, n: f64) void {
        const size = @abs(n);
        if (size >= 1000 or n == @trunc(n)) return row.append("{d:.0}", .{n});
        if (size >= 100) return row.append("{d:.1}", .{n});
        if (size >= 10) return row.append("{d:.2}", .{n});
        if (size >= 1) return row.append("{d:.3}", .{n});
        row.append("{d:.4}", .{n});
    }

    fn append(row: *Row, comptime format: []const u8, arguments: anytype) void {
        const text = std.fmt.bufPrint(row.text[row.len..], format, arguments) catch
            @panic("a row is too long");
        row.len += text.len;
    }

    /// Ends with the median and the best of the passes; sorts them.
    pub fn passes(row: Row, unit: []const u8, best: enum { least, most }, values: []f64) void {
        const middle = median(values);
        const extreme = if (best == .least) values[0] else values[values.len - 1];
        row.with("unit", unit).with("median", middle).with("best", extreme)
            .with("passes", values.len).write();
    }

    /// Ends with the median of the passes' ratios, and the ratio of the best passes, which what
    /// else the machine did in the meantime has least to do with. Of rates.
    pub fn ratio(row: Row, over: []const f64, under: []const f64) void {
        var ratios: [passes_max]f64 = undefined;
        for (ratios[0..over.len], over, under) |*one, a, b| one.* = a / b;
        const best = std.mem.max(f64, over) / std.mem.max(f64, under);
        row.with("unit", "x").with("median", median(ratios[0..over.len])).with("best", best)
            .with("passes", over.len).write();
    }

    /// Ends with the median over the passes of each percentile, and the longest of all.
    pub fn percentiles(row: Row, unit: []const u8, latency: *Latency) void {
        const count = latency.count;
        row.with("unit", unit)
            .with("p50", median(latency.passes[0][0..count]))
            .with("p99", median(latency.passes[1][0..count]))
            .with("p999", median(latency.passes[2][0..count]))
            .with("max", latency.longest).with("passes", count).write();
    }

    /// Ends with the percentiles of single durations; sorts them.
    pub fn durations(row: Row, unit: []const u8, values: []f64) void {
        const middle = median(values);
        const count = values.len;
        row.with("unit", unit).with("p50", middle)
            .with("p99", values[(count * 99 + 99) / 100 - 1])
            .with("p999", values[(count * 999 + 999) / 1000 - 1])
            .with("max", values[count - 1]).with("samples", count).write();
    }

    pub fn write(row: Row) void {
        var line = row;
        line.append("}}\n", .{});
        var done: usize = 0;
        while (done < line.len) {
            const result = linux.write(1, line.text[done..].ptr, line.len - done);
            if (linux.errno(result) == .INTR) continue;
            if (linux.errno(result) != .SUCCESS) linux.exit(1);
            done += result;
        }
    }
};
