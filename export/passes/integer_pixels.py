"""For INT8 on a CPU: pixels are eight bits already, so the first convolution takes them as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto

from export.graph import Array, Graph
from export.passes.embed_preprocessing import INPUT


def integer_pixels(model: ModelProto) -> ModelProto:
    """Replaces Cast → Transpose → Sub before the first convolution by DequantizeLinear of scale 1 → Transpose.

    In that order OpenVINO computes the convolution in eight bits too; behind the Transpose it would not.

    The zero point is the mean where that is one whole grey level for all channels. What the mean lies beside a whole
    level (at most half a level a channel) goes into the convolution's bias: exact but for the outermost border, where
    the padding now stands for the whole level, off by less than eight bits can hold anyway. Changes nothing where the
    channels' means are further apart, or anything but convolutions takes the pixels.
    """
    graph = Graph(model)
    consumers = graph.consumers()
    chain, current = list[NodeProto](), INPUT
    while len(after := consumers.get(current, [])) == 1 and after[0].op_type in ("Cast", "Transpose", "Sub"):
        chain.append(after[0])
        current = after[0].output[0]
    layers = consumers.get(current, [])
    mean = _mean(chain, graph)
    transpose = [node for node in chain if node.op_type == "Transpose"]
    if mean is None or len(transpose) != 1 or not layers or not all(_is_layer(node, graph) for node in layers):
        return graph.close()
    level = float(np.floor((mean.min() + mean.max()) / 2 + 0.5))
    shift = level - mean
    if np.abs(shift).max() > 0.5 or not 0 <= level <= 255:
        return graph.close()
    if shift.any():
        _shift_biases(layers, shift, graph)
    graph.remove(chain)
    scale = graph.constant(f"{INPUT}.scale", np.array(1.0, np.float32))
    zero = graph.constant(f"{INPUT}.zero", np.array(level, np.uint8))
    levels = graph.node("DequantizeLinear", [INPUT, scale, zero], [graph.fresh(f"{INPUT}.levels")]).output[0]
    graph.node("Transpose", [levels], [current], perm=[0, 3, 1, 2])
    return graph.close()


def _mean(chain: Sequence[NodeProto], graph: Graph) -> Array | None:
    """(3,) float64 that the chain subtracts; None where it is no constant of one value a channel."""
    mean = np.zeros(3)
    for node in chain:
        if node.op_type == "Sub":
            value = graph.array(node.input[1])
            if value is None or value.size not in (1, 3):
                return None
            mean = mean + np.broadcast_to(value.reshape(-1).astype(np.float64), 3)
    return mean


def _shift_biases(layers: Sequence[NodeProto], shift: Array, graph: Graph) -> None:
    """(x − mean)·w = (x − level)·w + (level − mean)·w: the last term joins the bias."""
    for layer in layers:
        weight = graph.arrays[layer.input[1]].astype(np.float64)
        bias = graph.arrays[layer.input[2]] if len(layer.input) > 2 and layer.input[2] else np.zeros(len(weight))
        name = layer.input[1].removesuffix(".weight") + ".bias"
        del layer.input[2:]
        value = bias.astype(np.float64) + weight.sum(axis=(2, 3)) @ shift
        layer.input.append(graph.constant(name, value.astype(np.float32)))


def _is_layer(node: NodeProto, graph: Graph) -> bool:
    biased = len(node.input) > 2 and bool(node.input[2])
    return node.op_type == "Conv" and node.input[1] in graph.arrays and (not biased or node.input[2] in graph.arrays)


def quantised_already(graph: Graph) -> Mapping[str, tuple[np.float32, np.uint8]]:
    """Tensors behind a DequantizeLinear of one scale, also turned round, with scale and zero point."""
    found = {
        node.output[0]: (np.float32(graph.arrays[node.input[1]]), np.uint8(graph.arrays[node.input[2]]))
        for node in graph.nodes
        if node.op_type == "DequantizeLinear" and len(node.input) > 2 and graph.arrays[node.input[1]].ndim == 0
    }
    turned = {n.output[0]: found[n.input[0]] for n in graph.nodes if n.op_type == "Transpose" and n.input[0] in found}
    return found | turned
