"""The plots of the report, as SVG inside the page, drawn from its figures alone: any old JSON can be drawn."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.report import sweep_plots
from benchmarks.report.style import STAGE_COLOURS, Axes, Report, bars, draw, labels_of


def draw_all(report: Report) -> dict[str, str]:
    """Data URIs by name; a plot whose figures were not measured is missing."""
    drawers = {
        "time": _where_time_goes,
        "latency": _latency,
        "pareto": _pareto,
        "det": _det,
        "drift": _drift,
        "people": sweep_plots.people,
        "batches": sweep_plots.batches,
        "threads": sweep_plots.threads,
        "streams": sweep_plots.streams,
        "peers": sweep_plots.peers,
        "detectors": sweep_plots.detectors,
    }
    drawn = {name: draw(partial(drawer, report)) for name, drawer in drawers.items()}
    return {name: picture for name, picture in drawn.items() if picture is not None}


def _where_time_goes(report: Report, axes: Axes) -> bool:
    labels = [label for label, _ in labels_of(report)][::-1]
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
    for label, colour in labels_of(report):
        samples = np.sort(report["latency"]["variants"][label]["samples_ms"]["frame"])
        share = (np.arange(len(samples)) + 0.5) / len(samples)
        axes.plot(samples, 100 * share, color=colour, label=label, linewidth=1.8)
        axes.plot(np.median(samples), 50, "o", color=colour, markersize=5)
    top = max(
        np.quantile(report["latency"]["variants"][label]["samples_ms"]["frame"], 0.99) for label, _ in labels_of(report)
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
    for label, colour in labels_of(report):
        speed = report["latency"]["variants"][label]["frame"]["wall_ms"]["p50"]
        figure = part["variants"][label][name]
        axes.errorbar(
            speed["value"],
            100 * figure["value"],
            xerr=bars(speed, 1.0),
            yerr=bars(figure, 100.0),
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


def _det(report: Report, axes: Axes) -> bool:
    accuracy = report["accuracy"]
    part = accuracy["identities"] or accuracy["pairs"]
    if part is None:
        return False
    for label, colour in labels_of(report):
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
    for label, colour in labels_of(report):
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
