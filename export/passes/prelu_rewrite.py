"""PReLU in the terms that engines fuse. ONNX Runtime's own PRelu kernel leaves the blocked layout and dominates."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto

from export.graph import Array, Graph
from export.passes.equalise import is_layer, multiply_channels
from export.passes.pair_sums import is_depthwise

TURNED = ".turned"
"""Behind the names of tensors whose values have another sign in some channels than the original's."""


def prelu_rewrite(model: ModelProto) -> ModelProto:
    """Rewrites each PRelu with one slope a channel as x + relu((a − 1)·x), exactly.

    That holds for slopes up to 1. A channel of a greater slope is turned round: the layer before gives −x and the
    layers behind read −y = −x + relu((a − 1)·(−x)), signs changed in their weights. Where that cannot be done the PRelu
    is x + (1 − a)·relu(−x), for slopes of any size: one scaling more.

    Scalings are depthwise 1×1 convolutions, which an engine keeps in its blocked layout and fuses with the Relu, in
    eight bits too. A slope that is not one value a channel stays a PRelu.
    """
    graph = Graph(model)
    for node in [node for node in graph.nodes if node.op_type == "PRelu"]:
        slope = _per_channel(graph.array(node.input[1]))
        if slope is None:
            continue
        steep = slope > 1.0
        turned = bool(steep.any()) and _turn(node, np.where(steep, -1.0, 1.0), graph)
        x, y = node.input[0], node.output[0]
        graph.remove([node])
        positive = graph.fresh(f"{y}.positive")
        if turned or not steep.any():
            graph.node("Relu", [_scaled(graph, x, slope - 1.0, f"{y}.bent")], [positive])
            graph.node("Add", [x, positive], [y])
        else:
            graph.node("Relu", [_scaled(graph, x, -np.ones_like(slope), f"{y}.below")], [positive])
            graph.node("Add", [x, _scaled(graph, positive, 1.0 - slope, f"{y}.bent")], [y])
    return graph.close()


def is_bent_sum(node: NodeProto, graph: Graph) -> bool:
    """Whether a node is the sum that a PRelu became: x + relu(x scaled by channel), or that relu scaled once more."""
    producers = graph.producers()
    if node.op_type != "Add" or len(node.input) != 2:
        return False
    relu = producers.get(node.input[1])
    if relu is not None and _is_scaling(relu, graph):
        relu = producers.get(relu.input[0])
    layer = producers.get(relu.input[0]) if relu is not None and relu.op_type == "Relu" else None
    return layer is not None and _is_scaling(layer, graph) and layer.input[0] == node.input[0]


def _is_scaling(layer: NodeProto, graph: Graph) -> bool:
    """Whether a layer scales each channel by itself."""
    weight = graph.array(layer.input[1]) if layer.op_type == "Conv" else None
    return weight is not None and is_depthwise(weight) and weight.shape[2:] == (1, 1)


def _per_channel(slope: Array | None) -> Array | None:
    """(C,) of a (C, 1, 1) slope; None for other shapes, one slope for all channels among them."""
    if slope is None or slope.ndim not in (3, 4) or slope.size != slope.shape[-3] or slope.size == 1:
        return None
    return slope.reshape(-1).astype(np.float64)


def _turn(node: NodeProto, signs: Array, graph: Graph) -> bool:
    """Gives what a PRelu takes and gives the signs (C,), if the convolutions around it can take them; says whether."""
    x, y = node.input[0], node.output[0]
    uses, before = graph.consumers(), graph.producers().get(x)
    readers = uses.get(y, [])
    if before is None or len(uses[x]) != 1 or graph.output_names & {x, y}:
        return False
    if not all(layer.op_type == "Conv" and is_layer(layer, graph, uses) for layer in (before, *readers)):
        return False
    multiply_channels(graph, before, signs, 0)
    for reader in readers:
        multiply_channels(graph, reader, signs, 1)
    for name in (x, y):
        graph.rename_tensor(name, graph.fresh(name + TURNED))
    return True


def _scaled(graph: Graph, x: str, factors: Array, name: str) -> str:
    y = graph.fresh(name)
    weight = graph.constant(f"{y}.weight", factors.astype(np.float32).reshape(-1, 1, 1, 1))
    graph.node("Conv", [x, weight], [y], group=len(factors), kernel_shape=[1, 1])
    return y
