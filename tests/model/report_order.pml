/*
 * The order of reports, counters, records and the authorisation: two agents, an
 * operator who restores, a leader that reads one thing after the other, sessions
 * that are lost, nodes that are expunged and come back.
 *
 * Rounds are one number here: `wait` is raised when an entry waits again, and a
 * report says for which wait it looked (rounds.pml has them in full).  A counter
 * or version that a transaction checks is a bit: unchanged since it was read.
 * A report raises the veto counter for what the last one, if it came through whole
 * and in this session, did not speak against already.
 *
 * Checked: I1, a use or an intent that was published is either seen by the leader
 * or makes its authorisation fail; no unlink meets an accepted restore.
 * docs/protocol.md, "The agent" (2, 5, 7) and "Purging".
 */
#define NODES 2

#ifndef CHANGES
#define CHANGES 2
#endif
/* How often a durable report is not written though its capabilities are. */
#ifndef FAILURES
#define FAILURES 0
#endif

typedef Said { bit used; bit intent; byte wait };

Said caps[NODES];     /* in the group, gone with the session */
Said durable[NODES];  /* on the roster */
bit member[NODES] = 1;
bit rostered[NODES] = 1;
bit need[NODES];      /* what is true: the node uses the name */
bit vetoed[NODES];    /* a use or an intent is published, and not taken back */
byte told[NODES];     /* the last whole report: 1 spoke of a use, 2 of an intent */
byte failures = FAILURES;
bit accepted[NODES + 1]; /* a restore may link now; the last is the operator's */

byte wait = 1;        /* the entry's round, in the manifest */
bit marked;           /* the operator's mark on the manifest's record */
bit authorised;
bit quarantined = 1;  /* the quarantined name is there */
bit named;            /* the cache name is there */

/* Unchanged since the leader, or the agent, has read them. */
bit veto_same, roster_same, manifest_same;
bit auth_same[NODES + 1];

#define VETO veto_same = 0
#define CHANGED_AUTH auth_same[0] = 0; auth_same[1] = 0; auth_same[2] = 0

#ifdef M_TOLD_FOR_EVER
/* Mutant: what was spoken against once is never told anew. */
#define TELLS(n, u, i) (i || told[n] == 2 -> 2 : (u || told[n]))
#else
#define TELLS(n, u, i) (i -> 2 : u)
#endif

/* In the transaction of a durable report. */
inline raise_veto(n, u, i) {
#ifndef M_NO_RAISE
  if :: ((u || i) && !told[n]) || (i && told[n] < 2) -> VETO :: else fi;
#endif
  if :: u || i -> vetoed[n] = 1 :: else fi;
  told[n] = TELLS(n, u, i)
}

/* The durable report was not written, whatever became of the capabilities. */
#ifdef M_TOLD_UNFINISHED
/* Mutant: the last durable report counts, though there was word after it. */
#define UNFINISHED(n) skip
#else
#define UNFINISHED(n) told[n] = 0
#endif

/* Capabilities first, then the durable report with the counter. */
inline say(n, u, i, w) {
  /* From here on the use is over, and may be taken as such. */
  vetoed[n] = vetoed[n] && (u || i);
#ifdef M_COUNTER_FIRST
  /* Mutant: the counter is raised before the capabilities are written. */
  d_step { durable[n].used = u; durable[n].intent = i; durable[n].wait = w;
           raise_veto(n, u, i) };
  d_step { member[n] = 1; caps[n].used = u; caps[n].intent = i; caps[n].wait = w }
#else
  d_step {
#ifdef M_EMPTY_JOIN
    /* Mutant: a new session joins with an empty report, and then updates it. */
    if
    :: !member[n] -> member[n] = 1; caps[n].used = 0; caps[n].intent = 0;
       caps[n].wait = w
    :: else -> caps[n].used = u; caps[n].intent = i; caps[n].wait = w
    fi
#else
    if :: !member[n] -> told[n] = 0 :: else fi;
    member[n] = 1; caps[n].used = u; caps[n].intent = i; caps[n].wait = w
#endif
  };
  if
  :: d_step {
       /* The transaction checks the node's own member. */
       if
       :: member[n] ->
          if :: !rostered[n] -> rostered[n] = 1; roster_same = 0 :: else fi;
          durable[n].used = u; durable[n].intent = i; durable[n].wait = w;
          raise_veto(n, u, i)
       :: else -> UNFINISHED(n)
       fi
     }
  :: d_step { failures > 0 -> failures--; UNFINISHED(n) }
  fi
#endif
}

proctype agent(byte n) {
  byte w;
  bit u, ok;
  do
  :: true ->
     /* The manifest, then the looks. */
     w = wait;
     u = need[n];
     if
     :: n == 0 && u && !named && quarantined ->
        /* One node restores: refused if the entry is authorised. */
        d_step { ok = !authorised; auth_same[n] = 1 };
#ifdef M_NO_AUTH_CHECK
        /* Mutant: the authorisation is not asked. */
        ok = 1;
#endif
        if
        :: ok ->
#ifdef M_NO_INTENT
           /* Mutant: the restore is not published before it is done. */
           accepted[n] = 1;
#else
           d_step { member[n] = 1; caps[n].used = 1; caps[n].intent = 1; caps[n].wait = w };
           d_step {
             if
#ifdef M_NO_AUTH_CHECK
             :: member[n] ->
#else
             :: member[n] && auth_same[n] ->
#endif
                rostered[n] = 1; durable[n].used = 1; durable[n].intent = 1;
                durable[n].wait = w; raise_veto(n, 1, 1); accepted[n] = 1
             :: else -> ok = 0; UNFINISHED(n)
             fi
           };
#endif
           if
           :: ok ->
              /* The link only adds a name. */
              d_step { if :: quarantined -> named = 1 :: else fi };
              /* That entry waits in full again, in one transaction. */
              d_step { accepted[n] = 0; wait++; manifest_same = 0; VETO; ok = 0 };
           :: else
           fi
        :: else
        fi
     :: else
     fi;
     d_step { auth_same[n] = 0; ok = 0 };
     if
     :: caps[n].used != u || caps[n].intent || caps[n].wait != w ||
        durable[n].used != u || durable[n].intent || !member[n] ->
        say(n, u, 0, w)
     :: else
     fi;
     d_step { w = 0; u = 0 }
  od
}

/* An operator restores by the same steps; having no report, the operator marks
   the manifest's record. */
proctype operator() {
  bit ok;
  if
  :: quarantined && !named ->
     d_step { ok = !authorised; auth_same[NODES] = 1 };
     if
     :: ok ->
        d_step {
          if
          :: auth_same[NODES] -> accepted[NODES] = 1;
#ifndef M_UNMARKED
             marked = 1; manifest_same = 0
#endif
          :: else -> ok = 0
          fi
        };
        if
        :: ok ->
           d_step { if :: quarantined -> named = 1 :: else fi };
           d_step { accepted[NODES] = 0; marked = 0; wait++; manifest_same = 0; VETO }
        :: else
        fi
     :: else
     fi
  :: true
  fi
}

/* Uses come and go, the name is lost, sessions end, nodes are expunged. */
proctype world() {
  byte left = CHANGES;
  do
  :: d_step { left > 0 -> left--; need[0] = !need[0] }
  :: d_step { left > 0 -> left--; need[1] = !need[1] }
  /* A foreign cleaner takes the name away: the file is only in quarantine. */
  :: d_step { left > 0 && named -> left--; named = 0 }
  :: d_step { left > 0 && member[1] -> left--; member[1] = 0 }
#ifdef M_EXPUNGE_LIVE
  /* Mutant: a node that lives is expunged. */
  :: d_step { left > 0 && rostered[1] -> left--; rostered[1] = 0; roster_same = 0 }
#else
  /* The host is off, by the operator's word, and the node is no member. */
  :: d_step { left > 0 && rostered[1] && !member[1] && !need[1] ->
       left--; rostered[1] = 0; roster_same = 0;
       durable[1].used = 0; durable[1].intent = 0 }
#endif
  od
}


inline read_report(n) {
  d_step {
    if
    :: member[n] -> u[n] = caps[n].used; i[n] = caps[n].intent; w[n] = caps[n].wait
    :: else -> u[n] = durable[n].used; i[n] = durable[n].intent; w[n] = durable[n].wait
    fi;
#ifdef M_EPHEMERAL
    /* Mutant: the roster is who is a member now. */
    if :: !member[n] -> u[n] = 0; i[n] = 0; w[n] = 9 :: else fi;
#endif
    if :: !rostered[n] -> u[n] = 0; i[n] = 0; w[n] = 9 :: else fi
  }
}

/* What the authorisation's transaction checks; each is left out by a mutant. */
#ifdef M_NO_VETO
#define VETO_CHECK true
#else
#define VETO_CHECK veto_same
#endif
#ifdef M_NO_ROSTER
#define ROSTER_CHECK true
#else
#define ROSTER_CHECK roster_same
#endif
#ifdef M_NO_VERSIONS
#define VERSIONS_CHECK true
#else
#define VERSIONS_CHECK manifest_same
#endif

proctype leader() {
  bit u[NODES], i[NODES];
  byte w[NODES], g;
  bit m;
  do
  :: quarantined ->
#ifndef M_COUNTERS_LAST
     d_step { veto_same = 1; roster_same = 1 };
#endif
     read_report(0);
     read_report(1);
#ifdef M_COUNTERS_LAST
     /* Mutant: the leader reads the counters after the reports. */
     d_step { veto_same = 1; roster_same = 1 };
#endif
     d_step { g = wait; m = marked; manifest_same = 1 };
#ifdef M_MARK_IGNORED
     /* Mutant: a marked entry is authorised like any other. */
     m = 0;
#endif
     d_step {
       if
       :: !u[0] && !u[1] && !i[0] && !i[1] && !m && w[0] >= g && w[1] >= g && VETO_CHECK && ROSTER_CHECK && VERSIONS_CHECK ->
          authorised = 1; CHANGED_AUTH;
          assert(!vetoed[0] && !vetoed[1]);
          assert(!marked)
       :: else
       fi;
       u[0] = 0; u[1] = 0; i[0] = 0; i[1] = 0; m = 0; g = 0; w[0] = 0; w[1] = 0;
       veto_same = 0; roster_same = 0; manifest_same = 0
     };
     if
     :: authorised ->
#ifdef M_CLEAR_OUTSTANDING
        /* Mutant: cleared while the unlink's outcome is unknown. */
        d_step { authorised = 0; CHANGED_AUTH };
#endif
        d_step {
          assert(!accepted[0] && !accepted[1] && !accepted[2]);
          quarantined = 0
        };
        d_step { authorised = 0; CHANGED_AUTH }
     :: else
     fi
  :: !quarantined -> break
  od
}

init {
  atomic {
    need[1] = 1; caps[1].used = 1; durable[1].used = 1; vetoed[1] = 1; told[1] = 1;
    run agent(0); run agent(1); run operator(); run world(); run leader()
  }
}
