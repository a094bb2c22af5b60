"""What the microbenchmarks run on: rendered frames, random vectors, and the bundle named by ARCEDGE_BUNDLE."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.demo.video import portraits, render
from benchmarks.provenance import machine
from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
from edge.types import Floats, Image

BUNDLE = "ARCEDGE_BUNDLE"
DEFAULT_BUNDLE = Path("build/demo/arcedge.bundle")


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Puts into the JSON what `edge bench` states of a machine, and takes out what names it."""
    machine_info.pop("node", None)
    machine_info["arcedge"] = machine()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def frame() -> Image:
    """(540, 960, 3), two people in it."""
    return list(render(portraits(), 12))[-3]


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """Of ARCEDGE_BUNDLE, else the demo's; skips where there is none."""
    path = Path(os.environ.get(BUNDLE, DEFAULT_BUNDLE))
    if not path.is_dir():
        pytest.skip(f"no bundle at {path}; run make demo, or name one with {BUNDLE}")
    return Bundle.open(path)


@pytest.fixture(scope="session", params=["fp32", "fp16", "int8"])
def analyzer(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[FaceAnalyzer]:
    """Each precision of the bundle."""
    if request.param not in {variant.precision for variant in bundle.variants("embedder")}:
        pytest.skip(f"the bundle holds no {request.param}")
    with FaceAnalyzer(bundle, AnalyzerOptions(request.param)) as opened:
        yield opened


def unit_rows(count: int, size: int, seed: int = 0) -> Floats:
    """(count, size) random unit vectors."""
    rows = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="session")
def pictures() -> Floats:
    """(1000, 512) unit rows."""
    return unit_rows(1000, 512, seed=1)


@pytest.fixture(scope="session", params=[1_000, 100_000])
def gallery(request: pytest.FixtureRequest) -> Floats:
    """(N, 512) unit rows."""
    return unit_rows(request.param, 512)
