"""One whole measurement of bundles and peers, as the JSON-ready report that all pages and tables are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import cv2
import numpy as np

from benchmarks import provenance
from benchmarks.accuracy import Evaluation, evaluate, load_evaluation, measure_drift
from benchmarks.accuracy.detection import Labelled, measure_detection
from benchmarks.detection import read_truth
from benchmarks.energy import find_meters
from benchmarks.energy.measure import measure_energy
from benchmarks.frames import load_frames
from benchmarks.honesty import refuse_debug, tracer_warning
from benchmarks.interleave import Plan
from benchmarks.latency import (
    GALLERY_IDENTITIES,
    Work,
    decode,
    measure_batches,
    measure_cold_start,
    measure_frames,
    prepare,
    summarise,
    whole_frame,
)
from benchmarks.overlap import check_overlap
from benchmarks.peers.measure import measure_latency, measure_pairs
from benchmarks.peers.opening import open_peers
from benchmarks.peers.words import sentences
from benchmarks.report import FORMAT, VERSION
from benchmarks.resources import measure_memory
from benchmarks.scene import Announce, Inputs, Scene, Settings
from benchmarks.scrfd import Scrfd
from benchmarks.subjects import choose_all, name_of, open_bundles, opened
from benchmarks.sweeps import StreamsPlan, measure_streams, measure_threads, stream_counts, thread_counts
from benchmarks.verdicts import verdicts
from edge.analyze import FaceAnalyzer
from edge.bundle import Bundle
from edge.types import Image

_DRIFT_FACES = 400


def measure(inputs: Inputs, settings: Settings, announce: Announce) -> dict[str, Any]:
    """Everything, JSON-ready (`report/schema.json`). Raises an EdgeError for what cannot be measured."""
    refuse_debug()
    cv2.setNumThreads(1)
    bundles = open_bundles(inputs.bundles)
    subjects, missing = choose_all(bundles, settings.choice)
    evaluation = load_evaluation(inputs.pairs, inputs.images, inputs.identities)
    overlap = _overlap(bundles, evaluation, inputs)
    frames = load_frames(inputs.video, inputs.pictures, settings.frames, settings.height)
    with ExitStack() as stack:
        analyzers = stack.enter_context(opened(subjects))
        peers, peers_missing = stack.enter_context(open_peers(inputs.peers, inputs.peer_models))
        work = prepare(analyzers[subjects[0].label], frames.images)
        scene = Scene(subjects, analyzers, peers, frames, work, settings, announce)
        # The load counts while time is measured; accuracy does not mind company.
        before = provenance.Load.now()
        latency, peer_latency = _latency(scene), _peer_latency(scene)
        load = provenance.load_between(before, provenance.Load.now())
        latency["cold_start"] = measure_cold_start(subjects, frames.images[-1])
        latency["memory_mib"] = measure_memory(subjects)
        accuracy = _accuracy(scene, evaluation)
        detection = _detection(scene, evaluation, inputs)
        peer_report = _peers(scene, evaluation, peer_latency, detection, peers_missing) if inputs.peers else None
        variants = [
            {**subject.describe(analyzers[subject.label]), "engine_details": analyzers[subject.label].describe()}
            for subject in subjects
        ]
    report: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "baseline": scene.baseline,
        "variants": variants,
        "latency": latency,
        "accuracy": accuracy,
        "detection": detection,
        "peers": peer_report,
        "overlap": overlap,
        "warnings": [*missing, *peers_missing, *_warnings(load, latency, overlap)],
        "provenance": _provenance(bundles, load, latency, settings),
        "microbenchmarks": None,
    }
    report["verdicts"] = verdicts(report, settings.budget)
    return report


def _overlap(bundles: Sequence[Bundle], evaluation: Evaluation | None, inputs: Inputs) -> dict[str, Any]:
    """Of every picture that accuracy is measured on: pairs, identities and pictures with true boxes."""
    paths = dict(evaluation.named) if evaluation else {}
    digests = dict(evaluation.digests) if evaluation else {}
    if inputs.faces is not None:
        labelled = {f"{inputs.faces.name}/{path.name}": path for path, _ in read_truth(inputs.faces)}
        paths |= labelled
        digests |= provenance.digest_of_files(labelled.items())[1]
    return check_overlap(bundles, digests, paths, inputs.not_in)


def _latency(scene: Scene) -> dict[str, Any]:
    settings, seed = scene.settings, scene.settings.plan.seed
    measured = measure_frames(scene.analyzers, scene.work, settings.plan, scene.announce("latency of frames"))
    figures = summarise(measured, scene.baseline, seed)
    figures["frames"] = {
        **scene.frames.describe(),
        "with_faces": len(scene.work),
        "faces": sum(len(item.faces) for item in scene.work),
        "decode": "JPEG, quality 90",
        "gallery": GALLERY_IDENTITIES,
        "long_side": settings.choice.long_side,
    }
    figures["threads"] = settings.choice.threads
    figures["batches"] = figures["threads_sweep"] = figures["streams"] = figures["energy"] = None
    shorter = Plan(seconds=settings.plan.seconds / 2, min_rounds=10, max_rounds=60, seed=seed)
    if settings.batches:
        crops = crops_of(scene.analyzers[scene.baseline], scene.work)
        figures["batches"] = measure_batches(
            scene.analyzers, crops, settings.batches, shorter, scene.announce("batches")
        )
    if settings.sweeps:
        figures["threads_sweep"] = measure_threads(
            scene.subjects, thread_counts(), scene.work, shorter, scene.announce("threads")
        )
        figures["streams"] = measure_streams(
            scene.subjects,
            stream_counts(),
            scene.work,
            _streams_plan(settings.plan.seconds, len(scene.subjects)),
            seed,
            scene.announce("streams"),
        )
        figures["energy"] = _energy(scene)
    return figures


def _streams_plan(seconds: float, subjects: int) -> StreamsPlan:
    """Slices as long as the time for frames allows, all streams taking about as long as the frames did."""
    slices = StreamsPlan().slices
    return StreamsPlan(slices, min(0.7, max(0.02, seconds / (slices * subjects * len(stream_counts())))))


def _energy(scene: Scene) -> dict[str, Any]:
    meters, missing = find_meters()
    frames = {label: whole_frame(analyzer, scene.work) for label, analyzer in scene.analyzers.items()}
    return measure_energy(frames, meters, missing, scene.settings.plan.seed, progress=scene.announce("energy"))


def _peer_latency(scene: Scene) -> dict[str, Any] | None:
    if not scene.peers:
        return None
    work = [(decode(item), item.faces) for item in scene.work]
    return measure_latency(
        scene.lines(), scene.baseline, work, scene.settings.plan, scene.announce("latency beside peers")
    )


def _peers(
    scene: Scene,
    evaluation: Evaluation | None,
    latency: Mapping[str, Any] | None,
    detection: Mapping[str, Any] | None,
    missing: Sequence[str],
) -> dict[str, Any]:
    pairs = None
    if latency is not None and evaluation is not None and evaluation.pairs:
        progress = scene.announce("pairs beside peers")
        # The other variants' pairs stand under accuracy; peers are compared with the baseline.
        lines = {name: line for name, line in scene.lines().items() if name == scene.baseline or name in scene.peers}
        pairs = measure_pairs(lines, scene.baseline, evaluation, progress, scene.settings.plan.seed)
    return {
        "described": {name: dict(peer.describe()) for name, peer in scene.peers.items()},
        "missing": list(missing),
        "latency": latency,
        "pairs": pairs,
        "sentences": []
        if latency is None
        else [sentences(name, scene.baseline, latency, pairs, detection) for name in scene.peers],
    }


def crops_of(reference: FaceAnalyzer, work: Sequence[Work], limit: int = _DRIFT_FACES) -> Image:
    """(N, 112, 112, 3) aligned crops of the frames' faces, at most about `limit`."""
    crops: list[Image] = []
    count = 0
    for item in work:
        crops.append(reference.align(decode(item), item.faces))
        count += len(item.faces)
        if count >= limit:
            break
    return np.concatenate(crops)


def _accuracy(scene: Scene, evaluation: Evaluation | None) -> dict[str, Any]:
    seed, baseline = scene.settings.plan.seed, scene.baseline
    references = {subject.label: subject.reference for subject in scene.subjects}
    if evaluation is not None:
        progress = scene.announce("accuracy")
        return evaluate(scene.analyzers, references, evaluation, scene.settings.own_detector, seed, progress)
    crops = crops_of(scene.analyzers[baseline], scene.work)
    vectors = {label: analyzer.embed(crops) for label, analyzer in scene.analyzers.items()}
    return {
        "faces": f"faces of the latency frames, detected and aligned once by {baseline}'s detector; for drift only",
        "pictures": 0,
        "without_face": {},
        "data_digest": None,
        "pairs": None,
        "identities": None,
        "drift": measure_drift(vectors, np.ones(len(crops), np.bool_), references, seed),
    }


def _detection(scene: Scene, evaluation: Evaluation | None, inputs: Inputs) -> dict[str, Any] | None:
    if inputs.faces is None:
        return None
    reference = Scrfd(inputs.landmarks) if inputs.landmarks is not None else None
    portraits = tuple(evaluation.paths()) if evaluation else ()
    labelled = Labelled(inputs.faces, reference, portraits)
    return measure_detection(scene.lines(), scene.baseline, labelled, scene.announce("detectors"))


def _warnings(load: Mapping[str, Any], latency: Mapping[str, Any], overlap: Mapping[str, Any]) -> list[str]:
    found = [tracer_warning(), provenance.load_warning(dict(load))]
    if not latency["settled"]:
        found.append(
            f"The end of the warm-up was not found within the first half of {latency['rounds'] + latency['warm_up']} "
            "rounds: the machine's speed changed while it was measured. Measure longer with --seconds."
        )
    if overlap["statement"] and not overlap["checked"]:
        found.append(overlap["statement"])
    return [line for line in found if line]


def _provenance(
    bundles: Sequence[Bundle], load: Mapping[str, Any], latency: Mapping[str, Any], settings: Settings
) -> dict[str, Any]:
    energy = latency["energy"]
    return {
        "time": provenance.now(),
        "command": provenance.command_line(),
        "seed": settings.plan.seed,
        "machine": provenance.machine(),
        "load": dict(load),
        "versions": provenance.versions(),
        "energy": f"{provenance.NOT_MEASURED}: --no-sweeps" if energy is None else energy["reason"] or "measured",
        "bundle": {"digest": bundles[0].digest(), "provenance": bundles[0].manifest.provenance},
        "bundles": [{"name": name_of(bundle.path), "digest": bundle.digest()} for bundle in bundles],
    }
