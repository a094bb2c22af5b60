"""Tencent's ncnn with a MobileFaceNet of its own format; an embedder alone, behind our alignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.peers.base import PeerModels, Stage, file_entry, require, unit_rows
from edge.align import align
from edge.errors import EngineError
from edge.types import Face, Floats, Image

INSTALL = "pip install 'arcedge[peers]'"


class Ncnn:
    """A .param and .bin pair that takes RGB 0-255 of 112×112, with its normalisation inside, as InsightFace's has."""

    name = "ncnn"
    stages: tuple[Stage, ...] = ("embed",)
    working_score = 1.0

    def __init__(self, models: PeerModels) -> None:
        self._ncnn = require(self.name, "ncnn", INSTALL)
        param = models.find(self.name, "MobileFaceNet for ncnn, .param and .bin", "*mobilefacenet*.param")
        weights = models.find(self.name, f"the weights of {param.name}", param.with_suffix(".bin").name)
        self._files = [file_entry(param), file_entry(weights)]
        self._net = self._ncnn.Net()
        self._net.opt.num_threads = 1
        if self._net.load_param(str(param)) != 0 or self._net.load_model(str(weights)) != 0:
            raise EngineError(f"ncnn refuses {param.name}; bring a pair of files that belong together")
        self._input, self._output = self._net.input_names()[0], self._net.output_names()[-1]

    def detect(self, image: Image, min_score: float | None = None) -> list[Face]:
        raise EngineError("ncnn is measured as an embedder alone")

    def embed(self, image: Image, faces: Sequence[Face]) -> Floats:
        rows = []
        for face in faces:
            crop = align(image, face.landmarks)
            pixels = self._ncnn.Mat.from_pixels(crop, self._ncnn.Mat.PixelType.PIXEL_BGR2RGB, 112, 112)
            extractor = self._net.create_extractor()
            extractor.input(self._input, pixels)
            status, found = extractor.extract(self._output)
            if status != 0:
                raise EngineError(f"ncnn failed with status {status}")
            rows.append(np.array(found, np.float32).reshape(-1))
        return unit_rows(rows)

    def describe(self) -> dict[str, Any]:
        return {
            "version": f"ncnn {self._ncnn.__version__}",
            "runs": "MobileFaceNet face by face behind our alignment; faces of the bundle's detector",
            "files": self._files,
        }

    def close(self) -> None:
        self._net.clear()


def open_peer(models: PeerModels) -> Ncnn:
    """See the module."""
    return Ncnn(models)
