"""The plots of the report, as SVG inside the page, drawn from its figures alone: any old JSON can be drawn."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#E69F00", "#6B6B6B")
"""Okabe and Ito's palette, told apart by colour-blind readers; a variant keeps its colour on every plot."""

STAGE_COLOURS = {"decode": "#9aa5b1", "detect": "#4878a8", "align": "#c7b34a", "embed": "#b5573c", "match": "#6a9a6a"}
_SIZE = (5.4, 3.3)
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#30343b",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e6ea",
    "grid.linewidth": 0.8,
    "xtick.color": "#50555e",
    "ytick.color": "#50555e",
    "legend.frameon": False,
    "svg.hashsalt": "arcedge",
    "svg.fonttype": "path",
}

Axes = Any
Report = Mapping[str, Any]


def draw_all(report: Mapping[str, Any]) -> dict[str, str]:
    """Data URIs by name; a plot whose figures were not measured is missing."""
    drawers: dict[str, Callable[[Report, Axes], bool]] = {
        "time": _where_time_goes,
        "latency": _latency,
        "pareto": _pareto,
        "det": _det,
        "drift": _drift,
        "batches": _batches,
    }
    drawn = {name: draw(partial(drawer, report)) for name, drawer in drawers.items()}
    return {name: picture for name, picture in drawn.items() if picture is not None}


def draw(drawer: Callable[[Axes], bool], size: tuple[float, float] = _SIZE) -> str | None:
    """An SVG as data URI; None where the drawer, which fills the axes, says there is nothing to show."""
    # No pyplot: it would look for a display and keep every figure alive.
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        if not drawer(figure.add_subplot()):
            return None
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _labels(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(variant["label"], COLOURS[i % len(COLOURS)]) for i, variant in enumerate(report["variants"])]


def _where_time_goes(report: Report, axes: Axes) -> bool:
    labels = [label for label, _ in _labels(report)][::-1]
    stages = [report["latency"]["variants"][label]["stages"] for label in labels]
    longest = max(sum(stage["wall_ms"]["mean"] for stage in one.values()) for one in stages)
    left = np.zeros(len(labels))
    for stage, colour in STAGE_COLOURS.items():
        values = np.array([one[stage]["wall_ms"]["mean"] for one in stages])
        axes.barh(labels, values, left=left, color=colour, label=stage, height=0.62)
        for row, (start, value) in enumerate(zip(left, values, strict=True)):
            if value > 0.08 * longest:
                axes.text(start + value / 2, row, f"{value:.1f}", ha="center", va="center", color="white", fontsize=8)
        left += values
    for row, total in enumerate(left):
        axes.text(total, row, f" {total:.1f}", ha="left", va="center", fontsize=8, color="#30343b")
    axes.set_xlim(0, left.max() * 1.12)
    axes.set_xlabel("mean milliseconds of a frame")
    axes.grid(axis="y", visible=False)
    axes.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=1.0, columnspacing=1.0)
    return True


def _latency(report: Report, axes: Axes) -> bool:
    for label, colour in _labels(report):
        samples = np.sort(report["latency"]["variants"][label]["samples_ms"]["frame"])
        share = (np.arange(len(samples)) + 0.5) / len(samples)
        axes.plot(samples, 100 * share, color=colour, label=label, linewidth=1.8)
        axes.plot(np.median(samples), 50, "o", color=colour, markersize=5)
    top = max(
        np.quantile(report["latency"]["variants"][label]["samples_ms"]["frame"], 0.99) for label, _ in _labels(report)
    )
    axes.set_xlim(0, top * 1.15)
    axes.set_ylim(0, 100)
    axes.set_xlabel("milliseconds of a frame (beyond the axis: the slowest hundredth)")
    axes.set_ylabel("% of frames done by then")
    axes.legend(loc="lower right")
    return True


def _pareto(report: Report, axes: Axes) -> bool:
    accuracy = report["accuracy"]
    part, name = (accuracy["pairs"], "accuracy") if accuracy["pairs"] else (accuracy["identities"], "rank_one")
    if part is None:
        return False
    for label, colour in _labels(report):
        speed = report["latency"]["variants"][label]["frame"]["wall_ms"]["p50"]
        figure = part["variants"][label][name]
        axes.errorbar(
            speed["value"],
            100 * figure["value"],
            xerr=_bars(speed, 1.0),
            yerr=_bars(figure, 100.0),
            fmt="o",
            color=colour,
            label=label,
            capsize=3,
        )
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds of a frame, p50   (left is faster)")
    axes.set_ylabel("accuracy on pairs, %" if name == "accuracy" else "rank-1, %")
    axes.margins(y=0.15)
    axes.legend(loc="best")
    return True


def _bars(figure: Mapping[str, float], scale: float) -> list[list[float]]:
    value = figure["value"]
    return [[scale * max(0.0, value - figure["low"])], [scale * max(0.0, figure["high"] - value)]]


def _det(report: Report, axes: Axes) -> bool:
    accuracy = report["accuracy"]
    part = accuracy["identities"] or accuracy["pairs"]
    if part is None:
        return False
    for label, colour in _labels(report):
        curve = part["variants"][label]["det"]
        far, frr = np.array(curve["far"]), np.array(curve["frr"])
        shown = (far > 0) & (frr > 0) & (far < 0.5)
        if shown.any():  # a logarithmic axis has no place for a curve without errors
            axes.step(far[shown], frr[shown], color=colour, label=label, linewidth=1.6, where="post")
    if not axes.lines:
        return False
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FAR: impostor pairs accepted")
    axes.set_ylabel("FRR: genuine pairs refused")
    axes.legend(loc="upper right")
    axes.axvline(1 / part["impostor"], color="#8a8f98", linestyle=":", linewidth=1)
    return True


def _drift(report: Report, axes: Axes) -> bool:
    variants = report["accuracy"]["drift"]["variants"]
    lowest = 1.0
    for label, colour in _labels(report):
        if label not in variants:
            continue
        histogram = variants[label]["histogram"]
        edges, counts = np.array(histogram["edges"]), np.array(histogram["counts"])
        axes.stairs(100 * counts / counts.sum(), edges, fill=True, alpha=0.45, color=colour, label=label)
        axes.stairs(100 * counts / counts.sum(), edges, color=colour, linewidth=1.2)
        lowest = min(lowest, edges[0])
    axes.set_xlabel(f"cosine between a face's embedding and {report['baseline']}'s")
    axes.set_ylabel("% of faces")
    axes.set_xlim(lowest, 1.0 + 0.02 * (1 - lowest))
    if variants:
        axes.legend(loc="upper left")
    return bool(variants)


def _batches(report: Report, axes: Axes) -> bool:
    batches = report["latency"]["batches"]
    if not batches:
        return False
    for label, colour in _labels(report):
        rows: Sequence[Mapping[str, Any]] = batches["rows"][label]
        sizes = [row["batch"] for row in rows]
        middle = [row["ms_per_face"]["p50"]["value"] for row in rows]
        low = [row["ms_per_face"]["p50"]["low"] for row in rows]
        high = [row["ms_per_face"]["p50"]["high"] for row in rows]
        axes.plot(sizes, middle, "o-", color=colour, label=label, markersize=4)
        axes.fill_between(sizes, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches["sizes"], [str(size) for size in batches["sizes"]])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("faces in a batch")
    axes.set_ylabel("milliseconds a face, p50")
    axes.legend(loc="best")
    return True
