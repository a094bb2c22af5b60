"""Curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.recipe import EpochRow


def draw_curves(path: Path, history: Sequence[EpochRow], best_epoch: int) -> None:
    """Three panels over epochs, as PNG: losses, distance from the base, validation. The best epoch is marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Figure and canvas instead of pyplot: no window system is looked for, no global state is left.
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    losses, drift, validation = figure.subplots(1, 3)
    epochs = [row.epoch for row in history]
    losses.plot(epochs, [row.loss for row in history], ".-", label="all parts")
    losses.plot(epochs, [row.margin for row in history], ".-", label="margin loss")
    losses.set_title("loss")
    drift.plot(epochs, [row.distill for row in history], ".-", label="photos")
    drift.plot(epochs, [row.rehearse for row in history], ".-", label="other people")
    drift.set_title("1 − cosine to the base")
    if any(row.valid_accuracy >= 0 for row in history):
        validation.plot(epochs, [row.valid_accuracy for row in history], ".-", label="accuracy")
        validation.plot(epochs, [row.valid_gap for row in history], ".-", label="gap to the best wrong identity")
    validation.set_title("validation")
    for axes in (losses, drift, validation):
        axes.axvline(best_epoch, color="grey", linewidth=0.8, linestyle="--", label=f"best epoch ({best_epoch})")
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    canvas.print_png(path)
