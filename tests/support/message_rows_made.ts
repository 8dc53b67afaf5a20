/**
 * What messages say of failures that need another machine, or a process of its own: the suites that
 * have such a machine look at the cause, and the words are met here, from the record that the
 * library leaves. See `message_rows.ts`.
 */
import { constants } from "node:os";
import { type Attempt, failure, FAULT_BYTES } from "../../src/errors.ts";
import { reasons, records, statuses } from "../../src/ffi/abi.ts";
import { type Row, row } from "./message_rows.ts";

const FORBIDS = "the mode and the owner of the file, or of /dev/shm, do not allow it";
const ENLARGE = "by this map; remove files there, or make it larger";

/** What the library leaves of a failure that needs another machine, or a process of its own. */
interface Made {
  status: keyof typeof statuses;
  reason?: keyof typeof reasons;
  errno?: number;
  attempt?: Partial<Attempt>;
  fields?: Partial<
    Record<"neededBytes" | "usedBytes" | "ceilingBytes" | "holderPid" | "found", number>
  >;
}

function made({ status, reason = "none", errno = 0, attempt = {}, fields = {} }: Made): never {
  const record = new Uint8Array(FAULT_BYTES);
  const view = new DataView(record.buffer);
  const values: Record<string, number> = { ...fields, reason: reasons[reason], errno };
  const places: Readonly<Record<string, readonly unknown[]>> = records.Fault.fields;
  for (const [field, value] of Object.entries(values)) {
    view.setFloat64(Number(places[field][0]), value, true);
  }
  const whole = { action: "write", thing: 'map "jobs"', where: "/dev/shm", ...attempt };
  throw failure(statuses[status], whole, record);
}

const OPENING: Partial<Attempt> = { action: "open", wanted: { kind: "a map", maxBytes: 7 } };
const { EACCES, EDQUOT, EFBIG, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, EROFS } = constants.errno;

/** One of each kind. */
export const MADE: Row[] = ([
  [
    'Cannot open map "jobs": permission denied (EROFS); /dev/shm is mounted read-only; mount it ' +
    "to be written to, state another directory, or open what is there with readonly",
    { status: "permissionDenied", errno: EROFS, attempt: OPENING },
  ],
  ['Cannot open map "jobs": permission denied (EACCES); ' + FORBIDS, {
    status: "permissionDenied",
    errno: EACCES,
    attempt: OPENING,
  }],
  [
    "Cannot attach to anonymous map: process 12, which gave the token, is closed to this one " +
    "(EACCES): it has another user, or capabilities, or has changed its user since; make what " +
    "is to be shared after that, or give it a name",
    {
      status: "permissionDenied",
      reason: "hiddenProcess",
      errno: EACCES,
      fields: { found: 12 },
      attempt: { action: "attach to", thing: "anonymous map" },
    },
  ],
  ['Cannot open map "jobs": it belongs to user 7, and allowForeignOwner is not set', {
    status: "permissionDenied",
    reason: "foreignOwner",
    fields: { found: 7 },
    attempt: OPENING,
  }],
  ['Cannot open map "jobs": Can\'t open /a/file: not allowed', {
    status: "permissionDenied",
    attempt: { ...OPENING, file: "/a/file" },
  }],
  ['Cannot write map "jobs": it is locked by process 12, waited 5000 ms', {
    status: "timeout",
    fields: { holderPid: 12 },
    attempt: { timeout: 5000 },
  }],
  [
    'Cannot write map "jobs": it is locked by process 12, which has ended or ' +
    "lives in another PID " +
    "namespace, waited 5000 ms",
    {
      status: "timeout",
      reason: "holderElsewhere",
      fields: { holderPid: 12 },
      attempt: { timeout: 5000 },
    },
  ],
  [
    'Cannot read map "jobs": another process was in the way, inside a call of its own, waited 5 ms',
    {
      status: "timeout",
      attempt: { action: "read", timeout: 5 },
    },
  ],
  [
    'Cannot open map "jobs": this process has as many files open as it may, and an open takes ' +
    'two; raise "ulimit -n", or close some (EMFILE)',
    { status: "system", errno: EMFILE, attempt: OPENING },
  ],
  ['Cannot open map "jobs": this machine may open no more files (ENFILE)', {
    status: "system",
    errno: ENFILE,
    attempt: OPENING,
  }],
  ['Cannot open map "jobs": the kernel has no memory for it (ENOMEM)', {
    status: "system",
    errno: ENOMEM,
    attempt: OPENING,
  }],
  ['Cannot write map "jobs": the system refused (EIO)', { status: "system", errno: EIO }],
  ['Cannot write map "jobs": the library refused an argument', { status: "invalidArgument" }],
  ['Cannot write map "jobs": the system refused (errno 54321)', {
    status: "system",
    errno: 54_321,
  }],
  [
    'Cannot open map "jobs": no room for 64 MiB more in this process\'s address space, ' +
    "ulimit -v is 3.8 GiB (ENOMEM)",
    {
      status: "noSpace",
      reason: "addressSpace",
      errno: ENOMEM,
      fields: { neededBytes: 2 ** 26, found: 3.8 * 2 ** 30 },
      attempt: OPENING,
    },
  ],
  [
    "Cannot create anonymous region: no room for 64 MiB in the address space (ENOMEM); " +
    "a smaller length asks for less",
    {
      status: "noSpace",
      reason: "addressSpace",
      errno: ENOMEM,
      fields: { neededBytes: 2 ** 26 },
      attempt: { action: "create", thing: "anonymous region", wanted: { kind: "a region" } },
    },
  ],
  [
    "Cannot attach to anonymous map: there is no /proc, by which this is found; mount one, or " +
    "open it by a name or path",
    {
      status: "unsupported",
      reason: "noProc",
      attempt: { action: "attach to", thing: "anonymous map" },
    },
  ],
  [
    'Cannot open map "jobs": /proc does not tell which processes can share its mutexes; one ' +
    'created with lock: "kernel" has none',
    { status: "unsupported", reason: "noFacts", attempt: OPENING },
  ],
  [
    'Cannot grow map "jobs": its file may not be larger for this process; raise ' +
    '"ulimit -f" (EFBIG)',
    {
      status: "noSpace",
      reason: "ceilingReached",
      errno: EFBIG,
    },
  ],
  ['Cannot grow map "jobs": the quota of this user is used up (EDQUOT)', {
    status: "noSpace",
    reason: "fileSystemFull",
    errno: EDQUOT,
  }],
  [
    'Cannot open map "jobs": /dev/shm takes no more files (ENOSPC); remove some, or give it more ' +
    "inodes",
    { status: "noSpace", errno: ENOSPC, attempt: OPENING },
  ],
  [
    'Cannot grow map "jobs": /dev/shm is full, 63 MiB used and 2 MiB more needed (ENOSPC) ' +
    ENLARGE,
    {
      status: "noSpace",
      reason: "fileSystemFull",
      errno: ENOSPC,
      fields: { usedBytes: 63 * 2 ** 20, neededBytes: 2 ** 21 },
    },
  ],
  [
    'Cannot grow map "jobs": /dev/shm is full, 63 MiB used and no room for more (ENOSPC) ' +
    ENLARGE,
    {
      status: "noSpace",
      reason: "fileSystemFull",
      errno: ENOSPC,
      fields: { usedBytes: 63 * 2 ** 20 },
    },
  ],
  ['Cannot write map "jobs": the value is too large, the limit is 300 bytes', {
    status: "tooLarge",
    fields: { ceilingBytes: 300 },
  }],
  ['Cannot read map "jobs": its table is damaged; repair() drops what is lost', {
    status: "corrupt",
    reason: "tableDamaged",
    attempt: { action: "read" },
  }],
  ['Cannot read map "jobs": an entry is damaged; repair() drops what is lost', {
    status: "corrupt",
    reason: "entryDamaged",
    attempt: { action: "read" },
  }],
  ['Cannot read map "jobs": its free space is damaged; repair() rebuilds it', {
    status: "corrupt",
    reason: "chunksDamaged",
    attempt: { action: "read" },
  }],
  ['Cannot read map "jobs": its bytes make no sense', {
    status: "corrupt",
    attempt: { action: "read" },
  }],
  ['Cannot open map "jobs": its codec is another one, wanted "json"', {
    status: "incompatible",
    reason: "otherCodec",
    attempt: { action: "open", wanted: { kind: "a map", codec: "json" } },
  }],
  [
    'Cannot open map "jobs": its writers use another C library; one created with lock: "kernel" ' +
    "takes both",
    { status: "incompatible", reason: "otherLibc", attempt: OPENING },
  ],
  [
    'Cannot open map "jobs": its writers live in another PID namespace; one created with lock: ' +
    '"kernel" takes both',
    {
      status: "incompatible",
      reason: "otherPidNamespace",
      attempt: OPENING,
    },
  ],
  ['Cannot open map "jobs": it was made for something else', {
    status: "incompatible",
    attempt: OPENING,
  }],
  ['Cannot open map "jobs": /dev/shm is on a network file system', {
    status: "unsupported",
    reason: "networkFileSystem",
    attempt: OPENING,
  }],
  [
    'Cannot open map "jobs": the file system of /dev/shm writes each change to another place, ' +
    "and a full disk would end processes; use another directory",
    { status: "unsupported", reason: "filesystem", attempt: OPENING },
  ],
  ['Cannot open map "jobs": this system cannot do it', { status: "unsupported", attempt: OPENING }],
  ['Cannot read region "log": it was opened write-only', {
    status: "writeOnly",
    attempt: { action: "read", thing: 'region "log"' },
  }],
] as [string, Made][]).map(([says, how]) => row(says, () => made(how)));
