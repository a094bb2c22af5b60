"""The engine `triton` against a server that speaks the protocol and really runs the bundle's models."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from servers import until

from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.engines import REMOTE_ENGINES, SessionOptions, get_engine, open_session
from edge.engines.triton import Address, TritonEngine
from edge.engines.triton.client import TritonClient
from edge.errors import EngineError, InputError


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 112, 112, 3)).astype(np.uint8)


@pytest.fixture
def url(serving: Any, repository: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    with serving(repository) as server:
        monkeypatch.setenv("ARCEDGE_TRITON_URL", server.url)
        monkeypatch.setenv("ARCEDGE_TRITON_TIMEOUT", "60")
        yield server.url


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
def test_embeddings_are_those_of_the_local_engine_for_any_batch(toy: Any, url: str, count: int) -> None:
    with FaceAnalyzer(toy.bundle) as local, FaceAnalyzer(toy.bundle, AnalyzerOptions(engine="triton")) as remote:
        np.testing.assert_allclose(remote.embed(crops(count)), local.embed(crops(count)), atol=1e-6)


def test_faces_of_any_size_of_frame_are_those_of_the_local_engine(toy: Any, url: str) -> None:
    with FaceAnalyzer(toy.bundle) as local, FaceAnalyzer(toy.bundle, AnalyzerOptions(engine="triton")) as remote:
        for width, height in ((320, 256), (480, 320)):
            scene = toy.scene(width, height, [(1, 32, 64), (2, 160, 128)])
            wanted, found = local.detect(scene), remote.detect(scene)
            assert len(wanted) == 2
            np.testing.assert_allclose([face.box for face in found], [face.box for face in wanted], atol=1e-4)
        assert remote.describe()["engine"] == "triton"
        assert remote.describe()["device"] == f"grpc://{url}"
        assert "arcedge_embedder version 1 (embedder-fp32)" in remote.describe()["model"]


def test_no_request_is_larger_than_the_configuration_allows(toy: Any, serving: Any, repository: Path) -> None:
    with serving(repository) as server:
        model = toy.bundle.load(toy.bundle.select("embedder"))
        with TritonEngine(Address.parse(server.url)).open(model, SessionOptions()) as session:
            assert session.run({"input": crops(11)})["embedding"].shape == (11, 48)
            assert session.describe()["max_batch"] == "4"
        assert server.service.models["arcedge_embedder"].largest == 4


def test_several_threads_each_with_a_session_of_its_own_do_not_disturb_each_other(toy: Any, url: str) -> None:
    model = toy.bundle.load(toy.bundle.select("embedder"))
    found: dict[int, np.ndarray] = {}

    def work(number: int, session: Any) -> None:
        for _ in range(5):
            found[number] = session.run({"input": crops(number)})["embedding"]

    sessions = [open_session(model, "triton") for _ in range(3)]
    threads = [threading.Thread(target=work, args=(i + 1, session)) for i, session in enumerate(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sessions[0].close()
    with open_session(model) as local:
        for number, rows in found.items():
            np.testing.assert_allclose(rows, local.run({"input": crops(number)})["embedding"], atol=1e-4)
    assert sessions[1].run({"input": crops(1)})["embedding"].shape == (1, 48), "closing one took another's connection"
    for session in sessions:
        session.close()


def test_another_bundles_models_are_refused(toy_models: dict[str, bytes], own_bundle: Path, url: str) -> None:
    other = toy_models["embedder"] + b"\x12\x00"  # an empty producer name: the same model, other bytes
    with pytest.raises(
        EngineError, match=r"no model of this bundle \(embedder-fp32 in arcedge_embedder, detector-fp32"
    ):
        open_session(other, "triton")


def test_a_contract_that_differs_is_refused(toy: Any, url: str) -> None:
    variant = toy.bundle.select("embedder")
    other = replace(variant.contract, normalised=True)
    assert open_session(toy.bundle.load(variant), "triton", SessionOptions(contract=variant.contract.digest()))
    with pytest.raises(EngineError, match="states another model contract"):
        open_session(toy.bundle.load(variant), "triton", SessionOptions(contract=other.digest()))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dims: [ 112, 112, 3 ]", "dims: [ 3, 112, 112 ]", r"input input is uint8 \?×3×112×112, the bundle's .*112×3"),
        ("TYPE_UINT8", "TYPE_FP32", "input input is float32"),
        ('name: "embedding"', 'name: "rows"', "its outputs are rows, the bundle's embedding"),
        ('"arcedge.model_version"', '"arcedge.forgotten"', "written by an older edge triton"),
    ],
)
def test_what_the_server_takes_and_gives_must_be_the_bundles(
    toy: Any, write: Any, serving: Any, old: str, new: str, message: str
) -> None:
    folder = write(toy.bundle)
    config = folder / "arcedge_embedder" / "config.pbtxt"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    model = toy.bundle.load(toy.bundle.select("embedder"))
    with serving(folder) as server, pytest.raises(EngineError, match=message) as caught:
        TritonEngine(Address.parse(server.url)).open(model, SessionOptions())
    assert "\n" not in str(caught.value)


def test_a_server_that_moves_on_to_another_version_is_not_asked_for_it(
    toy: Any, write: Any, serving: Any, kserve: Any
) -> None:
    folder = write(toy.bundle)
    model = toy.bundle.load(toy.bundle.select("embedder"))
    with serving(folder) as server, TritonEngine(Address.parse(server.url)).open(model, SessionOptions()) as session:
        assert len(session.run({"input": crops(2)})["embedding"]) == 2
        # What stands there is another model, so that the bundle's comes as the next version.
        (folder / "arcedge_embedder" / "1" / "model.onnx").write_bytes(b"another")
        write(toy.bundle)
        server.service.models["arcedge_embedder"] = kserve.Model(folder / "arcedge_embedder")
        with pytest.raises(EngineError, match="version 1 is not found"):
            session.run({"input": crops(2)})
        with TritonEngine(Address.parse(server.url)).open(model, SessionOptions()) as again:
            assert "version 2" in again.describe()["model"]


def patiently(work: Callable[..., Any], *given: Any) -> Any:
    """What it gives, as soon as the server answers in time: a busy machine does not always."""
    made: list[Any] = []

    def succeeds() -> bool:
        with contextlib.suppress(EngineError):
            made.append(work(*given))
        return bool(made)

    until(succeeds)
    return made[0]


def test_a_server_that_is_slow_or_not_there_is_one_line_in_time(toy: Any, serving: Any, repository: Path) -> None:
    model = toy.bundle.load(toy.bundle.select("embedder"))
    with serving(repository, delay=10.0) as server:
        session = patiently(TritonEngine(Address.parse(server.url, timeout=0.5)).open, model, SessionOptions())
        begun = time.monotonic()
        with session, pytest.raises(EngineError, match=r"no answer within 0\.5 s"):
            session.run({"input": crops(1)})
        assert time.monotonic() - begun < 8, "before the answer"
    begun = time.monotonic()
    with pytest.raises(EngineError, match="no Triton server answers there") as caught:
        TritonEngine(Address.parse("127.0.0.1:9", timeout=0.5)).open(model, SessionOptions())
    assert time.monotonic() - begun < 30
    assert "\n" not in str(caught.value)


def test_a_server_that_is_gone_is_not_called_slow_where_the_last_attempt_had_no_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tritonclient.utils import InferenceServerException

    client, statuses = (
        TritonClient(Address.parse("127.0.0.1:9", timeout=60.0)),
        iter(("UNAVAILABLE", "DEADLINE_EXCEEDED")),
    )

    def metadata(client_timeout: float) -> None:
        raise InferenceServerException("no", status=f"StatusCode.{next(statuses)}")

    monkeypatch.setattr(client._client, "get_server_metadata", metadata)
    with pytest.raises(EngineError, match="no Triton server answers there"):
        client.server_version()


def test_a_server_killed_and_started_again_is_found_again(toy: Any, started: Any, repository: Path) -> None:
    model = toy.bundle.load(toy.bundle.select("embedder"))
    process, port = started(repository)
    try:
        engine = TritonEngine(Address.parse(f"127.0.0.1:{port}", timeout=2.0))
        with patiently(engine.open, model, SessionOptions()) as session:
            before = patiently(session.run, {"input": crops(2)})["embedding"]
            process.kill()
            process.wait()
            with pytest.raises(EngineError, match="no Triton server answers"):
                session.run({"input": crops(2)})
            process, _ = started(repository, port)
            np.testing.assert_array_equal(patiently(session.run, {"input": crops(2)})["embedding"], before)
    finally:
        process.kill()
        process.wait()


def test_a_model_that_the_server_does_not_have_is_no_server_that_is_gone(
    toy: Any, serving: Any, repository: Path
) -> None:
    model = toy.bundle.load(toy.bundle.select("embedder"))
    with serving(repository) as server:
        engine = TritonEngine(Address.parse(server.url, timeout=60))
        begun = time.monotonic()
        with engine.open(model, SessionOptions()) as session:
            server.service.unloaded = "arcedge_embedder"
            with pytest.raises(EngineError, match="has no available versions"):
                session.run({"input": crops(1)})
        with pytest.raises(EngineError, match=r"no model of this bundle \(detector-fp32 in arcedge_detector\)"):
            engine.open(model, SessionOptions())
        assert time.monotonic() - begun < 50, "it was asked again and again"


def certificate(tmp_path: Path) -> tuple[bytes, bytes]:
    """A private key and a certificate for localhost that signs itself, PEM."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, made.public_bytes(serialization.Encoding.PEM)


def test_over_tls_a_server_must_have_a_certificate_this_machine_trusts(
    toy: Any, kserve: Any, repository: Path, tmp_path: Path
) -> None:
    key, chain = certificate(tmp_path)
    (tmp_path / "ca.pem").write_bytes(chain)
    picture = toy.write_scene(tmp_path / "photos" / "1.png", 256, 192, [(1, 64, 64)])
    server, port = kserve.serve(kserve.Service(repository), tls=(key, chain))
    try:
        common = ["embed", "--bundle", toy.path, picture, "--out", tmp_path / "o.npz", "--engine", "triton"]
        asked = [*common, "--triton-url", f"grpcs://localhost:{port}", "--triton-timeout", "30"]
        trusted = {**os.environ, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(tmp_path / "ca.pem")}
        assert edge(*asked, env=trusted).returncode == 0
        assert edge(*asked[:-1], "1").returncode == 2
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("text", "target", "tls"),
    [
        ("gpu", "gpu:8001", False),
        ("gpu:9", "gpu:9", False),
        ("grpc://10.0.0.7:8001/", "10.0.0.7:8001", False),
        ("grpcs://gpu.local", "gpu.local:8001", True),
        ("[::1]:7", "[::1]:7", False),
    ],
)
def test_addresses(text: str, target: str, tls: bool) -> None:
    address = Address.parse(text)
    assert (address.target, address.tls) == (target, tls)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", "http://gpu:8000", "ftp://gpu", "gpu:port", "gpu:99999", "grpc://u:p@gpu", "gpu/v2"]
)
def test_what_is_no_address_is_the_users_mistake(text: str) -> None:
    with pytest.raises(InputError):
        Address.parse(text)


def test_without_a_server_named_the_user_is_told_how(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCEDGE_TRITON_URL", raising=False)
    assert "triton" in REMOTE_ENGINES
    assert get_engine("triton").available() is None
    with pytest.raises(EngineError, match="--triton-url"):
        open_session(toy.bundle.load(toy.bundle.select("embedder")), "triton")


def edge(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)


def test_embed_writes_the_same_file_as_the_local_engine(toy: Any, url: str, tmp_path: Path) -> None:
    for person in (1, 2, 3):
        toy.write_scene(tmp_path / "photos" / f"{person}.png", 256, 192, [(person, 64, 64)])
    arguments = ["embed", "--bundle", toy.path, tmp_path / "photos", "--out"]
    for name, more in (("local", []), ("remote", ["--engine", "triton", "--triton-url", url])):
        done = edge(*arguments, tmp_path / f"{name}.npz", *more)
        assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "local.npz") as local, np.load(tmp_path / "remote.npz") as remote:
        assert local["found"].all()
        np.testing.assert_allclose(remote["embedding"], local["embedding"], atol=1e-6)


def test_a_bad_address_on_the_command_line_is_one_line(toy: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    common = ["embed", "--bundle", toy.path, tmp_path, "--out", tmp_path / "o.npz", "--engine", "triton"]
    for url, message in (("http://gpu:8000", "HTTP service"), ("127.0.0.1:9", "no Triton server answers")):
        done = edge(*common, "--triton-url", url, "--triton-timeout", "0.3")
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_camera_goes_on_when_its_server_is_killed_and_comes_back(
    toy: Any, kserve: ModuleType, started: Any, repository: Path, tmp_path: Path
) -> None:
    video = toy.write_video(tmp_path / "walk.mp4", [toy.scene(256, 192, [(1, 64, 64)])] * 600, fps=20)
    portrait = toy.write_scene(tmp_path / "people" / "ada" / "1.png", 256, 192, [(1, 64, 64)])
    assert edge("enroll", "--bundle", toy.path, "--gallery", tmp_path / "g", portrait.parent.parent).returncode == 0
    process, port = started(repository)
    events, told = tmp_path / "events.jsonl", tmp_path / "stderr.txt"
    command = [
        *("run", "--bundle", toy.path, "--gallery", tmp_path / "g", "--source", video, "--realtime", "--no-tracking"),
        *("--events", events, "--engine", "triton", "--triton-url", f"127.0.0.1:{port}", "--triton-timeout", "1"),
    ]

    def seen() -> list[str]:
        return events.read_text().splitlines() if events.exists() else []

    def running(true: bool) -> bool:
        assert camera.poll() is None, told.read_text()
        return true

    # It has read its models, so that it is there at once when the camera has missed the one that is killed.
    heir = kserve.Service(repository)
    with told.open("w") as stderr:
        camera = subprocess.Popen([sys.executable, "-m", "edge", *map(str, command)], stderr=stderr)
    try:
        until(lambda: running(bool(seen())), 60)
        process.kill()
        process.wait()
        until(lambda: running("going on with the next frame" in told.read_text()), 60)
        before = len(seen())
        server, _ = kserve.serve(heir, port)
        until(lambda: running(len(seen()) > before), 60)
        camera.send_signal(signal.SIGINT)
        assert camera.wait(60) == 0, told.read_text()
    finally:
        for left in (process, camera):
            left.kill()
            left.wait()
    server.stop(None).wait()
    assert "no Triton server answers" in told.read_text()
    assert heir.models["arcedge_embedder"].largest == 1
    assert all('"ada"' in seen()[number] for number in (0, before)), "ada was not recognised before and after"


def test_frames_stay_here_where_only_the_embedder_is_asked_elsewhere(
    toy: Any, serving: Any, write: Any, monkeypatch: Any
) -> None:
    folder = write(toy.bundle)
    scene = toy.scene(320, 256, [(1, 32, 64)])
    with serving(folder) as server:
        monkeypatch.setenv("ARCEDGE_TRITON_URL", server.url)
        options = AnalyzerOptions(engine="triton", detector_engine="onnxruntime")
        with FaceAnalyzer(toy.bundle, options) as split, FaceAnalyzer(toy.bundle) as local:
            faces = split.detect(scene)
            crop = split.align(scene, faces)
            np.testing.assert_allclose(split.embed(crop), local.embed(crop), atol=1e-6)
        assert server.service.models["arcedge_detector"].largest == 0
        assert server.service.models["arcedge_embedder"].largest == 1
