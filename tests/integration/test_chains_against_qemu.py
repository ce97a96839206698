"""Our reading of backing chains beside that of qemu-img itself."""

from __future__ import annotations

import json
import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from sharedcache.core import names
from tests.support.images import names_of

IMAGES = 200
"""Each is the head of a chain of its own."""

MAX_DEPTH = 20
SEED = 20130226
_FORMAT_EXTENSION = bytes.fromhex("e2792aca")

pytestmark = pytest.mark.qemu


@dataclass(frozen=True)
class Image:
    """An image as the generator made it; ``depth`` counts the images below.

    ``relative`` says that its backing file's name is, so that qemu finds it
    through this path's own directory only, and not through a link.
    """

    path: Path
    depth: int
    format: str
    relative: bool = False


def run(*arguments: str) -> str:
    """Run qemu-img from a directory that no name is relative to."""
    done = subprocess.run(
        ["qemu-img", *arguments], cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout


class Generator:
    """Makes images on top of each other, in every spelling, from one seed."""

    def __init__(self, root: Path, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a test's choices
        self.base = root / "_base"
        self.links = root / "links"
        inner = root / "deep" / "inner"
        odd = root / "odd: näme"
        for directory in (self.base, self.links, inner, odd, self.base / "sub"):
            directory.mkdir(parents=True)
        (root / "link").symlink_to("deep/inner")
        (root / "alias").symlink_to(self.base)
        self.places = [
            self.base,
            self.base,
            root / "alias",
            root / "link" / ".." / ".." / "_base",
            self.base / "sub",
            inner,
            root / "link",
            odd,
        ]
        self.images: list[Image] = []

    def name(self) -> str:
        """Return a cache name, or one that is not recognised."""
        digest = self.random.randbytes(20).hex()
        uuid = "-".join((digest[:8], "0" * 4, "1" * 4, "2" * 4, digest[:12]))
        return self.random.choice(
            [digest, digest, uuid, f"{digest}_{len(self.images)}", f"x-{digest}"]
        )

    def path(self) -> Path:
        """Return a path for a new file, in some spelling."""
        return self.random.choice(self.places) / self.name()

    def make(self) -> Image:
        """Make one more image."""
        below = [image for image in self.images if image.depth < MAX_DEPTH - 1]
        choice = self.random.random()
        if len(below) < 3 or choice < 0.04:
            image = self._bottom()
        else:
            deepest = sorted(below, key=lambda image: image.depth)[-3:]
            candidates = deepest if self.random.random() < 0.5 else below
            image = self._overlay(self.random.choice(candidates))
        self.images.append(image)
        return image

    def _bottom(self) -> Image:
        """Make an image without a backing file."""
        path = self.path()
        image_format = self.random.choice(["raw", "qcow2"])
        run("create", "-q", "-f", image_format, str(path), "128K")
        return Image(path, 0, image_format)

    def _overlay(self, below: Image) -> Image:
        """Make an image on top of another."""
        path = self.path()
        compat = self.random.choice(["0.10", "1.1", "1.1"])
        options = [f"compat={compat}"]
        cluster = self.random.choice([4096, 65536, 65536, 2097152])
        options.append(f"cluster_size={cluster}")
        if compat == "1.1" and self.random.random() < 0.2:
            options.append(f"data_file={self._option(str(self.path()))}")
        image_format, depth = below.format, below.depth + 1
        if self.random.random() < 0.05:
            # Raw on purpose: what lies below is no longer on the chain.
            image_format, depth = "raw", 1
        name = self._spell(below, path, image_format)
        run(
            *("create", "-q", "-f", "qcow2", "-o", ",".join(options)),
            *("-F", image_format, "-b", name, str(path), "128K"),
        )
        if image_format == below.format and self.random.random() < 0.15:
            _forget_format(path)
        return Image(path, depth, "qcow2", name.startswith("."))

    @staticmethod
    def _option(text: str) -> str:
        """Quote a value as qemu's options want it."""
        return text.replace(",", ",,")

    def _spell(self, below: Image, overlay: Path, image_format: str) -> str:
        """Spell the name of a backing file in one of the ways qemu knows."""
        target = below.path
        file = {"driver": "file", "filename": str(target)}
        way = self.random.randrange(7)
        if way <= 1:
            home = overlay.parent.resolve()
            relative = os.path.relpath(target.parent.resolve(), home)
            return f"./{relative}/{target.name}"
        if way == 2:
            return "json:" + json.dumps({"driver": image_format, "file": file})
        if way == 3:
            dotted = {f"file.{key}": value for key, value in file.items()}
            return "json:" + json.dumps({"driver": image_format, **dotted})
        if way == 4:
            return f"file:{target}"
        if way == 5 and not below.relative:
            link = self.links / f"{len(self.images)}"
            link.symlink_to(target)
            return str(link)
        return str(target)


def _forget_format(path: Path) -> None:
    """Make the backing format's extension one that nobody knows."""
    with path.open("r+b") as file:
        at = file.read(4096).index(_FORMAT_EXTENSION)
        file.seek(at)
        file.write(b"\x02")


def told_by_qemu(image: Path, base: Path) -> tuple[set[str], int]:
    """Return the cache names on a chain, and its length, as qemu-img tells."""
    chain = json.loads(
        run("info", "-U", "--backing-chain", "--output=json", str(image))
    )
    found: set[str] = set()
    for one in chain:
        data = one.get("format-specific", {}).get("data", {})
        for path in (one["filename"], data.get("data-file")):
            real = Path(os.path.realpath(path)) if path else None
            if real is not None and real.parent == base.resolve():
                found.add(real.name)
    return {
        name for name in found if names.classify(name) is not names.Kind.UNRECOGNISED
    }, len(chain)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """Make the images once."""
    made = Generator(tmp_path_factory.mktemp("chains"), SEED)
    for _ in range(IMAGES):
        made.make()
    return made


@pytest.mark.timeout(300)
def test_same_names_as_qemu(generator: Generator) -> None:
    """For every chain we name exactly the cache files that qemu would open."""
    lengths: list[int] = []
    named = 0
    for image in generator.images:
        expected, length = told_by_qemu(image.path, generator.base)
        assert names_of(generator.base, image.path) == expected, image.path
        lengths.append(length)
        named += len(expected)
    # The generator must not have made trivial chains only.
    assert max(lengths) == MAX_DEPTH
    assert sum(length > 3 for length in lengths) > IMAGES / 2
    assert named > IMAGES


def test_a_chain_of_fifty(tmp_path: Path) -> None:
    """However long a chain is that qemu opens, its last file counts."""
    base = tmp_path / "_base"
    base.mkdir()
    below, image_format = base / ("a" * 40), "raw"
    run("create", "-q", "-f", "raw", str(below), "1M")
    for number in range(50):
        above = base / f"{number:040x}" if number % 2 else tmp_path / f"{number}"
        name = str(below) if number % 3 else os.path.relpath(below, above.parent)
        run("create", "-q", "-f", "qcow2", "-F", image_format, "-b", name, str(above))
        below, image_format = above, "qcow2"
    expected, length = told_by_qemu(below, base)
    assert length == 51
    assert len(expected) == 26
    assert names_of(base, below) == expected


def test_other_formats_of_qemu(tmp_path: Path) -> None:
    """Images of other formats without a backing file end a chain."""
    (tmp_path / "_base").mkdir()
    for image_format in ("qed", "vmdk", "qcow", "vdi", "vhdx", "vpc"):
        path = tmp_path / "_base" / (image_format.encode().hex().rjust(40, "0"))
        run("create", "-q", "-f", image_format, str(path), "1M")
        overlay = tmp_path / image_format
        name = ("-F", image_format, "-b", str(path))
        run("create", "-q", "-f", "qcow2", *name, str(overlay))
        assert names_of(tmp_path / "_base", overlay) == {path.name}


def test_a_loop_of_qemu(tmp_path: Path) -> None:
    """A loop, which qemu refuses to open, ends with all its names."""
    base = tmp_path / "_base"
    base.mkdir()
    first, second = base / ("1" * 40), base / ("2" * 40)
    for one, other in ((first, second), (second, first)):
        name = ("-u", "-F", "qcow2", "-b", f"../_base/{other.name}")
        run("create", "-q", "-f", "qcow2", *name, str(one), "1M")
    assert names_of(base, first) == {first.name, second.name}
