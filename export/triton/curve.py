"""Batch sizes worth waiting for, from what a batch was measured to cost: the report of `edge bench`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import InputError

FORMAT = "arcedge-bench"
ENOUGH = 0.95
"""Share of the highest throughput from which a batch is large enough: a larger one makes its first request wait."""

WORTH = 1.05
"""Times the throughput of every smaller batch that makes a size worth waiting for."""


@dataclass(frozen=True, slots=True)
class Point:
    """A batch size. ms: a face, median; low, high: of its 95 % interval."""

    batch: int
    ms: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Batching:
    """most: rows that are put together at most, 1 for none. preferred: sizes worth waiting for, ascending.

    delay: microseconds a request waits for others.
    """

    most: int
    preferred: tuple[int, ...]
    delay: int

    @property
    def words(self) -> str:
        """For the user."""
        if self.most == 1:
            return "no batch is faster than one face at a time: nothing waits"
        sizes = ", ".join(map(str, self.preferred))
        return f"batches of {sizes} are worth waiting for, {self.delay} µs at most"


def read_curve(report: Path, precision: str, engine: str | None = None) -> tuple[Point, ...]:
    """The batch sweep of a report's variant of this precision, ascending by size.

    engine: of the variant, None where only one was measured at this precision. Raises InputError where the file is no
    report, or holds no such curve.
    """
    try:
        values = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{report}: cannot be read as a report ({reason})") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputError(f"{report}: not a report of edge bench; give its report.json")
    try:
        rows = (values["latency"]["batches"] or {}).get("rows", {})
        fitting = [variant for variant in values["variants"] if _fits(variant, precision, engine)]
        curves = {f"{v['engine']}": _points(rows[v["label"]]) for v in fitting if v["label"] in rows}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{report}: its batches cannot be read ({error}); measure again with edge bench") from error
    if not curves:
        raise InputError(f"{report}: holds no batches of {precision}; measure without --no-batches at this precision")
    if len(curves) > 1:
        raise InputError(f"{report}: holds {precision} on {', '.join(curves)}; say which with --curve-engine")
    return next(iter(curves.values()))


def choose_batching(curve: Sequence[Point], largest: int) -> Batching:
    """What a curve says about batches of up to `largest`.

    A size counts where it beats every smaller one by 5 % of throughput, and by more than both their intervals leave
    open. Beyond the first with 95 % of the highest throughput there is nothing to wait for. A request waits no longer
    than a face alone takes, so that waiting at most doubles what it would have cost by itself. Raises InputError where
    the curve lacks a batch of 1.
    """
    points = [point for point in sorted(curve, key=lambda point: point.batch) if point.batch <= largest]
    if not points or points[0].batch != 1:
        raise InputError("the report measured no batch of 1, from which batches are judged; measure again")
    steps = [points[0]]
    for point in points[1:]:
        if point.ms * WORTH <= steps[-1].ms and point.high < steps[-1].low:
            steps.append(point)
    best = min(point.ms for point in steps)
    most = next(place for place, point in enumerate(steps) if best / point.ms >= ENOUGH)
    chosen = tuple(point.batch for point in steps[1 : most + 1])
    return Batching(chosen[-1] if chosen else 1, chosen, math.ceil(1000 * points[0].ms))


def _fits(variant: Mapping[str, Any], precision: str, engine: str | None) -> bool:
    return variant["precision"] == precision and engine in (None, variant["engine"])


def _points(rows: Sequence[Mapping[str, Any]]) -> tuple[Point, ...]:
    points = []
    for row in rows:
        median = row["ms_per_face"]["p50"]
        point = Point(int(row["batch"]), float(median["value"]), float(median["low"]), float(median["high"]))
        if not (point.batch >= 1 and 0 < point.low <= point.ms <= point.high < math.inf):
            raise ValueError(f"batch {row['batch']} has an impossible time")
        points.append(point)
    return tuple(points)
