"""What a backing file's name means, read as qemu reads it.

A name is a path, a path behind ``file:``, a protocol of its own (``nbd:``), or
``json:`` and a block device's options with nested or dotted keys.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass

from sharedcache.adapters.instances import paths
from sharedcache.adapters.instances.qcow2 import ImageError

_PROTOCOL = re.compile(r"([^:/]*):")
_JSON = "json:"
_OF_A_PROCESS = ("/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/proc/")
_CHILDREN = frozenset({"backing", "data-file", "file", "image", "raw", "test"})
_LOCAL = frozenset({"file", "host_device", "host_cdrom"})
_WRAPPERS = frozenset({"blkdebug", "blkverify"})
_FILTERS = frozenset({"compress", "copy-on-read", "preallocate", "throttle"})
_STACKED = frozenset(
    {"blkdebug", "blklogwrites", "blkreplay", "blkverify", "quorum", "replication"}
)
_OF_DIRECTORIES = frozenset({"fat", "vvfat"})
_REFERRING = frozenset({None, "qcow", "qcow2", "qed", "vmdk"})
"""Formats whose headers name other files; what is probed may be one of them."""
_FORMATS = frozenset(
    {
        "bochs",
        "cloop",
        "dmg",
        "luks",
        "parallels",
        "qcow",
        "qcow2",
        "qed",
        "raw",
        "vdi",
        "vhdx",
        "vmdk",
        "vpc",
    }
)
_INNER = _FORMATS | _FILTERS | _STACKED
"""What may stand between an image and the file that holds it."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A file that an image refers to.

    ``path`` is absolute and not normalised, because ``..`` behind a symbolic
    link is the kernel's to resolve.  ``format`` is ``None`` where qemu would
    probe.
    """

    path: str
    format: str | None


def references(
    name: str, image_format: str | None, directory: str
) -> tuple[Reference, ...]:
    """Return the files that a backing file's name leads to; none for a network's.

    ``directory`` is that of the image as its own path spells it, which is
    where qemu starts from even if the path's last part is a symbolic link.
    Raises ``ImageError`` for a name that cannot be understood.
    """
    if name.startswith(_JSON):
        try:
            return tuple(_from_options(_options(name), image_format))
        except RecursionError as error:
            raise ImageError(f"the name {name[:80]!r}... is nested too deep") from error
    protocol = _PROTOCOL.match(name)
    if protocol is None:
        return (_reference(paths.join(directory, name), image_format),)
    if protocol[1] in _WRAPPERS:
        raise ImageError(f"the name {name!r} wraps another that is not followed")
    if protocol[1] in _OF_DIRECTORIES:
        raise _whole_directory(name)
    if protocol[1] not in _LOCAL:
        return ()
    return (_reference(name[protocol.end() :], image_format),)


def _whole_directory(name: str) -> ImageError:
    """Say that qemu makes a disk of whatever lies in a directory."""
    return ImageError(f"the name {name!r} stands for every file of a directory")


def _reference(path: str, image_format: str | None) -> Reference:
    """Check a path that must be absolute by now.

    qemu looks for a relative name behind ``file:`` or ``json:`` from its own
    working directory, which nobody else can know.
    """
    if not path.startswith("/"):
        raise ImageError(
            f"the name {path!r} is relative to qemu's own working directory:"
            " give its full path with 'qemu-img rebase -u'"
        )
    try:
        encoded = os.fsencode(path)
    except UnicodeError as error:
        raise ImageError(f"the name {path!r} is no file name") from error
    if b"\0" in encoded:
        raise ImageError(f"the name {path!r} is no file name")
    if path.startswith(_OF_A_PROCESS):
        raise ImageError(
            f"the name {path!r} means another file to every process: give its full"
            " path with 'qemu-img rebase -u'"
        )
    if image_format in _LOCAL:
        return Reference(path, "raw")
    return Reference(path, image_format)


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object, refusing a key that is given twice, as qemu does."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _options(name: str) -> dict[str, object]:
    """Parse a ``json:`` name into nested options."""
    try:
        parsed = json.loads(name[len(_JSON) :], object_pairs_hook=_no_duplicates)
    except ValueError as error:
        raise ImageError(
            f"the name {name!r} cannot be read as JSON ({error}):"
            " give a plain path with 'qemu-img rebase -u'"
        ) from error
    if not isinstance(parsed, dict):
        raise ImageError(f"the name {name!r} is not a JSON object")
    return _nested(parsed, name)


def _nested(flat: dict[str, object], name: str) -> dict[str, object]:
    """Turn dotted keys into nested objects, on every level."""
    tree: dict[str, object] = {}
    for key, given in flat.items():
        value = _nested(given, name) if isinstance(given, dict) else given
        *parents, last = key.split(".")
        at = tree
        for parent in parents:
            below = at.setdefault(parent, {})
            if not isinstance(below, dict):
                raise ImageError(f"the name {name!r} gives {parent!r} twice")
            at = below
        there = at.get(last)
        if isinstance(there, dict) and isinstance(value, dict):
            there.update(value)
        elif last in at:
            raise ImageError(f"the name {name!r} gives {last!r} twice")
        else:
            at[last] = value
    return tree


def _driver_of(options: dict[str, object]) -> str | None:
    """Return the driver that the options name, if any."""
    driver = options.get("driver")
    if driver is None or isinstance(driver, str):
        return driver
    raise ImageError(f"the options name the driver {driver!r}")


def _from_options(options: dict[str, object], forced: str | None) -> list[Reference]:
    """Collect every file below a block device's options.

    A format that the image itself gives overrides the options' own, as in
    qemu.  Drivers that are not known are searched too: a file too many is
    only kept a while longer.
    """
    given = _driver_of(options)
    driver = forced or given
    if given in _OF_DIRECTORIES:
        raise _whole_directory(str(options.get("dir")))
    found: list[Reference] = []
    filename = options.get("filename")
    if isinstance(filename, str):
        if driver in _LOCAL or given in _LOCAL:
            literal = filename.removeprefix("file:")
            found.append(_reference(literal, driver))
        else:
            known = driver if driver in _FORMATS else None
            # A directory that is empty leaves a relative name relative.
            found.extend(references(filename, known, ""))
    for key, child in options.items():
        found.extend(_from_child(key, child, driver))
    return found


def _from_child(key: str, child: object, driver: str | None) -> list[Reference]:
    """Collect from one option, if it describes block devices itself."""
    if isinstance(child, list):
        return [found for one in child for found in _from_child(key, one, None)]
    if key in _CHILDREN and isinstance(child, str) and child:
        raise ImageError(
            f"it refers to the block node {child!r}, which only one process knows:"
            " give a plain path with 'qemu-img rebase -u'"
        )
    return _from_device(key, child, driver) if isinstance(child, dict) else []


def _from_device(
    key: str, child: dict[str, object], driver: str | None
) -> list[Reference]:
    """Collect from a block device that another one has by a key."""
    own = _driver_of(child)
    is_protocol = own is None or own in _LOCAL
    if key == "file" and driver in _REFERRING and own in _INNER:
        return _within(child, own, driver)
    if key == "file" and is_protocol:
        if driver in _FORMATS:
            return _from_options(child, driver)
        # A filter passes its file's bytes on; what they are is to be probed.
        return _from_options({**child, "driver": None}, None)
    if key == "data-file" and is_protocol:
        return _from_options(child, "raw")
    return _from_options(child, None)


def _within(
    child: dict[str, object], own: str | None, driver: str | None
) -> list[Reference]:
    """Collect from an image that lies within another block device's content.

    A raw one and a filter pass their file's bytes on. A part of them, or what any
    other makes of them, begins elsewhere than where a header is looked for.
    """
    passed_on = own == "raw" or own in _FILTERS
    if not passed_on or child.get("offset") not in {None, 0, "0"}:
        raise ImageError(
            f"it refers to a {driver or 'probed'} image inside of another image,"
            " which is not followed: convert it with qemu-img"
        )
    return _from_options({**child, "driver": driver}, driver)
