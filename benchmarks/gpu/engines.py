"""Engines: latency through our runtime, the pure enqueue beside it, throughput, precision by layer, and accuracy."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from benchmarks.gpu.layers import int8_proof, layers_by_precision
from benchmarks.gpu.roofline import against_roofline, lost_to, traffic
from benchmarks.gpu.timing import LEAST_MS, device_times, figures
from benchmarks.provenance import NOT_MEASURED
from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
from edge.cuda.graphs import Recorded
from edge.embed import Embedder
from edge.engines.base import Array
from edge.engines.tensorrt import TensorRtEngine, TensorRtOptions
from edge.engines.tensorrt.engine import ReadyPlan
from edge.engines.tensorrt.session import TensorRtSession
from edge.errors import EngineError, InputError, MissingExtraError
from edge.manifest import Variant
from edge.metrics.pairs import images_of, read_pairs
from edge.metrics.verification import kfold_accuracy
from edge.pictures import read_picture
from edge.types import Image

SIDE = 640
"""Pixels of the pictures that models of any size get."""
LAYER_RUNS = 50
LEAST_ROUNDS = 200
"""So that there is a 99th percentile."""
MOST_SECONDS = 10.0
"""Of one figure, where more rounds were asked for than that."""


def describe_engine(ready: ReadyPlan, model: bytes) -> dict[str, Any]:
    """What an engine is, how it was built and proved, and which layers run in which precision; room for its batches."""
    identity, facts = ready.passport.identity, ready.passport.facts
    said = ready.layers()
    found: dict[str, Any] = {
        "precision": identity.precision,
        "tensorrt": identity.version,
        "profile": identity.profile,
        "build_seconds": facts["seconds"],
        "parity": facts["parity"],
        "layers_left_in_float": facts["in_float"],
        "layers_by_precision": layers_by_precision(said),
        "batches": {},
    }
    if identity.precision == "int8":
        found["int8"] = int8_proof(said, model, facts["in_float"])
    return found


def measure_batch(ready: ReadyPlan, batch: int, rounds: int) -> dict[str, Any]:
    """Figures of an engine at one batch size; of one it was not built for it says so."""
    session = ready.open()
    with session:
        low, high = session.range_of(session.inputs[0])
        if not low[0] <= batch <= high[0]:
            return {"not_measured": f"the engine was built for batches of {low[0]} to {high[0]}"}
        return {**_at_batch(ready, session, batch, rounds), "session": session.describe()}


def measured_batches(batches: Mapping[str, dict[str, Any]]) -> list[int]:
    """Those there are figures of."""
    return [int(batch) for batch, entry in batches.items() if "runtime" in entry]


def measure_best(
    ready: ReadyPlan, model: bytes, batches: Mapping[str, dict[str, Any]], bandwidth: float | None
) -> dict[str, Any]:
    """The best of an engine's batches, of a model of a fixed size. Raises EngineError where none was measured.

    bandwidth: bytes a second the device copies, which it is held against.
    """
    measured = {batch: batches[str(batch)] for batch in measured_batches(batches)}
    if not measured:
        raise EngineError("no batch was measured")
    return {**_at_best(ready, model, measured, bandwidth), "among": list(measured)}


def is_whole(best: Mapping[str, Any], batches: Mapping[str, dict[str, Any]]) -> bool:
    """Whether the best was chosen among all batches there are figures of, and held against what it can be held against:
    without onnx, that came later, there was no roofline.
    """
    lacks_roofline = str(best["roofline_faces_per_second"]).startswith(f"{NOT_MEASURED}:")
    return best["among"] == measured_batches(batches) and not (lacks_roofline and find_spec("onnx") is not None)


def _at_best(
    ready: ReadyPlan, model: bytes, measured: dict[int, dict[str, Any]], bandwidth: float | None
) -> dict[str, Any]:
    """The batch of most faces a second, held against the roofline, and where the rest of the time goes."""
    batch = max(measured, key=lambda each: _rate(measured[each]))
    try:
        needed = traffic(model)
        bound = against_roofline(measured[batch]["images_per_second_device"], needed["bytes"], bandwidth)
        bound["multiply_adds_a_face"] = needed["multiply_adds"]
    except MissingExtraError as error:  # a device has no onnx
        bound = {"roofline_faces_per_second": f"{NOT_MEASURED}: {error}"}
    session = ready.open()
    with session:
        times = session.layer_times(tuple(array.shape for array in random_feeds(session, batch).values()), LAYER_RUNS)
    entry = measured[batch]
    return {
        "batch": batch,
        "faces_per_second_runtime": entry["images_per_second_runtime"],
        "faces_per_second_device": entry["images_per_second_device"],
        **bound,
        "lost_to": lost_to(times),
    }


def _rate(entry: dict[str, Any]) -> float:
    found = entry["images_per_second_device"]
    return float(found if isinstance(found, float) else entry["images_per_second_runtime"])


def aligned_crops(bundle: Bundle, pairs: Path, images: Path) -> dict[PurePosixPath, Image]:
    """The crop of each picture that pairs in LFW's format name; faces found in FP32 by ONNX Runtime.

    Pictures without a face are left out. Raises InputError where a picture is missing or cannot be read.
    """
    crops: dict[PurePosixPath, Image] = {}
    with FaceAnalyzer(bundle, AnalyzerOptions(precision="fp32")) as analyzer:
        for name, path in images_of(read_pairs(pairs), images).items():
            image = read_picture(path)
            if (face := analyzer.main_face(image)) is not None:
                crops[name] = analyzer.align(image, [face])[0]
    return crops


def measure_accuracy(
    crops: Mapping[PurePosixPath, Image], ready: ReadyPlan, variant: Variant, pairs: Path
) -> dict[str, Any]:
    """Accuracy on pairs in LFW's format of crops that the engine embeds, 64 at a time. Raises InputError."""
    listed = read_pairs(pairs)
    kept = [pair for pair in listed if pair.first in crops and pair.second in crops]
    if not kept:
        raise InputError(f"{pairs}: no pair of it shows two faces")
    with ready.open() as session:
        embedder = Embedder(session, variant.contract)
        names = list(crops)
        rows = [embedder.embed(np.stack([crops[n] for n in names[i : i + 64]])) for i in range(0, len(names), 64)]
    vectors = dict(zip(names, np.concatenate(rows), strict=True))
    scores = np.array([float(vectors[pair.first] @ vectors[pair.second]) for pair in kept])
    result = kfold_accuracy(scores, np.array([p.same for p in kept]), np.array([p.fold for p in kept]))
    return {"pairs": len(kept), "without_a_face": len(listed) - len(kept), "accuracy": result.accuracy.to_dict()}


class WantedEngine:
    """An engine, built or found when it is first asked for. One that cannot be is not tried again: it takes minutes."""

    def __init__(self, load: Callable[[], ReadyPlan]) -> None:
        self._load = load
        self._ready: ReadyPlan | None = None
        self._failure: Exception | None = None

    def __call__(self) -> ReadyPlan:
        """The engine. Raises what its first loading raised."""
        self.require_not_failed()
        if self._ready is None:
            try:
                self._ready = self._load()
            except Exception as error:
                self._failure = error
                # Its frames would hold on to what was loaded by then, and that to memory of the GPU.
                traceback.clear_frames(error.__traceback__)
                raise
        return self._ready

    def require_not_failed(self) -> None:
        """Raises what loading raised, where it was tried."""
        if self._failure is not None:
            raise self._failure


def engine_for(options: TensorRtOptions, model: bytes) -> ReadyPlan:
    """Builds or finds it."""
    return TensorRtEngine(options).load(model)


def random_feeds(session: TensorRtSession, batch: int) -> dict[str, Array]:
    """Noise for every input, as many pictures as `batch`."""
    rng = np.random.default_rng(batch)
    return {
        spec.name: rng.integers(0, 256, (batch, *(size or SIDE for size in spec.shape[1:]))).astype(spec.dtype)
        for spec in session.inputs
    }


def _at_batch(ready: ReadyPlan, session: TensorRtSession, batch: int, rounds: int) -> dict[str, Any]:
    """runtime: wall time from memory of the host to memory of the host. pure_enqueue: wall time of the engine alone, as
    one CUDA graph on what lies on the device, until it is done. graph_with_copies: wall time of the very graph that the
    runtime starts, so that runtime over it is what our Python costs, and the rest over pure_enqueue are the copies.
    device: without the host, one run right behind another.
    """
    feeds = random_feeds(session, batch)
    for _ in range(5):
        session.run(feeds)
    prepared = session.prepare(tuple(feeds[spec.name].shape for spec in session.inputs))
    with ExitStack() as held:
        alone = Recorded(session.stream, lambda: session.enqueue(prepared))
        held.callback(alone.close)

        def pure() -> None:
            alone.start()
            session.stream.synchronize()

        def copying() -> None:
            prepared.run.start()
            session.stream.synchronize()

        for _ in range(5):
            pure()
        whole, enqueued, copied = list[float](), list[float](), list[float]()
        start = time.perf_counter()
        session.run(feeds)
        seconds = time.perf_counter() - start
        for _ in range(within_time(rounds, 3 * seconds)):  # in turns: a clock that changes changes all
            whole.append(_timed(lambda: session.run(feeds)))
            enqueued.append(_timed(pure))
            copied.append(_timed(copying))
        without = {"without_graph": alone.graphless} if alone.graphless else {}
    on_device = device_times(
        ready.loaded.device,
        session.stream,
        lambda: session.enqueue(prepared),
        within_time(rounds, 2 * max(seconds, LEAST_MS / 1e3)),
    )
    return {
        "cuda_graph": prepared.run.is_graph,
        "runtime": figures(whole),
        "pure_enqueue": {**figures(enqueued), **without},
        "graph_with_copies": figures(copied),
        "device": on_device.to_dict(),
        "runtime_over_enqueue": float(np.median(whole) / np.median(enqueued)),
        "runtime_over_graph": float(np.median(whole) / np.median(copied)),
        "images_per_second_runtime": 1e3 * batch / float(np.median(whole)),
        "images_per_second_device": 1e3 * batch / on_device.median if on_device.median > 0 else NOT_MEASURED,
    }


def _timed(work: Callable[[], object]) -> float:
    """Milliseconds it took."""
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def within_time(rounds: int, seconds: float) -> int:
    """As many of the rounds of so many seconds as MOST_SECONDS hold, but LEAST_ROUNDS of them."""
    return min(rounds, max(LEAST_ROUNDS, int(MOST_SECONDS / max(seconds, 1e-6))))
