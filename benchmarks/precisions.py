"""The precisions a bundle runs in, as --precision of a benchmark says: `int8`, or `int8/fp32` with an FP32 detector."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from edge.analyze import AnalyzerOptions
from edge.cli.options import PRECISIONS


@dataclass(frozen=True, slots=True)
class Precisions:
    """detector: None for the embedder's."""

    embedder: str
    detector: str | None = None

    @classmethod
    def parse(cls, text: str) -> Precisions:
        """An argument of a command. Raises ArgumentTypeError for what is none."""
        parts = text.split("/")
        if len(parts) > 2 or not set(parts) <= set(PRECISIONS):
            raise argparse.ArgumentTypeError(f"{text}: {', '.join(PRECISIONS)}, or two as in int8/fp32")
        return cls(*parts)

    def __str__(self) -> str:
        return self.embedder if self.detector is None else f"{self.embedder}/{self.detector}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of `edge run`."""
        more = () if self.detector is None else ("--detector-precision", self.detector)
        return "--precision", self.embedder, *more

    @property
    def options(self) -> AnalyzerOptions:
        """Of the models, on ONNX Runtime."""
        return AnalyzerOptions(precision=self.embedder, detector_precision=self.detector)
