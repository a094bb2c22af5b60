"""TAR at FAR over all pairs of a set, with intervals and differences from draws of identities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.statistics import identity_weights
from edge.metrics.intervals import LEVEL, Interval
from edge.metrics.scores import Labels, hardest_impostors
from edge.metrics.verification import Scores
from edge.types import Floats

RESAMPLES = 400
_TAIL = 3.0
"""The tail kept is this many times the largest FAR: in a draw of identities the threshold moves."""


@dataclass(frozen=True, slots=True)
class PairTail:
    """All genuine scores of a set and the top of its impostor scores, with whom each is about (0 … K−1).

    sizes: (K,) pictures of each identity. Scores descend.
    """

    genuine: Floats
    genuine_person: npt.NDArray[np.int64]
    impostor: Floats
    impostor_people: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


def pair_tail(embeddings: Floats, labels: Labels, max_far: float) -> PairTail:
    """The scores that decide TAR at FARs up to `max_far`. embeddings: (N, D) unit rows; labels: (N,)."""
    _, person, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    impostors = (len(labels) ** 2 - int((sizes.astype(np.int64) ** 2).sum())) // 2
    count = min(impostors, int(np.ceil(_TAIL * max_far * impostors)) + 100)
    scores, rows, columns = hardest_impostors(embeddings, labels, count)
    own, who = [], []
    for identity in np.flatnonzero(sizes > 1):
        part = embeddings[person == identity]
        upper = np.triu_indices(len(part), 1)
        own.append((part @ part.T)[upper])
        who.append(np.full(len(upper[0]), identity))
    genuine = np.concatenate(own) if own else np.empty(0, np.float32)
    order = np.argsort(-genuine, kind="stable")
    person_of = np.concatenate(who)[order] if who else np.empty(0, np.int64)
    people = np.stack([person[rows], person[columns]], axis=1)
    return PairTail(genuine[order], person_of, scores, people, sizes.astype(np.int64))


def tar_draws(tail: PairTail, fars: tuple[float, ...], seed: int = 0, resamples: int = RESAMPLES) -> Scores:
    """(resamples, len(fars)) TAR of each draw of identities, its threshold fitted on the draw's own impostors.

    A pair of two people counts as often as both were drawn, a genuine pair as often as its person was; the same seed
    draws the same people for every variant. NaN where a draw's threshold lies below the tail.
    """
    weights = identity_weights(len(tail.sizes), resamples, seed)
    found = np.full((resamples, len(fars)), np.nan)
    for r, weight in enumerate(weights):
        pictures = weight * tail.sizes
        impostors = (int(pictures.sum()) ** 2 - int((pictures**2).sum())) / 2
        accepted = np.cumsum(weight[tail.impostor_people[:, 0]] * weight[tail.impostor_people[:, 1]])
        genuine = weight[tail.genuine_person]
        total = genuine.sum()
        hits = np.concatenate([[0], np.cumsum(genuine)])
        if not total or not impostors:
            continue
        for f, far in enumerate(fars):
            refused = int(np.searchsorted(accepted, far * impostors, side="right"))
            if refused < len(tail.impostor):
                # Genuine scores above the first impostor refused.
                above = int(np.searchsorted(-tail.genuine, -tail.impostor[refused], side="left"))
                found[r, f] = hits[above] / total
    return found


def tar_interval(value: float, draws: Scores) -> Interval | None:
    """The interval of one TAR, or of a difference, from its draws; None where a tenth of the draws had no threshold."""
    usable = draws[np.isfinite(draws)]
    if len(usable) < 0.9 * len(draws):
        return None
    low, high = np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
