"""The score of each precision of a detector: fitted on constructed scores, and through a whole export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edge.bundle import Bundle
from edge.cli.main import main
from edge.errors import InputError
from edge.manifest import DetectionScore
from edge.signatures import calibration_pictures, sign_picture
from export.calibration import read_tables, write_tables
from export.calibration.photos import synthetic_crops
from export.detection_scores import LEAST_PICTURES, fit_detection_score
from export.passes import Passes
from export.sources import load_detector
from export.variants import calibrate_detector
from training.checkpoint import save_embedder
from training.detector import network as detector_network


def drawn(pictures: int, seed: int = 0) -> list[np.ndarray]:
    """Scores of one to nine detections in each picture, even between 0.2 and 1."""
    random = np.random.default_rng(seed)
    return [random.uniform(0.2, 1.0, random.integers(1, 10)) for _ in range(pictures)]


def test_a_known_shift_comes_back() -> None:
    """Rounding that takes 0.03 off every score is made up for by a score lower by that; one that adds is, too."""
    reference = [one[one > 0.25] for one in drawn(400)]
    for shift in (-0.03, 0.02):
        found = fit_detection_score([one + shift for one in reference], reference, "made up")
        assert found.score == pytest.approx(0.5 + shift, abs=0.002)
        assert found.low <= found.score <= found.high
        assert found.reference == 0.5
        assert found.faces == sum(int((one >= 0.5).sum()) for one in reference)
        assert found.found == sum(int((one + shift >= 0.5).sum()) for one in reference)
        assert sum(int((one + shift >= found.score).sum()) for one in reference) == pytest.approx(found.faces, abs=1)


def test_noise_alone_hardly_ever_moves_a_score() -> None:
    """Where the interval holds FP32's score, that is taken, and the figures say how far it is known."""
    reference = drawn(80)
    assert fit_detection_score(reference, reference, "") == DetectionScore(
        0.5, 0.5, 0.5, 0.5, *2 * [sum(int((one >= 0.5).sum()) for one in reference)], 80, ""
    )
    moved = 0
    for seed in range(20):
        reference, random = drawn(80, seed), np.random.default_rng(100 + seed)
        noisy = [np.clip(one + random.normal(0, 0.02, len(one)), 0.2, 1.0) for one in reference]
        found = fit_detection_score(noisy, reference, "")
        assert (found.score == 0.5) == (found.low <= 0.5 <= found.high)
        assert found.high - found.low > 0.003
        moved += found.score != 0.5
    assert moved <= 3, "an interval of 95 % misses in one of twenty"


def test_a_variant_that_finds_too_little_at_any_score_is_no_match() -> None:
    reference = [np.array([0.9, 0.8]) for _ in range(60)]
    with pytest.raises(InputError, match=r"finds 60 faces even from a score of 0\.2, FP32 120"):
        fit_detection_score([one[:1] for one in reference], reference, "")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, relu_network, relu_table) -> tuple[str, ...]:
    """An embedder and an untrained detector that takes a half of all cells for faces; tables beside them."""
    folder = tmp_path_factory.mktemp("weights")
    save_embedder(folder / "face.safetensors", relu_network)
    torch.manual_seed(0)
    network = detector_network.EdgeDetector()
    with torch.no_grad():
        for head in network.heads:
            head.depthwise.bias.zero_()
            head.depthwise.weight[:2] *= 40
    detector_network.save(network, folder / "finder.safetensors", steps=0, seed=0)
    detector = load_detector(folder / "finder.safetensors", Passes())
    pictures = [np.ascontiguousarray(crop[:96, :96]) for crop in synthetic_crops(12)]
    write_tables(folder / "face.calibration.json", [relu_table])
    write_tables(folder / "finder.calibration.json", [calibrate_detector(detector, pictures, "cd" * 32, quiet=True)])
    return ("export", "--weights", str(folder / "face.safetensors"), "--detector", str(folder / "finder.safetensors"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    random = np.random.default_rng(0)
    for number in range(LEAST_PICTURES + 10):
        coarse = random.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC))
    return folder


def scores_of(bundle: Path) -> dict[str, DetectionScore | None]:
    return {variant.name: variant.detection_score for variant in Bundle.open(bundle).variants("detector")}


def test_an_export_on_scenes_states_scores_and_its_table_gives_them_again(
    models: tuple[str, ...], scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted, again = tmp_path / "fitted", tmp_path / "again"
    table = tmp_path / "kept.json"
    (scenes / "broken.jpg").write_bytes(b"no picture")
    words = ("--scenes", str(scenes), "--save-calibration", str(table), "--out", str(fitted))
    assert main([*models, "--target", "onnx,tensorrt", *words]) == 0
    printed = capsys.readouterr().out
    assert "left out, not a picture: broken.jpg" in printed
    scores = scores_of(fitted)
    assert set(scores) == {f"detector-{p}" for p in ("fp32", "fp16", "int8", "int8-tensorrt")}
    exact, rounded = scores["detector-fp32"], scores["detector-int8"]
    assert exact is not None
    assert rounded is not None
    assert exact.score == 0.5
    assert exact.found == exact.faces > 200
    assert rounded.score != 0.5, "this detector's INT8 was seen to find another number"
    assert rounded.found != rounded.faces == exact.faces
    assert rounded.pictures == LEAST_PICTURES + 10
    assert not any(variant.detection_score for variant in Bundle.open(fitted).variants("embedder"))
    pictures = [path for path in scenes.iterdir() if path.suffix == ".png"]
    seen = calibration_pictures(Bundle.open(fitted).manifest.provenance)["detection_score"]
    assert set(seen) == {sign_picture(path) for path in pictures}, "so that nobody measures on them"

    assert main([*models, "--calibration", str(table), "--out", str(again)]) == 0
    plain = {name: score for name, score in scores.items() if name != "detector-int8-tensorrt"}
    assert scores_of(again) == plain
    assert calibration_pictures(Bundle.open(again).manifest.provenance)["detection_score"] == seen
    assert main(["bundle", "inspect", str(again)]) == 0
    said = capsys.readouterr().out
    assert f"faces from a score of {rounded.score:g}, fitted on {rounded.faces:,}" in said

    # Another INT8 than the one it was fitted for has none.
    layer = next(iter(read_tables(table)[1].keeping([]).tensors))
    assert read_tables(table)[1].keeping([layer]).detection_scores == {}
    assert read_tables(table)[1].keeping([]) == read_tables(table)[1]


def test_without_scenes_or_with_too_few_there_is_no_score_and_it_is_said(
    models: tuple[str, ...], scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*models, "--precision", "fp32,int8", "--out", str(tmp_path / "none")]) == 0
    assert "no detection score was fitted, every precision takes FP32's, 0.5" in capsys.readouterr().out
    assert set(scores_of(tmp_path / "none").values()) == {None}
    assert "detection_score" not in (tmp_path / "none" / "bundle.json").read_text(), "older runtimes open it"
    few = tmp_path / "scenes"
    few.mkdir()
    for path in sorted(scenes.glob("*.png"))[:3]:
        (few / path.name).write_bytes(path.read_bytes())
    assert main([*models, "--precision", "fp32,int8", "--scenes", str(few), "--out", str(tmp_path / "few")]) == 0
    assert f"in 3 pictures of scenes, 200 in {LEAST_PICTURES} are the least" in capsys.readouterr().out
    assert set(scores_of(tmp_path / "few").values()) == {None}
    assert main([*models, "--scenes", str(tmp_path / "nowhere"), "--out", str(tmp_path / "b")]) == 2
    assert "nowhere: no such folder of photographs" in capsys.readouterr().err


def test_a_damaged_score_of_a_table_is_refused(models: tuple[str, ...], tmp_path: Path) -> None:
    beside = Path(models[-1]).with_name("finder.calibration.json")
    (table,) = read_tables(beside)
    file = tmp_path / "t.json"
    score = DetectionScore(0.48, 0.5, 0.47, 0.49, 900, 880, 300, "test")
    write_tables(file, [replace(table, detection_scores={"detector-int8": score})])
    assert read_tables(file)[0].detection_scores == {"detector-int8": score}
    values = json.loads(file.read_text())
    values["tables"][0]["detection_scores"]["detector-int8"]["score"] = 1.5
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match="damaged"):
        read_tables(file)
