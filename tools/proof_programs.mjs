/**
 * The native parts of the proof and the program of each: `tests/proof/<program>.zig` is its root,
 * `shmap-proof-<program>` its name in `zig-out/bin`, and the part its first argument.
 */
export const PROGRAM_OF = {
  storm: "plain",
  full: "plain",
  act: "plain",
  enumerate: "recorded",
  life: "recorded",
  step: "recorded",
  history: "recorded",
  corrupt: "recorded",
};
