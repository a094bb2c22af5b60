"""Compute at export what does not depend on the picture."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper, shape_inference
from onnx.reference import ReferenceEvaluator

from export.graph import Graph, attribute, set_attribute

_LARGEST = 1 << 24
"""Elements: an expanded constant larger than this is left to the engine."""


def fold_constants(model: ModelProto) -> ModelProto:
    """Replaces Constant nodes, and nodes that take constants alone, by initialisers; Identity nodes vanish.

    CastLike becomes Cast: no TensorRT before 10 reads it.
    """
    types = _types(model)
    graph = Graph(model)
    for node in list(graph.nodes):
        if node.op_type == "CastLike" and node.input[1] in types:
            _to_cast(node, types[node.input[1]])
        if node.op_type == "Identity" and node.output[0] not in graph.output_names:
            graph.rename_uses(node.output[0], node.input[0])
            graph.remove([node])
        elif _is_constant(node, graph):
            values = ReferenceEvaluator(_alone(node, graph)).run(
                None, {name: graph.arrays[name] for name in _used(node)}
            )
            if sum(np.asarray(value).size for value in values) > _LARGEST:
                continue
            graph.arrays.update(
                (name, np.asarray(value)) for name, value in zip(node.output, values, strict=True) if name
            )
            graph.remove([node])
    return graph.close()


def static_reshapes(model: ModelProto) -> ModelProto:
    """Gives each Reshape that only carries the batch along a constant target, with 0 for "as the input has it".

    Exporters compute such targets at run time (Shape → Gather → Concat), which costs nodes and keeps engines from
    planning.
    """
    graph = Graph(model)
    producers = graph.producers()
    for node in graph.nodes:
        if node.op_type != "Reshape":
            continue
        concat = producers.get(node.input[1])
        if concat is None or concat.op_type != "Concat":
            continue
        first, rest = concat.input[0], [graph.array(name) for name in concat.input[1:]]
        if _is_batch(first, producers, graph) and all(value is not None for value in rest):
            tail = [int(x) for value in rest if value is not None for x in value.reshape(-1)]
            if 0 not in tail:
                node.input[1] = graph.constant(f"{node.output[0]}.shape", np.array([0, *tail], np.int64))
                set_attribute(node, "allowzero", None)
    return graph.close()


def _is_batch(name: str, producers: dict[str, NodeProto], graph: Graph) -> bool:
    """Whether `name` is the first dimension of some tensor, found through Shape, Gather, Slice, Unsqueeze and Reshape.

    In the graphs we take every tensor that has a run-time first dimension has the batch there.
    """
    for _ in range(5):
        node = producers.get(name)
        if node is None:
            return False
        if node.op_type == "Shape":
            start, end = attribute(node, "start", 0), attribute(node, "end")
            return start == 0 and (end == 1 or end is None)
        if node.op_type == "Gather":
            index = graph.array(node.input[1])
            if index is None or int(index.reshape(-1)[0]) != 0:
                return False
        elif node.op_type == "Slice":
            starts, ends = graph.array(node.input[1]), graph.array(node.input[2])
            if starts is None or ends is None or (int(starts[0]), int(ends[0])) != (0, 1):
                return False
        elif node.op_type not in ("Unsqueeze", "Squeeze", "Reshape", "Cast"):
            return False
        name = node.input[0]
    return False


def _types(model: ModelProto) -> dict[str, int]:
    inferred = shape_inference.infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def _to_cast(node: NodeProto, kind: int) -> None:
    node.op_type = "Cast"
    del node.input[1:]
    node.attribute.append(helper.make_attribute("to", kind))


def _used(node: NodeProto) -> list[str]:
    return list(dict.fromkeys(name for name in node.input if name))


def _is_constant(node: NodeProto, graph: Graph) -> bool:
    return node.op_type == "Constant" or (
        node.op_type not in ("RandomNormal", "RandomUniform", "QuantizeLinear", "DequantizeLinear")
        and bool(_used(node))
        and all(name in graph.arrays for name in _used(node))
        and not graph.output_names.intersection(node.output)
    )


def _alone(node: NodeProto, graph: Graph) -> ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(graph.arrays[name].dtype), None)
        for name in _used(node)
    ]
    outputs = [helper.make_tensor_value_info(name, 0, None) for name in node.output if name]
    return helper.make_model(
        helper.make_graph([node], "constant", inputs, outputs),
        opset_imports=[helper.make_opsetid("", graph.opset)],
        ir_version=8,
    )
