"""Where frames come from, named as people type them."""

from __future__ import annotations

from edge.sources.base import Source, SourceCounts
from edge.sources.naming import SourceName, file_of, parse_names
from edge.sources.opening import SourceOptions, open_source, open_sources

__all__ = [
    "Source",
    "SourceCounts",
    "SourceName",
    "SourceOptions",
    "file_of",
    "open_source",
    "open_sources",
    "parse_names",
]
