"""Each stage of a frame, by precision where a model is in it."""

# ruff: noqa: D103 - the name of a benchmark says what it measures

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from edge.analyze import FaceAnalyzer
from edge.types import Image

Benchmark = Any


@pytest.mark.benchmark(group="frame")
def test_decode_jpeg(benchmark: Benchmark, frame: Image) -> None:
    _, jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])
    image = benchmark(cv2.imdecode, jpeg, cv2.IMREAD_COLOR)
    assert image.shape == frame.shape


@pytest.mark.benchmark(group="frame")
def test_detect(benchmark: Benchmark, analyzer: FaceAnalyzer, frame: Image) -> None:
    assert len(benchmark(analyzer.detect, frame)) == 2


@pytest.mark.benchmark(group="frame")
def test_align(benchmark: Benchmark, analyzer: FaceAnalyzer, frame: Image) -> None:
    faces = analyzer.detect(frame)
    assert benchmark(analyzer.align, frame, faces).shape == (2, 112, 112, 3)


@pytest.mark.benchmark(group="embed")
@pytest.mark.parametrize("batch", [1, 8])
def test_embed(benchmark: Benchmark, analyzer: FaceAnalyzer, frame: Image, batch: int) -> None:
    crops = np.resize(analyzer.align(frame, analyzer.detect(frame)), (batch, 112, 112, 3))
    assert len(benchmark(analyzer.embed, crops)) == batch
