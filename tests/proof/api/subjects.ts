/** The objects that calls are made on: one of each kind, and a model of each. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Codec, Mmap, SharedMap, SharedValue } from "../../../mod.ts";
import type { Random } from "../../support/random.ts";
import { MapSubject, RegionSubject, type Subject, ValueSubject } from "./model.ts";

/** Opens handle number `index` of a subject; some are read-only, frozen, private. */
export type Opener = (index: number, random: Random) => object;

/** Handles do not wait: all others are of this isolate. */
const TIMEOUT = 20;
const REGION_BYTES = 1000;

/** The subjects, and how handles on them are opened. */
export function makeSubjects(
  codec: Codec,
  directory: string,
): { subjects: Subject[]; openers: Map<Subject, Opener>; tokens: string[] } {
  const openers = new Map<Subject, Opener>();
  const withTokens = [
    map("a map", undefined, {}, openers),
    map("a map with a codec", codec, {}, openers),
    map("a small map", undefined, { maxBytes: 256 * 1024, lock: "kernel" }, openers),
    value("a value", undefined, {}, openers),
    value("a small value with a codec", codec, { maxBytes: 100 }, openers),
    memory(openers),
  ];
  const subjects = [...withTokens, file(join(directory, "region"), openers)];
  return { subjects, openers, tokens: withTokens.map(({ witness }) => witness.token) };
}

type Limits = Pick<NonNullable<Parameters<typeof SharedMap.anonymous>[0]>, "maxBytes" | "lock">;

function map(
  label: string,
  codec: Codec | undefined,
  limits: Limits,
  openers: Map<Subject, Opener>,
): MapSubject {
  const witness = SharedMap.anonymous({ ...limits, codec });
  const subject = new MapSubject(label, witness, codec !== undefined);
  openers.set(subject, (index) => {
    return SharedMap.attach(witness.token, { codec, timeout: TIMEOUT, readonly: index === 2 });
  });
  return subject;
}

function value(
  label: string,
  codec: Codec | undefined,
  limits: Limits,
  openers: Map<Subject, Opener>,
): ValueSubject {
  const witness = SharedValue.anonymous({ ...limits, codec });
  const subject = new ValueSubject(label, witness, codec !== undefined);
  openers.set(subject, (index) => {
    const frozen = index === 1;
    return SharedValue.attach(witness.token, { codec, timeout: TIMEOUT, frozen });
  });
  return subject;
}

function memory(openers: Map<Subject, Opener>): RegionSubject {
  const witness = Mmap.anonymous(REGION_BYTES);
  const subject = new RegionSubject("a region in memory", witness);
  openers.set(subject, () => Mmap.attach(witness.token));
  return subject;
}

/** No part of this cuts the file short: another part does that. */
function file(path: string, openers: Map<Subject, Opener>): RegionSubject {
  writeFileSync(path, new Uint8Array(REGION_BYTES));
  const witness = Mmap.open(path);
  const subject = new RegionSubject("a region over a file", witness);
  openers.set(subject, (index, random) => {
    const protection = (["read-write", "write", "read"] as const)[index];
    const sharing = random(3) === 0 ? "private" : "shared";
    const region = Mmap.open(path, { protection, sharing });
    if (sharing === "private") subject.private.add(region);
    return region;
  });
  return subject;
}
