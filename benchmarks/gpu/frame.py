"""A frame from host memory to names: through the GPU from the first byte on, also as NV12, and prepared on the CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import cv2
import numpy as np

from benchmarks.camera import scene
from benchmarks.gpu.timing import figures
from benchmarks.provenance import NOT_MEASURED
from edge.analyze import AnalyzerOptions, FaceAnalyzer, Preprocess
from edge.bundle import Bundle
from edge.detect import DetectorOptions
from edge.engines.tensorrt import TensorRtEngine, TensorRtOptions
from edge.gallery import Snapshot
from edge.gpu_gallery import GpuGallery
from edge.manifest import Variant
from edge.matching import matches_of
from edge.nv12 import Nv12
from edge.types import Floats, Image, Picture

FACES = 5
LEAST_SAMPLES = 200
MOMENTS = 16
"""Different frames, shown over and over."""
FIVE_AND_NO_MORE = DetectorOptions(min_score=0.7)
"""The five score 0.8 and more; at the default score one moment has a sixth, which is none."""
WAYS: tuple[Preprocess, ...] = ("gpu", "cpu")
PEOPLE = 10_000
"""In the gallery, a vector each."""
THRESHOLD = 0.4


def frame_precisions(bundle: Bundle) -> list[str]:
    """The precisions of which a bundle has both models."""
    both = {variant.precision for variant in bundle.variants("detector")}
    return list(dict.fromkeys(v.precision for v in bundle.variants("embedder") if v.precision in both))


def frame_variants(bundle: Bundle, precision: str) -> list[Variant]:
    """What a frame runs through. Raises BundleError."""
    both = [bundle.select(role, precision, "tensorrt") for role in ("detector", "embedder")]
    landmarker = bundle.landmarker(precision, "tensorrt")
    return both if landmarker is None else [*both, landmarker]


def measure_frame(
    bundle: Bundle,
    precision: str,
    size: tuple[int, int],
    rounds: int,
    people: int = PEOPLE,
    built: TensorRtOptions | None = None,
) -> dict[str, Any]:
    """Milliseconds of a frame of `size` (width, height) with five faces, wall time, each way. Raises EdgeError.

    The ways take turns: BGR through the GPU, NV12 through the GPU where the sides are even, BGR by the CPU around the
    models. A frame is searched, its faces are looked at by the landmarker if the bundle has one, cut, embedded together
    and named, of `people`; each frame alone, as the tracker would cost all ways the same. built: how the engines were,
    so that the very same are measured.
    """
    frames = [cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in scene(FACES, MOMENTS)]
    with ExitStack() as opened:
        if built is not None:
            opened.enter_context(_built_as(built))
        analyzers: dict[str, FaceAnalyzer] = {}
        for way in WAYS:
            options = AnalyzerOptions(precision, engine="tensorrt", preprocess=way, detector=FIVE_AND_NO_MORE)
            analyzers[way] = opened.enter_context(FaceAnalyzer(bundle, options))
        dimensions = analyzers["gpu"].embedder.embedding_size
        snapshot = crowd(people, dimensions, first_face(analyzers["cpu"], frames[0]))
        on_gpu = analyzers["gpu"].gpu_frames
        assert on_gpu is not None  # it was insisted on
        gallery = opened.enter_context(GpuGallery(on_gpu.device, dimensions))
        on_gpu.search_in(gallery)
        gallery.hold(snapshot)
        ways: dict[str, tuple[FaceAnalyzer, Sequence[Picture]]] = {
            way: (analyzer, frames) for way, analyzer in analyzers.items()
        }
        if size[0] % 2 == size[1] % 2 == 0:
            ways["gpu_nv12"] = analyzers["gpu"], [as_nv12(frame) for frame in frames]
        found = _take_turns(ways, snapshot, rounds)
        landmarker = analyzers["gpu"].landmarker_variant
        placing = {"landmarker": None if landmarker is None else landmarker.name}
        return {**found, **placing, "gallery": people, **gallery.describe(), "recorded": on_gpu.describe()}


@contextmanager
def _built_as(options: TensorRtOptions) -> Iterator[None]:
    """Engines that are opened by their name meanwhile are built and found with these options."""
    before = TensorRtEngine.defaults
    TensorRtEngine.defaults = options
    try:
        yield
    finally:
        TensorRtEngine.defaults = before


def crowd(people: int, dimensions: int, known: Floats) -> Snapshot:
    """A gallery of made-up people, one vector each, and somebody known, (1, D), at their end."""
    rows = np.random.default_rng(0).normal(size=(people, dimensions)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[-1] = known[0]
    return Snapshot(tuple(f"p{i}" for i in range(people)), rows, np.arange(people, dtype=np.intp), 1)


def first_face(analyzer: FaceAnalyzer, image: Image) -> Floats:
    """(1, D) of a frame's best face."""
    return analyzer.embed(analyzer.align(image, analyzer.detect(image)[:1]))


def as_nv12(image: Image) -> Nv12:
    """An image with even sides as a camera gives it."""
    height, width = image.shape[:2]
    planar = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    return Nv12(np.concatenate([planar[:height], planar[height:].reshape(2, -1).T.reshape(-1, width)]))


def _take_turns(
    ways: dict[str, tuple[FaceAnalyzer, Sequence[Picture]]], snapshot: Snapshot, rounds: int
) -> dict[str, Any]:
    times: dict[str, list[float]] = {way: [] for way in ways}
    found: list[int] = []
    named: dict[str, int] = dict.fromkeys(ways, 0)
    warm_up = max(3, rounds // 10)
    for turn in range(warm_up + rounds):
        for way, (analyzer, frames) in ways.items():
            image = frames[turn % len(frames)]
            began = time.perf_counter()
            faces = analyzer.detect(image)
            seen = analyzer.recognise(image, faces, THRESHOLD)
            matches = matches_of(seen.vectors, seen.sought, snapshot, THRESHOLD)
            if turn >= warm_up:
                times[way].append(1000 * (time.perf_counter() - began))
                found.append(len(faces))
                named[way] += sum(match.identity is not None for match in matches)
    return {
        "faces": {"least": min(found), "most": max(found)},
        "named": named,
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
