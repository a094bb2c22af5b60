"""A detector's raw maps to the twelve tensors of YuNet's protocol, laid out for engines: no shape is computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto

from edge.detect.decode import OUTPUTS, STRIDES
from edge.errors import ContractError
from export.graph import Graph, dimensions, float_tensor

PROBABILITIES = ("cls", "obj")
"""Heads whose raw values are logits."""


def yunet_heads(model: ModelProto, channels: Sequence[int]) -> ModelProto:
    """Turns one (N, Σ channels, H/s, W/s) map a stride, finest first, into cls, obj, bbox and kps of each stride.

    channels: how many of a map belong to cls, obj, bbox and kps, in that order. cls and obj go through a sigmoid.
    Raises ContractError where the model does not give such maps.
    """
    graph = Graph(model)
    shapes = [dimensions(value) for value in graph.outputs]
    if len(shapes) != len(STRIDES) or any(len(shape) != 4 or shape[1] != sum(channels) for shape in shapes):
        raise ContractError(f"a detector gives {len(STRIDES)} maps of {sum(channels)} channels; this gives {shapes}")
    parts = graph.constant("heads.channels", np.array(channels, np.int64))
    kinds = list(dict.fromkeys(name.rpartition("_")[0] for name in OUTPUTS))
    for stride, raw in zip(STRIDES, [value.name for value in graph.outputs], strict=True):
        last = graph.node("Transpose", [raw], [graph.fresh(f"{raw}.nhwc")], perm=[0, 2, 3, 1]).output[0]
        target = graph.constant(f"{raw}.shape", np.array([0, -1, sum(channels)], np.int64))
        cells = graph.node("Reshape", [last, target], [graph.fresh(f"{raw}.cells")]).output[0]
        names = [f"{kind}_{stride}.logit" if kind in PROBABILITIES else f"{kind}_{stride}" for kind in kinds]
        graph.node("Split", [cells, parts], names, axis=2)
        for kind in PROBABILITIES:
            graph.node("Sigmoid", [f"{kind}_{stride}.logit"], [f"{kind}_{stride}"])
    widths = dict(zip(kinds, channels, strict=True))
    batch = shapes[0][0]
    graph.outputs = [
        float_tensor(name, [batch, f"cells_{name.rpartition('_')[2]}", widths[name.rpartition("_")[0]]])
        for name in OUTPUTS
    ]
    return graph.close()
