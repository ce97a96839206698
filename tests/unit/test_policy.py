"""Settings: what cannot work is refused, naming the setting."""

from __future__ import annotations

from typing import Any

import pytest

from sharedcache.core.names import Kind
from sharedcache.core.policy import MAX_BATCH, AgentPolicy, CleanerPolicy, PolicyError


def test_the_defaults_work() -> None:
    """The defaults are those of the design."""
    policy = CleanerPolicy()
    assert (policy.pass_interval_s, policy.grace_s, policy.batch) == (300, 3600, 1000)
    assert policy.min_age_ns(Kind.RESIZED) == 3600 * 10**9
    assert policy.min_age_ns(Kind.IMAGE) == 86400 * 10**9
    assert AgentPolicy("n1").report_interval_s == 30


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((f"{t}_s", 0) for t in ("pass_interval", "round_interval", "lock_hold")),
        ("session_timeout_s", -1),
        ("session_timeout_s", float("nan")),
        ("session_timeout_s", float("inf")),
        ("grace_s", -0.1),
        ("grace_s", float("nan")),
        ("grace_s", float("inf")),
        ("max_share_percent", 0),
        ("max_share_percent", 101),
        ("max_share_percent", float("nan")),
        ("max_share_floor", -1),
        ("max_shrink_percent", 0),
        ("max_shrink_percent", 100.1),
        ("max_shrink_percent", float("nan")),
        ("max_shrink_floor", -1),
        ("shrink_lasts_s", 0),
        ("rate_per_s", -1),
        ("rate_per_s", 0.05),
        ("rate_per_s", float("nan")),
        ("rate_per_s", float("inf")),
        ("low_water_percent", -1),
        ("low_water_percent", 100),
        ("low_water_percent", float("nan")),
        ("low_water_grace_s", -1),
        ("batch", 0),
        ("batch", MAX_BATCH + 1),
    ],
)
def test_a_cleaner_refuses_what_cannot_work(name: str, value: float) -> None:
    """Each bound is held, and the error names the setting."""
    changes: dict[str, Any] = {name: value}
    with pytest.raises(PolicyError, match=name):
        CleanerPolicy(**changes)


@pytest.mark.parametrize("age_s", [None, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [k for k in Kind if k is not Kind.UNRECOGNISED])
def test_every_kind_needs_an_age(kind: Kind, age_s: float | None) -> None:
    """No kind is without a minimum age: absent is not zero."""
    ages = {other: 0.0 for other in Kind if other is not kind}
    if age_s is not None:
        ages[kind] = age_s
    with pytest.raises(PolicyError, match=f"min_age_{kind.label}_s"):
        CleanerPolicy(min_age_s=ages)


def test_zero_is_allowed_where_it_means_at_once() -> None:
    """No grace and no minimum age are settings, not mistakes."""
    policy = CleanerPolicy(grace_s=0, min_age_s=dict.fromkeys(Kind, 0.0))
    assert policy.min_age_ns(Kind.SWAP) == 0


@pytest.mark.parametrize(
    ("space", "grace_s"),
    [
        (None, 100.0),
        ((1000, 50), 100.0),
        ((1000, 49), 10.0),
        ((0, 0), 100.0),
    ],
)
def test_the_grace_is_shorter_below_the_mark_alone(
    space: tuple[int, int] | None, grace_s: float
) -> None:
    """Space that is not known is not low, and a shorter grace is never longer."""
    policy = CleanerPolicy(grace_s=100, low_water_percent=5, low_water_grace_s=10)
    assert policy.grace_now_s(space) == grace_s
    longer = CleanerPolicy(grace_s=1, low_water_percent=5, low_water_grace_s=10)
    assert longer.grace_now_s(space) == 1
    assert CleanerPolicy().grace_now_s((1000, 0)) == 3600


@pytest.mark.parametrize(
    ("rate", "files"), [(0, 1000), (0.1, 1), (2, 20), (99, 990), (1e6, 1000)]
)
def test_a_slow_pace_makes_small_batches(rate: float, files: int) -> None:
    """What is in a batch cannot be restored, so a batch is over within a round."""
    policy = CleanerPolicy(rate_per_s=rate, round_interval_s=10)
    assert policy.paced_batch() == files


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("report_interval_s", 0),
        ("touch_interval_s", -1),
        ("session_timeout_s", float("nan")),
        ("lock_hold_s", 0),
        ("lock_wait_s", -1),
        ("schema_version", 0),
        ("schema_version", 3),
        ("node", "a/b"),
        ("node", ""),
    ],
)
def test_an_agent_refuses_what_cannot_work(name: str, value: float | str) -> None:
    """Each bound is held, and the error names the setting."""
    changes: dict[str, Any] = {"node": "n1", name: value}
    with pytest.raises(PolicyError, match=name):
        AgentPolicy(**changes)
