"""One opset and IR version that TensorRT 8.5's parser and the newest ONNX Runtime both read."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, checker, defs, helper, version_converter

from edge.errors import InputError
from export.graph import Graph, set_attribute

OPSET = 17
IR_VERSION = 8
"""TensorRT 8.5's parser was built with ONNX 1.12: IR 8, opset 17."""


def to_opset(model: ModelProto) -> ModelProto:
    """The model in opset 17 and IR version 8.

    An older opset is raised by onnx's converter. A newer one is lowered here, operator by operator: what means the
    same in both is relabelled, reductions take their axes as an attribute again, and anything else is refused. Raises
    InputError naming the operator.
    """
    version = Graph(model).opset
    foreign = sorted(
        {entry.domain for entry in model.opset_import} - {"", "ai.onnx"} & {n.domain for n in model.graph.node}
    )
    if foreign:
        raise InputError(
            f"the model uses operators of {foreign[0]}, which no portable engine reads; export it without them"
        )
    if version < OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"opset {version} cannot be raised to {OPSET} ({error}); export the model again"
            ) from error
    graph = Graph(model)
    if version > OPSET:
        for node in graph.nodes:
            _lower(node, version, graph)
    lowered = graph.close()
    del lowered.opset_import[:]
    lowered.opset_import.append(helper.make_opsetid("", OPSET))
    lowered.ir_version = IR_VERSION
    _forget(lowered)
    checker.check_model(lowered)
    return lowered


def _lower(node: NodeProto, version: int, graph: Graph) -> None:
    now = defs.get_schema(node.op_type, version, "")
    then = defs.get_schema(node.op_type, OPSET, "") if _exists(node.op_type) else None
    if then is None:
        raise InputError(f"{node.op_type} came with opset {now.since_version}; export the model with opset {OPSET}")
    if then.since_version == now.since_version:
        return
    if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum":
        axes = graph.array(node.input[1]) if len(node.input) > 1 else None
        if len(node.input) > 1 and axes is None:
            raise InputError(f"{node.op_type} with axes computed at run time cannot be lowered to opset {OPSET}")
        del node.input[1:]
        set_attribute(node, "axes", None if axes is None else [int(axis) for axis in axes.reshape(-1)])
        set_attribute(node, "noop_with_empty_axes", None)
    elif node.op_type == "Resize":
        for name in ("antialias", "axes", "keep_aspect_ratio_policy"):
            set_attribute(node, name, None)
    elif node.op_type == "Split":
        set_attribute(node, "num_outputs", None)
    unknown = {entry.name for entry in node.attribute} - set(then.attributes)
    if unknown:
        raise InputError(f"{node.op_type} uses {sorted(unknown)[0]}, which opset {OPSET} does not know; export it so")
    few, many = then.min_input, then.max_input
    if not few <= len(node.input) <= many:
        raise InputError(
            f"{node.op_type} has {len(node.input)} inputs, opset {OPSET} reads {few} to {many}; export it so"
        )


def _exists(kind: str) -> bool:
    return bool(defs.has(kind, max_inclusive_version=OPSET, domain=""))


def _forget(model: ModelProto) -> None:
    """Exporters leave paths and stack traces in the metadata; a bundle goes to other people's machines."""
    del model.metadata_props[:]
    model.doc_string = ""
    model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    graph = model.graph
    for entry in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del entry.metadata_props[:]
        entry.doc_string = ""
