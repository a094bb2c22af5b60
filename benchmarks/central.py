"""What a central gallery in Milvus costs: `python -m benchmarks.central fill|search|pull|away`.

    python -m benchmarks.central fill --centre milvus:people.db --vectors 100000
    python -m benchmarks.central search --centre milvus:people.db --out search.json
    python -m benchmarks.central pull --centre milvus:people.db --folder scratch --out pull.json
    python -m benchmarks.central away --folder scratch --out away.json

`fill` makes a gallery of made vectors, distributed as the shipped embedder's, four a person, over ten sites. `search`
compares the index with exact search (recall, latency, all sites and one), in a gallery as `fill` left it. `pull` copies
the gallery to a device, makes 1,000 changes and brings the copy up to date. `away` kills a server, in a process of its
own, in the middle of a pull. Milvus Lite runs inside the process that opens its file: its processor time is counted.
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
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import Load, load_between, machine, now, versions
from benchmarks.vectors import SIZE, faces
from edge.gallery import Binding, Gallery, MilvusPlace, NewEntry, centre, milvus, milvus_records, parse_place
from edge.gallery.centre import MilvusCentre
from edge.gallery.pull import pull
from edge.gallery.store import StoreUnavailableError
from edge.types import Floats

BINDING = Binding("c" * 64, "a" * 64, "made", SIZE)
AXES, SEED = 128, 0
SITES = 10
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
    """Makes the gallery, and gives what that cost."""
    rows = faces(count, AXES, SEED)
    started, cpu = time.monotonic(), time.process_time()
    with Gallery.create(place, BINDING) as gallery:
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            gallery.add_entries([NewEntry(f"{site_of(n)}/p{n // EACH}", rows[n], f"{n}.jpg") for n in numbers])
            print(f"{numbers.stop} of {count}, {time.monotonic() - started:.0f} s, {_memory_mb()} MB", file=sys.stderr)
        gallery.compact()
        gallery.search(rows[:1], 1)
    return {
        "vectors": count,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_memory_mb": _memory_mb(),
        "disk_mb": _disk_mb(Path(place.uri)) if place.embedded else None,
    }


def probes_for(rows: Floats) -> Floats:
    """(PROBES, D): every second near a row, the others of strangers."""
    made = faces(PROBES, AXES, SEED + 1)
    known = np.random.default_rng(2).integers(0, len(rows), PROBES // 2)
    made[::2] = rows[known] + 0.8 * made[::2]
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


def measure_search(place: MilvusPlace, rows: Floats) -> dict[str, Any]:
    """Recall of the index against the exact product, and what a probe costs; over all sites, and within one."""
    probes = probes_for(rows)
    numbers = np.arange(len(rows))
    of_site = np.array([site_of(n) == "site3" for n in range(len(rows))])
    report = {}
    for name, view, kept in (
        ("all sites", place, numbers),
        ("one site of ten", MilvusPlace(place.uri, place.gallery, "site3"), numbers[of_site]),
    ):
        with Gallery.open(view) as gallery:
            gallery.search(probes[:1], 10)
            wall, cpu, found = [], [], []
            for probe in probes:
                started, used = time.perf_counter(), time.process_time()
                hits = gallery.search(probe[None], 10)[0]
                wall.append(1e3 * (time.perf_counter() - started))
                cpu.append(1e3 * (time.process_time() - used))
                found.append([int(hit.source.removesuffix(".jpg")) for hit in hits])
        exact = kept[np.argsort(-(probes @ rows[kept].T), axis=1)[:, :10]]
        same = [len(set(mine) & set(theirs)) for mine, theirs in zip(found, exact.tolist(), strict=True)]
        report[name] = {
            "vectors": len(kept),
            "probes": PROBES,
            "first_is_the_nearest": sum(
                mine[0] == theirs[0] for mine, theirs in zip(found, exact.tolist(), strict=True)
            ),
            "recall_at_10": round(sum(same) / (10 * PROBES), 4),
            "wall_ms": _spread(wall),
            "cpu_ms": _spread(cpu),
        }
    return report


def measure_pull(place: MilvusPlace, folder: Path) -> dict[str, Any]:
    """A first copy, one of a single site, 1,000 changes and then one, each a version of its own."""
    report: dict[str, Any] = {}
    copy, site = folder / "copy", folder / "site"
    for path in (copy, site):
        shutil.rmtree(path, ignore_errors=True)
    report["first copy"] = _timed_pull(place, copy)
    report["first copy of one site of ten"] = _timed_pull(MilvusPlace(place.uri, place.gallery, "site3"), site)
    report["nothing has changed"] = [_timed_pull(place, copy) for _ in range(ROUNDS)]
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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


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
    """One of the four parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("fill", "search", "pull", "away"))
    parser.add_argument("--centre", type=parse_place, help="milvus:FILE.db or milvus:http://HOST:PORT")
    parser.add_argument("--vectors", type=int, default=100_000, help="filled (default: %(default)s)")
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
        found = {"search": measure_search(args.centre, faces(args.vectors, AXES, SEED))}
    else:
        found = {"pull": measure_pull(args.centre, args.folder)}
    if args.out is not None:
        _write(args.out, args.index, load, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
