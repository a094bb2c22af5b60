"""Bundles with self-tests, and a web server that offers a folder, counts what is asked, and can stop in the middle."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge.bundle import Bundle
from edge.contract import ModelContract
from edge.engines import open_session
from edge.manifest import Manifest, Variant
from edge.selftest import answers, probes, to_entry

DETECTOR = ModelContract(role="detector", size=None)
EMBEDDER = ModelContract(role="embedder", size=(112, 112), template="arcface-112", embedding_size=48)


@pytest.fixture(scope="session")
def make(toy_models: dict[str, bytes]) -> Any:
    """make(path, filling, …): a bundle whose embedder's file is longer by `filling` and so another one.

    good: whether its self-test passes; tested: whether it has one; embedder: another contract than the usual one.
    """

    def bundle(
        path: Path, filling: int = 0, *, good: bool = True, tested: bool = True, embedder: ModelContract = EMBEDDER
    ) -> Bundle:
        path.mkdir(parents=True)
        variants = []
        for role, contract in (("detector", DETECTOR), ("embedder", embedder)):
            model = onnx.load_from_string(toy_models[role])
            model.doc_string = "x" * (filling if role == "embedder" else 0)
            data = model.SerializeToString()
            measured = {}
            if tested:
                with open_session(data) as session:
                    exact = answers(session, probes(contract))
                measured = {"self_test": to_entry(exact if good else -exact, 0.999)}
            (path / f"{role}.onnx").write_bytes(data)
            sha256 = hashlib.sha256(data).hexdigest()
            name = f"{role}-fp32"
            variants.append(
                Variant(name, role, "fp32", "onnx", f"{role}.onnx", sha256, len(data), contract, measured=measured)
            )
        (path / "bundle.json").write_text(json.dumps(Manifest(tuple(variants), {"n": filling}).to_dict()))
        return Bundle.open(path)

    return bundle


@dataclass
class Web:
    """A server of `folder`. stop_after: bytes of a body after which it says nothing more, None for all of it."""

    folder: Path
    url: str = ""
    stop_after: int | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and Range of every request."""

    def paths(self) -> list[str]:
        """Names of the files that were asked for."""
        return [Path(path).name for path, _ in self.asked]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, web: Web, *rest: Any) -> None:
        self.web = web
        super().__init__(*rest)

    def do_GET(self) -> None:
        file = self.web.folder / self.path.lstrip("/")
        self.web.asked.append((self.path, self.headers.get("Range", "")))
        self.close_connection = True
        if not file.is_file():
            self.send_error(404)
            return
        data, tag = file.read_bytes(), f'"{file.stat().st_mtime_ns}"'
        begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if self.headers.get("Range") else 0
        begin = begin if self.headers.get("If-Range", tag) == tag else 0
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.send_header("ETag", tag)
        self.end_headers()
        limit = self.web.stop_after
        if limit is not None and len(data) - begin > limit:
            self.wfile.write(data[begin : begin + limit])
            self.wfile.flush()
            while self.web.stop_after is not None:
                time.sleep(0.02)
            return
        self.wfile.write(data[begin:])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    served = Web(tmp_path / "www")
    served.folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, served))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/index.json"
    yield served
    served.stop_after = None
    server.shutdown()
    server.server_close()
