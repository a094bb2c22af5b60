"""PReLU in the terms that engines fuse. ONNX Runtime's own PRelu kernel leaves the blocked layout and dominates the
network.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from export.graph import Array, Graph


def prelu_rewrite(model: ModelProto) -> ModelProto:
    """Rewrites each PRelu with one slope a channel as a·x + (1 − a)·relu(x): exact for slopes of any sign and size.

    Both scalings are depthwise 1×1 convolutions, not multiplications: an engine keeps those in its blocked layout, and
    fuses the last one with the sum. A slope that is not one value a channel stays a PRelu.
    """
    graph = Graph(model)
    for node in [node for node in graph.nodes if node.op_type == "PRelu"]:
        slope = _per_channel(graph.array(node.input[1]))
        if slope is None:
            continue
        x, y = node.input[0], node.output[0]
        straight = _scaled(graph, x, slope, f"{y}.straight")
        positive = graph.fresh(f"{y}.positive")
        graph.node("Relu", [x], [positive])
        bent = _scaled(graph, positive, 1.0 - slope, f"{y}.bent")
        graph.remove([node])
        graph.node("Add", [straight, bent], [y])
    return graph.close()


def _per_channel(slope: Array | None) -> Array | None:
    """(C,) of a (C, 1, 1) slope; None for other shapes, one slope for all channels among them."""
    if slope is None or slope.ndim not in (3, 4) or slope.size != slope.shape[-3] or slope.size == 1:
        return None
    return slope.reshape(-1).astype(np.float64)


def _scaled(graph: Graph, x: str, factors: Array, name: str) -> str:
    y = graph.fresh(name)
    weight = graph.constant(f"{y}.weight", factors.astype(np.float32).reshape(-1, 1, 1, 1))
    graph.node("Conv", [x, weight], [y], group=len(factors), kernel_shape=[1, 1])
    return y
