"""Doubling by copies: not a bit changes, and ONNX Runtime moves nothing round it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edge.engines import SessionOptions, get_engine, open_session
from export.graph import Graph
from export.passes.copy_upsampling import copy_upsampling
from export.passes.qdq import quantise

NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
RANGES = {"x": (-3.0, 3.0), "f": (-8.0, 8.0), "u": (-8.0, 8.0), "s": (-8.0, 8.0), "t": (-9.0, 9.0)}


def float_model(
    channels: int = 4, scales: Sequence[float] = (1, 1, 2, 2), resize: Mapping[str, str] = NEAREST
) -> onnx.ModelProto:
    """A convolution, doubled, plus one of twice the size, and a convolution behind the sum."""
    rng = np.random.default_rng(channels)
    weights = {f"{name}.weight": rng.normal(size=(channels, channels, 1, 1)) for name in ("f", "s", "y")}
    nodes = [
        helper.make_node("Conv", ["x", "f.weight"], ["f"]),
        helper.make_node("Resize", ["f", "", "scales"], ["u"], **resize),
        helper.make_node("Conv", ["z", "s.weight"], ["s"]),
        helper.make_node("Add", ["s", "u"], ["t"]),
        helper.make_node("Conv", ["t", "y.weight"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, 1, ["n", channels, "h" + name, "w" + name]) for name in ("x", "z")],
        [helper.make_tensor_value_info("y", 1, None)],
        [
            *(numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()),
            numpy_helper.from_array(np.array(scales, np.float32), "scales"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantised(
    channels: int = 4, scales: Sequence[float] = (1, 1, 2, 2), resize: Mapping[str, str] = NEAREST
) -> onnx.ModelProto:
    return quantise(float_model(channels, scales, resize), {**RANGES, "z": RANGES["x"]}, "int8-cpu")


def answers(model: onnx.ModelProto, x: np.ndarray, options: SessionOptions, engine: str = "onnxruntime") -> np.ndarray:
    z = np.random.default_rng(1).normal(size=(x.shape[0], x.shape[1], 2 * x.shape[2], 2 * x.shape[3]))
    with open_session(model.SerializeToString(), engine, options) as session:
        return session.run({"x": x, "z": z.astype(np.float32)})["y"]


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_no_result_changes(count: int, channels: int, height: int, width: int) -> None:
    plain = quantised(channels)
    copied = copy_upsampling(plain)
    assert (kinds(plain)["Resize"], kinds(copied)["Resize"], kinds(copied)["Concat"]) == (1, 0, 2)
    x = np.random.default_rng(height).normal(size=(count, channels, height, width)).astype(np.float32)
    for options in (SessionOptions(as_written=True), SessionOptions()):
        np.testing.assert_array_equal(answers(copied, x, options), answers(plain, x, options))


def test_openvino_gives_the_same() -> None:
    if (missing := get_engine("openvino").available()) is not None:
        pytest.skip(missing)
    plain = quantised(16)
    x = np.random.default_rng(0).normal(size=(2, 16, 6, 10)).astype(np.float32)
    want = answers(plain, x, SessionOptions(), "openvino")
    given = answers(copy_upsampling(plain), x, SessionOptions(), "openvino")
    assert np.abs(given - want).mean() < 0.01 * np.abs(want).mean()


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(quantised(scales=(1, 1, 3, 2)), id="other factors"),
        pytest.param(quantised(resize={**NEAREST, "coordinate_transformation_mode": "half_pixel"}), id="other places"),
        pytest.param(quantised(resize={**NEAREST, "mode": "linear"}), id="values between"),
        pytest.param(float_model(), id="float"),
    ],
)
def test_what_does_not_fit_is_left_alone(left: onnx.ModelProto) -> None:
    assert copy_upsampling(left) == Graph(left).close()


def optimised(model: onnx.ModelProto, file: Path) -> Counter[str]:
    """The operators that ONNX Runtime runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(file)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return kinds(onnx.load(file))


def test_onnxruntime_moves_nothing_round_it(tmp_path: Path) -> None:
    """Channels lie last behind its convolutions, so that copies and the sum take them as they are."""
    plain, copied = (optimised(m, tmp_path / "m.onnx") for m in (quantised(16), copy_upsampling(quantised(16))))
    copies = Counter({"Concat": 2, "Reshape": 1, "Shape": 1, "Mul": 1, "Gather": copied["Gather"]})
    assert copied - plain == copies
    assert (plain - copied).keys() <= {"Resize", "Transpose"}
