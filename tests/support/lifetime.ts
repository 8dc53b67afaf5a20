/** How long the tasks of a child go on: none outlives a test that is gone and cannot stop it. */

const LIFETIME_MS = 280_000;
let begin = 0;

/** Begins a lifetime: a child that is used again has one for each test. */
export function beginLifetime(): void {
  begin = performance.now();
}

export function isTooOld(): boolean {
  return performance.now() - begin > LIFETIME_MS;
}
