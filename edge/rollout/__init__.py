"""Bundles to a fleet: a device takes the one meant for it, keeps the last good one, and goes back by itself."""

from __future__ import annotations

from edge.rollout.index import Canary, Index, Release, read_index
from edge.rollout.install import Checked, Installed, Installer, check, roll_back
from edge.rollout.publish import publish
from edge.rollout.store import Store

__all__ = [
    "Canary",
    "Checked",
    "Index",
    "Installed",
    "Installer",
    "Release",
    "Store",
    "check",
    "publish",
    "read_index",
    "roll_back",
]
