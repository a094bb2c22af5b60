"""INT8 as the file carries it: where QuantizeLinear and DequantizeLinear stand, for each kind of engine.

int8-cpu: U8S8 for ONNX Runtime on a CPU. Activations uint8 asymmetric; weights int8 symmetric per channel, held as
int8, and small enough that no CPU's 16-bit sums saturate (see pair_sums); bias int32. A pair stands behind every
quantised layer, after its activation, so that DQ → Conv → Relu → Q becomes one integer kernel. Layers that feed a graph
output directly give float. A layer kept in float reads eight bits through a DequantizeLinear of its own, with one scale
a channel: behind one scale for all of them ONNX Runtime takes a layer for a half-quantised one, and rounds its weights
to int8 with one scale for the whole tensor (WeightBiasQuantization, since 1.21).

int8-tensorrt: S8S8 for TensorRT 8.5 and newer. Symmetric, zero points 0. Pairs stand on inputs of layers and sums
alone, none between a layer and its activation; of a sum that TensorRT fuses into the layer before it only the skip
input has one; weights are float32 with a pair of their own; bias stays float32. Whatever reads a tensor in float keeps
the layer that gives it from giving eight bits, so that of a sum with no layer to be fused into both inputs have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from onnx import ModelProto, NodeProto

from edge.errors import InputError
from export.graph import Array, Graph, attribute
from export.passes import pair_sums
from export.passes.integer_pixels import quantised_already
from export.passes.prelu_rewrite import is_bent_sum

Scheme = Literal["int8-cpu", "int8-tensorrt"]
Ranges = Mapping[str, tuple[float, float]]

LAYERS = ("Conv", "Gemm")
ACTIVATIONS = ("Relu", "Clip")
CARRIERS = ("Reshape", "Flatten", "MaxPool", "Resize")
"""Operators that move values without computing new ones: what they give has the scale of what they take."""

SMALLEST_SCALE = 1e-8


@dataclass(frozen=True, slots=True)
class Placement:
    """What is quantised: layers and sums by their output tensor, and the tensors that need a range."""

    nodes: tuple[str, ...]
    tensors: tuple[str, ...]


def quantise(model: ModelProto, ranges: Ranges, scheme: Scheme, keep: frozenset[str] = frozenset()) -> ModelProto:
    """The model with Q/DQ pairs.

    ranges: (low, high) of each tensor that `placement` names. keep: output tensors of layers and sums that stay in
    float. Raises InputError naming the tensor where a range is missing.
    """
    graph = Graph(model)
    chosen = placement(model, keep)
    if missing := [name for name in chosen.tensors if name not in ranges]:
        raise InputError(
            f"the calibration does not fit: no range for {missing[0]} ({len(missing)} tensors); calibrate again"
        )
    layers = [node for node in graph.nodes if node.output[0] in set(chosen.nodes)]
    if scheme == "int8-cpu":
        _place_cpu(graph, layers, chosen.tensors, ranges)
    else:
        _place_tensorrt(graph, layers, ranges)
    return graph.close()


def placement(model: ModelProto, keep: frozenset[str] = frozenset()) -> Placement:
    """The layers and sums to quantise, and the tensors whose ranges that takes (for either scheme)."""
    graph = Graph(model)
    consumers, producers, outputs = graph.consumers(), graph.producers(), graph.output_names
    nodes = [node for node in graph.nodes if _quantisable(node, graph) and node.output[0] not in keep]
    tensors: dict[str, None] = {}
    ready = quantised_already(graph)
    for node in nodes:
        for name in activation_inputs(node):
            if name in ready:
                continue
            tensors[name] = None
            # A carrier gives what it takes: the tensor before it gets the same scale, and the layer there fuses.
            while (before := producers.get(name)) is not None and before.op_type in CARRIERS:
                name = before.input[0]
                tensors[name] = None
        end = behind_activation(node.output[0], consumers)
        if node.op_type != "Gemm" and end not in outputs:
            tensors[end] = None
    return Placement(tuple(node.output[0] for node in nodes), tuple(tensors))


def final_layers(model: ModelProto) -> frozenset[str]:
    """Output tensors of what stays in float: heads, from which a graph output is reached without another layer.

    In a network with PReLU also the bend of the last one and what stands behind it (see `behind_last_bend`).
    """
    graph = Graph(model)
    producers = graph.producers()
    found, stack, seen = set[str](), list(graph.output_names), set[str]()
    while stack:
        node = producers.get(stack.pop())
        if node is None or node.output[0] in seen:
            continue
        seen.add(node.output[0])
        if node.op_type == "Conv":
            found.add(node.output[0])
        elif node.op_type != "Gemm":
            stack.extend(node.input)
    return frozenset(found) | behind_last_bend(graph)


def behind_last_bend(graph: Graph) -> frozenset[str]:
    """Layers and sums that no dense convolution reads any more, where one is the bend of a PReLU; else none.

    There a channel answers to few people, so those of the calibration do not show how far the bend reaches: of 400
    crops of others one in a hundred fell below a cosine of 0.91 in eight bits, and 0.98 in float. Both are cheap there.
    """
    producers = graph.producers()
    behind, dense = dict[str, NodeProto](), dict[str, NodeProto]()
    stack = list(graph.output_names)
    while stack:
        node = producers.get(stack.pop())
        if node is None or node.output[0] in behind:
            continue
        if node.op_type == "Conv" and not _depthwise(node, graph):
            dense[node.output[0]] = node
            continue
        behind[node.output[0]] = node
        stack.extend(node.input)
    # What stands beside the last dense convolution, on a way round it, is read by that one too.
    stack, before = [name for node in dense.values() for name in node.input], set[str]()
    while stack:
        node = producers.get(stack.pop())
        if node is not None and node.output[0] not in before:
            before.add(node.output[0])
            stack.extend(node.input)
    tail = [node for name, node in behind.items() if name not in before]
    bent = any(is_bent_sum(node, graph) for node in tail)
    return frozenset(node.output[0] for node in tail if bent and _quantisable(node, graph))


def _depthwise(layer: NodeProto, graph: Graph) -> bool:
    weight = graph.array(layer.input[1])
    return weight is not None and pair_sums.is_depthwise(weight)


def activation_inputs(node: NodeProto) -> list[str]:
    """The tensors a layer or sum takes that depend on the picture: no weights, no biases."""
    return [node.input[0]] if node.op_type in LAYERS else list(node.input)


def behind_activation(name: str, consumers: Mapping[str, list[NodeProto]]) -> str:
    """The tensor behind the Relu or Clip that alone takes `name`; else `name`."""
    after = consumers.get(name, [])
    return str(after[0].output[0]) if len(after) == 1 and after[0].op_type in ACTIVATIONS else name


def _quantisable(node: NodeProto, graph: Graph) -> bool:
    if node.op_type in LAYERS:
        weight = graph.array(node.input[1])
        biased = len(node.input) > 2 and bool(node.input[2])
        plain = node.op_type == "Conv" or (
            not attribute(node, "transA", 0) and attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
        )
        return weight is not None and plain and (not biased or node.input[2] in graph.arrays)
    return node.op_type == "Add" and not any(name in graph.arrays for name in node.input)


def _range_of(name: str, producers: Mapping[str, NodeProto], ranges: Ranges) -> tuple[float, float]:
    """The range of a tensor; behind carriers that of what they carry, so that all who read it round it alike."""
    source = name
    while (before := producers.get(source)) is not None and before.op_type in CARRIERS:
        source = before.input[0]
    return ranges.get(source, ranges[name])


def _place_cpu(graph: Graph, layers: list[NodeProto], tensors: tuple[str, ...], ranges: Ranges) -> None:
    producers = graph.producers()
    outputs = graph.output_names
    scales = dict(quantised_already(graph))
    for name in tensors:
        scales[name] = asymmetric(*_range_of(name, producers, ranges))
    for layer in layers:
        if layer.op_type in LAYERS:
            scale, _ = scales[layer.input[0]]
            _integer_parameters(graph, layer, scale)
    pairs = {}
    for name in tensors:
        scale, zero = scales[name]
        pairs[name] = _pair(graph, name, np.asarray(scale), np.asarray(zero))
    for node in graph.nodes:
        if node.op_type != "QuantizeLinear":
            for i, used in enumerate(node.input):
                if used in pairs and used not in outputs:
                    node.input[i] = pairs[used]
    _shield_float_layers(graph)


def _shield_float_layers(graph: Graph) -> None:
    """Gives each layer with float weights that reads dequantised values a DequantizeLinear with a scale a channel."""
    producers = graph.producers()
    for node in [node for node in graph.nodes if node.op_type in LAYERS]:
        before, weight = producers.get(node.input[0]), graph.array(node.input[1])
        if before is None or before.op_type != "DequantizeLinear" or weight is None:
            continue
        stored, scale, zero = before.input
        channels = weight.shape[1] * attribute(node, "group", 1) if node.op_type == "Conv" else _inputs(node, weight)
        repeated = [
            graph.constant(f"{node.input[0]}.{what}", np.full(channels, graph.arrays[name]))
            for what, name in (("scales", scale), ("zeros", zero))
        ]
        own = graph.fresh(f"{node.input[0]}.float")
        node.input[0] = graph.node("DequantizeLinear", [stored, *repeated], [own], axis=1).output[0]


def _inputs(layer: NodeProto, weight: Array) -> int:
    """How many channels a linear layer takes."""
    return int(weight.shape[1 - _channel_axis(layer)])


def _place_tensorrt(graph: Graph, layers: list[NodeProto], ranges: Ranges) -> None:
    producers, consumers = graph.producers(), graph.consumers()
    for layer in layers:
        if layer.op_type == "Add":
            branch = _main_branch(layer, producers, consumers)
            positions = [i for i in range(2) if i != branch]
        else:
            positions = [0]
            weight = graph.arrays[layer.input[1]]
            axis = _channel_axis(layer)
            scale = channel_scales(weight, axis)
            zero = np.zeros(len(scale), np.int8)
            layer.input[1] = _pair(graph, layer.input[1], scale, zero, axis)
        for i in positions:
            name = layer.input[i]
            # Dedicated to this use: a pair shared by two layers keeps TensorRT from fusing either.
            scale = np.asarray(symmetric(*_range_of(name, producers, ranges)))
            layer.input[i] = _pair(graph, name, scale, np.asarray(np.int8(0)))


def _main_branch(
    add: NodeProto, producers: Mapping[str, NodeProto], consumers: Mapping[str, list[NodeProto]]
) -> int | None:
    """Which input of a sum comes from a layer alone, straight or through its activation: TensorRT fuses the sum into
    that layer. None where neither does, as where what was enlarged is added to what others read too.
    """
    for kinds in (LAYERS, ACTIVATIONS):
        for i in (1, 0):
            name = add.input[i]
            before = producers.get(name)
            alone = len(consumers[name]) == 1
            if kinds is ACTIVATIONS and alone and before is not None and before.op_type in ACTIVATIONS:
                name = before.input[0]
                before, alone = producers.get(name), len(consumers[name]) == 1
            if alone and before is not None and before.op_type in LAYERS:
                return i
    return None


def asymmetric(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of uint8 for [low, high], widened to hold 0, which then is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((high - low) / 255.0, SMALLEST_SCALE))
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))


def symmetric(low: float, high: float) -> np.float32:
    """Scale of int8 with zero point 0: the larger end of [low, high] goes to 127."""
    return np.float32(max(abs(low), abs(high), SMALLEST_SCALE * 127) / 127.0)


def channel_scales(weight: Array, axis: int) -> Array:
    """(C,) float32 symmetric int8 scales, one an output channel."""
    rows = np.moveaxis(np.abs(weight), axis, 0).reshape(weight.shape[axis], -1)
    scales: Array = np.maximum(rows.max(axis=1) / 127.0, SMALLEST_SCALE).astype(np.float32)
    return scales


def bounded_channel_scales(weight: Array, axis: int) -> Array:
    """(C,) float32 scales of int8-cpu: `channel_scales`, wide enough that no CPU's 16-bit sums saturate."""
    scales: Array = np.maximum(channel_scales(weight, axis), pair_sums.bounded_scales(weight, axis))
    return scales


def rounded_weight(weight: Array) -> Array:
    """A weight (out, …) as int8-cpu computes with it, float32 of its shape, where its bias asks for no wider scale."""
    scales = bounded_channel_scales(weight, 0)
    along = scales.reshape(-1, *[1] * (weight.ndim - 1))
    rounded: Array = (np.clip(np.rint(weight / along), -127, 127) * along).astype(np.float32)
    return rounded


def _integer_parameters(graph: Graph, layer: NodeProto, input_scale: np.float32) -> None:
    """Weight to int8 and bias to int32, behind DequantizeLinear; scales widen where the bias would leave int32."""
    weight, axis = graph.arrays[layer.input[1]], _channel_axis(layer)
    scales = bounded_channel_scales(weight, axis)
    bias = graph.array(layer.input[2]) if len(layer.input) > 2 and layer.input[2] else None
    if bias is not None:
        # A channel BatchNorm almost switched off has tiny weights under a normal bias; int32 must still hold the bias.
        least = np.abs(bias.reshape(-1)) / (float(input_scale) * 2.0**30)
        scales = np.maximum(scales, least).astype(np.float32)
    along = [1] * weight.ndim
    along[axis] = -1
    values = np.clip(np.rint(weight / scales.reshape(along)), -127, 127).astype(np.int8)
    layer.input[1] = _dequantised(graph, layer.input[1], values, scales, axis)
    if bias is not None:
        bias_scales = (np.float32(input_scale) * scales).astype(np.float32)
        whole = np.rint(bias.reshape(-1).astype(np.float64) / bias_scales).astype(np.int64)
        whole = np.clip(whole, -(2**31) + 1, 2**31 - 1).astype(np.int32)
        layer.input[2] = _dequantised(graph, layer.input[2], whole, bias_scales, 0)


def _channel_axis(layer: NodeProto) -> int:
    return 0 if layer.op_type == "Conv" or attribute(layer, "transB", 0) else 1


def _dequantised(graph: Graph, name: str, values: Array, scales: Array, axis: int) -> str:
    stored = graph.constant(f"{name}.int8" if values.dtype == np.int8 else f"{name}.int32", values)
    scale = graph.constant(f"{stored}.scale", scales)
    zero = graph.constant(f"{stored}.zero", np.zeros(len(scales), values.dtype))
    return str(graph.node("DequantizeLinear", [stored, scale, zero], [graph.fresh(f"{name}.dq")], axis=axis).output[0])


def _pair(graph: Graph, name: str, scale: Array, zero: Array, axis: int | None = None) -> str:
    """Q → DQ behind `name`; gives the tensor that comes out."""
    scale_name = graph.constant(f"{name}.scale", scale)
    zero_name = graph.constant(f"{name}.zero", zero)
    along = {} if axis is None else {"axis": axis}
    q = graph.node("QuantizeLinear", [name, scale_name, zero_name], [graph.fresh(f"{name}.q")], **along)
    dq = graph.node("DequantizeLinear", [q.output[0], scale_name, zero_name], [graph.fresh(f"{name}.dq")], **along)
    return str(dq.output[0])
