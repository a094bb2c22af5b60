"""Real processes at one gallery: killed while they write, and at work side by side."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.cli.main import main
from edge.gallery import Binding, Gallery, copies
from edge.gallery.vectors import MATRIX_NAME
from edge.types import Floats

SIZE = 16
BINDING = Binding("c" * 64, "a" * 64, "embedder-fp32", SIZE)

People = dict[str, dict[bytes, bool]]
"""Vectors by person, and whether each is a negative."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Gallery.create(tmp_path / "g", BINDING).close()
    return tmp_path / "g"


def vector_of(seed: int) -> Floats:
    vector = np.random.default_rng(seed).normal(size=(1, SIZE)).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def deeds(people: set[str], seed: int) -> Iterator[dict[str, Any]]:
    """What a writer does, one after another; every deed is possible after those before it."""
    chance = random.Random(seed)
    for number in range(seed * 1000, seed * 1000 + 1000):
        what = chance.choices(["add", "reject", "rename", "forget"], [8, 3, 2, 5])[0]
        name, other = chance.choice(["ada", "bob", "eve"]), f"x{number}"
        if what == "add" or name not in people:
            people.add(name)
            yield {"deed": "add", "name": name, "seed": number}
        elif what == "reject":
            yield {"deed": "reject", "name": name, "seed": number}
        elif what == "rename":
            people.remove(name)
            yield {"deed": "rename", "name": name, "other": other}
        else:
            people.remove(name)
            yield {"deed": "forget", "name": name}


def do(gallery: Gallery, deed: dict[str, Any]) -> None:
    name = deed["name"]
    if deed["deed"] in ("add", "reject"):
        getattr(gallery, deed["deed"])(name, vector_of(deed["seed"]), ["x"])
    elif deed["deed"] == "rename":
        gallery.rename(name, deed["other"])
    else:
        gallery.forget(name)


def expect(people: People, deed: dict[str, Any]) -> People:
    """`people` after the deed."""
    after = {name: dict(vectors) for name, vectors in people.items()}
    name = deed["name"]
    if deed["deed"] in ("add", "reject"):
        after.setdefault(name, {})[vector_of(deed["seed"]).tobytes()] = deed["deed"] == "reject"
    elif deed["deed"] == "rename":
        after[deed["other"]] = after.pop(name)
    else:
        del after[name]
    return after


def write_for_ever(path: Path, seed: int, log: int) -> None:
    """Says what it is about to do, does it, and says that it is done."""
    copies.LATE_ROWS = copies.LATE_SHARE = 0  # the matrix is written each time, so that a kill may tear it
    with Gallery.open(path) as gallery:
        people = {person.name for person in gallery.identities()}
        for deed in deeds(people, seed):
            os.write(log, json.dumps(deed).encode() + b"\n")
            do(gallery, deed)
            os.write(log, b"done\n")
            gallery.snapshot()


def killed_writer(path: Path, seed: int, seconds: float) -> list[str]:
    """What a writer logged until SIGKILL met it, `seconds` after its first deed."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            write_for_ever(path, seed, writing)
        os._exit(1)
    os.close(writing)
    log = os.read(reading, 1 << 16)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reading, 1 << 16):
        log += more
    os.close(reading)
    assert log
    return log.decode().splitlines()


def vectors_of(people: People) -> set[bytes]:
    return {vector for vectors in people.values() for vector in vectors}


def stored(gallery: Gallery) -> People:
    people: People = {person.name: {} for person in gallery.identities()}
    for entry in gallery.entries():
        people[entry.identity][entry.vector.tobytes()] = entry.negative
    return people


def searched(gallery: Gallery) -> People:
    snapshot = gallery.snapshot()
    found = {name: {row.tobytes(): False for row in snapshot.of(name)} for name in snapshot.names}
    if snapshot.negatives is not None:
        for row, owner in zip(snapshot.negatives.vectors, snapshot.negatives.owners, strict=True):
            found[snapshot.names[owner]][row.tobytes()] = True
    return found


def kill_while_writing(path: Path, rounds: int, start: int = 0) -> None:
    """After each kill the gallery is as the deeds that were done left it, with the one under way done or not at all."""
    chance = random.Random(start)
    people: People = {}
    ever: set[bytes] = set()
    outcomes = set()
    for seed in range(start, start + rounds):
        log = killed_writer(path, seed, chance.uniform(0, chance.choice([0.003, 0.01, 0.03])))
        pending = None
        for line in log:
            if line != "done":
                pending = json.loads(line)
                continue
            assert pending is not None
            people, pending = expect(people, pending), None
            ever |= vectors_of(people)
        if seed % 7 == 0 and (matrix := path / MATRIX_NAME).exists():
            matrix.write_bytes(matrix.read_bytes()[: chance.randrange(2000)])  # torn, as a power cut leaves it
        with Gallery.open(path) as gallery:
            now = stored(gallery)
            ways = [people] if pending is None else [people, expect(people, pending)]
            assert now in ways
            outcomes.add((pending is not None, ways.index(now)))
            assert searched(gallery) == {name: vectors for name, vectors in now.items() if not all(vectors.values())}
            people = now
            ever |= vectors_of(people)
            if seed % 10 == 0 or seed == start + rounds - 1:
                content = b"".join(file.read_bytes() for file in path.iterdir())
                assert not any(vector in content for vector in ever - vectors_of(people))
    # Kills met deeds before and after they counted, or the test has shown nothing.
    assert {(True, 0), (True, 1)} <= outcomes
    assert ever - vectors_of(people)


def test_a_kill_loses_nothing_acknowledged_and_leaves_nothing_half_done(path: Path) -> None:
    kill_while_writing(path, 50)


@pytest.mark.slow
def test_a_thousand_kills(tmp_path: Path) -> None:
    # Most of it is waiting for the disk: four galleries at once.
    paths = [tmp_path / str(i) for i in range(4)]
    for path in paths:
        Gallery.create(path, BINDING).close()
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(kill_while_writing, [(path, 250, 250 * i) for i, path in enumerate(paths)])


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
