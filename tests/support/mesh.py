"""A network of the face mesh's shapes, which "places" its 468 points about the middle of what is bright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model

from training.detector.mesh import EYES, MOUTH, NOSE, SIDE

OFFSETS = np.zeros((468, 3), np.float32)
for corners, x in zip(EYES, (-20.0, 20.0), strict=True):
    OFFSETS[list(corners), 0] = (x - 6, x + 6)
    OFFSETS[list(corners), 1] = -16.0
OFFSETS[NOSE[0], 1], OFFSETS[NOSE[1], 1] = 1.0, -1.0
OFFSETS[list(MOUTH)] = [[-14.0, 20.0, 0], [14.0, 20.0, 0]]


def write_mesh(path: Path, presence: float = 9.0, spread: float = 1.0) -> Path:
    """(1, 192, 192, 3) → (1, 1, 1, 1404), `spread` times OFFSETS about the centroid of its pixels, and a logit."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32) + 0.5
    grids = np.stack([columns, rows, np.zeros_like(rows)])[..., None].repeat(3, axis=3)  # (3, 192, 192, 3)
    constants = {
        "grids": grids,
        "offsets": spread * OFFSETS,
        "small": np.float32(1e-6),
        "points": np.array([1, 1, 1, 1404], np.int64),
        "triple": np.array([1, 3], np.int64),
        "axes": np.array([1, 2, 3], np.int64),
        "logit": np.full((1, 1, 1, 1), presence, np.float32),
        "nothing": np.zeros((1, 1, 1, 1), np.float32),
        "whole": np.array([1, 1, 1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Mul", ["image", "grids"], ["weighed"]),
        helper.make_node("ReduceSum", ["weighed", "axes"], ["moments"], keepdims=0),
        helper.make_node("ReduceSum", ["image"], ["mass"], keepdims=0),
        helper.make_node("Max", ["mass", "small"], ["some"]),
        helper.make_node("Div", ["moments", "some"], ["middle"]),
        helper.make_node("Reshape", ["middle", "triple"], ["row"]),
        helper.make_node("Add", ["row", "offsets"], ["placed"]),
        helper.make_node("Reshape", ["placed", "points"], ["landmarks"]),
        helper.make_node("Reshape", ["mass", "whole"], ["mass4"]),
        helper.make_node("Mul", ["mass4", "nothing"], ["none"]),
        helper.make_node("Add", ["none", "logit"], ["presence"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mesh",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, [1, 1, 1, 1404]),
            helper.make_tensor_value_info("presence", TensorProto.FLOAT, [1, 1, 1, 1]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
