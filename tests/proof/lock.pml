/*
 * The user's lock: two who lock, one who writes, all of whom may die at any step, over one stripe.
 * Searched exhaustively by tests/proof/order.mjs.
 *
 * Each step is one store others can see, or one question to the kernel. The store of *pending* may
 * stay on its way until the stripe's lock is given back, for taking a lock waits for no store; all
 * else about the lock word is stored before anything that follows depends on it. The kernel drops a
 * dead process's range and stripe lock some time after its death, in any order.
 *
 * Left out: NEXT and the bells, on which nothing but speed depends, and more than one stripe, for
 * each is passed by itself.
 */

#ifndef LOCKS
#define LOCKS 3  /* attempts to lock */
#endif
#ifndef WRITES
#define WRITES 2
#endif
#ifndef DEATHS
#define DEATHS 2
#endif

mtype = { none, pending, held, abandoned }; /* LockWord.state; none: free */

mtype state = none;
bit owed;
byte serial;

byte user;                /* the range USER: its holder, 0: none */
byte stripe;              /* the stripe's lock */
bit half_written;         /* what a dead writer left, until recovery */
byte locks = LOCKS, writes = WRITES, deaths = DEATHS;

/* Ghosts. */
byte granted;             /* who has the lock as far as its program knows */
bit untold;               /* a holder did not release, and no later one has found that */

#define DIE :: deaths > 0 -> goto died

/* Map.enter: the next process after a dead one recovers first. */
inline enter() {
  if
  :: atomic { stripe == 0 -> stripe = me; half_written = 0 }
  DIE
  fi
}

inline leave() {
  atomic { assert(stripe == me); stripe = 0 }
}

/* UserLock.publish; the same word is stored in order. */
inline publish(next, owes, number) {
  if
  :: d_step { state = next; owed = owes; serial = number }
  DIE
  fi
}

/* UserLock.attempt, grant, release, and giving up. */
proctype Locker(byte me) {
  bit owes, in_time, on_its_way, keep;
  byte number;
again:
  do
  :: atomic { locks > 0 && user == 0 -> user = me; locks-- };
    d_step {
#ifdef FORGET_OWED
      owes = (state == held || state == abandoned);
#else
      owes = (state == held || state == abandoned || (state == pending && owed));
#endif
      number = serial + 1;
      on_its_way = 1
    };
#ifdef HELD_AT_ONCE
    publish(held, 0, number);
    on_its_way = 0;
#else
    if
    :: publish(pending, owes, number); on_its_way = 0
    :: skip /* later, but before the stripe is left */
    fi;
#endif
#ifdef NO_PASS
    if :: on_its_way -> publish(pending, owes, number); on_its_way = 0 :: else fi;
    in_time = 1;
#else
    if
    :: enter(); in_time = 1;
      if :: on_its_way -> publish(pending, owes, number); on_its_way = 0 :: else fi;
      leave()
    :: stripe != 0 -> in_time = 0; /* gave up waiting */
      if :: on_its_way -> publish(pending, owes, number); on_its_way = 0 :: else fi
    fi;
#endif
    if
    :: in_time ->
      if
      :: d_step {
          state = held; owed = 0; serial = number;
          assert(granted == 0);
          assert(owes == untold);
          granted = me; untold = 0
        }
      DIE
      fi;
      /* The section. A write of the holder's own: it is admitted by its serial. */
      enter();
      if :: half_written = 1 DIE fi;
      assert(granted == me);
      if :: half_written = 0 DIE fi;
      leave();
      if :: keep = owes :: keep = 0 fi;
#ifdef RANGE_FIRST
      if :: user = 0 DIE fi;
#endif
      if
      :: d_step { /* crash.replace: exactly what this holder stored */
          granted = 0;
          untold = untold || keep;
          if
          :: state == held && serial == number -> state = (keep -> abandoned : none); owed = 0
          :: else
          fi
        }
      DIE
      fi
    :: !in_time ->
#ifdef LOSE_ON_GIVING_UP
      publish(none, 0, number)
#else
      publish((owes -> abandoned : none), 0, number)
#endif
    fi;
#ifndef RANGE_FIRST
    if :: user = 0 DIE fi;
#endif
    d_step { owes = 0; number = 0; in_time = 0; keep = 0 }
  :: locks == 0 -> break
  od;
  goto done;
died:
  atomic { /* what it had stored arrives */
    deaths--;
    if
    :: granted == me -> granted = 0; untold = 1
    :: else
    fi
  };
  do /* the kernel tidies up, in any order */
  :: stripe == me -> stripe = 0
  :: user == me -> user = 0
  :: stripe != me && user != me -> break
  od;
  atomic { owes = 0; number = 0; in_time = 0; keep = 0; on_its_way = 0 };
  goto again;
done:
  skip
}

/* Operation.lockToWrite and UserLock.giveWay. */
proctype Writer(byte me) {
  mtype seen;
  bit seen_owed;
  byte seen_serial;
again:
  do
  :: writes > 0 ->
#ifdef LOOK_BEFORE_STRIPE
    d_step { seen = state; seen_owed = owed; seen_serial = serial };
#endif
    enter();
#ifndef LOOK_BEFORE_STRIPE
    d_step { seen = state; seen_owed = owed; seen_serial = serial };
#endif
    if
    :: seen == none || seen == abandoned ->
      if :: half_written = 1 DIE fi;
      assert(granted == 0); /* the commit: no process has the lock */
      if :: half_written = 0 DIE fi;
      atomic { leave(); writes-- }
    :: seen == pending || seen == held ->
      leave();
      if
      :: user == 0 ->
        if
        :: d_step { /* crash.replace: exactly the word that was read */
#ifdef REPLACE_ANY
            if
            :: true ->
#else
            if
            :: state == seen && owed == seen_owed && serial == seen_serial ->
#endif
              state = (seen == pending && !seen_owed -> none : abandoned);
              owed = 0
            :: else
            fi
          }
        DIE
        fi;
#ifdef WRITE_AT_ONCE
        enter();
        assert(granted == 0);
        atomic { leave(); writes-- }
#endif
      :: user != 0 -> skip
      fi
    fi;
    d_step { seen = 0; seen_owed = 0; seen_serial = 0 }
  :: writes == 0 -> break
  od;
  goto done;
died:
  atomic {
    deaths--;
    if
    :: stripe == me -> stripe = 0
    :: else
    fi;
    seen = 0; seen_owed = 0; seen_serial = 0
  };
  goto again;
done:
  skip
}

init { atomic { run Locker(1); run Locker(2); run Writer(3) } }
