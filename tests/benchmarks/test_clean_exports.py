from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from benchmarks import clean_exports  # noqa: E402
from edge.contract import ModelContract  # noqa: E402
from export import request  # noqa: E402
from export.graph import Graph  # noqa: E402
from export.sources import Source  # noqa: E402

pytestmark = pytest.mark.usefixtures("exports_are_remembered")


def test_a_shaken_model_is_nearly_the_same_and_the_same_for_a_seed() -> None:
    weight = np.random.default_rng(0).normal(size=(40, 30, 1, 1)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        "one layer",
        [onnx.helper.make_tensor_value_info("x", 1, [1, 30, 4, 4])],
        [onnx.helper.make_tensor_value_info("y", 1, [1, 40, 4, 4])],
        [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(np.ones(40, np.float32), "b")],
    )
    source = Source(Path("w"), "", "onnx", onnx.helper.make_model(graph), ModelContract("detector", None))
    one, same, other = (clean_exports.shaken(source, np.random.default_rng(seed)).float_model for seed in (1, 1, 2))
    assert one.SerializeToString() == same.SerializeToString() != other.SerializeToString()
    arrays = Graph(one).arrays
    change = arrays["w"] / weight - 1
    assert 0.8 * clean_exports.NOISE < change.std() < 1.2 * clean_exports.NOISE
    assert (arrays["b"] == 1).all()


def test_refusals_are_counted_and_the_least_is_kept() -> None:
    exports = [
        {"seed": 0, "refused": None, "embedder-int8": 0.99, "detector-int8": 0.9},
        {"seed": 1, "refused": "embedder-int8: mean cosine 0.1"},
        {"seed": 2, "refused": None, "embedder-int8": 0.98, "detector-int8": 0.95},
    ]
    found = clean_exports.summary(exports)
    assert (found["refused"]["hits"], found["refused"]["count"]) == (1, 3)
    assert found["least"] == {"embedder-int8": 0.98, "detector-int8": 0.9}


@pytest.mark.realdata
@pytest.mark.slow
def test_a_clean_export_passes_and_what_the_gate_says_is_kept(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean_exports, "PHOTOS", 11)
    monkeypatch.setattr(clean_exports, "MOSAICS", 11)
    photos = shared_data / "data" / "avengers" / "cropped_images"
    (tmp_path / "few").mkdir()
    for person in sorted(photos.iterdir())[:2]:
        (tmp_path / "few" / person.name).mkdir()
        for picture in sorted(person.iterdir())[:10]:
            (tmp_path / "few" / person.name / picture.name).write_bytes(picture.read_bytes())
    words = ["--calibration", str(tmp_path / "few"), "--out", str(tmp_path / "clean.json")]
    assert clean_exports.main([*words, "--count", "1"]) == 0
    monkeypatch.setitem(request.MIN_COSINE, "int8", 0.99999)
    assert clean_exports.main([*words, "--count", "2"]) == 0
    first, second = json.loads((tmp_path / "clean.json").read_text(encoding="utf-8"))["exports"]
    assert first["refused"] is None
    assert first["embedder-int8"] > 0.99
    assert "embedder-int8: mean cosine" in second["refused"]
