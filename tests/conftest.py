"""Fixtures every test may use. Real data is found, never required: tests marked `realdata` skip where it is absent."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

# A worker a core, so a thread a worker: pools of torch and BLAS that outnumber the cores spend most of it waiting for
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


@pytest.fixture(scope="session")
def shipped_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights that ship with the project, exported in FP32, once for all processes that share the tests."""
    pytest.importorskip("torch")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    bundle = shared / "shipped.bundle"
    with (shared / "shipped.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not bundle.is_dir():
            command = ["export", "--weights", "mobilefacenet-512", "--detector", "edge-detector", "--precision", "fp32"]
            subprocess.run([sys.executable, "-m", "edge", *command, "--out", str(bundle)], check=True)
    return bundle
