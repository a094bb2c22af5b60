"""One whole measurement of a bundle, as the JSON-ready report that pages, comparisons and tables are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import provenance
from benchmarks.accuracy import Evaluation, evaluate, load_evaluation, measure_drift
from benchmarks.frames import DEFAULT_FRAMES, Frames, load_frames
from benchmarks.interleave import Plan
from benchmarks.latency import (
    GALLERY_IDENTITIES,
    Work,
    measure_batches,
    measure_cold_start,
    measure_frames,
    prepare,
    summarise,
)
from benchmarks.overlap import check_overlap
from benchmarks.resources import measure_memory
from benchmarks.subjects import Choice, choose, opened
from benchmarks.verdict import Budget, certain_loss, judge
from edge.analyze import FaceAnalyzer
from edge.bundle import Bundle
from edge.metrics.intervals import Interval
from edge.types import Image

FORMAT = "arcedge-bench"
VERSION = 1
BATCHES = (1, 2, 4, 8, 16, 32)
_DRIFT_FACES = 400


@dataclass(frozen=True, slots=True)
class Inputs:
    """What to measure on. None and empty: not measured, or the default frames."""

    bundle: Path
    pairs: Path | None = None
    images: Path | None = None
    identities: Path | None = None
    video: Path | None = None
    pictures: tuple[Path, ...] = ()
    not_in: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure."""

    choice: Choice = field(default_factory=Choice)
    plan: Plan = field(default_factory=Plan)
    frames: int = DEFAULT_FRAMES
    batches: tuple[int, ...] = BATCHES
    own_detector: bool = False
    budget: Budget = field(default_factory=Budget)


Announce = Callable[[str], Callable[[float], None]]
"""Told the name of each long step; gives the function that is told the share of it done."""


def measure(inputs: Inputs, settings: Settings, announce: Announce) -> dict[str, Any]:
    """Everything, JSON-ready (`report/schema.json`). Raises an EdgeError for what cannot be measured."""
    cv2.setNumThreads(1)
    bundle = Bundle.open(inputs.bundle)
    subjects, missing = choose(bundle, settings.choice)
    evaluation = load_evaluation(inputs.pairs, inputs.images, inputs.identities)
    overlap = check_overlap(bundle, evaluation.digests if evaluation else {}, inputs.not_in)
    frames = load_frames(inputs.video, inputs.pictures, settings.frames)
    baseline = subjects[0].label
    before = provenance.Load.now()
    with opened(bundle, subjects) as analyzers:
        work = prepare(analyzers[baseline], frames.images)
        latency = _latency(analyzers, baseline, frames, work, settings, announce)
        # The load counts while time is measured; accuracy does not mind company.
        load = provenance.load_between(before, provenance.Load.now())
        latency["cold_start"] = measure_cold_start(bundle, subjects, frames.images[-1])
        latency["memory_mib"] = measure_memory(inputs.bundle, subjects)
        accuracy = _accuracy(analyzers, baseline, evaluation, work, settings, announce)
        variants = [
            {**subject.describe(analyzers[subject.label]), "engine_details": analyzers[subject.label].describe()}
            for subject in subjects
        ]
    warnings = [*missing, *_warnings(load, latency, overlap)]
    report: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "baseline": baseline,
        "variants": variants,
        "latency": latency,
        "accuracy": accuracy,
        "overlap": overlap,
        "warnings": warnings,
        "provenance": _provenance(bundle, load, settings),
        "microbenchmarks": None,
    }
    report["verdicts"] = verdicts(report, settings.budget)
    return report


def verdicts(report: Mapping[str, Any], budget: Budget) -> list[dict[str, Any]]:
    """Each variant against the baseline: whole frames for speed; pairs, else rank-1, for accuracy."""
    rows = []
    for variant in report["variants"]:
        label = variant["label"]
        if label == report["baseline"]:
            continue
        speedup = Interval(**report["latency"]["variants"][label]["speedup"]["frame"])
        loss, trials = _loss(report["accuracy"], label)
        points = None if loss is None else Interval(*(100 * value for value in (loss.value, loss.low, loss.high)))
        verdict = judge(label, report["baseline"], speedup, points, budget, trials).to_dict()
        rows.append({**verdict, "counted": trials, "notes": _notes(report["accuracy"]["identities"], label)})
    return rows


def _notes(identities: Mapping[str, Any] | None, label: str) -> list[str]:
    """What pairs of chosen pictures hide: certain losses of TAR where false accepts are rare, over all pairs."""
    if identities is None:
        return []
    return [
        certain_loss(f"TAR at FAR {row['far']:g}", Interval(**row["loss"]))
        for row in identities["variants"][label]["against_baseline"]["tar_loss"]
        if row["loss"] is not None and row["loss"]["low"] > 0
    ]


def _loss(accuracy: Mapping[str, Any], label: str) -> tuple[Interval | None, str]:
    if accuracy["pairs"]:
        return Interval(**accuracy["pairs"]["variants"][label]["against_baseline"]["loss"]), "pairs"
    if accuracy["identities"]:
        return Interval(**accuracy["identities"]["variants"][label]["against_baseline"]["rank_one_loss"]), "probes"
    return None, "pairs"


def _latency(
    analyzers: Mapping[str, FaceAnalyzer],
    baseline: str,
    frames: Frames,
    work: Sequence[Work],
    settings: Settings,
    announce: Announce,
) -> dict[str, Any]:
    measured = measure_frames(analyzers, work, settings.plan, announce("latency of frames"))
    figures = summarise(measured, baseline, settings.plan.seed)
    figures["frames"] = {
        **frames.describe(),
        "with_faces": len(work),
        "faces": sum(len(item.faces) for item in work),
        "decode": "JPEG, quality 90",
        "gallery": GALLERY_IDENTITIES,
        "long_side": settings.choice.long_side,
    }
    figures["threads"] = settings.choice.threads
    figures["batches"] = None
    if settings.batches:
        plan = Plan(seconds=settings.plan.seconds / 2, min_rounds=10, max_rounds=60, seed=settings.plan.seed)
        crops = crops_of(analyzers[baseline], work)
        figures["batches"] = measure_batches(analyzers, crops, settings.batches, plan, announce("batches"))
    return figures


def crops_of(reference: FaceAnalyzer, work: Sequence[Work], limit: int = _DRIFT_FACES) -> Image:
    """(N, 112, 112, 3) aligned crops of the frames' faces, at most about `limit`."""
    crops: list[Image] = []
    count = 0
    for item in work:
        image = np.asarray(cv2.imdecode(item.jpeg, cv2.IMREAD_COLOR), np.uint8)
        crops.append(reference.align(image, item.faces))
        count += len(item.faces)
        if count >= limit:
            break
    return np.concatenate(crops)


def _accuracy(
    analyzers: Mapping[str, FaceAnalyzer],
    baseline: str,
    evaluation: Evaluation | None,
    work: Sequence[Work],
    settings: Settings,
    announce: Announce,
) -> dict[str, Any]:
    seed = settings.plan.seed
    if evaluation is not None:
        return evaluate(analyzers, baseline, evaluation, settings.own_detector, seed, announce("accuracy"))
    crops = crops_of(analyzers[baseline], work)
    vectors = {label: analyzer.embed(crops) for label, analyzer in analyzers.items()}
    return {
        "faces": f"faces of the latency frames, detected and aligned once by {baseline}'s detector; for drift only",
        "pictures": 0,
        "without_face": {},
        "data_digest": None,
        "pairs": None,
        "identities": None,
        "drift": measure_drift(vectors, np.ones(len(crops), np.bool_), baseline, seed),
    }


def _warnings(load: Mapping[str, Any], latency: Mapping[str, Any], overlap: Mapping[str, Any]) -> list[str]:
    found = [provenance.load_warning(dict(load))]
    if not latency["settled"]:
        found.append(
            f"The end of the warm-up was not found within the first half of {latency['rounds'] + latency['warm_up']} "
            "rounds: the machine's speed changed while it was measured. Measure longer with --seconds."
        )
    if overlap["statement"] and not overlap["checked"]:
        found.append(overlap["statement"])
    return [line for line in found if line]


def _provenance(bundle: Bundle, load: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    return {
        "time": provenance.now(),
        "command": provenance.command_line(),
        "seed": settings.plan.seed,
        "machine": provenance.machine(),
        "load": dict(load),
        "versions": provenance.versions(),
        "energy": provenance.NOT_MEASURED,
        "bundle": {"digest": bundle.digest(), "provenance": bundle.manifest.provenance},
    }
