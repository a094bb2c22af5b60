"""What becomes of a frame's faces where they are aligned, embedded and searched for in one go."""

from __future__ import annotations

from dataclasses import dataclass

from edge.gallery import Snapshot
from edge.matching import Nearest, assign, match
from edge.quality import Quality
from edge.shortlist import Shortlist
from edge.types import Floats, Match


@dataclass(frozen=True, slots=True)
class Sought:
    """A list for each face of a frame, and the snapshot whose vectors were searched for it."""

    snapshot: Snapshot
    shortlist: Shortlist


@dataclass(frozen=True, slots=True)
class Recognised:
    """Of N faces. vectors: (N, D) float32 unit rows; None where nobody needs them, as `sought` settles who they are.

    qualities: empty where nobody asked for them. sought: None where no gallery was searched.
    """

    vectors: Floats | None
    qualities: list[Quality]
    sought: Sought | None


def matches_of(vectors: Floats | None, sought: Sought | None, snapshot: Snapshot, threshold: float) -> list[Match]:
    """Who the faces of one frame are, as `match` says; of what was sought where it needed no vectors."""
    if vectors is not None:
        return match(snapshot, vectors, threshold)
    if sought is None or (settled := sought.shortlist.settled(threshold)) is None:
        return []  # there was no face
    return assign(sought.snapshot, Nearest(*settled), threshold)
