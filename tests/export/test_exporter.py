"""The whole line: checkpoint and detector in, bundle out, through the command line's own entry."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edge.bundle import Bundle
from edge.embed import Embedder
from edge.engines import open_session
from edge.errors import EdgeError, GateError, InputError
from edge.manifest import Threshold
from edge.signatures import calibration_pictures
from export.calibration import write_tables
from export.calibration.photos import synthetic_crops
from export.cli import VERB
from export.graph import Graph
from export.passes import Passes
from export.photos import Finder
from export.sources import load_detector, load_embedder_checkpoint
from export.variants import calibrate_detector
from training.checkpoint import save_embedder
from training.detector import network as detector_network


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, relu_network, relu_table) -> Path:
    """A folder with an embedder, a detector, and the calibration tables beside them."""
    folder = tmp_path_factory.mktemp("weights")
    save_embedder(folder / "face.safetensors", relu_network)
    torch.manual_seed(0)
    detector_network.save(detector_network.EdgeDetector(), folder / "finder.safetensors", steps=0, seed=0)
    detector = load_detector(folder / "finder.safetensors", Passes())
    pictures = [np.ascontiguousarray(crop[:96, :96]) for crop in synthetic_crops(12)]
    thresholds = {f"embedder-{p}": Threshold(0.3, 1e-3, 5000, "test") for p in ("fp32", "fp16", "int8")}
    write_tables(folder / "face.calibration.json", [relu_table], thresholds)
    write_tables(folder / "finder.calibration.json", [calibrate_detector(detector, pictures, "cd" * 32, quiet=True)])
    return folder


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    VERB.configure(parser)
    return VERB.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module")
def bundle(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("out") / "a.bundle"
    models = ("--weights", weights / "face.safetensors", "--detector", weights / "finder.safetensors")
    assert run(*models, "--out", out, "--target", "onnx,tensorrt") == 0
    return Bundle.open(out)


def test_every_variant_is_there_and_opens(bundle: Bundle) -> None:
    names = [variant.name for variant in bundle.manifest.variants]
    precisions = ("fp32", "fp16", "int8", "int8-tensorrt")
    both = [f"{role}-{p}" for role in ("embedder", "detector") for p in precisions]
    assert names == [*both, "landmarker-fp32", "landmarker-fp16"], "eight bits move landmarks, and save little"
    assert bundle.select("embedder", "int8").engine == "onnx", "a plain INT8 is what ONNX Runtime reads best"
    for variant in bundle.manifest.variants:
        with open_session(bundle.load(variant)) as session:
            assert session.inputs[0].name == "pixels"
            assert session.inputs[0].dtype == "uint8"


_BUILD = """
import hashlib, sys
from pathlib import Path
import onnx
from edge.contract import ModelContract
from export.calibration.table import read_tables
from export.passes import Passes
from export.sources import Source
from export.variants import PRECISIONS, build_variants

for role, table in (("embedder", "face"), ("detector", "finder")):
    model = onnx.load(f"{sys.argv[1]}/{role}.onnx")
    contract = ModelContract(role="detector", size=None)
    if role == "embedder":
        contract = ModelContract(role=role, size=(112, 112), template="arcface-112", embedding_size=64)
    source = Source(Path(role), "", role, model, contract)
    (ranges,) = read_tables(Path(sys.argv[2]) / f"{table}.calibration.json")
    for built in build_variants(source, PRECISIONS, ranges, Passes(), ("onnx", "tensorrt")):
        print(built.name, hashlib.sha256(built.data).hexdigest())
"""


def test_what_is_exported_again_is_the_same_bit_for_bit(bundle: Bundle, weights: Path, tmp_path: Path) -> None:
    """Whatever order Python's sets have, which is another one in each process."""
    onnx.save(load_embedder_checkpoint(weights / "face.safetensors", Passes()).float_model, tmp_path / "embedder.onnx")
    onnx.save(load_detector(weights / "finder.safetensors", Passes()).float_model, tmp_path / "detector.onnx")
    for seed in ("1", "2"):
        built = subprocess.run(
            [sys.executable, "-c", _BUILD, str(tmp_path), str(weights)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found = dict(line.split() for line in built.stdout.splitlines())
        built_there = [*bundle.variants("embedder"), *bundle.variants("detector")]
        assert found == {variant.name: variant.sha256 for variant in built_there}, seed


@pytest.mark.parametrize(("finder", "told"), [(None, False), ("same", False), ("another", True)])
def test_thresholds_of_faces_found_otherwise_are_called_so(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], finder: str | None, told: bool
) -> None:
    """A table says what found the faces its thresholds were fitted on; one of before landmarkers does not."""
    for name in ("face.safetensors", "finder.safetensors", "finder.calibration.json"):
        (tmp_path / name).symlink_to(weights / name)
    values = json.loads((weights / "face.calibration.json").read_text())
    if finder is not None:
        values["finder"] = Finder.of(str(weights / "finder.safetensors"), None).digests()
        values["finder"]["landmarker"] = values["finder"]["landmarker"] if finder == "same" else "ab" * 32
    (tmp_path / "face.calibration.json").write_text(json.dumps(values))
    models = ("--weights", tmp_path / "face.safetensors", "--detector", tmp_path / "finder.safetensors")
    assert run(*models, "--out", tmp_path / "b", "--precision", "fp32") == 0
    said = capsys.readouterr().out.count("another detector or landmarker found")
    assert said == (1 if told else 0)
    kept = Bundle.open(tmp_path / "b").select("embedder").threshold
    assert kept is not None
    assert kept.similarity == 0.3


def test_variants_give_what_the_network_gives(bundle: Bundle, relu_network) -> None:
    crops = synthetic_crops(5)
    pixels = torch.from_numpy(np.ascontiguousarray(crops[..., ::-1].transpose(0, 3, 1, 2)).astype(np.float32))
    with torch.inference_mode():
        wanted = relu_network((pixels - 127.5) / 127.5).numpy()
    for precision, least in (("fp32", 0.999999), ("fp16", 0.9999), ("int8", 0.99)):
        variant = bundle.select("embedder", precision)
        with open_session(bundle.load(variant)) as session:
            rows = Embedder(session, variant.contract).embed(crops)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-4)
        assert (rows * wanted).sum(axis=1).min() > least, precision


def test_the_manifest_says_where_everything_comes_from(bundle: Bundle) -> None:
    provenance = bundle.manifest.provenance
    assert provenance["embedder"]["file"] == "face.safetensors"
    assert len(provenance["embedder"]["sha256"]) == 64
    assert provenance["calibration"]["embedder"]["data"] == "ab" * 32
    assert provenance["calibration"]["embedder"]["files"] == "not recorded", "the table beside the weights has none"
    assert {"torch", "onnx", "onnxruntime"} <= set(provenance["tools"])
    int8 = bundle.select("embedder", "int8")
    assert int8.threshold == Threshold(0.3, 1e-3, 5000, "test"), "stored beside the weights"
    assert int8.measured["agreement"]["on"].startswith("synthetic"), "no photo was at hand, and it says so"
    assert set(int8.measured["calibration"]["judged"]) >= {"min-max", "entropy", "mse"}
    assert "/" not in json.dumps({**provenance, "passes": {}, "time": ""}).replace("https://", "")


def test_json_prints_the_manifest_alone(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = ("--weights", weights / "face.safetensors", "--detector", weights / "finder.safetensors")
    assert run(*models, "--out", tmp_path / "b", "--precision", "fp32", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    names = [variant["name"] for variant in printed["variants"]]
    assert names == ["embedder-fp32", "detector-fp32", "landmarker-fp32"]


def test_a_layer_named_stays_in_float(weights: Path, tmp_path: Path) -> None:
    models = ("--weights", weights / "face.safetensors", "--detector", weights / "finder.safetensors")
    assert run(*models, "--out", tmp_path / "b", "--precision", "int8", "--keep", "conv1.conv") == 0
    kept = Bundle.open(tmp_path / "b")
    variant = kept.select("embedder", "int8")
    # Its output was equalised, which gave it another name; the user's is understood.
    assert variant.measured["kept_in_float"] == ["conv1.conv.equalised"]
    assert not [n for n in kept.select("detector", "int8").measured["kept_in_float"] if n.startswith("conv1")]
    arrays = Graph(onnx.load_from_string(kept.load(variant))).arrays
    first = next(node for node in Graph(onnx.load_from_string(kept.load(variant))).nodes if node.op_type == "Conv")
    assert first.input[1] in arrays, "the weight is read as it is, behind no DequantizeLinear"
    assert arrays[first.input[1]].dtype == np.float32


def test_fine_tuned_weights_do_not_pass_with_the_old_table(weights: Path, tmp_path: Path, relu_network) -> None:
    """Stale calibration: the table beside other weights is refused, not used."""
    import copy

    tuned = copy.deepcopy(relu_network)
    with torch.no_grad():
        tuned.conv1.conv.weight.add_(1e-3)
    save_embedder(tmp_path / "face.safetensors", tuned)
    shutil.copy(weights / "face.calibration.json", tmp_path / "face.calibration.json")
    models = ("--weights", tmp_path / "face.safetensors", "--detector", weights / "finder.safetensors")
    with pytest.raises(InputError, match="other embedder weights"):
        run(*models, "--out", tmp_path / "b")
    assert run(*models, "--out", tmp_path / "b", "--precision", "fp32,fp16") == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--precision", "fp64"], "fp64"),
        (["--precision", ""], "nothing"),
        (["--onnx", "a.onnx"], "--contract"),
        (["--far", "2"], "between 0 and 1"),
        (["--evaluate", "pairs.txt"], "--images"),
        (["--max-drop", "1"], "--evaluate"),
        (["--weights", "no-such-name"], "no-such-name"),
        (["--calibration", "no-such-folder"], "no-such-folder"),
        (["--report", "report"], "--calibration, or --pairs-from"),
        (["--keep", "conv1.conv", "--precision", "fp32"], "--precision leaves it out"),
        (["--keep", "conv1.con"], "there are conv1.conv"),
    ],
)
def test_mistakes_are_one_line(weights: Path, tmp_path: Path, words: list[str], says: str) -> None:
    models = ["--weights", weights / "face.safetensors", "--detector", weights / "finder.safetensors"]
    if "--onnx" in words or "--weights" in words:
        models = models[2:]
    with pytest.raises(EdgeError, match=says) as caught:
        run(*models, "--out", tmp_path / "b", *words)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()


CONTRACT = """
role = "embedder"
size = [112, 112]
color = "rgb"
layout = "nchw"
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
embedding_size = 128
template = "arcface-112"
"""


@pytest.fixture(scope="module")
def photos(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight real photos of each of five people, one file that is none, and one picture without a face."""
    import cv2

    folder = tmp_path_factory.mktemp("photos")
    for person in sorted((shared_data / "data" / "avengers" / "cropped_images").iterdir()):
        (folder / person.name).mkdir()
        for photo in sorted(person.glob("*.png"))[:8]:
            shutil.copy(photo, folder / person.name)
    first = sorted(folder.iterdir())[0]
    (first / "broken.jpg").write_bytes(b"not a picture")
    cv2.imwrite(str(first / "wall.png"), np.full((90, 90, 3), 128, np.uint8))
    return folder


@pytest.fixture(scope="module")
def foreign(shared_data: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "model.toml").write_text(CONTRACT)
    models = shared_data / "models"
    return folder, [
        "--onnx", str(models / "mobilefacenet_foamliu_128.onnx"), "--contract", str(folder / "model.toml"),
        "--detector", str(models / "yunet_s_dynamic.onnx"), "--calibration", str(photos), "--far", "0.01",
    ]  # fmt: skip


@pytest.mark.realdata
@pytest.mark.slow
def test_a_third_party_model_on_real_faces(
    foreign: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.photos.MOSAICS", 11)
    folder, words = foreign
    assert run(*words, "--out", folder / "b", "--save-calibration", folder / "t.json", "--explain") == 0
    printed = capsys.readouterr().out
    assert "no face found: " in printed
    assert "wall.png" in printed
    assert "broken.jpg" in printed
    assert "unit length" in printed, "--explain names the passes"
    bundle = Bundle.open(folder / "b")
    seen = calibration_pictures(bundle.manifest.provenance)
    assert len(seen["detector"]) == len(seen["embedder"]) + 1, "the wall has no face, but is shown to the detector"
    figures = {v.name: v.measured["agreement"] for v in bundle.manifest.variants}
    assert figures["embedder-fp32"]["min_cosine"] > 0.99999
    assert figures["embedder-fp16"]["min_cosine"] > 0.9995
    assert figures["embedder-int8"]["mean_cosine"] > 0.98
    # Boxes are means over cells, and the equalised graph's floats are others: 0.00006 of a pixel, here six digits.
    assert figures["detector-fp32"]["figure"] >= 0.999998
    assert figures["detector-int8"]["matched"] >= 0.9 * figures["detector-int8"]["faces"]
    for variant in bundle.variants("embedder"):
        assert variant.threshold is not None
        assert 0.1 < variant.threshold.similarity < 0.8
        assert variant.threshold.pairs > 500
    # The table stands in for the photos.
    words = [*words[:6], "--calibration", str(folder / "t.json"), "--precision", "int8"]
    assert run(*words, "--out", folder / "c") == 0
    assert calibration_pictures(Bundle.open(folder / "c").manifest.provenance) == seen
    assert Bundle.open(folder / "c").load(bundle.select("embedder", "int8")) == bundle.load(
        bundle.select("embedder", "int8")
    )


@pytest.mark.realdata
@pytest.mark.slow
def test_a_variant_outside_its_budget_is_not_written(
    foreign: tuple[Path, list[str]], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two people are enough: eight bits are as far from the network on these as on more."""
    monkeypatch.setattr("export.photos.MOSAICS", 11)
    for person in sorted(photos.iterdir())[-2:]:
        shutil.copytree(person, tmp_path / "few" / person.name)
    words = [str(tmp_path / "few") if word == str(photos) else word for word in foreign[1]]
    out = tmp_path / "d"
    with pytest.raises(GateError, match=r"embedder-int8.*the budget is 0\.9999"):
        run(*words, "--out", out, "--min-cosine", "0.9999", "--precision", "int8", "--no-repair")
    assert not out.exists()
