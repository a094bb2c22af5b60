"""Average precision of a network in training, over pictures it is not taught."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from edge.detect.decode import decode
from edge.detect.nms import nms
from edge.metrics.detection import average_precision, match
from edge.types import Floats
from training.detector.data import Picture
from training.detector.network import OUTPUT_NAMES, EdgeDetector

LONG_SIDE = 640
MIN_FACE = 20.0


@torch.no_grad()
def validate(network: EdgeDetector, pictures: Sequence[Picture]) -> str:
    """AP over pictures enlarged to a longer side of 640, faces of 20 pixels and more, as one line."""
    outcomes = []
    for picture in pictures:
        zoom = LONG_SIDE / max(picture.image.shape[:2])
        seen = cv2.resize(picture.image, None, fx=zoom, fy=zoom)
        height, width = (-(-side // 32) * 32 for side in seen.shape[:2])
        canvas = np.zeros((1, 3, height, width), np.float32)
        canvas[0, :, : seen.shape[0], : seen.shape[1]] = seen.transpose(2, 0, 1)
        answers = network(torch.from_numpy(canvas).contiguous(memory_format=torch.channels_last))
        outputs: dict[str, Floats] = {name: value.numpy() for name, value in zip(OUTPUT_NAMES, answers, strict=True)}
        found = decode(outputs, 0, height, width, 0.02)
        kept = nms(found.boxes, found.scores, 0.45, 500)
        outcomes.append(match(found.boxes[kept], found.scores[kept], picture.boxes * np.float32(zoom), MIN_FACE))
    precision = average_precision(outcomes)
    return f"AP@0.5 {precision.average:.4f} over {precision.faces} faces of {precision.images} pictures"
