"""The parts beside the models: alignment, suppression of overlaps, matching, statistics."""

# ruff: noqa: D103 - the name of a benchmark says what it measures

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.statistics import quantiles
from edge.align import ARCFACE_112, align, similarity_transform
from edge.detect.nms import nms
from edge.gallery import Snapshot
from edge.matching import match
from edge.metrics.intervals import clopper_pearson
from edge.metrics.scores import all_pair_scores
from edge.types import Floats, Image

Benchmark = Any


@pytest.mark.benchmark(group="parts")
def test_similarity_transform(benchmark: Benchmark) -> None:
    turned = ARCFACE_112 @ np.array([[0.8, 0.6], [-0.6, 0.8]]) * 2 + 30
    matrix = benchmark(similarity_transform, turned, ARCFACE_112)
    assert np.hypot(*matrix[:, 0]) == pytest.approx(0.5)


@pytest.mark.benchmark(group="parts")
@pytest.mark.parametrize("side", [80, 400])
def test_align_one_face(benchmark: Benchmark, frame: Image, side: int) -> None:
    landmarks = (ARCFACE_112 / 112 * side + 60).astype(np.float32)
    assert benchmark(align, frame, landmarks).any()


@pytest.mark.benchmark(group="parts")
def test_nms_of_500_boxes(benchmark: Benchmark) -> None:
    random = np.random.default_rng(0)
    corner, scores = random.uniform(0, 500, (500, 2)), random.random(500).astype(np.float32)
    boxes = np.concatenate([corner, corner + 60], axis=1).astype(np.float32)
    assert 0 < len(benchmark(nms, boxes, scores, 0.3, 100)) <= 100


@pytest.mark.benchmark(group="match")
@pytest.mark.parametrize("faces", [1, 8])
def test_match(benchmark: Benchmark, gallery: Floats, faces: int) -> None:
    names = tuple(str(i) for i in range(len(gallery)))
    snapshot = Snapshot(names, gallery, np.arange(len(gallery)), 0)
    found = benchmark(match, snapshot, gallery[:faces], 0.4)
    assert [one.identity for one in found] == list(names[:faces])


@pytest.mark.benchmark(group="statistics")
def test_clopper_pearson(benchmark: Benchmark) -> None:
    low, high = benchmark(clopper_pearson, 2982, 3000)
    assert low < 0.994 < high


@pytest.mark.benchmark(group="statistics")
def test_quantiles_of_300_rounds(benchmark: Benchmark) -> None:
    samples = np.random.default_rng(0).lognormal(size=300)
    assert benchmark(quantiles, samples).count == 300


@pytest.mark.benchmark(group="statistics")
def test_all_pairs_of_1000_pictures(benchmark: Benchmark, pictures: Floats) -> None:
    labels = np.arange(1000) // 4
    assert len(benchmark(all_pair_scores, pictures, labels).genuine) == 1500
