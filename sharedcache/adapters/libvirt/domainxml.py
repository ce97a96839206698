"""What a domain's XML says of its files, as libvirt writes it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sharedcache.core import names

_NETWORKS = frozenset({"network", "nvme", "vhostuser", "vhostvdpa", "dir"})
_NOVA_ROOTS = ".//{*}instance/{*}root"
_PASSED_ON = "{http://libvirt.org/schemas/domain/qemu/1.0}"
"""What libvirt hands to qemu as it is (drvqemu, "Pass-through")."""

_PATHS = (
    re.compile(r"/[^,=\"'\s{}\[\]]+"),
    re.compile(r"/[^=\"'{}\[\]]+?(?=(?<!,),(?!,)|[\"'}]|$)"),
)
"""Absolute paths in an argument: up to a blank; and to a comma, which is doubled
where it belongs to the path (qemu's manual, "Options")."""


class DomainXmlError(ValueError):
    """The XML says something that this release does not understand."""


@dataclass(frozen=True, slots=True)
class File:
    """One image file of a disk.

    ``path`` is empty for a volume of a storage pool, whose path is not in the
    XML.  ``whole`` tells that the XML also lists everything below this file,
    ``disk`` is the path of the disk that it belongs to.
    """

    path: str
    format: str | None
    whole: bool
    pool: str = ""
    volume: str = ""
    disk: str = ""


@dataclass(frozen=True, slots=True)
class Described:
    """What one XML document refers to.

    ``boot`` are paths of kernel and initrd, and all others that end like a cache
    name; ``others`` are the paths that end otherwise, and may be links; ``images``
    the image ids that Nova wrote down; ``passed`` are paths in what is handed to
    qemu as it is.
    """

    name: str
    disks: tuple[File, ...]
    boot: tuple[str, ...]
    images: tuple[str, ...]
    passed: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def read(text: str) -> Described:
    """Read a domain, or a snapshot with its domains; raises ``DomainXmlError``."""
    try:
        root = ET.fromstring(text)  # noqa: S314 - libvirt writes it, without entities
    except ET.ParseError as error:
        raise DomainXmlError(f"libvirt's XML cannot be read: {error}") from error
    disks = [file for disk in root.iter("disk") for file in _disk(disk)]
    boot = [
        one.text
        for system in root.iter("os")
        for tag in ("kernel", "initrd")
        for one in system.findall(tag)
        if one.text
    ]
    known = {file.path for file in disks}.union(boot)
    others: list[str] = []
    for path in dict.fromkeys(_mentioned(root)):
        kind = names.classify(path.rpartition("/")[2])
        if path not in known:
            (others if kind is names.Kind.UNRECOGNISED else boot).append(path)
    images = [
        ident
        for one in root.findall(_NOVA_ROOTS)
        if one.get("type") == "image"
        and names.is_image_id(ident := one.get("uuid", ""))
    ]
    name = root.findtext("name") or ""
    passed = dict.fromkeys(
        path.replace(",,", ",")
        for one in root.iter()
        if one.tag.startswith(_PASSED_ON)
        for pattern in _PATHS
        for path in pattern.findall(one.get("value", ""))
    )
    return Described(
        name, tuple(disks), tuple(boot), tuple(images), tuple(passed), tuple(others)
    )


def _mentioned(root: ET.Element) -> Iterator[str]:
    """Go through every path, whatever it is there for.

    So a loader, a device tree, or an element that a later libvirt has counts.
    """
    for element in root.iter():
        for value in (element.text, *element.attrib.values()):
            if value is not None and value.startswith("/") and "\n" not in value:
                yield value


def _disk(element: ET.Element) -> list[File]:
    """Return the files of a disk, which is called by the first of them."""
    found = list(_files(element, "driver"))
    return [replace(file, disk=found[0].path) for file in found]


def _files(element: ET.Element, format_in: str) -> Iterator[File]:
    """Go through an image, what is below it, and what it is being copied to."""
    source = element.find("source")
    given = element.find(format_in)
    image_format = None if given is None else given.get("type")
    if source is not None:
        yield from _file(element, source, image_format)
        for store in source.findall("dataStore"):
            yield from _files(store, "format")
    for tag in ("backingStore", "mirror"):
        for below in element.findall(tag):
            yield from _files(below, "format")


def _file(
    element: ET.Element, source: ET.Element, image_format: str | None
) -> Iterator[File]:
    """Tell the file of one image, if it is on this host's file systems.

    Raises ``DomainXmlError`` for an image within a file, whose header is elsewhere.
    """
    whole = _ends(element)
    path = source.get("file") or source.get("dev")
    if path:
        if image_format != "raw" and any(
            one.get("type") == "storage" and one.get("offset") != "0"
            for one in source.findall("slices/slice")
        ):
            # Its header is not where a header is looked for.
            raise DomainXmlError(f"the image in a slice of {path} is not followed")
        yield File(path, image_format, whole)
        return
    if source.get("pool") and source.get("volume"):
        yield File(
            "", image_format, whole, source.get("pool", ""), source.get("volume", "")
        )
        return
    kind = element.get("type", "file")
    if kind not in _NETWORKS and source.attrib.keys() - {"index", "startupPolicy"}:
        raise DomainXmlError(f"a disk of type {kind!r} is not known to this release")


def _ends(element: ET.Element) -> bool:
    """Whether the chain below is listed to its end, an empty ``backingStore``."""
    below = element.find("backingStore")
    if below is None:
        return False
    return below.find("source") is None or _ends(below)
