"""Landmarks of a face from every cell that saw it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.detect.decode import Candidates
from edge.types import Floats

MIN_IOU = 0.5
"""A candidate that overlaps a kept one by as much saw the same face."""


def vote(found: Candidates, kept: npt.NDArray[np.intp]) -> Floats:
    """Landmarks (len(kept), 5, 2) of the kept candidates: the mean over all that saw the face, by squared score.

    Several cells answer for a face, each with an error of its own. Pruning takes the best and throws the others away;
    their mean is nearer to the truth: on LFW YuNet-s's landmarks are 7.5 % of the eye distance from SCRFD-2.5G's, and
    9.1 without (`python -m benchmarks.detector_card`, before and after). BlazeFace blends so (Bazarevsky et al.,
    2019, https://arxiv.org/abs/1907.05047).
    """
    x1, y1, x2, y2 = found.boxes.T
    area = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    weights = found.scores**2
    voted = np.empty((len(kept), *found.landmarks.shape[1:]), np.float32)
    for row, best in enumerate(kept):
        wide = np.minimum(x2[best], x2) - np.maximum(x1[best], x1)
        high = np.minimum(y2[best], y2) - np.maximum(y1[best], y1)
        shared = np.maximum(wide, 0) * np.maximum(high, 0)
        same = shared >= MIN_IOU * (area[best] + area - shared)
        same[best] = True  # even a box without an area
        weight = weights[same]
        voted[row] = (found.landmarks[same] * weight[:, None, None]).sum(axis=0) / weight.sum()
    return voted
