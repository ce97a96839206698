/*
 * Taking over: leaders claim epochs, seal every lower one on the storage itself,
 * and may stop for ever, or act late, anywhere.  One agent restores.  A step on
 * the storage may land a second time, at any later moment.
 *
 * Checked: I2, only the current epoch's leader takes a name away and the storage
 * refuses a deposed one; and that no unlink meets a restore whose intent was
 * accepted, nor an entry that was not confirmed for its present wait (I1).
 * docs/protocol.md, "Becoming the leader" and "Purging".
 */
#ifndef LEADERS
#define LEADERS 3
#endif
#define EPOCHS (LEADERS + 1)
#ifndef RESTORES
#define RESTORES 1
#endif
#ifndef MAXLEAVES
#define MAXLEAVES 3
#endif

/* What is at epochs/<e>: nothing, a directory, or the seal. */
#define ABSENT 0
#define DIRECTORY 1
#define SEALED 2

byte epoch;                /* ZooKeeper's epoch */
byte at[EPOCHS];           /* the storage's epochs/<e> */
byte acting;               /* highest epoch whose leader has begun to act */

/* The file: `place` is its epoch's directory, 0 for _base; `leaf` its name in
   there, a number that is never used again; `gone` once it is unlinked. */
byte place;
byte leaf;
byte leaves;               /* the last name that was given out */
bit gone;

/* The manifest's record, and for which name its wait was confirmed. */
byte recorded;
byte confirmed;

/* The authorisation: which epoch may unlink which name; 0 is none. */
byte may_epoch;
byte may_leaf;
byte token;                /* its version: raised with every write */

bit intent;                /* a restore's intent was accepted */
byte vetoes;

/* The one step that may land a second time. */
byte again_epoch;
byte again_leaf;

#ifdef M_NAME_AGAIN
#define NEW_LEAF(e) 1
#else
#define NEW_LEAF(e) leaves
#endif

/* Whether a late leader's step into its directory is carried out. */
#ifdef M_SEAL_RENAME
/* Mutant: the seal renames the directory, and its leader holds it open. */
#define WORKS(e) (at[e] != ABSENT)
#else
#define WORKS(e) (at[e] == DIRECTORY)
#endif

inline unlinking(e, name) {
  if
  :: WORKS(e) && place == e && leaf == name && !gone ->
     /* I2: nobody has begun to act for a later epoch. */
     assert(acting <= e);
     /* I1: no accepted intent, and the present wait was confirmed. */
     assert(!intent);
     assert(confirmed == leaves);
     gone = 1
  :: else
  fi
}

/* Clearing checks the epoch and the version of the record that was read. */
#ifdef M_CLEAR_UNCHECKED
#define CLEARS true
#else
#define CLEARS (epoch == me && token == read_token)
#endif

proctype leader() {
  byte me, lower, read_token, name;

  /* Claim an epoch in one transaction: an ever increasing number. */
  d_step { epoch < LEADERS -> epoch++; me = epoch };

#ifdef M_CLEAR_FIRST
  /* Mutant: the predecessor's authorisation is cleared before its seal. */
  read_token = token;
  d_step {
    if
    :: CLEARS && may_epoch != 0 -> may_epoch = 0; may_leaf = 0; token++
    :: else
    fi;
    read_token = 0
  };
#endif

  /* mkdir epochs/<e>: a name that is there, or a higher one, means deposed. */
  if
  :: d_step { at[me] == ABSENT -> at[me] = DIRECTORY }
  :: at[me] != ABSENT -> goto deposed
  fi;

#ifndef M_NO_SEAL
  /* Seal every lower epoch. */
  lower = 1;
  do
  :: lower == me -> break
  :: lower < me ->
     do
     :: d_step { at[lower] == SEALED -> lower++ } ; break
     :: at[lower] != SEALED ->
        if
        :: at[lower] == ABSENT ->
#ifdef M_SKIP_UNMADE
           /* Mutant: an epoch that never made its directory is passed over. */
           lower++;
           break
#else
           /* Create the file, exclusively. */
           if
           :: d_step { at[lower] == ABSENT -> at[lower] = SEALED }
           :: at[lower] != ABSENT
           fi
#endif
        :: at[lower] == DIRECTORY ->
#ifdef M_SEAL_RENAME
           at[lower] = SEALED
#else
           /* Move its entries into one's own, under new names ... */
           d_step {
             if
             :: at[lower] == DIRECTORY && at[me] == DIRECTORY &&
                place == lower && !gone ->
                leaves++; place = me; leaf = NEW_LEAF(me);
                assert(acting <= me)
             :: else
             fi
           };
           /* ... rmdir, which fails while something slipped in, ... */
           if
           :: d_step { at[lower] == DIRECTORY && (place != lower || gone) ->
                at[lower] = ABSENT }
           :: at[lower] == DIRECTORY && place == lower && !gone
           :: at[lower] != DIRECTORY
           fi
           /* ... and the file, on the next way round. */
#endif
        :: at[lower] == SEALED
        fi
     od
  od;
  lower = 0;
#endif

  /* Settle the manifest, fenced by the epoch: what was moved waits again. */
  d_step { epoch == me && at[me] == DIRECTORY -> recorded = (place == me -> leaf : 0) };

#ifndef M_CLEAR_FIRST
  /* Clear the predecessor's authorisation, now that it is sealed. */
  read_token = token;
  d_step {
    if
    :: CLEARS && may_epoch != 0 -> may_epoch = 0; may_leaf = 0; token++
    :: else
    fi;
    read_token = 0
  };
#endif

  /* Only now act: the successor's acts are what its predecessors may not cross. */
  d_step { epoch == me && at[me] == DIRECTORY ->
    if
    :: acting < me -> acting = me
    :: else
    fi
  };
  do
  /* Quarantine: the manifest's intention, the rename, the record. */
  :: place == 0 && !gone && epoch == me && leaves < MAXLEAVES ->
     d_step {
       if
       :: place == 0 && !gone && WORKS(me) ->
          assert(acting <= me);
          leaves++; place = me; leaf = NEW_LEAF(me)
       :: else
       fi
     };
     d_step {
       if
       :: epoch == me && place == me -> recorded = leaf
       :: else
       fi
     }
  /* Purge: one transaction authorises, if nobody has said otherwise since. */
  :: d_step { epoch == me && recorded != 0 && recorded == leaf && place == me &&
              confirmed == leaves && !intent && may_epoch == 0 && !gone ->
       may_epoch = me; may_leaf = recorded; token++;
       name = may_leaf; read_token = token };
#ifdef M_CLEAR_OUTSTANDING
     /* Mutant: the unlink's outcome is unknown, and the record is cleared. */
     d_step {
       if
       :: CLEARS -> may_epoch = 0; may_leaf = 0; token++
       :: else
       fi
     };
#endif
     d_step {
       unlinking(me, name);
       if
       :: again_epoch == 0 -> again_epoch = me; again_leaf = name
       :: else
       fi
     };
     d_step {
       if
       :: CLEARS -> may_epoch = 0; may_leaf = 0; token++
       :: else
       fi;
       name = 0; read_token = 0
     }
  :: at[me] != DIRECTORY -> goto deposed
  od;
deposed:
  skip
}

/* A step that was sent lands once more, whenever it likes. */
active proctype replay() {
  d_step { again_epoch != 0 -> unlinking(again_epoch, again_leaf) }
}

/* The nodes' looks confirm an entry, for the wait that it is in. */
active proctype nodes() {
  do
  :: d_step { place != 0 && recorded == leaf && confirmed != leaves && !intent ->
       confirmed = leaves }
  od
}

/* An agent restores: intent, accepted unless the entry is authorised; the link;
   and the entry waits again under its name, here as a file back in _base. */
active proctype restorer() {
  byte left = RESTORES, seen;
  do
  :: left > 0 && place != 0 && recorded == leaf && !gone ->
     left--;
     atomic {
       if
       :: may_leaf != recorded && !gone -> intent = 1
       :: else -> goto end
       fi
     };
     /* The link finds the quarantined name, unless it was moved meanwhile. */
     atomic {
       if
       :: place != 0 && !gone && recorded == leaf ->
          place = 0; leaf = 0; recorded = 0; confirmed = 0
       :: else
       fi;
       intent = 0
     }
  od;
end:
  skip
}

/* The name is fetched again: another file, under the same cache name. */
active proctype download() {
  d_step { gone && may_epoch == 0 -> gone = 0; place = 0; leaf = 0; recorded = 0 }
}

init {
  atomic {
    byte n = 0;
    do
    :: n < LEADERS -> run leader(); n++
    :: else -> break
    od
  }
}
