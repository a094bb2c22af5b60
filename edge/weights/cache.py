"""Where fetched weights lie. A file there has its final name only after its digest was checked."""

from __future__ import annotations

import os
from pathlib import Path

from edge.weights.registry import Entry


def cache_folder() -> Path:
    """ARCEDGE_CACHE, else XDG_CACHE_HOME/arcedge, else ~/.cache/arcedge; need not exist."""
    if own := os.environ.get("ARCEDGE_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "arcedge"


def cached_path(entry: Entry) -> Path:
    """Where the weights of an entry lie once they are fetched."""
    return cache_folder() / "weights" / entry.file


def is_offline() -> bool:
    """Whether ARCEDGE_OFFLINE forbids the network: any value but empty and 0 does."""
    return os.environ.get("ARCEDGE_OFFLINE", "") not in ("", "0")
