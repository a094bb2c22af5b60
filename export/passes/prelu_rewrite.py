"""PReLU in the terms that engines fuse. ONNX Runtime's own PRelu kernel leaves the blocked layout and dominates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto

from export.graph import Array, Graph

SMALLEST_BEND = 0.05
"""1 − a from which the bend may move into the convolution before: below it, a / (1 − a) would blow rounding up."""


def prelu_rewrite(model: ModelProto) -> ModelProto:
    """Rewrites each PRelu with one slope a channel as a·x + (1 − a)·relu(x): exact for slopes of any sign and size.

    Where a convolution alone makes x, and every 1 − a is at least SMALLEST_BEND, that convolution gives x' = (1 − a)·x
    instead, and PRelu is a/(1 − a)·x' + relu(x'): one pass over the tensor less. Scalings are depthwise 1×1
    convolutions, which an engine keeps in its blocked layout and fuses with the sum. A slope that is not one value a
    channel stays a PRelu.
    """
    graph = Graph(model)
    for node in [node for node in graph.nodes if node.op_type == "PRelu"]:
        slope = _per_channel(graph.array(node.input[1]))
        if slope is None:
            continue
        x, y = node.input[0], node.output[0]
        layer = _own_convolution(x, graph)
        graph.remove([node])
        positive = graph.fresh(f"{y}.positive")
        if layer is not None and (1.0 - slope).min() >= SMALLEST_BEND:
            _scale_layer(layer, 1.0 - slope, graph)
            straight = _scaled(graph, x, slope / (1.0 - slope), f"{y}.straight")
            graph.node("Relu", [x], [positive])
            graph.node("Add", [straight, positive], [y])
        else:
            straight = _scaled(graph, x, slope, f"{y}.straight")
            graph.node("Relu", [x], [positive])
            graph.node("Add", [straight, _scaled(graph, positive, 1.0 - slope, f"{y}.bent")], [y])
    return graph.close()


def _per_channel(slope: Array | None) -> Array | None:
    """(C,) of a (C, 1, 1) slope; None for other shapes, one slope for all channels among them."""
    if slope is None or slope.ndim not in (3, 4) or slope.size != slope.shape[-3] or slope.size == 1:
        return None
    return slope.reshape(-1).astype(np.float64)


def _own_convolution(x: str, graph: Graph) -> NodeProto | None:
    """The convolution that makes `x` for one node alone, with parameters of its own; None where there is none."""
    layer = graph.producers().get(x)
    uses: Mapping[str, list[NodeProto]] = graph.consumers()
    if layer is None or layer.op_type != "Conv" or len(uses[x]) != 1 or x in graph.output_names:
        return None
    parameters = [name for name in layer.input[1:] if name]
    own = all(name in graph.arrays and len(uses[name]) == 1 for name in parameters)
    return layer if own else None


def _scale_layer(layer: NodeProto, factors: Array, graph: Graph) -> None:
    for name in layer.input[1:]:
        if name:
            value = graph.arrays[name]
            along = [-1] + [1] * (value.ndim - 1)
            graph.arrays[name] = (value.astype(np.float64) * factors.reshape(along)).astype(np.float32)


def _scaled(graph: Graph, x: str, factors: Array, name: str) -> str:
    y = graph.fresh(name)
    weight = graph.constant(f"{y}.weight", factors.astype(np.float32).reshape(-1, 1, 1, 1))
    graph.node("Conv", [x, weight], [y], group=len(factors), kernel_shape=[1, 1])
    return y
