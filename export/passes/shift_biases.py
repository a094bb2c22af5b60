"""Adds to the biases of layers: what bias correction found."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from edge.errors import InputError
from export.graph import Graph


def shift_biases(
    model: ModelProto, shifts: Mapping[str, npt.ArrayLike], but: frozenset[str] = frozenset()
) -> ModelProto:
    """The model with (C,) `shifts` added to the biases of the layers they name by output tensor, `but` some.

    Raises InputError for a layer that is not there, or has no constant bias of that size.
    """
    graph = Graph(model)
    layers = {node.output[0]: node for node in graph.nodes if node.op_type == "Conv"}
    for name in [name for name in shifts if name not in but]:
        layer, shift = layers.get(name), np.asarray(shifts[name], np.float32)
        bias = graph.array(layer.input[2]) if layer is not None and len(layer.input) > 2 else None
        if layer is None or bias is None or bias.shape != shift.shape:
            raise InputError(f"the bias correction does not fit the model at {name}; calibrate again")
        # A bias of its own: exporters share equal constants.
        layer.input[2] = graph.constant(f"{name}.bias.corrected", bias + shift)
    return graph.close()
