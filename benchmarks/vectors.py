"""Made embeddings that are distributed as a model's, for galleries larger than any set of photos at hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edge.types import Floats

SIZE = 512
BLOCK = 50_000
"""Rows made at a time."""


def faces(count: int, axes: int, seed: int) -> Floats:
    """(count, 512) unit rows. axes: how many directions hold their energy, but for a thousandth of it.

    The shipped embedder's, measured over 6,792 faces, has 128: it was taught by a network of 128 outputs. With 512 the
    rows are uniform on the sphere, the worst that can come.
    """
    return np.concatenate([np.zeros((0, SIZE), np.float32), *face_blocks(count, axes, seed)])


def face_blocks(count: int, axes: int, seed: int) -> Iterator[Floats]:
    """The same rows, at most BLOCK at a time: for more than should be in memory at once."""
    random = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(np.random.default_rng(99).normal(size=(SIZE, SIZE)))
    spread = np.full(SIZE, np.sqrt(0.001 / max(1, SIZE - axes)))
    spread[:axes] = np.sqrt(1 / axes)
    basis = (turned * spread).astype(np.float32).T
    for start in range(0, count, BLOCK):
        part = random.standard_normal((min(BLOCK, count - start), SIZE), np.float32) @ basis
        yield part / np.linalg.norm(part, axis=1, keepdims=True)
