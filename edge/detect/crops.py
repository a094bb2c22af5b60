"""The policy for pictures that are tight crops of one face, as data sets and enrolment folders hold them.

A face that fills its picture has lost the surroundings a detector was trained with. So: look as it is, then with a
border around it, wider each time; the first look that finds a face ends the search.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from edge.detect.detector import Detector
from edge.types import Face, Floats, Image

BORDERS = (0.0, 0.25, 0.6)
"""Border on each side, as a share of the longer side."""

SMALL_SIDE = 160
"""Pixels: pictures whose longer side is below are looked at enlarged as well."""

LARGE_SIDE = 2048
"""Pixels: pictures whose longer side is above are framed scaled down to it. A border around a picture as it is takes up
to 4.8 times the longer side squared, however narrow the picture: 40,000 by 10 pixels took 16 GB."""

SCORE_MARGIN = 0.15
"""A face whose score is lower than the best by more is not what the picture is about: more likely it is no face."""


def find_main_face(detector: Detector, image: Image) -> Face | None:
    """The face a picture is about: of those found the largest, with a preference for the middle; None where none is.

    Coordinates are pixels of `image`, and may lie outside it where the crop cut the face.
    """
    for border in BORDERS:
        view = _framed(image, border)
        seen = detector.find(view.image)
        faces = [view.back(face) for face in seen]
        if faces:
            sure = max(face.score for face in faces) - SCORE_MARGIN
            likely = [number for number, face in enumerate(faces) if face.score >= sure]
            main = max(likely, key=lambda number: _prominence(faces[number], image))
            return view.back(detector.refine(view.image, [seen[main]])[0])
    return None


def same_face(other: Face, main: Face) -> bool:
    """Whether `other` is the main face seen again, as at another border: its middle lies in the main one's box."""
    centre = (other.box[:2] + other.box[2:]) / 2
    return bool((centre > main.box[:2]).all() and (centre < main.box[2:]).all())


@dataclass(frozen=True, slots=True)
class _View:
    """A picture scaled by `zoom`, (x, y), then framed by `margin` pixels of black."""

    image: Image
    margin: int
    zoom: Floats

    def back(self, face: Face) -> Face:
        """A face of the view in pixels of the picture."""
        box, landmarks = self._back(face.box.reshape(2, 2)).reshape(4), self._back(face.landmarks)
        return replace(face, box=box, landmarks=landmarks)

    def _back(self, points: Floats) -> Floats:
        # Where the centre of a pixel goes under scaling: x → (x + 0.5)·zoom − 0.5
        moved: Floats = ((points - self.margin + 0.5) / self.zoom - 0.5).astype(np.float32)
        return moved


def _framed(image: Image, border: float) -> _View:
    height, width = image.shape[:2]
    longer = max(height, width)
    zoom = np.ones(2, np.float32)
    if longer < SMALL_SIDE:
        factor = SMALL_SIDE / longer
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        zoom *= np.float32(factor)
    elif border and longer > LARGE_SIDE:
        factor = LARGE_SIDE / longer
        size = max(1, round(width * factor)), max(1, round(height * factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        zoom = np.asarray(np.divide(size, (width, height)), np.float32)
    margin = round(border * max(image.shape[:2]))
    if margin:
        image = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    return _View(image, margin, zoom)


def _prominence(face: Face, image: Image) -> float:
    """Area, less up to half of it as the face's centre moves from the picture's to its corner."""
    height, width = image.shape[:2]
    centre = np.array([(face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2])
    away = float(np.hypot(*(centre - (width / 2, height / 2))) / np.hypot(width / 2, height / 2))
    return face.width * face.height * max(0.0, 1.0 - 0.5 * away)
