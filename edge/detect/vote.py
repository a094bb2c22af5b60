"""A face's box and landmarks from every cell that saw it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.detect.decode import Candidates

MIN_IOU = 0.5
"""A candidate that overlaps a kept one by as much saw the same face."""


def vote(found: Candidates, kept: npt.NDArray[np.intp]) -> Candidates:
    """The kept candidates with boxes and landmarks that are the mean over all that saw the face, by squared score.

    Several cells answer for a face, each with an error of its own. Pruning takes the best and throws the others away;
    their mean is nearer to the truth: on LFW YuNet-s's landmarks are 7.5 % of the eye distance from SCRFD-2.5G's, and
    9.1 without (`python -m benchmarks.detector_card`, before and after); on held-out scenes the AP of `edge-detector`
    is 85.6 % with the mean of the boxes and 84.6 without (`training.detector.validate`, likewise). BlazeFace blends so
    (Bazarevsky et al., 2019, https://arxiv.org/abs/1907.05047).
    """
    x1, y1, x2, y2 = found.boxes.T
    area = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    weights = found.scores**2
    places = np.concatenate([found.boxes, found.landmarks.reshape(-1, 10)], axis=1)
    voted = np.empty((len(kept), places.shape[1]), np.float32)
    for row, best in enumerate(kept):
        wide = np.minimum(x2[best], x2) - np.maximum(x1[best], x1)
        high = np.minimum(y2[best], y2) - np.maximum(y1[best], y1)
        shared = np.maximum(wide, 0) * np.maximum(high, 0)
        same = shared >= MIN_IOU * (area[best] + area - shared)
        same[best] = True  # even a box without an area
        weight = weights[same]
        voted[row] = weight @ places[same] / weight.sum()
    return Candidates(voted[:, :4], voted[:, 4:].reshape(-1, 5, 2), found.scores[kept])
