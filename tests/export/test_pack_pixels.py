"""The first convolution over groups of four bytes: not a bit changes, and no sum of two neighbours grows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edge.contract import ModelContract
from edge.engines import SessionOptions, get_engine, open_session
from export.graph import Graph
from export.passes.embed_preprocessing import embed_preprocessing
from export.passes.integer_pixels import integer_pixels
from export.passes.pack_pixels import pack_pixels
from export.passes.pair_sums import saturation
from export.passes.qdq import quantise

AS_WRITTEN = SessionOptions(as_written=True)


Size = tuple[int | str, int | str]
Pads = tuple[int, int, int, int]

ANY_SIZE: Size = ("height", "width")


def float_model(
    weights: dict[str, np.ndarray], nodes: list[onnx.NodeProto], size: Size, mean: float
) -> onnx.ModelProto:
    """Of pixels; `nodes` take x, in which the mean is subtracted, and give y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 3, *size])],
        [helper.make_tensor_value_info("y", 1, ["n", 4, "h", "w"])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return embed_preprocessing(model, ModelContract("detector", None, "bgr", "nchw", "float32", (mean,) * 3))


def quantised(
    kernel: tuple[int, int] = (3, 3),
    pads: Pads = (1, 1, 1, 1),
    size: Size = ANY_SIZE,
    stride: int = 2,
    channels: int = 8,
    mean: float = 0.0,
    relu: bool = True,
) -> onnx.ModelProto:
    """Pixels → convolution → Relu or nothing → 1×1 convolution in eight bits, not packed.

    The first weights' scales are made 1/64: then sums in float32 are exact in whatever order, and no value lies now on
    the one, now on the other side of the edge of a step.
    """
    rng = np.random.default_rng(sum(kernel) + sum(pads))
    weights = {
        "w": rng.normal(size=(channels, 3, *kernel)),
        "b": rng.normal(size=channels) * 100,
        "v": rng.normal(size=(4, channels, 1, 1)),
    }
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[stride, stride], pads=pads)]
    nodes += [helper.make_node("Relu", ["c"], ["r"])] if relu else []
    nodes += [helper.make_node("Conv", ["r" if relu else "c", "v"], ["y"])]
    model = float_model(weights, nodes, size, mean)
    model = quantise(integer_pixels(model), {"c": (-900.0, 900.0), "r": (0.0, 900.0)}, "int8-cpu")
    first = {"w.int8.scale", "b.int32.scale", "w.bias.int32.scale"}  # the last where a mean was folded into the bias
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in first]:
        tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), 1 / 64, np.float32), tensor.name))
    return model


def answers(
    model: onnx.ModelProto, pixels: np.ndarray, options: SessionOptions, engine: str = "onnxruntime"
) -> np.ndarray:
    with open_session(model.SerializeToString(), engine, options) as session:
        return session.run({"pixels": pixels})["y"]


@settings(max_examples=30, deadline=None)
@example(5, 4, 1, (6, 5), 128.0, True)
@given(
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(0, 2),
    st.tuples(st.integers(5, 9), st.integers(2, 5)),
    st.sampled_from([0.0, 127.5, 128.0]),
    st.booleans(),
)
def test_no_result_changes(down: int, across: int, left: int, size: tuple[int, int], mean: float, relu: bool) -> None:
    right = max(across - left - 1, 0)
    pixels = np.random.default_rng(size[1]).integers(0, 256, (2, size[0], 4 * size[1], 3)).astype(np.uint8)
    plain = quantised((down, across), (1, left, 1, right), mean=mean, relu=relu)
    packed = pack_pixels(plain)
    assert ("Reshape" in {node.op_type for node in packed.graph.node}) == (left < across)
    np.testing.assert_array_equal(answers(packed, pixels, AS_WRITTEN), answers(plain, pixels, AS_WRITTEN))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_kernels_give_the_same(engine: str) -> None:
    if (missing := get_engine(engine).available()) is not None:
        pytest.skip(missing)
    plain = quantised(channels=16)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 64, 3)).astype(np.uint8)
    want = answers(plain, pixels, AS_WRITTEN)
    given = answers(pack_pixels(plain), pixels, SessionOptions(), engine)
    assert np.abs(given - want).mean() < 0.01 * np.abs(want).mean()


@pytest.mark.parametrize(
    "plain",
    [
        pytest.param(quantised(stride=1), id="another stride"),
        pytest.param(quantised(size=(12, 18)), id="a width that four does not divide"),
        pytest.param(quantised(pads=(1, 2, 1, 2)), id="more columns than half"),
    ],
)
def test_what_does_not_fit_is_left_alone(plain: onnx.ModelProto) -> None:
    assert pack_pixels(plain) == Graph(plain).close()


def test_a_first_layer_in_float_is_left_alone() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])]
    model = integer_pixels(float_model({"w": np.ones((4, 3, 3, 3))}, nodes, ANY_SIZE, 0.0))
    kept = quantise(model, {}, "int8-cpu", frozenset({"y"}))
    assert pack_pixels(kept) == Graph(kept).close()


@given(st.integers(1, 6), st.integers(0, 2))
@settings(max_examples=15, deadline=None)
def test_no_pair_of_neighbours_grows_beyond_the_bound(across: int, left: int) -> None:
    plain = quantised((3, across), (1, left, 1, max(across - left - 1, 0)), channels=64)
    packed = saturation(pack_pixels(plain))
    assert packed.can_saturate == 0
    assert packed.layers == saturation(plain).layers == 2


def test_onnxruntime_moves_nothing_before_or_behind_it(tmp_path: Path) -> None:
    """Of what the pass adds, only the two Reshape are left, which share their input's memory."""
    plain = quantised(channels=16)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(pack_pixels(plain).SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    kinds = Counter(node.op_type for node in nodes)
    assert kinds["QLinearConv"] == 1
    assert kinds["Reshape"] == 2
    assert [node.op_type for node in nodes][:3] == ["Reshape", "QLinearConv", "Reshape"]
    assert not {"QuantizeLinear", "Cast"} & set(kinds)
