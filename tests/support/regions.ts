/** What the suites of raw regions share: regions over fresh files, children that map them. */
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Mmap, type MmapOptions } from "../../mod.ts";
import {
  atEnd,
  type Child,
  freshDirectory,
  type Runtime,
  SHM,
  startChild,
  type TestContext,
} from "./support.ts";

export const READ_WRITE = { protection: "read-write" } as const;
/** The template and the values of the suite of IPC::Mmap. */
export const TEMPLATE = "l n S d a20";
export const VALUES = [123456, 2345, 5432, 123.456789, "Z".repeat(20)] as const;

export function freshFile(t: TestContext, name = "ipc_mmap.tmp"): string {
  return join(freshDirectory(t), name);
}

/** A file of `length` bytes, all of them holes. */
export function sparseFile(
  t: TestContext,
  length: number,
  directory = freshDirectory(t, SHM),
): string {
  const file = join(directory, "sparse");
  writeFileSync(file, "");
  truncateSync(file, length);
  return file;
}

export function opened(t: TestContext, file: string | URL | number, options?: MmapOptions): Mmap {
  const region = Mmap.open(file, options);
  atEnd(t, () => region.close());
  return region;
}

/** The region of the seed's suite: 10,000 bytes of a new file, to read and to write. */
export function suite(t: TestContext): Mmap {
  return opened(t, freshFile(t), { length: 10_000, ...READ_WRITE });
}

/** The same file again, read-only, as the second half of the suite opens it. */
export function readOnly(t: TestContext): Mmap {
  const file = freshFile(t);
  opened(t, file, { length: 10_000, ...READ_WRITE }).write("D".repeat(9900), 100);
  return opened(t, file, { length: 0, protection: "read" });
}

export function writeOnly(t: TestContext): Mmap {
  return opened(t, freshFile(t), { length: 10_000, protection: "write", sharing: "shared" });
}

export function anonymous(t: TestContext, length = 10_000): Mmap {
  const region = Mmap.anonymous(length);
  atEnd(t, () => region.close());
  return region;
}

export function text(region: Mmap, offset?: number, length?: number): string {
  return new TextDecoder("latin1").decode(region.read(offset, length));
}

/** A child that may use files, and has this one mapped. */
export async function childWith(
  t: TestContext,
  runtime: Runtime,
  file: string,
  options: MmapOptions = { length: 10_000, ...READ_WRITE },
): Promise<Child> {
  const child = await fileChild(t, runtime);
  await child.ask("regionOpen", { file, options });
  return child;
}

export function fileChild(t: TestContext, runtime: Runtime): Promise<Child> {
  const permissions = ["--allow-ffi", "--allow-read", "--allow-write"];
  return startChild(t, runtime, { permissions });
}
