"""The stories: each aims the scheduler at one neighbourhood of the protocol."""

from __future__ import annotations

from tests.simulation.stage import Story
from tests.simulation.stories import gate, looks, nodes, offices, restores

STORIES: dict[str, type[Story]] = {
    story.title: story
    for part in (looks, nodes, restores, offices, gate)
    for story in part.ALL
}
