"""Who a face is: the nearest vector of the gallery by cosine, one face an identity in a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.gallery import Snapshot
from edge.gallery.screen import candidates
from edge.gallery.snapshot import Positions
from edge.types import Floats, Match

NOBODY = -1
"""Place of the nearest identity where there is none."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """Of each of F probes: (F,) place of the nearest identity in the snapshot's names or NOBODY, (F,) float32 cosine.

    The cosine of a probe that is not of unit length is scaled by its length; with nobody it is -1.
    """

    places: Positions
    similarities: Floats


def nearest(snapshot: Snapshot, embeddings: Floats, besides: int = NOBODY) -> Nearest:
    """The nearest identity of each of the (F, D) probes; `besides`: the place of one that does not count.

    An identity does not count for a probe that is more like one of its negatives than like any of its own vectors.
    """
    places = np.full(len(embeddings), NOBODY, np.intp)
    found = np.full(len(embeddings), -1.0, np.float32)
    # One product for all probes reads the vectors once.
    products = embeddings @ snapshot.vectors.T if snapshot.screen is None else None
    for i, probe in enumerate(embeddings):
        out = [*_vetoed(snapshot, probe), *([] if besides == NOBODY else [besides])]
        places[i], found[i] = _nearest(snapshot, probe, out, None if products is None else products[i])
    return Nearest(places, np.clip(found, -1.0, 1.0))


def similarity_to(snapshot: Snapshot, place: int, probe: Floats) -> float:
    """Cosine of a (D,) probe to the nearest vector of the identity at `place`; -1 where a negative takes it back."""
    own = _likeness(snapshot, place, probe)
    return -1.0 if place in _vetoed(snapshot, probe) else own


def match(snapshot: Snapshot, embeddings: Floats, threshold: float) -> list[Match]:
    """A match for each of the (F, D) unit probes of one frame, in their order.

    One-to-one: of several faces nearest to one person the most similar gets the name and the others stay unknown. That
    is greedy on purpose. A face never falls back on its second-nearest person, as an assignment that maximises the sum
    of similarities would make it: a name is given for evidence, not because it was left over.
    """
    found = nearest(snapshot, embeddings)
    given: set[int] = set()
    matches = [Match(None, -1.0, threshold)] * len(embeddings)
    for i in np.argsort(-found.similarities, kind="stable"):
        person, similarity = int(found.places[i]), float(found.similarities[i])
        if person == NOBODY:
            continue
        name = snapshot.names[person]
        accepted = similarity >= threshold and person not in given
        if accepted:
            given.add(person)
        matches[i] = Match(name if accepted else None, similarity, threshold, name)
    return matches


def _nearest(snapshot: Snapshot, probe: Floats, out: list[int], products: Floats | None) -> tuple[int, float]:
    """Place and product, those at `out` aside."""
    best, similarity = NOBODY, -np.inf
    excluded = _rows(snapshot, out)
    if len(excluded) < len(snapshot.vectors):
        row, similarity = _nearest_row(snapshot, probe, excluded, products)
        best = int(np.searchsorted(snapshot.starts, row, side="right")) - 1
    if snapshot.late is not None:
        scores = snapshot.late.vectors @ probe
        scores[np.isin(snapshot.late.owners, out)] = -np.inf
        row = int(scores.argmax())
        if scores[row] > similarity:
            best, similarity = int(snapshot.late.owners[row]), float(scores[row])
    return (best, float(similarity)) if best != NOBODY else (NOBODY, -1.0)


def _nearest_row(snapshot: Snapshot, probe: Floats, excluded: Positions, products: Floats | None) -> tuple[int, float]:
    if products is None and snapshot.screen is not None:
        picked = candidates(snapshot.screen, probe, excluded)
        if picked is not None:
            scores = snapshot.vectors[picked] @ probe
            row = int(scores.argmax())
            return int(picked[row]), float(scores[row])
    scores = snapshot.vectors @ probe if products is None else products
    scores[excluded] = -np.inf
    row = int(scores.argmax())
    return row, float(scores[row])


def _rows(snapshot: Snapshot, places: list[int]) -> Positions:
    slices = [snapshot.rows_of(place) for place in places]
    ranges = [np.arange(rows.start, rows.stop, dtype=np.intp) for rows in slices]
    return np.concatenate([np.zeros(0, np.intp), *ranges])


def _vetoed(snapshot: Snapshot, probe: Floats) -> list[int]:
    """Places of identities one of whose negatives is more like the probe than any of their own vectors."""
    negatives = snapshot.negatives
    if negatives is None:
        return []
    scores = negatives.vectors @ probe
    return [
        int(place)
        for place in np.unique(negatives.owners)
        if scores[negatives.owners == place].max() > _likeness(snapshot, int(place), probe)
    ]


def _likeness(snapshot: Snapshot, place: int, probe: Floats) -> float:
    own = snapshot.vectors[snapshot.rows_of(place)] @ probe
    best = float(own.max()) if len(own) else -np.inf
    if snapshot.late is not None and (late := snapshot.late.owners == place).any():
        best = max(best, float((snapshot.late.vectors[late] @ probe).max()))
    return best
