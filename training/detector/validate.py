"""What a network in training is worth on pictures it is not taught: average precision, and landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from edge.boxes import iou
from edge.detect.decode import Candidates, decode
from edge.detect.nms import nms
from edge.detect.vote import vote
from edge.metrics.detection import average_precision, match
from edge.types import Floats, Image
from training.detector.data import Picture
from training.detector.network import OUTPUT_NAMES, EdgeDetector

LONG_SIDE = 640
MIN_FACE = 20.0


def validate(network: EdgeDetector, scenes: Sequence[Picture], portraits: Sequence[Picture]) -> str:
    """AP over scenes and landmark error over portraits, as one line."""
    text = precision(network, scenes)
    return f"{text}; {landmark_error(network, portraits)}" if portraits else text


def precision(network: EdgeDetector, pictures: Sequence[Picture]) -> str:
    """AP over pictures enlarged to a longer side of 640, faces of 20 pixels and more, as one line."""
    outcomes = []
    for picture in pictures:
        zoom = LONG_SIDE / max(picture.image.shape[:2])
        found = _look(network, cv2.resize(picture.image, None, fx=zoom, fy=zoom), 0.02)
        faces = vote(found, nms(found.boxes, found.scores, 0.45, 500))
        outcomes.append(match(faces.boxes, faces.scores, picture.boxes * np.float32(zoom), MIN_FACE))
    measured = average_precision(outcomes)
    return f"AP@0.5 {measured.average:.4f} over {measured.faces} faces of {measured.images} pictures"


def landmark_error(network: EdgeDetector, pictures: Sequence[Picture]) -> str:
    """Median distance of the landmarks from the labels, mean of five, in shares of the eye distance, as one line."""
    errors = []
    for picture in pictures:
        found = _look(network, picture.image, 0.3)
        kept = nms(found.boxes, found.scores, 0.3, 100)
        known = np.isfinite(picture.landmarks).all(axis=(1, 2))
        if not len(kept) or not known.any():
            continue
        points = vote(found, kept).landmarks
        overlap = iou(picture.boxes[known], found.boxes[kept])
        for wanted, best, seen in zip(picture.landmarks[known], overlap.argmax(1), overlap.max(1), strict=True):
            if seen >= 0.5:
                away = np.linalg.norm(points[best] - wanted, axis=1).mean()
                errors.append(float(away / max(float(np.linalg.norm(wanted[1] - wanted[0])), 1.0)))
    median = 100 * float(np.median(errors)) if errors else float("nan")
    return f"landmarks {median:.2f} % of the eye distance from the labels of {len(errors)} faces"


@torch.no_grad()
def _look(network: EdgeDetector, image: Image, min_score: float) -> Candidates:
    height, width = (-(-side // 32) * 32 for side in image.shape[:2])
    canvas = np.zeros((1, 3, height, width), np.float32)
    canvas[0, :, : image.shape[0], : image.shape[1]] = image.transpose(2, 0, 1)
    answers = network(torch.from_numpy(canvas).contiguous(memory_format=torch.channels_last))
    outputs: dict[str, Floats] = {name: value.numpy() for name, value in zip(OUTPUT_NAMES, answers, strict=True)}
    return decode(outputs, 0, height, width, min_score)
