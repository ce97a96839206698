"""What the tests of the simulation share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.simulation import farm


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the daemons' own log quiet here, and nowhere else."""
    logger = logging.getLogger("sharedcache")
    before = logger.level
    farm.quiet()
    yield
    logger.setLevel(before)
