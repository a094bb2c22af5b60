"""Galleries that are hard to search, and a search of them that answers as the GPU's kernel does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge.gallery import Loose, Snapshot
from edge.shortlist import Shortlist
from edge.types import Floats
from tests.support.vectors import unit

TOP = 8


def search(snapshot: Snapshot, probes: Floats, off: Callable[[tuple[int, ...]], Floats] = np.zeros) -> Shortlist:
    """As the GPU's kernel answers; `off` is by how much its sums are wrong."""
    parts = [(snapshot.vectors, 2 * (np.searchsorted(snapshot.starts, np.arange(len(snapshot.vectors)), "right") - 1))]
    parts += [
        (loose.vectors, 2 * loose.owners + k) for k, loose in enumerate((snapshot.late, snapshot.negatives)) if loose
    ]
    rows, groups = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    scores = (probes @ rows.T + off((len(probes), len(rows)))).astype(np.float32)
    found = np.full((len(probes), TOP), -1, np.int32), np.full((len(probes), TOP), -2, np.float32)
    for i, row in enumerate(scores):
        best = {int(group): float(row[groups == group].max()) for group in np.unique(groups)}
        listed = sorted(best, key=lambda group: (-best[group], group))[:TOP]
        found[0][i, : len(listed)] = listed
        found[1][i, : len(listed)] = [best[group] for group in listed]
    return Shortlist(*found)


def crowded(seed: int, *, twins: bool = False) -> tuple[Snapshot, Floats]:
    """A gallery in four dimensions, where people stand close, with late vectors and negatives; and probes."""
    random = np.random.default_rng(seed)
    counts = random.integers(1, 6, random.integers(1, 14))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp)
    vectors = unit(random.normal(size=(counts.sum(), 4)))
    probes = unit(random.normal(size=(5, 4)))
    people = len(counts) + 1
    late = Loose(unit(random.normal(size=(3, 4))), random.integers(0, people - 1, 3).astype(np.intp))
    late.owners[2] = people - 1
    near = unit(probes[random.integers(0, 5, 4)] + 0.1 * random.normal(size=(4, 4)))
    negatives = Loose(near, random.integers(0, people, 4).astype(np.intp))
    if twins:  # the same photo under two names, a negative that is a photo, two faces that are one
        vectors[-1] = vectors[0]
        negatives.vectors[0] = vectors[0]
        probes[0] = vectors[0]
        probes[1] = probes[2]
    names = tuple(f"p{i}" for i in range(people))
    kept = random.integers(0, 2, 2)
    return Snapshot(names, vectors, starts, 1, late, negatives if kept[1] else None), probes
