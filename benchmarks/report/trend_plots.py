"""The plots of the trend page: milliseconds and accuracy of each variant from run to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.report.style import COLOURS, Axes, draw

Rows = Sequence[Mapping[str, Any]]


def draw_series(rows: Rows, labels: Sequence[str]) -> dict[str, str]:
    """Data URIs of "frame" and "accuracy"; a plot without a figure is missing."""
    drawn = {
        name: draw(partial(_line, rows, labels, name, scale, said))
        for name, scale, said in (
            ("frame", 1.0, "milliseconds of a frame, p50"),
            ("accuracy", 100.0, "accuracy on pairs, %"),
        )
    }
    return {name: picture for name, picture in drawn.items() if picture is not None}


def _line(rows: Rows, labels: Sequence[str], name: str, scale: float, said: str, axes: Axes) -> bool:
    for position, label in enumerate(labels):
        shown = [(i, row["figures"][label][name]) for i, row in enumerate(rows) if _has(row, label, name)]
        if not shown:
            continue
        # Side by side, or the bars of variants that are alike would cover each other.
        aside = 0.08 * (position - (len(labels) - 1) / 2)
        places = [i + aside for i, _ in shown]
        values = [scale * figure["value"] for _, figure in shown]
        bars = [
            [scale * (figure["value"] - figure["low"]) for _, figure in shown],
            [scale * (figure["high"] - figure["value"]) for _, figure in shown],
        ]
        axes.errorbar(
            places, values, yerr=bars, fmt="o-", color=COLOURS[position % len(COLOURS)], label=label, capsize=3
        )
    if not axes.lines:
        return False
    # One tick a run, named by its day: runs are steps of work, not points in time.
    axes.set_xticks(range(len(rows)), [row["time"][5:10] for row in rows], rotation=45 if len(rows) > 6 else 0)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.set_ylabel(said)
    if name == "frame":
        axes.set_ylim(bottom=0)
    axes.legend(loc="best")
    return True


def _has(row: Mapping[str, Any], label: str, name: str) -> bool:
    figures = row["figures"].get(label)
    return figures is not None and figures[name] is not None
