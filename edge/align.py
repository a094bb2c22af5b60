"""Alignment: five landmarks to the ArcFace template by a similarity transform. The only alignment code there is.

Training, calibration, enrolment and the camera all go through `align`: a network sees what it learned from.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge.contract import LANDMARKER_SIZE
from edge.types import Floats, Image

CROP_SIZE: Final = 112

ARCFACE_112: Final[npt.NDArray[np.float64]] = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""(5, 2) pixels in a 112×112 crop: left eye, right eye, nose, left mouth, right mouth (Deng et al., ArcFace, 2019)."""

ARCFACE_112.setflags(write=False)

WIDE_96_SIZE: Final = LANDMARKER_SIZE[0]

WIDE_96_ZOOM: Final = 0.85 * WIDE_96_SIZE / CROP_SIZE
"""Of the face in the template WIDE_96, beside the one in ARCFACE_112."""

WIDE_96: Final[npt.NDArray[np.float64]] = (ARCFACE_112 - 55.5) * WIDE_96_ZOOM + 47.5
"""(5, 2) pixels in a 96×96 crop that shows more around the same face: what a landmarker looks at."""

WIDE_96.setflags(write=False)

WIDE_96_EYES: Final = float(np.linalg.norm(WIDE_96[1] - WIDE_96[0]))
"""Pixels between the eyes of WIDE_96."""


_LEAST_SPREAD = 1e-9
_COINCIDE = "landmarks coincide; no similarity transform takes them to the template"


def similarity_transform(source: npt.NDArray[np.floating], target: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Least-squares similarity (rotation, uniform scale, shift; no reflection) that takes `source` to `target`.

    source, target: (K, 2), K ≥ 2. Gives the (2, 3) matrix [[a, -b, tx], [b, a, ty]].
    With points as complex numbers p and q about their means, a + ib = Σ conj(p)·q / Σ |p|²: the planar case of
    Umeyama (1991), in closed form, a twentieth of the time of an SVD.
    Raises ValueError where all source points coincide.
    """
    p = np.asarray(source, dtype=np.float64)
    q = np.asarray(target, dtype=np.float64)
    p_mean, q_mean = p.mean(axis=0), q.mean(axis=0)
    p, q = p - p_mean, q - q_mean
    spread = float((p * p).sum())
    if not spread > _LEAST_SPREAD:
        raise ValueError(_COINCIDE)
    a = float((p * q).sum()) / spread
    b = float((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum()) / spread
    tx = q_mean[0] - (a * p_mean[0] - b * p_mean[1])
    ty = q_mean[1] - (b * p_mean[0] + a * p_mean[1])
    return np.array([[a, -b, tx], [b, a, ty]])


def require_apart(landmarks: npt.NDArray[np.floating]) -> None:
    """Raises ValueError where `similarity_transform` would of any of (N, K, 2) landmarks, which it need not place."""
    p = landmarks - landmarks.sum(axis=1, keepdims=True, dtype=np.float64) / landmarks.shape[1]
    if not ((p * p).sum(axis=(1, 2)) > _LEAST_SPREAD).all():
        raise ValueError(_COINCIDE)


def align(
    image: Image, landmarks: Floats, template: npt.NDArray[np.float64] = ARCFACE_112, size: int = CROP_SIZE
) -> Image:
    """Cuts one face out of `image`, (size, size, 3) uint8 BGR, with its landmarks on the template; black outside.

    landmarks: (5, 2) pixels. Raises ValueError where they coincide.
    """
    matrix = similarity_transform(landmarks, template)
    # Bilinear sampling skips pixels where the face is much larger than the crop; a smaller copy, averaged, keeps them.
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.5:
        image, matrix = _reduced(image, matrix, scale, size)
    crop: Image = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return crop


def align_wide(image: Image, landmarks: Floats) -> Image:
    """What a landmarker looks at: (96, 96, 3) uint8 BGR on WIDE_96. Raises ValueError where the landmarks coincide."""
    return align(image, landmarks, WIDE_96, WIDE_96_SIZE)


def widen(crops: Image) -> Image:
    """(N, 112, 112, 3) aligned crops → (N, 96, 96, 3), those faces as a landmarker looks at them, black around."""
    landmarks = ARCFACE_112.astype(np.float32)
    return np.stack([align_wide(crop, landmarks) for crop in crops])


def _reduced(
    image: Image, matrix: npt.NDArray[np.float64], scale: float, size: int
) -> tuple[Image, npt.NDArray[np.float64]]:
    """The part of the image that the crop shows, shrunk by a whole factor by area averaging, and the matrix for it."""
    factor = int(1.0 / scale)
    inverse = cv2.invertAffineTransform(matrix)
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]], dtype=np.float64)
    seen = corners @ inverse.T
    height, width = image.shape[:2]
    x1, y1 = np.clip(np.floor(seen.min(axis=0)) - factor, 0, (width - 1, height - 1)).astype(int)
    x2, y2 = np.clip(np.ceil(seen.max(axis=0)) + factor, 1, (width, height)).astype(int)
    new_width, new_height = (x2 - x1) // factor, (y2 - y1) // factor
    if new_width < 1 or new_height < 1:
        return image, matrix
    part = image[y1 : y1 + new_height * factor, x1 : x1 + new_width * factor]
    small: Image = cv2.resize(part, (new_width, new_height), interpolation=cv2.INTER_AREA)
    # A pixel's centre is at (i + 0.5)·factor − 0.5 of the large picture.
    offset = (factor - 1) / 2
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ np.array([x1 + offset, y1 + offset], dtype=np.float64)
    shifted[:, :2] *= factor
    return small, shifted
