"""Bundle and peers side by side: the same frames in the same rounds of one process, then the same pairs of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy import Evaluation
from benchmarks.accuracy.verification import owners_of, pair_scores
from benchmarks.detection import central_face
from benchmarks.interleave import Candidate, Plan, Stopwatch, Timings, interleave, sum_of
from benchmarks.peers.base import Peer
from benchmarks.statistics import accuracy_difference, mcnemar, quantiles, speedup
from edge.metrics.pairs import PairRows
from edge.metrics.verification import kfold_accuracy, tar_at_far
from edge.pictures import read_picture
from edge.types import Face, Image

Progress = Callable[[float], None]
MS = 1000.0
FAR = 1e-3


def measure_latency(
    lines: Mapping[str, Peer],
    baseline: str,
    work: Sequence[tuple[Image, Sequence[Face]]],
    plan: Plan,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Round i takes frame i through every line, its own stages: detection of the frame, embedding of given faces.

    The faces are the baseline's for all, so that nobody saves time by missing one. JSON-ready.
    """
    measured = interleave({name: _candidate(line, work) for name, line in lines.items()}, plan, progress)
    base = measured.timings[baseline]
    return {
        "rounds": measured.rounds,
        "warm_up": measured.warm_up,
        "settled": measured.settled,
        "lines": {name: _figures(timing, base, plan.seed) for name, timing in measured.timings.items()},
    }


def _candidate(line: Peer, work: Sequence[tuple[Image, Sequence[Face]]]) -> Candidate:
    def run(round_: int, watch: Stopwatch) -> None:
        image, faces = work[round_ % len(work)]
        if "detect" in line.stages:
            watch.time("detect", lambda: line.detect(image))
        if "embed" in line.stages:
            watch.time("embed", lambda: line.embed(image, faces))

    return run


def _figures(timing: Timings, base: Timings, seed: int) -> dict[str, Any]:
    """`times`: this line's processor time over the baseline's of the same rounds; above 1 the baseline is cheaper."""
    parts = {name: (timing.wall[name], timing.cpu[name], base.wall[name], base.cpu[name]) for name in timing.wall}
    if len(parts) == len(base.wall):
        parts["frame"] = (sum_of(timing.wall), sum_of(timing.cpu), sum_of(base.wall), sum_of(base.cpu))
    return {
        name: {
            "wall_ms": quantiles(wall * MS, seed).to_dict(),
            "cpu_ms": quantiles(cpu * MS, seed).to_dict(),
            "times_wall": speedup(wall, base_wall, seed).to_dict(),
            "times_cpu": speedup(cpu, base_cpu, seed).to_dict(),
        }
        for name, (wall, cpu, base_wall, base_cpu) in parts.items()
    }


def measure_pairs(
    lines: Mapping[str, Peer],
    baseline: str,
    evaluation: Evaluation,
    progress: Progress | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """LFW's protocol for each line from the picture on: its own detector, alignment and embedder. JSON-ready.

    The face nearest to the picture's centre is taken. A line that does not detect is given the baseline's faces.
    """
    paths = list(dict.fromkeys(evaluation.located.values()))
    embedders = {name: line for name, line in lines.items() if "embed" in line.stages}
    vectors, found = _embed(embedders, lines[baseline], paths, progress)
    position = {path: i for i, path in enumerate(paths)}
    rows = PairRows.of(evaluation.pairs, {name: position[path] for name, path in evaluation.located.items()})
    people = owners_of(evaluation.pairs)
    figures: dict[str, Any] = {}
    correct: dict[str, npt.NDArray[np.bool_]] = {}
    for name in embedders:
        scores = pair_scores(vectors[name], found[name], rows)
        accuracy = kfold_accuracy(scores, rows.same, rows.folds)
        correct[name] = accuracy.correct
        tar = tar_at_far(scores[rows.same], scores[~rows.same], FAR).tar
        figures[name] = {
            "accuracy": accuracy.accuracy.to_dict(),
            "tar": None if tar is None else tar.to_dict(),
            "without_face": int((~found[name]).sum()),
        }
    for name, own in figures.items():
        loss = accuracy_difference(correct[baseline], correct[name], people[:, 0], people[:, 1], seed=seed)
        test = mcnemar(correct[baseline], correct[name]).to_dict()
        own["against_baseline"] = None if name == baseline else {"loss": loss.to_dict(), "mcnemar": test}
    return {"pairs": len(evaluation.pairs), "pictures": len(paths), "far": FAR, "lines": figures}


def _embed(
    lines: Mapping[str, Peer], reference: Peer, paths: Sequence[Path], progress: Progress | None
) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.bool_]]]:
    rows: dict[str, list[Any]] = {name: [] for name in lines}
    for done, path in enumerate(paths, start=1):
        image = read_picture(path)
        shared = central_face(reference.detect(image), image)
        for name, line in lines.items():
            face = shared
            if "detect" in line.stages and line is not reference:
                face = central_face(line.detect(image), image)
            rows[name].append(None if face is None else line.embed(image, [face])[0])
        if progress:
            progress(done / len(paths))
    found = {name: np.array([row is not None for row in own]) for name, own in rows.items()}
    vectors = {}
    for name, own in rows.items():
        size = next((len(row) for row in own if row is not None), 1)
        vectors[name] = np.array([np.zeros(size) if row is None else row for row in own], np.float32)
    return vectors, found
