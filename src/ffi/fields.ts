/**
 * The records of the library, read by the names of their fields. Where the fields lie is generated
 * with the symbol table and part of its fingerprint: a library that lays them out in another way is
 * not loaded.
 */
import { records } from "./abi.ts";

type Records = typeof records;

/** The fields of a record that are numbers. */
type NumberFields<Name extends keyof Records> = {
  [Field in keyof Records[Name]["fields"]]: Records[Name]["fields"][Field] extends
    readonly [number, "u8" | "u16" | "u32" | "f64"] ? Field : never;
}[keyof Records[Name]["fields"]];

const READERS: Readonly<Record<string, (view: DataView, at: number) => number>> = {
  u8: (view, at) => view.getUint8(at),
  u16: (view, at) => view.getUint16(at, true),
  u32: (view, at) => view.getInt32(at, true) >>> 0, // an index stays an integer
  f64: (view, at) => view.getFloat64(at, true),
};

/** All numbers of the record that lies at `start`. */
export function readRecord<Name extends keyof Records>(
  name: Name,
  view: DataView,
  start = 0,
): Readonly<Record<NumberFields<Name>, number>> {
  const fields = Object.entries<readonly [number, string]>(records[name].fields);
  return Object.fromEntries(
    fields.filter(([, [, type]]) => type in READERS)
      .map(([field, [offset, type]]) => [field, READERS[type](view, start + offset)]),
  ) as Record<NumberFields<Name>, number>;
}

/** Where a field begins in its record. */
export function offsetOf<Name extends keyof Records>(
  name: Name,
  field: keyof Records[Name]["fields"],
): number {
  const fields: Readonly<Record<PropertyKey, readonly [number, string]>> = records[name].fields;
  return fields[field][0];
}
