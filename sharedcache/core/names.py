"""The name grammar of ``_base``: which entries are cache names, and of what kind.

An entry that the grammar does not recognise is never touched.  The names are
those of OpenStack Nova's image cache: ``nova/virt/libvirt/imagecache.py`` and
``nova/virt/libvirt/imagebackend.py``.
"""

from __future__ import annotations

import enum
import hashlib
import re

DIGEST_BYTES = 20
"""Length of a SHA-1 digest, the form in which reports carry image ids."""

MAX_NAME_LENGTH = 180
"""Longer names are unrecognised: a quarantined name adds about 40 characters."""

MAX_NODE_LENGTH = 200
"""Longest node name, in characters: ``nodes/<node>`` must be one file name."""

_RAW_ID_LENGTH = 36
_DIGEST = r"[0-9a-f]{40}"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_RESIZED = rf"{_DIGEST}_(?:[1-9][0-9]{{0,6}}|sm)"
_SWAP = r"swap_[0-9]{1,9}"
_EPHEMERAL = r"ephemeral_[0-9]{1,9}_[0-9A-Za-z]{1,40}"
_WHOLE = rf"(?:{_RESIZED}|{_DIGEST}|{_UUID}|{_SWAP}|{_EPHEMERAL})"
_PARTIAL = rf"{_WHOLE}(?:\.[0-9A-Za-z]{{1,40}})?(?:\.part|\.converted)+"
_WHOLE_NAME = re.compile(_WHOLE)
_NODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
_IMAGE_ID = re.compile(_UUID + r"\Z", re.IGNORECASE)


class Kind(enum.IntEnum):
    """What a cache name holds; the number is the code in a column of kinds."""

    UNRECOGNISED = 0
    IMAGE = 1
    """``sha1(image id)``: a disk image, or a kernel or ramdisk of the new naming."""
    RESIZED = 2
    KERNEL = 3
    """A raw image id: a kernel or ramdisk under the old naming."""
    SWAP = 4
    EPHEMERAL = 5
    PARTIAL = 6
    """A download or conversion under way, or what one left behind."""

    @property
    def label(self) -> str:
        """The kind's name in tables and JSON."""
        return self.name.lower()


_GRAMMAR: tuple[tuple[re.Pattern[str], Kind], ...] = tuple(
    (re.compile(pattern + r"\Z"), kind)
    for pattern, kind in (
        (_DIGEST, Kind.IMAGE),
        (_RESIZED, Kind.RESIZED),
        (_UUID, Kind.KERNEL),
        (_SWAP, Kind.SWAP),
        (_EPHEMERAL, Kind.EPHEMERAL),
        (_PARTIAL, Kind.PARTIAL),
    )
)


def classify(name: str) -> Kind:
    """Tell the kind of an entry of ``_base``; doubt is ``UNRECOGNISED``."""
    if len(name) > MAX_NAME_LENGTH:
        return Kind.UNRECOGNISED
    for pattern, kind in _GRAMMAR:
        if pattern.match(name):
            return kind
    return Kind.UNRECOGNISED


def is_image_id(text: str) -> bool:
    """Whether the text is an image id: a UUID in its usual form, any case."""
    return _IMAGE_ID.match(text) is not None


def is_node_name(text: str) -> bool:
    """Whether the text can name a node.

    ASCII letters, digits, dot, dash and underscore, because tooz puts it in a
    path of ZooKeeper and the storage in a file name.
    """
    return len(text) <= MAX_NODE_LENGTH and _NODE.match(text) is not None


def digest_of(image_id: str) -> bytes:
    """Digest that the new naming uses for an image id (20 bytes).

    Nova hashes the id as the image service spells it, which is lower case.
    """
    return hashlib.sha1(image_id.lower().encode("ascii")).digest()  # noqa: S324 - Nova's naming, not a secret


def hashed_name(name: str) -> str | None:
    """Return the new name of a kernel or ramdisk that bears its raw image id.

    ``None`` for anything else: from a digest nobody can tell the id.
    """
    if len(name) != _RAW_ID_LENGTH or classify(name) is not Kind.KERNEL:
        return None
    return digest_of(name).hex()


def family_of(name: str) -> str | None:
    """Return the original's name for a resized copy, ``None`` for anything else."""
    if classify(name) is not Kind.RESIZED:
        return None
    return name[: DIGEST_BYTES * 2]


def lock_name(name: str) -> str:
    """Return the cache name whose lock covers a name: a partial file's is its whole's.

    Nova downloads ``X.part`` while it holds the lock of ``X``.
    """
    if classify(name) is not Kind.PARTIAL:
        return name
    match = _WHOLE_NAME.match(name)
    return name if match is None else match[0]


def leaf_of(name: str, entry: str, epoch: int, turn: int = 1) -> str:
    """Name of a quarantined file below ``epochs/<epoch>``; never used twice.

    The entry's own id makes it unique within an epoch, the epoch makes it
    unique after a move by a successor, and the turn after a restore.
    """
    first = f"{name}.{entry}.{epoch}"
    return first if turn == 1 else f"{first}.{turn}"


_LEAF = re.compile(
    r"(?P<name>.+)\.(?P<entry>[0-9a-f]{16})\.(?P<epoch>[1-9][0-9]*)"
    r"(?:\.(?P<turn>[1-9][0-9]*))?\Z"
)


def parse_leaf(leaf: str) -> tuple[str, str] | None:
    """Read (cache name, entry id) back from a quarantined file's name."""
    match = _LEAF.match(leaf)
    if match is None or classify(match["name"]) is Kind.UNRECOGNISED:
        return None
    return match["name"], match["entry"]


def next_leaf(leaf: str) -> str:
    """Return the name that follows this one in the same epoch.

    Raises ``ValueError`` for what is no quarantined file's name.
    """
    match = _LEAF.match(leaf)
    if match is None:
        raise ValueError(f"{leaf!r} is no quarantined file's name")
    turn = int(match["turn"] or 1) + 1
    return leaf_of(match["name"], match["entry"], int(match["epoch"]), turn)
