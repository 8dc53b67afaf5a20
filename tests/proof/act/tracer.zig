//! Runs a child under `ptrace` and disturbs one of the system calls that it makes in a bracket: the
//! call fails without being made, or the child is killed just before or just after it.
//!
//! The bracket is from the child's first SIGSTOP, which it sends itself, to its next `kill` call.
//! Nothing the library does is a `kill`, so what set-up and examination call is never touched.

const std = @import("std");
const linux = std.os.linux;

/// What is done to one call.
pub const Deed = union(enum) {
    nothing,
    /// This call fails, once.
    fail: linux.E,
    /// This call fails, and so do all later ones of the same kind.
    fail_from_here: linux.E,
    kill_before,
    kill_after,
};

/// What the file system is made to lack for a whole run.
pub const Lack = enum { nothing, unnamed_files, exchange };

pub const Plan = struct {
    /// Which call of the bracket, counted from 0.
    at: u32 = 0,
    deed: Deed = .nothing,
    lack: Lack = .nothing,

    fn isFailure(plan: Plan) bool {
        return plan.deed == .fail or plan.deed == .fail_from_here;
    }
};

pub const Ending = enum { exited, killed_by_plan, killed, hung };

pub const Outcome = struct {
    ending: Ending = .killed,
    /// An exit code or a signal's number.
    code: u32 = 0,
    /// The call that was disturbed, or would have been.
    call: ?linux.SYS = null,
};

/// Byte offsets of registers in the child's `struct user`.
const register = struct {
    const r8 = 9 * 8;
    const rax = 10 * 8;
    const rsi = 13 * 8;
    const orig_rax = 15 * 8;
};

const option = struct {
    const trace_sys_good = 1;
    const exit_kill = 1 << 20;
};

const call_stop = @as(u32, @intFromEnum(linux.SIG.TRAP)) | 0x80;

/// Whether the kernel ever refuses this call: not the clock, nor a caller's own numbers.
pub fn canFail(call: linux.SYS) bool {
    return switch (call) {
        .getpid, .gettid, .geteuid, .clock_gettime => false,
        else => true,
    };
}

pub const list_max = 1024;
/// The calls of the last bracket, in order.
pub var list: [list_max]linux.SYS = undefined;
pub var list_len: usize = 0;

var watched: linux.pid_t = 0;
var is_hung: bool = false;

fn onAlarm(_: linux.SIG) callconv(.c) void {
    is_hung = true;
    if (watched > 0) _ = linux.kill(watched, .KILL);
}

/// Call once, before any wait.
pub fn prepare() void {
    const action: linux.Sigaction = .{
        .handler = .{ .handler = onAlarm },
        .mask = std.mem.zeroes(linux.sigset_t),
        .flags = 0,
    };
    _ = linux.sigaction(.ALRM, &action, null);
}

fn setAlarm(seconds: usize) void {
    _ = linux.syscall1(.alarm, seconds);
}

/// Forks; the child goes when its parent goes. 0 in the child.
pub fn fork() !linux.pid_t {
    const pid = std.c.fork();
    if (pid < 0) return error.ForkFailed;
    if (pid == 0) _ = linux.prctl(@intFromEnum(linux.PR.SET_PDEATHSIG), 9, 0, 0, 0);
    return pid;
}

/// In the child: the bracket begins when this returns.
pub fn begin() void {
    _ = linux.ptrace(linux.PTRACE.TRACEME, 0, 0, 0, 0);
    _ = linux.kill(linux.getpid(), .STOP);
}

/// In the child: the bracket ends.
pub fn end() void {
    _ = linux.syscall2(.kill, 0, 0);
}

/// Waits for a child that is not traced, at most `seconds`.
pub fn wait(pid: linux.pid_t, seconds: usize) Outcome {
    watched = pid;
    is_hung = false;
    setAlarm(seconds);
    defer setAlarm(0);
    while (true) {
        const word = waitOnce(pid) orelse continue;
        return ended(word, false) orelse continue;
    }
}

fn waitOnce(pid: linux.pid_t) ?u32 {
    var word: u32 = 0;
    const result = linux.waitpid(pid, &word, 0);
    return if (linux.errno(result) == .SUCCESS) word else null;
}

fn ended(word: u32, by_plan: bool) ?Outcome {
    if (linux.W.IFEXITED(word))
        return .{ .ending = .exited, .code = linux.W.EXITSTATUS(word) };
    if (!linux.W.IFSIGNALED(word)) return null;
    const ending: Ending = if (by_plan) .killed_by_plan else if (is_hung) .hung else .killed;
    return .{ .ending = ending, .code = @intFromEnum(linux.W.TERMSIG(word)) };
}

fn peek(pid: linux.pid_t, at: usize) usize {
    var value: usize = 0;
    _ = linux.ptrace(linux.PTRACE.PEEKUSER, pid, at, @intFromPtr(&value), 0);
    return value;
}

fn poke(pid: linux.pid_t, at: usize, value: usize) void {
    _ = linux.ptrace(linux.PTRACE.POKEUSER, pid, at, value, 0);
}

fn goOn(pid: linux.pid_t, is_tracing: bool, signal: u32) void {
    const request: u32 = if (is_tracing) linux.PTRACE.SYSCALL else linux.PTRACE.CONT;
    _ = linux.ptrace(request, pid, 0, signal, 0);
}

/// One traced child on its way through the bracket.
const Trace = struct {
    pid: linux.pid_t,
    plan: Plan,
    is_tracing: bool = false,
    /// Between the entry of a call and its exit.
    is_inside: bool = false,
    /// How many calls of the bracket have begun.
    count: u32 = 0,
    /// What the call that is going on will be seen to return.
    answer: ?linux.E = null,
    call: ?linux.SYS = null,
    by_plan: bool = false,

    fn kill(trace: *Trace) void {
        trace.by_plan = true;
        _ = linux.kill(trace.pid, .KILL);
    }

    fn enter(trace: *Trace) void {
        const number = peek(trace.pid, register.orig_rax);
        if (number == @intFromEnum(linux.SYS.kill)) {
            trace.is_tracing = false;
            return;
        }
        const call: linux.SYS = @enumFromInt(number);
        const at = trace.count;
        trace.count += 1;
        trace.is_inside = true;
        if (list_len < list_max) {
            list[list_len] = call;
            list_len += 1;
        }
        trace.answer = trace.lacking(call);
        // A run that waits once more or less than the listed one has another call at this place.
        const is_it = at == trace.plan.at and (!trace.plan.isFailure() or canFail(call));
        if (is_it) trace.call = call;
        switch (trace.plan.deed) {
            .nothing, .kill_after => {},
            .kill_before => if (is_it) return trace.kill(),
            .fail => |errno| if (is_it) {
                trace.answer = errno;
            },
            .fail_from_here => |errno| if (trace.call == call) {
                trace.answer = errno;
            },
        }
        // A number that no call has: the kernel makes none.
        if (trace.answer != null) poke(trace.pid, register.orig_rax, std.math.maxInt(usize));
    }

    fn lacking(trace: *Trace, call: linux.SYS) ?linux.E {
        switch (trace.plan.lack) {
            .nothing => return null,
            .unnamed_files => {
                const flags: linux.O = @bitCast(@as(u32, @truncate(peek(trace.pid, register.rsi))));
                return if (call == .open and flags.TMPFILE) .OPNOTSUPP else null;
            },
            .exchange => {
                if (call != .renameat2) return null;
                return if (peek(trace.pid, register.r8) != 0) .INVAL else null;
            },
        }
    }

    fn leave(trace: *Trace) void {
        trace.is_inside = false;
        if (trace.answer) |errno| {
            const code: isize = @intFromEnum(errno);
            poke(trace.pid, register.rax, @bitCast(-code));
        }
        if (trace.plan.deed == .kill_after and trace.count == trace.plan.at + 1) trace.kill();
    }
};

/// Follows a child that calls `begin` and `end` to its own end.
pub fn follow(pid: linux.pid_t, plan: Plan) Outcome {
    watched = pid;
    is_hung = false;
    setAlarm(10);
    defer setAlarm(0);
    var trace: Trace = .{ .pid = pid, .plan = plan };
    while (true) {
        const word = waitOnce(pid) orelse continue;
        if (ended(word, trace.by_plan)) |outcome| {
            var result = outcome;
            result.call = trace.call;
            return result;
        }
        if (!linux.W.IFSTOPPED(word)) continue;
        const signal = word >> 8 & 0xff;
        if (signal == @intFromEnum(linux.SIG.STOP) and !trace.is_tracing and trace.count == 0) {
            const options = option.trace_sys_good | option.exit_kill;
            _ = linux.ptrace(linux.PTRACE.SETOPTIONS, pid, 0, options, 0);
            trace.is_tracing = true;
            goOn(pid, true, 0);
        } else if (signal == call_stop) {
            if (trace.is_inside) trace.leave() else trace.enter();
            if (!trace.by_plan) goOn(pid, trace.is_tracing, 0);
        } else goOn(pid, trace.is_tracing, signal);
    }
}
