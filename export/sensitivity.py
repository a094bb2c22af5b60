"""Which layers eight bits hurt, and the fewest to keep in float so that a model is within its budget again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnx import ModelProto
from tqdm import tqdm

from export.passes.integer_pixels import integer_pixels
from export.passes.qdq import Ranges, final_layers, placement, quantise

Judge = Callable[[bytes], float]
"""How well a model does on held-out pictures; higher is better."""

MAX_KEPT_SHARE = 0.5
"""A model with more of its layers in float than this is not worth calling INT8."""


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """What quantising one layer alone leaves of the figure. layer: its output tensor."""

    layer: str
    figure: float


@dataclass(frozen=True, slots=True)
class Step:
    """One point of the trade-off: this many of the most sensitive layers kept in float, and the figure then."""

    kept: int
    figure: float


@dataclass(frozen=True, slots=True)
class Repair:
    """keep: the layers to leave in float. steps: what was tried, in order. reached: whether the budget was."""

    keep: frozenset[str]
    steps: tuple[Step, ...]
    reached: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"kept": sorted(self.keep), "steps": [asdict(step) for step in self.steps], "reached": self.reached}


def layer_sensitivity(
    model: ModelProto, ranges: Ranges, judge: Judge, *, quiet: bool = False
) -> tuple[LayerSensitivity, ...]:
    """The figure with each layer alone in INT8, worst first.

    Sums are quantised with their neighbours, not alone: by themselves they are no integer kernel.
    """
    prepared = integer_pixels(model)
    heads = final_layers(prepared)
    every = [name for name in placement(prepared, heads).nodes if name in _layers(prepared)]
    found = []
    for name in tqdm(every, desc="sensitivity", unit="layer", disable=quiet, leave=False):
        others = frozenset(placement(prepared).nodes) - {name}
        found.append(LayerSensitivity(name, judge(quantise(prepared, ranges, "int8-cpu", others).SerializeToString())))
    return tuple(sorted(found, key=lambda entry: entry.figure))


def repair(
    order: Sequence[LayerSensitivity], budget: float, build: Callable[[frozenset[str]], bytes], judge: Judge
) -> Repair:
    """The fewest of the most sensitive layers to keep so that the figure reaches `budget`, found by bisection.

    build: the INT8 model with the layers given in float. Not reached, where half the layers in float are not enough.
    """
    steps = list[Step]()

    def figure(count: int) -> float:
        value = judge(build(frozenset(entry.layer for entry in order[:count])))
        steps.append(Step(count, value))
        return value

    low, high = 0, max(1, int(len(order) * MAX_KEPT_SHARE))
    if figure(high) < budget:
        return Repair(frozenset(), tuple(steps), reached=False)
    while high - low > 1:
        middle = (low + high) // 2
        if figure(middle) >= budget:
            high = middle
        else:
            low = middle
    return Repair(frozenset(entry.layer for entry in order[:high]), tuple(steps), reached=True)


def _layers(model: ModelProto) -> set[str]:
    return {node.output[0] for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
