"""A trade-off for people: the table, the page, and the plot of accuracy against processor time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.errors import InputError
from export.tradeoff import FLOAT, WHOLE, Point, TradeOff

_GREY, _BLUE, _RED, _GREEN = "#6B6B6B", "#0072B2", "#D55E00", "#009E73"


def write_report(found: Sequence[TradeOff], folder: Path) -> tuple[Path, ...]:
    """precision.json, precision.md and a plot for each role, into `folder`. Raises InputError where it cannot."""
    values = {entry.role: entry.to_dict() for entry in found}
    pages = {
        "precision.json": json.dumps(values, indent=1, allow_nan=False) + "\n",
        "precision.md": "\n".join(as_markdown(entry) for entry in found),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            (folder / name).write_text(text, encoding="utf-8")
        plots = [folder / f"{entry.role}-trade-off.png" for entry in found]
        for entry, plot in zip(found, plots, strict=True):
            draw(entry, plot)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); name another --report DIR") from error
    return (*(folder / name for name in pages), *plots)


def as_text(found: TradeOff) -> str:
    """The points that matter, a line each: whole INT8, several layers in float, what was chosen, FP32, the front."""
    shown = found.shown
    lines = [f"{found.role}, {found.figure} on {found.on}; ms of {found.machine}"]
    width = max(len(point.name) for point in shown)
    for point in shown:
        mark = "→" if point.name == found.chosen else "*" if point.front else " "
        lost = f"  {_lost(point)}" if point.scores.lost is not None else ""
        cost = _interval(point.milliseconds.value, point.milliseconds.low, point.milliseconds.high)
        lines.append(f"{mark} {point.name:<{width}}  {point.scores.figure:.5f}  {cost} ms{lost}")
    lines.append(f"→ taken: {found.why}; * no other choice beats it in both")
    return "\n".join([*lines, *found.remarks])


def as_markdown(found: TradeOff) -> str:
    """A section: the choice, every choice of several layers, and every layer."""
    told = next((point.scores.lost for point in found.points if point.scores.lost is not None), None)
    what = f" {told.what}, points lost |" if told is not None else ""
    rule = "---|" if told is not None else ""
    costs = {next(iter(point.keep)): point for point in found.points if len(point.keep) == 1}
    head = f"| in float | {found.figure} | processor time, ms |{what} front |\n|---|---|---|{rule}---|"
    rows = [
        f"| {'**' + point.name + '**' if point.name == found.chosen else point.name} | {point.scores.figure:.5f} "
        f"| {_interval(point.milliseconds.value, point.milliseconds.low, point.milliseconds.high)} "
        + (f"| {_lost(point, bare=True)} " if told is not None else "")
        + f"| {'yes' if point.front else ''} |"
        for point in found.shown
    ]
    layer_head = f"| layer | it alone in INT8 |{what} all but it |{what} keeping it costs, ms |"
    layer_rule = f"|---|---|{rule}---|{rule}---|"
    layers = []
    for entry in found.layers:
        cost = costs[entry.layer].dearer
        cells = [entry.layer]
        for scores in (entry.alone, entry.without):
            cells.append(f"{scores.figure:.5f}")
            if told is not None:
                cells.append(_points(scores.lost) if scores.lost is not None else "")
        layers.append(f"| {' | '.join(cells)} | {_interval(cost.value, cost.low, cost.high)} |")
    remarks = [f"- {remark}" for remark in (f"taken: **{found.chosen}**; {found.why}", *found.remarks)]
    sections = (
        [f"## {found.role}"],
        [f"{found.figure.capitalize()} on {found.on}. Times: {found.machine}."],
        remarks,
        [f"![accuracy against time]({found.role}-trade-off.png)"],
        [head, *rows],
        ["### Layer by layer"],
        [layer_head, layer_rule, *layers],
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def draw(found: TradeOff, path: Path) -> None:
    """Writes the Pareto plot as PNG. Raises OSError where it cannot be written."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    judged = found.choice.scores.lost is not None
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}):
        figure = Figure(figsize=(7.2, 6.4 if judged else 3.9), layout="constrained")
        axes = figure.subplots(2 if judged else 1, 1, sharex=True, squeeze=False)[:, 0]
        _figures(axes[0], found)
        if judged:
            _losses(axes[1], found)
        axes[-1].set_xlabel("processor time, ms a run (median, 95 % interval)")
        axes[0].set_title(f"{found.role}: what layers in float buy, and cost", loc="left")
        figure.savefig(path, dpi=130)


def _figures(axes: Any, found: TradeOff) -> None:
    groups = (
        ("one layer in float", _GREY, [p for p in found.points if len(p.keep) == 1]),
        ("several in float", _BLUE, [p for p in found.points if len(p.keep) > 1 and p.name != FLOAT]),
        ("whole INT8, FP32", "black", [p for p in found.points if p.name in (WHOLE, FLOAT)]),
    )
    for label, colour, points in groups:
        if points:
            _scatter(axes, points, [point.scores.figure for point in points], label, colour)
    front = sorted((p for p in found.points if p.front), key=lambda point: point.milliseconds.value)
    steps = [point.milliseconds.value for point in front], [point.scores.figure for point in front]
    axes.step(*steps, where="post", color=_GREEN, linewidth=1.2, label="Pareto front")
    choice = found.choice
    ring = {"s": 110, "facecolors": "none", "edgecolors": _RED, "linewidths": 1.8}
    axes.scatter([choice.milliseconds.value], [choice.scores.figure], zorder=4, label=f"taken: {choice.name}", **ring)
    for point in found.points:
        if point.name in (WHOLE, FLOAT) or (len(point.keep) > 1 and point.name != FLOAT):
            at = point.milliseconds.value, point.scores.figure
            axes.annotate(point.name, at, xytext=(4, -11), textcoords="offset points", fontsize=7, color="#30343b")
    axes.grid(True, color="#e4e6ea", linewidth=0.8)
    axes.set_ylabel(found.figure)
    axes.legend(fontsize=7, loc="upper left")


def _losses(axes: Any, found: TradeOff) -> None:
    highest = 1.0
    for point in found.shown:
        lost = point.scores.lost
        if lost is not None:
            # Where nothing was lost the bound speaks of people not seen; of a few people it would flatten all others.
            highest = max(highest, lost.points.high if lost.points.value else lost.points.value)
            colour = _RED if point.name == found.chosen else _BLUE
            arms = [[max(0.0, lost.points.value - lost.points.low)], [max(0.0, lost.points.high - lost.points.value)]]
            axes.errorbar(
                [point.milliseconds.value], [lost.points.value], yerr=arms, fmt="o", color=colour, markersize=4
            )
            axes.set_ylabel(f"{lost.what}, points lost")
    axes.axhline(0, color=_GREY, linewidth=0.8)
    axes.set_ylim(top=1.2 * highest)
    axes.grid(True, color="#e4e6ea", linewidth=0.8)


def _scatter(axes: Any, points: Sequence[Point], values: Sequence[float], label: str, colour: str) -> None:
    times = [point.milliseconds.value for point in points]
    below = [point.milliseconds.value - point.milliseconds.low for point in points]
    arms = [below, [point.milliseconds.high - point.milliseconds.value for point in points]]
    axes.errorbar(times, values, xerr=arms, fmt="o", markersize=4, linewidth=0.8, color=colour, label=label)


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _points(lost: Any) -> str:
    return _interval(lost.points.value, lost.points.low, lost.points.high)


def _lost(point: Point, *, bare: bool = False) -> str:
    lost = point.scores.lost
    if lost is None:
        return ""
    return _points(lost) if bare else f"{lost.what} lost {_points(lost)} points"
