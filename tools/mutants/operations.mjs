/**
 * Known bugs of entries that end, of conditions, counters and scans, each of which the Zig tests or
 * a part of the proof must find.
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
    to: "        _ = since;\n",
    tests: "one of many handles looks for ended entries",
  },
  {
    name: "the call behind a look for ended entries does not wait",
    file: "abi/map.zig",
    from:
      "    defer map.segment.deadline.goBackTo(deadline);\n    map.segment.deadline = .in(0);\n    const has_more",
    to: "    _ = deadline;\n    map.segment.deadline = .in(0);\n    const has_more",
    tests: "the call behind a look for ended entries",
  },
  {
    name: "the call behind a lock waits as long as its taking did",
    file: "map/quiesce.zig",
    from: "        defer map.segment.deadline.goBackTo(before);\n",
    to: "        _ = before;\n",
    tests: "the call behind a lock",
  },
  {
    name: "a process that stores no end looks for none",
    file: "src/segment/sweeper.ts",
    from: "  if (after < 0 && after !== statuses.absent) return",
    to: "  if (after < 0 && after <= statuses.absent) return",
    suite: "tests/processes/expiry_test.ts",
    filter: "a process that does nothing",
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
