"""Average precision of a detector, and what it finds at so many false alarms, in numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.boxes import iou
from edge.types import Floats

MIN_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Precision:
    """Average precision over `faces` true faces and `detections` counted detections of `images` images."""

    average: float
    faces: int
    detections: int
    images: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One image's detections that count, scores (K,) and hits (K,) bool, and how many true `faces` it has."""

    scores: Floats
    hits: np.ndarray[tuple[int], np.dtype[np.bool_]]
    faces: int


def match(boxes: Floats, scores: Floats, truth: Floats, min_side: float) -> Outcome:
    """Matches the detections of one image to its true faces, best score first, each face once, at IoU ≥ 0.5.

    boxes: (K, 4) x1 y1 x2 y2; scores: (K,); truth: (M, 4). True faces whose longer side is below `min_side` pixels
    count neither way: what finds one is dropped, and so are unmatched detections that small.
    """
    counted = _side(truth) >= min_side
    free = np.ones(len(truth), bool)
    kept, hits = [], []
    overlaps = iou(boxes, truth)
    for i in np.argsort(-scores, kind="stable"):
        overlap = overlaps[i]
        able = free & (overlap >= MIN_IOU)
        # Counted faces come first; among them the one that overlaps most.
        if able.any():
            face = int(np.argmax(np.where(able, overlap + counted, -1.0)))
            free[face] = False
            if counted[face]:
                kept.append(i)
                hits.append(True)
            continue
        beside_small = bool((~counted & (overlap >= MIN_IOU)).any())
        if not beside_small and _side(boxes[i : i + 1])[0] >= min_side:
            kept.append(i)
            hits.append(False)
    return Outcome(scores[kept], np.array(hits, bool), int(counted.sum()))


def average_precision(outcomes: Sequence[Outcome]) -> Precision:
    """Area under the precision-recall curve with precision made monotone, over every point (Pascal VOC 2010)."""
    faces = sum(outcome.faces for outcome in outcomes)
    scores = np.concatenate([outcome.scores for outcome in outcomes]) if outcomes else np.zeros(0)
    hits = np.concatenate([outcome.hits for outcome in outcomes]) if outcomes else np.zeros(0, bool)
    hits = hits[np.argsort(-scores, kind="stable")]
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    area = float(envelope[hits].sum() / faces) if faces else float("nan")
    return Precision(area, faces, len(hits), len(outcomes))


def found_at(outcomes: Sequence[Outcome], false_alarms: float) -> float:
    """Share of the true faces found at the lowest score that gives at most so many false alarms an image.

    A point of the free-response ROC (Chakraborty, 1989). NaN without a true face.
    """
    faces = sum(outcome.faces for outcome in outcomes)
    if not faces:
        return float("nan")
    scores = np.concatenate([outcome.scores for outcome in outcomes])
    hits = np.concatenate([outcome.hits for outcome in outcomes])
    wrong = np.sort(scores[~hits])[::-1]
    allowed = int(false_alarms * len(outcomes) + 1e-9)
    # What scores as high as the first false alarm too many would come with it.
    return float((scores[hits] > wrong[allowed]).sum() / faces) if len(wrong) > allowed else float(hits.sum() / faces)


def _side(boxes: Floats) -> Floats:
    side: Floats = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    return side
