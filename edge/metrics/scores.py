"""Every picture against every other: genuine and impostor scores of an embedding matrix, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.errors import InputError
from edge.types import Floats

Labels = npt.NDArray[np.integer]
Positions = npt.NDArray[np.int64]

BLOCK = 512
"""Rows compared at once: 512 × 100,000 scores are 200 MB, and BLAS is as quick as with more."""

MAX_PAIRS = 250_000_000
"""Scores are kept, four bytes a pair: a gigabyte. Beyond it, measure on a sample of the pictures."""


@dataclass(frozen=True, slots=True)
class PairScores:
    """genuine: (G,) float32 cosines of pairs of one identity; impostor: (I,) float32 of two; each pair once."""

    genuine: Floats
    impostor: Floats


def pair_counts(labels: Labels) -> tuple[int, int]:
    """Genuine and impostor pairs that N labelled pictures make."""
    _, sizes = np.unique(labels, return_counts=True)
    genuine = int((sizes.astype(np.int64) * (sizes - 1) // 2).sum())
    return genuine, len(labels) * (len(labels) - 1) // 2 - genuine


def all_pair_scores(embeddings: Floats, labels: Labels, block: int = BLOCK) -> PairScores:
    """Cosines of all pairs. embeddings: (N, D) unit rows; labels: (N,) integers.

    Takes four bytes a pair and one block of work space: 3,811 pictures make 7.3 million pairs and 29 MB.
    Raises InputError for arrays that do not fit each other or more than MAX_PAIRS pairs.
    """
    require_embeddings(embeddings, labels)
    genuine_count, impostor_count = pair_counts(labels)
    if genuine_count + impostor_count > MAX_PAIRS:
        raise InputError(
            f"{len(labels):,} pictures make {genuine_count + impostor_count:,} pairs, more than {MAX_PAIRS:,}; "
            "measure on a sample of them"
        )
    genuine, impostor = np.empty(genuine_count, np.float32), np.empty(impostor_count, np.float32)
    g = i = 0
    for _, scores, same, upper in _blocks(embeddings, labels, block):
        own, other = scores[same & upper], scores[~same & upper]
        genuine[g : g + len(own)] = own
        impostor[i : i + len(other)] = other
        g, i = g + len(own), i + len(other)
    return PairScores(genuine, impostor)


def hardest_impostors(
    embeddings: Floats, labels: Labels, count: int, block: int = BLOCK
) -> tuple[Floats, Positions, Positions]:
    """The `count` highest impostor scores, best first, with the rows of both pictures (row < column).

    A FAR's threshold and the errors behind it live in this tail; the rest of the pairs is never kept.
    """
    require_embeddings(embeddings, labels)
    scores, rows, columns = np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64)
    for start, part, same, upper in _blocks(embeddings, labels, block):
        wanted = ~same & upper
        if len(scores) >= count:
            wanted &= part > scores.min()
        r, c = np.nonzero(wanted)
        scores = np.concatenate([scores, part[r, c]])
        rows, columns = np.concatenate([rows, r + start]), np.concatenate([columns, c + start])
        if len(scores) > count:
            kept = np.argpartition(-scores, count - 1)[:count]
            scores, rows, columns = scores[kept], rows[kept], columns[kept]
    order = np.lexsort((columns, rows, -scores))
    return scores[order], rows[order], columns[order]


def _blocks(
    embeddings: Floats, labels: Labels, block: int
) -> Iterator[tuple[int, Floats, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Start row, scores of rows [start, start + block) against columns from `start` on, same identity, row < column."""
    for start in range(0, len(labels), block):
        rows = slice(start, start + block)
        scores = embeddings[rows] @ embeddings[start:].T
        same = labels[rows, None] == labels[None, start:]
        upper = np.arange(scores.shape[0])[:, None] < np.arange(scores.shape[1])[None]
        yield start, scores, same, upper


def require_embeddings(embeddings: Floats, labels: Labels) -> None:
    """Raises InputError unless (N, D) rows of unit length come with N labels."""
    if embeddings.ndim != 2 or labels.shape != (len(embeddings),) or len(labels) == 0:
        raise InputError(f"{embeddings.shape} embeddings and {labels.shape} labels do not fit each other")
    lengths = np.linalg.norm(embeddings, axis=1)
    if not (np.abs(lengths - 1.0) < 1e-2).all():
        raise InputError(
            f"embeddings have unit length; here are lengths from {lengths.min():.3g} to {lengths.max():.3g}"
        )
