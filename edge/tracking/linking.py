"""Which box of this frame continues which box of the last, and whether the scene was cut between them."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from edge.nv12 import Nv12
from edge.types import Floats, Picture

CUT_DIFFERENCE = 12.0
"""Mean absolute difference of grey values between two frames, of 255, below which they always are one scene."""

CUT_RATIO = 1.8
"""How much more than in the frames before it must have changed: a shaking or panning camera changes all the time."""

CUT_MEMORY = 5
"""Frames that the change is compared with."""


def link(overlap: Floats, least: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of at least `least`, one-to-one, the greatest overlap first.

    Greedy: where faces overlap so much that an optimal assignment would differ, the embedding decides anyway.
    """
    rows, columns = np.nonzero(overlap >= least)
    pairs: list[tuple[int, int]] = []
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    for place in np.argsort(-overlap[rows, columns], kind="stable"):
        row, column = int(rows[place]), int(columns[place])
        if row not in taken_rows and column not in taken_columns:
            taken_rows.add(row)
            taken_columns.add(column)
            pairs.append((row, column))
    return pairs


class CutDetector:
    """Compares thumbnails of successive frames: after a cut a box in the same place is somebody else.

    A cut seen where there is none costs little: who is in view is found again by their embedding.
    """

    def __init__(self) -> None:
        self._last: npt.NDArray[np.float32] | None = None
        self._changes: deque[float] = deque(maxlen=CUT_MEMORY)

    def is_cut(self, image: Picture) -> bool:
        """Whether this frame shows another scene than the one before; False for the first."""
        height, width = image.shape[:2]
        down, across = max(1, height // 36), max(1, width // 64)
        green = image.green(down, across) if isinstance(image, Nv12) else image[::down, ::across, 1]
        thumbnail = green.astype(np.float32)
        last, self._last = self._last, thumbnail
        if last is None:
            return False
        if last.shape != thumbnail.shape:
            self._changes.clear()
            return True
        change = float(np.abs(last - thumbnail).mean())
        usual = max(self._changes, default=CUT_DIFFERENCE)
        self._changes.append(change)
        return change > CUT_DIFFERENCE and change > CUT_RATIO * usual
