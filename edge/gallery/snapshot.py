"""A gallery at one moment, for search."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge.gallery.screen import Screen
from edge.shortlist import Finder
from edge.types import Floats

Positions = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Loose:
    """Vectors in no order: (T, D) float32 unit rows, and (T,) place of each one's identity in the snapshot's names."""

    vectors: Floats
    owners: Positions

    @classmethod
    def none(cls, size: int) -> Loose:
        """No vectors of length `size`."""
        return cls(np.zeros((0, size), np.float32), np.zeros(0, np.intp))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What probes are compared with.

    names: the I identities that have vectors. vectors: (N, D) float32 unit rows, mapped from the file, those of one
    identity together, in the order of `names`. starts: (S,) first row of each of the first S identities; S < I where
    some have come since the file was written. late: vectors that came since. negatives: vectors that are not of their
    identity. screen: INT8 copy of `vectors` that makes the search of many quick; the result is the same without.
    finder: searches these very vectors on a GPU; the result is the same without. places: by name, of the first S
    identities; filled when first asked for, and shared by snapshots of one file.
    """

    names: tuple[str, ...]
    vectors: Floats
    starts: Positions
    generation: int
    late: Loose | None = None
    negatives: Loose | None = None
    screen: Screen | None = None
    places: dict[str, int] = field(default_factory=dict, repr=False, compare=False)
    finder: Finder | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """Vectors, without negatives."""
        return len(self.vectors) + (0 if self.late is None else len(self.late.vectors))

    def place_of(self, name: str) -> int | None:
        """Where an identity stands in `names`; None for one that has no vectors."""
        written = len(self.starts)
        if len(self.places) != written:
            self.places.update(zip(self.names, range(written), strict=False))
        if (place := self.places.get(name)) is not None:
            return place
        return next((i for i in range(written, len(self.names)) if self.names[i] == name), None)

    def rows_of(self, place: int) -> slice:
        """The rows of `vectors` that are of the identity at `place`."""
        if place >= len(self.starts):
            return slice(0, 0)
        end = self.starts[place + 1] if place + 1 < len(self.starts) else len(self.vectors)
        return slice(int(self.starts[place]), int(end))

    def of(self, name: str) -> Floats:
        """(K, D) vectors of one identity; (0, D) for one that has none."""
        place = self.place_of(name)
        if place is None:
            return self.vectors[:0]
        own = self.vectors[self.rows_of(place)]
        if self.late is None:
            return own
        return np.concatenate([own, self.late.vectors[self.late.owners == place]])
