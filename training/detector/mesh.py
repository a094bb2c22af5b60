"""MediaPipe's face mesh, a teacher of landmarks: it sees one face at a time, large and upright, and places 468 points.

Kartynnik et al., 2019, https://arxiv.org/abs/1907.06724. On 699 CelebA photos the mean of its views is 3.7 % of the eye
distance from SCRFD-2.5G's landmarks in the median, where twelve views of YuNet-n are 5.9 % away
(by a script that is not kept).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.engines.openvino import package
from edge.errors import EngineError, InputError
from edge.types import Floats, Image
from training.detector.data import MIRRORED

SIDE = 192
"""Pixels of what it sees."""

MARGIN = 1.5
"""Side of what it sees, in sides of the face, as MediaPipe cuts it."""

VIEWS = ((1.0, -5.0), (1.0, 5.0), (0.9, 0.0), (1.15, 0.0))
"""Shares of that side, and degrees from upright, at which it looks, each also mirrored."""

MIN_PRESENCE = 3.0
"""Logit of there being a face, mean over the views, below which its points are no label."""

EYES = ((33, 133), (362, 263))
"""The points at the corners of the eye seen on the left and of that on the right."""
NOSE = (1, 4)
MOUTH = (61, 291)


class FaceMesh:
    """`face_landmark.tflite` of MediaPipe (Apache-2.0), read by OpenVINO.

    Raises InputError where the file cannot be read or is another model, EngineError where OpenVINO is not installed.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        try:
            openvino = package()
        except ImportError as error:
            raise EngineError('the face mesh is read by OpenVINO: pip install "arcedge[openvino]"') from error
        if not path.is_file():
            raise InputError(f"{path}: no such file; it comes with: edge weights fetch mediapipe-face-mesh")
        core = openvino.Core()
        try:
            model = core.read_model(path)
            shapes = [tuple(port.shape) for port in (*model.inputs, *model.outputs)]
        except RuntimeError as error:
            raise InputError(f"{path}: OpenVINO cannot read it as face_landmark.tflite of MediaPipe") from error
        if shapes != [(1, SIDE, SIDE, 3), (1, 1, 1, 1404), (1, 1, 1, 1)]:
            raise InputError(f"{path}: not face_landmark.tflite of MediaPipe; its tensors are {shapes}")
        options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self._model: Any = core.compile_model(model, "CPU", options)

    def landmarks(self, image: Image, box: Floats, rough: Floats) -> Floats | None:
        """Five landmarks (5, 2) of the face in `box` (4,), pixels of `image`; None where it sees no face there.

        rough: (5, 2), landmarks of another detector, which say how the face is turned. What it sees first, places what
        it looks at then.
        """
        middle = ((box[:2] + box[2:]) / 2).astype(np.float32)
        side = float((box[2:] - box[:2]).max())
        points, _ = self._look(image, middle, MARGIN * side, _turn(rough[0], rough[1]), mirrored=False)
        low, high = points.min(axis=0), points.max(axis=0)
        middle, side = ((low + high) / 2).astype(np.float32), MARGIN * float((high - low).max())
        turned = _turn(points[EYES[0][0]], points[EYES[1][1]])
        seen = [
            (self._look(image, middle, share * side, turned + degrees, mirrored=mirrored), mirrored)
            for mirrored in (False, True)
            for share, degrees in VIEWS
        ]
        if np.mean([presence for (_, presence), _ in seen]) < MIN_PRESENCE:
            return None
        five = [_five(points)[list(MIRRORED)] if mirrored else _five(points) for (points, _), mirrored in seen]
        mean: Floats = np.mean(five, axis=0).astype(np.float32)
        return mean

    def _look(
        self, image: Image, middle: Floats, side: float, degrees: float, *, mirrored: bool
    ) -> tuple[Floats, float]:
        """The points (468, 2) in pixels of `image`, and the logit of a face, of one view: `side` pixels, turned."""
        matrix = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), degrees, SIDE / max(side, 1.0))
        matrix[:, 2] += (SIDE - 1) / 2 - middle
        if mirrored:
            matrix[0] *= -1
            matrix[0, 2] += SIDE - 1
        view = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
        answers = [np.asarray(value) for value in self._model(view[None, ..., ::-1].astype(np.float32) / 255).values()]
        points = next(value for value in answers if value.size > 1).reshape(-1, 3)[:, :2] - 0.5
        inverse = cv2.invertAffineTransform(matrix).astype(np.float32)
        presence = float(next(value for value in answers if value.size == 1).item())
        return points @ inverse[:, :2].T + inverse[:, 2], presence


def _five(points: Floats) -> Floats:
    """Eyes, nose, corners of the mouth (5, 2) of the mesh (468, 2): an eye is the middle of its corners."""
    eyes = [points[list(corners)].mean(axis=0) for corners in EYES]
    return np.stack([*eyes, points[list(NOSE)].mean(axis=0), *points[list(MOUTH)]])


def _turn(left: Floats, right: Floats) -> float:
    """Degrees by which a face with these eyes is turned clockwise."""
    x, y = right - left
    return float(np.degrees(np.arctan2(y, x)))
