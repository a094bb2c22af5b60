"""How long a frame takes, stage by stage, for every variant in one process, interleaved round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from benchmarks.interleave import Candidate, Measurement, Plan, Stopwatch, interleave, sum_of
from benchmarks.statistics import quantiles, speedup
from benchmarks.subjects import Subject
from edge.analyze import FaceAnalyzer
from edge.errors import InputError
from edge.gallery import Snapshot
from edge.matching import match
from edge.types import Face, Image

STAGES = ("decode", "detect", "align", "embed", "match")
GALLERY_IDENTITIES = 1000
JPEG_QUALITY = 90
MS = 1000.0

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Work:
    """A frame as a camera sends it (JPEG bytes), and the faces every variant aligns and embeds in it."""

    jpeg: Any
    faces: tuple[Face, ...]


def prepare(reference: FaceAnalyzer, images: Sequence[Image]) -> list[Work]:
    """The frames that show a face, with the faces the reference finds; those that show none are left out.

    Every variant detects for itself, but aligns and embeds the same faces: else a detector that misses one would look
    fast. Raises InputError where no frame shows a face.
    """
    work = []
    for image in images:
        faces = tuple(reference.detect(image))
        if faces:
            _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            work.append(Work(jpeg, faces))
    if not work:
        raise InputError(f"no face was found in the {len(images)} frames; give pictures or a video that show faces")
    return work


def decode(item: Work) -> Image:
    """The frame's pixels."""
    return np.asarray(cv2.imdecode(item.jpeg, cv2.IMREAD_COLOR), np.uint8)


def measure_frames(
    analyzers: Mapping[str, FaceAnalyzer], work: Sequence[Work], plan: Plan, progress: Progress | None = None
) -> Measurement:
    """All stages of a frame: round i takes frame i through every variant."""
    snapshots = {label: _gallery(analyzer.embedder.embedding_size) for label, analyzer in analyzers.items()}
    candidates = {label: _frame(analyzer, snapshots[label], work) for label, analyzer in analyzers.items()}
    return interleave(candidates, plan, progress)


def whole_frame(analyzer: FaceAnalyzer, work: Sequence[Work]) -> Callable[[int], None]:
    """Does every stage of frame i, untimed."""
    run = _frame(analyzer, _gallery(analyzer.embedder.embedding_size), work)
    return lambda i: run(i, Stopwatch())


def _frame(analyzer: FaceAnalyzer, snapshot: Snapshot, work: Sequence[Work]) -> Candidate:
    threshold = analyzer.threshold.similarity if analyzer.threshold else 0.4

    def run(round_: int, watch: Stopwatch) -> None:
        item = work[round_ % len(work)]
        image = watch.time("decode", lambda: decode(item))
        watch.time("detect", lambda: analyzer.detect(image))
        crops = watch.time("align", lambda: analyzer.align(image, item.faces))
        vectors = watch.time("embed", lambda: analyzer.embed(crops))
        watch.time("match", lambda: match(snapshot, vectors, threshold))

    return run


def _gallery(size: int) -> Snapshot:
    vectors = np.random.default_rng(0).normal(size=(GALLERY_IDENTITIES, size)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = tuple(f"person_{i:04d}" for i in range(GALLERY_IDENTITIES))
    return Snapshot(names, vectors, np.arange(GALLERY_IDENTITIES), 0)


def measure_batches(
    analyzers: Mapping[str, FaceAnalyzer],
    crops: Image,
    sizes: Sequence[int],
    plan: Plan,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Milliseconds a face by batch size. crops: (N, 112, 112, 3) uint8, repeated where a batch is larger."""
    batches = {size: np.ascontiguousarray(np.resize(crops, (size, *crops.shape[1:]))) for size in sizes}
    candidates = {
        f"{label} × {size}": _embed(analyzer, batches[size]) for label, analyzer in analyzers.items() for size in sizes
    }
    result = interleave(candidates, plan, progress)
    rows = {}
    for label in analyzers:
        rows[label] = [
            {
                "batch": size,
                "ms_per_face": quantiles(result.timings[f"{label} × {size}"].wall["embed"] * MS / size).to_dict(),
            }
            for size in sizes
        ]
    return {"sizes": list(sizes), "rounds": result.rounds, "warm_up": result.warm_up, "rows": rows}


def _embed(analyzer: FaceAnalyzer, batch: Image) -> Candidate:
    return lambda _, watch: watch.time("embed", lambda: analyzer.embed(batch))


def measure_cold_start(subjects: Sequence[Subject], image: Image, opens: int = 5) -> dict[str, Any]:
    """Milliseconds from bytes on disk to the first embedding: opening both models, then the first frame."""
    samples: dict[str, list[Stopwatch]] = {subject.label: [] for subject in subjects}
    random = np.random.default_rng(0)
    for _ in range(opens):
        for i in random.permutation(len(subjects)):
            samples[subjects[i].label].append(_cold_start(subjects[i], image))
    return {
        label: {
            "opens": opens,
            "open_ms": round(float(np.median([watch.wall["open"] for watch in watches])) * MS, 3),
            "first_frame_ms": round(float(np.median([watch.wall["first"] for watch in watches])) * MS, 3),
            "slowest_ms": round(max(sum(watch.wall.values()) for watch in watches) * MS, 3),
        }
        for label, watches in samples.items()
    }


def _cold_start(subject: Subject, image: Image) -> Stopwatch:
    watch = Stopwatch()
    analyzer: FaceAnalyzer = watch.time("open", subject.open)
    with analyzer:
        watch.time("first", lambda: analyzer.embed(analyzer.align(image, analyzer.detect(image)[:1])))
    return watch


def summarise(measurement: Measurement, baseline: str, seed: int = 0) -> dict[str, Any]:
    """JSON-ready: for each variant and stage quantiles in ms, processor time, samples of whole frames, speed-ups."""
    base = measurement.timings[baseline]
    variants = {}
    for label, timing in measurement.timings.items():
        total, models = sum_of(timing.wall), timing.wall["detect"] + timing.wall["embed"]
        stages = {name: _stage(timing.wall[name], timing.cpu[name], seed) for name in STAGES}
        variants[label] = {
            "frame": _stage(total, sum_of(timing.cpu), seed),
            "stages": stages,
            "samples_ms": {
                "frame": _rounded(total),
                "embed": _rounded(timing.wall["embed"]),
                "detect": _rounded(timing.wall["detect"]),
            },
            "speedup": {
                "frame": speedup(sum_of(base.wall), total, seed).to_dict(),
                "frame_cpu": speedup(sum_of(base.cpu), sum_of(timing.cpu), seed).to_dict(),
                "models": speedup(base.wall["detect"] + base.wall["embed"], models, seed).to_dict(),
                "detect": speedup(base.wall["detect"], timing.wall["detect"], seed).to_dict(),
                "embed": speedup(base.wall["embed"], timing.wall["embed"], seed).to_dict(),
            },
        }
    return {
        "rounds": measurement.rounds,
        "warm_up": measurement.warm_up,
        "settled": measurement.settled,
        "seconds": round(measurement.seconds, 2),
        "variants": variants,
    }


def _stage(wall: Any, cpu: Any, seed: int) -> dict[str, Any]:
    return {"wall_ms": quantiles(wall * MS, seed).to_dict(), "cpu_ms": round(float(np.median(cpu)) * MS, 4)}


def _rounded(seconds: Any) -> list[float]:
    return [round(float(value), 4) for value in seconds * MS]
