"""The name grammar: what is a cache name, and of what kind."""

from __future__ import annotations

import hashlib

import pytest

from sharedcache.core import names
from sharedcache.core.names import Kind
from tests.property.strategies import D1, D2, K1, RECOGNISED, UNRECOGNISED


@pytest.mark.parametrize(("name", "kind"), sorted(RECOGNISED.items()))
def test_cache_names_have_their_kind(name: str, kind: Kind) -> None:
    """The grammar recognises Nova's names and tells their kind."""
    assert names.classify(name) is kind


@pytest.mark.parametrize("name", UNRECOGNISED)
def test_doubt_is_unrecognised(name: str) -> None:
    """Whatever the grammar does not know exactly is never touched."""
    assert names.classify(name) is Kind.UNRECOGNISED


@pytest.mark.parametrize(
    "name",
    [f"../{D1}", f"{D1}/x", f"{D1}.part/..", "swap_\u0661", f" {D1}", f"{D1} ", "\0"],
)
def test_no_separator_and_no_other_digits(name: str) -> None:
    """No cache name has a separator, a space, or a digit that is not ASCII."""
    assert names.classify(name) is Kind.UNRECOGNISED


def test_a_long_name_is_unrecognised() -> None:
    """A name is recognised only if its quarantined form is one file name."""
    longest = D1 + ".part" * 28
    assert len(longest) == names.MAX_NAME_LENGTH
    assert names.classify(longest) is Kind.PARTIAL
    assert len(names.leaf_of(longest, "f" * 16, 2**63, 2**31)) <= 255
    assert names.classify(longest + ".part") is Kind.UNRECOGNISED


def test_the_digest_is_sha1_of_the_lower_case_id() -> None:
    """Nova hashes the id as the image service spells it."""
    expected = hashlib.sha1(K1.encode(), usedforsecurity=False).digest()
    assert names.digest_of(K1) == names.digest_of(K1.upper()) == expected
    assert names.classify(expected.hex()) is Kind.IMAGE


def test_an_image_id_is_a_uuid_in_any_case() -> None:
    """An image id is a UUID in its usual form and nothing more."""
    assert names.is_image_id(K1)
    assert names.is_image_id(K1.upper())
    for text in ("", K1[:-1], K1 + "\n", K1.replace("-", ""), f"{{{K1}}}"):
        assert not names.is_image_id(text)


@pytest.mark.parametrize("node", ["n", "compute-1", "a.b_c.example.org", "9"])
def test_node_names(node: str) -> None:
    """Host names can name a node."""
    assert names.is_node_name(node)


@pytest.mark.parametrize(
    "node", ["", ".", "..", "a/b", "a b", "a\n", "-a", "a-", "\u00e9", "x" * 201]
)
def test_what_cannot_name_a_node(node: str) -> None:
    """A node's name is one harmless file name and one part of a path."""
    assert not names.is_node_name(node)


def test_only_resized_copies_have_a_family() -> None:
    """A resized copy belongs to its original; nothing else to anything."""
    assert names.family_of(f"{D1}_20") == D1
    assert names.family_of(f"{D2}_sm") == D2
    for name in (D1, K1, f"{D1}_20.part", "swap_1", "README"):
        assert names.family_of(name) is None


@pytest.mark.parametrize("name", sorted(RECOGNISED))
def test_a_leaf_is_read_back(name: str) -> None:
    """The quarantined name tells the cache name and the entry."""
    assert names.parse_leaf(names.leaf_of(name, "0a" * 8, 12)) == (name, "0a" * 8)
    assert names.parse_leaf(names.leaf_of(name, "0a" * 8, 12, 3)) == (name, "0a" * 8)


@pytest.mark.parametrize("name", sorted(RECOGNISED))
def test_a_leaf_has_endless_successors(name: str) -> None:
    """Every next name is a new one of the same entry, in the same epoch."""
    leaves = [names.leaf_of(name, "0a" * 8, 12)]
    for _ in range(12):
        leaves.append(names.next_leaf(leaves[-1]))
        assert names.parse_leaf(leaves[-1]) == (name, "0a" * 8)
    assert len(set(leaves)) == len(leaves)
    assert all(leaf.startswith(leaves[0]) for leaf in leaves)


def test_what_is_no_leaf_has_no_successor() -> None:
    """A name that is not ours is not changed."""
    with pytest.raises(ValueError, match="no quarantined file"):
        names.next_leaf(f"{D1}.bak")


@pytest.mark.parametrize(
    "leaf",
    [
        D1,
        f"{D1}.{'0' * 16}",
        f"{D1}.{'0' * 15}.1",
        f"{D1}.{'0' * 16}.0",
        f"{D1}.{'0' * 16}.1\n",
        f"{D1}.{'0' * 16}.1.0",
        f"{D1}.{'0' * 16}.1.2.3",
        f"README.{'0' * 16}.1",
        f"../{D1}.{'0' * 16}.1",
    ],
)
def test_what_is_no_leaf(leaf: str) -> None:
    """A name below an epoch that we did not give is not ours."""
    assert names.parse_leaf(leaf) is None


def test_kinds_have_labels() -> None:
    """Every kind has the word that settings and JSON use."""
    assert [kind.label for kind in (Kind.IMAGE, Kind.PARTIAL)] == ["image", "partial"]
