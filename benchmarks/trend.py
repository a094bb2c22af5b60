"""Many runs over time: `edge bench --trend DIR --out trend.html` draws the reports that lie in a folder.

A step is where a run is certainly worse than the one before it on the same machine and frames: the rule of --compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.compare import Comparison, compare, read_report
from benchmarks.report import render_page
from benchmarks.report.text import short
from edge.errors import InputError


@dataclass(frozen=True, slots=True)
class Run:
    """A report and the name of its file."""

    name: str
    report: Mapping[str, Any]

    @property
    def time(self) -> str:
        """UTC, ISO 8601, so that it sorts."""
        return str(self.report["provenance"]["time"])


@dataclass(frozen=True, slots=True)
class Series:
    """Runs whose times may be compared: one machine, one set of frames, one number of threads. Oldest first.

    steps: the comparison of each run with the one before it.
    """

    machine: str
    frames: str
    runs: tuple[Run, ...]
    steps: tuple[Comparison, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Every variant that any run holds, in the order they appear."""
        return tuple(dict.fromkeys(label for run in self.runs for label in run.report["latency"]["variants"]))

    def rows(self) -> list[dict[str, Any]]:
        """A row a run for the page."""
        rows = []
        for position, run in enumerate(self.runs):
            step = self.steps[position - 1] if position else None
            rows.append(
                {
                    "name": run.name,
                    "time": run.time,
                    "bundle": short(run.report["provenance"]["bundle"]["digest"]),
                    "load": run.report["provenance"]["load"]["others_share"],
                    "figures": {label: _figures(run.report, label) for label in self.labels},
                    "worse": list(step.regressions) if step else [],
                    "better": list(step.improvements) if step else [],
                }
            )
        return rows


@dataclass(frozen=True, slots=True)
class Trend:
    """All series, that of the newest run first."""

    series: tuple[Series, ...]

    def summary(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "runs": sum(len(one.runs) for one in self.series),
            "series": [{"machine": one.machine, "frames": one.frames, "runs": one.rows()} for one in self.series],
        }

    def lines(self) -> list[str]:
        """For a terminal: each series, and the steps found in it."""
        lines = []
        for one in self.series:
            lines.append(f"{one.machine}, {one.frames}: {len(one.runs)} runs")
            for row in one.rows():
                lines += [f"  {row['time']} {row['name']}: worse: {step}" for step in row["worse"]]
                lines += [f"  {row['time']} {row['name']}: better: {step}" for step in row["better"]]
        return lines


def read_runs(folder: Path) -> list[Run]:
    """Every report below a folder, oldest first. Raises InputError where there is none; other JSON is passed over."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --trend names one with report.json files of edge bench")
    runs = []
    for path in sorted(folder.rglob("*.json")):
        try:
            report = read_report(path)
        except InputError:
            continue
        runs.append(Run(path.relative_to(folder).with_suffix("").as_posix(), report))
    if not runs:
        raise InputError(f"{folder}: no report of edge bench in it; keep the report.json of each run there")
    return sorted(runs, key=lambda run: (run.time, run.name))


def find_trend(runs: Sequence[Run]) -> Trend:
    """Groups runs that may be compared, and compares each with the one before it."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(_key(run.report), []).append(run)
    series = [_series(group) for group in groups.values()]
    return Trend(tuple(sorted(series, key=lambda one: one.runs[-1].time, reverse=True)))


def write_trend(folder: Path, out: Path) -> Trend:
    """Draws the page to `out`, one file. Raises InputError."""
    trend = find_trend(read_runs(folder))
    file = out / "trend.html" if out.is_dir() else out
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(render_page("trend.html.j2", trend=trend, plots=_plots(trend)), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror}); give another --out") from error
    return trend


def _plots(trend: Trend) -> list[dict[str, str]]:
    from benchmarks.report.trend_plots import draw_series

    return [draw_series(one.rows(), one.labels) for one in trend.series]


def _key(report: Mapping[str, Any]) -> tuple[Any, ...]:
    """What `compare` asks to be the same before it compares times."""
    machine, frames = report["provenance"]["machine"], report["latency"]["frames"]
    return (
        *(machine[name] for name in ("cpu", "cores", "device")),
        *(str(frames[name]) for name in ("source", "count", "faces", "sizes", "long_side")),
        report["latency"]["threads"],
    )


def _series(runs: Sequence[Run]) -> Series:
    machine, frames = runs[0].report["provenance"]["machine"], runs[0].report["latency"]["frames"]
    steps = [compare(new.report, old.report) for old, new in pairwise(runs)]
    return Series(
        f"{machine['device'] or machine['cpu']}, {machine['cores']} cores",
        f"{frames['source']}, {frames['faces']} faces",
        tuple(runs),
        tuple(steps),
    )


def _figures(report: Mapping[str, Any], label: str) -> dict[str, Any] | None:
    latency, accuracy = report["latency"]["variants"].get(label), report["accuracy"]
    if latency is None:
        return None
    pairs = accuracy["pairs"]["variants"].get(label) if accuracy["pairs"] else None
    return {
        "frame": latency["frame"]["wall_ms"]["p50"],
        "cpu": latency["frame"]["cpu_ms"],
        "accuracy": pairs["accuracy"] if pairs else None,
        "pairs": accuracy["data_digest"] if pairs else None,
    }
