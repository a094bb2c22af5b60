"""Real servers that tests start, kill and start again."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits for something to become true; fails where it does not in time, which a busy machine has plenty of."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


_PORTS = range(20_000, 32_000)
"""Below those that Linux hands out to whoever asks for any, so that none of these is taken while its server is away."""
_WORKERS = 16
_NUMBERS = itertools.count(random.SystemRandom().randrange(len(_PORTS)))


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on. Each of the processes that share the tests has its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    while True:
        port = _PORTS[(next(_NUMBERS) * _WORKERS + worker) % len(_PORTS)]
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """A program that listens on a port of the loopback; entered it runs, left it is gone, however the test ended."""

    def __init__(self, port: int, command: Sequence[str], log: Path) -> None:
        self.port = port
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until(self._ready)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Does nothing where it does not run."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def _ready(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 60) as probe:
            return self._greets(probe)
        return False

    def _greets(self, _: socket.socket) -> bool:
        return True


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Certificate and key of `localhost`, which nobody trusts yet; the test is skipped where there is no openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    request = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    request += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(request, check=True, capture_output=True)
    return certificate, key


@contextlib.contextmanager
def serving_milvus(folder: Path, port: int | None = None) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Milvus Lite as a server over a folder: the process and its address.

    It answers one call at a time: its 3.2.2 opens a collection twice, over the same files, where two clients of a fresh
    server ask for it at once, and what the one loaded the other has not.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder), "--port", str(port)]
    command += ["--max-workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        assert process.poll() is None, f"milvus_lite ended with {process.returncode}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return True
        return False

    try:
        until(answers)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
