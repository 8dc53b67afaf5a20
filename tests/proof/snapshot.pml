/*
 * A snapshot without locks of two stripes that two writers change, either of whom may die. Searched
 * exhaustively by tests/proof/order.mjs.
 *
 * A writer bumps *begin*, commits, and stores *end*; the commit and *end* are release stores, so
 * others see the three in this order. The snapshot's loads are acquire loads, and so in order, but
 * for the last looks at *begin*, which come behind a load fence. What it returns must be what both
 * stripes held at one moment.
 *
 * Left out: the entries, whose reuse is the business of order.pml; the store fence behind *begin*
 * and the load fences, which order what is not release and acquire, and so no slot.
 */

#ifndef OPS
#define OPS 3
#endif
#ifndef DEATHS
#define DEATHS 1
#endif

byte begin[2], finish[2], slot[2];
byte stripe[2];           /* the locks */
bit dirty[2];             /* writer words */
byte ops = OPS, deaths = DEATHS;

/* Ghosts: the pairs of contents since the snapshot began. */
bit watching;
int seen;
#define pair() (1 << (slot[0] * (OPS + 1) + slot[1]))

#define STEP(stores) if :: d_step { stores } :: deaths > 0 -> goto died fi

proctype Writer(byte me) {
  byte at;
again:
  do
  :: ops > 0 ->
    if :: at = 0 :: at = 1 fi;
    if
    :: atomic { stripe[at] == 0 && ops > 0 -> stripe[at] = me; ops-- }
    :: ops == 0 -> break
    fi;
    if
    :: dirty[at] -> /* Operation.recover: both counts move */
#ifndef RECOVERY_KEEPS_BEGIN
      STEP(begin[at] = (begin[at] > finish[at] -> begin[at] : finish[at]) + 1);
#endif
      STEP(finish[at] = begin[at])
    :: !dirty[at] -> skip
    fi;
    /* Operation.begin, the commit, Operation.unlock. */
    dirty[at] = 1;
#ifndef BEGIN_AFTER_COMMIT
    STEP(begin[at] = begin[at] + 1);
#endif
#ifdef END_PLAIN
    STEP(finish[at] = begin[at]);
#endif
    STEP(slot[at] = slot[at] + 1; seen = (watching -> seen | pair() : seen));
#ifdef BEGIN_AFTER_COMMIT
    STEP(begin[at] = begin[at] + 1);
#endif
#ifndef END_PLAIN
    STEP(finish[at] = begin[at]);
#endif
    STEP(dirty[at] = 0; stripe[at] = 0; at = 0)
  :: ops == 0 -> break
  od;
  goto done;
died:
  atomic { deaths--; stripe[at] = 0; at = 0 };
  goto again;
done:
  skip
}

/* gather.snapshotOnce */
proctype Snapshot() {
  byte begun_0, begun_1, ended_0, ended_1, copy_0, copy_1;
  bit good = 1;
  d_step { watching = 1; seen = pair() };
#ifdef BEGIN_FIRST
  begun_0 = begin[0];
  ended_0 = finish[0];
  begun_1 = begin[1];
  ended_1 = finish[1];
#else
  ended_0 = finish[0];
  begun_0 = begin[0];
  ended_1 = finish[1];
  begun_1 = begin[1];
#endif
  copy_0 = slot[0];
  copy_1 = slot[1];
#ifndef NO_SAME_SLOTS
  if :: begun_0 != ended_0 -> good = good && slot[0] == copy_0 :: else fi;
  if :: begun_1 != ended_1 -> good = good && slot[1] == copy_1 :: else fi;
#endif
#ifndef NO_LAST_LOOK
  if /* plain loads, in either order */
  :: good = good && begin[0] == begun_0; good = good && begin[1] == begun_1
  :: good = good && begin[1] == begun_1; good = good && begin[0] == begun_0
  fi;
#endif
  assert(!good || seen & (1 << (copy_0 * (OPS + 1) + copy_1)));
  d_step { watching = 0; ops = 0 } /* nothing that comes later can show more */
}

init { atomic { run Snapshot(); run Writer(1); run Writer(2) } }
