"""INT8 that no CPU's 16-bit sums can saturate: the bound, and the kernels of this machine against exact arithmetic."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper

from edge.engines import ENGINES, get_engine, open_session
from export.graph import Graph
from export.passes.pair_sums import LIMIT, bounded_scales, largest_pair_sums, saturation
from export.passes.qdq import channel_scales, quantise

WEIGHTS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(2, 7), st.integers(1, 3), st.integers(1, 3)),
    elements=st.floats(-3, 3, width=32),
)


def integers(weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return np.rint(weight / scales.reshape(-1, 1, 1, 1)).astype(np.int64)


def maddubs(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """vpmaddubsw (Intel's manual): uint8 by int8, neighbours added, saturated to int16. (…, K) → (…, K / 2)."""
    products = activations.astype(np.int64) * weights
    return np.clip(products[..., 0::2] + products[..., 1::2], -(2**15), 2**15 - 1)


@given(WEIGHTS)
def test_rounded_weights_keep_the_bound(weight: np.ndarray) -> None:
    scales = np.maximum(np.maximum(channel_scales(weight, 0), bounded_scales(weight, 0)), 1e-8)
    assert largest_pair_sums(integers(weight, scales), 0).max() <= LIMIT


@given(WEIGHTS, st.integers(0, 2**31))
def test_within_the_bound_no_activation_saturates(weight: np.ndarray, seed: int) -> None:
    scales = np.maximum(np.maximum(channel_scales(weight, 0), bounded_scales(weight, 0)), 1e-8)
    flat = integers(weight, scales).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    flat = np.pad(flat, ((0, 0), (0, flat.shape[1] % 2)))
    random = np.random.default_rng(seed)
    worst = np.where(flat > 0, 255, 0), np.where(flat < 0, 255, 0), random.integers(0, 256, flat.shape)
    for activations in worst:
        exact = (activations * flat).reshape(len(flat), -1, 2).sum(axis=2)
        np.testing.assert_array_equal(maddubs(activations, flat), exact)


def test_beyond_the_bound_there_is_an_activation_that_saturates() -> None:
    assert maddubs(np.array([255, 255]), np.array([64, 64])) == 255 * 128
    assert maddubs(np.array([255, 255]), np.array([64, 65])) == 2**15 - 1 < 255 * 129


def test_channels_that_are_far_from_the_bound_keep_their_scale() -> None:
    weight = np.zeros((3, 4, 1, 1), np.float32)
    weight[0, :2, 0, 0] = 1.0, 0.001  # one large weight: its neighbour adds nothing
    weight[1, :2, 0, 0] = 1.0, 1.0  # two neighbours of full size
    weight[2, :2, 0, 0] = 1.0, -1.0  # of opposite sign: they cancel
    scales = np.maximum(channel_scales(weight, 0), bounded_scales(weight, 0))
    np.testing.assert_allclose(scales, [1.001 / 127, 2 / 127, 1 / 127], rtol=1e-5)


def test_neighbours_across_kernel_positions_count_where_channels_are_odd() -> None:
    weight = np.zeros((1, 3, 1, 2), np.float32)
    weight[0, 2, 0, 0] = weight[0, 0, 0, 1] = 1.0
    assert largest_pair_sums(weight, 0) == [2.0]
    even = np.zeros((1, 2, 1, 2), np.float32)
    even[0, 1, 0, 0] = even[0, 0, 0, 1] = 1.0
    assert largest_pair_sums(even, 0) == [1.0]


def all_ones(build) -> tuple[onnx.ModelProto, dict[str, tuple[float, float]]]:
    """Sixteen equal weights on a picture of ones: with full-range weights every pair of products saturates."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"]),
    ]
    weights = {"w": np.ones((8, 16, 1, 1), np.float32), "b": np.zeros(8, np.float32), "v": np.eye(8)[:, :, None, None]}
    model = build(nodes, {**weights, "v": weights["v"].astype(np.float32)}, ["n", 16, 4, 4], ["n", 8, 4, 4])
    return model, {"x": (0.0, 1.0), "r": (0.0, 16.0), "y": (0.0, 16.0)}


@pytest.mark.parametrize("engine", [name for name in ENGINES if name not in ("tensorrt", "triton")])
def test_the_kernels_of_this_machine_are_exact(engine: str, build) -> None:
    if (missing := get_engine(engine).available()) is not None:
        pytest.skip(missing)
    model, ranges = all_ones(build)
    quantised = quantise(model, ranges, "int8-cpu", frozenset({"y"}))
    assert saturation(quantised).can_saturate == 0
    with open_session(quantised.SerializeToString(), engine) as session:
        rows = session.run({"x": np.ones((1, 16, 4, 4), np.float32)})["y"]
    np.testing.assert_allclose(rows, 16.0, rtol=0.01)


def test_depthwise_layers_are_left_alone_and_other_layers_are_counted(build, relu_graph) -> None:
    depthwise = np.ones((4, 1, 3, 3), np.float32)
    assert not bounded_scales(depthwise, 0).any()
    model, ranges = all_ones(build)
    found = saturation(quantise(model, ranges, "int8-cpu"))
    assert (found.layers, found.can_saturate) == (2, 0)
    assert 126 <= found.worst_pair_sum <= LIMIT
    graph = Graph(quantise(model, ranges, "int8-cpu"))
    graph.arrays["w.int8"] = np.full((8, 16, 1, 1), 127, np.int8)
    beyond = saturation(graph.close())
    assert (beyond.can_saturate, beyond.worst_pair_sum) == (1, 254)
