/*
 * A read of a large value under a weak memory, while its key gets other values and its block is
 * filled anew: with this key's next values, and with what other stripes put there. Searched
 * exhaustively by tests/proof/order.mjs.
 *
 * The reader is that of map/read.zig: a look (generation, table word, slot, version, and the
 * generation again), a copy in two pieces, and after a piece where the generation moved a second
 * look, which is as full and as checked as the first one. What it returns must be a value that the
 * key had at some moment of the read, whole.
 *
 * Memory is that of order.pml: stores leave a buffer in any order that the code does not forbid, and
 * loads come in any order after an acquire load and before a load fence. A writer's death shows
 * nothing here that it does not show there.
 *
 * Shape. Two tables of one slot and two blocks for entries, so that each is used again at once. An
 * entry has its version and two words of value; value and version are the same number, so that what
 * is torn shows. What another stripe puts into a block that is free, or into a table that is, may be
 * anything: in place of a version also one that the key had there before. (A reader would also
 * compare the key; bytes of a value may look like it.)
 */

#ifndef OPS
#define OPS 4      /* visits of writers that begin before the read has ended */
#endif
#define BLOCKS 2
#define BUFFER 16  /* stores that may be on their way */

/* The addresses of what the reader looks at. */
#define GENERATION 0
#define TABLE 1
#define SLOT(t) (2 + (t))
#define VERSION(b) (4 + 3 * ((b) - 1)) /* blocks count from 1: 0 is none */
#define FIRST(b) (VERSION(b) + 1)
#define SECOND(b) (VERSION(b) + 2)
#define WORDS (4 + 3 * BLOCKS)

#define FOREIGN 0  /* bytes of another stripe */

/* Kinds of stores. */
#define PLAIN 0
#define RELEASE 1
#define FENCE 2

byte memory[WORDS];
byte pending_at[BUFFER], pending_value[BUFFER], pending_kind[BUFFER];
byte pending;              /* how many */

/* What the writers know; the lock lets one in at a time. */
byte newest;               /* the generation */
byte current = 1;          /* the block of the key's entry; 0: it has none */
byte table;                /* the table in use */
byte free_at[BLOCKS + 1];  /* the generation in which a block may be used again */
byte table_free_at;        /* the same of the other table */
byte next_version = 2;
byte operations = OPS;

/* Ghosts. */
hidden byte v;
bit reading, over;
byte seen;                 /* the versions the key had since the read began, a bit each; 0: none */

/* The version a reader would find at this moment, or 0. */
inline lookAround() {
  if
  :: reading && memory[SLOT(memory[TABLE])] == 0 -> seen = seen | 1
  :: reading && memory[SLOT(memory[TABLE])] != 0 ->
    seen = seen | (1 << memory[VERSION(memory[SLOT(memory[TABLE])])])
  :: !reading -> skip
  fi
}

#define holds(k, i) \
  (pending_kind[k] == FENCE || pending_at[k] == pending_at[i] || pending_kind[i] == RELEASE)

inline close(i) {
  v = i;
  do
  :: v + 1 < pending ->
    pending_at[v] = pending_at[v + 1];
    pending_value[v] = pending_value[v + 1];
    pending_kind[v] = pending_kind[v + 1];
    v++
  :: v + 1 == pending -> break
  od;
  pending--;
  pending_at[pending] = 0;
  pending_value[pending] = 0;
  pending_kind[pending] = 0;
  v = 0
}

inline reach(i) {
  memory[pending_at[i]] = pending_value[i];
  close(i);
  do
  :: pending > 0 && pending_kind[0] == FENCE -> close(0)
  :: !(pending > 0 && pending_kind[0] == FENCE) -> break
  od;
  lookAround()
}

/* The memory takes any of the stores that may go next. */
proctype Memory() {
  byte i, k;
  bit may_go;
end:
  do
  :: atomic {
      pending > 0 ->
      i = 0;
      do
      :: i < pending ->
        d_step {
          may_go = (pending_kind[i] != FENCE);
          k = 0;
          do
          :: k < i -> may_go = may_go && !holds(k, i); k++
          :: k >= i -> break
          od;
          k = 0
        };
        if
        :: may_go -> d_step { reach(i); i = 0; may_go = 0 }; break
        :: i++
        fi
      :: i >= pending -> break
      od;
      i = 0;
      may_go = 0
    }
  od
}

inline push(at, value, kind) {
  assert(pending < BUFFER);
  pending_at[pending] = at;
  pending_value[pending] = value;
  pending_kind[pending] = kind;
  pending++
}

/* heap.advance */
inline advance() {
  newest++;
  push(GENERATION, newest, RELEASE);
#ifndef NO_BUMP_FENCE
  push(0, 0, FENCE)
#endif
}

#ifdef REUSE_AT_ONCE
#define LIMBO 1
#else
#define LIMBO 2
#endif

/* The block that the key's entry is not in, once it may be used again. */
inline take() {
  fresh = (current == 1 -> 2 : 1);
  do
  :: newest < free_at[fresh] -> advance()
  :: newest >= free_at[fresh] -> break
  od
}

/* write.put: fill, commit, retire. */
inline replace() {
  take();
  push(VERSION(fresh), next_version, PLAIN);
  push(FIRST(fresh), next_version, PLAIN);
  push(SECOND(fresh), next_version, PLAIN);
  push(SLOT(table), fresh, RELEASE);
  free_at[current] = newest + LIMBO;
  next_version++;
  current = fresh
}

/* write.delete */
inline remove() {
  push(SLOT(table), 0, RELEASE);
  free_at[current] = newest + LIMBO;
  current = 0
}

/* StripeOp.rehash: the generation advances twice behind it. */
inline rehash() {
  do
  :: newest < table_free_at -> advance()
  :: newest >= table_free_at -> break
  od;
  push(SLOT(1 - table), current, PLAIN);
  push(TABLE, 1 - table, RELEASE);
  table = 1 - table;
  table_free_at = newest + LIMBO;
  advance();
  advance()
}

/* Another stripe has a block, or a table, that is free here. */
inline foreign() {
  if
  :: take();
    if
    :: push(VERSION(fresh), FOREIGN, PLAIN)
    :: push(VERSION(fresh), 1, PLAIN)
    :: next_version > 2 -> push(VERSION(fresh), 2, PLAIN)
    :: skip /* the header stays */
    fi;
    push(FIRST(fresh), FOREIGN, PLAIN);
    push(SECOND(fresh), FOREIGN, PLAIN)
  :: newest >= table_free_at ->
    if
    :: push(SLOT(1 - table), 1, PLAIN)
    :: push(SLOT(1 - table), 2, PLAIN)
    fi
  fi
}

proctype Writer() {
  byte fresh;
  do
  :: atomic {
      !over && operations > 0 && pending == 0 -> /* unlocking is a release */
      operations--;
      if
      :: replace()
      :: current != 0 -> remove()
      :: rehash()
      :: foreign()
      fi;
      fresh = 0
    }
  :: atomic { over || operations == 0 -> break }
  od
}

/* One look: `from` is the generation it began in. What is damaged or gone is never returned. */
#define LOOK(from, in_slot, its_version) \
  from = memory[GENERATION]; /* acquire */ \
  look_table = memory[TABLE]; /* acquire */ \
  in_slot = memory[SLOT(look_table)]; /* acquire */ \
  if \
  :: in_slot != 0 -> its_version = memory[VERSION(in_slot)] \
  :: in_slot == 0 -> its_version = 0 \
  fi

/* isStill, behind a load fence. */
#define STILL(from) (memory[GENERATION] - from <= 1)

/* A piece's load, and behind a load fence the look at the generation; where it moved, the second
 * look. The load of the next piece stands behind that look, but may come before it. */
#define PIECE(word, into, next_word, next_into) \
  if \
  :: early -> early = 0 \
  :: !early -> into = memory[word] \
  fi; \
  if \
  :: atomic { next_into = memory[next_word]; early = 1 } \
  :: skip \
  fi; \
  if \
  :: atomic { STILL(generation) -> skip } \
  :: atomic { !STILL(generation) -> moved = 1; early = 0 } \
  fi; \
  if \
  :: moved -> again() \
  :: !moved -> skip \
  fi

inline again() {
#ifdef OLD_SLOT
  again_generation = memory[GENERATION];
  again_slot = memory[SLOT(first_table)];
  if
  :: again_slot != 0 -> again_version = memory[VERSION(again_slot)]
  :: again_slot == 0 -> again_version = 0
  fi;
#else
  LOOK(again_generation, again_slot, again_version);
#endif
#ifndef NO_CHECK_AGAIN
  if /* a look that is not over in time is made again: it tells nothing */
  :: atomic { !STILL(again_generation) -> goto done }
  :: atomic { STILL(again_generation) -> skip }
  fi;
#endif
  if
  :: again_slot == 0 ->
    assert(seen & 1); /* gone: the answer is "absent" */
    goto done
  :: again_slot != 0 && again_slot != slot -> goto done /* starts again */
#ifndef NO_VERSION
  :: again_slot == slot && again_version != version -> goto done
  :: again_slot == slot && again_version == version ->
#else
  :: again_slot == slot ->
#endif
    generation = again_generation;
    again_generation = 0;
    again_slot = 0;
    again_version = 0;
    moved = 0
  fi
}

proctype Reader() {
  byte generation, slot, version, first, second;
  byte again_generation, again_slot, again_version;
  byte look_table, first_table;
  byte unused;
  bit moved, early;
  d_step { reading = 1; lookAround() };
  LOOK(generation, slot, version);
  first_table = look_table;
#ifndef NO_CHECK_BEFORE
  if
  :: atomic { slot != 0 && !early -> first = memory[FIRST(slot)]; early = 1 }
  :: skip
  fi;
  if
  :: atomic { !STILL(generation) -> goto done }
  :: atomic { STILL(generation) -> skip }
  fi;
#ifdef NO_FENCE_IN_LOOK
  if
  :: slot != 0 -> version = memory[VERSION(slot)]
  :: slot == 0 -> skip
  fi;
#endif
#endif
  if
  :: slot == 0 ->
    assert(seen & 1);
    goto done
  :: slot != 0 -> skip
  fi;
  PIECE(FIRST(slot), first, SECOND(slot), second);
  PIECE(SECOND(slot), second, SECOND(slot), unused);
  atomic {
    assert(first == version && second == version);
    assert(version < 8 && (seen & (1 << version)))
  };
done:
  atomic { over = 1 }
}

init {
  atomic {
    memory[SLOT(0)] = 1;
    memory[VERSION(1)] = 1;
    memory[FIRST(1)] = 1;
    memory[SECOND(1)] = 1;
    run Memory(); run Reader(); run Writer()
  }
}
