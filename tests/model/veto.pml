/*
 * Liveness of the authorisation: a name was fetched again and is in use, its old
 * file lies in quarantine, and the nodes that use it report as often as they like,
 * for whatever else they have to say.  Another file is confirmed.
 *
 * Uses of the busy name come and go, sessions end and reports do not come through,
 * but only so often: a use that begins does speak against what is under way.
 * Run with pan -a -f (weak fairness).  docs/protocol.md, "Two counters".
 */
#define NODES 2
#ifndef CHANGES
#define CHANGES 3
#endif

bit need[NODES] = 1;  /* the node uses the busy name */
bit told[NODES];      /* its last whole report spoke against the old entry */
bit veto_same;        /* the counter is as the leader read it */
bit authorised;       /* the other file */
byte left = CHANGES;

active [NODES] proctype agent() {
  bit u;
  do
  :: u = need[_pid];
     /* Capabilities, then the durable report with the counter. */
     if
     :: d_step {
          if
#ifdef M_RAISE_ALWAYS
          /* Mutant: every report that names an entry raises the counter. */
          :: u -> veto_same = 0
#else
          :: u && !told[_pid] -> veto_same = 0
#endif
          :: else
          fi;
          told[_pid] = u; u = 0
        }
     /* A new session, or a transaction that did not come through. */
     :: d_step { left > 0 -> left--; told[_pid] = 0; u = 0 }
     fi
  od
}

active proctype guests() {
  do
  :: d_step { left > 0 -> left--; need[0] = !need[0] }
  :: d_step { left > 0 -> left--; need[1] = !need[1] }
  :: left == 0 -> break
  od
}

active proctype leader() {
  do
  :: d_step { !authorised -> veto_same = 1 };
     /* The reports, the plan, the inodes. */
     skip;
     d_step { authorised = veto_same }
  :: authorised -> break
  od
}

ltl authorised_in_the_end { <> authorised }
