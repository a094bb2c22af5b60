"""The folder's MobileFaceNet as published, on an engine as its quick start has it: no pass of ours over the graph.

What export adds (uint8 input, normalisation inside, rewritten activations) is not there: pixels are prepared in numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.peers.base import PeerModels, Stage, file_entry, require, unit_rows
from edge.align import align
from edge.contract import ModelContract
from edge.errors import EngineError
from edge.model_input import to_model
from edge.types import Face, Floats, Image

Run = Callable[[Any], Any]
"""(N, 3, 112, 112) float32 → (N, D)."""


class Plain:
    """An embedder behind our alignment, on one thread."""

    stages: tuple[Stage, ...] = ("embed",)
    working_score = 1.0

    def __init__(self, name: str, version: str, run: Run, contract: ModelContract, file: dict[str, Any]) -> None:
        self.name = name
        self._version, self._run, self._contract, self._file = version, run, contract, file

    def detect(self, image: Image, min_score: float | None = None) -> list[Face]:
        raise EngineError(f"{self.name} is measured as an embedder alone")

    def embed(self, image: Image, faces: Sequence[Face]) -> Floats:
        rows = []
        for face in faces:
            # A batch of one is what the published file takes.
            batch = to_model(align(image, face.landmarks)[None], self._contract).astype(np.float32, copy=False)
            rows.append(np.array(self._run(batch), np.float32).reshape(-1))
        return unit_rows(rows)

    def describe(self) -> dict[str, Any]:
        return {
            "version": f"{self.name} {self._version}",
            "runs": "the published ONNX file face by face, prepared in numpy, behind our alignment; faces of the "
            "bundle's detector",
            "files": [self._file],
        }

    def close(self) -> None:
        self._run = _closed


def _closed(batch: Any) -> Any:
    raise EngineError("this peer is closed")


def open_onnxruntime(models: PeerModels) -> Plain:
    """ONNX Runtime with its defaults, but for one thread."""
    ort = require("onnxruntime", "onnxruntime", "pip install arcedge")
    file, contract = models.embedder("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    fed = session.get_inputs()[0].name
    return Plain(
        "onnxruntime", ort.__version__, lambda batch: session.run(None, {fed: batch})[0], contract, file_entry(file)
    )


def open_openvino(models: PeerModels) -> Plain:
    """OpenVINO with its defaults, but for one thread: where the CPU computes in bf16, that is what it does."""
    ov = require("openvino", "openvino", "pip install 'arcedge[openvino]'")
    file, contract = models.embedder("openvino")
    compiled = ov.compile_model(str(file), "CPU", {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"})
    return Plain("openvino", ov.__version__, lambda batch: compiled(batch)[0], contract, file_entry(file))
