"""Small models with what ours have: pixels in, convolutions, a residual sum, a unit vector or heads out."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS = ("first", "second", "sum")


def small_model(*, side: int | None = 16, seed: int = 0, half: bool = False) -> bytes:
    """(N, side, side, 3) uint8 → "embedding" (N, 8) float32; with side None any size → "map" (N, 4, H, W)."""
    rng = np.random.default_rng(seed)
    kind = np.float16 if half else np.float32
    number = TensorProto.FLOAT16 if half else TensorProto.FLOAT

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.normal(size=shape) / 8).astype(kind), name)

    initializers = [weight("w1", 4, 3, 3, 3), weight("b1", 4), weight("w2", 4, 4, 3, 3), weight("b2", 4)]
    initializers.append(numpy_helper.from_array(np.array(1 / 128, kind), "scale"))
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], "cast", to=number),
        helper.make_node("Mul", ["numbers", "scale"], ["scaled"], "scaling"),
        helper.make_node("Transpose", ["scaled"], ["planes"], "planes_node", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w1", "b1"], ["first_out"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["first_out"], ["first_relu"], "relu"),
        helper.make_node("Conv", ["first_relu", "w2", "b2"], ["second_out"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["second_out", "first_relu"], ["sum_out"], "sum"),
    ]
    if side is None:
        nodes.append(helper.make_node("Cast", ["sum_out"], ["map"], "out", to=TensorProto.FLOAT))
        output = helper.make_tensor_value_info("map", TensorProto.FLOAT, ["N", 4, "H", "W"])
    else:
        initializers.append(weight("w3", 4, 8))
        nodes += [
            helper.make_node("GlobalAveragePool", ["sum_out"], ["pooled"], "pool"),
            helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
            helper.make_node("MatMul", ["flat", "w3"], ["vector"], "linear"),
            helper.make_node("Cast", ["vector"], ["embedding"], "out", to=TensorProto.FLOAT),
        ]
        output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 8])
    sides: list[str | int] = ["H", "W"] if side is None else [side, side]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", *sides, 3])
    graph = helper.make_graph(nodes, "small", [pixels], [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def quantised(model: bytes) -> bytes:
    """The same with Q/DQ as the int8-tensorrt scheme places them, by the exporter itself."""
    from export.passes.qdq import placement, quantise

    loaded = onnx.load_from_string(model)
    ranges = dict.fromkeys(placement(loaded).tensors, (-3.0, 3.0))
    return bytes(quantise(loaded, ranges, "int8-tensorrt").SerializeToString())
