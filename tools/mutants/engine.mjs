/** Known bugs of the engine, each of which the Zig tests must catch. */

/** What to replace in which file, and the tests (by a part of their names) that must notice. */
export const ENGINE_MUTANTS = [
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
    name: "a read that knows a version gets none of another",
    file: "abi/map.zig",
    from: "        @as(f64, @floatFromInt(meta.version)) == version)",
    to: "        @as(f64, @floatFromInt(meta.version)) >= version - 1)",
    tests: "a versioned read",
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
    from: "    if (atomics.load(&pool.writer) != 0) try rebuildPool(segment, pool);\n",
    to: "",
    tests: "crash",
  },
  {
    name: "a chunk is in its stripe's list before its header is written",
    file: "stripe/pool.zig",
    from: "    const chunk = view.chunk(offset);\n    atomics.store(&chunk.extent, @bitCast(" +
      "Extent{ .owner = index + 1",
    to:
      "    const chunk = view.chunk(offset);\n    atomics.storeRelease(&stripe.chunks, offset);\n" +
      "    atomics.store(&chunk.extent, @bitCast(Extent{ .owner = index + 1",
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
    name: "a stripe is iterated over while its table is replaced",
    file: "map/iterate.zig",
    from: "        if (atomics.load(&stripe.table) != table) return false;",
    to: "        if (atomics.load(&stripe.table) == 2 and table == 1) return false;",
    tests: "snapshot",
  },
  {
    name: "a table is taken for the one that was there before",
    file: "stripe/table.zig",
    from: "    if (cached.word != word) return .retry;\n",
    to: "    if (cached.word == 0 and word != 0) return .retry;\n",
    tests: "map_test",
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
    from: "            op.space.alloc(bytes);\n        const offset",
    to: "            op.space.allocReplacing(bytes);\n        const offset",
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
      "        try op.enter(map.segment.timeout_ms);\n        if (map.lock.admits(atomics.loadAcquire(" +
      "&map.segment.header().lock_word))) return;\n",
    to: "        const word = atomics.loadAcquire(&map.segment.header().lock_word);\n" +
      "        try op.enter(map.segment.timeout_ms);\n        if (map.lock.admits(word)) return;\n",
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
      "return op.enter(map.segment.timeout_ms);\n",
    tests: "lock storm",
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
    name: "nobody becomes first in line",
    file: "lock/user_lock.zig",
    from: "        if (!lock.is_head)\n            lock.is_head = try range_lock.tryLock(" +
      "target.fault, target.locks, .queue_head, mode);\n",
    to: "        _ = mode;\n",
    tests: "starves neither",
  },
  {
    name: "nobody gives way to the first in line",
    file: "lock/user_lock.zig",
    from: "        if (now -| lock.yielding_since_ns < 2 * slice_ns) return true;\n",
    to: "",
    tests: "starves neither",
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
    name: "a thread that ends keeps its handles",
    file: "os/linux_process.zig",
    from: "    _ = pthread_setspecific(key, &key);",
    to: "    _ = pthread_setspecific(key, null);",
    tests: "a thread that ends",
  },
  {
    name: "a forked child keeps its parent's locks",
    file: "abi/thread_exit.zig",
    from: "        os.close(map.segment.locks);\n",
    to: "",
    tests: "a forked child",
  },
  {
    name: "a lock that is abandoned counts as released",
    file: "abi/thread_exit.zig",
    from: "        map.lock.abandon();\n",
    to: "",
    tests: "a thread that ends",
  },
  {
    name: "a region over a file is copied by plain instructions",
    file: "region/region.zig",
    from: "        if (direction == .to_mapping or region.access.private)\n" +
      "            return region.transferMapped(direction, offset, own, bytes);\n",
    to: "        plainCopy(direction, region.base + offset, own, bytes);\n" +
      "        if (bytes > 0) return bytes;\n",
    tests: "region_test",
  },
  {
    name: "a region's writes beyond the end of its file count",
    file: "region/region.zig",
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
    file: "region/region.zig",
    from: " or !os.isSealed(file))",
    to: ")",
    tests: "region_test",
  },
  {
    name: "a region's token leads to whatever has its number",
    file: "region/region.zig",
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
    file: "region/region.zig",
    from: "        errdefer if (is_new) unmake(region.file, &full);\n",
    to: "",
    tests: "region_test",
  },
];
