"""The stories: each aims the scheduler at one neighbourhood of the protocol."""

from __future__ import annotations

from tests.simulation.stories import (
    failures,
    gate,
    looks,
    nodes,
    offices,
    recoveries,
    restores,
    waits,
)
from tests.simulation.story import Story

STORIES: dict[str, type[Story]] = {
    story.title: story
    for part in (looks, failures, nodes, restores, offices, gate, recoveries, waits)
    for story in part.ALL
}
