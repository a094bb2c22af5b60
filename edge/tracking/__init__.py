"""From faces frame by frame to people: boxes linked over time, evidence gathered into one steady decision."""

from __future__ import annotations

from edge.tracking.pacing import Pacing
from edge.tracking.tracker import Sighting, Tracker, TrackerOptions

__all__ = ["Pacing", "Sighting", "Tracker", "TrackerOptions"]
