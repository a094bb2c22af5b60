"""A calibration method is chosen by accuracy only where the people are enough, and the difference beyond doubt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("torch")

from vectors import unit

from export import choosing
from export.choosing import AccuracyChoice, as_line
from export.labelled import MIN_PEOPLE, LabelledFaces


def people(count: int, each: int, spread: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    rows = random.normal(0, 1, (count, 1, 32)) + spread * random.normal(0, 1, (count, each, 32))
    return unit(rows.reshape(-1, 32)), np.repeat(np.arange(count), each)


def shaken(rows: np.ndarray, amount: float) -> np.ndarray:
    return unit(rows + amount * np.random.default_rng(9).normal(0, 1, rows.shape))


class Model:
    def SerializeToString(self) -> bytes:  # noqa: N802
        return b"float"


class Made:
    float_model = Model()
    contract = None
    path = Path("weights")


def choose(
    monkeypatch: pytest.MonkeyPatch, rows: np.ndarray, labels: np.ndarray, ruined: float, far: float = 1e-3
) -> dict[str, Any]:
    """`close` is said to have the best cosine, and is ruined by so much; `other` is FP32 but for a trace."""
    answers = {b"float": rows, b"close": shaken(rows, ruined), b"other": shaken(rows, 1e-4)}
    monkeypatch.setattr(choosing, "embed_with", lambda data, contract, crops: answers[data])
    faces = LabelledFaces(np.zeros((len(labels), 1, 1, 3), np.uint8), labels, "made-up people")
    judge = AccuracyChoice(Made(), faces, far)  # type: ignore[arg-type]
    return judge({"close": b"close", "other": b"other"}, "close", {"close": 0.99, "other": 0.98})


def test_a_method_of_clearly_higher_tar_is_taken_over_the_best_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = people(60, 8)
    found = choose(monkeypatch, rows, labels, 0.2)
    assert found["taken"] == "other"
    assert "points above that of close" in found["why"]
    assert found["methods"]["close"]["cosine"] == 0.99
    assert found["methods"]["close"]["drop_points"]["value"] > 1
    assert "close" in as_line("embedder", found)


def test_a_difference_within_doubt_leaves_the_choice_to_the_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = people(60, 8)
    found = choose(monkeypatch, rows, labels, 1e-4)
    assert found["taken"] == "close"
    assert "beyond doubt" in found["why"]


@pytest.mark.parametrize(("count", "each", "says"), [(5, 30, "5 people"), (30, 3, "cannot show FAR 0.0001")])
def test_few_people_decide_nothing_however_large_the_difference(
    monkeypatch: pytest.MonkeyPatch, count: int, each: int, says: str
) -> None:
    rows, labels = people(count, each)
    found = choose(monkeypatch, rows, labels, 0.5, far=1e-3 if count < MIN_PEOPLE else 1e-4)
    assert found["taken"] == "close"
    assert found["why"].startswith("too few pairs to decide")
    assert says in found["why"]
    assert found["methods"]["close"]["drop_points"]["value"] > 0, "it is measured all the same"


def test_whole_people_are_taken_where_there_are_too_many() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 5))
    crops = np.arange(200, dtype=np.uint8)[:, None, None, None]
    faces = LabelledFaces(crops, labels, "200 crops of photos")
    assert faces.at_most(200) is faces
    fewer = faces.at_most(52)
    assert fewer.on == "55 of 200 crops of photos"
    assert (np.unique(fewer.labels, return_counts=True)[1] == 5).all(), "nobody is cut in half"
    assert labels[0] in fewer.labels
    np.testing.assert_array_equal(labels[fewer.crops.reshape(-1)], fewer.labels)


@pytest.mark.parametrize(("people", "readable"), [(64, 1e-3), (46, 1e-3), (45, 1e-2), (15, 1e-2), (10, 0.1), (4, 0.5)])
def test_the_far_that_pairs_can_show(people: int, readable: float) -> None:
    """One photo each: 64 people make 2,016 impostor pairs, 45 make 990, 4 make 6."""
    faces = LabelledFaces(np.zeros((people, 1, 1, 3), np.uint8), np.arange(people), "")
    assert faces.readable_far(1e-3) == pytest.approx(readable)
