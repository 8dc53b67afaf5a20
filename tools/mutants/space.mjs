/** Bugs of space that goes back: parked extents, and handles that are alone. */

export const SPACE_MUTANTS = [
  {
    name: "an extent that is given back is not named on its way to the parked ones",
    edits: [
      {
        file: "stripe/pool.zig",
        from: "    if (chunk.dense != null) atomics.storeRelease(&pool.moving, " +
          "Moving.of(.extent, offset));\n",
        to: "",
      },
      {
        file: "stripe/pool.zig",
        from: "        parked.park(view, pool, chunk);\n",
        to: "        atomics.storeRelease(&pool.moving, Moving.of(.extent, offset));\n" +
          "        parked.park(view, pool, chunk);\n",
      },
    ],
    tests: "space: a process killed at any store",
  },
  {
    name: "a fresh extent is there before it is named",
    file: "segment/segment.zig",
    from: "        atomics.storeRelease(&pool.moving, layout.Moving.of(.fresh, committed));\n" +
      "        atomics.storeRelease(&segment.header().committed, to); // pairs with " +
      "`View.refresh`\n",
    to: "        atomics.storeRelease(&segment.header().committed, to);\n" +
      "        atomics.storeRelease(&pool.moving, layout.Moving.of(.fresh, committed));\n",
    tests: "space: a process killed at any store",
  },
  {
    name: "the rebuild takes an extent on its way for ordinary space",
    file: "stripe/parked.zig",
    from: "        marks.add(extent) catch return;\n" +
      "        link(view, pool, offset, extent.units, dense);\n        tally.note(extent);\n",
    to: "        tally.note(extent);\n        if (dense > 0 and pool.writer != 0) return;\n",
    tests: "crash: extents",
  },
  {
    name: "a hole is made before the word says so",
    file: "stripe/parked.zig",
    from: "    atomics.storeRelease(dense, rest);\n    if (!empty(",
    to: "    _ = empty(view, extent.offset + rest, extent.end());\n" +
      "    atomics.storeRelease(dense, rest);\n    if (!empty(",
    tests: "crash: extents",
  },
  {
    name: "the first page of an extent goes with the rest",
    file: "stripe/parked.zig",
    from: "    if (!empty(view, extent.offset + rest, extent.end())) {",
    to: "    if (!empty(view, extent.offset, extent.end())) {",
    tests: "crash: extents",
  },
  {
    name: "a table lies in an extent that parks",
    file: "map/stripe_op.zig",
    from: "op.space.allocTable(tables.bytesFor(log2))",
    to: "op.space.alloc(tables.bytesFor(log2), 0)",
    tests: "space: tables and entries",
  },
  {
    name: "an entry with a long key lies in an extent that parks",
    file: "stripe/parked.zig",
    from: "entry_bytes >= largeBytesMin() and key_len <= key_bytes_max",
    to: "entry_bytes >= largeBytesMin() and key_len <= 65_535",
    tests: "space: tables and entries",
  },
  {
    name: "an extent is used again without its blocks",
    file: "segment/segment.zig",
    from: "        try os.allocate(segment.fault, segment.file, from, to);\n    }\n\n" +
      "    fn beginGrowth",
    to: "    }\n\n    fn beginGrowth",
    tests: "space: an extent has its blocks",
  },
  {
    name: "ordinary space becomes a parked extent beside others",
    file: "map/compact.zig",
    from: "    if (try segment.becomeAlone()) {\n        defer segment.endAlone();\n",
    to: "    if (segment.state() == .live) {\n",
    tests: "space: the only handle",
  },
  {
    name: "a file is cut before the word says so",
    file: "segment/segment.zig",
    from: "        atomics.storeRelease(&segment.header().committed, to);\n" +
      "        view.committed = to;\n        atomics.willBeZeros(",
    to: "        segment.cutTo(view.committed - bytes);\n" +
      "        atomics.storeRelease(&segment.header().committed, to);\n" +
      "        view.committed = to;\n        atomics.willBeZeros(",
    tests: "crash: extents",
  },
  {
    name: "a handle attaches while another one cuts the file",
    file: "segment/directory.zig",
    from: "    try segment.enter(deadline);\n",
    to: "    if (segment.readonly) _ = try range_lock.tryLock(fault, segment.locks, .reader, " +
      ".shared);\n    _ = deadline;\n",
    tests: "space: a reader that comes",
  },
  {
    name: "a large value is copied by loads where a hole can be a signal",
    file: "map/read.zig",
    from: "    return !segment.holes_are_safe.?;\n",
    to: "    return segment.holes_are_safe.? and parked.areSmall();\n",
    tests: "space: a late reader",
  },
  {
    name: "maxBytes counts the length of the file",
    file: "segment/segment.zig",
    from:
      "        return segment.view.committed -| atomics.load(&segment.header().pool.hole_bytes);\n",
    to: "        return segment.view.committed;\n",
    tests: "space: maxBytes",
  },
];
