"""A kernel for the guests, and the small file system that they start from."""

from __future__ import annotations

import lzma
import re
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[3]
UNPACKED = TREE / ".kernel"
"""Where `scripts/bootstrap.sh --nfs` unpacks a kernel that nobody boots."""

WANTED = ("virtio_pci", "virtiofs", "overlay", "virtio_net", "nfsv4")
"""Modules that a guest loads, each after those that it depends on."""

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


class KernelMissingError(Exception):
    """No kernel that the guests could run was found."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel's image, and the modules to load, in their order."""

    release: str
    image: Path
    modules: tuple[Path, ...]


def find_kernel(roots: tuple[Path, ...] = (UNPACKED, Path("/"))) -> Kernel:
    """Find a kernel with everything that a guest needs.

    Raises `KernelMissingError` with what was wrong with each.
    """
    refusals: list[str] = []
    for root in roots:
        for image in sorted(root.glob("boot/vmlinuz-*"), reverse=True):
            release = image.name.removeprefix("vmlinuz-")
            try:
                modules = _in_order(root / "lib/modules" / release)
            except KernelMissingError as error:
                refusals.append(f"{image}: {error}")
            else:
                return Kernel(release, image, modules)
    raise KernelMissingError(
        "no kernel for the guests: scripts/bootstrap.sh --nfs fetches one"
        + "".join(f"; {refusal}" for refusal in refusals)
    )


def _in_order(folder: Path) -> tuple[Path, ...]:
    """Put the wanted modules and what they depend on into an order to load them."""
    known = {_name(path): path for path in folder.rglob("*.ko*")}
    builtin = folder / "modules.builtin"
    if not builtin.exists():
        raise KernelMissingError(f"{folder} has no list of modules")
    within = {_name(Path(line)) for line in builtin.read_text().splitlines()}
    ordered: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in within or name in ordered:
            return
        if name not in known:
            raise KernelMissingError(f"it has no module {name}")
        for other in _dependencies(known[name]):
            add(other)
        ordered[name] = known[name]

    for name in WANTED:
        add(name)
    return tuple(ordered.values())


def _name(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")


def module_bytes(path: Path) -> bytes:
    """Read a module, unpacked, as busybox's insmod wants it."""
    data = path.read_bytes()
    if path.suffix == ".ko":
        return data
    if path.suffix == ".xz":
        return lzma.decompress(data)
    raise KernelMissingError(f"{path.name} is compressed in a way not known here")


def _dependencies(path: Path) -> list[str]:
    found = _DEPENDS.search(module_bytes(path))
    if found is None:
        return []
    return [
        name.replace("-", "_") for name in found.group(1).decode().split(",") if name
    ]
