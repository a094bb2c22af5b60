"""Writers of a gallery that are killed, again and again: `python killed_writers.py GALLERY ROUNDS START`.

A process of its own, which starts a writer by a fork: one of pytest's with all that the tests have loaded takes longer
than what the writer does. Ends with an AssertionError where a kill has left what it must not.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edge.gallery import Binding, Gallery, copies
from edge.gallery.vectors import MATRIX_NAME
from edge.types import Floats

SIZE = 16
BINDING = Binding("c" * 64, "a" * 64, "embedder-fp32", SIZE)

People = dict[str, dict[bytes, bool]]
"""Vectors by person, and whether each is a negative."""


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


class Killer:
    """Starts writers and kills each at another moment of what it is doing, however fast that goes here and now."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._pace = 0.003
        """Seconds that a deed takes, as the last writer did them."""

    def killed(self, path: Path, seed: int) -> list[str]:
        """What a writer logged until SIGKILL met it, within the first deeds or right after them."""
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            with contextlib.suppress(BrokenPipeError):
                try:
                    write_for_ever(path, seed, writing)
                except Exception:
                    traceback.print_exc()
            os._exit(1)
        os.close(writing)
        with os.fdopen(reading, "rb") as said:
            log = self._until(said, self._chance.choice([1, 2, 4]))
            time.sleep(self._chance.uniform(0, 1.2 * self._pace))
            os.kill(child, signal.SIGKILL)
            log += said.read()
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the writer ended by itself"
        return log.decode().splitlines()

    def _until(self, said: BinaryIO, deeds: int) -> bytes:
        """The log up to where so many deeds have begun."""
        log, begun, since = b"", 0, 0.0
        while begun < deeds:
            line = said.readline()
            assert line, "the writer ended by itself"
            log += line
            if line != b"done\n":
                begun, since = begun + 1, since or time.monotonic()
        if deeds > 1:
            self._pace = (time.monotonic() - since) / (deeds - 1)
        return log


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
    """After each kill the gallery is as the deeds that were done left it, with the one under way done or not at all.

    So many rounds, and more where those have met no deed before it counted, none after, or nobody who was forgotten.
    """
    chance, killer = random.Random(start), Killer(start)
    people: People = {}
    ever: set[bytes] = set()
    outcomes = set[tuple[bool, int]]()
    seed = start
    while seed < start + rounds or not ({(True, 0), (True, 1)} <= outcomes and ever - vectors_of(people)):
        assert seed < start + 10 * rounds, f"kills met only {outcomes}, and this test has shown nothing"
        log = killer.killed(path, seed)
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
            if seed % 10 == 0 or seed >= start + rounds - 1:
                content = b"".join(file.read_bytes() for file in path.iterdir())
                assert not any(vector in content for vector in ever - vectors_of(people))
        seed += 1


if __name__ == "__main__":
    kill_while_writing(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
