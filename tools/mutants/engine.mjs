/** Known bugs of the engine, each of which the Zig tests must catch. */

/** What to replace in which file, and the tests (by a part of their names) that must notice. */
export const ENGINE_MUTANTS = [
  {
    name: "a table is published before its slots are copied",
    file: "operation.zig",
    from: "        atomics.storeZeros(new.slots, new.slotCount());\n",
    to: "        atomics.storeZeros(new.slots, new.slotCount());\n" +
      "        atomics.storeRelease(&op.stripe.table, word);\n",
    tests: "crash",
  },
  {
    name: "a set writer word is ignored by size",
    file: "map.zig",
    from: "            if (atomics.loadAcquire(&stripe.writer) == 0) {",
    to: "            if (true) {",
    tests: "crash",
  },
  {
    name: "a set writer word of the pool is ignored",
    file: "space.zig",
    from: "    if (atomics.load(&pool.writer) != 0) try rebuildPool(segment, pool);\n",
    to: "",
    tests: "crash",
  },
  {
    name: "a chunk is in its stripe's list before its header is written",
    file: "pool.zig",
    from: "    const chunk = view.chunk(offset);\n    atomics.store(&chunk.extent, @bitCast(" +
      "Extent{ .owner = index + 1",
    to:
      "    const chunk = view.chunk(offset);\n    atomics.storeRelease(&stripe.chunks, offset);\n" +
      "    atomics.store(&chunk.extent, @bitCast(Extent{ .owner = index + 1",
    tests: "crash",
  },
  {
    name: "recovery moves one of the two counts only",
    file: "operation.zig",
    from: "        atomics.storeRelease(&op.stripe.begin, count);\n",
    to: "",
    tests: "snapshot",
  },
  {
    name: "a stripe is iterated over while its table is replaced",
    file: "gather.zig",
    from: "        if (atomics.load(&stripe.table) != table) return false;",
    to: "        if (atomics.load(&stripe.table) == 2 and table == 1) return false;",
    tests: "snapshot",
  },
  {
    name: "a table is taken for the one that was there before",
    file: "table.zig",
    from: "    if (cached.word != word) return .retry;\n",
    to: "    if (cached.word == 0 and word != 0) return .retry;\n",
    tests: "map_test",
  },
  {
    name: "a copy in whole steps does not look where the segment ends",
    file: "table.zig",
    from: "const behind_bytes = @sizeOf(Entry) + 8 + atomics.step_bytes;",
    to: "const behind_bytes = 0;",
    tests: "map_test",
  },
  {
    name: "a new key takes the block kept back for replacing",
    file: "operation.zig",
    from: "if (op.found) op.space.allocReplacing(bytes) else op.space.alloc(bytes);",
    to: "op.space.allocReplacing(bytes);",
    tests: "goes on replacing every value",
  },
  {
    name: "a new key is stored beside no block kept back",
    file: "put.zig",
    from: "lookup == .miss and heap.hasSpare(stripe, bytes) and",
    to: "lookup == .miss and bytes > 0 and",
    tests: "goes on replacing every value",
  },
  {
    name: "a flood of colliding keys does not change the hash",
    file: "operation.zig",
    from: "op.probe.suspicious() and !op.tableHere().sip",
    to: "op.probe.suspicious() and op.tableHere().sip",
    tests: "flood",
  },
  {
    name: "the lock word is read before the stripe's lock is taken",
    edits: [
      {
        file: "put.zig",
        from: "    const attempt = stripe_lock.attempt(&stripe.mutex);\n",
        to: "    const seen = atomics.loadAcquire(&segment.header().lock_word);\n" +
          "    const attempt = stripe_lock.attempt(&stripe.mutex);\n",
      },
      {
        file: "put.zig",
        from: "map.lock.admits(atomics.loadAcquire(&segment.header().lock_word))",
        to: "map.lock.admits(seen)",
      },
    ],
    tests: "lock storm",
  },
  {
    name: "the lock word is read before the stripe's lock is taken, the long way",
    file: "operation.zig",
    from:
      "        try op.enter(map.segment.timeout_ms);\n        if (map.lock.admits(atomics.loadAcquire(" +
      "&map.segment.header().lock_word))) return;\n",
    to: "        const word = atomics.loadAcquire(&map.segment.header().lock_word);\n" +
      "        try op.enter(map.segment.timeout_ms);\n        if (map.lock.admits(word)) return;\n",
    tests: "lock storm",
  },
  {
    name: "held is stored before the pass",
    file: "user_lock.zig",
    from: "lock.publish(.{ .state = .pending, .owed = owed, .serial = serial });",
    to: "lock.publish(.{ .state = .held, .owed = owed, .serial = serial });",
    tests: "lock storm",
  },
  {
    name: "who gives up in the pass stores free",
    file: "user_lock.zig",
    from: "if (owed) .abandoned else .free;\n                lock.publish",
    to: ".free;\n                lock.publish",
    tests: "lock storm",
  },
  {
    name: "the range is dropped before the word is stored",
    file: "user_lock.zig",
    from: "        if (lock.hold == .none) return;\n        if (lock.hold == .exclusive) {",
    to: "        if (lock.hold == .none) return;\n        if (lock.hold == .exclusive) {\n" +
      "            range_lock.unlock(lock.target.locks, .user);\n            os.sleepNs(5000);",
    tests: "lock storm",
  },
  {
    name: "a writer that notes a death does not look again",
    file: "operation.zig",
    from: "            try map.lock.waitForHolder(word, &wait);\n",
    to: "            try map.lock.waitForHolder(word, &wait);\n" +
      "            if (atomics.load(&map.segment.header().lock_word) != word) " +
      "return op.enter(map.segment.timeout_ms);\n",
    tests: "lock storm",
  },
  {
    name: "a dead owner's mutex is not made consistent",
    file: "operation.zig",
    from: "        if (locked == .owner_died) entrance.makeConsistent();\n",
    to: "",
    tests: "whose owner was killed",
  },
  {
    name: "a stripe with a kernel lock is entered without it",
    file: "stripe_lock.zig",
    from: "if (try range_lock.tryLock(fault, range.fd, range.byte, .exclusive)) return .clean;",
    to: "if (range.fd >= 0) return .clean;",
    tests: "lock storm with kernel locks",
  },
  {
    name: "nobody becomes first in line",
    file: "user_lock.zig",
    from: "        if (!lock.is_head)\n            lock.is_head = try range_lock.tryLock(" +
      "target.fault, target.locks, .queue_head, mode);\n",
    to: "        _ = mode;\n",
    tests: "starves neither",
  },
  {
    name: "nobody gives way to the first in line",
    file: "user_lock.zig",
    from: "        if (now -| lock.yielding_since_ns < 2 * slice_ns) return true;\n",
    to: "",
    tests: "starves neither",
  },
  {
    name: "who gives way gives way for ever",
    file: "user_lock.zig",
    from: "        if (now -| lock.yielding_since_ns < 2 * slice_ns) return true;\n",
    to: "        if (now > 0) return true;\n",
    tests: "who is first in line",
  },
  {
    name: "a first in line that is stopped is waited for at every turn",
    file: "user_lock.zig",
    from: "        lock.ignoring_until_ns = now + ignored_ns;\n",
    to: "",
    tests: "who is first in line",
  },
  {
    name: "a writer that fails while it waits keeps its place in line",
    file: "operation.zig",
    from: "        defer map.lock.cancel();\n",
    to: "",
    tests: "leaves the line",
  },
  {
    name: "a write goes into a segment that was replaced while it waited",
    file: "operation.zig",
    from: "            try map.segment.check(); // it may have been replaced meanwhile\n",
    to: "",
    tests: "is told when that is replaced",
  },
  {
    name: "a thread that ends keeps its handles",
    file: "os/linux_process.zig",
    from: "    _ = pthread_setspecific(key, &key);",
    to: "    _ = pthread_setspecific(key, null);",
    tests: "a thread that ends",
  },
  {
    name: "a forked child keeps its parent's locks",
    file: "lifetime.zig",
    from: "        os.close(map.segment.locks);\n",
    to: "",
    tests: "a forked child",
  },
  {
    name: "a lock that is abandoned counts as released",
    file: "lifetime.zig",
    from: "        map.lock.abandon();\n",
    to: "",
    tests: "a thread that ends",
  },
  {
    name: "a region over a file is copied by plain instructions",
    file: "region.zig",
    from: "        if (direction == .to_mapping or region.access.private)\n" +
      "            return region.transferMapped(direction, offset, own, bytes);\n",
    to: "        plainCopy(direction, region.base + offset, own, bytes);\n" +
      "        if (bytes > 0) return bytes;\n",
    tests: "region_test",
  },
  {
    name: "a region's writes beyond the end of its file count",
    file: "region.zig",
    from: "if (region.access.private) copied else @min(copied, size -| offset);",
    to: "copied;",
    tests: "region_test",
  },
  {
    name: "a region in memory can be cut short",
    file: "os/linux_region.zig",
    from: "linux.F.ADD_SEALS, seal.all })",
    to: "linux.F.ADD_SEALS, seal.grow })",
    tests: "region_test",
  },
  {
    name: "a region that can be cut short is attached to",
    file: "region.zig",
    from: " or !os.isSealed(file))",
    to: ")",
    tests: "region_test",
  },
  {
    name: "a region's token leads to whatever has its number",
    file: "region.zig",
    from: "    if (header.id != id) return fault.withReason(.identity, error.NotFound);\n",
    to: "    if (header.id == 0 and id == 0) return fault.withReason(.identity, error.NotFound);\n",
    tests: "region_test",
  },
  {
    name: "a region's descriptor gains rights by being opened anew",
    file: "os/posix.zig",
    from: "    if (use.read and !may_read or writes and !may_write) ",
    to: "    if (use.read and !may_read and writes and !may_write) ",
    tests: "region_test",
  },
  {
    name: "a region that fails to open leaves its new file behind",
    file: "region.zig",
    from: "        errdefer if (is_new) unmake(region.file, &full);\n",
    to: "",
    tests: "region_test",
  },
];
