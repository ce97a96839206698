"""What one domain uses: each of its XML documents, with the images' headers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Protocol

from sharedcache.adapters.libvirt import domainxml
from sharedcache.adapters.libvirt.domainxml import Described, DomainXmlError, File
from sharedcache.core import names
from sharedcache.core.model import Uses
from sharedcache.core.ports import SourceError
from sharedcache.core.referrers import Referrer, Referrers

if TYPE_CHECKING:
    import libvirt

TRIES = 5
"""How often a domain is read that changes while it is being read."""

_RAW = "raw"


class Chains(Protocol):
    """What reads backing chains from the images' headers."""

    def names_of(self, disk: str, image_format: str | None = None) -> frozenset[str]:
        """Return cache names; ``FileNotFoundError`` without the disk itself."""


ChainReader = Callable[[], AbstractContextManager[Chains]]
"""Opens the cache directory for one look; raises ``SourceError``."""


def uses_of(
    connection: libvirt.virConnect,
    domain: libvirt.virDomain,
    chains: Chains,
    told: Referrers,
) -> Uses | None:
    """Return what a domain uses, running and as defined; ``None`` if it is gone.

    ``told`` is told which of its files refers to what.  Raises ``SourceError`` if a
    part of it cannot be known, and ``libvirtError``.
    """
    documents = _documents(domain)
    for _ in range(TRIES):
        if documents is None:
            return None
        try:
            return _uses(connection, documents, chains, told)
        except SourceError:
            again = _documents(domain)
            if again == documents:
                raise
            documents = again
    raise SourceError(
        f"domain {domain.UUIDString()} changed during each of {TRIES} readings;"
        " find out what keeps changing it"
    )


def _documents(domain: libvirt.virDomain) -> list[str] | None:
    """Read a domain's XML: as it runs, is defined, was saved, was at snapshots."""
    import libvirt  # noqa: PLC0415 - an extra, and 7 MiB, for those who use it

    try:
        found = [domain.XMLDesc(0)]
        if domain.isPersistent():
            found.append(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
            found += _saved(domain)
        if domain.snapshotNum(0):
            found += [one.getXMLDesc(0) for one in domain.listAllSnapshots(0)]
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
    return found


def _saved(domain: libvirt.virDomain) -> list[str]:
    """Read what a domain was when it was saved: so it starts, however defined."""
    import libvirt  # noqa: PLC0415 - see above

    if not domain.hasManagedSaveImage(0):
        return []
    try:
        return [domain.managedSaveGetXMLDesc(0)]
    except libvirt.libvirtError:
        if domain.hasManagedSaveImage(0):
            raise
        # It was started, or its saved state thrown away, meanwhile.
        return []


def _uses(
    connection: libvirt.virConnect,
    documents: list[str],
    chains: Chains,
    told: Referrers,
) -> Uses:
    used: dict[Referrer, frozenset[str]] = {}
    images: set[bytes] = set()
    domain = ""
    for text in dict.fromkeys(documents):
        try:
            described = domainxml.read(text)
        except DomainXmlError as error:
            raise SourceError(
                f"{error}; change the domain, or upgrade sharedcache"
            ) from error
        # A snapshot's document begins with the snapshot's own name.
        domain = domain or described.name
        images.update(names.digest_of(ident) for ident in described.images)
        for path, found in _names_of(connection, described, chains):
            file = Referrer("domain", domain, path)
            used[file] = used.get(file, frozenset()) | found
    # Of a resized copy the metadata knows the image only.
    known = frozenset(images)
    for file, found in used.items():
        told.add(found, file)
    for family in (False, True):
        whole = Referrer("domain", domain)
        told.add((one.hex() for one in known), whole, family=family)
    exact = frozenset().union(*used.values())
    return Uses.of_names(exact) | Uses(images=known, families=known)


def _names_of(
    connection: libvirt.virConnect, described: Described, chains: Chains
) -> Iterator[tuple[str, frozenset[str]]]:
    """Give the cache names behind every disk, kernel, initrd and passed path."""
    for file in described.disks:
        path = file.path or _volume(connection, file, described.name)
        yield file.disk or path, _chain(path, file, described.name, chains)
    for path in described.boot:
        yield path, _own_names(path, chains)
    for path in described.others:
        # Only a link would be of interest: a socket that cannot be looked at is not.
        with suppress(SourceError):
            yield path, _own_names(path, chains)
    for path in described.passed:
        # What qemu does with it is not known: it may be a disk.
        with suppress(FileNotFoundError):
            yield path, chains.names_of(path)


def _chain(path: str, file: File, domain: str, chains: Chains) -> frozenset[str]:
    """Follow a disk's headers.

    What the XML lists to its end need not be read: the hypervisor has it open,
    and each file of it comes here by itself.
    """
    try:
        return chains.names_of(path, file.format)
    except FileNotFoundError as error:
        if file.whole:
            return frozenset()
        raise SourceError(
            f"{path}, a disk of domain {domain}, is not there: mount or restore it,"
            " or undefine the domain"
        ) from error
    except SourceError as error:
        if file.whole:
            return _own_names(path, chains)
        raise SourceError(f"domain {domain}: {error}") from error


def _own_names(path: str, chains: Chains) -> frozenset[str]:
    """Return the cache names that a path itself leads through."""
    try:
        return chains.names_of(path, _RAW)
    except FileNotFoundError:
        return frozenset()


def _volume(connection: libvirt.virConnect, file: File, domain: str) -> str:
    """Ask where a volume of a storage pool lies."""
    import libvirt  # noqa: PLC0415 - see above

    try:
        pool = connection.storagePoolLookupByName(file.pool)
        return pool.storageVolLookupByName(file.volume).path()
    except libvirt.libvirtError as error:
        raise SourceError(
            f"domain {domain}: volume {file.volume} of pool {file.pool} is not to be"
            f" found ({error}); start and refresh the pool, or undefine the domain"
        ) from error
