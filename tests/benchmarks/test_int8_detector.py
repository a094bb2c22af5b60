"""What INT8 costs a detector is counted on the same pictures, with what repeats in a draw counted as often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("torch")

from benchmarks.int8 import detector
from benchmarks.int8.detector import Curve, Found, Pictures, landmark_growth, points_lost
from edge.metrics.detection import Outcome, average_precision

pytestmark = pytest.mark.usefixtures("exports_are_remembered")


def _outcomes(seed: int, pictures: int = 40) -> list[Outcome]:
    random = np.random.default_rng(seed)
    found = []
    for _ in range(pictures):
        hits = random.random(int(random.integers(0, 6))) < 0.6
        scores = random.random(len(hits)).astype(np.float32)
        found.append(Outcome(scores, hits, int(hits.sum() + random.integers(0, 3))))
    return found


def _found(outcomes: list[Outcome], landmarks: np.ndarray | None = None) -> Found:
    return Found(outcomes, [[] for _ in outcomes], np.zeros(2) if landmarks is None else landmarks)


@pytest.mark.parametrize("seed", range(5))
def test_the_precision_of_a_draw_is_that_of_its_pictures(seed: int) -> None:
    outcomes = _outcomes(seed)
    draw = np.random.default_rng(seed).integers(0, len(outcomes), len(outcomes))
    wanted = average_precision([outcomes[i] for i in draw]).average
    assert Curve.of(outcomes).average(np.bincount(draw, minlength=len(outcomes))) == pytest.approx(wanted, abs=1e-12)


def test_a_face_lost_in_a_tenth_of_the_pictures_is_ten_points() -> None:
    one = np.array([0.9], np.float32)
    whole = [Outcome(one, np.array([True]), 1) for _ in range(200)]
    nothing = Outcome(np.zeros(0, np.float32), np.zeros(0, bool), 1)
    lost = points_lost(_found(whole), _found([nothing if i % 10 == 0 else each for i, each in enumerate(whole)]))
    assert lost.value == pytest.approx(10)
    assert 5 < lost.low < 10 < lost.high < 16  # binomial: 10 ± 2 · 2.1
    same = points_lost(_found(whole), _found(whole))
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_landmarks_grow_by_the_median_of_the_faces_that_both_found() -> None:
    before = np.random.default_rng(0).uniform(0.02, 0.2, 101)
    after = 1.1 * before
    after[:5] = np.nan
    before[5:7] = np.nan
    grown = landmark_growth(_found([], before), _found([], after))
    assert grown.value == pytest.approx(10)
    assert (grown.low, grown.high) == pytest.approx((10, 10))


@pytest.mark.parametrize("wrong", ["--calibration", "--scenes", "--portraits", "--landmarks"])
def test_what_is_missing_is_one_line(wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["weights.safetensors"]
    for name in ("--calibration", "--scenes", "--portraits", "--landmarks"):
        arguments += [name, str(tmp_path / "nothing" if name == wrong else tmp_path)]
    assert detector.main(arguments) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1


def test_one_picture_in_none_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    places = [part for name in ("--calibration", "--scenes", "--portraits", "--landmarks") for part in (name, "x")]
    assert detector.main(["weights.safetensors", *places, "--hold-out", "0"]) == 2
    assert capsys.readouterr().err == "detector: --hold-out takes 1 picture in 1 or more\n"


@pytest.mark.realdata
def test_int8_of_the_shipped_detector_agrees_with_its_fp32(shared_data: Path, repository: Path) -> None:
    from benchmarks.scrfd import Scrfd

    everything = detector.read_pictures(
        shared_data / "data" / "wider" / "train",
        shared_data / "data" / "scenes" / "celeba.zip",
        Scrfd(shared_data / "models" / "scrfd_2.5g.onnx"),
        50,
    )
    few = Pictures(everything.scenes[:12], everything.portraits)
    weights = repository / "model_weights" / "edge-detector.safetensors"
    table = repository / "model_weights" / "mobilefacenet-512.calibration.json"
    (row,) = detector.measure([weights], shared_data / "data" / "avengers" / "cropped_images", table, few).values()
    assert row["int8_against_own_fp32"]["agreement"]["figure"] > 0.9
    assert row["fp32"]["average_precision"] > 70
    assert 0 < row["int8"]["landmark_error_percent"] < 15
