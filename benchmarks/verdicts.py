"""The verdicts of a report: each variant against the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.verdict import Budget, certain_loss, judge
from edge.metrics.intervals import Interval


def verdicts(report: Mapping[str, Any], budget: Budget) -> list[dict[str, Any]]:
    """Each variant against the baseline: whole frames for speed; pairs, else rank-1, for accuracy."""
    rows = []
    for variant in report["variants"]:
        label = variant["label"]
        if label == report["baseline"]:
            continue
        speedup = Interval(**report["latency"]["variants"][label]["speedup"]["frame"])
        loss, trials = _loss(report["accuracy"], label)
        points = None if loss is None else Interval(*(100 * value for value in (loss.value, loss.low, loss.high)))
        verdict = judge(label, report["baseline"], speedup, points, budget, trials).to_dict()
        rows.append({**verdict, "counted": trials, "notes": _notes(report["accuracy"]["identities"], label)})
    return rows


def _notes(identities: Mapping[str, Any] | None, label: str) -> list[str]:
    """What pairs of chosen pictures hide: certain losses of TAR where false accepts are rare, over all pairs."""
    if identities is None:
        return []
    return [
        certain_loss(f"TAR at FAR {row['far']:g}", Interval(**row["loss"]))
        for row in identities["variants"][label]["against_baseline"]["tar_loss"]
        if row["loss"] is not None and row["loss"]["low"] > 0
    ]


def _loss(accuracy: Mapping[str, Any], label: str) -> tuple[Interval | None, str]:
    if accuracy["pairs"]:
        return Interval(**accuracy["pairs"]["variants"][label]["against_baseline"]["loss"]), "pairs"
    if accuracy["identities"]:
        return Interval(**accuracy["identities"]["variants"][label]["against_baseline"]["rank_one_loss"]), "probes"
    return None, "pairs"
