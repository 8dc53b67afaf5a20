/**
 * The models that order.mjs has searched, and the faults that the search must find in them.
 *
 * `searches` are the sizes of the complete searches, as macros, each behind the least number of
 * states it must have; `small` is the size for a quick look, and for a variant that names none of
 * its own. A variant is a macro that makes the model wrong.
 */
const ONE_DIES = ["OPS=2", "DEATHS=1", "BLOCKS=4"];
const TWO_DIE = ["LOCKS=3", "WRITES=0", "DEATHS=2"];

export const MODELS = [
  {
    model: "order",
    searches: [
      [3_900_000, "OPS=1", "DEATHS=1", "BLOCKS=4"],
      [1_000_000, "OPS=2", "DEATHS=0", "BLOCKS=4"],
    ],
    small: ["OPS=2", "DEATHS=0", "BLOCKS=4"],
    variants: [
      ["SLOT_BEFORE_FILL"],
      ["SLOT_PLAIN"],
      ["TABLE_BEFORE_FILL"],
      ["BUMP_PLAIN"],
      ["NO_BUMP"],
      ["NO_BUMP_FENCE"],
      ["NO_LOAD_FENCE"],
      ["FIRST_LOOK_LATE"],
      ["ONE_GENERATION"],
      ["TOLERATE_TWO"],
      ["RETIRE_BEFORE_COMMIT"],
      ["NO_RESET", ...ONE_DIES],
      ["IGNORE_WRITER_WORD", ...ONE_DIES],
      ["LATE_WRITER_WORD", ...ONE_DIES],
      ["NO_RECOVERY_BUMP", ...ONE_DIES],
      ["RECOVERY_BUMPS_ONCE", ...ONE_DIES],
      ["NO_RECOVERY_FENCE", ...ONE_DIES],
    ],
  },
  {
    model: "refill",
    searches: [[5_500_000, "OPS=4"]],
    small: ["OPS=3"],
    variants: [
      ["NO_VERSION"],
      ["NO_CHECK_BEFORE"],
      ["NO_CHECK_AGAIN", "OPS=4"],
      ["OLD_SLOT"],
      ["NO_FENCE_IN_LOOK"],
      ["NO_BUMP_FENCE"],
      ["REUSE_AT_ONCE"],
    ],
  },
  {
    // Not among the variants: *begin* loaded before *end*, and recovery that leaves *begin* alone.
    // The last look makes up for the one; the other matters only where recovery drops a slot.
    model: "snapshot",
    searches: [[11_000_000, "OPS=3", "DEATHS=1"]],
    small: ["OPS=2", "DEATHS=1"],
    variants: [["END_PLAIN"], ["NO_SAME_SLOTS"], ["NO_LAST_LOOK"], ["BEGIN_AFTER_COMMIT"]],
  },
  {
    model: "lock",
    searches: [
      [12_000_000, "LOCKS=2", "WRITES=1", "DEATHS=1"],
      [30_000, ...TWO_DIE],
    ],
    small: ["LOCKS=2", "WRITES=1", "DEATHS=0"],
    variants: [
      ["HELD_AT_ONCE", "LOCKS=2", "WRITES=1", "DEATHS=1"],
      ["NO_PASS"],
      ["LOOK_BEFORE_STRIPE"],
      ["RANGE_FIRST"],
      ["WRITE_AT_ONCE", "LOCKS=2", "WRITES=1", "DEATHS=1"],
      ["REPLACE_ANY", "LOCKS=2", "WRITES=1", "DEATHS=1"],
      ["FORGET_OWED", ...TWO_DIE],
      ["LOSE_ON_GIVING_UP", ...TWO_DIE],
    ],
  },
];
