"""What bulk indexing costs beside a plain loop: `python -m benchmarks.indexing --bundle DIR --pictures DIR --out FILE`.

The same pictures go into an empty gallery by a loop in one process, by worker processes and by Ray (its own cluster
on this machine), each in a process of its own, in turn, round by round; and the first few of them alone, which is what
starting costs. The difference is the work: pictures a second, and milliseconds of processor time a picture, of all
processes taken together, read from /proc while they run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import command
from benchmarks.provenance import Load, load_between, machine, now, versions
from edge.bundle import Bundle
from edge.gallery import Binding, Gallery
from edge.indexing import Engine, Job, Result, WorkOptions, index, read_jobs
from edge.indexing.local import LocalEngine
from edge.indexing.work import Worker
from edge.weights.digests import digest_of

WAYS = ("loop", "local 1", "local 2", "ray 1", "ray 2")
FEW = 16
SAMPLE_SECONDS = 0.1


class Loop:
    """A plain loop: no processes, nothing sent anywhere."""

    def __init__(self, options: WorkOptions) -> None:
        self._options = options

    def run(self, chunks: Iterable[Sequence[Job]]) -> Iterator[list[Result]]:
        """See `edge.indexing.indexing.Engine`."""
        worker = Worker(self._options)
        for chunk in chunks:
            yield worker(chunk)


def engine_of(way: str, options: WorkOptions) -> Engine:
    """The engine a way stands for."""
    name, _, workers = way.partition(" ")
    if name == "loop":
        return Loop(options)
    if name == "local":
        return LocalEngine(options, int(workers))
    from edge.indexing.ray_engine import RayEngine

    return RayEngine(options, int(workers))


def run_one(way: str, bundle: Path, pictures: Path, first: int | None) -> dict[str, Any]:
    """One way, in this process, over the first pictures or all."""
    options = WorkOptions(bundle)
    jobs = read_jobs(pictures)[:first]
    with tempfile.TemporaryDirectory() as folder:
        binding = Binding.of(Bundle.open(bundle).select("embedder"))
        with Gallery.create(Path(folder) / "gallery", binding) as gallery:
            started = time.monotonic()
            summary = index(gallery, jobs, engine_of(way, options))
            seconds = time.monotonic() - started
    return {
        "pictures": summary.pictures,
        "added": summary.added,
        "bad": len(summary.problems),
        "seconds": round(seconds, 3),
    }


def measure_one(way: str, bundle: Path, pictures: Path, first: int | None) -> dict[str, Any]:
    """One way in a process of its own, with the processor time of everything that it starts."""
    command = [sys.executable, "-m", "benchmarks.indexing", "--way", way]
    command += [
        "--bundle",
        str(bundle),
        "--pictures",
        str(pictures),
        *([] if first is None else ["--first", str(first)]),
    ]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603 - ours
    used: dict[tuple[int, str], float] = {}
    ended = threading.Event()

    def watch() -> None:
        family = {child.pid}
        while not ended.wait(SAMPLE_SECONDS):
            used.update(_seconds_of(family))

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed = child.communicate()[0]
    ended.set()
    watcher.join()
    if child.returncode:
        raise RuntimeError(f"{way}: ended with {child.returncode}")
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    seconds = sum(used.values())
    return {**found, "cpu_seconds": round(seconds, 2), "processes": len(used)}


def measure_both(way: str, bundle: Path, pictures: Path) -> dict[str, Any]:
    """A few pictures, then all, and what the others cost."""
    few = measure_one(way, bundle, pictures, FEW)
    every = measure_one(way, bundle, pictures, None)
    others = every["pictures"] - few["pictures"]
    return {
        "few": few,
        "all": every,
        "start_seconds": few["seconds"],
        "start_cpu_seconds": few["cpu_seconds"],
        "seconds": every["seconds"],
        "cpu_seconds": every["cpu_seconds"],
        "pictures_a_second": round(others / max(1e-9, every["seconds"] - few["seconds"]), 2),
        "cpu_ms_a_picture": round(1e3 * (every["cpu_seconds"] - few["cpu_seconds"]) / others, 2),
    }


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, with the least and the most."""
    spreads = {}
    for name, value in runs[0].items():
        if not isinstance(value, dict):
            values = [run[name] for run in runs]
            spreads[name] = {"median": round(statistics.median(values), 2), "least": min(values), "most": max(values)}
    return {"rounds": len(runs), **spreads, "runs": list(runs)}


def _seconds_of(family: set[int]) -> dict[tuple[int, str], float]:
    """User and system time so far by process and its start, of all that were ever seen to descend from `family`.

    A process whose parent has died stays in the family.
    """
    stats = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            stats[int(entry.name)] = fields
    grown = True
    while grown:
        fresh = {pid for pid, fields in stats.items() if int(fields[1]) in family} - family
        family |= fresh
        grown = bool(fresh)
    ticks = os.sysconf("SC_CLK_TCK")
    # Fields 14, 15 and 22 of proc(5), counted from the state, which is field 3.
    return {
        (pid, stats[pid][19]): (int(stats[pid][11]) + int(stats[pid][12])) / ticks for pid in family if pid in stats
    }


@command("indexing")
def main() -> None:
    """All ways in turn, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="as edge index takes them")
    parser.add_argument("--ways", nargs="+", default=WAYS, help="'loop', 'local N', 'ray N' (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON to write; rounds are added to those it holds")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way is not None:
        print(json.dumps(run_one(args.way, args.bundle.resolve(), args.pictures, args.first)))
        return
    bundle, load = Bundle.open(args.bundle), Load.now()
    earlier = json.loads(args.out.read_text(encoding="utf-8")) if args.out is not None and args.out.exists() else {}
    runs = {way: list(each["runs"]) for way, each in earlier.get("ways", {}).items()}
    runs.update({way: [] for way in args.ways if way not in runs})
    for _ in range(args.rounds):
        for way in args.ways:
            runs[way].append(measure_both(way, args.bundle, args.pictures))
            print(way, json.dumps(runs[way][-1]), file=sys.stderr)
    found = {
        "time": now(),
        "machine": machine(),
        "versions": versions(("ray", "pyarrow", "pandas")),
        "load": [*earlier.get("load", []), load_between(load, Load.now())],
        "bundle": {"manifest_sha256": digest_of(args.bundle / "bundle.json"), "digest": _models(bundle)},
        "ways": {way: summarise(each) for way, each in runs.items()},
    }
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def _models(bundle: Bundle) -> dict[str, str]:
    models = {role: bundle.select(role).sha256 for role in ("detector", "embedder")}
    landmarker = bundle.landmarker(bundle.select("detector").precision)
    return models if landmarker is None else {**models, "landmarker": landmarker.sha256}


if __name__ == "__main__":
    sys.exit(main())
