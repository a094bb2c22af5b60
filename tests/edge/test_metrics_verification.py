from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge.errors import InputError
from edge.metrics.identification import open_set, rank_one
from edge.metrics.scores import all_pair_scores, hardest_impostors, pair_counts
from edge.metrics.verification import (
    best_threshold,
    det_curve,
    kfold_accuracy,
    resolution,
    tar_at_far,
    threshold_at_far,
)
from edge.types import Floats

SCORES = st.floats(-1, 1, width=32)


def unit(rows: np.ndarray) -> Floats:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(arrays(np.float32, st.integers(1, 40), elements=SCORES), st.data())
def test_best_threshold_is_as_good_as_any(scores: np.ndarray, data: st.DataObject) -> None:
    same = data.draw(arrays(np.bool_, len(scores)))
    got = np.mean((scores >= best_threshold(scores, same)) == same)
    every = [np.mean((scores >= cut) == same) for cut in [*scores.astype(float), 2.0]]
    assert got == max(every)


@given(arrays(np.float32, st.integers(1, 200), elements=SCORES), st.floats(0.005, 0.9))
def test_threshold_at_far_keeps_its_promise_and_is_the_lowest(impostor: np.ndarray, far: float) -> None:
    if far * len(impostor) < 1:
        with pytest.raises(InputError, match="too few impostor pairs"):
            threshold_at_far(impostor, far)
        return
    threshold = threshold_at_far(impostor, far)
    allowed = far * len(impostor) * (1 + 1e-9)
    assert (impostor >= threshold).sum() <= allowed
    refused = impostor[impostor < threshold]
    assert (impostor >= refused.max()).sum() > allowed


def test_exactly_the_promised_number_is_accepted() -> None:
    impostor = np.linspace(-0.5, 0.5, 3000).astype(np.float32)
    found = tar_at_far(np.array([0.1, 0.499, 0.6], np.float32), impostor, 1e-3)
    assert found.far_measured is not None
    assert found.tar is not None
    assert found.threshold is not None
    assert (found.far_measured.hits, found.far_measured.count) == (3, 3000)
    assert found.tar.hits == 1 + (found.threshold <= 0.499)


def test_a_far_below_the_resolution_is_refused_in_words() -> None:
    found = tar_at_far(np.ones(5), np.zeros(3000), 1e-4)
    assert found.tar is None
    assert found.threshold is None
    assert found.refusal is not None
    assert "3,000 impostor pairs: a FAR below 3.3e-04 cannot be read off" in found.refusal
    assert "10,000 or more" in found.refusal
    assert resolution(3000) in found.refusal


def test_kfold_judges_each_fold_at_the_others_threshold() -> None:
    # Two folds whose scores are apart by 0.5: a threshold fitted on one is wrong on the other's genuine pairs.
    scores = np.array([0.4, 0.1, 0.9, 0.6])
    same = np.array([True, False, True, False])
    result = kfold_accuracy(scores, same, np.array([0, 0, 1, 1]))
    assert result.thresholds == pytest.approx((0.75, 0.25))
    assert result.folds == (0.5, 0.5)
    assert result.correct.tolist() == [False, True, True, False]
    assert (result.accuracy.hits, result.accuracy.count) == (2, 4)


def test_kfold_reaches_the_accuracy_of_the_distributions() -> None:
    random = np.random.default_rng(0)
    same = np.tile([True, False], 3000)
    scores = random.normal(np.where(same, 0.6, 0.0), 0.15)
    result = kfold_accuracy(scores, same, np.repeat(np.arange(10), 600))
    assert result.accuracy.low <= 0.97725 <= result.accuracy.high  # Φ(2): the threshold lies two deviations from both
    assert result.thresholds == pytest.approx([0.3] * 10, abs=0.03)
    assert result.standard_error == pytest.approx(np.std(result.folds, ddof=1) / np.sqrt(10))


def test_kfold_refuses_a_single_fold() -> None:
    with pytest.raises(InputError, match="two folds"):
        kfold_accuracy(np.array([0.1, 0.9]), np.array([False, True]), np.zeros(2, int))


@pytest.mark.parametrize("bad", [np.array([np.nan, 0.1]), np.array([]), np.zeros((2, 2))])
def test_damaged_scores_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputError):
        threshold_at_far(bad, 0.5)


@given(st.integers(2, 40), st.integers(1, 6), st.integers(1, 17))
def test_all_pairs_are_those_of_two_loops(count: int, identities: int, block: int) -> None:
    random = np.random.default_rng(count * 100 + identities)
    embeddings, labels = unit(random.normal(size=(count, 8))), random.integers(0, identities, count)
    genuine, impostor = [], []
    for i in range(count):
        for j in range(i + 1, count):
            (genuine if labels[i] == labels[j] else impostor).append(float(embeddings[i] @ embeddings[j]))
    got = all_pair_scores(embeddings, labels, block)
    assert pair_counts(labels) == (len(genuine), len(impostor))
    np.testing.assert_allclose(np.sort(got.genuine), np.sort(genuine), atol=1e-6)
    np.testing.assert_allclose(np.sort(got.impostor), np.sort(impostor), atol=1e-6)

    scores, rows, columns = hardest_impostors(embeddings, labels, 5, block)
    np.testing.assert_allclose(scores, np.sort(impostor)[::-1][:5], atol=1e-6)
    assert (rows < columns).all()
    assert (labels[rows] != labels[columns]).all()
    np.testing.assert_allclose(np.sum(embeddings[rows] * embeddings[columns], axis=1), scores, atol=1e-6)


def test_embeddings_that_are_no_unit_vectors_are_refused() -> None:
    with pytest.raises(InputError, match="unit length"):
        all_pair_scores(np.full((3, 4), 2.0, np.float32), np.zeros(3, int))
    with pytest.raises(InputError, match="do not fit"):
        all_pair_scores(unit(np.eye(3)), np.zeros(2, int))


def test_rank_one_on_a_known_layout() -> None:
    angles = np.deg2rad([0, 5, 90, 95, 7, 180])
    labels = np.array([0, 0, 1, 1, 2, 3])  # picture 4 stands closest to picture 1, of another; 4 and 5 are alone
    result = rank_one(unit(np.stack([np.cos(angles), np.sin(angles)], axis=1)), labels, block=2)
    assert result.probes.tolist() == [0, 1, 2, 3]
    assert result.hits.tolist() == [True, False, True, True]
    assert (result.rate.hits, result.rate.count) == (3, 4)
    with pytest.raises(InputError, match="two pictures"):
        rank_one(unit(np.eye(3)), np.arange(3))


def test_open_set_counts_strangers_and_the_enrolled_apart() -> None:
    gallery, names = unit(np.eye(3)), np.array([10, 11, 12])
    probes = unit(np.array([[1, 0.1, 0], [0.1, 1, 0], [0.6, 0.7, 0], [0.5, 0.5, 0.6], [1, 1, 1]]))
    whose = np.array([10, 11, 10, 77, 78])  # the third comes back as 11, the last two are strangers
    result = open_set(gallery, names, probes, whose, threshold=0.64)
    assert (result.fnir.hits, result.fnir.count) == (1, 3)
    assert (result.fpir.hits, result.fpir.count) == (1, 2)
    strict = open_set(gallery, names, probes, whose, threshold=0.999)
    assert (strict.fnir.hits, strict.fpir.hits) == (3, 0)
    exact = open_set(gallery, names, unit(np.array([[0.6, 0.8, 0], [0.6, 0.8, 0]])), np.array([11, 77]), threshold=0.8)
    assert (exact.fnir.hits, exact.fpir.hits) == (0, 1)  # at the threshold is accepted
    fitted = open_set(gallery, names, probes, whose, fpir=0.5)
    assert fitted.fpir.hits == 1
    with pytest.raises(InputError, match="strangers"):
        open_set(gallery, names, probes[:3], whose[:3], threshold=0.5)


@given(st.integers(1, 300), st.integers(1, 300))
def test_det_curve_is_what_counting_gives(genuine_count: int, impostor_count: int) -> None:
    random = np.random.default_rng(genuine_count + 1000 * impostor_count)
    genuine, impostor = random.normal(0.5, 0.2, genuine_count).round(2), random.normal(0, 0.2, impostor_count).round(2)
    thresholds, far, frr = det_curve(genuine, impostor, points=20)
    for threshold, accepted, rejected in zip(thresholds, far, frr, strict=True):
        assert accepted == pytest.approx(np.mean(impostor >= threshold))
        assert rejected == pytest.approx(np.mean(genuine < threshold))
    assert (np.diff(far) <= 0).all()
    assert (np.diff(frr) >= 0).all()
    assert far[0] == 1.0
