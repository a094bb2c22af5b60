"""FP16 typing: half the bytes, and what makes an FP16 engine where precision is carried by the file (TensorRT 11)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from export.graph import Array, Graph, element_type

LARGEST = 65504.0
"""Largest finite FP16 number."""

SMALLEST_NORMAL = 2.0**-14

HEADROOM = 4.0
"""A layer whose calibrated values come within this factor of LARGEST stays in FP32: other pictures reach further."""

HALF_OPERATORS = frozenset(
    [
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "Add",
        "Sub",
        "Mul",
        "Relu",
        "Clip",
        "PRelu",
        "LeakyRelu",
        "Sigmoid",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "Concat",
        "Reshape",
        "Flatten",
        "Transpose",
        "Resize",
        "Slice",
        "Squeeze",
        "Unsqueeze",
    ]
)
"""Operators that compute in FP16. Sums of squares and divisions by them (ReduceL2, Div) stay in FP32."""

_FLOAT_INPUTS = {"Resize": (0,)}
"""Operators of which some inputs are float32 whatever the rest is (the scales of a Resize)."""


def to_fp16(
    model: ModelProto, ranges: Mapping[str, tuple[float, float]] | None = None, keep: frozenset[str] = frozenset()
) -> ModelProto:
    """Types weights and computation as FP16; inputs and outputs of the graph keep their types.

    ranges: calibrated (low, high) a tensor, which keep a node that could overflow in FP32. keep: output tensors of
    further nodes that stay. What precedes the first layer (preprocessing) stays in FP32 as well: it is cheap, and
    pixels minus mean lose bits in FP16. A layer whose weights overflow stays; what becomes subnormal or zero
    `fp16_report` counts.
    """
    graph = Graph(model)
    floats = _float_tensors(graph)
    half = {id(node) for node in graph.nodes if _is_half(node, graph, ranges or {}, keep)}
    _release_preprocessing(graph, half)
    _release_normalisation(graph, half)
    kinds = {
        name: TensorProto.FLOAT16 if id(node) in half else TensorProto.FLOAT
        for node in graph.nodes
        for name in node.output
        if name in floats
    }
    casts: dict[tuple[str, int], str] = {}
    for node in list(graph.nodes):
        want = TensorProto.FLOAT16 if id(node) in half else TensorProto.FLOAT
        positions = _FLOAT_INPUTS.get(node.op_type, range(len(node.input)))
        for i in positions:
            name = node.input[i]
            if name in graph.arrays:
                if want == TensorProto.FLOAT16 and graph.arrays[name].dtype == np.float32:
                    node.input[i] = _half_constant(graph, name, casts)
            elif name in floats and node.op_type != "Cast" and kinds.get(name, TensorProto.FLOAT) != want:
                node.input[i] = _cast(graph, name, want, casts)
    # A graph output that became FP16 goes out as float32 under its own name.
    for name in [value.name for value in graph.outputs]:  # in their order: a set's is another one in each process
        if kinds.get(name) == TensorProto.FLOAT16:
            inner = graph.fresh(f"{name}.half")
            graph.rename_tensor(name, inner)
            graph.node("Cast", [inner], [name], to=TensorProto.FLOAT)
    return graph.close()


def fp16_report(model: ModelProto) -> dict[str, int]:
    """How many FP16 weights became zero or subnormal on the way from FP32; counts over the initialisers of `model`."""
    zero = subnormal = total = 0
    for value in Graph(model).arrays.values():
        if value.dtype == np.float32 and value.ndim > 1:
            magnitude = np.abs(value)
            rounded = np.abs(value.astype(np.float16).astype(np.float32))
            total += value.size
            zero += int(((magnitude > 0) & (rounded == 0)).sum())
            subnormal += int(((rounded > 0) & (rounded < SMALLEST_NORMAL)).sum())
    return {"weights": total, "flushed_to_zero": zero, "subnormal": subnormal}


def _is_half(node: NodeProto, graph: Graph, ranges: Mapping[str, tuple[float, float]], keep: frozenset[str]) -> bool:
    if node.op_type not in HALF_OPERATORS or keep.intersection(node.output):
        return False
    for name in (*node.input, *node.output):
        low, high = ranges.get(name, (0.0, 0.0))
        if max(-low, high) * HEADROOM > LARGEST:
            return False
    values = [graph.arrays[name] for name in node.input if name in graph.arrays]
    return not any(_unfit(value) for value in values if value.dtype == np.float32)


def _unfit(value: Array) -> bool:
    if value.size == 0:
        return False
    return not np.isfinite(value).all() or bool(np.abs(value).max() > LARGEST)


def _release_preprocessing(graph: Graph, half: set[int]) -> None:
    """Takes nodes that feed the first layers, from the pixels on, out of `half`."""
    reached = {value.name for value in graph.inputs}
    for node in graph.nodes:
        if node.op_type in ("Cast", "Transpose", "Sub", "Mul", "Div", "Gather", "Add") and node.input[0] in reached:
            half.discard(id(node))
            reached.update(node.output)


def _release_normalisation(graph: Graph, half: set[int]) -> None:
    """Takes what follows a sum of squares out of `half`: a length keeps its digits, and its floor of 1e-12 is not 0."""
    reached = set[str]()
    for node in graph.nodes:
        if node.op_type.startswith("Reduce") or reached.intersection(node.input):
            half.discard(id(node))
            reached.update(node.output)


def _float_tensors(graph: Graph) -> set[str]:
    """Tensors that are float32 in the model: all that is computed, but for shapes and indices."""
    whole = {"Shape", "Size", "ArgMax", "NonZero"}
    found: set[str] = {value.name for value in graph.inputs if element_type(value) == TensorProto.FLOAT}
    for node in graph.nodes:
        if node.op_type in whole:
            continue
        if node.op_type == "Cast":
            if next(a.i for a in node.attribute if a.name == "to") == TensorProto.FLOAT:
                found.update(node.output)
            continue
        first = node.input[0] if node.input else ""
        constant = graph.array(first)
        if first in found or (constant is not None and constant.dtype == np.float32):
            found.update(node.output)
    return found


def _half_constant(graph: Graph, name: str, casts: dict[tuple[str, int], str]) -> str:
    key = (name, int(TensorProto.FLOAT16))
    if key not in casts:
        casts[key] = graph.constant(f"{name}.half", graph.arrays[name].astype(np.float16))
    return casts[key]


def _cast(graph: Graph, name: str, kind: int, casts: dict[tuple[str, int], str]) -> str:
    key = (name, int(kind))
    if key not in casts:
        suffix = "half" if kind == TensorProto.FLOAT16 else "float"
        casts[key] = graph.fresh(f"{name}.{suffix}")
        graph.nodes.append(helper.make_node("Cast", [name], [casts[key]], name=casts[key], to=kind))
    return casts[key]
