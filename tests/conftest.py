"""Fixtures every test may use. Real data is found, never required: tests marked `realdata` skip where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# A worker a core, so a thread a worker: pools of torch and BLAS that outnumber the cores spend most of it on waiting for
# each other. Set before either is imported, and for the processes that tests start.
for _pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_pool, "1")

REPOSITORY = Path(__file__).resolve().parent.parent


def _shared() -> Path:
    return Path(os.environ.get("ARCEDGE_SHARED", REPOSITORY.parent / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if (_shared() / "data").is_dir():
        return
    skip = pytest.mark.skip(reason="needs the real data; set ARCEDGE_SHARED to the folder that holds data/ and models/")
    for item in items:
        if "realdata" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with `data/` and `models/`: real faces and reference models. For tests marked `realdata` only."""
    return _shared()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY
