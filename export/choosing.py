"""Which calibration method: by the cosine of its embeddings, and by accuracy where known people can decide that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.metrics.intervals import LEVEL
from edge.types import Floats
from export.agreement import embed_with
from export.gate import tar_drop
from export.labelled import LabelledFaces
from export.sources import Source

MOST_TO_CHOOSE = 4000
"""Faces methods are compared on: eight million pairs. Each of a dozen models embeds them all."""


@dataclass(frozen=True, slots=True)
class AccuracyChoice:
    """Compares the INT8 embedders that methods make by TAR at a FAR on faces of known people, paired.

    faces: none that a range was taken from, and none of a test: what chooses cannot measure. far: asked for; where the
    pairs cannot show it, the lowest they can show is measured, and decides nothing.
    """

    source: Source
    faces: LabelledFaces
    far: float

    def __call__(self, models: Mapping[str, bytes], closest: str, figures: Mapping[str, float]) -> dict[str, Any]:
        """The method to take, and both figures of each, JSON-ready, under `taken`, `why` and `methods`.

        models: INT8 by method. closest: the method of the best cosine, which is taken unless another one's TAR is
        higher by an interval that excludes zero, at a level that allows for as many comparisons as there are.
        """
        far = self.faces.readable_far(self.far)
        reference = self._rows(self.source.float_model.SerializeToString())
        rows = {name: self._rows(data) for name, data in models.items()}
        lost = {name: tar_drop(reference, each, self.faces.labels, far) for name, each in rows.items()}
        level = 1.0 - (1.0 - LEVEL) / max(1, len(models) - 1)
        against = {
            name: tar_drop(rows[closest], each, self.faces.labels, far, level)
            for name, each in rows.items()
            if name != closest
        }
        taken, why = closest, self.faces.doubt(self.far)
        if why is None:
            better = {name: -drop.points.value for name, drop in against.items() if drop.points.high < 0.0}
            taken = max(better, key=lambda name: better[name]) if better else closest
            why = (
                f"TAR is {better[taken]:.2f} points above that of {closest}, whose cosine is the best"
                if better
                else f"no method's TAR is above that of {closest}, the best by cosine, beyond doubt"
            )
        else:
            why = f"{why}; the cosine decides"
        methods = {name: {"cosine": round(figures[name], 6), **lost[name].to_dict()} for name in models}
        return {"taken": taken, "why": why, "far": far, "on": self.faces.on, "methods": methods}

    def _rows(self, data: bytes) -> Floats:
        return embed_with(data, self.source.contract, self.faces.crops)


def as_line(role: str, choice: Mapping[str, Any]) -> str:
    """What an `AccuracyChoice` found, for people."""
    each = (
        f"{name} {100 * values['variant']:.2f} % (cosine {values['cosine']:.5f})"
        for name, values in choice["methods"].items()
    )
    return f"{role}: TAR at FAR {choice['far']:g} on {choice['on']}: {', '.join(each)}; {choice['why']}"
