/**
 * Known bugs of entries that end, of conditions, counters and scans, and of the space of large
 * values, each of which the Zig tests or a part of the proof must find.
 */

/** As in `engine.mjs`. */
export const OPERATION_MUTANTS = [
  {
    name: "a touch lowers next_end behind its commit",
    edits: [
      {
        file: "map/expiry.zig",
        from: "    if (expires != 0) ends.lower(op.stripe, expires);\n",
        to: "",
      },
      {
        file: "map/expiry.zig",
        from: "    ends.noteChange(op.stripe, before, expires);\n",
        to: "    if (expires != 0) ends.lower(op.stripe, expires);\n" +
          "    ends.noteChange(op.stripe, before, expires);\n",
      },
    ],
    tests: "next_end has been lowered",
  },
  {
    name: "a search for ended entries forgets what is stored behind it meanwhile",
    file: "stripe/ends.zig",
    from: "    if (expires < atomics.load(&stripe.sweep_least)) " +
      "atomics.store(&stripe.sweep_least, expires);\n",
    to: "",
    tests: "stripe.ends",
  },
  {
    name: "a touch revives an entry that has ended",
    file: "map/expiry.zig",
    from: "    if (!op.isThere(&cursor)) return false;\n    if (map.isOver",
    to: "    if (!cursor.is_found) return false;\n    if (map.isOver",
    tests: "conditions take an entry that has ended for none",
  },
  {
    name: "all processes look for ended entries at the same time",
    file: "map/expiry.zig",
    from: "        if (since < sweep_every_ms) return sweep_every_ms - since;\n",
    to: "",
    tests: "one of many handles looks for ended entries",
  },
  {
    name: "the rebuild takes an extent on its way for ordinary space",
    file: "stripe/parked.zig",
    from: "        marks.add(extent) catch return;\n" +
      "        link(view, pool, offset, extent.units, dense);\n        tally.note(extent);\n",
    to: "        tally.note(extent);\n        if (dense > 0) return;\n",
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
    name: "an entry with a long key lies in an extent that parks",
    file: "stripe/parked.zig",
    from: "entry_bytes >= largeBytesMin() and key_len <= key_bytes_max",
    to: "entry_bytes >= largeBytesMin() and key_len <= 65_535",
    tests: "space: tables and entries",
  },
  {
    name: "ordinary space becomes a parked extent beside others",
    file: "map/compact.zig",
    from: "    if (try segment.becomeAlone()) {\n        defer segment.endAlone();\n",
    to: "    if (segment.state() == .live) {\n",
    tests: "space: the only handle",
  },
  {
    name: "a take that another caller was faster at gives what it had read before",
    edits: [
      {
        file: "map/conditions.zig",
        from: "pub fn take(map: *Map, key: []const u8, target: []u8, reserve: u32) Error!?Meta {\n",
        to: "pub fn take(map: *Map, key: []const u8, target: []u8, reserve: u32) Error!?Meta {\n" +
          '    const early = try @import("read.zig").get(map, key, target, reserve);\n' +
          '    @import("../os/os.zig").sleepNs(20_000);\n',
      },
      {
        file: "map/conditions.zig",
        from: "    if (!op.isThere(&cursor)) return null;\n" +
          "    const meta = cursor.probe.entry.meta();\n",
        to: "    if (!op.isThere(&cursor)) return early;\n" +
          "    const meta = cursor.probe.entry.meta();\n",
      },
    ],
    tests: "threads count every step",
  },
  {
    name: "a counter is read before its stripe's lock is taken",
    edits: [
      {
        file: "map/count.zig",
        from: "    try write.checkSize(map, layout.Entry.bytesFor(key.len, @sizeOf(f64)), " +
          "@sizeOf(f64));\n",
        to: "    var early: [48]u8 align(8) = undefined;\n" +
          '    _ = try @import("read.zig").get(map, key, &early, 0);\n',
      },
      {
        file: "map/count.zig",
        from: "        before = @bitCast(atomics.load(&entry.valueWords()[0]));\n",
        to: "        before = @bitCast(early[0..8].*);\n",
      },
    ],
    tests: "threads count every step",
  },
  {
    name: "a sum that is no number is stored",
    file: "map/count.zig",
    from: "    if (!(@abs(sum) <= most)) return .outOfRange;\n",
    to: "    if (@abs(sum) > most) return .outOfRange;\n",
    tests: "a counter adds",
  },
  {
    name: "a bigint's carry is dropped",
    file: "map/bigint.zig",
    from: "        carry >>= 8;\n",
    to: "        carry = 0;\n",
    tests: "sum",
  },
  {
    name: "a swap stores although the value before does not fit",
    file: "map/conditions.zig",
    from: "        if (!fits(meta, target, reserve)) return meta;\n" +
      "        cursor.probe.entry.copyOut",
    to: "        _ = meta;\n        cursor.probe.entry.copyOut",
    tests: "swap gives",
  },
  {
    name: "a page goes on at the next class of a small table",
    file: "map/scan.zig",
    from: "            if (try page.settle(start)) |next| return next;\n",
    to: "            if (try page.settle(start)) |next|\n" +
      "                return .{ .hash = next.hash | @as(u64, 0xfff) << restBits(bits) };\n",
    tests: "pages of any size",
  },
  {
    name: "a page goes on where the walk is, which a larger class leaves behind",
    file: "map/scan.zig",
    from: "            page.from = placeAt(index, bits, progress.next);\n",
    to: "            page.from = placeAt(index, bits, progress.next + 4000);\n",
    tests: "pages of any size",
  },
  {
    name: "a stripe of SipHash is scanned in the order of its table",
    file: "map/scan.zig",
    from: "            if (progress.sip) {\n",
    to: "            if (progress.sip and index > 1000) {\n",
    tests: "SipHash between two pages",
  },
];
