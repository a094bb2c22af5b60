"""What the images' HEALTHCHECK says, and that it is what the container files name."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from images import IMAGES, stage
from servers import until

from edge.errors import InputError
from edge.live import health
from edge.live.address import Address


def command_line(folder: Path, *words: str) -> Path:
    """As /proc/1/cmdline has it."""
    path = folder / "cmdline"
    path.write_bytes(b"".join(word.encode() + b"\0" for word in words))
    return path


@pytest.mark.parametrize(
    ("words", "address"),
    [
        ("edge doctor", None),
        ("python edge run --bundle b --serve-token-file token --serve-name cam", None),
        ("python edge run --serve 8080 --source 0", Address("127.0.0.1", 8080)),
        ("python edge run --serve=0.0.0.0:80 --serve-token-file=t", Address("0.0.0.0", 80)),
        ("/sbin/docker-init -- edge run --serve [::]:80", Address("::", 80)),
        ("edge run --serve 1 --serve 2", Address("127.0.0.1", 2)),
    ],
)
def test_the_command_line_says_where_to_ask(words: str, address: Address | None) -> None:
    assert health.served_at(words.split()) == address


def test_an_address_that_is_none_is_no_health(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError):
        health.served_at(["edge", "run", "--serve"])
    assert health.main(command_line(tmp_path, "edge", "run", "--serve")) == 1
    assert health.main(tmp_path / "nowhere") == 1
    assert capsys.readouterr().out.count("\n") == 2


def test_a_camera_that_gives_nothing_any_more_is_not_well(
    start: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with start(stale_after=0.5) as rig:
        line = command_line(tmp_path, "edge", "run", "--serve", str(rig.page.address.port))
        rig.wait(lambda state: state["people"])
        said = ""

        def answers(status: int) -> bool:
            nonlocal said
            answered = health.main(line)
            said = capsys.readouterr().out
            return answered == status

        until(lambda: answers(0))  # a busy machine may stall for as long as the camera may not
        assert said == "ok\n"
        rig.camera.picture = None
        until(lambda: answers(1))
        assert said.startswith("door <b>: nothing for ")


def test_a_run_that_does_not_answer_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as hung:  # listens, as the system does for it, and says nothing
        port = hung.getsockname()[1]
        assert health.main(command_line(tmp_path, "edge", "run", f"--serve=0.0.0.0:{port}")) == 1
    assert health.main(command_line(tmp_path, "edge", "run", f"--serve=0.0.0.0:{port}")) == 1
    assert capsys.readouterr().out.count("does not answer") == 2


@pytest.mark.parametrize("image", IMAGES)
def test_the_command_of_each_image_runs(repository: Path, image: str) -> None:
    """Here no process 1 serves anything, so that it has nothing to complain of."""
    check = dict(stage(repository, image))["HEALTHCHECK"]
    program, *arguments = json.loads(check.partition("CMD ")[2])
    assert program == "python3"
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=repository)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


def test_asking_loads_no_library() -> None:
    code = "import sys, edge.live.health; print(*sorted({'numpy', 'cv2', 'aiohttp', 'asyncio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
