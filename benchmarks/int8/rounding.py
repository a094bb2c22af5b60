"""Which way each weight is rounded, chosen by what it does to a layer's output and not one by one.

The question of Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, 2020
(https://arxiv.org/abs/2004.10568), answered in closed form as Frantar et al., GPTQ, 2022
(https://arxiv.org/abs/2210.17323) do: weights are rounded one input after the other, and what each rounding adds to the
layer's output is made up for by those that follow, as far as the second moments of the inputs allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from export.calibration.observer import outputs_of
from export.graph import Array, Graph, attribute
from export.passes.pair_sums import LIMIT, is_depthwise, largest_pair_sums

DAMPING = 0.01
"""Share of the mean second moment that is added to each input's own: few pictures say little about some of them."""


@dataclass(frozen=True, slots=True)
class _Layer:
    node: NodeProto
    int8: str
    scale: str
    weight: Array


def rounded_by_output(quantised: ModelProto, floats: ModelProto, batches: Sequence[Array]) -> ModelProto:
    """An int8-cpu model with its convolutions' weights rounded anew, scales and biases as they are.

    floats: the model it was made from, whose weights have the same names. batches: for the model's one input. No two
    neighbours exceed the bound of `export.passes.pair_sums`: a row that would keeps the nearest values.
    """
    graph, known = Graph(quantised), Graph(floats).arrays
    producers = graph.producers()
    layers = []
    for node in graph.nodes:
        before = producers.get(node.input[1]) if node.op_type == "Conv" else None
        name = before.input[0].removesuffix(".int8") if before is not None else ""
        if before is not None and name in known:  # the first layer is packed, and keeps the nearest values
            layers.append(_Layer(node, before.input[0], before.input[1], known[name].astype(np.float64)))
    moments: dict[str, Array] = {}
    for values in outputs_of(quantised, sorted({layer.node.input[0] for layer in layers}), batches):
        held = dict(values)
        for layer in layers:
            moment = _second_moments(held[layer.node.input[0]], layer)
            moments[layer.int8] = moments[layer.int8] + moment if layer.int8 in moments else moment
    for layer in layers:
        scales = graph.arrays[layer.scale].astype(np.float64)
        graph.arrays[layer.int8] = _rounded(layer, scales, moments[layer.int8], graph.arrays[layer.int8])
    return graph.close()


def windows_of(values: Array, node: NodeProto, kernel: tuple[int, ...]) -> Array:
    """(N, C, H, W, kh, kw) the inputs that meet each output of a convolution, padded as it pads."""
    pads, stride = attribute(node, "pads", [0, 0, 0, 0]), attribute(node, "strides", [1, 1])
    padded = np.pad(values, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    every: Array = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3))
    return every[:, :, :: stride[0], :: stride[1]]


def _second_moments(values: Array, layer: _Layer) -> Array:
    """(1 or C, K, K) sums of products of the inputs that meet one output; K = inputs × kernel positions, a group."""
    kernel = layer.weight.shape[2:]
    windows = windows_of(values, layer.node, kernel)
    if is_depthwise(layer.weight):
        rows: Array = windows.transpose(1, 0, 2, 3, 4, 5).reshape(values.shape[1], -1, kernel[0] * kernel[1])
    else:
        rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(1, -1, layer.weight[0].size)
    moments: Array = np.matmul(rows.transpose(0, 2, 1), rows).astype(np.float64)
    return moments


def _rounded(layer: _Layer, scales: Array, moments: Array, nearest: Array) -> Array:
    rows = layer.weight.reshape(len(scales), -1) / scales[:, None]
    size = moments.shape[-1]
    diagonal = np.maximum(np.trace(moments, axis1=1, axis2=2) / size, 1e-12)
    damped = moments + (DAMPING * diagonal)[:, None, None] * np.eye(size)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)  # inverse = Uᵀ·U
    left, chosen = rows.copy(), np.zeros_like(rows)
    bounded = not is_depthwise(layer.weight)
    for j in range(size):
        most = np.full(len(rows), 127.0)
        if bounded and j % 2:
            before = chosen[:, j - 1]
            most = np.where(np.sign(before) == np.sign(left[:, j]), np.minimum(127.0, LIMIT - np.abs(before)), 127.0)
        chosen[:, j] = np.clip(np.rint(left[:, j]), -most, most)
        error = (left[:, j] - chosen[:, j]) / upper[:, j, j]
        left[:, j + 1 :] -= error[:, None] * upper[:, j, j + 1 :]
    found = chosen.reshape(layer.weight.shape).astype(np.int8)
    if bounded:
        beyond = largest_pair_sums(found.astype(np.int64), 0) > LIMIT
        found[beyond] = nearest[beyond]
    return found
