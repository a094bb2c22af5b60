"""Search at the centre and in a copy of it, against the truth by exact products."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from benchmarks.central.changes import timed_pull
from benchmarks.central.figures import disk_mb, peak_memory_mb, spread
from benchmarks.central.made import AXES, EACH, SEED, SITE, site_of
from benchmarks.vectors import SIZE, face_blocks, faces
from edge.gallery import Gallery, MilvusPlace
from edge.matching import nearest
from edge.types import Floats

Found = TypeVar("Found")
TOP = 10
"""Nearest vectors asked for."""

PROBES = 100
ROUNDS = 5
"""Pulls of a copy that is up to date."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Of (P, 512) probes, by exact products in float32: (P, 10) numbers of the nearest vectors, best first.

    nearest: among all. of_site: among those of SITE.
    """

    vectors: int
    probes: Floats
    nearest: npt.NDArray[np.int64]
    of_site: npt.NDArray[np.int64]


def find_truth(count: int, asked: int = PROBES) -> Truth:
    """Every second probe is near one of the vectors that `fill` makes, the others are of strangers."""
    probes = faces(asked, AXES, SEED + 1)
    known = np.random.default_rng(2).integers(0, count, len(probes[::2]))
    near, first = np.empty((len(known), SIZE), np.float32), 0
    for block in face_blocks(count, AXES, SEED):
        here = (known >= first) & (known < first + len(block))
        near[here] = block[known[here] - first]
        first += len(block)
    probes[::2] = near + 0.8 * probes[::2]
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    best = [_Best(len(probes)), _Best(len(probes))]
    first = 0
    for block in face_blocks(count, AXES, SEED):
        scores, numbers = probes @ block.T, np.arange(first, first + len(block))
        of_site = np.array([site_of(n) == SITE for n in range(first, first + len(block))])
        best[0].take(scores, numbers)
        best[1].take(scores[:, of_site], numbers[of_site])
        first += len(block)
    return Truth(count, probes, best[0].numbers, best[1].numbers)


class _Best:
    """The ten best of each probe so far."""

    def __init__(self, probes: int) -> None:
        self.scores = np.empty((probes, 0), np.float32)
        self.numbers = np.empty((probes, 0), np.int64)

    def take(self, scores: Floats, numbers: npt.NDArray[np.int64]) -> None:
        some = np.argpartition(-scores, min(TOP, len(numbers) - 1), axis=1)[:, :TOP]
        scores = np.concatenate([self.scores, np.take_along_axis(scores, some, axis=1)], axis=1)
        every = np.concatenate([self.numbers, numbers[some]], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        self.scores = np.take_along_axis(scores, order, axis=1)
        self.numbers = np.take_along_axis(every, order, axis=1)


def measure_search(place: MilvusPlace, truth: Truth) -> dict[str, Any]:
    """Recall of the index against the exact product, and what a probe costs; over all sites, and within one."""
    report: dict[str, Any] = {}
    for name, view, exact in (
        ("all sites", place, truth.nearest),
        ("one site of ten", MilvusPlace(place.uri, place.gallery, SITE), truth.of_site),
    ):
        started, used = time.perf_counter(), time.process_time()
        with Gallery.open(view) as gallery:
            gallery.search(truth.probes[:1], TOP)
            opened = {
                "opening and first search, s": round(time.perf_counter() - started, 2),
                "opening and first search, CPU s": round(time.process_time() - used, 2),
            }
            wall, cpu, found = timed(truth.probes, lambda probe, gallery=gallery: gallery.search(probe, TOP)[0])  # type: ignore[misc]
        numbers = [[int(hit.source.removesuffix(".jpg")) for hit in hits] for hits in found]
        same = [len(set(mine) & set(theirs)) for mine, theirs in zip(numbers, exact.tolist(), strict=True)]
        report[name] = {
            "vectors": truth.vectors if view.site is None else sum(site_of(n) == SITE for n in range(truth.vectors)),
            "probes": len(truth.probes),
            "first_is_the_nearest": sum(
                mine[0] == theirs[0] for mine, theirs in zip(numbers, exact.tolist(), strict=True)
            ),
            "recall_at_10": round(sum(same) / (TOP * len(truth.probes)), 4),
            "wall_ms": spread(wall),
            "cpu_ms": spread(cpu),
            **opened,
        }
    report["peak_memory_mb"] = peak_memory_mb()
    return report


def measure_copy(place: MilvusPlace, folder: Path, truth: Truth) -> dict[str, Any]:
    """A first copy of all sites, and one of a single site; what is searched is that of all."""
    copy, site = folder / "copy", folder / "site"
    for path in (copy, site):
        shutil.rmtree(path, ignore_errors=True)
    return {
        "first copy of one site of ten": timed_pull(MilvusPlace(place.uri, place.gallery, SITE), site),
        "first copy": timed_pull(place, copy),
        "nothing has changed": [timed_pull(place, copy) for _ in range(ROUNDS)],
        "peak_memory_mb": peak_memory_mb(),
        "search": search_copy(copy, truth),
    }


def search_copy(path: Path, truth: Truth) -> dict[str, Any]:
    """What the same probes cost in a device's copy, for the nearest alone, and whether that person is named."""
    with Gallery.open(path) as gallery:  # what is made once, matrix and INT8 copy
        nearest(gallery.snapshot(), truth.probes[:1])
    started, used = time.perf_counter(), time.process_time()
    with Gallery.open(path) as gallery:
        snapshot = gallery.snapshot()
        nearest(snapshot, truth.probes[:1])
        opened = time.perf_counter() - started, time.process_time() - used
        wall, cpu, found = timed(truth.probes, lambda probe: snapshot.names[nearest(snapshot, probe).places[0]])
    theirs = [f"{site_of(n)}/p{n // EACH}" for n in truth.nearest[:, 0].tolist()]
    return {
        "vectors": len(snapshot),
        "probes": len(truth.probes),
        "first_is_the_nearest": sum(mine == their for mine, their in zip(found, theirs, strict=True)),
        "wall_ms": spread(wall),
        "cpu_ms": spread(cpu),
        "opening and first search, s": round(opened[0], 2),
        "opening and first search, CPU s": round(opened[1], 2),
        "disk_mb": disk_mb(path),
    }


def timed(probes: Floats, search: Callable[[Floats], Found]) -> tuple[list[float], list[float], list[Found]]:
    """Milliseconds of each (1, 512) probe, those of the processor, and what was found."""
    wall, cpu, found = [], [], []
    for probe in probes:
        started, used = time.perf_counter(), time.process_time()
        found.append(search(probe[None]))
        wall.append(1e3 * (time.perf_counter() - started))
        cpu.append(1e3 * (time.process_time() - used))
    return wall, cpu, found
