"""How fit a face is to be recognised: its size, sharpness, and how straight it looks at the camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge.types import Face, Floats, Image

SMALL_FACE = 40.0
"""Pixels of the box's shorter side; below, the crop is mostly interpolation."""

BLURRED = 60.0
"""Variance of the Laplacian of the aligned crop; below, a face is out of focus, moved, or enlarged from few pixels."""

TURNED = 0.45
"""Frontality; below, one half of the face is hardly seen."""


_FACE = slice(20, 108), slice(22, 90)
_PIXELS = (108 - 20) * (90 - 22)


@dataclass(frozen=True, slots=True)
class Quality:
    """size: pixels of the box's shorter side. sharpness: variance of the Laplacian of the crop's grey values.

    frontal: 1 looking straight into the camera, 0 in profile.
    """

    size: float
    sharpness: float
    frontal: float

    @property
    def good(self) -> bool:
        """Fit to be enrolled, or to settle who somebody is."""
        return self.size >= SMALL_FACE and self.sharpness >= BLURRED and self.frontal >= TURNED

    @property
    def rank(self) -> float:
        """For choosing among frames of one person, [0, 1]: the product of what each measure reaches of plenty."""
        return min(1.0, self.size / 112) * min(1.0, self.sharpness / (5 * BLURRED)) * self.frontal


def measure(face: Face, crop: Image) -> Quality:
    """Quality of a face from its detection and its aligned crop (112, 112, 3)."""
    return quality_of(face, sharpness(crop))


def quality_of(face: Face, sharpness: float) -> Quality:
    """The same where the crop's sharpness is known."""
    return Quality(min(face.width, face.height), sharpness, frontality(face.landmarks))


def sharpness(crop: Image) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al., 2000) inside the face, where background adds no edges."""
    grey = cv2.cvtColor(crop[_FACE], cv2.COLOR_BGR2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def sharpness_of(total: int, squares: int) -> float:
    """The same, of the sum of that Laplacian's whole numbers and of their squares, as the GPU adds them up."""
    mean = total / _PIXELS
    return squares / _PIXELS - mean * mean


def frontality(landmarks: Floats) -> float:
    """How evenly the nose stands between the eyes, along the line through them; 0 where it lies beyond one of them.

    landmarks: (5, 2) pixels, the eyes first, then the nose. Gives 1 for a face seen straight on.
    """
    left, right, nose = (landmarks[i].astype(np.float64) for i in range(3))
    axis = right - left
    length = float(np.hypot(*axis))
    if length < 1e-6:
        return 0.0
    along = float((nose - left) @ axis) / (length * length)
    return max(0.0, 1.0 - 2.0 * abs(along - 0.5))
