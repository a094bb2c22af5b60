"""The gallery: who is known, as embeddings in SQLite, with an exact, memory-mapped matrix of them beside it."""

from __future__ import annotations

from edge.gallery.binding import Binding
from edge.gallery.gallery import Entry, Gallery, Identity
from edge.gallery.vectors import Snapshot

__all__ = ["Binding", "Entry", "Gallery", "Identity", "Snapshot"]
