"""Made-up faces and scenes, the same everywhere: for questions about arithmetic, where no photo is at hand.

They have a face's coarse layout and a photo's smoothness, so that a network's tensors take values of the size they take
on faces. They show nobody, and what is measured on them is no accuracy.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from edge.types import Image

SEED = 20260101


def synthetic_crops(count: int) -> Image:
    """(count, 112, 112, 3) uint8: smooth random fields with a face's coarse layout, where no photo is at hand.

    They check mechanics, not accuracy: what is measured on them says so.
    """
    return _crops(count).copy()


@lru_cache(maxsize=4)
def _crops(count: int) -> Image:
    """Drawn once: an export proves each of its variants on the same."""
    generator = np.random.default_rng(SEED)
    y, x = np.mgrid[0:112, 0:112].astype(np.float32)
    crops = []
    for _ in range(count):
        field = cv2.GaussianBlur(generator.normal(128, 220, (112, 112, 3)).astype(np.float32), (0, 0), 6)
        skin = generator.uniform(60, 210, 3)
        oval = np.clip(1.6 - ((x - 56) / 42) ** 2 - ((y - 62) / 54) ** 2, 0, 1)[..., None]
        picture = field * (1 - oval) + (skin + 0.35 * (field - 128)) * oval
        for cx, cy, size in ((38, 51, 6), (73, 51, 6), (56, 72, 5), (56, 92, 12)):
            spot = np.exp(-(((x - cx) / size) ** 2 + ((y - cy) / 5) ** 2))[..., None]
            picture -= spot * generator.uniform(30, 90)
        crops.append(np.clip(picture + generator.normal(0, 4, picture.shape), 0, 255).astype(np.uint8))
    return np.stack(crops)


def synthetic_scenes(count: int) -> Image:
    """(count, 480, 640, 3) uint8: blurred backgrounds with three of the crops each, at sizes a camera sees."""
    height, width = 480, 640
    generator = np.random.default_rng(SEED + 1)
    crops = synthetic_crops(3 * count)
    scenes = []
    for index in range(count):
        coarse = generator.normal(120, 60, (height // 16, width // 16, 3)).astype(np.float32)
        scene = np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
        for crop in crops[3 * index : 3 * index + 3]:
            side = int(generator.integers(60, height // 2))
            x, y = int(generator.integers(0, width - side)), int(generator.integers(0, height - side))
            scene[y : y + side, x : x + side] = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        scenes.append(scene)
    return np.stack(scenes)
