"""The landmarker: a second, closer look at each face a detector found, which places its five landmarks anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from edge.align import WIDE_96, WIDE_96_EYES, align_wide, similarity_transform
from edge.contract import ModelContract
from edge.engines import Array, Session
from edge.errors import ContractError, EngineError
from edge.model_input import run_in_parts, to_model
from edge.types import Face, Floats, Image

MAX_MOVE = 0.5
"""Shares of the eye distance that landmarks may move by, mean of five: the landmarker learned from faces that were
misplaced by less, and what it moves further it did not recognise."""


class Landmarker:
    """Places landmarks with any model whose contract says "landmarker"."""

    def __init__(self, session: Session, contract: ModelContract) -> None:
        if contract.role != "landmarker":
            raise ContractError(f"a landmarker is needed; this model is of role {contract.role}")
        self._session = session
        self.contract = contract

    def refine(self, image: Image, faces: Sequence[Face]) -> list[Face]:
        """The same faces of `image` (H, W, 3) uint8 BGR with their landmarks placed anew; boxes and scores as they are.

        A face keeps its landmarks where they coincide, or where the new ones are further off than `MAX_MOVE`. Raises
        EngineError where the model gives what is no landmarks.
        """
        views = views_of(faces)
        if not views:
            return list(faces)
        crops = np.stack([align_wide(image, faces[number].landmarks) for number in views])
        return placed(faces, views, self.points(crops))

    def points(self, crops: Image) -> Floats:
        """(N, 96, 96, 3) uint8 BGR faces on the template WIDE_96 → landmarks (N, 5, 2), pixels of the crops.

        Raises EngineError where the model gives what is no landmarks.
        """
        return self.checked(run_in_parts(self._session, to_model(crops, self.contract)))

    def checked(self, answers: Array) -> Floats:
        """What the model gave, (N, 10) pixels from the template → landmarks (N, 5, 2). Raises as `points` does."""
        if answers.shape[1:] != (10,) or not np.isfinite(answers).all():
            raise EngineError(
                f"the landmarker gave {answers.shape} instead of ten finite numbers a face; "
                "the model is damaged or its contract wrong"
            )
        points: Floats = (answers.reshape(-1, 5, 2) + WIDE_96).astype(np.float32)
        return points


def views_of(faces: Sequence[Face]) -> dict[int, npt.NDArray[np.float64]]:
    """By number, of the faces that can be looked at, what takes the image to the landmarker's view: (2, 3)."""
    views = {number: _view_of(face.landmarks) for number, face in enumerate(faces)}
    return {number: matrix for number, matrix in views.items() if matrix is not None}


def _view_of(landmarks: Floats) -> npt.NDArray[np.float64] | None:
    try:
        return similarity_transform(landmarks, WIDE_96)
    except ValueError:  # they coincide
        return None


def placed(faces: Sequence[Face], views: dict[int, npt.NDArray[np.float64]], points: Floats) -> list[Face]:
    """The faces with landmarks `points` (N, 5, 2), pixels of N views, taken back to the image's pixels."""
    moved = list(faces)
    for number in views:
        moved[number] = replace(faces[number], refined=True)
    for (number, matrix), found in zip(views.items(), points, strict=True):
        if np.linalg.norm(found - WIDE_96, axis=1).mean() <= MAX_MOVE * WIDE_96_EYES:
            back = cv2.invertAffineTransform(matrix)
            landmarks = (found @ back[:, :2].T + back[:, 2]).astype(np.float32)
            moved[number] = replace(moved[number], landmarks=landmarks)
    return moved
