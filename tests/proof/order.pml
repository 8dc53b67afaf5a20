/*
 * One stripe of a map under a weak memory: writers that die at any store, a lock-free reader,
 * retired blocks and their reuse. Searched exhaustively by tests/proof/order.mjs.
 *
 * Memory. What a reader looks at (the generation, the table word, both words of each block) is
 * stored through a buffer, and leaves it in any order that the code does not forbid: stores to one
 * word stay in order, a release store leaves behind everything older, and nothing passes a store
 * fence. A release holds nothing back that comes after it; that is what the fences are for. A
 * reader's loads may happen in any order after an acquire load and before a load fence. What only
 * the owner of the lock looks at is stored at once: the lock is let go when the buffer is empty,
 * since unlocking is a release and the kernel passes on a dead owner's lock after its last store.
 *
 * Shape. A block has two words. As a table it has one slot (word 0); as an entry both words hold
 * its value, so that a torn or recycled one shows; free, word 0 is its link. So every kind of store
 * to a block is there, and every kind of thing may lie where another was.
 *
 * What is enough. One process plays all writers: the lock lets one in at a time, and none keeps
 * anything between two visits. A visit is one step, at the end of which its stores are on their
 * way, or those before its death: what a writer stores depends on nothing that happens meanwhile.
 * One read is enough, for readers store nothing; it may begin at every moment, after any number of
 * operations (`forget`), and OPS visits and DEATHS more may end, or not, until it does.
 *
 * Left out: probing over several slots, chunks and the pool, the counters (they are derived, and
 * recovery counts them anew), batches of more than two blocks.
 */

#ifndef OPS
#define OPS 2      /* visits that end while the read goes on */
#endif
#ifndef DEATHS
#define DEATHS 1   /* since the last visit that ended before the read, or in it */
#endif
#ifndef BLOCKS
#define BLOCKS 4
#endif
#define BUFFER 16  /* stores that may be on their way */

/* The addresses of what readers look at. */
#define GENERATION 0
#define TABLE 1
#define FIRST(b) (2 + 2 * ((b) - 1)) /* blocks count from 1, like granules: 0 is none */
#define SECOND(b) (FIRST(b) + 1)
#define WORDS (2 + 2 * BLOCKS)

/* What words hold: 0, values from 1, links, and names of blocks (slots and table words). */
#define LINK(b) (40 + (b))
#define NAME(b) (20 + (b))
#define isName(w) ((w) > 20 && (w) <= 20 + BLOCKS)
#define blockOf(w) ((w) - 20)

#define PAST 19 /* a value from before the read */

/* Kinds of stores. */
#define PLAIN 0
#define RELEASE 1
#define FENCE 2

/* The faults that must be found: order.mjs defines one of them. */
#ifdef SLOT_PLAIN
#define COMMIT PLAIN
#else
#define COMMIT RELEASE
#endif
#ifdef BUMP_PLAIN
#define BUMP PLAIN
#else
#define BUMP RELEASE
#endif
#ifdef IGNORE_WRITER_WORD
#define OR_WRITER_WORD
#define WRITER_WORD_CLEAR true
#else
#define OR_WRITER_WORD || writer_word
#define WRITER_WORD_CLEAR !writer_word
#endif
#ifdef TOLERATE_TWO
#define TOLERATED 2
#else
#define TOLERATED 1
#endif
#ifdef RECOVERY_BUMPS_ONCE
#define RECOVERY_BUMP 1
#else
#define RECOVERY_BUMP 2
#endif

byte memory[WORDS];

byte pending_at[BUFFER], pending_value[BUFFER], pending_kind[BUFFER];
byte pending;              /* how many */

/* The lock and derived words; see above for why they are not buffered. */
bit locked, owner_died;
bit writer_word;
byte newest;               /* the generation as its only writer knows it */
byte list;                 /* Stripe.lists of the one size there is */
byte retired_0[2], retired_1[2], count_0, count_1;

byte operations = OPS, deaths = DEATHS, next_value = 2;

/* Ghosts: what the proof knows and no process does. */
byte stored[BLOCKS + 1];   /* the value last filled into a block */
byte current = 1;          /* the value a reader would find at this moment; 0: none */
byte before = 1, after = 1; /* an operation begun and not known to have ended */
hidden byte v, spot, places; /* for use inside one step */
bit reading;               /* the read has begun: from here on operations are counted */
bit over;                  /* it has ended, or will fail: nothing that comes later shows more */
byte first_look, last_look; /* the generations it saw */
bit first_looked, looked;
byte slot;                 /* the slot it found, 0 before */
bit watching;              /* the reader is between its load of the table word and of the slot */
byte seen;                 /* the values current meanwhile, a bit each */

inline lookAround() {
  current = 0;
  if
  :: isName(memory[TABLE]) && isName(memory[FIRST(blockOf(memory[TABLE]))]) ->
    current = stored[blockOf(memory[FIRST(blockOf(memory[TABLE]))])]
  :: else
  fi;
  if
  :: watching -> seen = seen | (1 << current)
  :: else
  fi
}

/* What the owner of the lock itself reads: its own stores first. */
inline view(at, result) {
  result = memory[at];
  v = 0;
  do
  :: v < pending && pending_kind[v] != FENCE && pending_at[v] == at ->
    result = pending_value[v]; v++
  :: v < pending && !(pending_kind[v] != FENCE && pending_at[v] == at) -> v++
  :: v == pending -> break
  od;
  v = 0
}

inline push(at, value, kind) {
  pending_at[pending] = at;
  pending_value[pending] = value;
  pending_kind[pending] = kind;
  pending++
}

/* One step of a writer: it makes this store, or is dead before it. */
#define STEP(stores) if :: d_step { stores } :: deaths > 0 -> goto died fi
#define STORE(at, value, kind) \
  if \
  :: d_step { pending < BUFFER -> push(at, value, kind) } \
  :: deaths > 0 -> goto died \
  fi
#define PROMOTE_BY(count) \
  if \
  :: d_step { \
      pending < BUFFER -> newest = newest + count; push(GENERATION, newest, BUMP) \
    } \
  :: deaths > 0 -> goto died \
  fi
/* crash.storeFence; with nothing on its way it holds nothing back. */
#define STORE_FENCE \
  if \
  :: d_step { pending == 0 -> skip } \
  :: d_step { pending > 0 && pending < BUFFER -> push(0, 0, FENCE) } \
  fi

/* Whether the store at `k` of the buffer must go before the one at `i`. */
#define holds(k, i) \
  (pending_kind[k] == FENCE || pending_at[k] == pending_at[i] || pending_kind[i] == RELEASE)

/* Takes the i-th out of the buffer, and a fence that holds nothing back any more. */
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
  pending_kind[pending] = 0
}

inline reach(i) {
  memory[pending_at[i]] = pending_value[i];
  close(i);
  do
  :: pending > 0 && pending_kind[0] == FENCE -> close(0)
  :: !(pending > 0 && pending_kind[0] == FENCE) -> break
  od;
  over = over || (first_looked && !looked && memory[GENERATION] - first_look > TOLERATED);
  lookAround()
}

/* Whether the reader could still tell if this word changes now or later. One where it cannot is
 * taken as soon as it may go, which holds nothing back. */
#define watched(at) \
  (!over && (slot == 0 || at == GENERATION || \
    at == FIRST(blockOf(slot)) || at == SECOND(blockOf(slot))))

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
        :: !may_go || watched(pending_at[i]) -> i++
        fi
      :: i >= pending -> break
      od;
      i = 0;
      may_go = 0
    }
  od
}

inline note(word, block) {
  if
  :: word != 0 ->
    assert(isName(word));
    assert(!(places & (1 << block)));
    places = places | (1 << block)
  :: word == 0
  fi
}

/* Every block in one place: reached by the table, free, or retired. Asked beside no writer. */
inline checkPlaces() {
  places = 0;
  spot = 0;
  note(memory[TABLE], blockOf(memory[TABLE]));
  if
  :: isName(memory[TABLE]) && memory[FIRST(blockOf(memory[TABLE]))] != 0 ->
    spot = memory[FIRST(blockOf(memory[TABLE]))];
    note(spot, blockOf(spot))
  :: else
  fi;
  v = 0;
  do
  :: v < count_0 -> note(retired_0[v], blockOf(retired_0[v])); v++
  :: v >= count_0 -> break
  od;
  v = 0;
  do
  :: v < count_1 -> note(retired_1[v], blockOf(retired_1[v])); v++
  :: v >= count_1 -> break
  od;
  spot = list;
  do
  :: spot != 0 ->
    note(NAME(spot), spot);
    assert(memory[FIRST(spot)] >= LINK(0) && memory[FIRST(spot)] <= LINK(BLOCKS));
    spot = memory[FIRST(spot)] - LINK(0)
  :: spot == 0 -> break
  od;
  assert(places == (1 << (BLOCKS + 1)) - 2)
}

/* Makes what no process can tell apart the same, so that any number of operations may come before
 * the read: the generation begins at 0 again, the present value is 1, blocks are numbered by where
 * they are, and what no process may read is PAST. Assumes that every block is in one place. */
inline forget() {
  before = current;
  after = current;
  if
  :: !reading ->
    deaths = DEATHS;
    current = (current == 0 -> 0 : 1);
    before = current;
    after = current;
    next_value = 2;
    newest = 0;
    memory[GENERATION] = 0;
    spot = (memory[TABLE] == 0 -> 0 : 1 + current);
    memory[TABLE] = (spot > 0 -> NAME(1) : 0);
    v = 1;
    do
    :: v <= BLOCKS ->
      memory[FIRST(v)] = PAST;
      memory[SECOND(v)] = PAST;
      stored[v] = 0;
      v++
    :: v > BLOCKS -> break
    od;
    if
    :: spot == 2 ->
      memory[FIRST(1)] = NAME(2);
      memory[FIRST(2)] = 1;
      memory[SECOND(2)] = 1;
      stored[2] = 1
    :: spot == 1 -> memory[FIRST(1)] = 0
    :: else
    fi;
    v = 0;
    do
    :: v < 2 ->
      retired_1[v] = (v < count_1 -> NAME(spot + 1 + v) : 0);
      retired_0[v] = (v < count_0 -> NAME(spot + 1 + count_1 + v) : 0);
      v++
    :: v >= 2 -> break
    od;
    spot = spot + count_0 + count_1 + 1;
    list = (spot <= BLOCKS -> spot : 0);
    do
    :: spot <= BLOCKS ->
      memory[FIRST(spot)] = LINK((spot < BLOCKS -> spot + 1 : 0));
      spot++
    :: spot > BLOCKS -> break
    od
  :: else
  fi;
  spot = 0;
  v = 0
}

/* heap.give */
inline give(block) {
  STORE(FIRST(block), LINK(list), PLAIN);
  STEP(list = block)
}

/* heap.advance: a new generation, the older limbo list becomes free, the newer one older. These are
   free ones here: what tells them apart is only where the next writer finds them. */
inline advance() {
#ifndef NO_BUMP
  PROMOTE_BY(1);
#endif
#ifndef NO_BUMP_FENCE
  STORE_FENCE;
#endif
  i = 0;
  do
  :: i < count_1 -> give(blockOf(retired_1[i])); i++
  :: i >= count_1 -> break
  od;
#ifdef ONE_GENERATION
  i = 0;
  do
  :: i < count_0 -> give(blockOf(retired_0[i])); i++
  :: i >= count_0 -> break
  od;
  STEP(count_1 = 0);
#else
  STEP(retired_1[0] = retired_0[0]);
  STEP(retired_1[1] = retired_0[1]);
  STEP(count_1 = count_0);
#endif
  STEP(count_0 = 0);
  i = 0
}

/* heap.retire, and whether the batch is full by bytes, which may be at any block. */
inline retire(block) {
  STEP(retired_0[count_0] = NAME(block));
  STEP(count_0++);
  if
  :: count_0 < 2 -> skip
  :: advance()
  fi
}

/* space.alloc: from the list; else what is retired comes back after two generations. */
inline take(block) {
  if
  :: list == 0 -> advance(); advance()
  :: list != 0 -> skip
  fi;
  block = list;
  if
  :: block != 0 ->
    d_step { view(FIRST(block), word); v = 0 };
    STEP(list = word - LINK(0))
  :: block == 0 -> skip
  fi
}

/* recovery.rebuild: counts nothing, reads the truth, and frees what that does not reach. */
inline rebuild() {
#ifndef NO_RECOVERY_BUMP
  PROMOTE_BY(RECOVERY_BUMP);
#endif
#ifndef NO_RECOVERY_FENCE
  STORE_FENCE;
#endif
  d_step {
    view(TABLE, word);
    table = (word == 0 -> 0 : blockOf(word));
    entry = 0;
    if
    :: table != 0 -> view(FIRST(table), word); entry = (word == 0 -> 0 : blockOf(word))
    :: table == 0
    fi;
    v = 0
  }
#ifndef NO_RESET
  STEP(count_0 = 0);
  STEP(count_1 = 0);
  STEP(list = 0);
#endif
  i = 1;
  do
  :: i <= BLOCKS && i != table && i != entry -> give(i); i++
  :: i <= BLOCKS && (i == table || i == entry) -> i++
  :: i > BLOCKS -> break
  od;
  i = 0
}

/* Operation.recover: the writer word first, then everything that is derived. */
inline recover() {
  STEP(writer_word = 1);
  rebuild();
  assert(current == before);
  STEP(writer_word = 0)
}

/* Operation.rehash: a new table with the old one's slot, and one store that makes it the table. */
inline rehash() {
  take(fresh);
  if
  :: fresh != 0 ->
    d_step { view(FIRST(table), word) };
#ifdef TABLE_BEFORE_FILL
    STORE(TABLE, NAME(fresh), COMMIT);
#endif
    STORE(FIRST(fresh), word, PLAIN);
#ifndef TABLE_BEFORE_FILL
    STORE(TABLE, NAME(fresh), COMMIT);
#endif
    d_step { spare = table; table = fresh };
    retire(spare)
  :: fresh == 0 -> skip
  fi
}

/* Operation.insert, over the one key there is: fill, commit, retire what was there. */
inline insert() {
  take(fresh);
  if
  :: fresh != 0 ->
    d_step {
      view(FIRST(table), word);
      entry = (word == 0 -> 0 : blockOf(word));
      stored[fresh] = next_value;
      before = current;
      after = next_value;
      next_value++
    };
#ifdef RETIRE_BEFORE_COMMIT
    if
    :: entry != 0 -> retire(entry)
    :: entry == 0 -> skip
    fi;
#endif
#ifdef SLOT_BEFORE_FILL
    STORE(FIRST(table), NAME(fresh), COMMIT);
#endif
    STORE(FIRST(fresh), stored[fresh], PLAIN);
    STORE(SECOND(fresh), stored[fresh], PLAIN);
#ifndef SLOT_BEFORE_FILL
    STORE(FIRST(table), NAME(fresh), COMMIT);
#endif
#ifndef RETIRE_BEFORE_COMMIT
    if
    :: entry != 0 -> retire(entry)
    :: entry == 0 -> skip
    fi
#endif
  :: fresh == 0 -> skip
  fi
}

/* Operation.remove: a tombstone, which with one slot is as good as empty. */
inline remove() {
  d_step {
    view(FIRST(table), word);
    entry = (word == 0 -> 0 : blockOf(word));
    before = current;
    after = 0
  };
  if
  :: entry != 0 ->
    STORE(FIRST(table), 0, COMMIT);
    retire(entry)
  :: entry == 0 -> after = before
  fi
}

/* Map.clear: no table, and what it reached is then found free. */
inline clear() {
  d_step { before = current; after = 0 };
  STORE(TABLE, 0, COMMIT);
  rebuild()
}

/* Operation.makeRoom where there is no table. */
inline firstTable() {
  take(fresh);
  if
  :: fresh != 0 ->
    STORE(FIRST(fresh), 0, PLAIN);
    STORE(TABLE, NAME(fresh), COMMIT);
    table = fresh
  :: fresh == 0 -> skip
  fi
}

inline operate() {
  d_step { view(TABLE, word); table = (word == 0 -> 0 : blockOf(word)) };
  if
  :: table == 0 -> firstTable(); if :: table != 0 -> insert() :: table == 0 -> skip fi
  :: table != 0 -> insert()
  :: table != 0 -> rehash(); insert()
  :: table != 0 -> remove()
  :: table != 0 -> clear()
  fi
}

proctype Writer() {
  byte i, word, table, entry, fresh, spare;
again:
  do
  :: atomic {
      !over && !locked && operations > 0 ->
      locked = 1;
      /* Operation.enter: a mutex tells of a dead owner, a kernel lock does not. */
      if
      :: owner_died OR_WRITER_WORD -> recover()
      :: owner_died && WRITER_WORD_CLEAR -> skip
      :: !owner_died && WRITER_WORD_CLEAR -> skip
      fi;
      owner_died = 0;
      /* Operation.begin */
#ifndef LATE_WRITER_WORD
      STEP(writer_word = 1);
#endif
      operate();
#ifdef LATE_WRITER_WORD
      STEP(writer_word = 1);
#endif
      STEP(writer_word = 0)
    };
    /* Operation.unlock: a release, so everything before it is in memory. */
    d_step {
      pending == 0 ->
      checkPlaces();
      forget();
      operations = operations - reading;
      locked = 0;
      i = 0; word = 0; table = 0; entry = 0; fresh = 0; spare = 0
    }
  :: over || (!locked && operations == 0) -> break
  od;
  goto done;
died:
  /* The kernel lets the lock go after the last store. */
  atomic {
    pending == 0 ->
    assert(current == before || current == after);
    before = current;
    after = current;
    deaths--;
    locked = 0;
    owner_died = 1;
    i = 0; word = 0; table = 0; entry = 0; fresh = 0; spare = 0
  };
  goto again;
done:
  skip
}

/* Map.get. What it copied is returned only if the generation had not moved by two. */
proctype Reader() {
  byte table, word_0, word_1;
  bit copied_0, copied_1, damaged;
#ifdef FIRST_LOOK_LATE
#define LOOK_FIRST :: atomic { !first_looked -> first_look = memory[GENERATION]; first_looked = 1 }
#define LOOKED_FIRST first_looked
#else
#define LOOK_FIRST
#define LOOKED_FIRST true
  /* acquire */
  atomic { first_look = memory[GENERATION]; first_looked = 1; reading = 1 }
#endif
  d_step { reading = 1; table = memory[TABLE]; watching = 1; seen = 1 << current }; /* acquire */
  if
  :: table == 0 -> copied_0 = 1; copied_1 = 1
  :: table != 0 ->
    slot = memory[FIRST(blockOf(table))]; /* acquire, in tables.find */
    if
    :: slot == 0 -> copied_0 = 1; copied_1 = 1
    :: slot != 0 && !isName(slot) -> slot = 0; damaged = 1; copied_0 = 1; copied_1 = 1
    :: isName(slot) -> skip
    fi
  fi;
  watching = 0;
  /* crash.copyOut, in any order; then crash.loadFence and the last look. */
  do
  :: atomic { !copied_0 -> word_0 = memory[FIRST(blockOf(slot))]; copied_0 = 1 }
  :: atomic { !copied_1 -> word_1 = memory[SECOND(blockOf(slot))]; copied_1 = 1 }
  LOOK_FIRST
#ifdef NO_LOAD_FENCE
  :: atomic { !looked -> last_look = memory[GENERATION]; looked = 1 }
#else
  :: atomic {
      !looked && copied_0 && copied_1 && LOOKED_FIRST ->
      last_look = memory[GENERATION]; looked = 1
    }
#endif
  :: over || (copied_0 && copied_1 && looked && LOOKED_FIRST) -> break
  od;
  atomic {
    if
    :: !over && last_look - first_look <= TOLERATED ->
      assert(!damaged);
      assert(word_0 == word_1);
      assert(word_0 < 8 && (seen & (1 << word_0)))
    :: else -> skip
    fi;
    over = 1
  }
}

/* A map with one entry, and the rest free. */
init {
  atomic {
    memory[TABLE] = NAME(1);
    memory[FIRST(1)] = NAME(2);
    memory[FIRST(2)] = 1;
    memory[SECOND(2)] = 1;
    stored[2] = 1;
    list = 3;
    memory[FIRST(3)] = LINK(4);
    memory[FIRST(4)] = LINK((BLOCKS > 4 -> 5 : 0));
    if
    :: BLOCKS > 4 -> memory[FIRST(5)] = LINK(0)
    :: else
    fi;
    run Memory(); run Reader(); run Writer()
  }
}
