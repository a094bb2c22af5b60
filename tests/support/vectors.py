"""Embeddings made up."""

from __future__ import annotations

import numpy as np

from edge.types import Floats


def unit(rows: np.ndarray) -> Floats:
    """(N, D) float32, each row brought to length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def least_cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of the rows of two (N, D) arrays, one beside the other, the pair least alike."""
    return float((unit(one) * unit(other)).sum(axis=1).min())
