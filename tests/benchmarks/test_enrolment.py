from __future__ import annotations

import numpy as np
import pytest
from vectors import unit

from benchmarks.enrolment import SPLITS, compare, open_set_trials, rank_one_hits
from edge.types import Floats


def people(count: int, pictures: int, noise: float, seed: int = 0) -> tuple[Floats, np.ndarray]:
    """`pictures` of each of `count` people: a centre each, and noise about it."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), pictures)
    centres = random.normal(size=(count, 64)).astype(np.float32)
    return unit(centres[labels] + noise * random.normal(size=(len(labels), 64)).astype(np.float32)), labels


def test_a_picture_is_never_found_as_itself() -> None:
    rows = unit(np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32))
    hits = rank_one_hits(rows, rows, np.array([0, 1, 0]), np.array([0, 2]))
    assert hits.tolist() == [False, False]
    assert rank_one_hits(rows, rows, np.array([0, 0, 1]), np.array([0, 1])).tolist() == [True, True]


def test_strangers_and_known_people_are_told_apart_at_a_threshold_between_them() -> None:
    rows, labels = people(40, 3, 0.1)
    found = open_set_trials(rows, rows, labels, threshold=0.8)
    # Twenty people enrolled with one picture: their two others are known, the other twenty's three strange.
    assert (len(found.hits), len(found.false_alarms)) == (SPLITS * 40, SPLITS * 60)
    assert found.hits.all()
    assert not found.false_alarms.any()
    assert open_set_trials(rows, rows, labels, threshold=-1.0).false_alarms.all()


def test_clean_gallery_vectors_win_for_noisy_probes_and_identical_ones_nothing() -> None:
    clean, labels = people(60, 4, 0.9)
    noisy = unit(clean + 0.12 * np.random.default_rng(1).normal(size=clean.shape).astype(np.float32))
    figures = compare({"fp32": clean, "int8": noisy}, labels, threshold=0.3)
    rates = {mode: figures["found_at_fpir_1_percent"][mode] for mode in figures["found_at_fpir_1_percent"]}
    assert rates["FP32 in FP32"] > rates["INT8 in FP32"] > rates["INT8 in INT8"]
    gain = figures["gain"]["found_at_fpir_1_percent"]
    assert gain["value"] == pytest.approx(rates["INT8 in FP32"] - rates["INT8 in INT8"])
    assert gain["low"] < gain["value"] < gain["high"]
    same = compare({"fp32": clean, "int8": clean}, labels, threshold=None)
    assert same["gain"]["rank_one"]["value"] == same["gain"]["found_at_fpir_1_percent"]["value"] == 0
    assert same["at_int8_threshold"] == {}
