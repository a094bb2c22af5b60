"""A third party's embedder with its normalisation inside the graph, for packages that feed raw 0-255 RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge.contract import ModelContract

# No name a published model would use.
_MEAN, _SCALE, _CENTRED, _NORMALISED = (f"arcedge.peer.{name}" for name in ("mean", "scale", "centred", "normalised"))


def with_normalisation_inside(path: Path, contract: ModelContract) -> Any:
    """The model (an onnx.ModelProto) of a float32 NCHW file after `(x - mean) / std`: the same weights, fed raw pixels.

    The two nodes are called Sub_0 and Mul_0: InsightFace's package looks for these names to know that it is to feed
    pixels as they are.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    fed = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = [_NORMALISED if name == fed else name for name in node.input]
    mean = np.array(contract.mean, np.float32).reshape(1, 3, 1, 1)
    scale = (1.0 / np.array(contract.std, np.float64)).astype(np.float32).reshape(1, 3, 1, 1)
    model.graph.initializer.extend([numpy_helper.from_array(mean, _MEAN), numpy_helper.from_array(scale, _SCALE)])
    model.graph.node.insert(0, helper.make_node("Mul", [_CENTRED, _SCALE], [_NORMALISED], name="Mul_0"))
    model.graph.node.insert(0, helper.make_node("Sub", [fed, _MEAN], [_CENTRED], name="Sub_0"))
    onnx.checker.check_model(model)
    return model
