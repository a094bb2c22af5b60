"""The toy bundle's repository as `edge triton` writes it, served by `kserve_server.py`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge.bundle import Bundle
from export.triton import TritonOptions, write_repository

pytest.importorskip("tritonclient.grpc")

SERVER = Path(__file__).with_name("kserve_server.py")
MOST = 4
"""Rows a request may have."""


@dataclass
class Serving:
    """A server in this process: its address, and the service to look into."""

    url: str
    service: Any


@pytest.fixture(scope="session")
def kserve() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kserve_server", SERVER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kserve_server"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def repository(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy bundle's, which no test may change."""
    folder = tmp_path_factory.mktemp("triton") / "repository"
    write_repository(toy.bundle, folder, TritonOptions(max_batch=MOST))
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a repository of a test's own."""

    def written(bundle: Bundle, options: TritonOptions | None = None) -> Path:
        write_repository(bundle, tmp_path / "repository", options or TritonOptions())
        return tmp_path / "repository"

    return written


@pytest.fixture(scope="session")
def serving(kserve: ModuleType) -> Any:
    """Serves a repository while the context lasts."""

    @contextmanager
    def served(folder: Path, delay: float = 0.0) -> Iterator[Serving]:
        service = kserve.Service(folder, delay)
        server, port = kserve.serve(service)
        try:
            yield Serving(f"127.0.0.1:{port}", service)
        finally:
            server.stop(None).wait()

    return served


@pytest.fixture(scope="session")
def started() -> Any:
    """Starts a server as a process of its own, to be killed; gives the process and its port."""

    def start(folder: Path, port: int = 0) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen([sys.executable, SERVER, folder, str(port)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    return start
