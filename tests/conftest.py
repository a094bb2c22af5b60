"""Fixtures every test may use. Real data is found, never required: tests marked `realdata` skip where it is absent."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# A worker a core, so a thread a worker: pools of torch and BLAS that outnumber the cores spend most of it waiting for
# each other. Set before either is imported, and for the processes that tests start.
for _pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_pool, "1")

with contextlib.suppress(ImportError):
    import hypothesis

    # An example takes as long as a busy machine lets it, and so does drawing it; what is slow by itself is seen in
    # --durations.
    busy = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("arcedge", deadline=None, suppress_health_check=busy)
    hypothesis.settings.load_profile("arcedge")

REPOSITORY = Path(__file__).resolve().parent.parent


def _shared() -> Path:
    return Path(os.environ.get("ARCEDGE_SHARED", REPOSITORY.parent / "shared"))


@pytest.hookimpl(hookwrapper=True)
def pytest_collection() -> Iterator[None]:
    """What the test files load stays for good: it is not looked through for garbage while it comes, nor ever again."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()
    gc.freeze()


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


def _between_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session that all processes which share the tests see."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def between_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `_between_workers`."""
    return _between_workers(tmp_path_factory)


@pytest.fixture(scope="session")
def exports_are_remembered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """torch's exporter runs once a network, and not again before weights or code change; see `exported`."""
    for package in ("torch", "onnx", "onnxscript"):
        pytest.importorskip(package)
    from exported import REAL_EXPORTER, remembering

    from export import to_onnx

    cache = request.config.cache  # None under -p no:cacheprovider
    folder = _between_workers(tmp_path_factory) / "arcedge-exports" if cache is None else cache.mkdir("arcedge-exports")
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_onnx, "_export", remembering(REAL_EXPORTER, folder))
        yield


@pytest.fixture(scope="session")
def shipped_bundle(exports_are_remembered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights that ship with the project, exported in FP32, once for all processes that share the tests."""
    from edge.cli.main import main

    shared = _between_workers(tmp_path_factory)
    bundle = shared / "shipped.bundle"
    with (shared / "shipped.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not bundle.is_dir():
            command = ["export", "--weights", "mobilefacenet-512", "--detector", "edge-detector", "--precision", "fp32"]
            assert main([*command, "--out", str(bundle)]) == 0
    return bundle
