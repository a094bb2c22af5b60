"""How the plots of reports look, and how one becomes a picture inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#E69F00", "#6B6B6B")
"""Okabe and Ito's palette, told apart by colour-blind readers; a variant keeps its colour on every plot."""

PEER_COLOURS = ("#7B3294", "#C2A5CF", "#A6611A", "#404040", "#80CDC1", "#BABABA")
"""For software that is not ours."""

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


def labels_of(report: Report) -> list[tuple[str, str]]:
    """Each variant with its colour."""
    return [(variant["label"], COLOURS[i % len(COLOURS)]) for i, variant in enumerate(report["variants"])]


def bars(figure: Mapping[str, float], scale: float) -> list[list[float]]:
    """The two arms of an error bar."""
    value = figure["value"]
    return [[scale * max(0.0, value - figure["low"])], [scale * max(0.0, figure["high"] - value)]]
