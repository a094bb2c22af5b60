"""Which tensor of a model departs from what it was made from: every layer alone, fed with what the original has there.

Errors grow on their way through a network, so a tensor late in it is far off even where only the first layer is
wrong. Each tensor that both graphs name is therefore cut: whoever takes it is given the original's values, and whoever
makes it is compared with them. What is left is each layer's own error, all from one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, helper, shape_inference

from edge.engines import SessionOptions, open_session
from export.graph import Array, Graph

TYPES = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}

GIVEN = ".given"

PROBABILITY = 0.01
"""Least root mean square that a sigmoid's values are judged against.

Engines compute a sigmoid to a float32 step of 1, whatever it comes to: ONNX Runtime's is off by 1.1e-7 (measured),
which is a share of 3e-4 where no face of a size is in sight and all values are near 0. With this, the bound of float32
says 1e-6 there.
"""


@dataclass(frozen=True, slots=True)
class TensorError:
    """How far one tensor is off by its own layer's fault: norm of the difference as a share of the original's norm."""

    tensor: str
    error: float


def values_of(model: ModelProto, names: Sequence[str], pixels: Array, engine: str = "onnxruntime") -> dict[str, Array]:
    """The values of named tensors for one batch, `pixels`, as the model's one input takes it."""
    watched = ModelProto()
    watched.CopyFrom(model)
    kinds = element_types(model)
    already = {value.name for value in watched.graph.output}
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, kinds[name], None) for name in names if name not in already
    )
    with open_session(watched.SerializeToString(), engine, SessionOptions(threads=1)) as session:
        given = session.run({session.inputs[0].name: pixels})
    return {name: given[name] for name in names}


def shared_tensors(model: ModelProto, other: ModelProto) -> list[str]:
    """Float tensors that both graphs compute under one name, in `model`'s order."""
    mine, others = element_types(model), element_types(other)
    made = {name for node in other.graph.node for name in node.output}
    return [
        name
        for node in model.graph.node
        for name in node.output
        if name in made and mine.get(name) in TYPES and others.get(name) in TYPES
    ]


def element_types(model: ModelProto) -> dict[str, int]:
    """ONNX element type by tensor."""
    inferred = shape_inference.infer_shapes(model)
    values = [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]
    return {value.name: value.type.tensor_type.elem_type for value in values}


def layer_errors(
    model: ModelProto, original: Mapping[str, Array], pixels: Array, engine: str = "onnxruntime"
) -> list[TensorError]:
    """Each tensor's own error, in the order the model computes them.

    original: values of tensors by name for `pixels`, as the original model has them; tensors without one are not cut.
    """
    kinds = element_types(model)
    cut, names = cut_at(model, {name: value.ndim for name, value in original.items() if kinds.get(name) in TYPES})
    taken = {value.name for value in cut.graph.input}
    feeds: dict[str, Array] = {
        f"{name}{GIVEN}": np.ascontiguousarray(original[name].astype(TYPES[kinds[name]]))
        for name in names
        if f"{name}{GIVEN}" in taken
    }
    with open_session(cut.SerializeToString(), engine, SessionOptions(threads=1)) as session:
        source = next(spec.name for spec in session.inputs if not spec.name.endswith(GIVEN))
        given = session.run({source: pixels, **feeds})
    sigmoids = {node.output[0] for node in model.graph.node if node.op_type == "Sigmoid"}
    return [
        TensorError(name, relative_error(given[name], original[name], PROBABILITY if name in sigmoids else 0.0))
        for name in names
    ]


def cut_at(model: ModelProto, ranks: Mapping[str, int]) -> tuple[ModelProto, list[str]]:
    """The model with every consumer of a named tensor fed from outside, and every named tensor an output.

    ranks: number of dimensions by tensor. Gives the model and the names it makes, in its order. A tensor's input is
    called NAME.given.
    """
    kinds = element_types(model)
    graph = Graph(model)
    ordered = [name for node in graph.nodes for name in node.output if name in ranks]
    used = {name for node in graph.nodes for name in node.input}
    for name in ordered:
        graph.rename_uses(name, f"{name}{GIVEN}")
        if name in used:
            graph.inputs.append(helper.make_tensor_value_info(f"{name}{GIVEN}", kinds[name], [None] * ranks[name]))
    graph.outputs = [helper.make_tensor_value_info(name, kinds[name], None) for name in ordered]
    return graph.close(), ordered


def first_beyond(errors: Sequence[TensorError], bound: float) -> TensorError | None:
    """The first tensor whose own error is beyond the bound, in the order the model computes them."""
    return next((entry for entry in errors if not entry.error <= bound), None)


def relative_error(given: Array, wanted: Array, least: float = 0.0) -> float:
    """‖given − wanted‖ / ‖wanted‖; infinite where values are not finite or the shapes differ.

    least: root mean square that `wanted` counts as at least.
    """
    if given.shape != wanted.shape or not np.isfinite(given).all():
        return float("inf")
    difference = given.astype(np.float64) - wanted.astype(np.float64)
    length = max(float(np.linalg.norm(wanted.astype(np.float64))), least * float(np.sqrt(wanted.size)), 1e-12)
    return float(np.linalg.norm(difference) / length)
