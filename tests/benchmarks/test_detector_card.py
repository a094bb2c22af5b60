"""The detector's card: targets are met or missed by the figures alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.detector_card import _everything_found, _landmarks, _precision, _time, _verification, main
from edge.metrics.intervals import Rate
from edge.metrics.verification import KFoldAccuracy


def _interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def _report(average: float, marks: float, crops: int = 273) -> dict[str, Any]:
    return {
        "wider_eval": {"average": _interval(average), "faces": 462},
        "avengers_crops": {**Rate.of(crops, 273).to_dict()},
        "avengers_scenes": {**Rate.of(7, 7).to_dict()},
        "lfw_landmarks": {"median": _interval(marks), "p90": _interval(2 * marks), "faces": 100},
    }


@pytest.mark.parametrize(("own", "met"), [(0.8516, True), (0.8514, False), (0.90, True)])
def test_precision_may_be_two_points_below_the_reference(own: float, met: bool) -> None:
    first, second = _precision(_report(own, 0.1), _report(0.8715, 0.1))
    assert (first.value, first.count, first.met) == (round(100 * own, 2), 462, met)
    assert "87.15 %" in first.target
    assert second.met is None


@pytest.mark.parametrize(("marks", "met"), [(0.05, True), (0.0501, False)])
def test_landmarks_may_be_off_by_five_hundredths(marks: float, met: bool) -> None:
    median, p90, other = _landmarks(_report(0.8, marks), _report(0.8, 0.09))
    assert (median.value, median.met) == (round(100 * marks, 2), met)
    assert p90.value == round(200 * marks, 2)
    assert other.value == 9.0


def test_one_crop_without_a_face_misses_the_target() -> None:
    assert [figure.met for figure in _everything_found(_report(0.8, 0.1))] == [True, True]
    crops, _ = _everything_found(_report(0.8, 0.1, crops=272))
    assert (crops.met, crops.value) == (False, 99.63)


@pytest.mark.parametrize(("low", "met"), [(0.99, True), (1.01, False)])
def test_slower_is_what_the_interval_says(low: float, met: bool) -> None:
    ratio = {"value": low + 0.02, "low": low, "high": low + 0.04}
    times = {"cpu_milliseconds": {"p50": _interval(9.0)}, "cpu_ratio_to_first": ratio, "rounds": 50}
    milliseconds, share = _time(times)
    assert (milliseconds.value, milliseconds.unit, milliseconds.met) == (9.0, "ms", None)
    assert (share.value, share.met) == (round(100 * (low + 0.02), 2), met)


@pytest.mark.parametrize(("hits", "met"), [(2962, True), (2961, False)])
def test_faces_through_the_detector_may_cost_a_fifth_of_a_point(hits: int, met: bool) -> None:
    def accuracy(right: int) -> KFoldAccuracy:
        return KFoldAccuracy(Rate.of(right, 3000), (), (), np.arange(3000) < right)

    own, other = _verification(accuracy(hits), accuracy(2968))
    assert own.met is met
    assert (other.value, other.count) == (98.93, 3000)


def test_weights_without_their_training_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--reference", "r.onnx", "--landmarks", "s.onnx", "--embedder", "e.pt", "--data", "data"]
    monkeypatch.setattr("sys.argv", ["detector_card", str(tmp_path / "w.safetensors"), *words])
    assert main() == 2
    assert "w.training.json: cannot be read" in capsys.readouterr().err
