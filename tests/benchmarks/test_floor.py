from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from benchmarks.int8 import floor  # noqa: E402
from edge.engines import open_session  # noqa: E402

helper = onnx.helper


def test_multiply_adds_are_those_counted_by_hand() -> None:
    random = np.random.default_rng(0)
    weights = {"dense": (8, 3, 3, 3), "depthwise": (8, 1, 3, 3), "gemm": (5, 8)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "dense"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["a", "depthwise"], ["b"], group=8, pads=[1, 1, 1, 1]),
            helper.make_node("GlobalAveragePool", ["b"], ["c"]),
            helper.make_node("Flatten", ["c"], ["d"]),
            helper.make_node("Gemm", ["d", "gemm"], ["y"], transB=1),
        ],
        "small",
        [helper.make_tensor_value_info("x", 1, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", 1, ["n", 5])],
        [onnx.numpy_helper.from_array(random.normal(size=s).astype(np.float32), n) for n, s in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert floor.multiply_adds(model, (1, 3, 16, 12)) == 8 * 6 * 8 * 27 + 8 * 6 * 8 * 9 + 5 * 8


@pytest.mark.parametrize("integer", [True, False])
def test_the_peak_is_read_from_a_product_that_is_right(integer: bool) -> None:
    data = floor.product(integer)
    weight = onnx.numpy_helper.to_array(onnx.load_from_string(data).graph.initializer[0])
    given = np.random.default_rng(1).integers(0, 255, (floor.SIDE, floor.SIDE))
    with open_session(data) as session:
        found = session.run({"x": given.astype(np.uint8 if integer else np.float32)})["y"]
    expected = given.astype(np.float64) @ weight.astype(np.float64)
    if integer:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=0.5)


def test_a_bundle_without_int8_is_one_line(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    assert {v["precision"] for v in manifest["variants"] if v["role"] == "detector"} == {"fp32"}
    assert floor.main(["--bundle", str(bundle)]) == 2
    assert "lacks FP32 or INT8" in capsys.readouterr().err
