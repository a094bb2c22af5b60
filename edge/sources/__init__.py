"""Where frames come from, named as people type them."""

from __future__ import annotations

from edge.sources.base import Source, SourceCounts
from edge.sources.opening import SourceOptions, open_source

__all__ = ["Source", "SourceCounts", "SourceOptions", "open_source"]
