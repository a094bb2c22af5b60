"""Arithmetic that is emulated to show what the self-test tells: it must be what it says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from benchmarks.int8.engines import moved_scales, unrounded_sums, without_vnni
from benchmarks.int8.operators import profile
from edge.engines import SessionOptions, open_session
from export.graph import Graph
from export.passes.qdq import quantise

CHANNELS, OUTPUTS, SIDE = 6, 4, 5
STRIDE, PAD = 2, 1


def convolution(weight: np.ndarray) -> ModelProto:
    """A padded convolution of stride 2 whose input has scale 1 and zero point 3, without a bias."""
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[PAD] * 4, strides=[STRIDE] * 2)],
        "one",
        [helper.make_tensor_value_info("x", 1, ["n", CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", 1, ["n", OUTPUTS, 3, 3])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return quantise(model, {"x": (-3.0, 252.0)}, "int8-cpu")


def run(model: ModelProto, given: np.ndarray) -> np.ndarray:
    with open_session(model.SerializeToString(), options=SessionOptions(as_written=True)) as session:
        return next(iter(session.run({"x": given}).values()))


def saturating(levels: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """By the manual of vpmaddubsw, value by value. levels: uint8; weight: int8; zero point 3."""
    padded = np.pad(levels.astype(np.int64), ((0, 0), (PAD, PAD), (PAD, PAD)), constant_values=3)
    out = np.zeros((OUTPUTS, 3, 3), np.int64)
    for o, y, x, ky, kx, pair in np.ndindex(OUTPUTS, 3, 3, 3, 3, CHANNELS // 2):
        two = slice(2 * pair, 2 * pair + 2)
        column = padded[two, STRIDE * y + ky, STRIDE * x + kx] @ weight[o, two, ky, kx].astype(np.int64)
        out[o, y, x] += np.clip(column, -(2**15), 2**15 - 1)
    return out - 3 * weight.astype(np.int64).sum(axis=(1, 2, 3)).reshape(-1, 1, 1)


@pytest.mark.parametrize(("full", "saturates"), [(True, True), (False, False)])
def test_without_vnni_neighbours_saturate_as_the_manual_says(full: bool, saturates: bool) -> None:
    random = np.random.default_rng(0)
    model = convolution(random.normal(size=(OUTPUTS, CHANNELS, 3, 3)).astype(np.float32))
    graph = Graph(model)
    stored = next(name for name, value in graph.arrays.items() if value.dtype == np.int8 and value.ndim == 4)
    if full:
        graph.arrays[stored] = random.choice(np.array([-127, 127], np.int8), graph.arrays[stored].shape)
        model = graph.close()
    weight, scales = graph.arrays[stored], graph.arrays[f"{stored}.scale"].reshape(-1, 1, 1)
    levels = random.integers(0, 256, (CHANNELS, SIDE, SIDE)).astype(np.uint8)
    given = (levels.astype(np.float32) - 3)[None]
    exact, cut = run(model, given)[0], run(without_vnni(model), given)[0]
    np.testing.assert_allclose(cut, saturating(levels, weight) * scales, rtol=1e-5, atol=1e-2)
    assert (np.abs(exact - cut).max() > 100 * scales.max()) == saturates


def test_only_the_rounding_before_a_sum_is_left_out() -> None:
    random = np.random.default_rng(1)
    weights = [random.normal(size=(4, 4, 1, 1)).astype(np.float32) for _ in range(2)]
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["before"]),
        helper.make_node("Conv", ["before", "b"], ["branch"]),
        helper.make_node("Add", ["branch", "before"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info("x", 1, ["n", 4, 3, 3])],
        [helper.make_tensor_value_info("y", 1, ["n", 4, 3, 3])],
        [onnx.numpy_helper.from_array(value, name) for value, name in zip(weights, "ab", strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    ranges = dict.fromkeys(("x", "before", "branch", "sum", "y"), (-4.0, 4.0))
    rounded = quantise(model, ranges, "int8-cpu")
    left = Graph(unrounded_sums(rounded))
    add = next(node for node in left.nodes if node.op_type == "Add")
    assert add.input[0] == "branch", "straight from the convolution"
    assert add.input[1] != "before", "the other has a second reader, and stays in eight bits"
    given = random.normal(size=(1, 4, 3, 3)).astype(np.float32)
    one, other = run(rounded, given), run(left.close(), given)
    step = 8 / 255
    assert 0 < np.abs(one - other).max() <= 1.01 * step
    assert np.abs(run(moved_scales(rounded, 1e-6), given) - one).max() <= 2.01 * step


def test_time_is_counted_by_kind_of_operator() -> None:
    random = np.random.default_rng(2)
    weights = random.normal(size=(8, 3, 3, 3)).astype(np.float32), random.normal(size=(8, 1, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=1),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "a"], ["c"], name="c"),
        helper.make_node("Conv", ["c", "b"], ["y"], name="y", group=8),
    ]
    graph = helper.make_graph(
        nodes,
        "kinds",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["n", 64, 64, 3])],
        [helper.make_tensor_value_info("y", 1, ["n", 8, 60, 60])],
        [onnx.numpy_helper.from_array(value, name) for value, name in zip(weights, "ab", strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = profile(model.SerializeToString(), (1, 64, 64, 3), 5)
    assert {"Cast", "Transpose", "depthwise convolution", "other convolution"} <= set(found)
    assert all(microseconds > 0 for microseconds in found.values())
