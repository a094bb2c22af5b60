"""Greedy non-maximum suppression."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.types import Floats


def nms(boxes: Floats, scores: Floats, max_iou: float, limit: int) -> npt.NDArray[np.intp]:
    """Indices of the boxes kept, best score first; at most `limit`.

    boxes: (K, 4) x1 y1 x2 y2; scores: (K,). A box falls where its intersection over union with a kept one exceeds
    `max_iou`. Equal scores keep their order, so that the result does not depend on the sort.
    """
    order = np.argsort(-scores, kind="stable")
    x1, y1, x2, y2 = boxes[order].T
    area = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    alive = np.ones(order.size, dtype=bool)
    kept = []
    for i in range(order.size):
        if not alive[i]:
            continue
        kept.append(i)
        if len(kept) == limit:
            break
        rest = slice(i + 1, None)
        wide = np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest])
        high = np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest])
        shared = np.maximum(wide, 0) * np.maximum(high, 0)
        # shared / union > max_iou, without dividing by the zero of two empty boxes
        alive[rest] &= ~(shared > max_iou * (area[i] + area[rest] - shared))
    return order[np.array(kept, dtype=np.intp)]
