"""What enrolment in FP32 wins for a camera that runs INT8: three ways to search the same faces, compared in pairs.

    python -m benchmarks.enrolment --bundle my.bundle --identities photos

Each picture's face is found, aligned and embedded once in FP32 and once in INT8. Then gallery and probes are both FP32,
both INT8, or FP32 and INT8.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy.embeddings import embed_pictures
from benchmarks.command import command
from benchmarks.provenance import machine
from benchmarks.statistics import accuracy_difference
from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
from edge.metrics.identification import best_matches
from edge.metrics.intervals import Rate
from edge.metrics.pairs import read_identities
from edge.metrics.scores import BLOCK, Labels
from edge.metrics.verification import threshold_at_far
from edge.types import Floats

MODES = {"FP32 in FP32": ("fp32", "fp32"), "INT8 in INT8": ("int8", "int8"), "INT8 in FP32": ("int8", "fp32")}
"""Precision of the probes and of the gallery."""

MIXED, PLAIN = "INT8 in FP32", "INT8 in INT8"
SPLITS = 20
FPIR = 0.01

Hits = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Trials of all splits. people, hits: of probes of enrolled people; false_alarms: strangers that got a name."""

    people: Labels
    hits: Hits
    false_alarms: Hits


def rank_one_hits(probes: Floats, gallery: Floats, labels: Labels, rows: npt.NDArray[np.intp]) -> Hits:
    """Whether the nearest picture of `gallery`, (N, D), other than the probe's own shows the same person.

    probes: (N, D), the same pictures embedded as probes; rows: those that take part.
    """
    hits = np.empty(len(rows), np.bool_)
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        scores = probes[part] @ gallery.T
        scores[np.arange(len(part)), part] = -np.inf
        hits[start : start + BLOCK] = labels[scores.argmax(axis=1)] == labels[part]
    return hits


def open_set_trials(probes: Floats, gallery: Floats, labels: Labels, threshold: float | None) -> OpenSet:
    """Half of the people with two pictures enrolled with one each, all others strangers, in SPLITS random ways.

    threshold: None fits it on each split's strangers at an FPIR of 1 %.
    """
    able = np.flatnonzero(np.bincount(labels) > 1)
    people, hits, alarms = [], [], []
    for split in range(SPLITS):
        random = np.random.default_rng(split)
        enrolled = random.permutation(able)[: len(able) // 2]
        rows = np.array([random.choice(np.flatnonzero(labels == person)) for person in enrolled])
        others = np.setdiff1d(np.arange(len(labels)), rows)
        best, found = best_matches(gallery[rows], probes[others])
        known = np.isin(labels[others], enrolled)
        limit = threshold_at_far(best[~known], FPIR) if threshold is None else threshold
        people.append(labels[others][known])
        hits.append((best[known] >= limit) & (labels[rows][found[known]] == labels[others][known]))
        alarms.append(best[~known] >= limit)
    return OpenSet(np.concatenate(people), np.concatenate(hits), np.concatenate(alarms))


def compare(vectors: Mapping[str, Floats], labels: Labels, threshold: float | None) -> dict[str, Any]:
    """JSON-ready figures of all modes, and what FP32 enrolment wins for INT8 probes, in points with 95 % intervals.

    vectors: by precision (N, D); threshold: the one the bundle states for INT8.
    """
    rows = np.flatnonzero(np.bincount(labels)[labels] > 1)
    rank: dict[str, Hits] = {}
    fitted: dict[str, OpenSet] = {}
    stated: dict[str, OpenSet] = {}
    for mode, (probe, gallery) in MODES.items():
        rank[mode] = rank_one_hits(vectors[probe], vectors[gallery], labels, rows)
        fitted[mode] = open_set_trials(vectors[probe], vectors[gallery], labels, None)
        if threshold is not None:
            stated[mode] = open_set_trials(vectors[probe], vectors[gallery], labels, threshold)
    trials = fitted[MIXED].people
    return {
        "rank_one": {mode: _rate(hits) for mode, hits in rank.items()},
        "found_at_fpir_1_percent": {mode: _share(found.hits) for mode, found in fitted.items()},
        "at_int8_threshold": {
            mode: {"found": _share(found.hits), "false_alarms": _share(found.false_alarms)}
            for mode, found in stated.items()
        },
        "gain": {
            "rank_one": asdict(accuracy_difference(rank[MIXED], rank[PLAIN], labels[rows])),
            "found_at_fpir_1_percent": asdict(accuracy_difference(fitted[MIXED].hits, fitted[PLAIN].hits, trials)),
        },
        "pictures": len(labels),
        "identities": len(np.unique(labels)),
    }


@command("enrolment")
def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description="FP32 enrolment with INT8 probes, measured")
    parser.add_argument("--bundle", required=True, type=Path)
    parser.add_argument("--identities", required=True, type=Path, help="a folder for each person")
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    images = read_identities(args.identities)
    analyzers = {
        precision: FaceAnalyzer(bundle, AnalyzerOptions(precision, detector_precision="fp32"))
        for precision in ("fp32", "int8")
    }
    embeddings = embed_pictures(analyzers, "fp32", [image.path for image in images])
    place = embeddings.positions()
    rows = np.array([place[image.path] for image in images])
    usable = embeddings.found["fp32"][rows]
    names = np.array([image.identity for image in images])[usable]
    labels = np.unique(names, return_inverse=True)[1]
    vectors = {precision: rows_of[rows][usable] for precision, rows_of in embeddings.vectors.items()}
    stated = analyzers["int8"].threshold
    figures = compare(vectors, labels, None if stated is None else stated.similarity)
    print(json.dumps({"machine": machine(), "bundle": bundle.digest(), **figures}, indent=1))


def _share(hits: Hits) -> float:
    """Without an interval: the trials of several splits are not independent."""
    return float(hits.mean())


def _rate(hits: Hits) -> dict[str, Any]:
    return Rate.of(int(hits.sum()), len(hits)).to_dict()


if __name__ == "__main__":
    sys.exit(main())
