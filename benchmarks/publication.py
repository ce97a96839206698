"""Publication's throughput, beside ``sha1sum`` and ``cp`` of the same bytes.

Each is run several times, one after the other in turn, and its best time
counts.  ``cp`` alone leaves its copy in memory; publication makes it durable,
so ``cp`` is also timed with a ``sync`` of the copy.  Beside the time that passed
is the processors' time, over all threads and children, which other work on the
machine disturbs less.  The directory is made below
the first argument (default: the temporary directory), of a size in MiB that is
the second one (512).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.cache import Limits, SharedCache
from sharedcache.cache.fetchers import from_file
from sharedcache.core import codec
from sharedcache.core.model import Cluster, Rollout

RUNS = 5
MIB = 1 << 20


def main() -> None:
    """Measure, and print seconds and ratios."""
    where = sys.argv[1] if len(sys.argv) > 1 else None
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 512
    with tempfile.TemporaryDirectory(dir=where) as root:
        _measure(Path(root), size)


def _measure(root: Path, size: int) -> None:
    source, base = root / "source", root / "_base"
    base.mkdir()
    (root / "locks").mkdir()
    with source.open("wb") as file:
        for _ in range(size):
            file.write(os.urandom(MIB))
    with DirectoryStorage(str(base)) as storage:
        marker = codec.cluster_to_record(Cluster("benchmark", "0" * 16))
        storage.create_marker(codec.to_text(marker))
        storage.write_schema(codec.to_text(codec.rollout_to_record(Rollout(2))))
    copy = root / "copy"
    with SharedCache(base, agent_socket="", limits=Limits(reserve_percent=0)) as cache:

        def publish() -> None:
            with cache.use("image", fetch=from_file(source)) as path:
                published.append(path)

        published: list[Path] = []
        ways: dict[str, Callable[[], object]] = {
            "sha1sum": lambda: _run("sha1sum", str(source)),
            "cp": lambda: _run("cp", str(source), str(copy)),
            "cp, synced": lambda: (
                _run("cp", str(source), str(copy)),
                _run("sync", str(copy)),
            ),
            "publication": publish,
        }
        best = dict.fromkeys(ways, float("inf"))
        least = dict(best)
        for _ in range(RUNS):
            for name, way in ways.items():
                # What the last one left to be written is not this one's work.
                os.sync()
                begin, begun = time.perf_counter(), _processors()
                way()
                best[name] = min(best[name], time.perf_counter() - begin)
                least[name] = min(least[name], _processors() - begun)
                for path in (copy, *published):
                    path.unlink(missing_ok=True)
    for name, seconds in best.items():
        print(
            f"{name:12} {seconds:7.3f} s  {size / seconds:8.0f} MiB/s, "
            f"processors {least[name]:7.3f} s"
        )
    slower = max(best["sha1sum"], best["cp"])
    print(f"publication / slower of sha1sum and cp: {best['publication'] / slower:.2f}")
    durable = max(best["sha1sum"], best["cp, synced"])
    print(
        f"publication / slower of sha1sum and cp with sync: "
        f"{best['publication'] / durable:.2f}"
    )


def _processors() -> float:
    """Seconds of processors that this process and its children have used."""
    return sum(os.times()[:4])


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
