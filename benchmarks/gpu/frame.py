"""A frame from host memory to embeddings: through the GPU from the first byte on, and prepared on the CPU, in turns."""

from __future__ import annotations

import time
from typing import Any

import cv2

from benchmarks.camera import scene
from benchmarks.gpu.timing import figures
from edge.analyze import AnalyzerOptions, FaceAnalyzer, Preprocess
from edge.bundle import Bundle
from edge.errors import EdgeError
from edge.types import Image

FACES = 5
MOMENTS = 16
"""Different frames, shown over and over."""
WAYS: tuple[Preprocess, ...] = ("gpu", "cpu")


def measure_frames(bundle: Bundle, size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """By precision: milliseconds of a frame of `size` (width, height) with five faces, wall time, both ways.

    A frame is searched, its faces are cut and embedded together; matching is not in it. What cannot be says why.
    """
    frames = [cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in scene(FACES, MOMENTS)]
    precisions = [
        variant.precision
        for variant in bundle.variants("embedder")
        if variant.precision in {other.precision for other in bundle.variants("detector")}
    ]
    return {precision: _measure(bundle, precision, frames, rounds) for precision in dict.fromkeys(precisions)}


def _measure(bundle: Bundle, precision: str, frames: list[Image], rounds: int) -> dict[str, Any]:
    analyzers: dict[str, FaceAnalyzer] = {}
    try:
        for way in WAYS:
            analyzers[way] = FaceAnalyzer(bundle, AnalyzerOptions(precision, engine="tensorrt", preprocess=way))
        return _take_turns(analyzers, frames, rounds)
    except EdgeError as error:
        return {"not_measured": str(error)}
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
        **{f"preprocess_{way}_ms": figures(values) for way, values in times.items()},
    }
