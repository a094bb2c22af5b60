"""Trouble on order: a camera, a disk, a gallery and engines that fail as a scenario says, in simulated time."""

from __future__ import annotations

from edge.replay.scenario import Scenario, read_scenario
from edge.replay.world import SCHEME, World

__all__ = ["SCHEME", "Scenario", "World", "read_scenario"]
