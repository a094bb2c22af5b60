"""The detector: an image in, faces out, best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edge.contract import ModelContract
from edge.detect.decode import decode, require_heads
from edge.detect.landmarker import Landmarker
from edge.detect.nms import nms
from edge.detect.vote import vote
from edge.engines import Array, Session
from edge.errors import ContractError
from edge.manifest import Variant
from edge.model_input import to_model
from edge.types import Face, Image, require_image

WORKING_SCORE = 0.5
"""From which a detection counts as a face, in FP32 and where a variant states no score of its own."""


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """long_side: pixels the image's longer side is scaled down to before detection; smaller images stay as they are.

    min_score: (0, 1], from which a detection counts as a face; None for what the variant states, see `score`.
    max_iou: boxes that overlap a better one by more are dropped; max_faces: an image gives no more.
    """

    long_side: int = 640
    min_score: float | None = None
    max_iou: float = 0.4
    max_faces: int = 100

    def __post_init__(self) -> None:
        if self.long_side < 32 or not 0.0 < self.score <= 1.0 or not 0.0 < self.max_iou <= 1.0 or self.max_faces < 1:
            raise ContractError(f"detector options out of range: {self}")

    @property
    def score(self) -> float:
        """`min_score`, else WORKING_SCORE."""
        return WORKING_SCORE if self.min_score is None else self.min_score

    def for_variant(self, variant: Variant) -> DetectorOptions:
        """The same with the score that a variant states, unless `min_score` says another."""
        if self.min_score is not None or variant.detection_score is None:
            return self
        return replace(self, min_score=variant.detection_score.score)


class Detector:
    """Finds faces with a YuNet-family model behind any engine.

    landmarker: places their landmarks anew; None for the detector's own landmarks.
    """

    def __init__(
        self,
        session: Session,
        contract: ModelContract,
        options: DetectorOptions | None = None,
        landmarker: Landmarker | None = None,
    ) -> None:
        if contract.role != "detector":
            raise ContractError(f"a detector is needed; this model is of role {contract.role}")
        require_heads({spec.name for spec in session.outputs})
        self._session = session
        self._contract = contract
        self.options = options or DetectorOptions()
        self.landmarker = landmarker
        self._input = session.inputs[0].name

    def detect(self, image: Image) -> list[Face]:
        """Faces of an image (H, W, 3) uint8 BGR of any size, in its pixels, best score first, refined."""
        return self.refine(image, self.find(image))

    def refine(self, image: Image, faces: Sequence[Face]) -> list[Face]:
        """The same faces with their landmarks placed anew, where there is a landmarker and it has not been done."""
        rough = {number: face for number, face in enumerate(faces) if not face.refined}
        if self.landmarker is None or not rough:
            return list(faces)
        refined = dict(zip(rough, self.landmarker.refine(image, list(rough.values())), strict=True))
        return [refined.get(number, face) for number, face in enumerate(faces)]

    def find(self, image: Image) -> list[Face]:
        """The faces as `detect` gives them, with the detector's own landmarks: enough to follow a face."""
        require_image(image)
        height, width = image.shape[:2]
        new_height, new_width = self.scaled_size(height, width)
        batch = self.prepare(image, new_height, new_width)
        outputs = self._session.run({self._input: batch})
        found = decode(outputs, 0, *self.input_size(new_height, new_width), self.options.score)
        faces = vote(found, nms(found.boxes, found.scores, self.options.max_iou, self.options.max_faces))
        back = np.array([width / new_width, height / new_height], dtype=np.float32)
        corners = np.concatenate([back, back])
        return [
            Face(box=box * corners, landmarks=points * back, score=float(score))
            for box, points, score in zip(faces.boxes, faces.landmarks, faces.scores, strict=True)
        ]

    def scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) an image of this size is scaled to, see `DetectorOptions.long_side`."""
        scale = min(1.0, self.options.long_side / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the input that holds a scaled image: the next multiples of the model's stride."""
        stride = self._contract.stride
        return -(-height // stride) * stride, -(-width // stride) * stride

    def prepare(self, image: Image, height: int, width: int) -> Array:
        """The image at (height, width), with black on its right and below up to the stride, as a batch of one."""
        small = image
        if (height, width) != image.shape[:2]:
            # Area averaging keeps small faces that bilinear sampling would skip over; below a factor of two they agree.
            shrink = cv2.INTER_AREA if image.shape[0] > 2 * height else cv2.INTER_LINEAR
            small = cv2.resize(image, (width, height), interpolation=shrink)
        full_height, full_width = self.input_size(height, width)
        if (full_height, full_width) != (height, width):
            canvas = np.zeros((full_height, full_width, 3), np.uint8)
            canvas[:height, :width] = small
            small = canvas
        return to_model(small[None], self._contract)
