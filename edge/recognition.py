"""What becomes of a frame's faces where they are aligned, embedded and searched for in one go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.quality import Quality
from edge.types import Floats

if TYPE_CHECKING:  # the gallery loads OpenSSL, which a start without one does without
    from edge.gallery import Snapshot
    from edge.shortlist import Shortlist


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
