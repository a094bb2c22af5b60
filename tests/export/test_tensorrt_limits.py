"""Whatever TensorRT is given keeps to what its parsers have taken since 8.5, for either activation."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edge.contract import ModelContract
from edge.engines.tensorrt.onnx_file import OnnxFile
from export.graph import Graph
from export.passes import embed_preprocessing, prelu_rewrite
from export.passes.fp16 import to_fp16
from export.passes.qdq import placement
from export.variants import int8_model

CONTRACT = ModelContract(
    "embedder", (112, 112), "rgb", "nchw", "float32", (127.5,) * 3, (127.5,) * 3, "arcface-112", 64
)
NEWEST_OPSET = 17
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
KNOWN = {
    *("Add", "Cast", "Clip", "Conv", "DequantizeLinear", "Div", "Flatten", "Gemm", "GlobalAveragePool", "MatMul"),
    *("MaxPool", "Mul", "PRelu", "QuantizeLinear", "ReduceL2", "ReduceSum", "Relu", "Reshape", "Resize", "Sigmoid"),
    *("Split", "Sqrt", "Sub", "Transpose", "Unsqueeze"),
}
"""Operators of TensorRT 8.5's parser that our graphs may come to hold."""


@pytest.fixture(params=["relu", "prelu"], scope="module")
def whole(request: pytest.FixtureRequest) -> onnx.ModelProto:
    graph = request.getfixturevalue(f"{request.param}_graph")
    return embed_preprocessing(prelu_rewrite(graph), CONTRACT)


@pytest.fixture(params=["fp32", "fp16", "int8"])
def given(request: pytest.FixtureRequest, whole: onnx.ModelProto) -> tuple[str, onnx.ModelProto]:
    ranges = dict.fromkeys(placement(whole).tensors, (-4.0, 4.0))
    made = {
        "fp32": lambda: whole,
        "fp16": lambda: to_fp16(whole, ranges),
        "int8": lambda: int8_model(whole, ranges, "int8-tensorrt"),
    }
    return request.param, made[request.param]()


def test_opset_operators_and_pixels(given: tuple[str, onnx.ModelProto]) -> None:
    precision, model = given
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [NEWEST_OPSET]
    assert {node.op_type for node in model.graph.node} <= KNOWN
    (pixels,) = model.graph.input
    assert pixels.type.tensor_type.elem_type == TensorProto.UINT8
    # TensorRT takes eight-bit pixels as an input of the network alone, and only into a cast.
    readers = [node for node in model.graph.node if pixels.name in node.input]
    assert [node.op_type for node in readers] == ["Cast"]
    for node in readers:
        assert next(entry.i for entry in node.attribute if entry.name == "to") in FLOATS
    # What the builder reads off the file is what was made, for it chooses flags by it before TensorRT 10.
    assert OnnxFile(model.SerializeToString()).precision == precision


def test_outputs_are_float32_and_nothing_else_is_eight_bits(given: tuple[str, onnx.ModelProto]) -> None:
    precision, model = given
    for output in model.graph.output:
        assert output.type.tensor_type.elem_type == TensorProto.FLOAT
    stored = {entry.name: entry.data_type for entry in model.graph.initializer}
    eight = {name for name, kind in stored.items() if kind in (TensorProto.INT8, TensorProto.UINT8)}
    zeros = {node.input[2] for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    assert eight == zeros, "weights stay float, so that TensorRT folds their pair itself"
    assert bool(zeros) == (precision == "int8")


def test_scales_are_constant_positive_float32_and_symmetric(whole: onnx.ModelProto) -> None:
    graph = Graph(int8_model(whole, dict.fromkeys(placement(whole).tensors, (-4.0, 4.0)), "int8-tensorrt"))
    producers = graph.producers()
    pairs = [node for node in graph.nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 100
    for node in pairs:
        scale, zero = (graph.arrays[name] for name in node.input[1:])
        assert scale.dtype == np.float32
        assert (scale > 0).all()
        assert np.isfinite(scale).all()
        assert zero.dtype == np.int8
        assert not zero.any()
        if node.op_type == "DequantizeLinear":
            assert producers[node.input[0]].op_type == "QuantizeLinear"
            assert producers[node.input[0]].input[1] == node.input[1], "both ends of a pair have one scale"
        of_weight = node.input[0] in graph.arrays or producers[node.input[0]].input[0] in graph.arrays
        assert (scale.ndim == 1) == of_weight, "a scale a channel for weights, one for activations"
