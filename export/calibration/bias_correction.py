"""What rounding a layer's weights adds to each output channel on average, and its bias can take off again.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019
(https://arxiv.org/abs/1906.04721), section 4.2, with the mean over calibration pictures instead of BatchNorm's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, helper

from export.calibration.observer import outputs_of
from export.graph import Array, Graph
from export.passes.qdq import final_layers, rounded_weight

Shifts = dict[str, tuple[float, ...]]


def bias_correction(model: ModelProto, batches: Sequence[Array]) -> Shifts:
    """What to add to the biases of the convolutions that INT8 rounds, by output tensor: `export.passes.shift_biases`.

    batches: arrays for the model's one input. The mean is linear, so the layer's rounding error on the mean input is
    the mean error on the inputs: each convolution runs a second time with the error for its weight.
    """
    graph, heads = Graph(model), final_layers(model)
    layers = [node for node in graph.nodes if _corrected(node, graph) and node.output[0] not in heads]
    errors = {}
    for node in layers:
        weight = graph.arrays[node.input[1]]
        error = NodeProto()
        error.CopyFrom(node)
        del error.input[2:]
        error.input[1] = graph.constant(f"{node.input[1]}.error", rounded_weight(weight) - weight)
        error.output[0] = graph.fresh(f"{node.output[0]}.error")
        errors[error.output[0]] = node.output[0]
        graph.nodes.append(error)
    graph.outputs += [helper.make_tensor_value_info(name, 1, None) for name in errors]
    sums: dict[str, Array] = {}
    pictures = 0
    for values in outputs_of(graph.close(), list(errors), batches):
        pictures += len(values[0][1]) if values else 0
        for name, array in values:
            mean = array.mean(axis=(2, 3), dtype=np.float64).sum(axis=0)
            sums[name] = sums[name] + mean if name in sums else mean
    return {errors[name]: tuple(float(f"{-value / pictures:.6g}") for value in total) for name, total in sums.items()}


def _corrected(node: NodeProto, graph: Graph) -> bool:
    biased = len(node.input) > 2 and graph.array(node.input[2]) is not None
    return node.op_type == "Conv" and biased and graph.array(node.input[1]) is not None
