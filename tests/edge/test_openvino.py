"""OpenVINO's own ways: shapes it is compiled for, rows of a batch, and layers in bf16."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.engines import get_engine, open_session
from edge.engines import openvino as engine
from edge.engines.base import SessionOptions
from edge.engines.openvino import OpenVinoSession
from edge.errors import EngineError

if missing := get_engine("openvino").available():
    pytest.skip(missing, allow_module_level=True)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3)).astype(np.uint8)


def test_nobody_is_told_that_the_package_is_used(tmp_path: Path) -> None:
    """By itself it reports each import to Google Analytics, from a thread and a process of its own, outside CI."""
    code = """
import threading
from edge.engines import get_engine
engine = get_engine("openvino")
assert engine.available() is None, engine.available()
print(engine.version(), threading.active_count())
"""
    home = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=home | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "1", "a thread sends something"
    assert not list(tmp_path.iterdir()), "a number of this user is kept"


def test_a_usual_shape_is_compiled_for_and_gives_the_same(
    toy_models: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "STEADY", 3)
    monkeypatch.setattr(engine, "MOST_COMPILED", 2)
    session = OpenVinoSession(toy_models["detector"], SessionOptions())
    with session:
        name = session.inputs[0].name
        for count, (height, width) in enumerate([(64, 96), (96, 64), (64, 64), (96, 96)]):
            frames = [picture(height, width, seed) for seed in range(3)]
            first = [session.run({name: frame}) for frame in frames[:2]]
            assert len(session._steady) == min(count, 2)
            session.run({name: frames[2]})
            assert len(session._steady) == min(count + 1, 2)
            for frame, before in zip(frames, first, strict=False):
                for key, value in session.run({name: frame}).items():
                    np.testing.assert_allclose(value, before[key], rtol=1e-4, atol=1e-5)


def test_a_size_seen_now_and_then_is_not_compiled_for(toy_models: dict[str, bytes]) -> None:
    session = OpenVinoSession(toy_models["detector"], SessionOptions())
    with session:
        for width in range(32, 32 * (engine.STEADY + 1), 32):
            session.run({session.inputs[0].name: picture(64, width)})
        assert not session._steady


def test_rows_of_a_batch_come_out_in_order_and_alone(toy_models: dict[str, bytes]) -> None:
    crops = np.concatenate([picture(112, 112, seed) for seed in range(5)])
    with open_session(toy_models["embedder"], "openvino") as session:
        name, output = session.inputs[0].name, session.outputs[0].name
        together = session.run({name: crops})[output]
        assert together.shape[0] == 5
        for i in range(5):
            np.testing.assert_array_equal(session.run({name: crops[i : i + 1]})[output][0], together[i])
        with pytest.raises(EngineError, match="one row or more"):
            session.run({name: crops[:0]})


def test_bf16_rounds_to_bf16_and_no_further() -> None:
    """Its results differ from FP32's, by about the eight bits of precision that bf16 has: the hint is followed."""
    onnx = pytest.importorskip("onnx")
    if missing := get_engine("openvino-bf16").available():
        pytest.skip(missing)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(64, 32, 3, 3)).astype(np.float32), rng.normal(size=(64, 64, 1, 1)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "v"], ["c"]), onnx.helper.make_node("Conv", ["c", "w"], ["y"])],
        "two",
        [onnx.helper.make_tensor_value_info("x", 1, ["n", 32, 24, 24])],
        [onnx.helper.make_tensor_value_info("y", 1, ["n", 64, 22, 22])],
        [onnx.numpy_helper.from_array(value, name) for value, name in zip(weights, "vw", strict=True)],
    )
    opset = onnx.helper.make_opsetid("", 17)
    data = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    given = rng.normal(size=(2, 32, 24, 24)).astype(np.float32)
    found = {}
    for name, layers in (("openvino", "f32"), ("openvino-bf16", "bf16")):
        with open_session(data, name) as session:
            assert session.describe()["float layers"] == layers
            found[name] = session.run({"x": given})["y"]
    with open_session(data) as session:
        want = session.run({"x": given})["y"]
    errors = {name: float(np.linalg.norm(value - want) / np.linalg.norm(want)) for name, value in found.items()}
    assert errors["openvino"] < 1e-5
    assert 1e-4 < errors["openvino-bf16"] < 2**-7
