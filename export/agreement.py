"""How a variant agrees with what it was made from: embeddings by cosine, detections by overlap, landmarks and score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge.align import WIDE_96
from edge.contract import ModelContract
from edge.detect import Detector
from edge.engines import SessionOptions, open_session
from edge.model_input import to_model
from edge.types import Face, Floats, Image

_BATCH = 16
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class EmbeddingAgreement:
    """Cosine between a variant's embeddings and the reference's over `count` crops. on: which crops, in words."""

    mean_cosine: float
    min_cosine: float
    count: int
    on: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DetectionAgreement:
    """A variant's faces against the FP32 model's over `count` pictures.

    faces: of the FP32 model. matched: of them found at IoU ≥ 0.5; extra: found by the variant alone. mean_iou, over the
    matched; landmark_error: mean distance as a share of the distance between the eyes; score_change: mean absolute.
    """

    count: int
    faces: int
    matched: int
    extra: int
    mean_iou: float
    landmark_error: float
    score_change: float

    @property
    def figure(self) -> float:
        """One number for choosing: summed IoU over all faces either model found; 1 is perfect agreement."""
        total = self.faces + self.extra
        return self.mean_iou * self.matched / total if total else 1.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "figure": self.figure}


@dataclass(frozen=True, slots=True)
class LandmarkAgreement:
    """How far a variant places landmarks from the reference's over `count` faces; on: which faces, in words.

    Of a face the mean of five distances, as a share of the distance between the eyes.
    """

    mean_shift: float
    max_shift: float
    count: int
    on: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def landmarks_with(data: bytes, contract: ModelContract, views: Image) -> Floats:
    """(N, 5, 2) landmarks by a bundle's landmarker, pixels of views (N, 96, 96, 3) uint8 BGR; NaN where it failed."""
    with open_session(data, options=SessionOptions(threads=2)) as session:
        name, output = session.inputs[0].name, session.outputs[0].name
        parts = [
            session.run({name: to_model(views[i : i + _BATCH], contract)})[output] for i in range(0, len(views), _BATCH)
        ]
    points: Floats = (np.concatenate(parts).reshape(-1, 5, 2) + WIDE_96).astype(np.float32)
    return points


def compare_landmarks(variant: Floats, reference: Floats, on: str) -> LandmarkAgreement:
    """Both (N, 5, 2) of the same views; what is no number counts as an eye distance away."""
    eyes = np.linalg.norm(reference[:, 1] - reference[:, 0], axis=1)
    shifts = np.linalg.norm(variant.astype(np.float64) - reference, axis=2).mean(axis=1) / np.maximum(eyes, 1e-6)
    shifts = np.where(np.isfinite(shifts), shifts, 1.0)
    return LandmarkAgreement(round(float(shifts.mean()), 7), round(float(shifts.max()), 7), len(shifts), on)


def embed_with(data: bytes, contract: ModelContract, crops: Image) -> Floats:
    """(N, D) unit rows of a bundle's model for (N, H, W, 3) uint8 BGR crops.

    A model that rounding has ruined may give zeros or no numbers at all; such rows come out as zeros, so that it can be
    judged. The runtime's own embedder refuses them.
    """
    parts = list[Floats]()
    with open_session(data, options=SessionOptions(threads=2)) as session:
        name, output = session.inputs[0].name, session.outputs[0].name
        for i in range(0, len(crops), _BATCH):
            batch = to_model(crops[i : i + _BATCH], contract)
            parts.append(session.run({name: batch})[output].astype(np.float32))
    rows = np.concatenate(parts)
    rows[~np.isfinite(rows).all(axis=1)] = 0.0
    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _SMALLEST)
    return unit


def compare_embeddings(variant: Floats, reference: Floats, on: str) -> EmbeddingAgreement:
    """Both (N, D) rows of the same crops, of unit length, or zero where a model failed: that counts as cosine 0."""
    cosine = (variant.astype(np.float64) * reference.astype(np.float64)).sum(axis=1)
    lengths = np.linalg.norm(variant, axis=1).astype(np.float64) * np.linalg.norm(reference, axis=1)
    cosine /= np.maximum(lengths, _SMALLEST)
    return EmbeddingAgreement(round(float(cosine.mean()), 7), round(float(cosine.min()), 7), len(cosine), on)


def detect_with(data: bytes, contract: ModelContract, pictures: Sequence[Image]) -> list[list[Face]]:
    """Faces of each picture by a bundle's detector."""
    with open_session(data, options=SessionOptions(threads=2)) as session:
        detector = Detector(session, contract)
        return [detector.detect(picture) for picture in pictures]


def compare_detections(variant: Sequence[list[Face]], reference: Sequence[list[Face]]) -> DetectionAgreement:
    """Greedy one-to-one matches, best reference face first."""
    ious, distances, scores = list[float](), list[float](), list[float]()
    extra = 0
    for found, wanted in zip(variant, reference, strict=True):
        free = list(found)
        for face in wanted:
            if not free:
                break
            best = max(free, key=lambda other: _iou(face, other))
            overlap = _iou(face, best)
            if overlap < 0.5:
                continue
            free = [other for other in free if other is not best]
            eyes = float(np.linalg.norm(face.landmarks[0] - face.landmarks[1]))
            ious.append(overlap)
            distances.append(float(np.linalg.norm(face.landmarks - best.landmarks, axis=1).mean()) / max(eyes, 1e-6))
            scores.append(abs(face.score - best.score))
        extra += len(free)
    return DetectionAgreement(
        count=len(reference),
        faces=sum(map(len, reference)),
        matched=len(ious),
        extra=extra,
        mean_iou=_mean(ious),
        landmark_error=_mean(distances),
        score_change=_mean(scores),
    )


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 6) if values else 0.0


def _iou(a: Face, b: Face) -> float:
    low, high = np.maximum(a.box[:2], b.box[:2]), np.minimum(a.box[2:], b.box[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    union = a.width * a.height + b.width * b.height - shared
    return shared / union if union > 0 else 0.0
