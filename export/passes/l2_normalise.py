"""Unit length inside the graph, so that no caller divides by a norm of its own."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, helper

from edge.errors import ContractError
from export.graph import Graph, dimensions, float_tensor

OUTPUT = "embedding"
SMALLEST = 1e-12
"""What torch.nn.functional.normalize takes for the norm of a zero vector."""


def l2_normalise(model: ModelProto) -> ModelProto:
    """Divides the one (N, D) output by its Euclidean length and calls it `embedding`.

    Raises ContractError where the model has several outputs or one of another rank.
    """
    graph = Graph(model)
    if len(graph.outputs) != 1 or len(dimensions(graph.outputs[0])) != 2:
        raise ContractError("an embedder gives one (N, D) output; this model does not")
    old = graph.outputs[0]
    shape = dimensions(old)
    features = old.name
    if features == OUTPUT:
        features = graph.fresh("features")
        graph.rename_tensor(old.name, features)
    length = graph.node("ReduceL2", [features], [graph.fresh("features.length")], axes=[1], keepdims=1).output[0]
    smallest = graph.constant("features.smallest", np.array(SMALLEST, np.float32))
    safe = graph.node("Clip", [length, smallest], [graph.fresh("features.safe_length")]).output[0]
    graph.node("Div", [features, safe], [OUTPUT])
    graph.outputs = [helper.make_tensor_value_info(OUTPUT, old.type.tensor_type.elem_type, list(shape))]
    return graph.close()


def rename_output(model: ModelProto, name: str) -> ModelProto:
    """Calls the model's one output `name`."""
    graph = Graph(model)
    old = graph.outputs[0]
    if old.name != name:
        graph.rename_tensor(old.name, name)
        graph.outputs = [float_tensor(name, dimensions(old))]
    return graph.close()
