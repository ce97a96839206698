/*
 * ZooKeeper goes back to an old copy, while the storage, the guests and the agents
 * went on; and an operator's `recover`.
 *
 * The story begins where the copy was made, at one of two moments: a file that is
 * not in quarantine and nodes that have not reported; or, with -DCONFIRMED_COPY, a
 * quarantined file that the nodes' reports have just confirmed.  Then things go on: rounds are raised,
 * the file is restored, used, and loses its name to a foreign cleaner.  Going back
 * takes round, manifest, roster and reports to the copy; not the file's names, the
 * guest, the witnesses, nor what the agents remember, who may be in the middle of a
 * look, and may believe to have published what is lost.
 *
 * One process stands for every leader, since a leader judges by the last reports
 * alone; takeover.pml says how one follows another.
 *
 * Checked: I1.  With -DREACHED, that a file is unlinked at all after a recovery.
 * docs/protocol.md, "Recovery"; sharedcache/cleaner/recover.py.
 */
#ifndef RAISES
#define RAISES 2
#endif
#define SAW_LATEST

#include "node.pml"

#define HIGHEST (3 + RAISES) /* no round was ever higher before the recovery */

#ifdef CONFIRMED_COPY
#define confirmed_copy true
#else
#define confirmed_copy false
#endif
bit named;             /* the file bears its cache name */
bit quarantined;       /* and it bears its quarantined name */
bit taken;             /* the manifest knows the quarantined name */
byte entry_round;
bit changed;           /* the inode is not as the record's baseline says */
bit altered;           /* it is not as it was when the copy was made */
bit sent;              /* the unlink was authorised, and may land at any time */
byte at = NOWHERE;     /* where the guest is */
bit rostered;          /* the second node is on the roster */
byte raises = RAISES;
bit back;              /* ZooKeeper is not what it was */
bit behind;            /* its epoch is below the storage's: somebody led meanwhile */
bit recovered;

/* A guest starts by the name on either node, and ends; rounds.pml has migration. */
active proctype guest() {
  if
  :: d_step { named -> at = 0; HEAR(0) }
  :: d_step { named -> at = 1; HEAR(1) }
  fi;
  at = NOWHERE
}

/* An agent restores for a guest to come, and a foreign cleaner takes the name. */
active proctype names() {
  if
  :: d_step { quarantined && !named && taken && !sent && confirmed_copy ->
       named = 1; changed = 1; altered = !back; entry_round = round + 1 };
     d_step { named && quarantined -> named = 0; changed = 1; altered = !back }
  fi
}

proctype agent(byte n) {
  byte r1, again;
  bit used, saw, seen;
  do
  :: d_step { r1 = round; saw = (taken && named && quarantined); used = (at == n) };
     /* The round is read again, and the report made. */
     if
     :: d_step {
          take_look(n, r1, 0, used, saw);
          publish(n, used, saw, 0); r1 = 0; used = 0; saw = 0;
          if :: n == 1 -> rostered = 1 :: else fi }
     /* It says what the agent believes to have said already: not written. */
     :: d_step { take_look(n, r1, 0, used, saw); r1 = 0; used = 0; saw = 0 }
     fi
  od
}

/* What the nodes had reported when the copy was made. */
inline as_copied() {
  if
  :: confirmed_copy ->
     round = 3; taken = 1; entry_round = 2; rostered = 1;
     last[0].given = 1; last[0].upto = 3; last[0].since_round = 2; last[0].unbroken = 1;
     last[1].given = 1; last[1].upto = 3; last[1].since_round = 2; last[1].unbroken = 1
  :: else ->
     round = 1; taken = 0; entry_round = 0; rostered = 0;
     last[0].given = 0; last[0].upto = 0; last[0].since_round = 0; last[0].unbroken = 0;
     last[1].given = 0; last[1].upto = 0; last[1].since_round = 0; last[1].unbroken = 0
  fi;
  last[0].now = 0; last[0].since = 0; last[0].saw = 0;
  last[1].now = 0; last[1].since = 0; last[1].saw = 0
}

active proctype zookeeper() {
  /* With the record its baseline comes back, which the inode may not have any more. */
  d_step { as_copied(); back = 1; changed = altered; altered = 0 };
  if
  :: behind = 1
#ifndef SEEN
  :: true
#endif
  fi
}

/* The operator's command, perhaps on the operator's word alone: several
   transactions, in this order.  Leaders go on meanwhile, if nothing stops them. */
active proctype recover() {
  back ->
#ifndef M_NO_READD
  /* Every node that has a witness is expected again, and has not reported. */
  d_step { if :: !rostered -> rostered = 1; last[1].given = 0 :: else fi };
#endif
#ifndef M_NO_DOUBT
  /* A last report that may have been followed by one that is lost counts no more. */
  last[0].given = 0;
  last[1].given = 0;
#endif
  d_step {
#ifndef M_NO_ROUND
    round = HIGHEST + 1;
#endif
#ifndef M_NO_RESTART
    /* Every entry begins anew: the next leader finds the file on the storage. */
    taken = 0; entry_round = 0;
#endif
#ifndef M_NO_EPOCH
    behind = 0;
#endif
    recovered = 1
  }
}

/* Any of these reasons closes the gate, each for itself. */
#ifdef M_NO_STRANGERS
#define STRANGERS false
#else
#define STRANGERS (!rostered)
#endif
#define GATE (!behind && !(back && STRANGERS))
#define SECOND(what) (!rostered || (what))
#undef MAY_RAISE
#define MAY_RAISE (GATE && last[0].given && last[0].upto == round && \
                   SECOND(last[1].given && last[1].upto == round))
/* A report of a round that was not raised yet is doubt. */
#ifdef M_NO_GUARD
#define POSSIBLE true
#else
#define POSSIBLE (last[0].upto <= round && SECOND(last[1].upto <= round))
#endif
#ifdef M_NO_BASELINE
#define CHANGED_INODE false
#else
#define CHANGED_INODE changed
#endif
#define PROVES(n) (WHOLE(n) && LATE(n, entry_round) && !WANTED(n) && \
                   last[n].since_round < last[n].upto)
#define PROVEN (PROVES(0) && SECOND(PROVES(1) && COMMON) && POSSIBLE)

active proctype leader() {
  do
  :: d_step { MAY_RAISE && raises > 0 -> raises--; round++ }
  /* A rename, at any time; and its record, by this leader or by the next one. */
  :: d_step { named && !quarantined && GATE -> named = 0; quarantined = 1 }
  :: d_step { quarantined && !taken && GATE ->
       taken = 1; entry_round = round + 1; changed = 0 }
  /* Nobody has said otherwise: authorised, unless the inode was changed. */
  :: d_step { quarantined && taken && !sent && GATE && PROVEN ->
       if
       :: CHANGED_INODE -> changed = 0; entry_round = round + 1
       :: else -> sent = 1
       fi }
  /* The unlink: what ZooKeeper forgot to have authorised lands all the same. */
  :: d_step { sent && quarantined ->
       assert(named || at == NOWHERE);
#ifdef REACHED
       assert(!recovered);
#endif
       quarantined = 0; sent = 0; taken = 0 }
  od
}

init {
  atomic {
    if
    :: confirmed_copy -> quarantined = 1; as_copied();
       before[0].upto = 2; before[0].reread = 2; present[0].upto = 3; present[0].reread = 3;
       before[1].upto = 2; before[1].reread = 2; present[1].upto = 3; present[1].reread = 3
    :: else -> named = 1; round = 1; rostered = 1
    fi;
    run agent(0); run agent(1)
  }
}
