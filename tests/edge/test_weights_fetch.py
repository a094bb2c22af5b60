"""Downloads from a real HTTP server that misbehaves as servers do: nothing unverified gets the final name."""

from __future__ import annotations

import hashlib
import shutil
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clock import Clock
from servers import until

from edge.contract import ModelContract
from edge.errors import DownloadError, EdgeError, InputError
from edge.weights.cache import cached_path
from edge.weights.digests import Digest
from edge.weights.download import DownloadOptions
from edge.weights.fetch import fetch
from edge.weights.registry import Archive, Entry

QUICK = DownloadOptions(attempts=3, backoff=0.01)
BODY = np.random.default_rng(1).bytes(300_000)


@dataclass
class Reply:
    """How one request is answered. cut: bytes of the body after which the connection breaks. stall: a whole
    body stops in the middle until it is set. begin: the byte a part begins at, whatever was asked for."""

    status: int = 200
    begin: int | None = None
    cut: int | None = None
    stall: threading.Event | None = None
    location: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Served:
    """What the server offers and how it misbehaves; `replies` are used up one a request, then it behaves."""

    body: bytes = BODY
    etag: str = '"one"'
    ranges: bool = True
    length: bool = True
    replies: list[Reply] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    waited_in_vain: bool = False
    """Whether nobody set what an answer stopped for."""
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def do_GET(self) -> None:
        served = self.served
        served.requests.append({"path": self.path, **dict(self.headers.items())})
        reply = served.replies.pop(0) if served.replies else Reply()
        self.close_connection = True
        if reply.status != 200:
            self.send_response(reply.status)
            for name, value in ({"Location": reply.location} if reply.location else {}).items() | reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = self._start(served) if reply.begin is None else reply.begin
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(served.body) - 1}/{len(served.body)}")
        if served.etag:
            self.send_header("ETag", served.etag)
        if served.length:
            self.send_header("Content-Length", str(len(served.body) - start))
        self.send_header("Connection", "close")
        self.end_headers()
        body = served.body[start:]
        self._send(body if reply.cut is None else body[: reply.cut], None if start else reply.stall)

    def _start(self, served: Served) -> int:
        asked = self.headers.get("Range", "")
        if not served.ranges or not asked or self.headers.get("If-Range") != served.etag:
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def _send(self, body: bytes, stall: threading.Event | None) -> None:
        half = len(body) if stall is None else len(body) // 2
        for number, piece in enumerate((body[:half], body[half:])):
            self.served.sent.append(len(piece))  # before the client has them all: the test may count at once
            try:
                self.wfile.write(piece)
                self.wfile.flush()
            except OSError:  # the client has gone, as it should when this is too slow
                self.served.sent.pop()
                return
            if stall is not None and number == 0:
                self.served.waited_in_vain |= not stall.wait(60)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("ARCEDGE_CACHE", str(tmp_path / "cache"))
    # A proxy in the environment must not come between us and our own machine.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    state = Served()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": state}))
    state.url = f"http://127.0.0.1:{server.server_port}/weights.onnx"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def _sha256(data: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(data).hexdigest())


def _entry(served: Served, **changes: Any) -> Entry:
    values: dict[str, Any] = {
        "name": "some-weights",
        "role": "detector",
        "file": "weights.onnx",
        "about": "test",
        "origin": "test",
        "licence": "MIT",
        "digest": _sha256(BODY),
        "contract": ModelContract(role="detector", size=None),
        "size": len(BODY),
        "url": served.url,
    }
    return Entry(**(values | changes))


def _left(entry: Entry) -> set[str]:
    """Names in the cache folder, without the locks."""
    return {path.name for path in cached_path(entry).parent.iterdir() if not path.name.startswith(".")}


def test_fetches_once_and_then_takes_the_cache(served: Served) -> None:
    entry = _entry(served)
    seen: list[int] = []
    path = fetch(entry, options=QUICK, progress=seen.append)
    assert path.read_bytes() == BODY
    assert _left(entry) == {"weights.onnx"}
    assert seen == sorted(seen)
    assert seen[-1] == len(BODY)
    assert fetch(entry, options=QUICK) == path
    assert len(served.requests) == 1


def test_goes_on_where_the_connection_was_cut_and_asks_for_the_rest_alone(served: Served) -> None:
    served.replies = [Reply(cut=100_000), Reply(cut=150_000)]
    assert fetch(_entry(served), options=QUICK).read_bytes() == BODY
    assert [request.get("Range") for request in served.requests] == [None, "bytes=100000-", "bytes=250000-"]
    assert sum(served.sent) == len(BODY)


def test_goes_on_in_a_later_run(served: Served) -> None:
    entry = _entry(served)
    served.replies = [Reply(cut=120_000), Reply(status=503), Reply(status=503), Reply(status=503)]
    with pytest.raises(DownloadError, match="120000 bytes are kept"):
        fetch(entry, options=QUICK)
    assert not cached_path(entry).exists()
    served.replies, served.sent = [], []
    assert fetch(entry, options=QUICK).read_bytes() == BODY
    assert sum(served.sent) == len(BODY) - 120_000


def test_begins_anew_where_the_server_ignores_ranges(served: Served) -> None:
    served.ranges = False
    served.replies = [Reply(cut=100_000)]
    assert fetch(_entry(served), options=QUICK).read_bytes() == BODY
    assert served.requests[1]["Range"] == "bytes=100000-"
    assert sum(served.sent) == 100_000 + len(BODY)


def test_begins_anew_where_the_server_sends_another_part(served: Served) -> None:
    served.replies = [Reply(cut=100_000), Reply(begin=90_000)]
    assert fetch(_entry(served), options=QUICK).read_bytes() == BODY
    assert [request.get("Range") for request in served.requests] == [None, "bytes=100000-", None]


def test_begins_anew_where_the_file_changed_in_between(served: Served) -> None:
    entry = _entry(served)
    served.body, served.etag = bytes(len(BODY)), '"other"'
    served.replies = [Reply(cut=100_000), Reply(status=404)]
    with pytest.raises(DownloadError):
        fetch(entry, options=QUICK)
    served.body, served.etag = BODY, '"one"'
    assert fetch(entry, options=QUICK).read_bytes() == BODY


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_never_joins_bytes_that_no_strong_validator_ties_together(served: Served, etag: str) -> None:
    served.etag = etag
    served.replies = [Reply(cut=100_000)]
    assert fetch(_entry(served), options=QUICK).read_bytes() == BODY
    assert "Range" not in served.requests[1]


def test_wrong_bytes_are_removed_and_never_get_the_final_name(served: Served) -> None:
    entry = _entry(served)
    served.body = BODY[:-1] + bytes([BODY[-1] ^ 1])
    with pytest.raises(DownloadError, match=r"its sha256 is [0-9a-f]{64}, not " + entry.digest.value):
        fetch(entry, options=QUICK)
    assert _left(entry) == set()


@pytest.mark.parametrize("stated", [True, False])
def test_takes_no_more_than_the_stated_size(served: Served, stated: bool) -> None:
    entry = _entry(served)
    # More than sockets hold for a client that is gone (32 MB here), or the server would never notice.
    served.body, served.length = BODY * 300, stated
    with pytest.raises(DownloadError, match="should have"):
        fetch(entry, options=QUICK)
    assert _left(entry) == set()
    if not stated:
        until(lambda: not served.sent)  # the server takes back what it counted once it finds the client gone


def test_a_file_shorter_than_stated_is_refused(served: Served) -> None:
    entry = _entry(served)
    served.body = BODY[:1000]
    with pytest.raises(DownloadError, match=f"has 1000 bytes, not the {len(BODY)}"):
        fetch(entry, options=QUICK)
    assert _left(entry) == set()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_follows_redirects_with_the_range(served: Served, status: int) -> None:
    elsewhere = served.url.replace("weights.onnx", "elsewhere")
    served.replies = [
        Reply(status=status, location=elsewhere),
        Reply(cut=100_000),
        Reply(status=status, location="/relative"),
    ]
    assert fetch(_entry(served), options=QUICK).read_bytes() == BODY
    assert [request["path"] for request in served.requests] == [
        "/weights.onnx",
        "/elsewhere",
        "/weights.onnx",
        "/relative",
    ]
    assert served.requests[3]["Range"] == "bytes=100000-"


@pytest.mark.parametrize("location", ["http://example.invalid/w", "ftp://127.0.0.1/w", "file:///etc/passwd"])
def test_redirects_to_insecure_addresses_are_refused(served: Served, location: str) -> None:
    entry = _entry(served)
    served.replies = [Reply(status=302, location=location)]
    with pytest.raises(DownloadError, match=r"not https|not allowed"):
        fetch(entry, options=QUICK)
    assert _left(entry) == set()


def test_a_circle_of_redirects_ends(served: Served) -> None:
    served.replies = [Reply(status=302, location=served.url) for _ in range(50)]
    with pytest.raises(DownloadError, match="302"):
        fetch(_entry(served), options=QUICK)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_lasting_refusal_is_not_repeated(served: Served, status: int) -> None:
    entry = _entry(served)
    served.replies = [Reply(status=status)] * 5
    with pytest.raises(DownloadError, match=str(status)):
        fetch(entry, options=QUICK)
    assert len(served.requests) == 1
    assert _left(entry) == set()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_fault_is_repeated_and_then_reported(served: Served, status: int) -> None:
    served.replies = [Reply(status=status), Reply(status=status)]
    assert fetch(_entry(served), options=QUICK).read_bytes() == BODY
    cached_path(_entry(served)).unlink()
    served.replies, served.requests = [Reply(status=status)] * 9, []
    with pytest.raises(DownloadError, match=f"{status}.*3 attempts"):
        fetch(_entry(served), options=QUICK)
    assert len(served.requests) == 3


def test_waits_as_long_as_the_server_asks(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("edge.weights.download.time", clock)
    served.replies = [Reply(status=503, headers={"Retry-After": "7"})]
    fetch(_entry(served), options=QUICK)
    assert clock.now == 7.0


def test_a_server_that_falls_silent_is_left_and_asked_again(served: Served) -> None:
    silent, seen = threading.Event(), list[tuple[int, int]]()
    served.replies = [Reply(stall=silent)] * 100  # on a busy machine it may be left before its half has come
    options = DownloadOptions(timeout=0.3, attempts=100, backoff=0.01)
    try:
        file = fetch(_entry(served), options=options, progress=lambda got: seen.append((len(served.requests), got)))
    finally:
        silent.set()
    assert file.read_bytes() == BODY
    assert not served.waited_in_vain
    kept = [got for asked, got in seen if asked < len(served.requests)][-1]
    assert served.requests[-1]["Range"] == f"bytes={kept}-"


def test_an_unreachable_server_is_one_line(served: Served) -> None:
    with pytest.raises(DownloadError, match=r"cannot be reached .*3 attempts") as caught:
        fetch(_entry(served, url="http://127.0.0.1:9/x?token=secret"), options=QUICK)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_damaged_copy_in_the_cache_is_replaced(served: Served) -> None:
    entry = _entry(served)
    path = fetch(entry, options=QUICK)
    path.write_bytes(b"damaged")
    assert fetch(entry, options=QUICK).read_bytes() == BODY


def test_offline_takes_the_cache_only(served: Served) -> None:
    entry = _entry(served)
    with pytest.raises(DownloadError, match="offline"):
        fetch(entry, offline=True)
    assert served.requests == []
    path = fetch(entry, options=QUICK)
    assert fetch(entry, offline=True) == path


def test_a_mirror_or_a_file_serves_where_its_bytes_are_right(served: Served, tmp_path: Path) -> None:
    entry = _entry(served, url="https://example.invalid/gone")
    mirror = served.url.replace("weights.onnx", "mirror")
    assert fetch(entry, source=mirror, options=QUICK).read_bytes() == BODY
    cached_path(entry).unlink()
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(BODY)
    assert fetch(entry, source=str(copy), offline=True).read_bytes() == BODY
    cached_path(entry).unlink()
    for wrong in (b"short", BODY + b"!", BODY[::-1]):
        copy.write_bytes(wrong)
        with pytest.raises(DownloadError):
            fetch(entry, source=str(copy))
        assert _left(entry) == set()
    with pytest.raises(InputError, match="cannot be read"):
        fetch(entry, source=str(tmp_path / "missing"))


def test_insecure_addresses_are_refused_before_any_request(served: Served) -> None:
    for url in ("http://example.invalid/w", "ftp://127.0.0.1/w", "https:///w", "http://127.0.0.1:port/w"):
        with pytest.raises(InputError):
            fetch(_entry(served), source=url, options=QUICK)
    assert served.requests == []


def test_weights_without_an_address_say_how_to_get_them(served: Served) -> None:
    entry = _entry(served, url=None, by_hand="ask the author")
    with pytest.raises(DownloadError, match=r"ask the author; then: edge weights fetch some-weights --from FILE"):
        fetch(entry)


def test_a_git_object_id_identifies_weights_of_unknown_size(served: Served) -> None:
    # What `git hash-object` prints for these bytes.
    served.body = b"hello\n"
    digest = Digest("git-blob-sha1", "ce013625030ba8dba906f756967f9e9ca394464a")
    assert fetch(_entry(served, digest=digest, size=None), options=QUICK).read_bytes() == b"hello\n"


def _zip(*members: tuple[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def _archived(served: Served, data: bytes) -> Entry:
    served.body = data
    return _entry(served, url=None, archive=Archive(served.url, _sha256(data), len(data), "det.onnx"))


def test_takes_the_weights_out_of_an_archive(served: Served) -> None:
    entry = _archived(served, _zip(("pack/other.onnx", b"other"), ("pack/det.onnx", BODY)))
    served.replies = [Reply(cut=50_000)]
    assert fetch(entry, options=QUICK).read_bytes() == BODY
    assert _left(entry) == {"weights.onnx"}
    assert sum(served.sent) == len(served.body)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_zip(("other.onnx", BODY)), id="member missing"),
        pytest.param(_zip(("a/det.onnx", BODY), ("b/det.onnx", BODY)), id="member twice"),
        pytest.param(_zip(("det.onnx", BODY[::-1])), id="wrong bytes"),
        pytest.param(_zip(("det.onnx", bytes(50_000_000))), id="unpacks to far more"),
        pytest.param(b"no zip at all", id="no zip"),
    ],
)
def test_an_unfit_archive_is_refused(served: Served, data: bytes) -> None:
    entry = _archived(served, data)
    with pytest.raises(DownloadError):
        fetch(entry, options=QUICK)
    assert _left(entry) == set()


def test_two_fetches_at_once_do_not_meet(served: Served) -> None:
    entry = _entry(served)
    going_on = threading.Event()
    served.replies = [Reply(stall=going_on)]
    failures: list[EdgeError] = []

    def first() -> None:
        try:
            fetch(entry, options=QUICK)
        except EdgeError as error:
            failures.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    until(lambda: bool(served.requests))
    with pytest.raises(DownloadError, match="another process"):
        fetch(entry, options=QUICK)
    going_on.set()
    thread.join()
    assert failures == []
    assert cached_path(entry).read_bytes() == BODY


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command to make a certificate")
def test_https_is_checked_against_the_trusted_certificates(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
            f"-addext subjectAltName=DNS:localhost -keyout {key.name} -out {certificate.name}"
        ).split(),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": served}))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    entry = _entry(served, url=f"https://localhost:{server.server_port}/weights.onnx")
    try:
        with pytest.raises(DownloadError, match="certificate is not valid"):
            fetch(entry, options=QUICK)
        assert served.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert fetch(entry, options=QUICK).read_bytes() == BODY
    finally:
        server.shutdown()
        server.server_close()
