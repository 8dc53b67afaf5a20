//! The user's lock: one for a whole segment or region, held across many calls, by a process that
//! may die at any of them.
//!
//! Who holds it is the kernel's to say: the range USER, dropped with its holder. What writers must
//! know without asking the kernel stands in one word of the header: free, pending, held or
//! abandoned, and a serial. A locker takes USER, stores *pending*, goes once through every stripe's
//! lock, so that no write that began before is still to come, and stores *held*. A writer reads the
//! word under its stripe's lock: with *pending* or *held* of somebody else it lets the stripe go
//! and waits, or, when the kernel says that nobody holds USER, notes the death as *abandoned*.
//!
//! Those who wait sleep on a bell, a futex, in slices: a wake-up may die with whoever was to give
//! it. Whoever has waited for long becomes first in line (range NEXT), and others give way, so that
//! a process that locks again at once starves nobody (docs/design.md, The user's lock).

const std = @import("std");
const layout = @import("../layout.zig");
const crash = @import("../atomics.zig");
const os = @import("../os/os.zig");
const range_lock = @import("range_lock.zig");
const status = @import("../status.zig");

const Error = status.Error;
const Fault = status.Fault;
const LockWord = layout.LockWord;

/// The longest sleep, and so the longest time a death goes unnoticed.
const slice_ns = 50 * std.time.ns_per_ms;
/// Who has waited this long may become first in line.
const patience_ns = 10 * std.time.ns_per_ms;
/// How long nobody gives way to a first in line that was found stopped, before another chance.
const ignored_ns = 10 * slice_ns;
/// How long even a locker that does not wait for the lock waits for writes that have begun.
const pass_ms_min = 10;
/// Over a user's file there is no bell: the lock is asked for again after a quarter of the time
/// waited so far, within these bounds.
const poll_ns_min = 50 * std.time.ns_per_us;
const poll_ns_max = 5 * std.time.ns_per_ms;

/// One caller's wait for the lock, or for its end.
pub const Wait = struct {
    started_ns: u64,
    deadline: os.Deadline,
    bell: u32 = 0,
    next_bell: u32 = 0,

    pub fn of(timeout_ms: f64) Wait {
        return .{ .started_ns = os.monotonicNs(), .deadline = .in(timeout_ms) };
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
    /// Goes once through every place where a write may be going on, each for at most `timeout_ms`.
    pass: ?*const fn (lock: *UserLock, timeout_ms: f64) Error!void = null,
};

/// One handle's side of the lock. One open file description is one owner, so a handle holds it once
/// at most.
pub const UserLock = struct {
    target: Target,
    hold: enum { none, shared, exclusive },
    /// The serial of the word this handle stored, while it holds the lock exclusively.
    serial: u61,
    /// Whether this handle has the range NEXT.
    is_first: bool,
    /// Since when the lock has been free while somebody else was first in line, and which turn of
    /// the line that was: its owner may be stopped. 0: it has not.
    yielding_since_ns: u64,
    yielding_at: u32,
    /// Until when this handle gives way to nobody, because the first in line did not go; or 0.
    ignoring_until_ns: u64,

    pub fn init(lock: *UserLock, target: Target) void {
        lock.* = .{
            .target = target,
            .hold = .none,
            .serial = 0,
            .is_first = false,
            .yielding_since_ns = 0,
            .yielding_at = 0,
            .ignoring_until_ns = 0,
        };
    }

    /// Releases what is held and stops waiting. Call before the ranges' description closes.
    pub fn close(lock: *UserLock) void {
        lock.release(false);
        lock.cancel();
    }

    /// As `close` for a holder that did not come to its release: the next one is told.
    pub fn abandon(lock: *UserLock) void {
        lock.cancel();
        if (lock.hold == .none) return;
        lock.hold = .none;
        range_lock.unlock(lock.target.locks, .user);
        lock.ring();
    }

    /// Waits for the lock and takes it. True: the last holder died holding it. `Locked`: this
    /// handle has it.
    pub fn acquire(lock: *UserLock, shared: bool, timeout_ms: f64) Error!bool {
        if (lock.hold != .none) return error.Locked;
        errdefer lock.cancel();
        if (try lock.attempt(shared, 0, timeout_ms)) |recovered| return recovered;
        var wait: Wait = .of(timeout_ms);
        while (true) {
            lock.listen(&wait);
            const left_ms = wait.deadline.leftMs();
            if (try lock.attempt(shared, wait.soFar(), left_ms)) |recovered| return recovered;
            try lock.sleep(&wait);
        }
    }

    /// One attempt. Null: somebody has it, or goes first.
    pub fn attempt(lock: *UserLock, shared: bool, waited_ns: u64, timeout_ms: f64) Error!?bool {
        const target = &lock.target;
        if (target.readonly and !shared) return error.ReadOnly;
        // Writers look at the word alone, which only an exclusive holder sets.
        if (shared and target.pass != null) return error.InvalidArgument;
        if (lock.hold != .none) return null;
        if (waited_ns >= patience_ns) try lock.joinLine();
        if (!lock.is_first and try lock.mustGiveWay()) return null;
        const mode: range_lock.Mode = if (shared) .shared else .exclusive;
        if (!try range_lock.tryLock(target.fault, target.locks, .user, mode)) return null;
        lock.yielding_since_ns = 0;
        lock.leaveLine();
        const recovered = if (shared) lock.isOwed() else try lock.grant(timeout_ms);
        lock.hold = if (shared) .shared else .exclusive;
        return recovered;
    }

    fn word(lock: *const UserLock) LockWord {
        const header = lock.target.header orelse
            return .{ .state = .free, .owed = false, .serial = 0 };
        return @bitCast(crash.acquire(&header.lock_word));
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

    /// With USER held: makes it known, and waits until every write that did not know is over. A
    /// crash in here leaves *pending* with what is owed, which the next locker or writer settles.
    fn grant(lock: *UserLock, timeout_ms: f64) Error!bool {
        const header = lock.target.header orelse return false;
        const owed = lock.isOwed();
        const serial = lock.word().serial +% 1;
        // Pairs with the load in `Operation.lockToWrite`, by way of each stripe's lock: who takes
        // one after our pass sees this, who had it before is waited for.
        lock.publish(.{ .state = .pending, .owed = owed, .serial = serial });
        crash.store(&header.holder_pid, os.pid());
        crash.store(&header.holder_thread, os.threadId());
        crash.store(&header.holder_since_ms, os.realtimeNs() / std.time.ns_per_ms);
        if (lock.target.pass) |pass| {
            pass(lock, @max(timeout_ms, pass_ms_min)) catch |err| {
                const state: @FieldType(LockWord, "state") = if (owed) .abandoned else .free;
                lock.publish(.{ .state = state, .owed = false, .serial = serial });
                range_lock.unlock(lock.target.locks, .user);
                lock.ring();
                return err;
            };
        }
        // Only now: *held* without a holder means that somebody had it, and nobody has yet.
        lock.publish(.{ .state = .held, .owed = false, .serial = serial });
        lock.serial = serial;
        return owed;
    }

    fn publish(lock: *UserLock, next: LockWord) void {
        crash.publish(&lock.target.header.?.lock_word, @bitCast(next));
    }

    /// Gives the lock back; nothing if it is not held. `keep`: what this holder was told of the one
    /// before, the next is told again.
    pub fn release(lock: *UserLock, keep: bool) void {
        if (lock.hold == .none) return;
        if (lock.hold == .exclusive) {
            if (lock.target.header) |header| {
                const held: LockWord = .{ .state = .held, .owed = false, .serial = lock.serial };
                var next = held;
                next.state = if (keep) .abandoned else .free;
                // The word before the range: without a holder, *held* would look like a death. A
                // crash in between leaves *free* and no holder, which is what release means.
                _ = crash.replace(&header.lock_word, @bitCast(held), @bitCast(next));
            }
        }
        lock.hold = .none;
        range_lock.unlock(lock.target.locks, .user);
        lock.ring();
    }

    /// Whether anybody holds the lock.
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
    /// stripe's lock. Assumes that it holds none now, called `listen` before it took one, and calls
    /// `cancel` when it waits no more.
    pub fn giveWay(lock: *UserLock, bits: u64, wait: *Wait) Error!void {
        if (!try range_lock.isHeld(lock.target.fault, lock.target.locks, .user)) {
            const found: LockWord = @bitCast(bits);
            var next = found;
            next.owed = false;
            next.state = if (found.state == .pending and !found.owed) .free else .abandoned;
            // Exactly that word: by now somebody else may be on the way to holding the lock.
            if (crash.replace(&lock.target.header.?.lock_word, bits, @bitCast(next))) lock.ring();
            return;
        }
        if (wait.soFar() >= patience_ns) try lock.joinLine();
        try lock.sleep(wait);
    }

    /// Reads the bells: whatever rings from now on ends the next sleep.
    pub fn listen(lock: *const UserLock, wait: *Wait) void {
        const header = lock.target.header orelse return;
        wait.bell = os.bellCount(&header.bell);
        wait.next_bell = os.bellCount(&header.next_bell);
    }

    /// Where a task of an event loop sleeps after its next attempt fails: a bell, and what it reads
    /// now. Null: there is none.
    pub fn bellToHear(lock: *const UserLock) ?struct { bell: *const u64, count: u32 } {
        if (!os.has_shared_bells) return null; // only the handle's own thread may look at it
        const header = lock.target.header orelse return null;
        const others_first = !lock.is_first and crash.load(&header.want) != 0 and
            !lock.ignoresFirst();
        const bell = if (others_first) &header.next_bell else &header.bell;
        return .{ .bell = bell, .count = os.bellCount(bell) };
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
        if (lock.is_first) return os.sleepOn(&header.bell, wait.bell, left);
        const most = if (waited < patience_ns) @min(left, patience_ns - waited) else left;
        // Somebody else is first in line, or was, and died: then nobody rings.
        const behind = waited >= patience_ns or crash.load(&header.want) != 0;
        if (behind and !lock.ignoresFirst())
            return os.sleepOn(&header.next_bell, wait.next_bell, most);
        os.sleepOn(&header.bell, wait.bell, most);
    }

    /// Names the holder in the fault record, if one is known.
    pub fn noteHolder(lock: *UserLock) void {
        const header = lock.target.header orelse return;
        const state = lock.word().state;
        if (state == .free or state == .abandoned) return;
        lock.target.fault.holder_pid = @floatFromInt(crash.load(&header.holder_pid));
    }

    fn ring(lock: *UserLock) void {
        const header = lock.target.header orelse return;
        crash.bump(&header.bell);
        os.wakeAll(&header.bell);
    }

    /// Becomes first in line, unless somebody is.
    fn joinLine(lock: *UserLock) Error!void {
        const target = &lock.target;
        // A description for reading only carries no exclusive range; those who read go together.
        const mode: range_lock.Mode = if (target.readonly) .shared else .exclusive;
        if (!lock.is_first)
            lock.is_first = try range_lock.tryLock(target.fault, target.locks, .next, mode);
        const header = target.header orelse return;
        // Again every time: who found the hint stale may have cleared it since.
        if (lock.is_first) crash.store(&header.want, 1);
    }

    fn leaveLine(lock: *UserLock) void {
        if (!lock.is_first) return;
        lock.is_first = false;
        if (lock.target.header) |header| crash.store(&header.want, 0);
        range_lock.unlock(lock.target.locks, .next);
        const header = lock.target.header orelse return;
        crash.bump(&header.next_bell);
        os.wakeAll(&header.next_bell);
    }

    /// Stops waiting. Those who gave way sleep on the first bell, and the lock may be free.
    pub fn cancel(lock: *UserLock) void {
        if (!lock.is_first) return;
        lock.leaveLine();
        lock.ring();
    }

    /// Whether somebody else is first in line. Not for ever: an owner of NEXT that does not take a
    /// free lock for two slices is stopped, and must not cost everybody that much at every turn.
    fn mustGiveWay(lock: *UserLock) Error!bool {
        const target = &lock.target;
        var turn: u32 = 0;
        if (target.header) |header| {
            if (crash.load(&header.want) == 0) return false;
            turn = os.bellCount(&header.next_bell);
        }
        const has_first = try range_lock.isHeld(target.fault, target.locks, .next);
        if (!has_first or lock.yielding_at != turn) {
            lock.yielding_at = turn;
            lock.yielding_since_ns = 0;
            lock.ignoring_until_ns = 0;
        }
        if (!has_first or lock.ignoresFirst()) return false;
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

    fn ignoresFirst(lock: *const UserLock) bool {
        return lock.ignoring_until_ns != 0 and os.monotonicNs() < lock.ignoring_until_ns;
    }
};
