"""InsightFace's Python package, run as its documentation shows: `FaceAnalysis(...).prepare(...)`, then its two models.

`FaceAnalysis.get` detects, then takes the recogniser to one face after the other; `detect` and `embed` below are the
two halves of that loop, so that each can be timed.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.peers.base import PeerMissingError, PeerModels, Stage, file_entry, require
from benchmarks.peers.fold import with_normalisation_inside
from edge.types import Face, Floats, Image

# Its wheel asks for opencv-python, which is the same module as opencv-python-headless.
INSTALL = "pip install --no-deps insightface && pip install onnx scikit-image scipy requests"
SQUARE = (640, 640)
"""The detector's canvas in the package's own examples."""

WIDE = (640, 384)
"""A canvas that fits 16:9 frames: what somebody who measures would choose."""

PACK = "peer"


class InsightFace:
    """A FaceAnalysis over two local models, one thread each."""

    stages: tuple[Stage, ...] = ("detect", "embed")
    working_score = 0.5

    def __init__(self, name: str, models: PeerModels, canvas: tuple[int, int]) -> None:
        self.name = name
        self._canvas = canvas
        package = require(name, "insightface", INSTALL)
        app = require(name, "insightface.app", INSTALL)
        self._version = str(package.__version__)
        detector = models.find(name, "SCRFD with landmarks", "scrfd_500m*.onnx", "det_500m*.onnx", "scrfd*.onnx")
        embedder, contract = models.embedder(name)
        self._files = [file_entry(detector), file_entry(embedder)]
        self._folder = TemporaryDirectory()
        pack = Path(self._folder.name) / "models" / PACK
        pack.mkdir(parents=True)
        shutil.copy(detector, pack / "detection.onnx")
        (pack / "recognition.onnx").write_bytes(with_normalisation_inside(embedder, contract).SerializeToString())
        self._analysis = self._open(app)

    def _open(self, app: Any) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        # The package prints what it finds.
        with contextlib.redirect_stdout(io.StringIO()):
            analysis = app.FaceAnalysis(
                name=PACK,
                root=self._folder.name,
                allowed_modules=["detection", "recognition"],
                providers=["CPUExecutionProvider"],
                sess_options=options,
            )
            if set(analysis.models) != {"detection", "recognition"}:
                raise PeerMissingError(
                    f"{self.name}: the package does not take {self._files[1]['name']} for a recogniser"
                )
            analysis.prepare(ctx_id=0, det_thresh=self.working_score, det_size=self._canvas)
        return analysis

    def detect(self, image: Image, min_score: float | None = None) -> list[Face]:
        detector = self._analysis.det_model
        detector.det_thresh = self.working_score if min_score is None else min_score
        boxes, points = detector.detect(image, max_num=0, metric="default")
        return [
            Face(box[:4].astype(np.float32), marks.astype(np.float32), float(min(1.0, max(0.0, box[4]))))
            for box, marks in zip(boxes, points if points is not None else [], strict=True)
        ]

    def embed(self, image: Image, faces: Sequence[Face]) -> Floats:
        from insightface.app.common import Face as TheirFace

        recogniser = self._analysis.models["recognition"]
        rows = []
        for face in faces:
            theirs = TheirFace(bbox=face.box, kps=face.landmarks, det_score=face.score)
            recogniser.get(image, theirs)
            rows.append(theirs.normed_embedding)
        return np.array(rows, np.float32).reshape(len(rows), -1)

    def describe(self) -> dict[str, Any]:
        width, height = self._canvas
        return {
            "version": f"insightface {self._version}",
            "runs": f"FaceAnalysis with det_size=({width}, {height}), SCRFD and MobileFaceNet on ONNX Runtime, face by "
            "face; the recogniser's normalisation folded into its graph",
            "files": self._files,
        }

    def close(self) -> None:
        del self._analysis
        self._folder.cleanup()


def open_square(models: PeerModels) -> InsightFace:
    """As the package's examples have it."""
    return InsightFace("insightface", models, SQUARE)


def open_wide(models: PeerModels) -> InsightFace:
    """With a canvas for 16:9 frames."""
    return InsightFace("insightface-wide", models, WIDE)
