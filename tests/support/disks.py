"""Real file systems for tests: small ones that fill up, and read-only ones.

All of it needs root: a tmpfs is a file system of its own, with a size, a number
of inodes, and mounts that can be taken away under running programs.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest


def run_mount(*arguments: str) -> None:
    """Run mount(8); skips the test where this container may not mount."""
    done = subprocess.run(
        ["mount", *arguments], capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


def unmount(path: Path) -> None:
    """Take the topmost mount away, whoever has files open in it."""
    subprocess.run(["umount", "--lazy", path], capture_output=True, check=False)


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[Path]:
    """Mount a new tmpfs on a directory, which is made, for the length of a block."""
    path.mkdir(parents=True, exist_ok=True)
    joined = ["-o", ",".join(options)] if options else []
    run_mount("-t", "tmpfs", *joined, "none", str(path))
    try:
        yield path
    finally:
        unmount(path)


@dataclass
class SmallDisk:
    """A tmpfs that can be filled, and made empty again."""

    path: Path

    @property
    def _filler(self) -> Path:
        return self.path / "filler"

    def fill(self) -> None:
        """Take every inode and every block that is left."""
        self._filler.mkdir(exist_ok=True)
        number = 0
        with suppress(OSError):
            while True:
                descriptor = os.open(
                    self._filler / str(number), os.O_CREAT | os.O_WRONLY
                )
                number += 1
                self._fill_one(descriptor)
        assert number, f"{self.path} could not be filled"

    @staticmethod
    def _fill_one(descriptor: int) -> None:
        try:
            with suppress(OSError):
                while os.write(descriptor, bytes(4096)):
                    pass
        finally:
            os.close(descriptor)

    def fill_blocks(self) -> None:
        """Take every block; names can still be made, but nothing written."""
        self._filler.mkdir(exist_ok=True)
        self._fill_one(os.open(self._filler / "blocks", os.O_CREAT | os.O_WRONLY))

    def free(self) -> None:
        """Give everything back."""
        for file in self._filler.iterdir():
            file.unlink()
        self._filler.rmdir()


@contextmanager
def small_disk(path: Path) -> Iterator[SmallDisk]:
    """Mount a file system of a megabyte and 200 inodes."""
    with mounted(path, "size=1m", "nr_inodes=200") as place:
        yield SmallDisk(place)
