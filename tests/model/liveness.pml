/*
 * Liveness: with nodes that report and a leader that lives, an unused file is
 * purged in the end; so are two files, one after the other; and so is a file that
 * was taken while it was in use, restored, and is unused again (-DRESTORED).
 *
 * Run with pan -a -f (weak fairness).  Rounds are unbounded: whenever no number in
 * use needs the lowest one, all of them are counted down by one.
 * docs/protocol.md, "Rounds"; sharedcache/core/rounds.py, raise_helps.
 */
#ifndef FILES
#define FILES 1
#endif
#ifndef USES
#define USES 1
#endif
#define MAXROUND 6
#define SEES_APART

#include "node.pml"

bit named = 1;        /* the file bears its cache name */
bit taken;            /* it is quarantined, and recorded */
byte entry_round;
byte purged;
byte at = NOWHERE;    /* where the guest is */
byte uses = USES;
byte moves = 1;
bit restored;         /* a file was taken while in use, and was restored */
bit asked;            /* its record's mark: it gets a new leaf first */
byte r1[NODES];       /* the round that a look under way has read */

/* Guests start, migrate and end; each ends in the end. */
active proctype guest() {
  do
  :: d_step { at == NOWHERE && uses > 0 && named -> at = 0; uses--; HEAR(0) }
  :: d_step { at == 0 && moves > 0 -> at = 1; moves--; HEAR(1) }
  :: d_step { at != NOWHERE -> at = NOWHERE }
  :: at == NOWHERE && uses == 0 -> break
  od
}

proctype agent(byte n) {
  byte again;
  bit saw, used, seen, lost;
  do
  :: d_step { r1[n] = round };
     d_step {
       saw = taken && named;
       used = (at == n);
       /* A used name that is gone is restored: it waits again. */
       if
       :: used && !named && taken -> 
          named = 1; entry_round = round + 1; restored = 1; asked = 1
       :: else
       fi
     };
     d_step {
       take_look(n, r1[n], lost, used, saw);
       publish(n, used, saw, 0);
       r1[n] = 0; saw = 0; used = 0
     }
  od
}

#define NOW (last[0].now || last[1].now)
#define OVER (last[0].since || last[1].since)
#define SEES (last[0].sees || last[1].sees)
#define REPORTED (last[0].given && last[1].given)

/* raise_helps, and the fresh reports that a file waits for whose use is over. */
#ifdef M_NO_FRESH
#define WAITS_FOR_REPORTS false
#else
#define WAITS_FOR_REPORTS (named && !NOW && OVER)
#endif
#define HELPS ((taken && !asked && !NOW && !SEES && !CONFIRMED(entry_round)) || \
               WAITS_FOR_REPORTS)

#define LOW(x) ((x) != 1)
#define SHIFTABLE (round > 1 && LOW(r1[0]) && LOW(r1[1]) && \
  LOW(last[0].upto) && LOW(last[1].upto) && \
  LOW(last[0].since_round) && LOW(last[1].since_round) && \
  LOW(before[0].upto) && LOW(before[1].upto) && \
  LOW(before[0].reread) && LOW(before[1].reread) && \
  LOW(present[0].upto) && LOW(present[1].upto) && \
  LOW(present[0].reread) && LOW(present[1].reread))
#define DOWN(x) x = (x > 1 -> x - 1 : x)

inline shift() {
  if
  :: SHIFTABLE ->
     round--; DOWN(r1[0]); DOWN(r1[1]); DOWN(entry_round);
     DOWN(last[0].upto); DOWN(last[1].upto);
     DOWN(last[0].since_round); DOWN(last[1].since_round);
     DOWN(before[0].upto); DOWN(before[1].upto);
     DOWN(before[0].reread); DOWN(before[1].reread);
     DOWN(present[0].upto); DOWN(present[1].upto);
     DOWN(present[0].reread); DOWN(present[1].reread)
  :: else
  fi
}

active proctype leader() {
  do
  :: d_step { REPORTED && MAY_RAISE && HELPS && round < MAXROUND -> round++; shift() }
  /* Quarantine, and again what was restored: the later entry's wait counts. */
  :: d_step { REPORTED && named && !NOW && !OVER && purged < FILES ->
       named = 0; taken = 1; entry_round = round + 1 }
#ifndef M_NO_RENEWAL
  :: d_step { asked -> asked = 0; entry_round = round + 1 }
#endif
  :: d_step { taken && !asked && !named && CONFIRMED(entry_round) ->
       assert(at == NOWHERE);
       taken = 0; entry_round = 0; purged++;
       /* The next file, under the same name. */
       named = (purged < FILES) }
  :: purged == FILES -> break
  od
}

init { atomic { run agent(0); run agent(1) } }

#ifdef RESTORED
ltl restored_and_purged { [] (restored -> <> (purged == FILES)) }
#elif defined(NEVER_RESTORED)
/* Fails, which shows that the property above is not an empty one. */
ltl never_restored { [] !restored }
#else
ltl purged_in_the_end { <> (purged == FILES) }
#endif
