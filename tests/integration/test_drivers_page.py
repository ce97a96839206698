"""The worked example of ``docs/drivers.md`` is run as it is printed there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sharedcache.core.names import Kind, classify, digest_of
from tests.support.writers import CONTENT, KERNEL_ID, bound_base, names_in

PAGE = Path(__file__).parents[2] / "docs" / "drivers.md"
IMAGE_ID = "11111111-0000-4000-8000-000000000001"


@pytest.mark.qemu
def test_the_worked_example(tmp_path: Path) -> None:
    """It makes a guest whose disk stands on a whole cached file, twice alike."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    page: dict[str, Any] = {}
    exec(compile(example, str(PAGE), "exec"), page)  # noqa: S102 - our own page
    images = tmp_path / "images"
    images.mkdir()
    for ident in (IMAGE_ID, KERNEL_ID):
        (images / ident).write_bytes(CONTENT)
    base = bound_base(tmp_path, name="default")
    guest = page["start_guest"](base, images, IMAGE_ID, KERNEL_ID)
    assert (guest / "kernel").read_bytes() == CONTENT
    backing = base / f"{digest_of(IMAGE_ID).hex()}_10"
    assert backing.read_bytes() == CONTENT
    assert str(backing).encode() in (guest / "disk").read_bytes()
    kinds = sorted(classify(name).label for name in names_in(base))
    assert kinds == [Kind.IMAGE.label] * 2 + [Kind.RESIZED.label]
