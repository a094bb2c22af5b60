from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from onnx import helper, numpy_helper  # noqa: E402

from benchmarks.int8.adaround import Recipe, corrected_after, learned_rounding  # noqa: E402
from export.calibration import observe  # noqa: E402
from export.calibration.methods import min_max  # noqa: E402
from export.calibration.observer import outputs_of  # noqa: E402
from export.graph import Graph  # noqa: E402
from export.passes.pair_sums import saturation  # noqa: E402
from export.passes.qdq import bounded_channel_scales, placement, quantise  # noqa: E402

RANDOM = np.random.default_rng(0)


def network() -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """Pointwise, depthwise and 3×3 convolutions; channels that go together, as those of a real picture do."""
    arrays = {
        "a.weight": RANDOM.normal(0, 0.3, (16, 8, 1, 1)).astype(np.float32),
        "b.weight": RANDOM.normal(0, 0.3, (16, 1, 3, 3)).astype(np.float32),
        "c.weight": RANDOM.normal(0, 0.3, (12, 16, 3, 3)).astype(np.float32),
    }
    arrays |= {f"{n}.bias": RANDOM.normal(0, 0.1, len(arrays[f"{n}.weight"])).astype(np.float32) for n in "abc"}
    arrays["one"] = np.array(1.0, np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "one"], ["s"]),
        helper.make_node("Conv", ["s", "a.weight", "a.bias"], ["a"]),
        helper.make_node("Relu", ["a"], ["a.relu"]),
        helper.make_node("Conv", ["a.relu", "b.weight", "b.bias"], ["b"], group=16, pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["b"], ["b.relu"]),
        helper.make_node("Conv", ["b.relu", "c.weight", "c.bias"], ["c"], pads=[0, 0, 0, 0]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 8, 16, 16])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    common = RANDOM.normal(0, 1, (24, 1, 16, 16))
    pictures = (common + 0.2 * RANDOM.normal(0, 1, (24, 8, 16, 16)) + 1).astype(np.float32)
    return model, [pictures[:8], pictures[8:16], pictures[16:]]


@pytest.fixture(scope="module")
def made() -> tuple[onnx.ModelProto, onnx.ModelProto, list[np.ndarray]]:
    model, batches = network()
    ranges = {k: min_max(h) for k, h in observe(model, placement(model).tensors, lambda: batches[:2]).items()}
    return model, quantise(model, ranges, "int8-cpu"), batches


def error(model: onnx.ModelProto, floats: onnx.ModelProto, batch: np.ndarray) -> float:
    (((_, got),), ((_, wanted),)) = (next(iter(outputs_of(m, ["y"], [batch]))) for m in (model, floats))
    return float(np.square(got - wanted).mean())


def test_learned_rounding_is_nearer_to_the_float_output_on_pictures_it_has_not_seen(
    made: tuple[onnx.ModelProto, onnx.ModelProto, list[np.ndarray]],
) -> None:
    floats, nearest, batches = made
    learned = learned_rounding(nearest, floats, batches[:2], Recipe(steps=400))
    assert error(learned, floats, batches[2]) < 0.8 * error(nearest, floats, batches[2])
    assert saturation(learned).can_saturate == 0
    before, after = Graph(nearest).arrays, Graph(learned).arrays
    changed = 0
    for name in "abc":
        weight = Graph(floats).arrays[f"{name}.weight"].astype(np.float64)
        steps = weight / bounded_channel_scales(weight, 0).astype(np.float64).reshape(-1, 1, 1, 1)
        values = after[f"{name}.weight.int8"]
        assert (np.abs(values - steps) < 1 + 1e-3).all(), "one of the two nearest integers, never another"
        changed += int((values != before[f"{name}.weight.int8"]).sum())
    assert changed > 10
    for name in before:
        if not name.endswith(".int8"):
            np.testing.assert_array_equal(before[name], after[name], err_msg="scales and biases stay")


def test_biases_corrected_after_take_the_mean_error_off(
    made: tuple[onnx.ModelProto, onnx.ModelProto, list[np.ndarray]],
) -> None:
    floats, nearest, batches = made
    every = [np.concatenate(batches)]

    def off(model: onnx.ModelProto) -> float:
        got, wanted = (next(iter(outputs_of(m, ["c"], every)))[0][1].mean(axis=(0, 2, 3)) for m in (model, floats))
        return float(np.abs(got - wanted).max())

    assert off(corrected_after(nearest, floats, batches)) < 0.2 * off(nearest)
