"""arcedge runtime: detects, aligns, embeds and matches faces on a stream. Imports no training or export code."""

from __future__ import annotations

__version__ = "0.1.0"
