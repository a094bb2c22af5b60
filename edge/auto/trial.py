"""One engine tried on one bundle: whether it computes the same, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge.align import WIDE_96_EYES, widen
from edge.bundle import Bundle
from edge.engines import Array, Session, SessionOptions, open_session
from edge.manifest import Variant
from edge.probes import synthetic_crops, synthetic_scenes
from edge.selftest import require_faithful
from edge.types import Image

CROPS = 8
SCENES = 2
ROUNDS = 15
WARM_UP = 12
"""Rounds of a race that do not count: OpenVINO compiles a model for a size that it has seen ten times."""

LEAST_COSINE = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.9}
"""Of an engine's embeddings to FP32's, mean over the probes.

Eight bits lose more on the probes than on faces (default weights: 0.968 against 0.985 on ONNX Runtime, 0.976 against
0.990 on OpenVINO), so this bound tells an engine that computes something else; what eight bits cost, export measured.
"""

MOST_ERROR = {"fp32": 1e-3, "fp16": 0.02, "int8": 0.35}
"""Of a detector's heads: norm of the difference as a share of the norm of FP32's, the worst of class, box, landmarks.

The default detector: 4e-7, 3e-3 and 0.15 on the probes.
"""

MOST_SHIFT = {"fp32": 1e-3, "fp16": 5e-3, "int8": 0.02}
"""Of a landmarker's landmarks from FP32's, mean over the probes, as a share of the eye distance, by the precision of
the detector it goes with: an engine that computes eight bits may compute what is left in half precision."""

Entry = tuple[str, str]
"""Engine, and precision of its detector."""

HEADS = ("cls", "bbox", "kps")
"""Objectness is left out: where a scene holds no real face it is near 0, and its share says nothing."""


@dataclass(frozen=True, slots=True)
class Probes:
    """crops: (N, 112, 112, 3), scenes: (M, 480, 640, 3), views: (N, 96, 96, 3) for a landmarker, all uint8 BGR."""

    crops: Image
    scenes: Image
    views: Image

    @classmethod
    def make(cls) -> Probes:
        """The same ones every time."""
        crops = synthetic_crops(CROPS)
        return cls(crops, synthetic_scenes(SCENES), widen(crops))


@dataclass(frozen=True, slots=True)
class Outputs:
    """What an engine gives for the probes.

    embeddings: (N, D) unit rows; heads: a detector's outputs by name; shifts: (N, 10) of a landmarker, (0, 10) without.
    """

    embeddings: Array
    heads: Mapping[str, Array]
    shifts: Array


class Opened:
    """A bundle's models, opened on one engine; the embedder may be left out."""

    def __init__(
        self, bundle: Bundle, engine: str, precision: str | None, options: SessionOptions, *, embedder: bool = True
    ) -> None:
        self.embedder: Session | None = None
        self._variants: list[tuple[Session, Variant]] = []
        if embedder:
            chosen = bundle.select("embedder", precision, engine)
            precision = chosen.precision
            self.embedder = open_session(bundle.load(chosen), engine, options)
            self._variants.append((self.embedder, chosen))
        there = {variant.precision for variant in bundle.variants("detector")}
        self.landmarker: Session | None = None
        try:
            detector = bundle.select("detector", precision if precision in there else None, engine)
            self.precisions = precision or detector.precision, detector.precision
            self.detector: Session = open_session(bundle.load(detector), engine, options)
            self._variants.append((self.detector, detector))
            if (landmarker := bundle.landmarker(detector.precision, engine)) is not None:
                self.landmarker = open_session(bundle.load(landmarker), engine, options)
                self._variants.append((self.landmarker, landmarker))
        except BaseException:
            self.close()
            raise

    def require_faithful(self, engine: str) -> None:
        """Raises EngineError where a model's self-test refuses it, as opening it for work would."""
        for session, variant in self._variants:
            require_faithful(session, variant, engine)

    def outputs(self, probes: Probes) -> Outputs:
        """Runs all on the probes; without an embedder there are no embeddings, (0, 0)."""
        heads = [self.detector.run({self.detector.inputs[0].name: scene[None]}) for scene in probes.scenes]
        joined = {key: np.concatenate([one[key].reshape(-1) for one in heads]) for key in heads[0]}
        shifts = np.zeros((0, 10)) if self.landmarker is None else _rows(self.landmarker, probes.views)
        if self.embedder is None:
            return Outputs(np.zeros((0, 0)), joined, shifts)
        rows = _rows(self.embedder, probes.crops)
        return Outputs(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), joined, shifts)

    def milliseconds(self, probes: Probes) -> tuple[float, float]:
        """One frame with one face, once: of detector and landmarker, and of the embedder, 0 where it was left out."""
        start = time.perf_counter()
        self.detector.run({self.detector.inputs[0].name: probes.scenes[:1]})
        if self.landmarker is not None:
            self.landmarker.run({self.landmarker.inputs[0].name: probes.views[:1]})
        middle = time.perf_counter()
        if self.embedder is not None:
            self.embedder.run({self.embedder.inputs[0].name: probes.crops[:1]})
        return 1000 * (middle - start), 1000 * (time.perf_counter() - middle)

    def close(self) -> None:
        """Closes what is open."""
        for session, _ in self._variants:
            session.close()


def _rows(session: Session, pictures: Image) -> Array:
    """(N, D) float64: the first output for each picture, in batches as the model takes them."""
    step = session.inputs[0].shape[0] or len(pictures)
    name, output = session.inputs[0].name, session.outputs[0].name
    parts = [session.run({name: pictures[i : i + step]})[output] for i in range(0, len(pictures), step)]
    return np.concatenate(parts).astype(np.float64)


def cosine(given: Outputs, wanted: Outputs) -> float:
    """Mean cosine of the embeddings; -1 where values are not finite or have another shape."""
    if given.embeddings.shape != wanted.embeddings.shape or not np.isfinite(given.embeddings).all():
        return -1.0
    return float((given.embeddings * wanted.embeddings).sum(axis=1).mean())


def head_error(given: Outputs, wanted: Outputs) -> float:
    """Relative error of the worst of HEADS; infinite where values are not finite or have another shape."""
    worst = 0.0
    for kind in HEADS:
        names = sorted(name for name in wanted.heads if name.startswith(kind))
        if any(name not in given.heads or given.heads[name].shape != wanted.heads[name].shape for name in names):
            return float("inf")
        a = np.concatenate([given.heads[name] for name in names]).astype(np.float64)
        b = np.concatenate([wanted.heads[name] for name in names]).astype(np.float64)
        error = float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-12))
        worst = max(worst, error if np.isfinite(error) else float("inf"))
    return worst


def shift(given: Outputs, wanted: Outputs) -> float:
    """How far landmarks are from FP32's, mean, shares of the eye distance; infinite where values are not finite."""
    if given.shifts.shape != wanted.shifts.shape or not np.isfinite(given.shifts).all():
        return float("inf")
    apart = np.linalg.norm((given.shifts - wanted.shifts).reshape(-1, 5, 2), axis=2)
    return float(apart.mean() / WIDE_96_EYES) if apart.size else 0.0


def race(opened: Mapping[Entry, Opened], probes: Probes) -> dict[Entry, tuple[float, float]]:
    """Median milliseconds of detector and embedder for one frame with one face, by who takes part.

    They take turns, so that a busy moment hits all alike.
    """
    times: dict[Entry, list[tuple[float, float]]] = {name: [] for name in opened}
    order: Sequence[Entry] = list(opened)
    for turn in range(WARM_UP + ROUNDS):
        for name in order if turn % 2 else reversed(order):
            spent = opened[name].milliseconds(probes)
            if turn >= WARM_UP:
                times[name].append(spent)
    medians = {name: np.median(np.array(spent), axis=0) for name, spent in times.items()}
    return {name: (float(both[0]), float(both[1])) for name, both in medians.items()}
