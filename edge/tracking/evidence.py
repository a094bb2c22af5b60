"""What the looks at one person add up to: a name, nobody known, or not yet clear; and no flicker between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.gallery import Snapshot
from edge.matching import NOBODY, nearest, similarity_to
from edge.types import Floats, Match, TrackState


@dataclass(frozen=True, slots=True)
class EvidenceOptions:
    """threshold: cosine from which a person has a name. margin: how far below it evidence must fall to take a name
    away, or how far beyond the holder's another's must rise.

    A look weighs its face's quality, 0 to 1. known_weight, unknown_weight: what a decision needs; known_looks,
    unknown_looks: and from how many looks. patience: looks after which poor ones suffice, and after which evidence just
    below the threshold counts as unknown. memory: what an older look still weighs after each newer one.
    """

    threshold: float
    margin: float = 0.05
    known_weight: float = 0.15
    known_looks: int = 2
    unknown_weight: float = 0.6
    unknown_looks: int = 4
    patience: int = 10
    memory: float = 0.9


class Evidence:
    """The looks at one person, as their weighted mean embedding, and the decision they have led to.

    What is compared with the gallery is the mean itself, not brought back to unit length: its cosine to a person is
    then the mean of the looks' cosines, for which the threshold was fitted. A unit mean would be more like everybody
    the less the looks are like each other.
    """

    def __init__(self, options: EvidenceOptions) -> None:
        self._options = options
        self._sum: Floats | None = None
        self.weight = 0.0
        self.looks = 0
        self.state: TrackState = "pending"
        self.match = Match(None, -1.0, options.threshold)

    @property
    def template(self) -> Floats | None:
        """(D,) unit mean embedding; None before the first look."""
        if self._sum is None:
            return None
        length = float(np.linalg.norm(self._sum))
        return self._sum / length if length > 1e-6 else None

    def add(self, embedding: Floats, weight: float) -> None:
        """One more look: (D,) unit vector and the quality of its face, above 0."""
        memory = self._options.memory
        self._sum = embedding * weight if self._sum is None else self._sum * memory + embedding * weight
        self.weight = self.weight * memory + weight
        self.looks += 1

    def absorb(self, older: Evidence) -> None:
        """Takes over what was known of the same person before they were lost from view."""
        if older._sum is not None:
            self._sum = older._sum if self._sum is None else self._sum + older._sum
        self.weight += older.weight
        self.looks += older.looks
        self.state, self.match = older.state, older.match

    def judge(self, gallery: Snapshot) -> None:
        """Decides anew from all looks so far."""
        if self._sum is None or not gallery.names:
            self.match = Match(None, -1.0, self._options.threshold)
            if self.state == "known" or self._enough(self._options.unknown_weight, self._options.unknown_looks):
                self.state = "unknown"
            return
        mean = self._sum / np.float32(self.weight)
        found = nearest(gallery, mean[None])
        best, similarity = int(found.places[0]), float(found.similarities[0])
        closest = None if best == NOBODY else gallery.names[best]
        held = self._held(gallery, mean, similarity)
        if held is not None:
            self.match = Match(self.match.identity, held, self._options.threshold, self.match.identity)
            return
        options = self._options
        identity = None
        if (
            best != NOBODY
            and similarity >= options.threshold
            and self._enough(options.known_weight, options.known_looks)
        ):
            self.state, identity = "known", closest
        elif self.state == "known" or (
            self._enough(options.unknown_weight, options.unknown_looks)
            and (similarity < options.threshold - options.margin or self.looks >= options.patience)
        ):
            self.state = "unknown"
        self.match = Match(identity, similarity, options.threshold, closest)

    def _held(self, gallery: Snapshot, mean: Floats, rival: float) -> float | None:
        """Similarity to the name given so far, where it stays given; None where it has to be decided."""
        name = self.match.identity
        place = None if name is None else gallery.place_of(name)
        if self.state != "known" or place is None:
            return None
        own = similarity_to(gallery, place, mean)
        options = self._options
        keeps = own >= options.threshold - options.margin
        challenged = rival >= options.threshold and rival > own + options.margin
        return own if keeps and not challenged else None

    @property
    def close(self) -> bool:
        """Whether more looks may well change the decision."""
        near = abs(self.match.similarity - self._options.threshold) < 2 * self._options.margin
        return self.state == "pending" or (self.state == "unknown" and near)

    def _enough(self, weight: float, looks: int) -> bool:
        return (self.weight >= weight and self.looks >= looks) or self.looks >= self._options.patience
