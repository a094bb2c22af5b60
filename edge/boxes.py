"""Boxes of faces, as arrays (K, 4) x1 y1 x2 y2."""

from __future__ import annotations

import numpy as np

from edge.types import Floats


def iou(a: Floats, b: Floats) -> Floats:
    """(M, 4) and (N, 4) boxes x1 y1 x2 y2 → (M, N) float32 intersection over union; 0 for empty boxes."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    area_a, area_b = (np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (a, b))
    union = area_a[:, None] + area_b[None, :] - shared
    overlap: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0).astype(np.float32)
    return overlap
