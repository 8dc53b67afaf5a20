//! The user's lock: one for a whole segment or region, held across many calls, by a process that
//! may die at any of them.
//!
//! The kernel decides who holds it: the range USER, dropped with its holder. What writers must know
//! without asking the kernel stands in one word of the header: free, pending, held or abandoned,
//! and a serial. A locker takes USER, stores *pending*, goes once through every stripe's lock, so
//! that every write that began before is over, and stores *held*. A writer reads the word under its
//! stripe's lock: with *pending* or *held* of another handle it lets the stripe go and waits, or,
//! when the kernel says that no handle holds USER, notes the death as *abandoned*.
//!
//! Waiters sleep on a wake sequence, a futex, in slices: a wake-up dies with the process that was
//! to give it. A waiter that has waited for long becomes the head of the queue (range QUEUE_HEAD),
//! and others yield to it, so that a process that locks again at once starves no other
//! (docs/design.md, The user's lock).

const std = @import("std");
const layout = @import("../layout.zig");
const atomics = @import("../atomics.zig");
const os = @import("../os/os.zig");
const range_lock = @import("range_lock.zig");
const status = @import("../status.zig");

const Error = status.Error;
const Fault = status.Fault;
const LockWord = layout.LockWord;

/// The longest sleep, and so the longest time a death goes unnoticed.
const slice_ns = 50 * std.time.ns_per_ms;
/// A waiter that has waited this long may become the head of the queue.
const patience_ns = 10 * std.time.ns_per_ms;
/// How long a handle does not yield to a head of the queue that it found stopped.
const ignored_ns = 10 * slice_ns;
/// How long even a locker that does not wait for the lock waits for writes that have begun.
const quiesce_ms_min = 10;
/// Over a user's file there is no wake sequence: the lock is asked for again after a quarter of the
/// time waited so far, within these bounds.
const poll_ns_min = 50 * std.time.ns_per_us;
const poll_ns_max = 5 * std.time.ns_per_ms;

/// One caller's wait for the lock, or for its end.
pub const Wait = struct {
    started_ns: u64,
    /// Of the call that waits.
    deadline: *os.Deadline,
    wake_seq: u32 = 0,
    head_wake_seq: u32 = 0,

    /// Reads the clock: the lock was met held.
    pub fn of(deadline: *os.Deadline) Wait {
        return .{ .started_ns = os.monotonicNs(), .deadline = deadline };
    }

    fn soFar(wait: *const Wait) u64 {
        return os.monotonicNs() -| wait.started_ns;
    }
};

/// What a lock is on.
pub const Target = struct {
    /// Null over a user's file, which has no words of ours: there are only the ranges.
    header: ?*layout.Header,
    /// The description that carries the ranges.
    locks: os.Fd,
    fault: *Fault,
    /// Whether that description was opened for reading only: then it carries no exclusive range.
    readonly: bool,
};

/// What a locker waits for where nothing is written under stripe locks: nothing. A region's lock is
/// advisory, and can be shared.
pub const NoWriters = struct {
    pub const allows_shared = true;

    pub fn quiesce(_: NoWriters, _: *os.Deadline) Error!void {}
};

/// The locks that this process holds. A caller that would wait for a lock which its own thread
/// holds in another realm finds that here: the wait could not end, and that realm's code, which
/// alone could tell, does not run meanwhile.
const Held = struct {
    var first: ?*UserLock = null;
    var is_busy: std.atomic.Value(bool) = .init(false);

    /// Threads are in here for some nanoseconds at a time.
    fn enter() void {
        while (is_busy.swap(true, .acquire)) std.atomic.spinLoopHint();
    }

    fn leave() void {
        is_busy.store(false, .release); // pairs with the exchange in `enter`
    }

    fn add(lock: *UserLock) void {
        enter();
        defer leave();
        lock.next_held = first;
        first = lock;
    }

    fn remove(lock: *UserLock) void {
        enter();
        defer leave();
        var link = &first;
        while (link.*) |held| : (link = &held.next_held) {
            if (held != lock) continue;
            link.* = held.next_held;
            return;
        }
        unreachable; // `take` has added it
    }

    /// Whether this thread holds the lock of the same segment or region in another realm, in a way
    /// that excludes `shared`.
    fn isInOtherRealm(wanted: *const UserLock, shared: bool) bool {
        const header = wanted.target.header orelse return false;
        const thread = os.threadId();
        enter();
        defer leave();
        var next = first;
        while (next) |held| : (next = held.next_held) {
            if (held.holding_thread != thread or held.realm == wanted.realm) continue;
            if (shared and held.hold == .shared) continue;
            if (held.target.header.?.id == header.id) return true;
        }
        return false;
    }
};

/// In the child of a fork, which holds no locks and has no other threads.
pub fn forgetHeld() void {
    Held.first = null;
    Held.is_busy.store(false, .monotonic);
}

/// One handle's side of the lock. One open file description is one owner, so a handle holds it once
/// at most.
pub const UserLock = struct {
    target: Target,
    hold: enum { none, shared, exclusive },
    /// The serial of the word this handle stored, while it holds the lock exclusively.
    serial: u61,
    /// Whether this handle has the range QUEUE_HEAD.
    is_head: bool,
    /// Since when the lock has been free while another handle was the head of the queue, and which
    /// turn of the queue that was: the head may be stopped. 0: it has not.
    yielding_since_ns: u64,
    yielding_at: u32,
    /// Until when this handle does not yield, because the head of the queue did not go; or 0.
    ignoring_until_ns: u64,
    /// The realm that opened the handle, 0 for none (`isolate_end.zig`).
    realm: u32,
    /// While it is held, and not over a user's file: the thread that took it, and the next one in
    /// `Held`.
    holding_thread: u32,
    next_held: ?*UserLock,

    pub fn init(lock: *UserLock, target: Target) void {
        lock.* = .{
            .target = target,
            .hold = .none,
            .serial = 0,
            .is_head = false,
            .yielding_since_ns = 0,
            .yielding_at = 0,
            .ignoring_until_ns = 0,
            .realm = 0,
            .holding_thread = 0,
            .next_held = null,
        };
    }

    /// Notes that this handle holds the lock, whose range it has.
    pub fn take(lock: *UserLock, hold: @FieldType(UserLock, "hold")) void {
        std.debug.assert(lock.hold == .none and hold != .none);
        lock.hold = hold;
        if (lock.target.header != null) Held.add(lock);
    }

    fn letGo(lock: *UserLock) void {
        std.debug.assert(lock.hold != .none);
        if (lock.target.header != null) Held.remove(lock);
        lock.hold = .none;
    }

    /// Releases what is held and stops waiting. Call before the ranges' description closes.
    pub fn close(lock: *UserLock) void {
        lock.release(false);
        lock.cancel();
    }

    /// As `close` for a holder that did not come to its release: the next one finds it `recovered`.
    pub fn abandon(lock: *UserLock) void {
        lock.cancel();
        if (lock.hold == .none) return;
        lock.letGo();
        range_lock.unlock(lock.target.locks, .user);
        lock.wake();
    }

    /// Waits for the lock and takes it. `writers` has `allows_shared` and `quiesce(deadline)`,
    /// which waits until every write that began before is over. True: the last holder died holding
    /// the lock. `Locked`: this handle has it, or another realm of this thread.
    pub fn acquire(lock: *UserLock, shared: bool, timeout_ms: f64, writers: anytype) Error!bool {
        if (lock.hold != .none) return error.Locked;
        errdefer lock.cancel();
        var deadline: os.Deadline = .in(timeout_ms);
        if (try lock.attempt(shared, 0, &deadline, writers)) |recovered| return recovered;
        var wait: Wait = .of(&deadline);
        while (true) {
            lock.listen(&wait);
            const got = try lock.attempt(shared, wait.soFar(), &deadline, writers);
            if (got) |recovered| return recovered;
            if (Held.isInOtherRealm(lock, shared)) return error.Locked;
            try lock.sleep(&wait);
        }
    }

    /// One attempt. Null: another handle has the lock, or goes first.
    pub fn attempt(
        lock: *UserLock,
        shared: bool,
        waited_ns: u64,
        deadline: *const os.Deadline,
        writers: anytype,
    ) Error!?bool {
        const target = &lock.target;
        if (target.readonly and !shared) return error.ReadOnly;
        if (shared and !@TypeOf(writers).allows_shared) return error.InvalidArgument;
        if (lock.hold != .none) return null;
        if (waited_ns >= patience_ns) try lock.becomeHead();
        if (!lock.is_head and try lock.mustYield()) return null;
        const mode: range_lock.Mode = if (shared) .shared else .exclusive;
        if (!try range_lock.tryLock(target.fault, target.locks, .user, mode)) return null;
        lock.yielding_since_ns = 0;
        lock.leaveHead();
        const recovered = if (shared) lock.isOwed() else try lock.grant(deadline, writers);
        if (shared) lock.holding_thread = os.threadId();
        lock.take(if (shared) .shared else .exclusive);
        return recovered;
    }

    fn word(lock: *const UserLock) LockWord {
        const header = lock.target.header orelse
            return .{ .state = .free, .owed = false, .serial = 0 };
        return @bitCast(atomics.loadAcquire(&header.lock_word));
    }

    /// Whether the last holder died before it released.
    fn isOwed(lock: *const UserLock) bool {
        const found = lock.word();
        return switch (found.state) {
            .free => false,
            .pending => found.owed,
            .held, .abandoned => true,
        };
    }

    /// With USER held: stores *pending*, and waits until every write that did not see it is over. A
    /// crash in here leaves *pending* with what is owed, which the next locker or writer resolves.
    fn grant(lock: *UserLock, deadline: *const os.Deadline, writers: anytype) Error!bool {
        const header = lock.target.header orelse return false;
        const owed = lock.isOwed();
        const serial = lock.word().serial +% 1;
        // Pairs with the load in `StripeOp.lockToWrite`, by way of each stripe's lock: a writer
        // that takes one after `quiesce` did sees this word, and one that had it before is waited
        // for.
        lock.storeWord(.{ .state = .pending, .owed = owed, .serial = serial });
        atomics.store(&header.holder_pid, os.pid());
        lock.holding_thread = os.threadId();
        atomics.store(&header.holder_thread, lock.holding_thread);
        var patience = deadline.atLeast(quiesce_ms_min);
        writers.quiesce(&patience) catch |err| {
            const state: @FieldType(LockWord, "state") = if (owed) .abandoned else .free;
            lock.storeWord(.{ .state = state, .owed = false, .serial = serial });
            range_lock.unlock(lock.target.locks, .user);
            lock.wake();
            return err;
        };
        // Only now: *held* without a holder means that a holder died, and there was none yet.
        lock.storeWord(.{ .state = .held, .owed = false, .serial = serial });
        lock.serial = serial;
        return owed;
    }

    fn storeWord(lock: *UserLock, next: LockWord) void {
        atomics.storeRelease(&lock.target.header.?.lock_word, @bitCast(next));
    }

    /// Gives the lock back; nothing if it is not held. `stays_owed`: this holder was granted the
    /// lock as `recovered` and did not make good what the dead one left, so the next holder
    /// finds it `recovered`, too.
    pub fn release(lock: *UserLock, stays_owed: bool) void {
        if (lock.hold == .none) return;
        if (lock.hold == .exclusive) {
            if (lock.target.header) |header| {
                const held: LockWord = .{ .state = .held, .owed = false, .serial = lock.serial };
                var next = held;
                next.state = if (stays_owed) .abandoned else .free;
                // The word before the range: without a holder, *held* would look like a death. A
                // crash in between leaves *free* and no holder, which is what release means.
                _ = atomics.compareAndSwap(&header.lock_word, @bitCast(held), @bitCast(next));
            }
        }
        lock.letGo();
        range_lock.unlock(lock.target.locks, .user);
        lock.wake();
    }

    /// Whether any handle holds the lock.
    pub fn isHeld(lock: *UserLock) Error!bool {
        if (lock.hold != .none) return true;
        return range_lock.isHeld(lock.target.fault, lock.target.locks, .user);
    }

    /// Whether a writer that read `bits` under its stripe's lock may write.
    pub inline fn admits(lock: *const UserLock, bits: u64) bool {
        const found: LockWord = @bitCast(bits);
        if (found.state == .free or found.state == .abandoned) return true;
        return lock.hold == .exclusive and found.serial == lock.serial;
    }

    /// Waits for a while because `bits` forbade writing; the writer then looks again, from its
    /// stripe's lock. The writer holds no stripe now, called `listen` before it took one, and calls
    /// `cancel` when it waits no more. `Locked`: another realm of this thread has
    /// the lock.
    pub fn waitForHolder(lock: *UserLock, bits: u64, wait: *Wait) Error!void {
        if (!try range_lock.isHeld(lock.target.fault, lock.target.locks, .user)) {
            const found: LockWord = @bitCast(bits);
            var next = found;
            next.owed = false;
            next.state = if (found.state == .pending and !found.owed) .free else .abandoned;
            // Exactly that word: by now another locker may be on the way to holding the lock.
            const lock_word = &lock.target.header.?.lock_word;
            if (atomics.compareAndSwap(lock_word, bits, @bitCast(next))) lock.wake();
            return;
        }
        if (Held.isInOtherRealm(lock, false)) return error.Locked;
        if (wait.soFar() >= patience_ns) try lock.becomeHead();
        try lock.sleep(wait);
    }

    /// Reads the wake sequences: every release from now on ends the next sleep.
    pub fn listen(lock: *const UserLock, wait: *Wait) void {
        const header = lock.target.header orelse return;
        wait.wake_seq = os.wakeSeq(&header.wake_seq);
        wait.head_wake_seq = os.wakeSeq(&header.head_wake_seq);
    }

    /// Where a task of an event loop sleeps after its next attempt fails: a wake sequence, and what
    /// it reads now. Null: there is none.
    pub fn wakeSeqToAwait(lock: *const UserLock) ?struct { wake_seq: *const u64, count: u32 } {
        if (!os.has_shared_futex) return null; // only the handle's own thread may look at it
        const header = lock.target.header orelse return null;
        const others_first = !lock.is_head and atomics.load(&header.has_head) != 0 and
            !lock.ignoresHead();
        const wake_seq = if (others_first) &header.head_wake_seq else &header.wake_seq;
        return .{ .wake_seq = wake_seq, .count = os.wakeSeq(wake_seq) };
    }

    fn sleep(lock: *UserLock, wait: *const Wait) Error!void {
        const left = wait.deadline.left(slice_ns);
        if (left == 0) {
            lock.noteHolder();
            return error.Timeout;
        }
        const waited = wait.soFar();
        const header = lock.target.header orelse
            return os.sleepNs(@min(left, std.math.clamp(waited / 4, poll_ns_min, poll_ns_max)));
        if (lock.is_head) return os.sleepOn(&header.wake_seq, wait.wake_seq, left);
        const most = if (waited < patience_ns) @min(left, patience_ns - waited) else left;
        // Another handle is the head of the queue, or was, and died: then no release wakes us.
        const behind = waited >= patience_ns or atomics.load(&header.has_head) != 0;
        if (behind and !lock.ignoresHead())
            return os.sleepOn(&header.head_wake_seq, wait.head_wake_seq, most);
        os.sleepOn(&header.wake_seq, wait.wake_seq, most);
    }

    /// Names the holder in the fault record, if one is known.
    pub fn noteHolder(lock: *UserLock) void {
        const header = lock.target.header orelse return;
        const state = lock.word().state;
        if (state == .free or state == .abandoned) return;
        lock.target.fault.holder_pid = @floatFromInt(atomics.load(&header.holder_pid));
    }

    fn wake(lock: *UserLock) void {
        const header = lock.target.header orelse return;
        atomics.increment(&header.wake_seq);
        os.wakeAll(&header.wake_seq);
    }

    /// Becomes the head of the queue, unless another handle is.
    fn becomeHead(lock: *UserLock) Error!void {
        const target = &lock.target;
        // A description for reading only carries no exclusive range; readers go together.
        const mode: range_lock.Mode = if (target.readonly) .shared else .exclusive;
        if (!lock.is_head)
            lock.is_head = try range_lock.tryLock(target.fault, target.locks, .queue_head, mode);
        const header = target.header orelse return;
        // Again every time: a handle that found the hint stale may have cleared it since.
        if (lock.is_head) atomics.store(&header.has_head, 1);
    }

    fn leaveHead(lock: *UserLock) void {
        if (!lock.is_head) return;
        lock.is_head = false;
        if (lock.target.header) |header| atomics.store(&header.has_head, 0);
        range_lock.unlock(lock.target.locks, .queue_head);
        const header = lock.target.header orelse return;
        atomics.increment(&header.head_wake_seq);
        os.wakeAll(&header.head_wake_seq);
    }

    /// Stops waiting. Handles that yielded sleep on the wake sequence, and the lock may be free.
    pub fn cancel(lock: *UserLock) void {
        if (!lock.is_head) return;
        lock.leaveHead();
        lock.wake();
    }

    /// Whether another handle is the head of the queue. Not for ever: a head that does not take a
    /// free lock for two slices is stopped, and must not cost all others that much at every turn.
    fn mustYield(lock: *UserLock) Error!bool {
        const target = &lock.target;
        var turn: u32 = 0;
        if (target.header) |header| {
            if (atomics.load(&header.has_head) == 0) return false;
            turn = os.wakeSeq(&header.head_wake_seq);
        }
        const has_head = try range_lock.isHeld(target.fault, target.locks, .queue_head);
        if (!has_head or lock.yielding_at != turn) {
            lock.yielding_at = turn;
            lock.yielding_since_ns = 0;
            lock.ignoring_until_ns = 0;
        }
        if (!has_head or lock.ignoresHead()) return false;
        if (try range_lock.isHeld(target.fault, target.locks, .user)) {
            lock.yielding_since_ns = 0;
            return true;
        }
        const now = os.monotonicNs();
        if (lock.yielding_since_ns == 0) lock.yielding_since_ns = now;
        if (now -| lock.yielding_since_ns < 2 * slice_ns) return true;
        lock.yielding_since_ns = 0;
        lock.ignoring_until_ns = now + ignored_ns;
        return false;
    }

    fn ignoresHead(lock: *const UserLock) bool {
        return lock.ignoring_until_ns != 0 and os.monotonicNs() < lock.ignoring_until_ns;
    }
};
