from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, save

from edge.contract import ModelContract
from edge.errors import ContractError, InputError
from export.importer import free_batch, import_detector, import_embedder, read_onnx
from export.passes import Passes

CONTRACT = ModelContract("embedder", (8, 8), "rgb", "nchw", "float32", template="arcface-112", embedding_size=4)


def fixed_batch(build, target: list[int], out: list[int] | None = None, extra=()):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[8, 8]),
        helper.make_node("Reshape", ["c", "target"], ["r" if extra else "y"]),
        *extra,
    ]
    weight = np.random.default_rng(0).normal(0, 1, (4, 3, 8, 8)).astype(np.float32)
    return build(nodes, {"w": weight, "target": np.array(target, np.int64)}, [1, 3, 8, 8], out or [1, 4])


@pytest.mark.parametrize("target", [[1, -1], [1, 4], [-1, 4]])
def test_a_batch_of_one_becomes_any(build, run, target: list[int]) -> None:
    model = fixed_batch(build, target)
    free = import_embedder(model, CONTRACT, Passes())
    x = np.random.default_rng(1).normal(0, 1, (5, 3, 8, 8)).astype(np.float32)
    alone = np.concatenate([run(model, x[i : i + 1])["y"] for i in range(5)])
    np.testing.assert_allclose(run(free, x)["y"], alone, rtol=1e-4, atol=1e-5)


def test_a_graph_that_mixes_pictures_is_refused(build) -> None:
    softmax_over_batch = (helper.make_node("Softmax", ["r"], ["y"], axis=0),)
    with pytest.raises(ContractError, match="mixes"):
        free_batch(fixed_batch(build, [1, 4], extra=softmax_over_batch), (3, 8, 8))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": (16, 16)}, "takes"),
        ({"layout": "nhwc"}, "nhwc"),
        ({"embedding_size": 128}, "embedding_size 128"),
    ],
)
def test_a_contract_that_does_not_fit_is_refused(build, change, says: str) -> None:
    from dataclasses import replace

    with pytest.raises(ContractError, match=says):
        import_embedder(fixed_batch(build, [1, 4]), replace(CONTRACT, **change), Passes())


def test_files_that_are_no_onnx_are_refused(tmp_path: Path, build) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_onnx(tmp_path / "nothing.onnx")
    for content in (b"", b"\x89PNG not a model at all", b"\x00" * 64):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(InputError, match="not an ONNX file"):
            read_onnx(tmp_path / "bad.onnx")
    good = tmp_path / "good.onnx"
    save(fixed_batch(build, [1, 4]), good)
    assert read_onnx(good).graph.input[0].name == "x"
    (tmp_path / "cut.onnx").write_bytes(good.read_bytes()[:-40])
    with pytest.raises(InputError):
        read_onnx(tmp_path / "cut.onnx")


def test_weights_in_other_files_are_refused(tmp_path: Path, build) -> None:
    file = tmp_path / "outside.onnx"
    save(fixed_batch(build, [1, 4]), file, save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(InputError, match="single file"):
        read_onnx(file)


@pytest.mark.realdata
def test_a_detector_of_fixed_size_is_refused(shared_data: Path) -> None:
    model = read_onnx(shared_data / "models" / "face_detection_yunet_2023mar.onnx")
    with pytest.raises(ContractError, match="dynamic"):
        import_detector(model, Passes())


@pytest.mark.realdata
def test_yunet_comes_through_without_a_computed_shape(shared_data: Path, run) -> None:
    original = read_onnx(shared_data / "models" / "yunet_s_dynamic.onnx")
    model = import_detector(original, Passes())
    assert not {node.op_type for node in model.graph.node} & {"Shape", "Gather", "Concat", "Constant"}
    x = np.random.default_rng(0).uniform(0, 255, (2, 3, 96, 160)).astype(np.float32)
    before, after = run(original, x), run(model, x)
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, rtol=1e-4, atol=1e-4)
