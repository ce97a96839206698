/*
 * The gate: a node of the old naming joins, upgrades or is expunged while a leader
 * takes files and unlinks them, and while an operator finalizes the schema.
 *
 * Checked: I5, no transaction of a pass commits while a rostered node is on the old
 * naming, and no further rename or unlink begins once the leader was told; the
 * schema is never finalized past a rostered node that does not support it; no agent
 * that would write the old naming joins after that.
 * With -DFAIR, by pan -a -f: once the reasons are gone, the gate opens again and
 * every file goes.
 * docs/protocol.md, "Gate" and "Finalizing".
 */
#ifndef JOINS
#define JOINS 2
#endif
#ifndef FILES
#define FILES 2
#endif

#define NONE 0
#define OLD 1       /* the old naming, schema 1: closes the gate */
#define NEW 2

byte joined = NONE; /* the late node, on the roster */
byte schema = 1;    /* the finalized schema */
bit roster_same;    /* the roster counter, unchanged since the leader read it */
bit operator_same;  /* the same for the operator's command */
bit rollout_same;   /* the rollout's record, unchanged since the node read it */
bit told;           /* the watch on the roster counter has fired, since armed */
bit fired;          /* it will fire */
byte files = FILES;
byte quarantined;
byte unlinked;

#define ROSTER roster_same = 0; operator_same = 0; fired = 1

/* The node that joins: the old release, or the new one after its upgrade. */
active proctype node() {
  byte left = JOINS;
  byte read;
  do
  :: left > 0 && joined == NONE ->
     left--;
     /* A node of schema 2 that is told to write the old naming reads the rollout,
        and its join checks that record. */
     d_step { read = schema; rollout_same = 1 };
     if
     :: read == 1 ->
        d_step {
          if
#ifdef M_JOIN_UNCHECKED
          /* Mutant: the join does not check the rollout. */
          :: true ->
#else
          :: rollout_same ->
#endif
             joined = OLD; ROSTER;
             assert(schema == 1)
#ifndef M_JOIN_UNCHECKED
          :: else
#endif
          fi
        }
     :: read == 2
     fi;
     read = 0
  /* It is upgraded, or it is expunged: its host is off. */
  :: d_step { joined == OLD -> joined = NEW; ROSTER }
  :: d_step { joined == OLD -> joined = NONE; ROSTER }
  :: d_step { joined == NEW -> joined = NONE; ROSTER }
  :: left == 0 && joined != OLD -> break
  od
}

/* A schema 1 node, which knows of no rollout, can join whenever it likes. */
active proctype stray() {
  do
  :: d_step { joined == NONE && schema == 2 -> joined = OLD; ROSTER } ;
     d_step { joined == OLD -> joined = NEW; ROSTER } ; break
  :: joined != NONE || schema != 2 -> break
  od
}

active proctype operator() {
  byte seen;
  do
  :: schema == 1 ->
     d_step { operator_same = 1; seen = joined };
     if
     :: seen != OLD ->
        d_step {
          if
#ifdef M_FINALIZE_UNCHECKED
          :: true ->
#else
          :: operator_same ->
#endif
             schema = 2; rollout_same = 0;
             assert(joined != OLD)
#ifndef M_FINALIZE_UNCHECKED
          :: else
#endif
          fi
        }
     :: else
     fi;
     seen = 0
  :: schema == 2 -> break
  od
}

/* The watch's word reaches the leader. */
active proctype watch() {
  do
  :: d_step { fired -> fired = 0; told = 1 }
  od
}

#ifdef M_NO_STOP_FLAG
#define GO_ON true
#else
#define GO_ON (!told)
#endif

active proctype leader() {
  byte take;
  do
  :: unlinked < FILES ->
     /* Arm the watch, read the counter, then the roster, then judge the gate. */
     told = 0;
     roster_same = 1;
     if
     :: schema == 2 && joined != OLD ->
        if
        :: files > 0 ->
           /* The manifest's intention: one transaction for the batch. */
           d_step {
             if
#ifdef M_TAKE_UNCHECKED
             /* Mutant: the roster counter is not checked there. */
             :: true ->
#else
             :: roster_same ->
#endif
                take = files; assert(joined != OLD)
#ifndef M_TAKE_UNCHECKED
             :: else
#endif
             fi
           };
           do
           :: d_step { take > 0 && GO_ON ->
                assert(!told); take--; files--; quarantined++ }
           :: take == 0 -> break
           :: take > 0 && !GO_ON -> take = 0; break
           od
        :: else
        fi;
        if
        :: quarantined > 0 ->
           d_step {
             if
#ifdef M_NO_ROSTER
             /* Mutant: the authorisation does not check the roster counter. */
             :: true ->
#else
             :: roster_same ->
#endif
                take = quarantined; assert(joined != OLD)
#ifndef M_NO_ROSTER
             :: else
#endif
             fi
           };
           do
           :: d_step { take > 0 && GO_ON ->
                assert(!told); take--; quarantined--; unlinked++ }
           :: take == 0 -> break
           :: take > 0 && !GO_ON -> take = 0; break
           od
        :: else
        fi
     :: else
     fi
  :: unlinked == FILES -> break
  od
}

#ifdef FAIR
ltl opens { <> (unlinked == FILES) }
#endif
