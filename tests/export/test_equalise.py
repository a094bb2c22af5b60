"""Equalisation: the function stays, the channels' ranges become alike, and INT8 loses less for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edge.errors import InputError
from export.calibration import METHODS, observe
from export.calibration.bias_correction import bias_correction
from export.calibration.equalisation import equalisation
from export.calibration.table import CalibrationTable, read_tables, write_tables
from export.graph import Graph
from export.passes import prelu_rewrite
from export.passes.equalise import EQUALISED, buses, equalise
from export.passes.qdq import placement, quantise
from export.passes.shift_biases import shift_biases
from export.variants import best_option


def random_factors(model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {}
    for bus in buses(model):
        sign = rng.choice([-1.0, 1.0], bus.channels) if bus.signed else 1.0
        found[bus.name] = sign * np.exp(rng.uniform(-2, 2, bus.channels))
    return found


@pytest.mark.parametrize("activation", ["relu", "prelu"])
def test_a_network_computes_the_same_with_any_factors(activation, request, sample, run) -> None:
    model = prelu_rewrite(request.getfixturevalue(f"{activation}_graph"))
    factors = random_factors(model, 5)
    assert len(factors) > 25
    assert any((values < 0).any() for values in factors.values())  # projections meet in sums without a ReLU
    before, after = run(model, sample)["features"], run(equalise(model, factors), sample)["features"]
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-4 * np.abs(before).max())


def detector_like(build, seed: int) -> onnx.ModelProto:
    """Two branches that meet in a sum behind a resize, a pooled one, and depthwise layers without an activation."""
    rng = np.random.default_rng(seed)
    weights = {
        "p": rng.normal(size=(6, 3, 1, 1)) * np.exp(rng.uniform(-2, 2, (6, 1, 1, 1))),
        "pb": rng.normal(size=6),
        "d": rng.normal(size=(6, 1, 3, 3)),
        "db": rng.normal(size=6),
        "q": rng.normal(size=(6, 6, 1, 1)),
        "e": rng.normal(size=(4, 6, 1, 1)),
    }
    arrays = {name: value.astype(np.float32) for name, value in weights.items()}
    arrays["half"] = np.array(0.5, np.float32)
    arrays["twice"] = np.array([1, 1, 2, 2], np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["h"]),
        helper.make_node("Conv", ["h", "p", "pb"], ["a"]),
        helper.make_node("Conv", ["a", "d", "db"], ["b"], group=6, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["m", "q"], ["n"]),
        helper.make_node("Resize", ["n", "", "twice"], ["r"], mode="nearest"),
        helper.make_node("Add", ["c", "r"], ["s"]),
        helper.make_node("Conv", ["s", "e"], ["y"]),
    ]
    return build(nodes, arrays, ["n", 3, 8, 8], ["n", 4, 8, 8], opset=17)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_sum_of_branches_shares_its_factors(build, run, seed: int) -> None:
    model = detector_like(build, seed)
    found = {bus.name: bus for bus in buses(model)}
    assert set(found) == {"a", "b"}
    assert found["a"].signed
    assert not found["b"].signed
    assert found["b"].givers == ("b", "n")
    assert found["b"].takers == ("n", "y")
    x = np.random.default_rng(seed).normal(size=(2, 3, 8, 8)).astype(np.float32)
    before, after = run(model, x)["y"], run(equalise(model, random_factors(model, seed)), x)["y"]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-4 * np.abs(before).max())


def test_what_is_fed_by_a_constant_or_leaves_the_graph_is_left_alone(build) -> None:
    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "shift"], ["b"]),
        helper.make_node("Conv", ["b", "v"], ["y"]),
    ]
    model = build(
        nodes, {"w": eye, "v": eye, "shift": np.ones((1, 3, 1, 1), np.float32)}, ["n", 3, 4, 4], ["n", 3, 4, 4]
    )
    assert buses(model) == ()


def test_channels_come_out_alike_and_int8_loses_less(build, run) -> None:
    model = detector_like(build, 3)
    batches = [np.random.default_rng(i).normal(size=(4, 3, 8, 8)).astype(np.float32) for i in range(8)]
    factors = equalisation(model, batches)
    moved = equalise(model, factors)

    def spread(one: onnx.ModelProto, tensor: str) -> float:
        watched = Graph(one)
        watched.outputs = [helper.make_tensor_value_info(tensor, 1, None)]
        values = np.concatenate([run(watched.close(), batch)[tensor] for batch in batches])
        reach = np.abs(values).max(axis=(0, 2, 3))
        return float(reach.max() / reach.min())

    assert spread(model, "a") > 20
    assert spread(moved, f"a{EQUALISED}") == pytest.approx(1, abs=1e-3)

    def error(one: onnx.ModelProto) -> float:
        seen = observe(one, placement(one).tensors, lambda: batches)
        ranges = {name: METHODS["min-max"](histogram) for name, histogram in seen.items()}
        x = np.random.default_rng(99).normal(size=(16, 3, 8, 8)).astype(np.float32)
        return float(np.abs(run(quantise(one, ranges, "int8-cpu"), x)["y"] - run(model, x)["y"]).mean())

    assert error(moved) < 0.8 * error(model)


def test_factors_that_do_not_fit_are_refused(build) -> None:
    model = detector_like(build, 1)
    with pytest.raises(InputError, match="does not fit the model at nowhere"):
        equalise(model, {"nowhere": [1.0]})
    with pytest.raises(InputError, match="does not fit"):
        equalise(model, {"a": [1.0, 2.0]})
    for wrong in (0.0, float("nan"), -1.0):
        with pytest.raises(InputError, match="no layer can take"):
            equalise(model, {"b": [1.0] * 5 + [wrong]})


def test_a_table_keeps_the_factors(tmp_path: Path) -> None:
    table = CalibrationTable(
        "detector",
        "ab" * 32,
        "mse",
        {f"a{EQUALISED}": (0.0, 1.0)},
        "cd" * 32,
        9,
        factors={"a": (1.0, -0.25)},
        shifts={"b.equalised": (0.5,)},
        compared={"as it is": 0.96, "biases corrected": 0.99, "equalised": 0.97, "equalised, biases corrected": 0.98},
    )
    assert table.figure == 0.98
    write_tables(tmp_path / "t.json", [table])
    assert read_tables(tmp_path / "t.json") == (table,)


def test_corrected_biases_take_off_what_rounding_adds_on_average(build, run) -> None:
    """Inputs that are all above zero make a rounded weight's error a constant one: what a bias can hold."""
    rng = np.random.default_rng(4)
    weights = {"half": np.array(0.5, np.float32), "w": rng.normal(size=(8, 32, 1, 1)).astype(np.float32)}
    weights["w"][:, 0] *= 40  # the scale is that of the largest weight, and all others are rounded coarsely
    weights["b"], weights["v"] = np.zeros(8, np.float32), np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1)
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["h"]),
        helper.make_node("Conv", ["h", "w", "b"], ["a"]),
        helper.make_node("Conv", ["a", "v"], ["y"]),
    ]
    model = build(nodes, weights, ["n", 32, 4, 4], ["n", 8, 4, 4])
    batches = [np.random.default_rng(i).uniform(0.5, 1, (4, 32, 4, 4)).astype(np.float32) for i in range(8)]
    shifts = bias_correction(model, batches)
    assert set(shifts) == {"a"}
    seen = observe(model, placement(model).tensors, lambda: batches)
    ranges = {name: METHODS["min-max"](histogram) for name, histogram in seen.items()}
    x = np.random.default_rng(99).uniform(0.5, 1, (32, 32, 4, 4)).astype(np.float32)

    def mean_error(one: onnx.ModelProto) -> float:
        answers = run(quantise(one, ranges, "int8-cpu", frozenset({"y"})), x)["y"] - run(model, x)["y"]
        return float(np.abs(answers.mean(axis=(0, 2, 3))).mean())

    assert mean_error(shift_biases(model, shifts)) < 0.2 * mean_error(model)
    assert mean_error(shift_biases(model, shifts, but=frozenset({"a"}))) == mean_error(model)


def test_corrections_that_do_not_fit_are_refused(build) -> None:
    model = detector_like(build, 1)
    for shifts in ({"nowhere": [1.0]}, {"a": [1.0, 2.0]}, {"y": [1.0] * 4}):
        with pytest.raises(InputError, match="bias correction does not fit"):
            shift_biases(model, shifts)


def test_equalisation_is_taken_only_where_it_is_worth_it() -> None:
    figures = {"as it is": 0.96, "biases corrected": 0.98, "equalised": 0.95}
    assert best_option(figures | {"equalised, biases corrected": 0.9849}) == "biases corrected"
    assert best_option(figures | {"equalised, biases corrected": 0.9851}) == "equalised, biases corrected"
    assert best_option({"as it is": 0.96, "biases corrected": 0.95}) == "as it is"
