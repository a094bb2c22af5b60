"""What the network sees of a face in training: placed as wrongly as detectors place it, in light as cameras have it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge.align import WIDE_96, WIDE_96_SIZE, similarity_transform
from edge.types import Floats, Image
from training.detector.augment import recolour
from training.detector.data import MIRRORED
from training.landmarker.faces import PATCH_TEMPLATE, Patch

TURN, SCALE, SHIFT = 7.0, 0.09, 3.0
"""Standard deviations of what a detector's landmarks are off by: degrees, natural logarithm, pixels of the crop."""
FAR_OFF, FAR = 0.1, 2.0
"""Share of samples that are off by more, and how many times more."""
COARSE, COVERED = 0.25, 0.15
"""Shares of samples of small faces that were enlarged, and of faces with something before them."""


_STRAIGHT = similarity_transform(PATCH_TEMPLATE, WIDE_96)
"""Patch to crop where the landmarks are right."""


@dataclass(frozen=True, slots=True)
class Sample:
    """image (96, 96, 3) uint8 BGR; points (5, 2) pixels in it."""

    image: Image
    points: Floats


def view(patch: Patch, matrix: Floats, fill: int = 0) -> Sample:
    """A patch as seen through `matrix` (2, 3), patch to crop; `fill` grey around it."""
    image: Image = cv2.warpAffine(
        patch.image, matrix, (WIDE_96_SIZE, WIDE_96_SIZE), flags=cv2.INTER_LINEAR, borderValue=(fill, fill, fill)
    )
    return Sample(image, (patch.landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32))


def draw(rng: np.random.Generator, patch: Patch) -> Sample:
    """One augmented sample."""
    sample = misplace(rng, patch)
    return Sample(_soil(rng, sample.image), sample.points)


def misplace(rng: np.random.Generator, patch: Patch) -> Sample:
    """A patch turned, scaled, shifted, and mirrored or not, around it black or grey."""
    more = FAR if rng.random() < FAR_OFF else 1.0
    degrees, stretch = rng.normal(0, TURN * more), float(np.exp(rng.normal(0, SCALE * more)))
    middle = (WIDE_96_SIZE - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), degrees, stretch)
    turn[:, 2] += rng.normal(0, SHIFT * more, 2)
    matrix = turn[:, :2] @ _STRAIGHT + np.array([[0, 0, turn[0, 2]], [0, 0, turn[1, 2]]])
    sample = view(patch, matrix.astype(np.float32), 0 if rng.random() < 0.5 else int(rng.integers(0, 256)))
    if rng.random() < 0.5:
        return sample
    points = sample.points[list(MIRRORED)] * np.array([-1, 1], np.float32) + np.array([WIDE_96_SIZE - 1, 0], np.float32)
    return Sample(np.ascontiguousarray(sample.image[:, ::-1]), points)


def _soil(rng: np.random.Generator, image: Image) -> Image:
    """At times coarse or covered, in other light."""
    if rng.random() < COARSE:
        side = round(WIDE_96_SIZE / np.exp(rng.uniform(np.log(1.3), np.log(4.5))))
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (WIDE_96_SIZE, WIDE_96_SIZE), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    if rng.random() < COVERED:
        image = _covered(rng, image)
    return recolour(rng, image)


def _covered(rng: np.random.Generator, image: Image) -> Image:
    height, width = (int(side) for side in rng.integers(12, 44, 2))
    top, left = int(rng.integers(-8, WIDE_96_SIZE - 12)), int(rng.integers(-8, WIDE_96_SIZE - 12))
    image = image.copy()
    image[max(0, top) : top + height, max(0, left) : left + width] = rng.integers(0, 256, 3)
    return image
