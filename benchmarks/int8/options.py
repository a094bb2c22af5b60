"""Ways to make INT8 lose less, each a function of the float model; `export` keeps those that earn their place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto

from export.calibration.bias_correction import bias_correction
from export.graph import Array, Graph, attribute
from export.passes.shift_biases import shift_biases

_SMALL = 1e-8


def corrected_biases(model: ModelProto, batches: Sequence[Array]) -> ModelProto:
    """As `edge export` corrects them, without asking whether it helps. batches: for the model's one input."""
    return shift_biases(model, bias_correction(model, batches))


def equalised(model: ModelProto, rounds: int = 10) -> ModelProto:
    """Scales moved from a layer's output channels into the next layer's input channels, where a ReLU lies between.

    Cross-layer equalisation of the same paper, section 4.1: the function stays the same, and each pair of channels ends
    with equal ranges. Only where one layer alone takes what the other gives.
    """
    graph = Graph(model)
    consumers = graph.consumers()
    pairs = []
    for node in graph.nodes:
        after = consumers.get(node.output[0], [])
        if node.op_type == "Conv" and len(after) == 1 and after[0].op_type == "Relu":
            after = consumers.get(after[0].output[0], [])
            if len(after) == 1 and after[0].op_type == "Conv" and len(node.input) > 2:
                pairs.append((node, after[0]))
    for _ in range(rounds):
        for first, second in pairs:
            _equalise(graph, first, second)
    return graph.close()


def _equalise(graph: Graph, first: NodeProto, second: NodeProto) -> None:
    a, b = graph.arrays[first.input[1]], graph.arrays[second.input[1]]
    depthwise = attribute(second, "group", 1) > 1
    given = np.abs(a).max(axis=(1, 2, 3))
    taken = np.abs(b).max(axis=(1, 2, 3) if depthwise else (0, 2, 3))
    scale = np.sqrt(np.maximum(given, _SMALL) / np.maximum(taken, _SMALL)).astype(np.float32)
    scale = np.clip(scale, 0.1, 10.0)
    graph.arrays[first.input[1]] = a / scale[:, None, None, None]
    graph.arrays[first.input[2]] = graph.arrays[first.input[2]] / scale
    along = (slice(None), None, None, None) if depthwise else (None, slice(None), None, None)
    graph.arrays[second.input[1]] = b * scale[along]
