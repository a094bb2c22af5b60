"""A frame from host memory to embeddings: through the GPU from the first byte on, and prepared on the CPU, in turns."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np

from benchmarks.camera import scene
from benchmarks.gpu.timing import figures
from benchmarks.provenance import NOT_MEASURED
from edge.analyze import AnalyzerOptions, FaceAnalyzer, Preprocess
from edge.bundle import Bundle
from edge.detect import DetectorOptions
from edge.types import Image

FACES = 5
LEAST_SAMPLES = 200
MOMENTS = 16
"""Different frames, shown over and over."""
FIVE_AND_NO_MORE = DetectorOptions(min_score=0.7)
"""The five score 0.8 and more; at the default score one moment has a sixth, which is none."""
WAYS: tuple[Preprocess, ...] = ("gpu", "cpu")


def frame_precisions(bundle: Bundle) -> list[str]:
    """The precisions of which a bundle has both models."""
    both = {variant.precision for variant in bundle.variants("detector")}
    return list(dict.fromkeys(v.precision for v in bundle.variants("embedder") if v.precision in both))


def measure_frame(bundle: Bundle, precision: str, size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Milliseconds of a frame of `size` (width, height) with five faces, wall time, both ways. Raises EdgeError.

    A frame is searched, its faces are cut and embedded together; matching is not in it.
    """
    frames = [cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in scene(FACES, MOMENTS)]
    analyzers: dict[str, FaceAnalyzer] = {}
    try:
        for way in WAYS:
            options = AnalyzerOptions(precision, engine="tensorrt", preprocess=way, detector=FIVE_AND_NO_MORE)
            analyzers[way] = FaceAnalyzer(bundle, options)
        return _take_turns(analyzers, frames, rounds)
    finally:
        for analyzer in analyzers.values():
            analyzer.close()


def _take_turns(analyzers: dict[str, FaceAnalyzer], frames: list[Image], rounds: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {way: [] for way in analyzers}
    found: list[int] = []
    warm_up = max(3, rounds // 10)
    for turn in range(warm_up + rounds):
        image = frames[turn % len(frames)]
        for way, analyzer in analyzers.items():
            began = time.perf_counter()
            faces = analyzer.detect(image)
            analyzer.embed(analyzer.align(image, faces))
            if turn >= warm_up:
                times[way].append(1000 * (time.perf_counter() - began))
                found.append(len(faces))
    return {
        "faces": {"least": min(found), "most": max(found)},
        **{
            f"preprocess_{way}_ms": {**figures(values), "p99_over_p50": _spread(values)}
            for way, values in times.items()
        },
    }


def _spread(values: list[float]) -> float | str:
    """How far the slowest of a hundred is from the middle; of too few samples it is not said."""
    if len(values) < LEAST_SAMPLES:
        return NOT_MEASURED
    return float(np.quantile(values, 0.99) / np.median(values))
