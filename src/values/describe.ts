/**
 * How messages name a value.
 */
export function describe(value: unknown): string {
  if (typeof value === "function") {
    const { name }: { name: unknown } = value;
    return typeof name === "string" && name !== "" ? `function "${name}"` : "a function";
  }
  if (typeof value === "symbol") return `symbol "${value.description ?? ""}"`;
  if (typeof value === "object" && value !== null) return `an instance of ${className(value)}`;
  return String(value);
}

/** How messages name the class of an object. */
export function className(value: object): string {
  const prototype = Object.getPrototypeOf(value);
  if (prototype === null) return "no class (its prototype is null)";
  return String(prototype.constructor?.name || "an unnamed class");
}
