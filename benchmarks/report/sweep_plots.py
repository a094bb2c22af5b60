"""Plots of the sweeps, of the peers and of the people a variant errs on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.report.style import PEER_COLOURS, STAGE_COLOURS, Axes, Report, bars, labels_of


def batches(report: Report, axes: Axes) -> bool:
    """Milliseconds a face by batch."""
    found = report["latency"]["batches"]
    if not found:
        return False
    for label, colour in labels_of(report):
        rows = found["rows"][label]
        _band(axes, [row["batch"] for row in rows], [row["ms_per_face"]["p50"] for row in rows], label, colour)
    _counts(axes, found["sizes"], "faces in a batch", "milliseconds a face, p50")
    return True


def threads(report: Report, axes: Axes) -> bool:
    """Milliseconds of both models by threads; one thread alone is no sweep."""
    found = report["latency"].get("threads_sweep")
    if not found or len(found["counts"]) < 2:
        return False
    for label, colour in labels_of(report):
        rows = found["rows"][label]
        _band(axes, [row["threads"] for row in rows], [row["wall_ms"]["p50"] for row in rows], label, colour)
    _counts(axes, found["counts"], "threads of a model", "milliseconds of both models, p50")
    return True


def streams(report: Report, axes: Axes) -> bool:
    """Frames a second of all streams together."""
    found = report["latency"].get("streams")
    if not found:
        return False
    for label, colour in labels_of(report):
        rows = found["rows"][label]
        _band(axes, [row["streams"] for row in rows], [row["frames_a_second"] for row in rows], label, colour)
    cores = report["provenance"]["machine"]["cores_usable"]
    axes.axvline(cores, color="#8a8f98", linestyle=":", linewidth=1)
    axes.annotate(f"{cores} cores ", (cores, 0.02), xycoords=("data", "axes fraction"), ha="right", fontsize=8)
    _counts(axes, found["counts"], "streams at once", "frames a second, all together")
    return True


def _band(axes: Axes, places: list[int], figures: list[Mapping[str, float]], label: str, colour: str) -> None:
    axes.plot(places, [figure["value"] for figure in figures], "o-", color=colour, label=label, markersize=4)
    low, high = ([figure[side] for figure in figures] for side in ("low", "high"))
    axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)


def _counts(axes: Axes, counts: list[int], across: str, up: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.legend(loc="best")


def peers(report: Report, axes: Axes) -> bool:
    """Processor time of a frame for every line, detection and embedding apart."""
    found = report.get("peers")
    if not found or not found["latency"]:
        return False
    lines = found["latency"]["lines"]
    names = list(lines)[::-1]
    left = np.zeros(len(names))
    for stage in ("detect", "embed"):
        values = np.array([_p50(lines[name].get(stage)) for name in names])
        said = "detect" if stage == "detect" else "align and embed"
        axes.barh(names, values, left=left, color=STAGE_COLOURS[stage], label=said, height=0.62)
        left += values
    for row, name in enumerate(names):
        only = (
            ""
            if {"detect", "embed"} <= set(lines[name])
            else f" {'embeds' if 'embed' in lines[name] else 'detects'} only"
        )
        axes.text(left[row], row, f" {left[row]:.1f}{only}", ha="left", va="center", fontsize=8, color="#30343b")
    axes.set_xlim(0, left.max() * 1.3)
    axes.set_xlabel("milliseconds of processor time a frame, sum of medians")
    axes.grid(axis="y", visible=False)
    axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return True


def _p50(stage: Mapping[str, Any] | None) -> float:
    return float(stage["cpu_ms"]["p50"]["value"]) if stage else 0.0


def detectors(report: Report, axes: Axes) -> bool:
    """What each detector finds at its threshold against what it costs; without peers there is no cost to show."""
    found, peers_found = report.get("detection"), report.get("peers")
    if not found or not peers_found or not peers_found["latency"]:
        return False
    lines = peers_found["latency"]["lines"]
    colours = {**dict(labels_of(report)), **dict(zip(peers_found["described"], PEER_COLOURS, strict=False))}
    for name, row in found["lines"].items():
        if "detect" not in lines.get(name, {}):
            continue
        cost = lines[name]["detect"]["cpu_ms"]["p50"]
        mark = "s" if name in peers_found["described"] else "o"
        axes.errorbar(
            cost["value"],
            100 * row["recall"]["value"],
            xerr=bars(cost, 1.0),
            yerr=bars(row["recall"], 100.0),
            fmt=mark,
            color=colours[name],
            label=name,
            capsize=3,
        )
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds of processor time a frame, p50   (left is cheaper)")
    axes.set_ylabel("faces found at the working threshold, %")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return True


def people(report: Report, axes: Axes) -> bool:
    """Wrong trials of the people with the most, a bar a variant."""
    accuracy = report["accuracy"]
    part = accuracy["identities"] or accuracy["pairs"]
    worst = part["errors_by_identity"]["worst"][:10][::-1] if part else []
    if not worst:
        return False
    labels = labels_of(report)
    height = 0.8 / len(labels)
    rows = np.arange(len(worst))
    for position, (label, colour) in enumerate(labels[::-1]):
        shares = [100 * one["wrong"][label] / one["trials"] for one in worst]
        axes.barh(rows + (position - (len(labels) - 1) / 2) * height, shares, height, color=colour, label=label)
    names = [f"{one['identity'].replace('_', ' ')} ({one['trials']})" for one in worst]
    axes.set_yticks(rows, names, fontsize=8)
    axes.set_xlabel("% of a person's trials that went wrong")
    axes.set_xlim(0, 100)
    axes.grid(axis="y", visible=False)
    handles, said = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1], said[::-1], ncols=min(3, len(labels)), loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8
    )
    return True
