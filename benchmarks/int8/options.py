"""Ways to make INT8 lose less, each a function of the float model; `export` keeps those that earn their place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, helper

from edge.engines import open_session
from export.graph import Array, Graph, attribute
from export.passes.pair_sums import bounded_scales
from export.passes.qdq import channel_scales

_SMALL = 1e-8


def corrected_biases(model: ModelProto, batches: Sequence[Array]) -> ModelProto:
    """The mean that rounding a layer's weights adds to each output channel, taken off its bias.

    Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, 2019, section 4.2, with the
    mean over calibration pictures instead of BatchNorm's. batches: for the model's one input.
    """
    watched, graph = Graph(model), Graph(model)
    layers = [node for node in graph.nodes if node.op_type == "Conv" and len(node.input) > 2]
    for node in layers:
        weight = graph.arrays[node.input[1]]
        error = watched.constant(f"{node.input[1]}.error", _rounded(weight) - weight)
        copy = NodeProto()
        copy.CopyFrom(node)
        del copy.input[:], copy.output[:]
        copy.input.extend([node.input[0], error])
        copy.output.append(f"{node.output[0]}.error")
        watched.nodes.append(copy)
        watched.outputs.append(helper.make_tensor_value_info(copy.output[0], 1, None))
    sums, count = {node.output[0]: np.float64(0) for node in layers}, 0
    with open_session(watched.close().SerializeToString()) as session:
        for batch in batches:
            outputs = session.run({session.inputs[0].name: batch})
            count += 1
            for node in layers:
                name = node.output[0]
                sums[name] = sums[name] + outputs[f"{name}.error"].mean(axis=(0, 2, 3), dtype=np.float64)
    for node in layers:
        bias = graph.arrays[node.input[2]]
        graph.arrays[node.input[2]] = (bias - sums[node.output[0]] / count).astype(np.float32)
    return graph.close()


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


def _rounded(weight: Array) -> Array:
    scales = np.maximum(channel_scales(weight, 0), bounded_scales(weight, 0)).reshape(-1, 1, 1, 1)
    rounded: Array = (np.clip(np.rint(weight / scales), -127, 127) * scales).astype(np.float32)
    return rounded
