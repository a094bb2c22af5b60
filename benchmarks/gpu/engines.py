"""Engines: latency through our runtime, the pure enqueue beside it, throughput, precision by layer, and accuracy."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.gpu.timing import device_times, figures
from benchmarks.provenance import NOT_MEASURED
from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
from edge.embed import Embedder
from edge.engines.base import Array
from edge.engines.tensorrt import TensorRtEngine
from edge.engines.tensorrt.engine import ReadyPlan
from edge.engines.tensorrt.session import TensorRtSession
from edge.manifest import Variant
from edge.metrics.pairs import read_pairs
from edge.metrics.verification import kfold_accuracy
from edge.types import Image

SIDE = 640


def tensorrt_variants(bundle: Bundle) -> list[Variant]:
    """The variants TensorRT takes: INT8 only where it was laid out for it."""
    return [v for v in bundle.manifest.variants if v.engine == "tensorrt" or v.precision != "int8"]


def measure_engine(ready: ReadyPlan, batches: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Figures of one engine at each batch size it was built for."""
    identity, facts = ready.passport.identity, ready.passport.facts
    found: dict[str, Any] = {
        "precision": identity.precision,
        "tensorrt": identity.version,
        "profile": identity.profile,
        "build_seconds": facts["seconds"],
        "parity": facts["parity"],
        "layers_left_in_float": facts["in_float"],
        "layers_by_precision": layers_by_precision(ready.layers()),
        "batches": {},
    }
    session = ready.open()
    with session:
        for batch in batches:
            feeds = _feeds(session, batch)
            low, high = session.range_of(session.inputs[0])
            if not low[0] <= batch <= high[0]:
                continue
            found["batches"][str(batch)] = _at_batch(ready, session, feeds, batch, rounds)
        found["session"] = session.describe()
    return found


def layers_by_precision(text: str) -> dict[str, int] | str:
    """How many layers give which type, from the engine inspector's JSON: proof that INT8 runs in INT8."""
    try:
        layers = json.loads(text)["Layers"]
        kinds = [layer["Outputs"][0].get("Format/Datatype", "?") for layer in layers if layer.get("Outputs")]
    except (ValueError, KeyError, TypeError, AttributeError):
        return NOT_MEASURED
    return dict(Counter(kinds)) or NOT_MEASURED


def measure_accuracy(bundle: Bundle, ready: ReadyPlan, variant: Variant, pairs: Path, images: Path) -> dict[str, Any]:
    """Accuracy on pairs in LFW's format: faces found and aligned in FP32 by ONNX Runtime, embedded by the engine."""
    crops: dict[Path, Image] = {}
    listed = read_pairs(pairs)
    with FaceAnalyzer(bundle, AnalyzerOptions(precision="fp32")) as analyzer:
        for path in sorted({images / name for pair in listed for name in (pair.first, pair.second)}):
            image = cv2.imread(str(path))
            if image is not None and (face := analyzer.main_face(image)) is not None:
                crops[path] = analyzer.align(image, [face])[0]
    with ready.open() as session:
        embedder = Embedder(session, variant.contract)
        names = list(crops)
        rows = [embedder.embed(np.stack([crops[n] for n in names[i : i + 64]])) for i in range(0, len(names), 64)]
    vectors = dict(zip(names, np.concatenate(rows), strict=True))
    kept = [pair for pair in listed if images / pair.first in vectors and images / pair.second in vectors]
    scores = np.array([float(vectors[images / p.first] @ vectors[images / p.second]) for p in kept])
    result = kfold_accuracy(scores, np.array([p.same for p in kept]), np.array([p.fold for p in kept]))
    return {"pairs": len(kept), "without_a_face": len(listed) - len(kept), "accuracy": result.accuracy.to_dict()}


def engine_for(options: Any, model: bytes) -> ReadyPlan:
    """Builds or finds it."""
    return TensorRtEngine(options).load(model)


def _feeds(session: TensorRtSession, batch: int) -> dict[str, Array]:
    rng = np.random.default_rng(batch)
    return {
        spec.name: rng.integers(0, 256, (batch, *(size or SIDE for size in spec.shape[1:]))).astype(spec.dtype)
        for spec in session.inputs
    }


def _at_batch(
    ready: ReadyPlan, session: TensorRtSession, feeds: dict[str, Array], batch: int, rounds: int
) -> dict[str, Any]:
    for _ in range(5):
        session.run(feeds)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        session.run(feeds)
        times.append(1e3 * (time.perf_counter() - start))
    prepared = session.prepare(tuple(feeds[spec.name].shape for spec in session.inputs))
    pure = device_times(ready.loaded.device, session.stream, lambda: session.enqueue(prepared), rounds, inner=10)
    median, enqueue = float(np.median(times)), float(np.median(pure))
    return {
        "runtime": figures(times),
        "pure_enqueue": figures(pure),
        "runtime_over_enqueue": median / enqueue if enqueue > 0 else NOT_MEASURED,
        "images_per_second_runtime": 1e3 * batch / median,
        "images_per_second_enqueue": 1e3 * batch / enqueue if enqueue > 0 else NOT_MEASURED,
    }
