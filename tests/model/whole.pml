/*
 * Everything at once, larger than can be exhausted: bitstate only.  Two nodes with
 * agents that restore, lose events and die, a guest on each that migrates, names in
 * clients' caches, a download, a foreign cleaner, two leaders that read one thing
 * after the other, take over, seal and may stop for ever.
 *
 * Checked: I1 at every unlink, I2 at every rename and unlink.
 * docs/protocol.md as a whole; the other configurations say each rule in full.
 */
#ifndef MAXROUND
#define MAXROUND 5
#endif
#ifndef LOSSES
#define LOSSES 2
#endif
#ifndef STARTS
#define STARTS 3
#endif
#ifndef FOREIGN
#define FOREIGN 1
#endif
#ifndef LEADERS
#define LEADERS 2
#endif
#ifndef RESTORES
#define RESTORES 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#define FINE

#include "node.pml"

#define ABSENT 0
#define DIRECTORY 1
#define SEALED 2

/* Storage: inode 1's two possible names, and inode 2 of a download. */
byte name = 1;
byte place;             /* the epoch in whose directory inode 1 lies; 0 is none */
byte at[3];             /* epochs/<e> */
bit cached[NODES];      /* a client still has inode 1 under its cache name */
byte lock;
byte acting;

/* ZooKeeper. */
byte epoch;
byte entry_place;       /* the manifest's entry: where it lies; 0 is no entry */
byte entry_round;
byte base_links;
byte authorised;        /* the epoch that may unlink; 0 is none */
bit veto_same[3], entry_same[3];
bit auth_same[NODES];
bit intends[NODES];     /* in the durable report */
bit accepted[NODES];    /* a restore may link now */

bit asked;              /* the entry's mark: a link of its leaf was asked for */
bit stale[NODES];       /* the leaf that an agent has read is not the file's */
byte late;              /* a dead agent's link under way: the epoch of its leaf */

byte bound[NODES];      /* the inode that a guest uses; 0 is no guest */
byte starts = STARTS;
byte deaths = DEATHS;

#define LINKS ((place != 0) + (name == 1))
#define VETO veto_same[1] = 0; veto_same[2] = 0
#define CHANGED entry_same[1] = 0; entry_same[2] = 0

active proctype guests() {
  do
  :: d_step { starts > 0 && name != 0 && bound[0] == 0 ->
       starts--; bound[0] = name; HEAR(0) }
  :: d_step { starts > 0 && name != 0 && bound[1] == 0 ->
       starts--; bound[1] = name; HEAR(1) }
  :: d_step { starts > 0 && name != 1 && cached[0] && place != 0 && bound[0] == 0 ->
       starts--; bound[0] = 1; HEAR(0) }
  :: d_step { starts > 0 && name != 1 && cached[1] && place != 0 && bound[1] == 0 ->
       starts--; bound[1] = 1; HEAR(1) }
  :: d_step { bound[0] != 0 && bound[1] == 0 -> bound[1] = bound[0]; bound[0] = 0; HEAR(1) }
  :: d_step { bound[1] != 0 && bound[0] == 0 -> bound[0] = bound[1]; bound[1] = 0; HEAR(0) }
  :: d_step { bound[0] != 0 -> bound[0] = 0 }
  :: d_step { bound[1] != 0 -> bound[1] = 0 }
  od
}

active proctype losses() {
  byte left = LOSSES;
  do
  :: d_step { left > 0 && !deaf[0] -> deaf[0] = 1; left-- }
  :: d_step { left > 0 && !deaf[1] -> deaf[1] = 1; left-- }
  od
}

active proctype download() {
  byte left = FOREIGN;
  do
  :: atomic { left > 0 && lock == 0 && name == 0 -> lock = 1; left-- };
     if
     :: d_step { name == 0 -> name = 2; lock = 0 }
     :: d_step { name != 0 -> lock = 0 }
     fi
  od
}

active proctype foreign() {
  byte left = FOREIGN;
  do
  :: d_step { left > 0 && (name == 2 || (name == 1 && place != 0)) -> left--; name = 0 }
  od
}

/* The link of an agent that died lands when it likes, if its leaf is there still. */
active proctype straggler() {
  do
  :: d_step { late != 0 ->
       if
       :: place == late && name == 0 -> name = 1
       :: else
       fi;
       late = 0 }
  od
}

proctype agent(byte n) {
  byte r1, again, here;
  bit known, saw, used, lost, seen, ok;
  do
  :: true ->
     r1 = round;
     d_step { known = entry_place != 0; here = entry_place; stale[n] = 0 };
     atomic {
       if
       :: !known || (name != 1 && !cached[n])
       :: known && (name == 1 || cached[n]) -> saw = 1
       :: known && name != 1 && cached[n] -> cached[n] = 0
       fi;
       known = 0
     };
     d_step { lost = deaf[n]; deaf[n] = 0 };
     used = bound[n] != 0;
     d_step { take_look(n, r1, lost, used, saw); lost = 0; r1 = 0 };
     if
     :: RESTORES && here != 0 && (intends[n] || (used && name == 0)) ->
        d_step { ok = (authorised == 0); auth_same[n] = 1 };
        d_step {
          if
          :: ok && auth_same[n] ->
             publish_heard(n, used, saw, 1); intends[n] = 1;
             if :: again -> VETO; again = 0 :: else fi;
#ifdef M_OLD_LEAF
             accepted[n] = 1
#else
             if
             :: entry_place == here && !stale[n] -> accepted[n] = 1; asked = 1; CHANGED
             :: else -> ok = 0
             fi
#endif
          :: else -> ok = 0
          fi;
          auth_same[n] = 0
        };
        if
        :: ok ->
           atomic { lock == 0 -> lock = 2 };
           /* The entry may have been moved by a successor meanwhile. */
           if
           :: d_step {
                if
                :: place == here && !stale[n] && name == 0 -> name = 1
                :: place == here && !stale[n] && name != 0
                :: else -> ok = 0; accepted[n] = 0
                fi;
                lock = 0 }
           :: d_step { deaths > 0 && late == 0 -> deaths--; deaf[n] = 1; accepted[n] = 0;
                ok = 0; lock = 0; late = (stale[n] -> 0 : here) }
           fi
        :: else
        fi;
        if
        :: ok ->
           if
           :: d_step {
                accepted[n] = 0;
                if
                :: entry_place == here && place == here && !stale[n] ->
                   entry_round = round + 1; base_links = LINKS;
                   intends[n] = 0; VETO; CHANGED
                :: entry_place == 0 -> intends[n] = 0
                :: else
                fi }
           :: d_step { deaths > 0 -> deaths--; deaf[n] = 1; accepted[n] = 0; ok = 0 }
           fi
        :: else
        fi
     :: here == 0 && intends[n] -> intends[n] = 0
     :: else
     fi;
     if
     :: d_step { !deaf[n] ->
          publish_heard(n, used, saw, intends[n]);
          if :: again -> VETO; again = 0 :: else fi;
          saw = 0; used = 0; ok = 0; here = 0 }
     :: d_step { deaf[n] -> saw = 0; used = 0; ok = 0; here = 0 }
     fi
  od
}

proctype leader() {
  byte me;
  bit clean, ready;
  d_step { epoch < LEADERS -> epoch++; me = epoch };
  d_step { at[me] == ABSENT -> at[me] = DIRECTORY };
  /* Seal the one epoch before: move, rmdir, create. */
  if
  :: me == 2 ->
     do
     :: at[1] == SEALED -> break
     :: d_step { at[1] == ABSENT -> at[1] = SEALED }
     :: at[1] == DIRECTORY ->
        d_step {
          if
          :: place == 1 && at[2] == DIRECTORY -> place = 2
          :: else
          fi
        };
        d_step {
          if
          :: at[1] == DIRECTORY && place != 1 -> at[1] = ABSENT
          :: else
          fi
        }
     od;
     skip;
     /* Settle: what was moved waits again; what is nowhere leaves. */
     d_step {
       epoch == me ->
       if
       :: place == me -> entry_place = me; entry_round = round + 1; base_links = LINKS
       :: else -> entry_place = 0; entry_round = 0
       fi;
       asked = 0;
       CHANGED
     };
     d_step {
       if
       :: epoch == me && authorised == 1 -> authorised = 0; auth_same[0] = 0; auth_same[1] = 0
       :: else
       fi
     }
  :: else
  fi;
  d_step { epoch == me -> acting = me };
  do
  :: d_step { epoch == me && MAY_RAISE && round < MAXROUND -> round++ }
  /* Quarantine: the rename, and then the record. */
  :: epoch == me && name == 1 && place == 0 && entry_place == 0 ->
     d_step {
       if
       :: at[me] == DIRECTORY && name == 1 && place == 0 ->
          assert(acting <= me); name = 0; place = me; cached[0] = 1; cached[1] = 1
       :: else
       fi
     };
     d_step {
       if
       :: epoch == me && place == me && entry_place == 0 ->
          entry_place = me; entry_round = round + 1; base_links = LINKS; CHANGED
       :: else
       fi
     }
  /* A new leaf for what was asked for, and that nobody says to restore. */
  :: epoch == me && entry_place == me && asked && !last[0].intent && !last[1].intent ->
     d_step {
       if
       :: at[me] == DIRECTORY && place == me && entry_place == me && asked &&
          authorised == 0 ->
          assert(acting <= me); stale[0] = 1; stale[1] = 1; late = (late == me -> 0 : late);
          ready = 1
       :: else
       fi
     };
     d_step {
       if
       :: ready && epoch == me && entry_place == me && place == me ->
          asked = 0; entry_round = round + 1; base_links = LINKS; CHANGED
       :: else
       fi;
       ready = 0
     }
  /* Counters; each report; the entry and the inode; the transaction. */
  :: epoch == me && entry_place == me && authorised == 0 ->
     d_step { veto_same[me] = 1; clean = !WANTED(0) };
     d_step { clean = clean && !WANTED(1) };
     d_step {
       entry_same[me] = 1;
       ready = clean && entry_place == me && place == me && !asked &&
               CONFIRMED(entry_round);
       clean = 0
     };
     d_step {
       if
       :: ready && LINKS != base_links && entry_same[me] && epoch == me ->
          ready = 0; entry_round = round + 1; base_links = LINKS; CHANGED
       :: else
       fi
     };
     d_step {
       if
       :: ready && epoch == me && veto_same[me] && entry_same[me] && authorised == 0 ->
          authorised = me; auth_same[0] = 0; auth_same[1] = 0
       :: else -> ready = 0
       fi;
       veto_same[me] = 0; entry_same[me] = 0
     };
     if
     :: ready ->
        d_step {
          if
          :: at[me] == DIRECTORY && place == me ->
             assert(acting <= me);
             assert(!accepted[0] && !accepted[1]);
             assert(name == 1 || (bound[0] != 1 && bound[1] != 1));
#ifdef REACHED
             /* Shows that unlinks are reached at all. */
             assert(false);
#endif
             place = 0
          :: else
          fi;
          ready = 0
        };
        d_step {
          if
          :: epoch == me && authorised == me && place == 0 ->
             authorised = 0; entry_place = 0; entry_round = 0; CHANGED;
             auth_same[0] = 0; auth_same[1] = 0
          :: else
          fi
        }
     :: else
     fi
  :: at[me] == SEALED -> break
  od
}

init { atomic { run agent(0); run agent(1); run leader(); run leader() } }
