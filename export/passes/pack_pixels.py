"""For INT8 on a CPU: the first convolution reads four bytes at a time instead of pixels of three.

Integer kernels take input channels by fours. ONNX Runtime copies the window of every output value by hand where there
are three, which took a quarter of the INT8 detector's time; OpenVINO turns the picture round first. Of a convolution of
stride 2, two neighbouring outputs step on by twelve bytes: three groups of four. So the picture (N, H, W, 3), as it
lies in memory, is taken for (N, H, 3W/4, 4), and one step of the new convolution computes both outputs, as channels,
which lie in memory as two neighbouring columns again. Weights, scales and biases are the same integers, with zeros for
the bytes that an output does not see: no result changes by a bit. Tensors of another shape get another name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from export.graph import Array, Graph, attribute, dimensions, set_attribute
from export.passes.embed_preprocessing import INPUT

GROUP = 4
"""Bytes in a group."""

CHANNELS, STRIDE, OUTPUTS = 3, 2, 2
STEP = OUTPUTS * STRIDE * CHANNELS // GROUP
"""Groups from one pair of outputs to the next."""


def pack_pixels(model: ModelProto) -> ModelProto:
    """An `int8-cpu` model with its first convolution over groups of four bytes.

    Changes nothing where the convolution has no int8 weights, or none of three channels and stride 2 that halve the
    width; where anything but an activation stands between it and its pair; or where a fixed width is no multiple of
    four. A width that varies must be one: a detector's are multiples of 32.
    """
    graph = Graph(model)
    found = _first_layer(graph)
    if found is None:
        return graph.close()
    weight = found.packed_weight(graph.arrays[found.weight.input[0]])
    stored = graph.constant(f"{found.weight.input[0]}.packed", weight)
    found.weight.input[:] = [stored, *_repeated(graph, found.weight.input[1:])]
    if found.bias is not None:
        found.bias.input[:] = _repeated(graph, found.bias.input)
    top, _, bottom, _ = attribute(found.convolution, "pads", [0] * 4)
    down = attribute(found.convolution, "strides", [1, 1])[0]
    right = max(found.groups - STEP - found.left, 0)
    set_attribute(found.convolution, "kernel_shape", list(weight.shape[2:]))
    set_attribute(found.convolution, "strides", [down, STEP])
    set_attribute(found.convolution, "pads", [top, found.left, bottom, right])
    name = found.quantise.input[0]
    for changed in dict.fromkeys((found.transpose.output[0], found.convolution.output[0], name)):
        graph.rename_tensor(changed, graph.fresh(f"{changed}.packed"))
    target = graph.constant(f"{INPUT}.groups", np.array([0, 0, -1, GROUP], np.int64))
    packed = graph.node("Reshape", [found.transpose.input[0], target], [graph.fresh(f"{INPUT}.packed")])
    found.transpose.input[0] = packed.output[0]
    _unpack_outputs(graph, found.quantise, found.dequantise, name, len(weight) // OUTPUTS)
    return graph.close()


@dataclass(frozen=True, slots=True)
class _FirstLayer:
    """Nodes from the picture to the first eight-bit feature; weight and bias are their DequantizeLinear.

    columns: of padding at the left. left, groups: the same in groups, and how many a pair of outputs sees.
    """

    transpose: NodeProto
    convolution: NodeProto
    weight: NodeProto
    bias: NodeProto | None
    quantise: NodeProto
    dequantise: NodeProto
    columns: int
    left: int
    groups: int

    def packed_weight(self, weight: Array) -> Array:
        """(O, 3, kh, kw) → (2·O, 4, kh, groups): the first O see the left output's pixels, the others the right's."""
        channels, _, height, width = weight.shape
        rows = weight.transpose(0, 2, 3, 1).reshape(channels, height, CHANNELS * width)
        wide = np.zeros((OUTPUTS, channels, height, GROUP * self.groups), weight.dtype)
        for output in range(OUTPUTS):
            first = GROUP * self.left + CHANNELS * (STRIDE * output - self.columns)
            wide[output, :, :, first : first + CHANNELS * width] = rows
        packed: Array = wide.reshape(OUTPUTS * channels, height, self.groups, GROUP).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(packed)


def _first_layer(graph: Graph) -> _FirstLayer | None:
    producers, consumers = graph.producers(), graph.consumers()
    chain, current = list[NodeProto](), INPUT
    while (after := _only(consumers, current)) is not None and after.op_type in ("DequantizeLinear", "Transpose"):
        chain.append(after)
        current = after.output[0]
    if after is None or after.op_type != "Conv" or [n.op_type for n in chain] != ["DequantizeLinear", "Transpose"]:
        return None
    size = dimensions(graph.inputs[0])[2]
    if isinstance(size, int) and size % GROUP:
        return None
    weight, *biases = (producers.get(name) for name in after.input[1:])
    values = graph.array(weight.input[0]) if weight is not None else None
    pair = _pair_after(after, consumers)
    if weight is None or values is None or pair is None or None in biases or not _halves_width(after, values):
        return None
    columns = int(attribute(after, "pads", [0] * 4)[1])
    left = -(-CHANNELS * columns // GROUP)
    last = GROUP * left + CHANNELS * (STRIDE * (OUTPUTS - 1) - columns + values.shape[3])
    bias = biases[0] if biases else None
    return _FirstLayer(chain[1], after, weight, bias, *pair, columns, left, -(-last // GROUP))


def _only(consumers: Mapping[str, list[NodeProto]], name: str) -> NodeProto | None:
    """The node that alone takes a tensor."""
    after = consumers.get(name, [])
    return after[0] if len(after) == 1 else None


def _halves_width(convolution: NodeProto, weight: Array) -> bool:
    """Whether it is of int8, three channels and stride 2, and gives W / 2 columns for an even width W."""
    pads, strides = attribute(convolution, "pads", [0] * 4), attribute(convolution, "strides", [1, 1])
    return bool(
        weight.dtype == np.int8
        and weight.shape[1] == CHANNELS
        and strides[1] == STRIDE
        and list(attribute(convolution, "dilations", [1, 1])) == [1, 1]
        and attribute(convolution, "auto_pad", "NOTSET") == "NOTSET"
        and pads[1] + pads[3] - weight.shape[3] in (-2, -1)
    )


def _pair_after(node: NodeProto, consumers: Mapping[str, list[NodeProto]]) -> tuple[NodeProto, NodeProto] | None:
    """QuantizeLinear and DequantizeLinear behind a layer or its activation, where nothing else reads on the way."""
    after = _only(consumers, node.output[0])
    if after is not None and after.op_type in ("Relu", "Clip"):
        after = _only(consumers, after.output[0])
    if after is None or after.op_type != "QuantizeLinear":
        return None
    back = _only(consumers, after.output[0])
    return (after, back) if back is not None and back.op_type == "DequantizeLinear" and len(back.input) > 2 else None


def _repeated(graph: Graph, names: Sequence[str]) -> list[str]:
    """Constants by channel, once for each of the neighbouring outputs."""
    return [graph.constant(f"{name}.packed", np.tile(graph.arrays[name], OUTPUTS)) for name in names]


def _unpack_outputs(graph: Graph, quantise: NodeProto, dequantise: NodeProto, name: str, channels: int) -> None:
    """Behind a pair: (N, 2·C, H, W/4) becomes `name`, (N, C, H, W/2); where channels lie last, nothing is copied.

    Each step has a pair of its own: engines drop pairs round what only moves values, and the steps with them.
    """
    current = dequantise.output[0]
    readers = graph.consumers()[current]
    target = graph.constant(f"{name}.columns", np.array([0, 0, -1, channels], np.int64))
    for kind, made, constants, attributes in (
        ("Transpose", graph.fresh(f"{name}.turned"), [], {"perm": [0, 2, 3, 1]}),
        ("Reshape", graph.fresh(f"{name}.apart"), [target], {}),
        ("Transpose", name, [], {"perm": [0, 3, 1, 2]}),
    ):
        moved = graph.node(kind, [current, *constants], [made], **attributes).output[0]
        eight = graph.node("QuantizeLinear", [moved, *quantise.input[1:]], [graph.fresh(f"{moved}.q")]).output[0]
        back = graph.node("DequantizeLinear", [eight, *quantise.input[1:]], [graph.fresh(f"{moved}.dq")])
        current = back.output[0]
    for node in readers:
        for i, used in enumerate(node.input):
            if used == dequantise.output[0]:
                node.input[i] = current
