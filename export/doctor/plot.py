"""The doctor's plot: how far ranges move, against the number of photos."""

from __future__ import annotations

from pathlib import Path

from edge.errors import InputError
from export.doctor.stability import ENOUGH, Stability


def draw(stability: Stability, path: Path) -> None:
    """Writes a PNG. Raises InputError where it cannot be written."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    photos = [point.photos for point in stability.points]
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.plot(photos, [100 * p.high for p in stability.points], "o-", color="#D55E00", label="95 % of the tensors")
        axes.plot(
            photos, [100 * p.median for p in stability.points], "o-", color="#0072B2", label="half of the tensors"
        )
        axes.axhline(100 * ENOUGH, color="#6B6B6B", linestyle="--", linewidth=1)
        axes.text(photos[0], 100 * ENOUGH * 1.06, f"{100 * ENOUGH:g} %: steady", color="#6B6B6B", va="bottom")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(photos, [str(count) for count in photos])
        axes.set_yticks(ticks := _ticks(stability), [f"{tick:g} %" for tick in ticks])
        axes.minorticks_off()
        axes.grid(True, color="#e4e6ea", linewidth=0.8)
        axes.set_xlabel("photos drawn")
        axes.set_ylabel("ranges move by, share of their width")
        axes.set_title(f"How steady calibration ranges are ({stability.tensors} tensors)", loc="left")
        axes.legend()
        try:
            figure.savefig(path, dpi=130)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def _ticks(stability: Stability) -> list[float]:
    values = [100 * value for point in stability.points for value in (point.median, point.high) if value > 0]
    lowest, highest = min([*values, 100 * ENOUGH]), max([*values, 100 * ENOUGH])
    every = [base * 10.0**power for power in range(-3, 4) for base in (1, 2, 5)]
    return [tick for tick in every if lowest / 2 <= tick <= highest * 2]
