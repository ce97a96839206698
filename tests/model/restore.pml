/*
 * Restoring: an agent gives a quarantined file its name back while another node's
 * guests start by that name, a download on its own replaces names by rename, a
 * foreign cleaner takes names away, and the agent dies half-way: its link may land
 * when it likes (-DSTRAGGLER), and its intent may go with it (-DEXPUNGES).
 *
 * Inode 1 is the file whose quarantined name the manifest has an entry for; inode 2
 * is what a download brings.  Reports go by name, whatever the inode.
 *
 * Checked: I1, the last name of an inode is not unlinked while a guest uses it, no
 * unlink meets an accepted restore; I2 and I3, a restored name is not replaced, and
 * restoring replaces no name.
 * docs/protocol.md, "The agent" (7) and "Purging".
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
#ifndef DEATHS
#define DEATHS 0
#endif

#define SAW_LATEST
#include "node.pml"

byte name;              /* the inode that the cache name leads to; 0 is none */
bit quarantined = 1;    /* inode 1's quarantined name */
byte entry_round = 2;
byte links = 1;         /* the baseline's count of links */
byte bound[NODES];      /* the inode that a node's guest uses; 0 is no guest */
byte starts = STARTS;
byte lock;              /* the name's lock: 1 a download, 2 a restore */
bit authorised;
bit accepted;           /* the restore's intent was accepted */
bit veto_same, auth_same;
bit intends;            /* the restore under way, in the agent's own report */
#ifdef STRAGGLER
bit late;               /* the link of an agent that died is still under way */
#endif
bit asked;              /* the record's mark: a link of this leaf was asked for */
#ifdef LAGS
bit lags;               /* the leaf was changed, and the record not yet */
#else
#define lags 0
#endif
bit held;               /* the restoring agent has read the manifest */
bit stale;              /* and the leaf that it read is not the file's */
bit strayed;            /* there was a late link: its lock is long gone */
byte deaths = DEATHS;

#define LINKS (quarantined + (name == 1))

active proctype guests() {
  do
  :: d_step { starts > 0 && name != 0 && bound[0] == 0 ->
       starts--; bound[0] = name; HEAR(0) }
  :: d_step { starts > 0 && name != 0 && bound[1] == 0 ->
       starts--; bound[1] = name; HEAR(1) }
  :: d_step { bound[0] != 0 -> bound[0] = 0 }
  :: d_step { bound[1] != 0 -> bound[1] = 0 }
  od
}

/* Nova fetches what is not there, under the name's lock, and renames it. */
active proctype download() {
  byte left = 1;
  do
  :: left > 0 && lock == 0 && name == 0 ->
     atomic { lock == 0 -> lock = 1 };
     if
     :: d_step { name == 0 -> left-- };
        d_step {
          /* The lock held while the restore was carried out. */
          assert(name != 1 || strayed);
          assert(!(name == 1 && !quarantined && (bound[0] == 1 || bound[1] == 1)));
          name = 2; lock = 0
        }
     :: d_step { name != 0 -> lock = 0 }
     fi
  od
}

/* A foreign cleaner takes a name away, in use or not. */
active proctype foreign() {
  byte left = LOSSES;
  do
  :: d_step { left > 0 && (name == 2 || (name == 1 && quarantined)) -> left--; name = 0 }
  od
}

inline link_back() {
  d_step {
    if
#ifdef M_RENAME
    /* Mutant: the restore renames, and so replaces what is there. */
    :: quarantined ->
       assert(!(name == 2 && (bound[0] == 2 || bound[1] == 2)));
       name = 1; quarantined = 0
#else
    :: quarantined && name == 0 -> name = 1
#endif
    :: else
    fi
  }
}

#ifdef STRAGGLER
/* What a dead agent had sent lands when it likes. */
active proctype straggler() {
  do
  :: atomic { late -> link_back(); late = 0 }
  od
}
#endif

inline put_down(n) {
  if :: n == 0 -> held = 0; stale = 0 :: else fi
}

proctype agent(byte n) {
  byte r1, again;
  bit saw, used, lost, seen, ok;
  do
  :: true ->
     r1 = round;
     atomic {
       /* The manifest, as the agent goes on to use it. */
       if :: n == 0 -> held = 1; stale = lags :: else fi;
       saw = quarantined && name == 1;
       d_step { lost = deaf[n]; deaf[n] = 0 }
       used = bound[n] != 0
     };
     d_step { take_look(n, r1, lost, used, saw); lost = 0; r1 = 0 };
     if
     :: n == 0 && quarantined && (intends || (used && name == 0)) ->
#ifndef M_NO_INTENT
        /* Use and intent; refused if the entry is authorised. */
        d_step { ok = !authorised; auth_same = 1 };
        d_step {
          if
          :: ok && auth_same ->
             publish_heard(n, used, saw, 1); accepted = 1; intends = 1;
             if :: again -> veto_same = 0; again = 0 :: else fi;
#ifndef M_OLD_LEAF
             /* And the mark, unless the record gives another leaf by now.  It is a
                transaction of its own, which makes no difference to others. */
             if
             :: stale -> ok = 0; accepted = 0
             :: else -> asked = 1
             fi
#endif
          :: else -> ok = 0
          fi;
          auth_same = 0
        };
#else
        /* Mutant: the restore is not published before it is done. */
        d_step { ok = 1; accepted = 1 };
#endif
        if
        :: ok ->
#ifndef M_NO_LOCK
           atomic { lock == 0 -> lock = 2 };
#endif
           if
           :: atomic { !stale -> link_back(); lock = (lock == 2 -> 0 : lock) }
           /* The leader has renamed it: ENOENT, and the manifest is read again. */
           :: d_step { stale -> ok = 0; accepted = 0; lock = (lock == 2 -> 0 : lock) }
           :: d_step { deaths > 0 -> deaths--; deaf[0] = 1; accepted = 0;
                ok = 0; lock = (lock == 2 -> 0 : lock)
#ifdef STRAGGLER
                ; late = !stale; strayed = 1
#endif
              };
#ifdef EXPUNGES
              /* Its node is expunged, and comes back; or its record was lost. */
              if
              :: d_step { intends = 0; last[0].intent = 0 }
              :: true
              fi
#endif
           fi
        :: else
        fi;
        if
        :: ok ->
           if
           :: d_step { !stale ->
#ifndef M_NO_NEW_ROUND
                entry_round = round + 1;
#endif
#ifndef M_NO_BASELINE
                links = LINKS;
#endif
                accepted = 0; intends = 0; veto_same = 0 }
           /* The record gives it another name by now: once more. */
           :: d_step { stale -> accepted = 0 }
           :: d_step { deaths > 0 -> deaths--; deaf[0] = 1; accepted = 0; ok = 0 }
           fi
        :: else
        fi
     :: else
     fi;
     if
     :: d_step { !deaf[n] ->
          publish_heard(n, used, saw, (n == 0 && intends));
          if :: again -> veto_same = 0; again = 0 :: else fi;
          saw = 0; used = 0; ok = 0; put_down(n) }
     :: d_step { deaf[n] -> saw = 0; used = 0; ok = 0; put_down(n) }
     fi
  od
}

#ifdef M_CACHE_LINKS
/* Mutant: a writer links from quarantine instead of downloading. */
active proctype writer() {
  atomic { lock == 0 && name == 0 && quarantined -> lock = 2 };
  link_back();
  d_step { bound[1] = name; lock = 0; HEAR(1) }
}
#endif

#ifdef M_LEADER_RESTORES
/* Mutant: a leader that finds a taken name in use gives it back, perhaps late. */
active proctype giver() {
  quarantined && name == 0 && (last[0].now || last[1].now);
  atomic { lock == 0 -> lock = 2 };
  link_back();
  d_step { lock = 0 };
  d_step { entry_round = round + 1; links = LINKS }
}
#endif

active proctype leader() {
  bit ready;
  do
  :: d_step { quarantined && MAY_RAISE && round < MAXROUND -> round++ }
  /* An entry that a link was asked of, and that nobody says to restore, gets a new
     leaf, and only then begins its wait.  A link of the old one, under way or yet
     to come, says ENOENT for ever. */
  :: d_step { quarantined && asked && !lags && !authorised &&
              !last[0].intent && !last[1].intent ->
       stale = held;
#ifdef STRAGGLER
       late = 0;
#endif
#ifdef LAGS
       lags = 1
     };
     d_step {
       lags = 0;
#endif
       asked = 0;
#ifndef M_NO_NEW_ROUND
       entry_round = round + 1;
#endif
       links = LINKS }
  /* Counters and reports are read, and the inode compared with its baseline. */
  :: d_step { quarantined && !ready && !authorised && CONFIRMED(entry_round) && !asked ->
       veto_same = 1; ready = 1 };
     d_step {
       skip;
#ifndef M_NO_BASELINE
       if :: LINKS != links -> ready = 0; entry_round = round + 1; links = LINKS
       :: else fi
#endif
     };
     if
     :: ready ->
        d_step {
          if
          :: veto_same && !asked -> authorised = 1; auth_same = 0
          :: else
          fi;
          ready = 0; veto_same = 0
        };
        if
        :: authorised ->
           d_step {
             assert(!accepted);
             assert(name == 1 || (bound[0] != 1 && bound[1] != 1));
             quarantined = 0
           };
           d_step { authorised = 0; auth_same = 0; intends = 0 }
        :: else
        fi
     :: else
     fi
  od
}

init {
  atomic {
    /* A guest may have started just before the rename. */
    if
    :: bound[0] = 1; event[0] = 1
    :: true
    fi;
    run agent(0); run agent(1)
  }
}
