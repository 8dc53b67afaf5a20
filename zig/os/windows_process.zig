//! Processes, threads, time and wake sequences, for Windows. What each function promises is said in
//! `os.zig`.

const std = @import("std");
const api = @import("windows_api.zig");
const common = @import("common.zig");
const owner = @import("windows_owner.zig");

/// No wait on an address reaches another process.
pub const look_ns_min = 50 * std.time.ns_per_us;

const of_address = 4; // GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS
const pin = 1; // GET_MODULE_HANDLE_EX_FLAG_PIN
const high_resolution = 2; // CREATE_WAITABLE_TIMER_HIGH_RESOLUTION
const all_access = 0x1f0003; // TIMER_ALL_ACCESS
const no_index = std.math.maxInt(u32); // FLS_OUT_OF_INDEXES

/// From 1601, where the system begins to count, to 1970.
const epoch_ns = 11_644_473_600 * std.time.ns_per_s;

var key: u32 = no_index;

pub fn prepareThreads(at_end: common.AtEnd) bool {
    var library: api.Handle = null;
    // The callback's code must be there when a thread ends.
    _ = api.GetModuleHandleExW(of_address | pin, &key, &library);
    key = api.FlsAlloc(at_end);
    return key != no_index;
}

pub fn threadWord() usize {
    return @intFromPtr(api.FlsGetValue(key));
}

pub fn setThreadWord(word: usize) void {
    _ = api.FlsSetValue(key, @ptrFromInt(word)); // any value but null calls the callback
}

/// Nothing forks.
pub fn watchForks(_: common.AtFork) void {}

pub fn random(target: []u8) void {
    var done: usize = 0;
    while (done < target.len) {
        const len: u32 = @intCast(@min(target.len - done, 1 << 20));
        if (api.SystemFunction036(target[done..].ptr, len) != 0) done += len;
    }
}

/// No process looks for the files of another one.
pub fn isOpenToUser() bool {
    return true;
}

/// There are no PID namespaces.
pub fn isLiving(_: u32) bool {
    return true;
}

pub const pid = currentProcess;
pub const threadId = currentThread;
pub const userId = owner.ofProcess;
pub const pidNamespace = common.noPidNamespace;
pub const bootId = common.noBootId;

fn currentProcess() u32 {
    return api.GetCurrentProcessId();
}

fn currentThread() u32 {
    return api.GetCurrentThreadId();
}

pub fn monotonicNs() u64 {
    var count: i64 = 0;
    var frequency: i64 = 1;
    _ = api.QueryPerformanceCounter(&count);
    _ = api.QueryPerformanceFrequency(&frequency);
    const wide = @as(u128, @intCast(count)) * std.time.ns_per_s;
    return @intCast(wide / @as(u64, @intCast(frequency)));
}

pub fn realtimeNs() u64 {
    var time: api.FileTime = undefined;
    api.GetSystemTimePreciseAsFileTime(&time);
    return (@as(u64, time.high) << 32 | time.low) *| 100 -| epoch_ns;
}

pub fn coarseRealtimeNs() u64 {
    return realtimeNs();
}

/// The plain sleep is rounded to ticks of up to 16 ms, so a timer is asked for that is not.
pub fn sleepNs(ns: u64) void {
    const time: i64 = -@as(i64, @intCast(@max(@min(ns, std.math.maxInt(i64)) / 100, 1)));
    const timer = api.CreateWaitableTimerExW(null, null, high_resolution, all_access);
    if (timer != null) {
        defer _ = api.CloseHandle(timer);
        if (api.SetWaitableTimer(timer, &time, 0, null, null, 0) != 0) {
            _ = api.WaitForSingleObject(timer, std.math.maxInt(u32));
            return;
        }
    }
    _ = api.NtDelayExecution(0, &time);
}
