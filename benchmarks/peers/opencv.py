"""OpenCV's own face classes: FaceDetectorYN, and FaceRecognizerSF where a model for it is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from benchmarks.peers.base import PeerMissingError, PeerModels, Stage, file_entry, unit_rows
from benchmarks.peers.fold import with_normalisation_inside
from edge.types import Face, Floats, Image

LONG_SIDE = 640


class OpenCv:
    """FaceDetectorYN at a longer side of 640 pixels, its threshold and overlap as the class has them by default.

    FaceRecognizerSF aligns and embeds. It feeds raw RGB: besides SFace it takes any embedder with its normalisation
    inside, which is how the folder's MobileFaceNet is given to it.
    """

    name = "opencv"

    def __init__(self, models: PeerModels) -> None:
        detector = models.find(self.name, "YuNet for FaceDetectorYN", "face_detection_yunet*.onnx")
        self._detector = cv2.FaceDetectorYN.create(str(detector), "", (LONG_SIDE, LONG_SIDE))
        self.working_score = float(self._detector.getScoreThreshold())
        self._files = [file_entry(detector)]
        self._recogniser: Any = None
        self._runs = "FaceDetectorYN"
        self._folder = TemporaryDirectory()
        try:
            self._open_recogniser(models)
        except PeerMissingError:
            self._runs += "; no model for FaceRecognizerSF in the folder"
        self.stages: tuple[Stage, ...] = ("detect", "embed") if self._recogniser is not None else ("detect",)

    def _open_recogniser(self, models: PeerModels) -> None:
        try:
            file = models.find(self.name, "SFace", "face_recognition_sface*.onnx")
            opened = file
            self._runs += ", FaceRecognizerSF with SFace, face by face"
        except PeerMissingError:
            file, contract = models.embedder(self.name)
            opened = Path(self._folder.name) / "recognition.onnx"
            opened.write_bytes(with_normalisation_inside(file, contract).SerializeToString())
            self._runs += ", FaceRecognizerSF with MobileFaceNet, face by face; its normalisation folded into its graph"
        self._files.append(file_entry(file))
        self._recogniser = cv2.FaceRecognizerSF.create(str(opened), "")

    def detect(self, image: Image, min_score: float | None = None) -> list[Face]:
        self._detector.setScoreThreshold(self.working_score if min_score is None else min_score)
        height, width = image.shape[:2]
        scale = min(1.0, LONG_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        self._detector.setInputSize(size)
        _, rows = self._detector.detect(cv2.resize(image, size) if scale < 1.0 else image)
        if rows is None:
            return []
        back = np.array([width / size[0], height / size[1]], np.float32)
        return [_face(row, back) for row in rows if np.isfinite(row).all()]

    def embed(self, image: Image, faces: Sequence[Face]) -> Floats:
        rows = []
        for face in faces:
            x1, y1, x2, y2 = face.box
            row = np.concatenate([[x1, y1, x2 - x1, y2 - y1], face.landmarks.reshape(-1), [face.score]])
            crop = self._recogniser.alignCrop(image, row.astype(np.float32)[None])
            rows.append(self._recogniser.feature(crop).reshape(-1))
        return unit_rows(rows)

    def describe(self) -> dict[str, Any]:
        return {"version": f"opencv {cv2.__version__}", "runs": self._runs, "files": self._files}

    def close(self) -> None:
        del self._detector, self._recogniser
        self._folder.cleanup()


def _face(row: Floats, back: Floats) -> Face:
    """A row of FaceDetectorYN: x y w h, five landmarks, score."""
    corner, size = row[:2], row[2:4]
    box = np.concatenate([corner * back, (corner + size) * back]).astype(np.float32)
    return Face(box, (row[4:14].reshape(5, 2) * back).astype(np.float32), float(min(1.0, max(0.0, row[14]))))


def open_peer(models: PeerModels) -> OpenCv:
    """OpenCV comes with arcedge; only the models may be missing."""
    return OpenCv(models)
