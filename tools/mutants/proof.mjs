/** Known bugs of the library, each of which a part of the proof, or the Zig tests, must find. */

/** What to replace in which file, and the part and its arguments, or the tests, that find it. */
export const PROOF_MUTANTS = [
  {
    name: "a slot is published before its entry is filled",
    edits: [
      {
        file: "map/put_fast.zig",
        from: "        entries.write(view.at(offset), count, key, value, kind, expires);\n",
        to: "",
      },
      {
        file: "map/put_fast.zig",
        from: "            const is_full = heap.retire(",
        to: "            entries.write(view.at(offset), count, key, value, kind, expires);\n" +
          "            const is_full = heap.retire(",
      },
      {
        file: "map/put_fast.zig",
        from: "            atomics.store(&stripe.live, atomics.load(&stripe.live) +% 1);\n",
        to: "            entries.write(view.at(offset), count, key, value, kind, expires);\n" +
          "            atomics.store(&stripe.live, atomics.load(&stripe.live) +% 1);\n",
      },
    ],
    tests: "crash",
  },
  {
    name: "a set writer word is ignored by the next to lock",
    edits: [
      {
        file: "map/put_fast.zig",
        from: "    if (attempt == .owner_died or atomics.load(&stripe.writer) != 0)\n",
        to: "    if (attempt == .owner_died)\n",
      },
      {
        file: "map/stripe_op.zig",
        from: "if (locked == .clean and atomics.load(&op.stripe.writer) == 0) return;",
        to: "if (locked == .clean) return;",
      },
    ],
    proof: "enumerate --scale 0.01",
  },
  {
    name: "recovery does not reset the lists of free blocks",
    file: "stripe/recovery.zig",
    from: "    heap.reset(stripe);\n",
    to: "",
    proof: "enumerate --scale 0.01",
  },
  {
    name: "advancing does not bump the generation",
    file: "stripe/heap.zig",
    from: "atomics.load(&stripe.generation) +% 1);",
    to: "atomics.load(&stripe.generation));",
    proof: "history --scale 0.02 histories",
  },
  {
    name: "readers do not compare generations",
    file: "map/read.zig",
    from: "return atomics.load(&stripe.generation) -% generation <= 1;",
    to: "return atomics.load(&stripe.generation) -% generation <= 1 << 62;",
    proof: "history --scale 0.02 histories",
  },
  {
    name: "a snapshot does not look a second time at stripes in progress",
    file: "map/snapshot.zig",
    from: "        if (!try sameSlots(map, view.stripe(@intCast(i)), count, &slots)) return false;",
    to: "        _ = try sameSlots(map, view.stripe(@intCast(i)), count, &slots);",
    tests: "snapshot",
  },
  {
    name: "one count is moved at the end, instead of begin and end",
    edits: [
      {
        file: "stripe/recovery.zig",
        from: "    atomics.store(&stripe.begin, count);\n",
        to: "",
      },
      {
        file: "stripe/recovery.zig",
        from:
          "    std.debug.assert(stripe.writer != 0);\n    atomics.storeRelease(&stripe.end, count);\n",
        to: "    atomics.storeRelease(&stripe.begin, count);\n" +
          "    atomics.storeRelease(&stripe.end, count);\n",
      },
    ],
    tests: "snapshot",
  },
  {
    name: "an entry's place is not checked",
    file: "stripe/entry.zig",
    from: "    try view.check(offset, @sizeOf(Header));\n",
    to: "",
    proof: "corrupt --scale 0.01",
  },
  {
    name: "a locker does not pass through the stripes",
    file: "map/quiesce.zig",
    from: "for (0..map.segment.view.stripeCount()) |i| {\n            quiesceStripe(",
    to: "for (0..0) |i| {\n            quiesceStripe(",
    proof: "storm --scale 0.25",
  },
  {
    name: "what is published is not a release",
    file: "atomics.zig",
    from: "    @atomicStore(u64, word, value, .release);",
    to: "    @atomicStore(u64, word, value, .monotonic);",
    proof: "order disassembly",
  },
  {
    name: "no fence follows the new generation",
    file: "stripe/heap.zig",
    from: "+% 1);\n    atomics.storeFence();",
    to: "+% 1);",
    proof: "order disassembly",
  },
  {
    name: "committed is published before the blocks are there",
    file: "segment/segment.zig",
    from: "        var to = @min(wanted, limit);\n",
    to: "        var to = @min(wanted, limit);\n" +
      "        atomics.storeRelease(&segment.header().committed, to);\n",
    proof: "act --scale 0.2 only grow",
  },
  {
    name: "a lock that a signal interrupts is not asked for again",
    file: "os/posix.zig",
    from: "            .INTR => {},",
    to: "            .INTR => return error.System,",
    proof: "act only set",
  },
  {
    name: "a block is reused after one generation",
    edits: [
      {
        file: "stripe/heap.zig",
        from: "const aging = (try limboLists(stripe))[1];",
        to: "const aging = (try limboLists(stripe))[0];",
      },
      {
        file: "stripe/heap.zig",
        from: "    atomics.store(&stripe.aging_count, atomics.load(&stripe.retired_count));\n",
        to: "    atomics.store(&stripe.aging_count, 0);\n",
      },
      {
        file: "stripe/heap.zig",
        from: "stripe.limbo[limboIndex(atomics.load(&stripe.generation) -% 2)]",
        to: "stripe.limbo[limboIndex(atomics.load(&stripe.generation) -% 1)]",
      },
      {
        file: "stripe/heap.zig",
        from: "limboIndex(generation -% age)",
        to: "limboIndex(generation -% @min(age, 1))",
      },
    ],
    proof: "history --scale 0.2 histories",
  },
  {
    name: "a compare-and-set decides before it has the lock",
    edits: [
      {
        file: "map/write.zig",
        from:
          "    try op.lockToWrite();\n    defer op.unlock();\n    var cursor: Cursor = undefined;\n" +
          "    try op.find(&cursor, key_hash, key);\n    if (condition != .none and",
        to: "    var cursor: Cursor = undefined;\n    if (condition == .version) {\n" +
          "        try op.find(&cursor, key_hash, key);\n" +
          "        if (op.versionOf(&cursor) != condition.version) return false;\n    }\n" +
          "    try op.lockToWrite();\n    defer op.unlock();\n" +
          "    try op.find(&cursor, key_hash, key);\n    if (condition != .none and",
      },
      {
        file: "map/write.zig",
        from: "        .version => |wanted| op.versionOf(cursor) == wanted,",
        to: "        .version => true,",
      },
    ],
    proof: "history --scale 0.02 histories",
  },
  {
    name: "mutexes are made anew beside a living writer",
    file: "segment/segment.zig",
    from: ".writer, .exclusive)) {\n                try segment.become",
    to: ".writer, .exclusive) or true) {\n                try segment.become",
    proof: "storm --scale 0.02",
  },
  {
    name: "a name is unlinked though it leads elsewhere by now",
    file: "segment/directory.zig",
    from: "        if (!named.same(stat)) {\n            range_lock.unlockAll(file);\n" +
      "            os.close(file);\n            return null;",
    to: "        if (!named.same(stat) and stat.size == 1) {\n" +
      "            range_lock.unlockAll(file);\n            os.close(file);\n            return null;",
    proof: "storm --scale 0.1",
  },
  {
    name: "two lockers are granted the lock",
    file: "lock/user_lock.zig",
    from: "if (!try range_lock.tryLock(target.fault, target.locks, .user, mode)) return null;",
    to: "_ = try range_lock.tryLock(target.fault, target.locks, .user, mode);",
    proof: "storm --scale 0.02",
  },
  {
    name: "a segment is marked unlinked before its name is gone",
    file: "segment/directory.zig",
    from: "        try os.unlink(segment.fault, &path);\n        displaced.setState(.unlinked);\n",
    to: "        displaced.setState(.unlinked);\n        try os.unlink(segment.fault, &path);\n",
    proof: "life --scale 0.01 unlink",
  },
  {
    name: "what a dead replacer left is not settled",
    file: "segment/directory.zig",
    from: "    if (segment.state() == .replacing) segment.setState(.live);\n",
    to: "",
    proof: "life --scale 0.01 replace",
  },
  {
    name: "a death in the pass forgets the death before it",
    file: "lock/user_lock.zig",
    from: "lock.storeWord(.{ .state = .pending, .owed = owed, .serial = serial });",
    to: "lock.storeWord(.{ .state = .pending, .owed = false, .serial = serial });",
    proof: "life --scale 0.01 holder",
  },
  {
    name: "temporary names of the dead stay",
    file: "segment/directory.zig",
    from:
      "    temporary_name.reapKnown(&segment.directory, segment.nameSlice());\n    return switch",
    to: "    return switch",
    proof: "life --scale 0.01 clean",
  },
];
