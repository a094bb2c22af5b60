"""A variant of the bundle in a peer's place, so that one code measures both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.peers.base import Stage
from edge.analyze import FaceAnalyzer
from edge.types import Face, Floats, Image


class OwnLine:
    """Detection, alignment and embedding as `edge run` does them: the faces of a frame in one batch."""

    stages: tuple[Stage, ...] = ("detect", "embed")

    def __init__(self, name: str, analyzer: FaceAnalyzer) -> None:
        self.name = name
        self._analyzer = analyzer
        self._options = analyzer.detector.options
        self.working_score = self._options.score

    def detect(self, image: Image, min_score: float | None = None) -> list[Face]:
        detector = self._analyzer.detector
        detector.options = self._options if min_score is None else replace(self._options, min_score=min_score)
        try:
            return self._analyzer.detect(image)
        finally:
            detector.options = self._options

    def embed(self, image: Image, faces: Sequence[Face]) -> Floats:
        return self._analyzer.embed(self._analyzer.align(image, faces))

    def describe(self) -> dict[str, Any]:
        return dict(self._analyzer.describe())

    def close(self) -> None:
        """The analyzer is its owner's to close."""
