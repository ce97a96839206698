/*
 * What the configurations with rounds share: reports, windows, looks.
 * docs/protocol.md, "The agent" and "Rounds"; sharedcache/core/window.py and
 * sharedcache/core/rounds.py are followed where they are more exact.
 *
 * One cache name is modelled, since reports go by name and names are
 * independent of each other.  A window whose `upto` is 0 is none.
 */
#define NODES 2
#define NOWHERE NODES

typedef Window { byte upto; byte reread; bit seen; bit saw };
typedef Report {
  bit given;        /* the node has reported at all */
  byte upto;        /* the round read before the looks */
  byte since_round; /* the round read again when the window began */
  bit unbroken;     /* nothing was missed since the window began */
  bit now;          /* the name is used now */
  bit since;        /* the name was used within the window */
  bit saw;          /* the quarantined inode still bore its name here, in any look */
#ifdef SEES_APART
  bit sees;         /* and it did in the latest one */
#endif
  bit intent        /* a restore is under way here */
};

byte round = 1;
Window before[NODES], present[NODES];
Report last[NODES];
bit event[NODES]; /* a use was heard of since the sources were asked last */
bit deaf[NODES];  /* events are being lost: the agent or libvirtd restarts */

/* Steps whose order does not matter to each other are one, unless -DFINE. */
#ifdef FINE
#define TOGETHER
#else
#define TOGETHER atomic
#endif

/* A use at this moment is heard of, unless events are being lost. */
#ifdef M_NO_EVENTS
#define HEAR(n) skip
#else
#define HEAR(n) event[n] = event[n] | !deaf[n]
#endif

#if defined(M_SAW_LATEST) || defined(SAW_LATEST)
/* Mutant: whether the name was seen counts as of the latest look only.  What holds
   without a condition of the unlink holds with it, so a configuration may leave it
   out to be smaller. */
#define JOIN(window, there) window = 0
#define WINDOW(there) 0
#else
#define JOIN(window, there) window = window | there
#define WINDOW(there) there
#endif

/* Windows.after and the round that is read again after the looks. */
inline take_look(n, r1, lost, used, there) {
#ifdef M_ROUND_BEFORE
    /* Mutant: the window claims the round that was read before the looks. */
    again = r1;
#else
    again = round;
#endif
    seen = used | event[n];
    event[n] = 0;
#ifdef M_BROKEN
    /* Mutant: events were lost, and the window goes on as if they were not. */
    lost = 0;
#endif
    if
    :: lost || present[n].upto == 0 || r1 < present[n].upto ->
       before[n].upto = 0; before[n].reread = 0; before[n].seen = 0; before[n].saw = 0;
       present[n].upto = r1; present[n].reread = again; present[n].seen = seen;
       present[n].saw = WINDOW(there)
    :: else ->
       if
       :: r1 == present[n].upto ->
          before[n].seen = before[n].upto != 0 && (before[n].seen | seen);
          before[n].saw = before[n].upto != 0 && WINDOW(before[n].saw | there);
          JOIN(present[n].saw, there);
#if defined(M_SINCE_LATEST)
          /* Mutant: `since` is filled from the latest report of the round on. */
          present[n].seen = seen
#elif defined(M_SINCE_LATEST_CLAIM)
          /* Mutant: the window as a whole begins with the latest report. */
          present[n].seen = seen; present[n].reread = again
#else
          present[n].seen = present[n].seen | seen
#endif
       :: else ->
          before[n].upto = present[n].upto;
          before[n].reread = present[n].reread;
          before[n].seen = present[n].seen | seen;
          before[n].saw = WINDOW(present[n].saw | there);
          present[n].upto = r1; present[n].reread = again; present[n].seen = seen;
          present[n].saw = WINDOW(there)
       fi
    fi;
    again = 0; seen = 0
}

/* What the report after the latest look says (Windows.coverage). */
inline publish(n, used, there, wants) {
    last[n].given = 1;
    last[n].upto = present[n].upto;
    last[n].now = used;
#ifdef SEES_APART
    last[n].sees = there;
#endif
    last[n].intent = wants;
    if
    :: before[n].upto == 0 ->
       last[n].since_round = present[n].reread;
       last[n].since = present[n].seen;
       last[n].saw = present[n].saw | there;
       last[n].unbroken = 0
    :: else ->
       last[n].since_round = before[n].reread;
       last[n].since = before[n].seen;
       last[n].saw = before[n].saw | there;
       last[n].unbroken = 1
    fi
}

/* may_raise: every rostered node has reported the present round. */
#ifdef M_RAISE_EARLY
#define MAY_RAISE true
#else
#define MAY_RAISE (last[0].given && last[1].given && \
                   last[0].upto == round && last[1].upto == round)
#endif

#ifdef M_NO_SINCE
#define WANTED(n) (last[n].now || last[n].saw || last[n].intent)
#else
#define WANTED(n) (last[n].now || last[n].since || last[n].saw || last[n].intent)
#endif

/* One round R with since_round < R <= upto at every node (Confirmation.of). */
#define COMMON (last[0].since_round < last[1].upto && \
                last[1].since_round < last[0].upto && \
                last[0].since_round < last[0].upto && \
                last[1].since_round < last[1].upto)
#ifdef M_NO_COMMON
#undef COMMON
#define COMMON (last[0].since_round < last[0].upto && \
                last[1].since_round < last[1].upto)
#endif

#ifdef M_OLD_LOOK
/* Mutant: looks count although they began before the rename. */
#define LATE(n, r) true
#else
#define LATE(n, r) ((r) <= last[n].since_round)
#endif

#ifdef M_BROKEN
#define WHOLE(n) (last[n].given && last[n].since_round < last[n].upto)
#else
#define WHOLE(n) (last[n].given && last[n].unbroken)
#endif

#define CONFIRMED(r) (WHOLE(0) && WHOLE(1) && LATE(0, r) && LATE(1, r) && \
                      COMMON && !WANTED(0) && !WANTED(1))

/* The report, and whether it speaks against the entry as the one before did not:
   then it raises the veto counter (core/veto.py). */
inline publish_heard(n, used, there, wants) {
  again = WANTED(n) + last[n].intent;
  publish(n, used, there, wants);
  again = (WANTED(n) && again == 0) || (wants && again < 2)
}
