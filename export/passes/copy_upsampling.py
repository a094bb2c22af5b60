"""For INT8 on a CPU: a feature map is made twice as wide and as high by copies of whole pixels.

ONNX Runtime's Resize picks value by value where channels lie last, as they do behind its integer convolutions. A pixel
beside itself is twice its channels, a row beside itself twice its columns: two Concat of the very bytes, read as
(N, 2H, 2W, C). No result changes by a bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto

from export.graph import Graph, attribute

TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]
_NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def copy_upsampling(model: ModelProto) -> ModelProto:
    """An `int8-cpu` model in which every Resize that repeats each value of a quantised (N, C, H, W) 2×2 is copies.

    Others are left as they are.
    """
    graph = Graph(model)
    producers = graph.producers()
    for node in [node for node in graph.nodes if _doubles(graph, node)]:
        source = producers.get(node.input[0])
        if source is not None and source.op_type == "DequantizeLinear":
            _copy(graph, node, source)
    return graph.close()


def _doubles(graph: Graph, node: NodeProto) -> bool:
    """Whether it is a Resize that puts each value of (N, C, H, W) twice beside itself and twice below."""
    if node.op_type != "Resize" or len(node.input) != 3 or node.input[1]:
        return False
    scales = graph.array(node.input[2])
    return (
        scales is not None
        and scales.tolist() == [1, 1, 2, 2]
        and all(attribute(node, name) == value for name, value in _NEAREST.items())
    )


def _copy(graph: Graph, node: NodeProto, source: NodeProto) -> None:
    name, (eight, *scale) = node.output[0], source.input
    graph.remove([node])

    def step(kind: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        made = graph.fresh(f"{name}.{suffix}")
        graph.node(kind, inputs, [made], **attributes)
        return made

    pixels = step("Transpose", [eight], "pixels", perm=TO_NHWC)
    wide = step("Concat", [pixels, pixels], "wide", axis=3)
    both = step("Concat", [wide, wide], "both", axis=2)
    twice = graph.constant(f"{name}.twice", np.array([1, 2, 2, 1], np.int64))
    shape = step("Mul", [step("Shape", [pixels], "shape"), twice], "double")
    apart = step("Reshape", [both, shape], "apart")
    turned = step("Transpose", [apart], "turned", perm=TO_NCHW)
    graph.node("DequantizeLinear", [turned, *scale], [name])
