/*
 * Witnesses: a node that has not looked since the rename.  It was sealed, or it is
 * new and nobody knows of it; it starts with ZooKeeper out of reach, and its
 * client may still have the name in its cache.  The other nodes have confirmed.
 *
 * Time is counted in lifetimes of the clients' caches since the rename.  A cached
 * name opens for one lifetime after the rename at most; a witness or a listing
 * that the leader reads is one lifetime old at most.
 *
 * Checked: I1.  docs/protocol.md, "The agent" (1, 6) and "Purging".
 */

bit sealed;           /* the node's final report stands; else it is a stranger */
bit reported_uses;    /* what the final report says */
byte witness;         /* incarnation on the storage; 0 is no witness */
byte older;           /* the witness when the present lifetime began */
byte oldest;          /* and when the one before it began */
byte relied;          /* incarnation of the report that is relied on; 0 is none */

bit named = 1;        /* the file bears its cache name */
byte age;             /* lifetimes since the rename */
bit guest;            /* a guest on the node uses the file */
bit up;               /* the node's guests may start */
bit unlinked;
bit steady;           /* the node is as it was when the story begins */

/* Open by name, or through the client's cache. */
#define OPENS (named || age < 1)

/* An agent that stops, and one that starts: boot after boot. */
active proctype node() {
  byte boots;
  /* The story begins with a running node that is rostered, or with a new one. */
  if
  :: true -> witness = 1; up = 1;
     /* Its guests run, start and end; then the host stops in order. */
     do
     :: atomic { !guest && OPENS && !unlinked -> guest = 1 }
     :: guest = 0
     :: true -> break
     od;
     /* The final report: only if no guest runs, and none can start. */
     if
#ifdef M_SEAL_WITH_GUESTS
     /* Mutant: the agent's stop is taken for the host's; guests may still start. */
     :: d_step { true -> reported_uses = guest; sealed = 1; relied = 1 }
#else
     :: d_step { !guest -> up = 0; reported_uses = 0; sealed = 1; relied = 1 }
     :: d_step { guest -> up = 0; guest = 0; reported_uses = 0; sealed = 1; relied = 1 }
#endif
     fi
  :: true -> skip
  fi;
  steady = 1;
  do
  :: atomic { up && !guest && OPENS && !unlinked -> guest = 1 }
  :: up && guest -> guest = 0
  :: !up && boots < 1 ->
     boots++;
#ifdef M_GUEST_FIRST
     /* Mutant: guests are started before the witness is written. */
     up = 1;
     atomic { if :: OPENS && !unlinked -> guest = 1 :: true fi };
     witness++
#else
     /* Start: the witness first, and only then may guests start. */
     witness++;
     up = 1
#endif
  od
}

/* What the leader reads is the witness as it is, or as it was at most one lifetime
   ago.  A moment of the lifetime `age` looks back to the beginning of the one
   before it at the furthest: that is `oldest`. */
active proctype time() {
  do
  :: d_step { !named && age < 3 -> age++; oldest = older; older = witness }
  od
}

#ifdef M_FLOOR_ONCE
#define FLOOR 1
#elif defined(M_FLOOR_NONE)
#define FLOOR 0
#else
#define FLOOR 2
#endif

active proctype leader() {
  byte read;
  steady ->
  /* Quarantine: the gate asks the same of every witness that it sees. */
  if
  :: witness == relied && !(sealed && reported_uses) -> skip
  fi;
  /* What the caches hold now is at least as old as the rename allows. */
  d_step { named = 0; older = witness; oldest = relied };
  do
  :: age >= FLOOR ->
#ifdef M_NOT_AGAIN
     /* Mutant: the witnesses of the pass that renamed are relied on. */
     read = relied;
#else
     if
     :: read = witness
     :: read = oldest
     fi;
#endif
     if
#ifdef M_NO_INCARNATION
     /* Mutant: that a witness exists is enough. */
     :: read == relied || relied != 0 ->
#elif defined(M_NO_STRANGERS)
     /* Mutant: only rostered nodes' witnesses are looked for. */
     :: read == relied || relied == 0 ->
#else
     :: read == relied ->
#endif
        d_step { unlinked = 1; assert(!guest) };
        break
     :: else -> break
     fi
  od
}
