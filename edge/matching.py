"""Who a face is: cosine to every vector of the gallery, the best of each identity, one face an identity in a frame."""

from __future__ import annotations

import numpy as np

from edge.gallery import Snapshot
from edge.types import Floats, Match


def similarities(snapshot: Snapshot, embeddings: Floats) -> Floats:
    """(F, D) unit probes → (F, I) float32 cosine of each to the nearest vector of each identity of the snapshot."""
    if not snapshot.names:
        return np.zeros((len(embeddings), 0), np.float32)
    every = embeddings @ snapshot.vectors.T
    best: Floats = np.maximum.reduceat(every, snapshot.starts, axis=1)
    return np.clip(best, -1.0, 1.0)


def match(snapshot: Snapshot, embeddings: Floats, threshold: float) -> list[Match]:
    """A match for each of the (F, D) unit probes of one frame, in their order.

    One-to-one: of several faces nearest to one person the most similar gets the name and the others stay unknown. That
    is greedy on purpose. A face never falls back on its second-nearest person, as an assignment that maximises the sum
    of similarities would make it: a name is given for evidence, not because it was left over.
    """
    scores = similarities(snapshot, embeddings)
    if scores.shape[1] == 0:
        return [Match(None, -1.0, threshold) for _ in embeddings]
    nearest = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), nearest]
    given: set[int] = set()
    matches = [Match(None, -1.0, threshold)] * len(scores)
    for i in np.argsort(-best, kind="stable"):
        person = int(nearest[i])
        name = snapshot.names[person]
        accepted = best[i] >= threshold and person not in given
        if accepted:
            given.add(person)
        matches[i] = Match(name if accepted else None, float(best[i]), threshold, name)
    return matches
