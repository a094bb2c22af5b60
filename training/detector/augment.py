"""From pictures to training samples: windows at random scales, mosaics, pasted faces, faces that fill the frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edge.types import Floats, Image
from training.detector.data import Picture, Pools, mirror

SMALLEST_FACE = 8.0
"""Pixels of a face's longer side in the sample; smaller ones are no label."""

MIN_VISIBLE = 0.35
"""Share of a face's box that must be in view; a face less visible is no label."""

TURNED = 0.3
"""Share of the pictures that are turned."""

MIN_FILLED = 0.75
"""Share of a window's side that the longer side of a picture fills at least."""


LARGE_FACE = (40.0, 190.0)
"""Pixels of the longer side of a face whose landmarks are learned, at least and at most."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A square training image (S, S, 3) uint8 BGR with boxes (K, 4), landmarks (K, 5, 2), NaN where unknown."""

    image: Image
    boxes: Floats
    landmarks: Floats


def draw(rng: np.random.Generator, pools: Pools, size: int) -> Sample:
    """One augmented sample of size×size pixels."""
    kind = rng.random()
    if kind < 0.35:
        sample = _around_a_face(rng, _pick(rng, pools.scenes), size)
    elif kind < 0.45:
        sample = _anywhere(rng, _pick(rng, pools.scenes), size)
    elif kind < 0.70:
        sample = _mosaic(rng, pools, size)
    elif kind < 0.80:
        sample = _around_a_face(rng, _pick(rng, pools.portraits), size)
    elif kind < 0.88:
        sample = _filling(rng, _pick(rng, pools.portraits), size)
    elif kind < 0.94 or not pools.crops:
        sample = _filling(rng, _pick(rng, pools.crops or pools.portraits), size)
    else:
        sample = _with_pasted_faces(rng, pools, size)
    return _finish(rng, sample)


def draw_portrait(rng: np.random.Generator, pools: Pools, size: int) -> Sample:
    """One sample for learning landmarks: a photo of one person, whose labels are the better ones, large and in view."""
    picture = _pick(rng, pools.portraits)
    x1, y1, x2, y2 = picture.boxes[0]
    side = max(float(x2 - x1), float(y2 - y1), 1.0)
    face = _log_uniform(rng, LARGE_FACE[0], min(LARGE_FACE[1], 0.85 * size))
    scale, room = face / side, max(size - face, 0.0) / 2
    centre = np.array([x1 + x2, y1 + y2]) / 2 * scale
    x, y = centre - size / 2 + rng.uniform(-room, room, 2)
    return _finish(rng, window(picture, float(x), float(y), scale, size, _fill(rng)))


def _finish(rng: np.random.Generator, sample: Sample) -> Sample:
    if rng.random() < 0.5:
        sample = flip(sample)
    return replace(sample, image=recolour(rng, sample.image))


def _pick(rng: np.random.Generator, pool: list[Picture]) -> Picture:
    """A picture of the pool, at times turned."""
    picture = pool[int(rng.integers(len(pool)))]
    return rotate(picture, float(rng.normal(0, 18)), _fill(rng)) if rng.random() < TURNED else picture


def rotate(picture: Picture, degrees: float, fill: int) -> Picture:
    """A picture turned about its middle, counter-clockwise, at its own size; `fill` grey comes in at the corners.

    A face's box becomes that of the turned ellipse it holds. The teacher tends to see faces upright; geometry does not.
    """
    height, width = picture.image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0).astype(np.float32)
    image = cv2.warpAffine(picture.image, matrix, (width, height), borderValue=(fill, fill, fill))
    turn, shift = matrix[:, :2], matrix[:, 2]
    centre = (picture.boxes[:, :2] + picture.boxes[:, 2:]) / 2 @ turn.T + shift
    half = np.sqrt(((picture.boxes[:, 2:] - picture.boxes[:, :2]) / 2) ** 2 @ (turn.T**2))
    boxes = np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
    return Picture(image, boxes, (picture.landmarks @ turn.T + shift).astype(np.float32))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def window(picture: Picture, x: float, y: float, scale: float, size: int, fill: int) -> Sample:
    """The size×size window with its top left at (x, y) of the picture enlarged by `scale`; `fill` grey around it."""
    height, width = picture.image.shape[:2]
    x1, y1 = max(0, int(np.floor(x / scale))), max(0, int(np.floor(y / scale)))
    x2, y2 = min(width, int(np.ceil((x + size) / scale))), min(height, int(np.ceil((y + size) / scale)))
    canvas = np.full((size, size, 3), fill, np.uint8)
    left, top = round(x1 * scale - x), round(y1 * scale - y)
    if x2 > x1 and y2 > y1:
        shape = max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale))
        shrink = cv2.INTER_AREA if scale < 0.7 else cv2.INTER_LINEAR
        part = cv2.resize(picture.image[y1:y2, x1:x2], shape, interpolation=shrink)
        u1, v1 = max(0, left), max(0, top)
        u2, v2 = min(size, left + part.shape[1]), min(size, top + part.shape[0])
        if u2 > u1 and v2 > v1:
            canvas[v1:v2, u1:u2] = part[v1 - top : v2 - top, u1 - left : u2 - left]
    # What rounding moved the pixels by, the labels move by too.
    origin = np.array([x1 * scale - left, y1 * scale - top], np.float32)
    boxes = picture.boxes * np.float32(scale) - np.tile(origin, 2)
    landmarks = (picture.landmarks + 0.5) * np.float32(scale) - 0.5 - origin
    return _in_view(canvas, boxes, landmarks, np.array([0, 0, size, size], np.float32))


def _in_view(image: Image, boxes: Floats, landmarks: Floats, view: Floats) -> Sample:
    """Boxes cut at the border of `view` (4,), without those of faces too small or too little in view."""
    cut = np.concatenate([np.maximum(boxes[:, :2], view[:2]), np.minimum(boxes[:, 2:], view[2:])], axis=1)
    seen = np.prod(np.clip(cut[:, 2:] - cut[:, :2], 0, None), axis=1)
    share = seen / np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-6)
    large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) >= SMALLEST_FACE
    face = large & (share >= MIN_VISIBLE)
    return Sample(image, cut[face], landmarks[face])


def _anywhere(rng: np.random.Generator, picture: Picture, size: int) -> Sample:
    height, width = picture.image.shape[:2]
    scale = _log_uniform(rng, _smallest_scale(picture, size), 1.9)
    x, y = (rng.uniform(*sorted((0.0, side * scale - size))) for side in (width, height))
    return window(picture, float(x), float(y), scale, size, _fill(rng))


def _smallest_scale(picture: Picture, size: int) -> float:
    """The scale at which a picture still fills most of a window: what is around it teaches nothing."""
    return MIN_FILLED * size / float(max(picture.image.shape[:2]))


def _fill(rng: np.random.Generator) -> int:
    return 0 if rng.random() < 0.5 else int(rng.integers(0, 256))


def _around_a_face(rng: np.random.Generator, picture: Picture, size: int) -> Sample:
    """A window with one face at a size drawn evenly over the octaves, wherever in the window it falls."""
    if not len(picture.boxes):
        return _anywhere(rng, picture, size)
    x1, y1, x2, y2 = picture.boxes[int(rng.integers(len(picture.boxes)))]
    side = max(float(x2 - x1), float(y2 - y1), 1.0)
    scale = float(np.clip(_log_uniform(rng, 10, 0.85 * size) / side, _smallest_scale(picture, size), 3.0))
    corner = []
    for start, end, length in ((x1, x2, picture.image.shape[1]), (y1, y2, picture.image.shape[0])):
        room = float(end - start) * scale * 0.15
        at = start * scale - rng.uniform(-room, max(size - float(end - start) * scale + room, 0.0))
        corner.append(float(np.clip(at, *sorted((-room, length * scale - size + room)))))
    return window(picture, corner[0], corner[1], scale, size, _fill(rng))


def _filling(rng: np.random.Generator, picture: Picture, size: int) -> Sample:
    """A window that one face fills, or is cut by."""
    x1, y1, x2, y2 = picture.boxes[int(rng.integers(len(picture.boxes)))]
    scale = size * rng.uniform(0.45, 1.2) / max(float(y2 - y1), float(x2 - x1), 1.0)
    centre_x, centre_y = (x1 + x2) / 2 * scale, (y1 + y2) / 2 * scale
    jitter = rng.uniform(-0.15, 0.15, 2) * size
    return window(
        picture, float(centre_x - size / 2 + jitter[0]), float(centre_y - size / 2 + jitter[1]), scale, size, _fill(rng)
    )


def _mosaic(rng: np.random.Generator, pools: Pools, size: int) -> Sample:
    """Four windows around one point."""
    canvas = np.zeros((size, size, 3), np.uint8)
    split_x, split_y = (round(v) for v in rng.uniform(0.3, 0.7, 2) * size)
    tiles = []
    for left, right in ((0, split_x), (split_x, size)):
        for top, bottom in ((0, split_y), (split_y, size)):
            pool = pools.portraits if rng.random() < 0.2 else pools.scenes
            make: Callable[[np.random.Generator, Picture, int], Sample] = (
                _around_a_face if rng.random() < 0.5 else _anywhere
            )
            tile = make(rng, _pick(rng, pool), max(right - left, bottom - top))
            canvas[top:bottom, left:right] = tile.image[: bottom - top, : right - left]
            tiles.append(_cut(tile, right - left, bottom - top, left, top))
    return _join(canvas, tiles)


def _cut(tile: Sample, width: int, height: int, left: int, top: int) -> Sample:
    """The labels of the tile's upper left width×height pixels, moved to (left, top)."""
    kept = _in_view(tile.image, tile.boxes, tile.landmarks, np.array([0, 0, width, height], np.float32))
    shift = np.array([left, top], np.float32)
    return Sample(kept.image, kept.boxes + np.tile(shift, 2), kept.landmarks + shift)


def _join(image: Image, parts: list[Sample]) -> Sample:
    return Sample(
        image,
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.landmarks for part in parts]),
    )


def _with_pasted_faces(rng: np.random.Generator, pools: Pools, size: int) -> Sample:
    """A scene with one to three face crops pasted over it; the faces under them are gone."""
    sample = _anywhere(rng, _pick(rng, pools.scenes), size)
    for _ in range(int(rng.integers(1, 4))):
        crop = _pick(rng, pools.crops)
        side = round(_log_uniform(rng, 20, 0.8 * size))
        left, top = (int(v) for v in rng.integers(-side // 4, size - 3 * side // 4, 2))
        u1, v1, u2, v2 = max(0, left), max(0, top), min(size, left + side), min(size, top + side)
        pasted = cv2.resize(crop.image, (side, side), interpolation=cv2.INTER_AREA if side < 112 else cv2.INTER_LINEAR)
        image = sample.image.copy()
        image[v1:v2, u1:u2] = pasted[v1 - top : v2 - top, u1 - left : u2 - left]
        scale, shift = np.float32(side / crop.image.shape[0]), np.array([left, top], np.float32)
        added = _in_view(
            image,
            crop.boxes * scale + np.tile(shift, 2),
            (crop.landmarks + 0.5) * scale - 0.5 + shift,
            np.array([u1, v1, u2, v2], np.float32),
        )
        sample = _join(image, [_covered(sample, np.array([u1, v1, u2, v2], np.float32)), added])
    return sample


def _covered(sample: Sample, patch: Floats) -> Sample:
    """The sample's labels once `patch` hides what is under it: faces a fifth hidden are gone."""
    low, high = np.maximum(sample.boxes[:, :2], patch[:2]), np.minimum(sample.boxes[:, 2:], patch[2:])
    area = np.prod(sample.boxes[:, 2:] - sample.boxes[:, :2], axis=1)
    seen = np.prod(np.clip(high - low, 0, None), axis=1) < 0.2 * np.maximum(area, 1e-6)
    return Sample(sample.image, sample.boxes[seen], sample.landmarks[seen])


def flip(sample: Sample) -> Sample:
    """The mirror image, with the landmarks named by the side they are now seen on."""
    width = sample.image.shape[1]
    boxes, landmarks = mirror(sample.boxes, sample.landmarks, width)
    return Sample(np.ascontiguousarray(sample.image[:, ::-1]), boxes, landmarks)


def recolour(rng: np.random.Generator, image: Image) -> Image:
    """Contrast, brightness and white balance; at times grey, blurred, or compressed."""
    if rng.random() < 0.8:
        gain = rng.uniform(0.65, 1.35) * rng.uniform(0.9, 1.1, 3)
        table = np.clip(np.arange(256)[:, None] * gain + rng.uniform(-28, 28), 0, 255).astype(np.uint8)
        image = cv2.LUT(image, np.ascontiguousarray(table[None]))
    if rng.random() < 0.08:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < 0.1:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.6))
    if rng.random() < 0.1:
        packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))])[1]
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return image
