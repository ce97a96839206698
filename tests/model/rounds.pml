/*
 * Rounds: two nodes, a guest that starts, migrates and ends at any moment, names
 * that stay in a client's cache, events that are lost, one leader that may
 * rename at any moment, even a name in use.
 *
 * Checked: I1, the file is unlinked only if no node uses it.
 * docs/protocol.md, "The agent" (2, 3) and "Rounds".
 */
#ifndef MAXROUND
#define MAXROUND 4
#endif
#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef STARTS
#define STARTS 1
#endif

#include "node.pml"

bit named = 1;        /* the file bears its cache name */
bit cached[NODES] = 1; /* the node's client still has the name in its cache */
bit listed[NODES];    /* the node's client has a listing that shows the entry */
bit taken;            /* the manifest's entry is recorded as taken */
byte entry_round;
bit unlinked;
#ifdef MOVES
byte moves = MOVES;
#define MAY_MOVE && moves > 0 -> moves--
#else
#define MAY_MOVE -> skip
#endif
byte at = NOWHERE;    /* where the guest is */

/* A guest starts by its base's name, or by the name in its client's cache. */
#define OPENS(n) (!unlinked && (named || cached[n]))

active proctype guest() {
  byte starts = 0;
  do
  /* The nodes are alike, so the guest may as well start on the first. */
  :: d_step { at == NOWHERE && starts < STARTS && OPENS(0) ->
       at = 0; starts++; HEAR(0) }
  /* It migrates: the use leaves one node at the moment it is on the other. */
  :: d_step { at == 0 MAY_MOVE; at = 1; HEAR(1) }
  :: d_step { at == 1 MAY_MOVE; at = 0; HEAR(0) }
  :: d_step { at != NOWHERE -> at = NOWHERE }
  od
}

/* Events are lost: an agent or its libvirtd is restarted, perhaps with
   ZooKeeper out of reach for as long as it likes. */
active proctype losses() {
  byte left = LOSSES;
  do
  :: d_step { left > 0 && !deaf[0] -> deaf[0] = 1; left-- }
  :: d_step { left > 0 && !deaf[1] -> deaf[1] = 1; left-- }
  od
}

proctype agent(byte n) {
  byte r1, again;
  bit known, saw, used, lost, seen;
  do
  :: true ->
     TOGETHER {
#ifdef M_MANIFEST_FIRST
       /* Mutant: the manifest is read before the round. */
       known = taken;
     }
     TOGETHER {
       r1 = round;
#else
       r1 = round;
       known = taken;
#endif
     }
     TOGETHER {
       /* Open the cache name and see that it is gone here; a cached name may
          still lead to the inode, and is seen, or is found to be gone. */
       atomic {
#ifdef M_LISTING
         /* Mutant: the entries are those that a cached listing shows. */
         known = listed[n];
#endif
#ifdef M_NO_GONE_CHECK
         known = 0;
#endif
         if
         :: !known || (!named && !cached[n])
         :: known && (named || cached[n]) -> saw = 1
         :: known && !named && cached[n] -> cached[n] = 0
         fi;
         known = 0
       }
       /* Events are heard again before the sources are asked. */
       d_step { lost = deaf[n]; deaf[n] = 0 }
       used = (at == n);
     }
#ifdef M_ROUND_AFTER
     /* Mutant: the round that a report is of is read after the looks. */
     r1 = round;
#endif
     if
     :: d_step {
          take_look(n, r1, lost, used, saw);
#ifndef FINE
          publish(n, used, saw, 0);
          r1 = 0; saw = 0; used = 0; lost = 0
#endif
        }
#ifdef FINE
        if
        :: d_step { publish(n, used, saw, 0) }
        :: true /* The agent dies before it publishes. */
        fi;
        d_step { r1 = 0; saw = 0; used = 0; lost = 0 }
#endif
     /* The agent dies within its look; the next one begins with a new look. */
     :: d_step { deaf[n] -> r1 = 0; saw = 0; used = 0; lost = 0 }
     fi
  od
}

active proctype leader() {
  byte stale;
  /* Rename at any moment: I1 does not rest on why a file is taken. */
  do
  :: MAY_RAISE && round < MAXROUND -> round++
  :: true -> break
  od;
  stale = round + 1;
  named = 0;
  do
  :: MAY_RAISE && round < MAXROUND -> round++
  :: true -> break
  od;
  /* The record is assigned to the next round in one transaction. */
  atomic {
    taken = 1;
#if defined(M_STALE_ROUND)
    /* Mutant: the next round as it was before the rename, not checked. */
    entry_round = stale;
#elif defined(M_PRESENT_ROUND)
    /* Mutant: the present round instead of the next one. */
    entry_round = round;
#else
    entry_round = round + 1;
#endif
    stale = 0
  }
  do
  :: d_step { MAY_RAISE && round < MAXROUND -> round++ }
  :: d_step { CONFIRMED(entry_round) -> unlinked = 1; assert(at == NOWHERE) } ; break
  od
}

/* Listings are cached: a client shows a new entry when it likes. */
#ifdef M_LISTING
active proctype listing() {
  do
  :: d_step { !named && !listed[0] -> listed[0] = 1 }
  :: d_step { !named && !listed[1] -> listed[1] = 1 }
  od
}
#endif

init { atomic { run agent(0); run agent(1) } }
