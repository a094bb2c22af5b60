"""What it costs to bring a copy up to date, and what happens when the centre goes away in the middle of that."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.central.figures import milliseconds, spread
from benchmarks.central.made import AXES, BINDING, SEED, SITES
from benchmarks.vectors import faces
from edge.gallery import Gallery, MilvusPlace, NewEntry, centre
from edge.gallery.centre import MilvusCentre
from edge.gallery.pull import pull
from edge.gallery.store import StoreUnavailableError
from edge.types import Floats

CHANGES = 1_000


def measure_pull(place: MilvusPlace, folder: Path) -> dict[str, Any]:
    """1,000 changes and then one, each a version of its own, pulled to the copy that `measure_copy` made."""
    report: dict[str, Any] = {}
    copy = folder / "copy"
    fresh = iter(faces(3 * CHANGES, AXES, SEED + 3))
    for name, change in (("added", _add), ("half added, half renamed", _mix), ("forgotten", _forget)):
        runs = []
        for number, changes in enumerate((CHANGES, 1) if name != "forgotten" else (1,)):
            with Gallery.open(place) as gallery:
                started = time.monotonic()
                for i in range(changes):
                    change(gallery, f"{name} {number} {i}", i, next(fresh))
                made = round(time.monotonic() - started, 2)
            runs.append({"changes": changes, "seconds_to_make_them": made, **timed_pull(place, copy)})
        report[name] = runs
    started = time.perf_counter()
    with Gallery.open(copy) as gallery:
        gallery.snapshot()
    report["opening the copy, s"] = round(time.perf_counter() - started, 2)
    return report


def measure_away(folder: Path) -> dict[str, Any]:
    """A server is killed when half of a pull is there; the copy goes on, and the pull when the server is back."""
    data, copy = folder / "served", folder / "away"
    for path in (data, copy):
        shutil.rmtree(path, ignore_errors=True)
    centre.PART_ROWS = 500
    with _serving(data) as (process, port):
        place = MilvusPlace(f"http://127.0.0.1:{port}")
        rows = faces(10_000, AXES, SEED)
        with Gallery.create(place, BINDING) as gallery:
            gallery.add_entries([NewEntry(f"p{n}", rows[n], f"{n}.jpg") for n in range(5_000)])
        pulled = timed_pull(place, copy)
        with Gallery.open(place) as gallery:
            for start in range(5_000, 10_000, 250):
                gallery.add_entries([NewEntry(f"p{n}", rows[n], f"{n}.jpg") for n in range(start, start + 250)])
        killed_at: list[tuple[int, int, float]] = []

        fetched: list[int] = []

        def kill_in_the_middle(records: int) -> None:
            fetched.append(records)
            if sum(fetched) > 5_000 and not killed_at:
                killed_at.append((sum(fetched), 10_000, time.perf_counter()))
                process.kill()
                process.wait()

        with Gallery.open(copy) as running:
            before = running.snapshot()
            try:
                with MilvusCentre(place) as there:
                    pull(there, copy, None, kill_in_the_middle)
                raise AssertionError("the server was killed before everything was there")
            except StoreUnavailableError as error:
                gave_up = time.perf_counter() - killed_at[0][2]
                words = str(error)
            calls = [milliseconds(running.snapshot) for _ in range(100)]
            same = running.snapshot() is before
            started = time.perf_counter()
            with contextlib.suppress(StoreUnavailableError), MilvusCentre(place):
                pass
            refused = time.perf_counter() - started
            with _serving(data, port):
                resumed = timed_pull(place, copy)
            grown = len(running.snapshot()) - len(before)
    return {
        "first copy": pulled,
        "records fetched when the server was killed": killed_at[0][0],
        "records of the pull": killed_at[0][1],
        "seconds until the pull gave up": round(gave_up, 3),
        "what it said": words.replace(str(port), "PORT"),
        "a running camera kept its snapshot": same,
        "its snapshot call, ms": spread(calls),
        "seconds until a new pull says that the server is away": round(refused, 3),
        "pull after the server was started again": resumed,
        "embeddings the running camera then had more": grown,
    }


def timed_pull(place: MilvusPlace, path: Path) -> dict[str, Any]:
    """Brings a copy up to date, and says what that cost."""
    started, cpu = time.monotonic(), time.process_time()
    with MilvusCentre(place) as there:
        opened = time.monotonic() - started
        done = pull(there, path)
    return {
        "records": done.records,
        "seconds": round(time.monotonic() - started, 3),
        "of_which_opening_the_centre": round(opened, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
    }


def _add(gallery: Gallery, name: str, i: int, row: Floats) -> None:
    gallery.add(f"site{i % SITES}/{name}", row[None], [f"new{i}.jpg"])


def _mix(gallery: Gallery, name: str, i: int, row: Floats) -> None:
    if i % 2 == 0:
        _add(gallery, name, i, row)
    else:
        old = f"site{i % SITES}/p{i // 10 * SITES + i % SITES}"
        gallery.rename(old, f"{old} {name}")


def _forget(gallery: Gallery, name: str, i: int, row: Floats) -> None:
    gallery.forget("site0/p0")


@contextlib.contextmanager
def _serving(folder: Path, port: int | None = None) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Milvus Lite as a server in a process of its own."""
    if port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - our own
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
            time.sleep(0.05)
        yield process, port
    finally:
        process.kill()
        process.wait()
