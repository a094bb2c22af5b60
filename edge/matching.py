"""Who a face is: the nearest vector of the gallery by cosine, one face an identity in a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.gallery import Snapshot
from edge.gallery.screen import candidates
from edge.gallery.snapshot import Positions
from edge.recognition import Sought
from edge.shortlist import NOBODY, Shortlist
from edge.types import Floats, Match

__all__ = ["NOBODY", "Nearest", "assign", "match", "nearest", "similarity_to"]


@dataclass(frozen=True, slots=True)
class Nearest:
    """Of each of F probes: (F,) place of the nearest identity in the snapshot's names or NOBODY, (F,) float32 cosine.

    The cosine of a probe that is not of unit length is scaled by its length; with nobody it is -1.
    """

    places: Positions
    similarities: Floats


def nearest(
    snapshot: Snapshot, embeddings: Floats, besides: int = NOBODY, shortlist: Shortlist | None = None
) -> Nearest:
    """The nearest identity of each of the (F, D) probes; `besides`: the place of one that does not count.

    An identity does not count for a probe that is more like one of its negatives than like any of its own vectors.
    shortlist: what a search of this snapshot elsewhere has found for these probes, or, where the snapshot can be
    searched elsewhere, is asked for here. The answer is the same without.
    """
    if shortlist is None and snapshot.finder is not None and besides == NOBODY:
        shortlist = snapshot.finder.find(embeddings)
    best = [] if shortlist is None else [shortlist.best(i) for i in range(len(embeddings))]
    sure = [each for each in best if each is not None]
    if shortlist is None or len(sure) < len(embeddings):
        # All of them, though one alone may be unsure: the last digits of a product hang on how many are in it.
        return _search(snapshot, embeddings, besides)
    # Cosines are taken here, of the vectors that decide: evidence adds up, and is held against thresholds.
    cosines = [
        -1.0 if place == NOBODY else _likeness(snapshot, place, probe)
        for (place, _), probe in zip(sure, embeddings, strict=True)
    ]
    places = np.array([place for place, _ in sure], np.intp)
    return Nearest(places, np.clip(np.array(cosines, np.float32), -1.0, 1.0))


def _search(snapshot: Snapshot, embeddings: Floats, besides: int) -> Nearest:
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


def match(snapshot: Snapshot, embeddings: Floats, threshold: float, shortlist: Shortlist | None = None) -> list[Match]:
    """A match for each of the (F, D) unit probes of one frame, in their order; see `nearest` and `assign`."""
    return assign(snapshot, nearest(snapshot, embeddings, shortlist=shortlist), threshold)


def assign(snapshot: Snapshot, found: Nearest, threshold: float) -> list[Match]:
    """A match for each face of one frame, from who is nearest to each.

    One-to-one: of several faces nearest to one person the most similar gets the name and the others stay unknown. That
    is greedy on purpose. A face never falls back on its second-nearest person, as an assignment that maximises the sum
    of similarities would make it: a name is given for evidence, not because it was left over.
    """
    given: set[int] = set()
    matches = [Match(None, -1.0, threshold)] * len(found.places)
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


def matches_of(vectors: Floats | None, sought: Sought | None, snapshot: Snapshot, threshold: float) -> list[Match]:
    """Who the faces of one frame are, as `match` says.

    vectors: (N, D) float32 unit rows; None where the search, `sought`, needed none, or there was no face.
    """
    if vectors is not None:
        return match(snapshot, vectors, threshold)
    if sought is None or (settled := sought.shortlist.settled(threshold)) is None:
        return []  # there was no face
    return assign(sought.snapshot, Nearest(*settled), threshold)
