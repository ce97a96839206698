"""When a used name counts as lost."""

from __future__ import annotations

from sharedcache.core.losses import Losses


def test_one_look_that_finds_nothing_is_no_loss() -> None:
    """Another node may have fetched the file again, and this client not know."""
    losses = Losses()
    assert losses.look(["a"], 100.0, 0.0) == ()
    assert losses.lost == ()
    assert losses.look([], 101.0, 0.0) == ()
    assert losses.look(["a"], 102.0, 0.0) == ()
    assert losses.lost == ()


def test_a_second_look_tells_it_once() -> None:
    """A name that stays away is lost, and is news but once."""
    losses = Losses()
    losses.look(["a", "b"], 100.0, 0.0)
    assert losses.look(["a", "b"], 101.0, 0.0) == ("a", "b")
    assert losses.look(["a", "b"], 102.0, 0.0) == ()
    assert losses.lost == ("a", "b")


def test_looks_within_the_lifetime_of_names_are_one() -> None:
    """What a client remembers, it remembers at each of them."""
    losses = Losses()
    losses.look(["a"], 100.0, 60.0)
    assert losses.look(["a"], 159.0, 60.0) == ()
    assert losses.look(["a"], 160.0, 60.0) == ("a",)


def test_a_name_that_was_found_again_begins_anew() -> None:
    """A loss is over when the name is there, and the next one is news again."""
    losses = Losses()
    losses.look(["a"], 100.0, 0.0)
    losses.look(["a"], 101.0, 0.0)
    assert losses.look([], 102.0, 0.0) == ()
    assert losses.lost == ()
    assert losses.look(["a"], 103.0, 0.0) == ()
    assert losses.look(["a"], 104.0, 0.0) == ("a",)
