"""Search of large galleries: INT8 screen with exact comparison of what it leaves, against the plain product."""

# ruff: noqa: D103 - the name of a benchmark says what it measures

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.vectors import faces
from edge.gallery import Snapshot
from edge.gallery.screen import build_screen
from edge.matching import nearest
from edge.types import Floats

Benchmark = Any
PROBES = 64


@pytest.fixture(scope="module", params=[128, 512], ids=["shipped-embedder", "worst-case"])
def million(request: pytest.FixtureRequest) -> tuple[Snapshot, Floats]:
    """A million identities, and probes of which every second is of one of them."""
    rows = faces(1_000_000, request.param, 0)
    probes = faces(PROBES, request.param, 1)
    known = np.random.default_rng(2).integers(0, len(rows), PROBES // 2)
    probes[::2] = rows[known] + 0.8 * probes[::2]
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    names = tuple(map(str, range(len(rows))))
    return Snapshot(names, rows, np.arange(len(rows)), 0, screen=build_screen(rows)), probes


@pytest.mark.benchmark(group="search of a million")
@pytest.mark.parametrize("way", ["int8", "float32"])
def test_search(benchmark: Benchmark, million: tuple[Snapshot, Floats], way: str) -> None:
    snapshot, probes = million
    if way == "float32":
        snapshot = Snapshot(snapshot.names, snapshot.vectors, snapshot.starts, 0)
    turn = iter(range(1 << 30))
    found = benchmark.pedantic(
        lambda: nearest(snapshot, probes[(i := next(turn)) % PROBES : i % PROBES + 1]), rounds=PROBES, warmup_rounds=2
    )
    last = probes[(next(turn) - 1) % PROBES]
    assert found.places[0] == int((snapshot.vectors @ last).argmax())
