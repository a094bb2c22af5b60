"""The parity ladder: clean rungs hold, and one broken layer is named, whatever comes after it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from edge.align import align
from edge.detect import Detector, find_main_face
from edge.engines import get_engine, open_session
from edge.errors import BundleError, InputError
from edge.types import Image
from edge.weights import find_weights
from export.calibration.table import read_tables
from export.parity.bounds import MAX_LAYER_ERROR
from export.parity.cli import VERB
from export.parity.ladder import Rung, Verdict, climb
from export.parity.locate import layer_errors, shared_tensors, values_of
from export.parity.rungs import ladder_of
from export.passes import Passes
from export.passes.fp16 import to_fp16
from export.sources import Source, load_detector, load_embedder_checkpoint
from export.variants import int8_model
from export.writer import Artefact, write_bundle

LAYER = "conv_4.model.2.project.conv"


def people() -> list[Image]:
    import matplotlib.cbook
    from skimage.data import astronaut

    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        hopper = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    return [cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR), np.asarray(hopper, np.uint8)]


@pytest.fixture(scope="module")
def detector() -> Source:
    return load_detector(find_weights(None, "detector"), Passes())


@pytest.fixture(scope="module")
def embedder() -> Source:
    return load_embedder_checkpoint(find_weights(None, "embedder"), Passes())


@pytest.fixture(scope="module")
def crops(detector: Source) -> list[Image]:
    found = []
    with open_session(detector.float_model.SerializeToString()) as session:
        finder = Detector(session, detector.contract)
        for image in people():
            face = find_main_face(finder, image)
            assert face is not None
            found.append(align(image, face.landmarks))
    return [*found, *(np.ascontiguousarray(crop[:, ::-1]) for crop in found)]


@pytest.fixture(scope="module")
def forms(embedder: Source) -> dict[str, ModelProto]:
    """The embedder in each precision, with the ranges that ship beside the default weights."""
    beside = embedder.beside(".calibration.json")
    assert beside is not None
    table = next(table for table in read_tables(beside) if table.role == "embedder")
    return {
        "fp32": embedder.float_model,
        "fp16": to_fp16(embedder.float_model, table.tensors),
        "int8": int8_model(embedder.float_model, table.tensors, "int8-cpu", frozenset(table.keep)),
    }


def changed(model: ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> ModelProto:
    """The model with one initialiser changed."""
    copy = ModelProto()
    copy.CopyFrom(model)
    tensor = next(tensor for tensor in copy.graph.initializer if tensor.name == name)
    value = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(change(value).astype(value.dtype), name))
    return copy


def verdict_of(base: ModelProto, rung: Rung, embedder: Source, crops: list[Image]) -> Verdict:
    first = Rung("embedder-fp32", None, "fp32", "onnxruntime", base)
    return next(iter(climb([first, rung], embedder.contract, crops)))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_clean_rungs_hold_layer_by_layer(
    precision: str, forms: dict[str, ModelProto], embedder: Source, crops: list[Image]
) -> None:
    rung = Rung(precision, "embedder-fp32", precision, "onnxruntime", forms[precision])
    verdict = verdict_of(forms["fp32"], rung, embedder, crops)
    assert verdict.holds, verdict
    pixels = np.stack(crops)
    original = values_of(forms["fp32"], shared_tensors(forms["fp32"], forms[precision]), pixels)
    errors = layer_errors(forms[precision], original, pixels)
    assert len(errors) > 90
    # The global depthwise layer's products nearly cancel: half precision is off by more there, and there alone.
    others = [entry.error for entry in errors if entry.tensor != "conv_6_dw.conv"]
    assert max(others) < {"fp16": 5e-3, "int8": 0.25}[precision]
    assert max(entry.error for entry in errors) < {"fp16": 0.035, "int8": 0.25}[precision]


def zeroed(value: np.ndarray) -> np.ndarray:
    """Half of the output channels lost."""
    broken = value.copy()
    broken[::2] = 0
    return broken


@pytest.mark.parametrize(
    ("precision", "initialiser", "change"),
    [
        ("fp32", f"{LAYER}.weight", lambda value: value * 1.5),
        ("fp32", f"{LAYER}.bias", lambda value: -value),
        ("fp16", f"{LAYER}.weight.half", zeroed),
        ("int8", f"{LAYER}.weight.int8", zeroed),
        ("int8", f"{LAYER}.weight.int8.scale", lambda value: value[::-1]),
    ],
)
def test_the_one_broken_layer_is_named(
    precision: str,
    initialiser: str,
    change: Callable[[np.ndarray], np.ndarray],
    forms: dict[str, ModelProto],
    embedder: Source,
    crops: list[Image],
) -> None:
    broken = changed(forms[precision], initialiser, change)
    verdict = verdict_of(
        forms["fp32"], Rung("broken", "embedder-fp32", precision, "onnxruntime", broken), embedder, crops
    )
    assert not verdict.holds
    assert verdict.tensor == LAYER
    assert verdict.tensors[0].tensor == LAYER


@pytest.mark.slow
def test_an_engine_that_computes_otherwise_is_named(
    forms: dict[str, ModelProto], embedder: Source, crops: list[Image]
) -> None:
    if get_engine("openvino").available():
        pytest.skip("needs OpenVINO")
    clean = verdict_of(
        forms["fp32"], Rung("openvino", "embedder-fp32", "fp32", "openvino", forms["fp32"]), embedder, crops
    )
    assert clean.holds
    broken = changed(forms["fp32"], f"{LAYER}.weight", lambda value: value * 1.5)
    verdict = verdict_of(forms["fp32"], Rung("x", "embedder-fp32", "fp32", "openvino", broken), embedder, crops)
    assert verdict.tensor == LAYER


@pytest.fixture(scope="module")
def bundle(embedder: Source, detector: Source, forms: dict[str, ModelProto], tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("parity") / "b"
    artefacts = [
        Artefact(f"embedder-{precision}", precision, embedder.contract, model.SerializeToString())
        for precision, model in forms.items()
    ]
    artefacts.append(Artefact("detector-fp32", "fp32", detector.contract, detector.float_model.SerializeToString()))
    return write_bundle(path, artefacts, {"embedder": {"sha256": embedder.digest, "file": "x"}})


@pytest.mark.parametrize(
    ("kind", "off", "beyond"),
    [("Sigmoid", 1.1e-7, False), ("Sigmoid", 1e-5, True), ("Relu", 1.1e-7, True), ("Relu", 0.0, False)],
)
def test_a_sigmoid_near_zero_is_judged_by_steps_of_float32(kind: str, off: float, beyond: bool) -> None:
    graph = helper.make_graph(
        [helper.make_node(kind, ["x"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", 1, ["n", 1000])],
        [helper.make_tensor_value_info("y", 1, ["n", 1000])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    given = np.linspace(-10, -8, 1000, dtype=np.float32)[None] if kind == "Sigmoid" else np.full((1, 1000), 2e-4, "f4")
    with open_session(model.SerializeToString()) as session:
        right = session.run({"x": given})["y"]
    (error,) = layer_errors(model, {"y": right + np.float32(off)}, given)
    assert (error.error > MAX_LAYER_ERROR["fp32"]) == beyond


def test_the_ladder_starts_at_torch_and_names_the_layer_the_export_broke(
    bundle, embedder: Source, crops: list[Image]
) -> None:
    ladder = ladder_of(bundle, "embedder", embedder.path)
    names = [rung.name for rung in ladder.rungs]
    assert names[:5] == ["torch", "onnx", "embedder-fp32", "embedder-fp16", "embedder-int8"]
    assert [rung.on for rung in ladder.rungs[:5]] == [None, "torch", "onnx", "embedder-fp32", "embedder-fp32"]
    assert not any("not the file" in note for note in ladder.notes)
    verdicts = list(climb(ladder.rungs[:3], ladder.contract, crops))
    assert all(verdict.holds for verdict in verdicts), verdicts
    torch_rung, onnx_rung = ladder.rungs[:2]
    assert onnx_rung.model is not None
    broken = Rung("onnx", "torch", "fp32", "onnxruntime", changed(onnx_rung.model, f"{LAYER}.weight", lambda v: v * 2))
    verdict = next(iter(climb([torch_rung, broken], ladder.contract, crops)))
    assert verdict.tensor == LAYER


def test_a_bundle_without_fp32_has_nothing_to_compare_with(
    embedder: Source, forms: dict[str, ModelProto], tmp_path: Path
) -> None:
    half = Artefact("embedder-fp16", "fp16", embedder.contract, forms["fp16"].SerializeToString())
    with pytest.raises(BundleError, match="no FP32 embedder"):
        ladder_of(write_bundle(tmp_path / "b", [half], {}), "embedder")


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    VERB.configure(parser)
    return VERB.run(parser.parse_args([str(word) for word in words]))


@pytest.mark.slow
def test_the_command_prints_every_rung_and_ends_with_3_where_one_breaks(
    bundle,
    embedder: Source,
    detector: Source,
    forms: dict[str, ModelProto],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Another test has the other engines.
    monkeypatch.setattr("export.parity.rungs.ENGINES", {"onnxruntime": ""})
    monkeypatch.setattr("export.parity.cli.MOSAICS", 2)
    for i, image in enumerate(people()):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    assert run("--bundle", bundle.path, "--images", tmp_path, "--json") == 0
    rungs = json.loads(capsys.readouterr().out)["rungs"]
    assert {"embedder-fp16", "embedder-int8"} <= {rung["rung"] for rung in rungs}
    half = changed(forms["fp16"], f"{LAYER}.weight.half", zeroed)
    models = {"embedder-fp32": (embedder, forms["fp32"]), "embedder-fp16": (embedder, half)}
    models["detector-fp32"] = (detector, detector.float_model)
    artefacts = [
        Artefact(name, name[-4:], source.contract, model.SerializeToString())
        for name, (source, model) in models.items()
    ]
    write_bundle(tmp_path / "bad", artefacts, {})
    assert run("--bundle", tmp_path / "bad", "--images", tmp_path) == 3
    assert f"the first rung that diverges is embedder-fp16, first at {LAYER}" in capsys.readouterr().out


def test_a_missing_checkpoint_is_said_before_anything_is_run(bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none: neither a file nor the name of weights"):
        run("--bundle", bundle.path, "--images", tmp_path, "--checkpoint", tmp_path / "none")
