"""The gallery: who is known, as embeddings in SQLite with an exact, memory-mapped matrix beside it, or in Milvus."""

from __future__ import annotations

from edge.gallery.binding import Binding
from edge.gallery.cipher import Key
from edge.gallery.gallery import Gallery
from edge.gallery.place import MilvusPlace, Place, parse_place
from edge.gallery.snapshot import Loose, Snapshot
from edge.gallery.store import Entry, Identity, NewEntry, Store

__all__ = [
    "Binding",
    "Entry",
    "Gallery",
    "Identity",
    "Key",
    "Loose",
    "MilvusPlace",
    "NewEntry",
    "Place",
    "Snapshot",
    "Store",
    "parse_place",
]
