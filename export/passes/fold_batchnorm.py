"""BatchNorm of a trained network is one scale and shift a channel: fold it into the layer before it."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto

from export.graph import Array, Graph, attribute, set_attribute


def fold_batchnorm(model: ModelProto) -> ModelProto:
    """Folds each BatchNormalization into the Conv, ConvTranspose or Gemm that alone feeds it.

    y = γ·(W·x + b − μ)/√(σ² + ε) + β, so W' = W·s and b' = (b − μ)·s + β with s = γ/√(σ² + ε); computed in float64.
    A BatchNorm that follows nothing foldable stays. The tensor keeps the BatchNorm's name.
    """
    graph = Graph(model)
    producers, consumers = graph.producers(), graph.consumers()
    for norm in [node for node in graph.nodes if node.op_type == "BatchNormalization"]:
        layer = producers.get(norm.input[0])
        if layer is None or len(consumers[norm.input[0]]) != 1 or norm.input[0] in graph.output_names:
            continue
        scale, shift = _scale_and_shift(norm, graph)
        if _fold(layer, scale, shift, graph):
            graph.remove([norm])
            layer.output[0] = norm.output[0]
            producers[norm.output[0]] = layer
    return graph.close()


def _scale_and_shift(norm: NodeProto, graph: Graph) -> tuple[Array, Array]:
    gamma, beta, mean, variance = (graph.arrays[name].astype(np.float64) for name in norm.input[1:5])
    scale = gamma / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    return scale, beta - mean * scale


def _fold(layer: NodeProto, scale: Array, shift: Array, graph: Graph) -> bool:
    weight = graph.array(layer.input[1]) if len(layer.input) > 1 else None
    if weight is None or layer.op_type not in ("Conv", "Gemm"):
        return False
    bias_name = layer.input[2] if len(layer.input) > 2 else ""
    bias = graph.array(bias_name)
    if bias_name and bias is None:
        return False
    if layer.op_type == "Gemm":
        if attribute(layer, "transA", 0) or attribute(layer, "alpha", 1.0) != 1.0:
            return False
        axis = 0 if attribute(layer, "transB", 0) else 1
        if bias is not None:
            bias = bias * attribute(layer, "beta", 1.0)
        set_attribute(layer, "beta", None)
    else:
        axis = 0
    along = [1] * weight.ndim
    along[axis] = -1
    old = np.zeros(len(scale)) if bias is None else np.broadcast_to(bias.reshape(-1).astype(np.float64), scale.shape)
    _give(layer, 1, (weight.astype(np.float64) * scale.reshape(along)).astype(np.float32), graph)
    new_bias = (old * scale + shift).astype(np.float32)
    if bias_name:
        _give(layer, 2, new_bias, graph)
    else:
        del layer.input[2:]
        layer.input.append(graph.constant(_bias_name(layer.input[1]), new_bias))
    return True


def _give(layer: NodeProto, index: int, value: Array, graph: Graph) -> None:
    """Replaces a parameter, under its own name unless another layer shares it."""
    name = layer.input[index]
    if sum(name == used for node in graph.nodes for used in node.input) > 1:
        layer.input[index] = graph.constant(name, value)
    else:
        graph.arrays[name] = value


def _bias_name(weight: str) -> str:
    return f"{weight.removesuffix('.weight')}.bias"
