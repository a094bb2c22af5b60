"""Real processes at one gallery: killed while they write, and at work side by side."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import killed_writers
import pytest
from killed_writers import BINDING, vector_of

from edge.cli.main import main
from edge.gallery import Gallery


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Gallery.create(tmp_path / "g", BINDING).close()
    return tmp_path / "g"


def kills(path: Path, rounds: int, start: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, killed_writers.__file__, str(path), str(rounds), str(start)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_kill_loses_nothing_acknowledged_and_leaves_nothing_half_done(path: Path) -> None:
    done = kills(path, 50)
    _, errors = done.communicate()
    assert done.returncode == 0, errors


@pytest.mark.slow
def test_a_thousand_kills(tmp_path: Path) -> None:
    # Most of it is waiting for the disk: four galleries at once.
    paths = [tmp_path / str(i) for i in range(4)]
    for path in paths:
        Gallery.create(path, BINDING).close()
    running = [kills(path, 250, 250 * i) for i, path in enumerate(paths)]
    for done in running:
        _, errors = done.communicate()
        assert done.returncode == 0, errors


def test_two_enrolments_at_once_into_a_gallery_that_is_being_read(toy: Any, tmp_path: Path) -> None:
    path = tmp_path / "g"
    processes = []
    for half in range(2):
        for person in range(3):
            name = f"p{half}{person}"
            toy.write_scene(tmp_path / f"in{half}" / f"{name}.png", 200, 200, [(3 * half + person, 40, 40)])
        command = [sys.executable, "-m", "edge", "enroll", "--bundle", str(toy.path), "--gallery", str(path)]
        processes.append(
            subprocess.Popen([*command, str(tmp_path / f"in{half}")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
    seen: list[int] = []
    while any(process.poll() is None for process in processes):
        if Gallery.exists(path):
            with Gallery.open(path) as reader:
                seen.append(len(reader.snapshot().names))
        time.sleep(0.02)
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    with Gallery.open(path) as gallery:
        assert sorted(gallery.snapshot().names) == [f"p{half}{person}" for half in range(2) for person in range(3)]
    assert seen == sorted(seen)


def test_a_locked_gallery_is_said_in_one_line_after_a_while(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edge.gallery.schema.BUSY_SECONDS", 0.2)
    with Gallery.open(path) as gallery:
        gallery.add("ada", vector_of(1), ["x"])
    locker = sqlite3.connect(path / "gallery.sqlite3", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    assert main(["gallery", "rename", str(path), "ada", "bob"]) == 2
    assert 0.15 < time.monotonic() - started < 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot be written (database is locked)" in error
    assert main(["gallery", "list", str(path)]) == 0
    locker.execute("ROLLBACK")
    locker.close()
    assert main(["gallery", "rename", str(path), "ada", "bob"]) == 0
