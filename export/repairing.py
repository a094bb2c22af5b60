"""Brings an INT8 embedder that is out of its budget back into it, and says at what price."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edge.errors import GateError
from edge.types import Image
from export.agreement import compare_embeddings, embed_with
from export.calibration.calibrate import split_held_out
from export.calibration.table import CalibrationTable
from export.passes.shift_biases import shift_biases
from export.request import Budget
from export.sensitivity import layer_sensitivity, repair
from export.sources import Source
from export.variants import int8_model

SENSITIVITY_CROPS = 24
"""Held-out crops a single layer is judged on: order is what counts there, and the whole set judges the result."""


def repaired(
    source: Source, table: CalibrationTable, crops: Image, budget: Budget, tell: Callable[[str], None]
) -> CalibrationTable:
    """The table as it is where INT8 is within its budget, else with the fewest layers kept in float that bring it
    there.

    crops: the calibration's, (N, H, W, 3) uint8 BGR. Raises GateError where half the layers in float are not enough.
    """
    least = budget.least_cosine("int8")
    before = table.figure
    if before >= least:
        return table
    held = crops[split_held_out(len(crops))[1]]
    reference = embed_with(source.float_model.SerializeToString(), source.contract, held)

    def judge(data: bytes, count: int = len(held)) -> float:
        rows = embed_with(data, source.contract, held[:count])
        return compare_embeddings(rows, reference[:count], "").mean_cosine

    tell(f"INT8 has mean cosine {before:.5f}, the budget is {least}: looking for the layers that cost it")
    order = layer_sensitivity(
        source.float_model, table.tensors, lambda data: judge(data, SENSITIVITY_CROPS), quiet=True
    )

    def build(keep: frozenset[str]) -> bytes:
        corrected = shift_biases(source.float_model, table.shifts, keep)
        return bytes(int8_model(corrected, table.tensors, "int8-cpu", keep).SerializeToString())

    found = repair(order, least, build, judge)
    if not found.reached:
        best = max(step.figure for step in found.steps)
        raise GateError(
            f"embedder-int8: mean cosine {before:.5f} over {len(held)} held-out calibration crops, the budget is "
            f"{least}; "
            f"{best:.5f} with half of its layers in float; nothing was written"
        )
    figure = next(step.figure for step in found.steps if step.kept == len(found.keep))
    tell(f"INT8 keeps {len(found.keep)} of {len(order)} layers in float: mean cosine {before:.5f} → {figure:.5f}")
    return replace(table, keep=tuple(sorted(found.keep)))
