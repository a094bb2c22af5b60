from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, checker, helper
from vectors import least_cosine

from export.graph import Graph
from export.passes import l2_normalise
from export.passes.fp16 import fp16_report, to_fp16


def types(model) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer}


def test_the_network_is_half_inside_and_float_at_its_borders(relu_graph, run, sample) -> None:
    half = to_fp16(relu_graph)
    checker.check_model(half, full_check=True)
    assert half.ByteSize() < 0.52 * relu_graph.ByteSize()
    floats = [t for t in half.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert not floats
    assert half.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert half.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert least_cosine(run(half, sample)["features"], run(relu_graph, sample)["features"]) > 0.9999
    assert sum(node.op_type == "Cast" for node in half.graph.node) == 2


def test_embeddings_keep_unit_length_and_zero_stays_a_number(build, run) -> None:
    weight = np.random.default_rng(0).normal(0, 3, (6, 32)).astype(np.float32)
    model = build([helper.make_node("Gemm", ["x", "w"], ["y"])], {"w": weight}, ["n", 6], ["n", 32])
    half = to_fp16(l2_normalise(model))
    x = np.vstack([np.random.default_rng(1).normal(0, 1, (4, 6)), np.zeros((1, 6))]).astype(np.float32)
    rows = run(half, x)["embedding"]
    np.testing.assert_allclose(np.linalg.norm(rows[:4], axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(rows[4], 0)


def conv(build, weight: np.ndarray):
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["t"]),
        helper.make_node("Relu", ["t"], ["u"]),
        helper.make_node("Conv", ["u", "b.weight"], ["y"]),
    ]
    small = np.full((2, 2, 1, 1), 0.25, np.float32)
    return build(nodes, {"a.weight": weight, "b.weight": small}, ["n", 2, 4, 4], ["n", 2, 4, 4])


def test_a_layer_whose_weights_overflow_stays_in_float(build, run) -> None:
    model = conv(build, np.full((2, 2, 1, 1), 1e5, np.float32))
    half = to_fp16(model)
    by_name = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert by_name["a.weight"] == TensorProto.FLOAT
    assert by_name["b.weight.half"] == TensorProto.FLOAT16
    x = np.full((1, 2, 4, 4), 1e-3, np.float32)
    np.testing.assert_allclose(run(half, x)["y"], run(model, x)["y"], rtol=2e-3)


def test_calibrated_ranges_keep_a_layer_whose_values_overflow(build, run) -> None:
    model = conv(build, np.full((2, 2, 1, 1), 200.0, np.float32))
    x = np.full((1, 2, 4, 4), 250.0, np.float32)  # 100,000 behind the first layer: beyond FP16
    wanted = run(model, x)["y"]
    guarded = to_fp16(model, {"t": (0.0, 1e5), "u": (0.0, 1e5)})
    # An engine that really computes in half would overflow; ONNX Runtime on a CPU does not, so the types are looked at.
    assert not any(value.dtype == np.float16 for value in Graph(guarded).arrays.values())
    assert any(value.dtype == np.float16 for value in Graph(to_fp16(model)).arrays.values())
    np.testing.assert_allclose(run(guarded, x)["y"], wanted, rtol=1e-3)


def test_the_report_counts_what_half_precision_cannot_hold(build) -> None:
    weight = np.array([1.0, 1e-6, 1e-9, 0.0], np.float32).reshape(2, 2, 1, 1)
    report = fp16_report(conv(build, weight))
    assert report == {"weights": 8, "flushed_to_zero": 1, "subnormal": 1}


@pytest.mark.parametrize("kept", ["t", "y"])
def test_named_layers_stay(build, kept: str) -> None:
    half = to_fp16(conv(build, np.ones((2, 2, 1, 1), np.float32)), keep=frozenset({kept}))
    weights = {
        node.output[0].removesuffix(".half"): node.input[1] for node in half.graph.node if node.op_type == "Conv"
    }
    assert Graph(half).arrays[weights[kept]].dtype == np.float32
