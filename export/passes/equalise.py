"""Cross-layer equalisation: the channels of an activation brought to like ranges, for INT8 has one scale for them all.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019
(https://arxiv.org/abs/1906.04721), section 4.1: what a layer gives times a factor a channel, what the next layers take
divided by it; the function stays. Here a factor belongs to a whole bus, every tensor that must share it: through ReLU,
pooling, resizing and residual sums, up to the layers that feed it and those that read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto

from edge.errors import InputError
from export.graph import Array, Graph, attribute
from export.passes.pair_sums import is_depthwise

POSITIVE = ("Relu", "MaxPool")
"""Let a factor above zero through."""

EQUALISED = ".equalised"

LINEAR = ("Add", "Resize", "AveragePool", "GlobalAveragePool", "Flatten", "Reshape")
"""Let any factor through."""


@dataclass(frozen=True, slots=True)
class Bus:
    """Tensors whose channels share factors. name: the first of `tensors`, in the graph's order.

    givers, takers: output tensors of the layers that feed the bus and read it; one may be both. signed: whether a
    factor may be negative. channels: how many.
    """

    name: str
    tensors: tuple[str, ...]
    givers: tuple[str, ...]
    takers: tuple[str, ...]
    signed: bool
    channels: int


def buses(model: ModelProto) -> tuple[Bus, ...]:
    """Every bus of the graph that begins and ends at layers with constant weights, in the graph's order."""
    graph = Graph(model)
    together = _Union()
    for node in graph.nodes:
        if node.op_type in POSITIVE + LINEAR:
            for name in _values(node):
                together.join(name, node.output[0])
    tensors: dict[str, list[str]] = {}
    for name in [value.name for value in graph.inputs] + [name for node in graph.nodes for name in node.output]:
        tensors.setdefault(together.root(name), []).append(name)
    producers, consumers = graph.producers(), graph.consumers()
    found = (_bus(graph, producers, consumers, names) for names in tensors.values())
    return tuple(bus for bus in found if bus is not None)


def equalise(model: ModelProto, factors: Mapping[str, npt.ArrayLike]) -> ModelProto:
    """The model with the values of each bus named in `factors` multiplied by them, (C,) each; its answers stay.

    Tensors whose values changed have EQUALISED behind their names, so that nobody compares them with the original's.
    Raises InputError for a bus that the model does not have, or factors that it cannot take.
    """
    known = {bus.name: bus for bus in buses(model)}
    graph = Graph(model)
    layers = {node.output[0]: node for node in graph.nodes}
    for name, values in factors.items():
        bus, factor = known.get(name), np.asarray(values, np.float64)
        if bus is None or factor.shape != (bus.channels,):
            raise InputError(f"the equalisation does not fit the model at {name}; calibrate again")
        if not np.isfinite(factor).all() or not (factor if not bus.signed else np.abs(factor)).min() > 0:
            raise InputError(f"the equalisation has a factor at {name} that no layer can take; calibrate again")
        for giver in bus.givers:
            multiply_channels(graph, layers[giver], factor, 0)
        for taker in bus.takers:
            multiply_channels(graph, layers[taker], 1.0 / factor, 1)
    graph.rename_tensors({tensor: tensor + EQUALISED for name in factors for tensor in known[name].tensors})
    return graph.close()


def taken(model: ModelProto, bus: Bus) -> Array | None:
    """(C,) the largest weight each channel of the bus meets in the layers that read it, in shares of the layer's.

    None where each of those layers has a scale for every input channel, so that none of them minds any factor.
    """
    graph = Graph(model)
    layers = {node.output[0]: node for node in graph.nodes}
    found = []
    for name in bus.takers:
        weight = np.abs(graph.arrays[layers[name].input[1]])
        if not is_depthwise(weight):
            axis = _axis(layers[name], 1)
            most = weight.max(axis=tuple(i for i in range(weight.ndim) if i != axis))
            found.append(most / most.max())
    return np.maximum.reduce(found) if found else None


def _bus(
    graph: Graph, producers: Mapping[str, NodeProto], consumers: Mapping[str, list[NodeProto]], tensors: list[str]
) -> Bus | None:
    """The bus of tensors that belong together; None where something other than a layer gives or takes one of them."""
    inside = set(tensors)
    if inside & (graph.output_names | {value.name for value in graph.inputs}):
        return None
    givers, takers, passing, widths = list[str](), list[str](), set[str](), set[int]()
    for name in tensors:
        giver = producers[name]
        if giver.op_type in POSITIVE + LINEAR:
            if any(value in graph.arrays for value in _values(giver)):
                return None  # a constant that is added would have to be multiplied too
            passing.add(giver.op_type)
        elif is_layer(giver, graph, consumers):
            givers.append(name)
            widths.add(graph.arrays[giver.input[1]].shape[_axis(giver, 0)])
        else:
            return None
        for taker in consumers.get(name, []):
            if taker.op_type in POSITIVE + LINEAR and set(_values(taker)) <= inside:
                continue
            if not is_layer(taker, graph, consumers) or name in list(taker.input)[1:]:
                return None
            takers.append(taker.output[0])
            weight = graph.arrays[taker.input[1]]
            widths.add(weight.shape[0 if is_depthwise(weight) else _axis(taker, 1)])
    if not givers or not takers or len(widths) != 1:
        return None
    return Bus(tensors[0], tuple(tensors), tuple(givers), tuple(takers), not passing & set(POSITIVE), widths.pop())


def is_layer(node: NodeProto, graph: Graph, uses: Mapping[str, list[NodeProto]]) -> bool:
    """Whether a node is a layer whose channels can be multiplied: dense or depthwise, constant, not shared.

    uses: the graph's consumers.
    """
    if node.op_type not in ("Conv", "Gemm"):
        return False
    weight = graph.array(node.input[1])
    own = weight is not None and all(name in graph.arrays and len(uses[name]) == 1 for name in node.input[1:] if name)
    if not own or weight is None:
        return False
    if node.op_type == "Gemm":
        return not attribute(node, "transA", 0) and attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
    group = attribute(node, "group", 1)
    return bool(group == 1 or (is_depthwise(weight) and group == len(weight)))


def _values(node: NodeProto) -> Iterable[str]:
    """What a node that lets factors through takes of the picture."""
    return list(node.input) if node.op_type == "Add" else [node.input[0]]


def _axis(layer: NodeProto, channels: int) -> int:
    """The axis of a layer's weight along which its output channels (0) or input channels (1) lie."""
    straight = layer.op_type == "Conv" or bool(attribute(layer, "transB", 0))
    return channels if straight else 1 - channels


def multiply_channels(graph: Graph, layer: NodeProto, factor: Array, channels: int) -> None:
    """A layer's output channels (0) or input channels (1) times factors."""
    name = layer.input[1]
    weight = graph.arrays[name]
    axis = 0 if is_depthwise(weight) else _axis(layer, channels)
    along = [1] * weight.ndim
    along[axis] = -1
    graph.arrays[name] = (weight.astype(np.float64) * factor.reshape(along)).astype(np.float32)
    if channels == 0 and len(layer.input) > 2 and layer.input[2]:
        bias = graph.arrays[layer.input[2]]
        shape = factor if bias.ndim == 1 else factor.reshape([1] * (bias.ndim - 1) + [-1])
        graph.arrays[layer.input[2]] = (bias.astype(np.float64) * shape).astype(np.float32)


class _Union:
    """Which names belong together."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def root(self, name: str) -> str:
        while (above := self._parent.get(name, name)) != name:
            name = above
        return name

    def join(self, a: str, b: str) -> None:
        self._parent[self.root(a)] = self.root(b)
