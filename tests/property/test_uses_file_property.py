"""Properties of the uses file, over everything a file can hold."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sharedcache.adapters.uses_file import UsesFileSource
from sharedcache.core import names
from sharedcache.core.model import Uses
from sharedcache.core.ports import SourceError

ids = st.uuids().map(str)
spelled_ids = st.one_of(ids, ids.map(str.upper))
digests = st.binary(min_size=20, max_size=20).map(bytes.hex)
cache_names = st.one_of(
    digests,
    st.builds("{}_{}".format, digests, st.integers(1, 9999)),
    ids,
    st.integers(0, 10**9 - 1).map("swap_{}".format),
)
listings = st.fixed_dictionaries(
    {},
    optional={
        "images": st.lists(spelled_ids),
        "kernels": st.lists(spelled_ids),
        "ramdisks": st.lists(spelled_ids),
        "names": st.lists(cache_names),
    },
)
near_listings = st.dictionaries(
    st.sampled_from(["images", "kernels", "names", "image"]) | st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8) | ids,
        lambda inner: st.lists(inner, max_size=4),
    ),
    max_size=4,
)


def look(content: bytes, *, both_namings: bool = True) -> Uses:
    """Look at a file that holds these bytes."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        return UsesFileSource(file.name, both_namings=both_namings).look()


@given(listed=listings, both=st.booleans())
def test_everything_listed_is_used(listed: dict[str, list[str]], *, both: bool) -> None:
    """Every id and name that is listed is used, and nothing else is."""
    uses = look(json.dumps(listed).encode(), both_namings=both)
    images = {names.digest_of(one).hex() for one in listed.get("images", [])}
    boots = [*listed.get("kernels", []), *listed.get("ramdisks", [])]
    expected = images | set(listed.get("names", [])) | {one.lower() for one in boots}
    if both:
        expected |= {names.digest_of(one).hex() for one in boots}
    assert set(uses.cache_names()) == expected
    assert {digest.hex() for digest in uses.families} == images


@given(listed=listings.filter(bool), data=st.data())
def test_a_cut_file_is_never_believed(
    listed: dict[str, list[str]], data: st.DataObject
) -> None:
    """No proper beginning of a file passes for the whole of it."""
    content = json.dumps(listed).encode()
    cut = data.draw(st.integers(0, len(content) - 1))
    try:
        look(content[:cut])
    except SourceError:
        return
    raise AssertionError(content[:cut])


@settings(max_examples=300)
@given(content=st.binary(max_size=200) | near_listings.map(json.dumps).map(str.encode))
def test_uses_or_a_clear_error(content: bytes) -> None:
    """Whatever the file holds: uses of recognised names, or a ``SourceError``."""
    try:
        uses = look(content)
    except SourceError as error:
        assert "; " in str(error)  # noqa: PT017 - either outcome is right
        return
    for name in uses.cache_names():
        assert names.classify(name) is not names.Kind.UNRECOGNISED
