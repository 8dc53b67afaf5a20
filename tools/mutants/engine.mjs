/** Known bugs of maps, stripes and locks, each of which the Zig tests must catch. */

/** What to replace in which file, and the tests (by a part of their names) that must notice. */
export const ENGINE_MUTANTS = [
  {
    name: "an entry has its end before next_end is lowered",
    edits: [
      {
        file: "map/put_fast.zig",
        from: "        if (expires != 0) ends.lower(stripe, expires);\n",
        to: "",
      },
      {
        file: "map/put_fast.zig",
        from: "        const word = atomics.load(&stripe.table);\n",
        to: "        if (expires != 0) ends.lower(stripe, expires);\n" +
          "        const word = atomics.load(&stripe.table);\n",
      },
    ],
    tests: "next_end has been lowered",
  },
  {
    name: "a recovery loses the ends of entries",
    file: "stripe/recovery.zig",
    from: "    const next_end = if (result.expiring == 0) 0 else result.next_end;\n",
    to: "    const next_end = if (result.expiring == 0) 0 else 0 *% result.next_end;\n",
    tests: "recovery keeps the ends",
  },
  {
    name: "a recovery removes what has just ended",
    file: "stripe/recovery.zig",
    from: "const over_ms = 10_000;",
    to: "const over_ms = 0;",
    tests: "recovery keeps the ends",
  },
  {
    name: "add does not replace an entry that has ended",
    file: "map/write.zig",
    from: "        .absent => !op.isThere(cursor),",
    to: "        .absent => !cursor.is_found,",
    tests: "conditions take an entry that has ended for none",
  },
  {
    name: "a frozen object of an entry that has ended is taken for unchanged",
    file: "map/read.zig",
    from: "        return expires > if (role == .call)",
    to: "        if (ending.target == null) return true;\n" +
      "        return expires > if (role == .call)",
    tests: "an entry is absent from its end on",
  },
  {
    name: "a reader decides by an end that it loaded before it read the clock",
    file: "map/read.zig",
    from: "                seen.meta.expires = probe.entry.expires();\n",
    to: "",
    tests: "a reader that a touch overtakes",
  },
  {
    name: "a snapshot goes on with the clock of a try before",
    file: "map/snapshot.zig",
    from: "    _ = map.takeNow();\n    atomics.loadFence();\n",
    to: "    _ = map.now();\n    atomics.loadFence();\n",
    tests: "a snapshot is of one instant, also where an end passes",
  },
  {
    name: "a full map refuses while entries that have ended take its space",
    file: "map/write.zig",
    from: "            expiry.pruneHere(&op);\n",
    to: "            {}\n",
    tests: "before there is no space",
  },
  {
    name: "a batch answers with a value that did not fit",
    file: "map/bulk.zig",
    from: "    if (meta.len > room.len) return null;\n",
    to: "    if (meta.len > room.len + 1000) return null;\n",
    tests: "batch",
  },
  {
    name: "a batch leaves out the first key of each group but the first",
    file: "map/bulk.zig",
    from: "        const size = @min(count - done, group_max);\n" +
      "        for (0..size) |i| group.add(map, i, try takeKey(keys, &at), .read);\n",
    to: "        const size = @min(count - done, group_max);\n" +
      "        if (done > 0) _ = try takeKey(keys, &at);\n" +
      "        for (0..size) |i| group.add(map, i, try takeKey(keys, &at), .read);\n",
    tests: "batch",
  },
  {
    name: "memory behind a value that was copied into it stays overwritten",
    file: "map/read_into.zig",
    from: "        defer @memcpy(rest, behind[0..rest_len]);\n",
    to: "",
    tests: "getInto",
  },
  {
    name: "a table is published before its slots are copied",
    file: "map/stripe_op.zig",
    from: "        atomics.storeZeros(new.slots, new.slotCount());\n",
    to: "        atomics.storeZeros(new.slots, new.slotCount());\n" +
      "        atomics.storeRelease(&op.stripe.table, word);\n",
    tests: "crash",
  },
  {
    name: "a set writer word is ignored by size",
    file: "map/read.zig",
    from: "        if (atomics.loadAcquire(&stripe.writer) == 0) {",
    to: "        if (true) {",
    tests: "crash",
  },
  {
    name: "a set writer word of the pool is ignored",
    file: "stripe/space.zig",
    from: "    const was_marked = atomics.load(&pool.writer) != 0;\n",
    to: "    const was_marked = atomics.load(&pool.writer) == 1;\n",
    tests: "crash",
  },
  {
    name: "a chunk is in its stripe's list before its header is written",
    file: "stripe/pool.zig",
    from: "    chunks.describe(view, offset, index + 1, units, dense);\n",
    to: "    atomics.storeRelease(&stripe.chunks, offset);\n" +
      "    chunks.describe(view, offset, index + 1, units, dense);\n",
    tests: "crash",
  },
  {
    name: "recovery moves one of the two counts only",
    file: "stripe/space.zig",
    from: "        atomics.storeRelease(&stripe.begin, count);\n",
    to: "",
    tests: "snapshot",
  },
  {
    name: "a class counts although its blocks were given out again",
    file: "map/iterate.zig",
    from: "    if (!listing.isValid(stripe)) {\n        gathered.discard(map, part.start);\n" +
      "        return false;\n    }\n",
    to: "",
    tests: "snapshot: it has each key once",
  },
  {
    name: "a second look does not compare the version",
    file: "map/read.zig",
    from: "        if (seen.meta.version != pair.version) return .changed;\n",
    to: "",
    tests: "starve: a value that came back",
  },
  {
    name: "a version counts that may be one which is just being written",
    file: "map/read.zig",
    from: "that of an entry which is still being written, and comes to the key's slot later.\n" +
      "        if (!isStill(stripe, generation)) continue;\n",
    to: "\n",
    tests: "starve: a version that is just being written",
  },
  {
    name: "a copy that others overtook is not looked after",
    file: "map/read.zig",
    from: "        if (!isStill(stripe, since)) {\n            switch (lookAgain(",
    to: "        if (!isStill(stripe, since) and pair.len == 0) {\n            switch (lookAgain(",
    tests: "starve: a value that came back",
  },
  {
    name: "a copy that others overtook starts again",
    file: "map/read.zig",
    from: "                .same => |seen_at| since = seen_at,\n",
    to: "                .same => |seen_at| {\n                    since = seen_at;\n" +
      "                    return .changed;\n                },\n",
    tests: "starve: what is written to other keys",
  },
  {
    name: "an iteration takes a key for whole that was overtaken",
    file: "map/iterate.zig",
    from: "            read.isStillThere(map, progress.stripe, key, pair);\n",
    to: "            pair.len < 1 << 31;\n",
    tests: "starve: a key that changes",
  },
  {
    name: "an iteration loses a key that was overtaken",
    file: "map/iterate.zig",
    from: "        is_complete = is_complete and is_whole;\n",
    to: "        is_complete = is_complete and (is_whole or pair.len < 1 << 31);\n",
    tests: "starve: a key that changes",
  },
  {
    name: "an iteration starts a class again in a smaller table without its beginning",
    file: "map/iterate.zig",
    from: "            if (reversed < from or reversed >= to) continue;\n",
    to: "            if (reversed >= to) continue;\n",
    tests: "starve: a walk by class",
  },
  {
    name: "an iteration goes on by another hash",
    file: "map/iterate.zig",
    from: "            progress.next = 0;\n            return .again;\n",
    to: "",
    tests: "starve: a stripe that changes its hash",
  },
  {
    name: "a snapshot keeps a large value that was replaced meanwhile",
    file: "map/snapshot.zig",
    from: "        if (copied != .whole) return false;\n",
    to: "        if (copied == .gone) return false;\n",
    tests: "starve: a value that came back",
  },
  {
    name: "a table is taken for the one that was there before",
    file: "stripe/table.zig",
    from: "    if (cached.word != word) return .retry;\n",
    to: "    if (cached.word == 0 and word != 0) return .retry;\n",
    tests: "map_test",
  },
  {
    name: "an insert does not take a tombstone before its empty slot",
    file: "stripe/table.zig",
    from: "        if (slot == Slot.tombstone) return .retry;\n",
    to: "        if (slot == Slot.tombstone) {}\n",
    tests: "table",
  },
  {
    name: "a copy in whole steps does not look where the segment ends",
    file: "stripe/entry.zig",
    from: "const fast_copy_overhead = @sizeOf(Header) + 8 + atomics.step_bytes;",
    to: "const fast_copy_overhead = 0;",
    tests: "map_test",
  },
  {
    name: "a new key takes the block kept back for replacing",
    file: "map/stripe_op.zig",
    from: "break :small try op.markDirtyOnError(op.space.alloc(bytes, key.len));",
    to: "break :small try op.markDirtyOnError(op.space.allocReplacing(bytes, key.len));",
    tests: "goes on replacing every value",
  },
  {
    name: "a new key is stored beside no block kept back",
    file: "map/put_fast.zig",
    from: "lookup == .miss and heap.hasSpare(stripe, bytes) and",
    to: "lookup == .miss and bytes > 0 and",
    tests: "goes on replacing every value",
  },
  {
    name: "a flood of colliding keys does not change the hash",
    file: "map/stripe_op.zig",
    from: "cursor.probe.isSuspicious() and !op.tableOf(cursor).sip",
    to: "cursor.probe.isSuspicious() and op.tableOf(cursor).sip",
    tests: "flood",
  },
  {
    name: "the lock word is read before the stripe's lock is taken",
    edits: [
      {
        file: "map/put_fast.zig",
        from: "    const attempt = stripe_lock.attempt(&stripe.mutex);\n",
        to: "    const seen = atomics.loadAcquire(&segment.header().lock_word);\n" +
          "    const attempt = stripe_lock.attempt(&stripe.mutex);\n",
      },
      {
        file: "map/put_fast.zig",
        from: "map.lock.admits(atomics.loadAcquire(&segment.header().lock_word))",
        to: "map.lock.admits(seen)",
      },
    ],
    tests: "lock storm",
  },
  {
    name: "the lock word is read before the stripe's lock is taken, the long way",
    file: "map/stripe_op.zig",
    from:
      "        try op.enter(&map.segment.deadline);\n        if (map.lock.admits(atomics.loadAcquire(" +
      "&map.segment.header().lock_word))) return;\n",
    to: "        const word = atomics.loadAcquire(&map.segment.header().lock_word);\n" +
      "        try op.enter(&map.segment.deadline);\n        if (map.lock.admits(word)) return;\n",
    tests: "lock storm",
  },
  {
    name: "held is stored before the pass",
    file: "lock/user_lock.zig",
    from: "lock.storeWord(.{ .state = .pending, .owed = owed, .serial = serial });",
    to: "lock.storeWord(.{ .state = .held, .owed = owed, .serial = serial });",
    tests: "lock storm",
  },
  {
    name: "who gives up in the pass stores free",
    file: "lock/user_lock.zig",
    from: "if (owed) .abandoned else .free;\n            lock.storeWord",
    to: ".free;\n            lock.storeWord",
    tests: "lock storm",
  },
  {
    name: "the range is dropped before the word is stored",
    file: "lock/user_lock.zig",
    from: "        if (lock.hold == .none) return;\n        if (lock.hold == .exclusive) {",
    to: "        if (lock.hold == .none) return;\n        if (lock.hold == .exclusive) {\n" +
      "            range_lock.unlock(lock.target.locks, .user);\n            os.sleepNs(5000);",
    tests: "lock storm",
  },
  {
    name: "a writer that notes a death does not look again",
    file: "map/stripe_op.zig",
    from: "            try map.lock.waitForHolder(word, &wait);\n",
    to: "            try map.lock.waitForHolder(word, &wait);\n" +
      "            if (atomics.load(&map.segment.header().lock_word) != word) " +
      "return op.enter(&map.segment.deadline);\n",
    tests: "lock storm",
  },
  {
    name: "a deadline is made anew for each stripe",
    file: "map/stripe_op.zig",
    from:
      "        var op: StripeOp = .of(map, index);\n        try op.enter(&map.segment.deadline);",
    to: "        var op: StripeOp = .of(map, index);\n" +
      "        map.segment.deadline.end_ns = 0;\n        try op.enter(&map.segment.deadline);",
    tests: "after one timeout",
  },
  {
    name: "a write begins its deadline again at each stripe",
    file: "map/stripe_op.zig",
    from: "        const map = op.map;\n        try op.enter(&map.segment.deadline);",
    to: "        const map = op.map;\n        map.segment.deadline.end_ns = 0;\n" +
      "        try op.enter(&map.segment.deadline);",
    tests: "after one timeout",
  },
  {
    name: "a mutex is waited for by the wall clock",
    file: "lock/stripe_lock.zig",
    from: "    const until = os.monotonicNs() + ns;\n" +
      "    return lock(mutex, @intFromEnum(linux.CLOCK.MONOTONIC), &.{",
    to: "    const until = os.realtimeNs() + ns;\n" +
      "    return lock(mutex, @intFromEnum(linux.CLOCK.REALTIME), &.{",
    tests: "no wait for a mutex looks at the wall clock",
  },
  {
    name: "a deadline begins before anything is busy",
    file: "map/map.zig",
    from: "        map.segment.deadline = .in(map.segment.timeout_ms);",
    to: "        map.segment.deadline = .in(map.segment.timeout_ms);\n" +
      "        _ = map.segment.deadline.left(1);",
    tests: "no clock is read where nothing is busy",
  },
  {
    name: "a check waits for each stripe before it looks at the next",
    file: "map/verify.zig",
    from: "        map.segment.deadline = .in(0);\n",
    to: "",
    tests: "after one timeout",
  },
  {
    name: "a dead owner's mutex is not made consistent",
    file: "map/stripe_op.zig",
    from: "        if (locked == .owner_died) op.lockHere().makeConsistent();\n",
    to: "",
    tests: "whose owner was killed",
  },
  {
    name: "a stripe with a kernel lock is entered without it",
    file: "lock/stripe_lock.zig",
    from: "if (try range_lock.tryLock(fault, range.fd, range.byte, .exclusive)) return .clean;",
    to: "if (range.fd >= 0) return .clean;",
    tests: "lock storm with kernel locks",
  },
  {
    name: "no waiter becomes first in line",
    file: "lock/user_lock.zig",
    from: "        if (!lock.is_head)\n            lock.is_head = try range_lock.tryLock(" +
      "target.fault, target.locks, .queue_head, mode);\n",
    to: "        _ = mode;\n",
    tests: "starves neither",
  },
  {
    name: "no waiter gives way to the first in line",
    file: "lock/user_lock.zig",
    from: "        if (now -| lock.yielding_since_ns < 2 * slice_ns) return true;\n",
    to: "",
    tests: "who is first in line",
  },
  {
    name: "who gives way gives way for ever",
    file: "lock/user_lock.zig",
    from: "        if (now -| lock.yielding_since_ns < 2 * slice_ns) return true;\n",
    to: "        if (now > 0) return true;\n",
    tests: "who is first in line",
  },
  {
    name: "a first in line that is stopped is waited for at every turn",
    file: "lock/user_lock.zig",
    from: "        lock.ignoring_until_ns = now + ignored_ns;\n",
    to: "",
    tests: "who is first in line",
  },
  {
    name: "a writer that fails while it waits keeps its place in line",
    file: "map/stripe_op.zig",
    from: "        defer map.lock.cancel();\n",
    to: "",
    tests: "leaves the line",
  },
  {
    name: "a write goes into a segment that was replaced while it waited",
    file: "map/stripe_op.zig",
    from: "            try map.segment.check(); // it may have been replaced meanwhile\n",
    to: "",
    tests: "is told when that is replaced",
  },
  {
    name: "a stripe's mutex is unlocked by the newest mapping",
    file: "map/stripe_op.zig",
    from: "return op.map.segment.lockAt(op.stripe, op.space.index);",
    to: "return op.map.segment.lockAt(\n" +
      "            op.map.segment.view.stripe(op.space.index),\n" +
      "            op.space.index,\n        );",
    tests: "what was mapped stays mapped",
  },
  {
    name: "a set's fast path takes a block behind what its copy of the view has mapped",
    file: "map/put_fast.zig",
    from: "heap.takeNow(view, view.stripe(index), bytes)",
    to: "heap.take(view, view.stripe(index), bytes)",
    tests: "what was mapped stays mapped",
  },
  {
    name: "a recovery goes on where it cannot reach a chunk",
    file: "stripe/pool.zig",
    from: "        const chunk = try checked(walk.view, walk.next);\n",
    to: "        const chunk = checked(walk.view, walk.next) catch return null;\n",
    tests: "a recovery that cannot reach a chunk",
  },
  {
    name: "a replace ignores the version",
    file: "abi/entry.zig",
    from: "if (version < 0) .present else .{\n",
    to: "if (version < 1e15) .present else .{\n",
    tests: "replace and delete ask",
  },
  {
    name: "a prefix is compared by whole words",
    file: "stripe/entry.zig",
    from: "        return atomics.load(&stored[whole]) & mask == atomics.lastWord(prefix);\n",
    to: "        return mask != 0;\n",
    tests: "a prefix of any length",
  },
];
