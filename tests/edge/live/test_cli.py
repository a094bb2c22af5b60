"""`edge run --serve` from outside: what it refuses, and a run that is looked at while it goes on."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.cli import main as command

SECRET = "0123456789abcdef-secret"


def edge(*arguments: object) -> tuple[int, str]:
    """Runs a command in this process: its exit code and what it says on standard error."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = command.main([str(argument) for argument in arguments])
    return code, said.getvalue()


@pytest.fixture(scope="module")
def gallery(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("live")
    toy.write_scene(root / "people" / "ada" / "0.png", 200, 200, [(1, 40, 48)])
    assert edge("enroll", "--bundle", toy.path, "--gallery", root / "gallery", root / "people")[0] == 0
    return root / "gallery"


def run(toy: Any, gallery: Path, *further: object) -> tuple[int, str]:
    return edge("run", "--bundle", toy.path, "--gallery", gallery, "--source", "none.mp4", *further)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "[::]", "camera.local"])
def test_other_machines_are_let_in_with_a_token_only(
    toy: Any, gallery: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARCEDGE_SERVE_TOKEN", raising=False)
    code, said = run(toy, gallery, "--serve", f"{host}:8080")
    assert code == 2
    assert said.count("\n") == 1
    assert "other machines could see the page; give a token" in said


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (("--serve", "http://localhost:80"), "not [HOST:]PORT"),
        (("--serve", "0", "--serve-token-file", "nowhere"), "the token cannot be read"),
        (("--serve-name", "cam.example"), "add --serve PORT"),
        (("--stale-after", "5"), "add --serve PORT"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(toy: Any, gallery: Path, further: tuple[str, ...], message: str) -> None:
    code, said = run(toy, gallery, *further)
    assert (code, said.count("\n")) == (2, 1)
    assert message in said


def test_a_weak_token_is_refused(toy: Any, gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCEDGE_SERVE_TOKEN", "secret")
    code, said = run(toy, gallery, "--serve", "0")
    assert code == 2
    assert "$ARCEDGE_SERVE_TOKEN: a token has 16 or more" in said
    assert "secret:" not in said


def test_a_port_in_use_is_said_to_be(toy: Any, gallery: Path, tmp_path: Path) -> None:
    toy.write_video(tmp_path / "v.mp4", [toy.scene(320, 200, [])] * 3)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = edge(
            *("run", "--bundle", toy.path, "--gallery", gallery, "--source", tmp_path / "v.mp4", "--serve", port)
        )
    assert code == 2
    assert f"--serve 127.0.0.1:{port}: cannot listen there" in said


def test_the_extra_is_named_where_it_is_missing(toy: Any, gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, said = run(toy, gallery, "--serve", "0")
    assert code == 2
    assert "pip install 'arcedge[live]'" in said


def test_without_the_page_its_libraries_are_not_loaded() -> None:
    code = (
        "import sys, edge.cli.main\n"
        "edge.cli.main.build_parser(edge.cli.main.find_verbs()).format_help()\n"
        "import edge.pipeline, edge.sinks\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'aiohttp', 'prometheus_client', 'asyncio'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`edge run` in a process of its own, and the address of its page."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", "run", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        found = None
        while found is None and (line := process.stderr.readline()):
            found = re.search(r"live page at (http://\S+)", line)
        assert found is not None
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def test_a_run_is_looked_at_and_ends_cleanly_while_somebody_looks(toy: Any, gallery: Path, tmp_path: Path) -> None:
    frames = [toy.scene(320, 200, [(1, i % 200, 24)]) for i in range(500)]
    toy.write_video(tmp_path / "long.mp4", frames)
    (tmp_path / "token").write_text(SECRET)
    options = ("--bundle", toy.path, "--gallery", gallery, "--source", tmp_path / "long.mp4", "--realtime")
    with running(*options, "--serve", "0", "--serve-token-file", tmp_path / "token") as (process, url):
        request = urllib.request.Request(f"{url}api/events", headers={"Authorization": f"Bearer {SECRET}"})
        with urllib.request.urlopen(request, timeout=60) as events:
            while b'"name": "ada"' not in events.readline():
                pass
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert b'"ended": true' in events.read()
        assert process.wait(timeout=60) == 0
        assert time.monotonic() - began < 15, "long before the video would be over"


@pytest.mark.slow
def test_a_real_stranger_is_named_from_the_page(shipped_bundle: Path, tmp_path: Path) -> None:
    """The astronaut of scikit-image before the weights that ship: unknown, enrolled without a doubt, then known."""
    skimage_data = pytest.importorskip("skimage.data")
    bundle = shipped_bundle
    hopper = pytest.importorskip("matplotlib.cbook").get_sample_data("grace_hopper.jpg", asfileobj=False)
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "grace_hopper.jpg").write_bytes(Path(str(hopper)).read_bytes())
    gallery = tmp_path / "gallery"
    assert edge("enroll", "--bundle", bundle, "--gallery", gallery, tmp_path / "people")[0] == 0
    astronaut = cv2.cvtColor(skimage_data.astronaut(), cv2.COLOR_RGB2BGR)
    writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 8.0, (512, 512))
    for i in range(240):
        writer.write(np.roll(astronaut, round(8 * np.sin(i / 5)), axis=1))
    writer.release()
    options = ("--bundle", bundle, "--gallery", gallery, "--source", tmp_path / "v.mp4", "--realtime")
    with running(*options, "--serve", "0") as (_, url):
        state = wait(url, lambda state: state["strangers"] and state["strangers"][0]["looks"] >= 2)
        assert state["strangers"][0]["nearest"] == "grace_hopper"
        body = b'{"name": "Eileen Collins"}'
        number = state["strangers"][0]["id"]
        request = urllib.request.Request(
            f"{url}api/strangers/{number}/name", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            told = answer.read()
        assert b'"warnings": []' in told
        state = wait(url, lambda state: state["people"])
        assert [person["name"] for person in state["people"]] == ["Eileen Collins"]
        assert state["people"][0]["similarity"] > 0.8
        assert not state["strangers"]


def wait(url: str, condition: Any) -> Any:
    """The page's state once it fulfils a condition."""
    end = time.monotonic() + 60
    while True:
        with urllib.request.urlopen(f"{url}api/state", timeout=60) as answer:
            state = json.loads(answer.read())
        if condition(state):
            return state
        assert time.monotonic() < end, state
        time.sleep(0.2)
