"""Small pictures of faces, for a list of people. They live in memory and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge.quality import frontality
from edge.types import Face, Image

SIDE = 160
"""Pixels: sharp at 80 on a phone's screen."""

MARGIN = 1.7
"""Side of what is cut out, in faces: with hair and shoulders a person is recognised sooner."""

BETTER = 1.15
"""A look has to be this much better to replace the one that is kept, or the picture would change all the time."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """A square picture (S, S, 3), S ≤ 160, and how well the face was seen in it: pixels, less where it was turned."""

    image: Image
    rank: float


def rank_of(face: Face) -> float:
    """Pixels of the face's shorter side, less the further it is turned away."""
    return min(face.width, face.height) * (0.25 + 0.75 * frontality(face.landmarks))


def cut(image: Image, face: Face, rank: float) -> Portrait:
    """The face with what surrounds it, square, moved into the frame where it stands at its edge."""
    height, width = image.shape[:2]
    side = max(2, min(round(MARGIN * max(face.width, face.height)), width, height))
    x, y = (round(float(middle) - side / 2) for middle in (face.box[:2] + face.box[2:]) / 2)
    x, y = max(0, min(x, width - side)), max(0, min(y, height - side))
    part = image[y : y + side, x : x + side]
    if side > SIDE:
        return Portrait(np.asarray(cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8), rank)
    return Portrait(part.copy(), rank)


def jpeg(image: Image, quality: int = 85) -> bytes:
    """An (H, W, 3) picture as a browser takes it."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV encodes any 8-bit picture as JPEG"
    return bytes(data.tobytes())
