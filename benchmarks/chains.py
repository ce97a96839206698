"""How long a look at many overlays takes, beside a qemu-img for each.

Run as ``python benchmarks/chains.py [overlays]``; needs qemu-img.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sharedcache.adapters.instances.headers import SETTLED_S
from sharedcache.adapters.instances.source import InstancesSource

OVERLAYS = 1000
BASES = 20
PER_INSTANCE = 2


def build(root: Path, overlays: int) -> list[Path]:
    """Make base files, one overlay of each by qemu-img, and copies of those."""
    base = root / "_base"
    base.mkdir()
    templates: list[bytes] = []
    for number in range(BASES):
        file = base / f"{number:040x}"
        template = root / f"template{number}"
        backing = ["-F", "raw", "-b", str(file)]
        for what in (["raw", str(file), "1M"], ["qcow2", *backing, str(template)]):
            subprocess.run(["qemu-img", "create", "-q", "-f", *what], check=True)
        templates.append(template.read_bytes())
        template.unlink()
    disks: list[Path] = []
    for number in range(overlays):
        vm, disk = divmod(number, PER_INSTANCE)
        path = root / f"vm{vm:06d}" / f"disk.eph{disk}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(templates[number % BASES])
        disks.append(path)
    return disks


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return how long the work takes, and what it costs the processors (seconds).

    The latter hardly depends on what else the machine does.
    """
    began, before = time.monotonic(), _used_s()
    work()
    return time.monotonic() - began, _used_s() - before


def _used_s() -> float:
    """Return the processor time of this process and of those it waited for."""
    of = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, of))


def qemu_img(disks: list[Path]) -> None:
    """Ask qemu-img about every disk."""
    options = ["info", "-U", "--backing-chain", "--output=json"]
    for disk in disks:
        subprocess.run(
            ["qemu-img", *options, str(disk)], check=True, stdout=subprocess.DEVNULL
        )


def main() -> None:
    """Measure and print the ratios."""
    overlays = int(sys.argv[1]) if len(sys.argv) > 1 else OVERLAYS
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        disks = build(root, overlays)
        passed_s = 0.0
        source = InstancesSource(
            name, str(root / "_base"), monotonic=lambda: time.monotonic() + passed_s
        )
        used = len(source.look())
        first = seconds(
            InstancesSource(name, str(root / "_base")).look,
        )
        passed_s = SETTLED_S
        source.look()
        settled = min(seconds(source.look) for _ in range(5))
        processes = seconds(lambda: qemu_img(disks))
        largest_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        tracemalloc.start()
        remembering = InstancesSource(name, str(root / "_base"))
        remembering.look()
        kept, peak = tracemalloc.get_traced_memory()
    table = Table(title=f"{overlays} overlays on {used} base files")
    for heading in ("reader", "seconds", "CPU seconds", "each", "times less CPU"):
        table.add_column(heading, justify="left" if heading == "reader" else "right")
    for reader, took in (
        ("qemu-img info for each", processes),
        ("first look", first),
        ("look without changes", settled),
    ):
        elapsed_s, used_s = took
        each = f"{used_s / overlays * 1e6:.0f} us"
        faster = f"{processes[1] / used_s:.0f}"
        table.add_row(reader, f"{elapsed_s:.3f}", f"{used_s:.3f}", each, faster)
    console = Console()
    console.print(table)
    console.print(
        f"memory for each overlay: {kept / overlays:.0f} bytes kept,"
        f" {peak / overlays:.0f} at the most during a look; a qemu-img needs"
        f" {largest_kib / 1024:.0f} MiB while it runs"
    )


if __name__ == "__main__":
    main()
