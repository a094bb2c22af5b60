"""Which layers eight bits hurt, and the fewest to keep in float so that a model is within its budget again.

Two questions a layer: what does the model lose where this layer alone is in eight bits, and what does it still lose
where all but this one are? They differ, because errors of layers add up, or make up for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnx import ModelProto
from tqdm import tqdm

from export.gate import Drop
from export.passes.integer_pixels import integer_pixels
from export.passes.qdq import final_layers, placement

Build = Callable[[frozenset[str]], bytes]
"""The INT8 model with the layers given, by output tensor, in float."""

MAX_KEPT_SHARE = 0.5
"""A model with more of its layers in float than this is not worth calling INT8."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How well a model does on held-out pictures.

    figure: mean cosine of embeddings to FP32's, or agreement of the faces found; 1 is FP32 itself. lost: what is lost
    of TAR at a FAR, in points, with its interval; None where no people are known by name.
    """

    figure: float
    lost: Drop | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"figure": self.figure} | ({} if self.lost is None else {self.lost.what: self.lost.to_dict()})


Judge = Callable[[bytes], Scores]


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """A layer by its output tensor. alone: with it alone in INT8; without: with all but it."""

    layer: str
    alone: Scores
    without: Scores

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"layer": self.layer, "alone": self.alone.to_dict(), "all_but_it": self.without.to_dict()}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing tried: these layers in float, and the figure then."""

    keep: frozenset[str]
    figure: float


@dataclass(frozen=True, slots=True)
class Repair:
    """keep: the layers to leave in float. steps: what was tried, in order. reached: whether the budget was."""

    keep: frozenset[str]
    steps: tuple[Step, ...]
    reached: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        steps = [{**asdict(step), "keep": sorted(step.keep)} for step in self.steps]
        return {"kept": sorted(self.keep), "steps": steps, "reached": self.reached}


def quantised_layers(model: ModelProto) -> tuple[str, ...]:
    """The convolutions and linear layers that `int8-cpu` quantises, by output tensor, in the order of the graph."""
    prepared = integer_pixels(model)
    layers = {node.output[0] for node in prepared.graph.node if node.op_type in ("Conv", "Gemm")}
    return tuple(name for name in placement(prepared, final_layers(prepared)).nodes if name in layers)


def all_but(model: ModelProto, layer: str) -> frozenset[str]:
    """What to keep in float so that one layer alone is in INT8: sums too, which by themselves are no integer kernel."""
    return frozenset(placement(integer_pixels(model)).nodes) - {layer}


def layer_sensitivity(
    model: ModelProto, build: Build, judge: Judge, *, quiet: bool = False
) -> tuple[LayerSensitivity, ...]:
    """Both figures of every layer, the one that hurts most when alone first."""
    found = [
        LayerSensitivity(name, judge(build(all_but(model, name))), judge(build(frozenset({name}))))
        for name in tqdm(quantised_layers(model), desc="sensitivity", unit="layer", disable=quiet, leave=False)
    ]
    return tuple(sorted(found, key=lambda entry: entry.alone.figure))


def orders(layers: Sequence[LayerSensitivity]) -> Mapping[str, tuple[str, ...]]:
    """Layers by how much they hurt alone, and by how much is won where they are the one in float; most first."""
    return {
        "what each loses alone": tuple(e.layer for e in sorted(layers, key=lambda e: e.alone.figure)),
        "what keeping each wins": tuple(e.layer for e in sorted(layers, key=lambda e: -e.without.figure)),
    }


def repair(order: Sequence[str], budget: float, build: Build, judge: Callable[[bytes], float]) -> Repair:
    """The fewest of the first layers of `order` to keep so that the figure reaches `budget`, found by bisection.

    Not reached, where half the layers in float are not enough.
    """
    steps = list[Step]()

    def figure(count: int) -> float:
        keep = frozenset(order[:count])
        steps.append(Step(keep, judge(build(keep))))
        return steps[-1].figure

    low, high = 0, max(1, int(len(order) * MAX_KEPT_SHARE))
    if figure(high) < budget:
        return Repair(frozenset(), tuple(steps), reached=False)
    while high - low > 1:
        middle = (low + high) // 2
        if figure(middle) >= budget:
            high = middle
        else:
            low = middle
    return Repair(frozenset(order[:high]), tuple(steps), reached=True)
