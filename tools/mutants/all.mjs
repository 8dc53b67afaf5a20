/** Every known bug, and whether the source still has the place where it is planted. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../process.mjs";
import { ENGINE_MUTANTS } from "./engine.mjs";
import { FILE_MUTANTS } from "./files.mjs";
import { OPERATION_MUTANTS } from "./operations.mjs";
import { planted } from "./plant.mjs";
import { PROOF_MUTANTS } from "./proof.mjs";
import { SPACE_MUTANTS } from "./space.mjs";
import { VALUE_MUTANTS } from "./values.mjs";

export const ALL_MUTANTS = [
  ...ENGINE_MUTANTS,
  ...OPERATION_MUTANTS,
  ...SPACE_MUTANTS,
  ...FILE_MUTANTS,
  ...VALUE_MUTANTS,
  ...PROOF_MUTANTS,
];

/** The errors of those that cannot be planted into this checkout. */
export function misplaced(mutants) {
  return mutants.flatMap((mutant) => {
    try {
      planted(mutant, (path) => readFileSync(join(ROOT, path), "utf8"));
      return [];
    } catch (error) {
      return [error.message];
    }
  });
}
