"""A new report against an old one: which figures became significantly worse. For continuous integration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import FORMAT, VERSION
from benchmarks.statistics import McNemar, mcnemar, ratio_of_medians
from edge.errors import InputError
from edge.metrics.intervals import Interval

REGRESSION_EXIT = 4
SLOWER_BY = 1.05
"""A median that grew by less is no regression even where it is certain: two builds of one code differ by as much."""

P = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """regressions, improvements, unchanged, skipped: sentences. `regressed` decides the exit code."""

    regressions: tuple[str, ...]
    improvements: tuple[str, ...]
    unchanged: tuple[str, ...]
    skipped: tuple[str, ...]

    @property
    def regressed(self) -> bool:
        """Whether anything became significantly worse."""
        return bool(self.regressions)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "regressed": self.regressed,
            "regressions": list(self.regressions),
            "improvements": list(self.improvements),
            "unchanged": list(self.unchanged),
            "skipped": list(self.skipped),
        }


def read_report(path: Path) -> dict[str, Any]:
    """A report.json. Raises InputError where it is none, or of another version."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as a report ({reason})") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputError(f"{path}: not a report of edge bench; give the report.json of an earlier run")
    if values.get("version") != VERSION:
        raise InputError(
            f"{path}: report version {values.get('version')!r}, this arcedge reads {VERSION}; measure again"
        )
    return values


def compare(new: Mapping[str, Any], old: Mapping[str, Any]) -> Comparison:
    """Judges every variant that both reports hold: latency on the same machine, accuracy on the same pictures."""
    rows: dict[str, list[str]] = {"worse": [], "better": [], "same": [], "skipped": []}
    labels = [label for label in new["latency"]["variants"] if label in old["latency"]["variants"]]
    rows["skipped"] += [
        f"{label}: not in the old report" for label in new["latency"]["variants"] if label not in labels
    ]
    reason = _latency_unfit(new, old)
    for label in labels:
        if reason is None:
            for what in ("frame", "embed", "detect"):
                _latency(rows, label, what, new, old)
        _accuracy(rows, label, new, old)
    if reason is not None:
        rows["skipped"].append(f"latency: {reason}")
    return Comparison(*(tuple(rows[kind]) for kind in ("worse", "better", "same", "skipped")))


def _latency_unfit(new: Mapping[str, Any], old: Mapping[str, Any]) -> str | None:
    for name in ("cpu", "cores", "device"):
        here, there = (report["provenance"]["machine"][name] for report in (new, old))
        if here != there:
            return f"not compared, measured on another machine ({name} {there}, now {here})"
    for name in ("source", "count", "faces", "sizes", "long_side"):
        here, there = (report["latency"]["frames"][name] for report in (new, old))
        if here != there:
            return f"not compared, measured on other frames ({name} {there}, now {here})"
    here, there = (report["latency"]["threads"] for report in (new, old))
    return None if here == there else f"not compared, {there} threads then, {here} now"


def _latency(rows: dict[str, list[str]], label: str, what: str, new: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    now, then = (np.array(report["latency"]["variants"][label]["samples_ms"][what]) for report in (new, old))
    ratio = ratio_of_medians(now, then)
    said = (
        f"{label}: {what} takes {np.median(now):.2f} ms, {np.median(then):.2f} before: "
        f"{ratio.value:.2f} times [{ratio.low:.2f}, {ratio.high:.2f}] ({len(now)} and {len(then)} rounds)"
    )
    rows[_side(ratio, SLOWER_BY)].append(said)


def _side(ratio: Interval, margin: float) -> str:
    if ratio.low > 1.0 and ratio.value > margin:
        return "worse"
    return "better" if ratio.high < 1.0 and ratio.value < 1 / margin else "same"


def _accuracy(rows: dict[str, list[str]], label: str, new: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    now, then = new["accuracy"], old["accuracy"]
    if not (now["pairs"] and then["pairs"]):
        rows["skipped"].append(f"{label}: accuracy on pairs not measured in both")
        return
    if now["data_digest"] != then["data_digest"] or now["pairs"]["pairs"] != then["pairs"]["pairs"]:
        rows["skipped"].append(f"{label}: accuracy not compared, measured on other pictures")
        return
    test = _paired(now["pairs"], then["pairs"], label)
    here, there = (100 * part["pairs"]["variants"][label]["accuracy"]["value"] for part in (now, then))
    said = (
        f"{label}: accuracy {here:.2f} %, {there:.2f} before, over {now['pairs']['pairs']:,} pairs: "
        f"{test.only_second} newly wrong, {test.only_first} newly right (McNemar p {test.p:.2g})"
    )
    kind = "same" if test.p >= P else "worse" if test.only_second > test.only_first else "better"
    rows[kind].append(said)


def _paired(now: Mapping[str, Any], then: Mapping[str, Any], label: str) -> McNemar:
    right = np.ones((2, now["pairs"]), np.bool_)
    for row, part in zip(right, (now, then), strict=True):
        row[part["variants"][label]["wrong"]] = False
    return mcnemar(right[0], right[1])
