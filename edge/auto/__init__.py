"""`--engine auto`: the fastest engine of this machine that computes what the bundle says, measured, said, and kept."""

from __future__ import annotations

from edge.auto.choice import Choice, Trial
from edge.auto.choose import AUTO, choose_engine

__all__ = ["AUTO", "Choice", "Trial", "choose_engine"]
