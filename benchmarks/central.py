"""What a central gallery in Milvus costs: `python -m benchmarks.central fill|search|copy|pull|away`.

    python -m benchmarks.central fill --centre milvus:people.db --vectors 100000
    python -m benchmarks.central search --centre milvus:people.db --out search.json
    python -m benchmarks.central copy --centre milvus:people.db --folder scratch --out copy.json
    python -m benchmarks.central pull --centre milvus:people.db --folder scratch --out pull.json
    python -m benchmarks.central away --folder scratch --out away.json

`fill` makes a gallery of made vectors, distributed as the shipped embedder's, four a person, over ten sites. `search`
compares the index with exact search (recall, latency, all sites and one), in a gallery as `fill` left it. `copy` pulls
the gallery to a device for the first time and gives the copy the probes of `search`. `pull` makes 1,000 changes and
brings that copy up to date. `away` kills a server, in a process of its own, in the middle of a pull. Milvus Lite runs
inside the process that opens its file: its processor time and its memory are counted. Say `--vectors` everywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from benchmarks.provenance import Load, load_between, machine, now, versions
from benchmarks.vectors import SIZE, face_blocks, faces
from edge.gallery import Binding, Gallery, MilvusPlace, NewEntry, centre, milvus, milvus_records, parse_place
from edge.gallery.centre import MilvusCentre
from edge.gallery.pull import pull
from edge.gallery.store import StoreUnavailableError
from edge.matching import nearest
from edge.types import Floats

Found = TypeVar("Found")
BINDING = Binding("c" * 64, "a" * 64, "made", SIZE)
AXES, SEED = 128, 0
SITES = 10
SITE = "site3"
TOP = 10
"""Nearest vectors asked for."""

INDEXES: dict[str, dict[str, Any]] = {
    "FLAT": {"index_type": "FLAT", "metric_type": "IP"},
    "HNSW": {"index_type": "HNSW", "metric_type": "IP", "params": {"M": 16, "efConstruction": 200}},
}
SEARCHES: dict[str, dict[str, Any]] = {
    "FLAT": {"metric_type": "IP"},
    "HNSW": {"metric_type": "IP", "params": {"ef": 128}},
}
EACH = 4
"""Vectors a person."""

BATCH = 10_000
PROBES = 100
CHANGES = 1_000
ROUNDS = 5
PACKAGES = ("pymilvus", "milvus-lite", "faiss-cpu")


def site_of(number: int) -> str:
    """Of a vector: those of one person are of one site."""
    return f"site{number // EACH % SITES}"


def fill(place: MilvusPlace, count: int) -> dict[str, Any]:
    """Makes the gallery, and gives what that cost, and how it grew."""
    started, cpu, growth = time.monotonic(), time.process_time(), []
    with Gallery.create(place, BINDING) as gallery:
        first = 0
        for block in face_blocks(count, AXES, SEED):
            for start in range(first, first + len(block), BATCH):
                numbers = range(start, min(start + BATCH, first + len(block)))
                gallery.add_entries(
                    [NewEntry(f"{site_of(n)}/p{n // EACH}", block[n - first], f"{n}.jpg") for n in numbers]
                )
            first += len(block)
            growth.append(_used(first, started, cpu))
            print(growth[-1], file=sys.stderr)
        gallery.compact()
        gallery.search(block[:1], 1)
    return {
        **_used(count, started, cpu),
        "disk_mb": _disk_mb(Path(place.uri)) if place.embedded else None,
        "growth": growth,
    }


def _used(vectors: int, started: float, cpu: float) -> dict[str, Any]:
    return {
        "vectors": vectors,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "memory_mb": _memory_mb(),
        "peak_memory_mb": _peak_memory_mb(),
    }


@dataclass(frozen=True, slots=True)
class Truth:
    """Of (P, 512) probes, by exact products in float32: (P, 10) numbers of the nearest vectors, best first.

    nearest: among all. of_site: among those of SITE.
    """

    vectors: int
    probes: Floats
    nearest: npt.NDArray[np.int64]
    of_site: npt.NDArray[np.int64]


def find_truth(count: int, asked: int = PROBES) -> Truth:
    """Every second probe is near one of the vectors that `fill` makes, the others are of strangers."""
    probes = faces(asked, AXES, SEED + 1)
    known = np.random.default_rng(2).integers(0, count, len(probes[::2]))
    near, first = np.empty((len(known), SIZE), np.float32), 0
    for block in face_blocks(count, AXES, SEED):
        here = (known >= first) & (known < first + len(block))
        near[here] = block[known[here] - first]
        first += len(block)
    probes[::2] = near + 0.8 * probes[::2]
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    best = [_Best(len(probes)), _Best(len(probes))]
    first = 0
    for block in face_blocks(count, AXES, SEED):
        scores, numbers = probes @ block.T, np.arange(first, first + len(block))
        of_site = np.array([site_of(n) == SITE for n in range(first, first + len(block))])
        best[0].take(scores, numbers)
        best[1].take(scores[:, of_site], numbers[of_site])
        first += len(block)
    return Truth(count, probes, best[0].numbers, best[1].numbers)


class _Best:
    """The ten best of each probe so far."""

    def __init__(self, probes: int) -> None:
        self.scores = np.empty((probes, 0), np.float32)
        self.numbers = np.empty((probes, 0), np.int64)

    def take(self, scores: Floats, numbers: npt.NDArray[np.int64]) -> None:
        some = np.argpartition(-scores, min(TOP, len(numbers) - 1), axis=1)[:, :TOP]
        scores = np.concatenate([self.scores, np.take_along_axis(scores, some, axis=1)], axis=1)
        every = np.concatenate([self.numbers, numbers[some]], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        self.scores = np.take_along_axis(scores, order, axis=1)
        self.numbers = np.take_along_axis(every, order, axis=1)


def measure_search(place: MilvusPlace, truth: Truth) -> dict[str, Any]:
    """Recall of the index against the exact product, and what a probe costs; over all sites, and within one."""
    report: dict[str, Any] = {}
    for name, view, exact in (
        ("all sites", place, truth.nearest),
        ("one site of ten", MilvusPlace(place.uri, place.gallery, SITE), truth.of_site),
    ):
        started, used = time.perf_counter(), time.process_time()
        with Gallery.open(view) as gallery:
            gallery.search(truth.probes[:1], TOP)
            opened = {
                "opening and first search, s": round(time.perf_counter() - started, 2),
                "opening and first search, CPU s": round(time.process_time() - used, 2),
            }
            wall, cpu, found = _timed(truth.probes, lambda probe, gallery=gallery: gallery.search(probe, TOP)[0])  # type: ignore[misc]
        numbers = [[int(hit.source.removesuffix(".jpg")) for hit in hits] for hits in found]
        same = [len(set(mine) & set(theirs)) for mine, theirs in zip(numbers, exact.tolist(), strict=True)]
        report[name] = {
            "vectors": truth.vectors if view.site is None else sum(site_of(n) == SITE for n in range(truth.vectors)),
            "probes": len(truth.probes),
            "first_is_the_nearest": sum(
                mine[0] == theirs[0] for mine, theirs in zip(numbers, exact.tolist(), strict=True)
            ),
            "recall_at_10": round(sum(same) / (TOP * len(truth.probes)), 4),
            "wall_ms": _spread(wall),
            "cpu_ms": _spread(cpu),
            **opened,
        }
    report["peak_memory_mb"] = _peak_memory_mb()
    return report


def measure_copy(place: MilvusPlace, folder: Path, truth: Truth) -> dict[str, Any]:
    """A first copy of all sites, and one of a single site; what is searched is that of all."""
    copy, site = folder / "copy", folder / "site"
    for path in (copy, site):
        shutil.rmtree(path, ignore_errors=True)
    return {
        "first copy of one site of ten": _timed_pull(MilvusPlace(place.uri, place.gallery, SITE), site),
        "first copy": _timed_pull(place, copy),
        "nothing has changed": [_timed_pull(place, copy) for _ in range(ROUNDS)],
        "peak_memory_mb": _peak_memory_mb(),
        "search": search_copy(copy, truth),
    }


def search_copy(path: Path, truth: Truth) -> dict[str, Any]:
    """What the same probes cost in a device's copy, for the nearest alone, and whether that person is named."""
    with Gallery.open(path) as gallery:  # what is made once, matrix and INT8 copy
        nearest(gallery.snapshot(), truth.probes[:1])
    started, used = time.perf_counter(), time.process_time()
    with Gallery.open(path) as gallery:
        snapshot = gallery.snapshot()
        nearest(snapshot, truth.probes[:1])
        opened = time.perf_counter() - started, time.process_time() - used
        wall, cpu, found = _timed(truth.probes, lambda probe: snapshot.names[nearest(snapshot, probe).places[0]])
    theirs = [f"{site_of(n)}/p{n // EACH}" for n in truth.nearest[:, 0].tolist()]
    return {
        "vectors": len(snapshot),
        "probes": len(truth.probes),
        "first_is_the_nearest": sum(mine == their for mine, their in zip(found, theirs, strict=True)),
        "wall_ms": _spread(wall),
        "cpu_ms": _spread(cpu),
        "opening and first search, s": round(opened[0], 2),
        "opening and first search, CPU s": round(opened[1], 2),
        "disk_mb": _disk_mb(path),
    }


def _timed(probes: Floats, search: Callable[[Floats], Found]) -> tuple[list[float], list[float], list[Found]]:
    """Milliseconds of each (1, 512) probe, those of the processor, and what was found."""
    wall, cpu, found = [], [], []
    for probe in probes:
        started, used = time.perf_counter(), time.process_time()
        found.append(search(probe[None]))
        wall.append(1e3 * (time.perf_counter() - started))
        cpu.append(1e3 * (time.process_time() - used))
    return wall, cpu, found


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
            runs.append({"changes": changes, "seconds_to_make_them": made, **_timed_pull(place, copy)})
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
        pulled = _timed_pull(place, copy)
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
            calls = [_milliseconds(running.snapshot) for _ in range(100)]
            same = running.snapshot() is before
            started = time.perf_counter()
            with contextlib.suppress(StoreUnavailableError), MilvusCentre(place):
                pass
            refused = time.perf_counter() - started
            with _serving(data, port):
                resumed = _timed_pull(place, copy)
            grown = len(running.snapshot()) - len(before)
    return {
        "first copy": pulled,
        "records fetched when the server was killed": killed_at[0][0],
        "records of the pull": killed_at[0][1],
        "seconds until the pull gave up": round(gave_up, 3),
        "what it said": words.replace(str(port), "PORT"),
        "a running camera kept its snapshot": same,
        "its snapshot call, ms": _spread(calls),
        "seconds until a new pull says that the server is away": round(refused, 3),
        "pull after the server was started again": resumed,
        "embeddings the running camera then had more": grown,
    }


def _timed_pull(place: MilvusPlace, path: Path) -> dict[str, Any]:
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


def _spread(values: list[float]) -> dict[str, float]:
    """Median, 5th and 95th percentile, rounded."""
    low, high = np.percentile(values, [5, 95])
    return {"median": round(statistics.median(values), 2), "p5": round(float(low), 2), "p95": round(float(high), 2)}


def _milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def _memory_mb() -> int:
    """Of this process now, mapped files aside."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return _megabytes(int(status.partition("RssAnon:")[2].split()[0]))


def _peak_memory_mb() -> int:
    return _megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _megabytes(kilobytes: int) -> int:
    """Of what the kernel calls kB, which are 1,024 bytes."""
    return kilobytes * 1024 // 1_000_000


def _disk_mb(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) // 1_000_000


def _write(path: Path, index: str, load: Load, found: dict[str, Any]) -> None:
    facts = {
        "time": now(),
        "machine": machine(),
        "versions": versions(PACKAGES),
        "load": load_between(load, Load.now()),
        "made_vectors": {"size": SIZE, "axes": AXES, "seed": SEED},
        "index": INDEXES[index],
        "search_params": SEARCHES[index],
    }
    path.write_text(json.dumps({**facts, **found}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """One of the five parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("fill", "search", "copy", "pull", "away"))
    parser.add_argument("--centre", type=parse_place, help="milvus:FILE.db or milvus:http://HOST:PORT")
    parser.add_argument("--vectors", type=int, default=100_000, help="filled (default: %(default)s)")
    parser.add_argument("--probes", type=int, default=PROBES, help="searched for (default: %(default)s)")
    parser.add_argument(
        "--index", choices=tuple(INDEXES), default="FLAT", help="default: %(default)s, as edge makes it"
    )
    parser.add_argument("--folder", type=Path, help="for copies and servers' files")
    parser.add_argument("--out", type=Path, help="JSON to write")
    args = parser.parse_args()
    milvus_records.EMBEDDING_INDEXES["vector"] = INDEXES[args.index]
    vars(milvus)["SEARCH_PARAMS"] = SEARCHES[args.index]
    load = Load.now()
    if args.part == "fill":
        found = {"fill": fill(args.centre, args.vectors)}
    elif args.part == "away":
        found = {"away": measure_away(args.folder)}
    elif args.part == "search":
        found = {"search": measure_search(args.centre, find_truth(args.vectors, args.probes))}
    elif args.part == "copy":
        found = {"copy": measure_copy(args.centre, args.folder, find_truth(args.vectors, args.probes))}
    else:
        found = {"pull": measure_pull(args.centre, args.folder)}
    if args.out is not None:
        _write(args.out, args.index, load, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
