"""Every run of Spin: the configurations, and the mutants that must fail."""

from __future__ import annotations

from tests.model.spin import Outcome, Run, Search


def _mutant(
    model: str,
    flag: str,
    rule: str,
    *flags: str,
    serves: str = "I1",
    search: Search = Search.SHORTEST,
    limit_s: float = 120.0,
    long: bool = False,
) -> Run:
    return Run(
        f"{model.removesuffix('.pml')}-{flag.removeprefix('M_').lower()}",
        model,
        rule,
        search,
        (flag, *flags),
        Outcome.FAILS,
        serves,
        limit_s,
        long=long,
    )


def _spare(
    model: str,
    flag: str,
    rule: str,
    *flags: str,
    name: str = "",
    serves: str = "I1",
    limit_s: float = 300.0,
    long: bool = True,
) -> Run:
    """Describe a mutant without a counterexample: the whole space is searched."""
    return Run(
        name or f"{model.removesuffix('.pml')}-{flag.removeprefix('M_').lower()}",
        model,
        rule,
        Search.EXHAUST,
        (flag, *flags),
        Outcome.HOLDS,
        serves,
        limit_s,
        long=long,
    )


CONFIGURATIONS = (
    Run("rounds", "rounds.pml", "rounds with migration", flags=("LOSSES=0",)),
    Run(
        "rounds-restart",
        "rounds.pml",
        "rounds with migration, and events lost once",
        limit_s=400,
        long=True,
    ),
    Run(
        "rounds-fine",
        "rounds.pml",
        "rounds with migration, every step of a look by itself",
        flags=("LOSSES=0", "FINE"),
        limit_s=900,
        memory_mb=5500,
        long=True,
    ),
    Run("restore", "restore.pml", "a restore with a foreign download"),
    Run(
        "restore-deaths",
        "restore.pml",
        "the same, and the agent dies half-way",
        flags=("DEATHS=1", "MAXROUND=3"),
        limit_s=400,
        long=True,
    ),
    # A finding: docs/model.md, "A link that lands late".
    Run(
        "restore-straggler",
        "restore.pml",
        "the same, and its last step lands late",
        flags=("DEATHS=1", "STRAGGLER", "MAXROUND=3"),
        expected=Outcome.FAILS,
        limit_s=400,
        long=True,
    ),
    Run(
        "restore-straggler-mended",
        "restore.pml",
        "the same, with a new name for an entry whose restore was interrupted",
        flags=("DEATHS=1", "STRAGGLER", "FRESH_LEAF", "MAXROUND=3"),
        limit_s=900,
        memory_mb=5500,
        long=True,
    ),
    Run(
        "takeover",
        "takeover.pml",
        "three leaders that may stop for ever anywhere",
        serves="I1, I2",
    ),
    Run(
        "takeover-four",
        "takeover.pml",
        "four leaders",
        Search.BITSTATE,
        ("LEADERS=4",),
        Outcome.SEEN,
        serves="I1, I2",
        limit_s=240,
        memory_mb=5500,
        long=True,
    ),
    Run("report-order", "report_order.pml", "capabilities, counters, authorisation"),
    Run("witness", "witness.pml", "witnesses, caches, guests before the agent"),
    Run("gate", "gate.pml", "a node of the old naming joins", serves="I5"),
    Run(
        "whole-reached",
        "whole.pml",
        "the composition does reach unlinks",
        flags=("REACHED", "STARTS=0", "LOSSES=0", "FOREIGN=0"),
        expected=Outcome.FAILS,
        serves="I1, I2",
    ),
    Run(
        "whole",
        "whole.pml",
        "everything at once",
        Search.BITSTATE,
        expected=Outcome.SEEN,
        serves="I1, I2",
        limit_s=240,
        memory_mb=5500,
        long=True,
    ),
)

LIVENESS = (
    Run(
        "live-purged",
        "liveness.pml",
        "an unused file is purged in the end",
        Search.FAIR,
        serves="liveness",
    ),
    Run(
        "live-two-files",
        "liveness.pml",
        "two files, one after the other, are purged in the end",
        Search.FAIR,
        ("FILES=2",),
        serves="liveness",
    ),
    Run(
        "live-restored",
        "liveness.pml",
        "a file that was restored and is unused again is purged in the end",
        Search.FAIR,
        ("RESTORED",),
        serves="liveness",
    ),
    Run(
        "live-restored-at-all",
        "liveness.pml",
        "the property before is not an empty one",
        Search.FAIR,
        ("NEVER_RESTORED",),
        Outcome.FAILS,
        serves="liveness",
    ),
    Run(
        "live-gate",
        "gate.pml",
        "the gate opens again when its reason is gone",
        Search.FAIR,
        ("FAIR",),
        serves="liveness",
    ),
)

_FEW = "LOSSES=0"
_SMALL = ("STARTS=1", "LOSSES=0", "FOREIGN=0", "LEADERS=1")

MUTANTS = (
    # Rounds.
    _mutant("rounds.pml", "M_OLD_LOOK", "looks count from before the rename", _FEW),
    _mutant("rounds.pml", "M_NO_SINCE", "no `since`", _FEW),
    _mutant(
        "rounds.pml",
        "M_SINCE_LATEST",
        "`since` only from the latest report of the round before",
        _FEW,
    ),
    _mutant(
        "rounds.pml",
        "M_ROUND_BEFORE",
        "the window's round is read before the looks",
    ),
    _mutant(
        "rounds.pml",
        "M_ROUND_AFTER",
        "the report's round is read after the looks",
        search=Search.EXHAUST,
    ),
    _mutant("rounds.pml", "M_NO_COMMON", "two clean looks, no common round", _FEW),
    _mutant("rounds.pml", "M_BROKEN", "broken coverage counts"),
    _mutant("rounds.pml", "M_LISTING", "entries from a cached listing", _FEW),
    _mutant("rounds.pml", "M_NO_GONE_CHECK", "no look whether the name is gone", _FEW),
    _mutant(
        "rounds.pml",
        "M_STALE_ROUND",
        "the next round as of before the rename, unchecked",
        _FEW,
    ),
    _mutant("rounds.pml", "M_NO_EVENTS", "scans only, no events", _FEW, "MOVES=1"),
    Run(
        "rounds-no_events-mended",
        "rounds.pml",
        "scans only, names found gone over the whole window, two migrations",
        Search.SHORTEST,
        ("M_NO_EVENTS", _FEW, "MOVES=2", "SEES_OVER_WINDOW"),
        Outcome.FAILS,
    ),
    # The composition finds what the small configurations find, made small itself.
    _mutant(
        "whole.pml",
        "M_NO_SINCE",
        "no `since`",
        *_SMALL,
        search=Search.EXHAUST,
        long=True,
    ),
    # Restoring.
    _mutant("restore.pml", "M_RENAME", "restore by rename", "DEATHS=1", "STRAGGLER"),
    _mutant("restore.pml", "M_NO_LOCK", "restore without the lock", serves="I2, I3"),
    _mutant(
        "restore.pml",
        "M_NO_INTENT",
        "restore without a published intent",
        search=Search.EXHAUST,
    ),
    _mutant(
        "restore.pml",
        "M_CACHE_LINKS",
        "a writer links from quarantine",
        "MAXROUND=3",
        search=Search.EXHAUST,
        limit_s=300,
        long=True,
    ),
    # Taking over.
    _mutant("takeover.pml", "M_NO_SEAL", "no seal", "LEADERS=2", serves="I2"),
    _mutant(
        "takeover.pml",
        "M_SEAL_RENAME",
        "seal by renaming the directory",
        "LEADERS=2",
        serves="I2",
    ),
    _mutant("takeover.pml", "M_NAME_AGAIN", "quarantine names used again", "LEADERS=2"),
    _mutant(
        "takeover.pml",
        "M_CLEAR_FIRST",
        "authorisation cleared before the seal",
        "LEADERS=2",
    ),
    _mutant(
        "takeover.pml",
        "M_CLEAR_UNCHECKED",
        "clearing checks neither epoch nor version",
        "LEADERS=2",
    ),
    _mutant(
        "takeover.pml",
        "M_CLEAR_OUTSTANDING",
        "authorisation cleared while an unlink is outstanding",
        "LEADERS=2",
    ),
    # The order of reports.
    _mutant("report_order.pml", "M_NO_VETO", "the veto counter is not checked"),
    _mutant("report_order.pml", "M_NO_VERSIONS", "manifest versions not checked"),
    _mutant(
        "report_order.pml",
        "M_COUNTER_FIRST",
        "counters raised before the capabilities are written",
    ),
    _mutant(
        "report_order.pml",
        "M_COUNTERS_LAST",
        "the leader reads the counters after the reports",
    ),
    _mutant("report_order.pml", "M_EMPTY_JOIN", "a new session joins empty"),
    _mutant("report_order.pml", "M_NO_AUTH_CHECK", "a restore asks no authorisation"),
    _mutant("report_order.pml", "M_NO_INTENT", "a restore publishes no intent"),
    _mutant("report_order.pml", "M_UNMARKED", "an operator's restore is not marked"),
    _mutant("report_order.pml", "M_MARK_IGNORED", "a marked entry is authorised"),
    _mutant("report_order.pml", "M_EXPUNGE_LIVE", "a live node is expunged"),
    _mutant("report_order.pml", "M_EPHEMERAL", "a roster of members only"),
    _mutant(
        "report_order.pml",
        "M_CLEAR_OUTSTANDING",
        "authorisation cleared while an unlink is outstanding",
    ),
    # Witnesses.
    _mutant("witness.pml", "M_NOT_AGAIN", "witnesses are not read again"),
    _mutant("witness.pml", "M_FLOOR_NONE", "witnesses read at once"),
    _mutant("witness.pml", "M_FLOOR_ONCE", "a floor of one cache lifetime"),
    _mutant("witness.pml", "M_NO_INCARNATION", "incarnations are not compared"),
    _mutant("witness.pml", "M_NO_STRANGERS", "strangers are not looked for"),
    _mutant("witness.pml", "M_GUEST_FIRST", "guests start before the witness"),
    _mutant("witness.pml", "M_SEAL_WITH_GUESTS", "a seal while guests run"),
    # The gate.
    _mutant(
        "gate.pml", "M_NO_ROSTER", "the roster counter is not checked", serves="I5"
    ),
    _mutant(
        "gate.pml",
        "M_TAKE_UNCHECKED",
        "quarantine does not check the roster counter",
        serves="I5",
    ),
    _mutant("gate.pml", "M_NO_STOP_FLAG", "the stop flag is not seen", serves="I5"),
    _mutant(
        "gate.pml",
        "M_FINALIZE_UNCHECKED",
        "finalizing does not check the roster counter",
        serves="I5",
    ),
    _mutant(
        "gate.pml", "M_JOIN_UNCHECKED", "a join does not check the rollout", serves="I5"
    ),
    # Liveness.
    _mutant(
        "liveness.pml",
        "M_RAISE_EARLY",
        "rounds are raised without waiting for every node",
        serves="liveness",
        search=Search.FAIR,
    ),
    _mutant(
        "liveness.pml",
        "M_SINCE_LATEST_CLAIM",
        "windows begin with the latest report",
        serves="liveness",
        search=Search.FAIR,
    ),
    _mutant(
        "liveness.pml",
        "M_NO_FRESH",
        "no new round for files that wait for younger reports",
        serves="liveness",
        search=Search.FAIR,
    ),
)

SPARE = (
    _spare(
        "rounds.pml",
        "M_NO_EVENTS",
        "scans only, names found gone over the whole window, one migration",
        _FEW,
        "MOVES=1",
        "SEES_OVER_WINDOW",
        name="rounds-no_events-one_move",
        long=False,
    ),
    _spare(
        "rounds.pml",
        "M_PRESENT_ROUND",
        "an entry belongs to the present round, not the next",
        _FEW,
        long=False,
    ),
    _spare(
        "rounds.pml",
        "M_MANIFEST_FIRST",
        "the manifest is read before the round",
        _FEW,
        long=False,
    ),
    _spare(
        "rounds.pml",
        "M_SINCE_LATEST_CLAIM",
        "windows begin with the latest report",
        _FEW,
    ),
    _spare("restore.pml", "M_NO_NEW_ROUND", "no new round after a restore", long=False),
    _spare("restore.pml", "M_NO_BASELINE", "no comparison with the baseline"),
    _spare(
        "restore.pml",
        "M_LEADER_RESTORES",
        "a leader restores",
        "MAXROUND=3",
        limit_s=600,
    ),
    _spare(
        "takeover.pml",
        "M_SKIP_UNMADE",
        "an epoch that made no directory is not sealed",
        serves="I2",
        long=False,
    ),
    _spare("report_order.pml", "M_NO_ROSTER", "the roster counter is not checked"),
)

RUNS = (*CONFIGURATIONS, *LIVENESS, *MUTANTS, *SPARE)
