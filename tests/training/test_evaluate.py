from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.errors import InputError
from edge.metrics.pairs import PairRows
from edge.types import Floats
from training.evaluate import PairPhotos, centroids, closed_set, open_set, stranger_threshold


def _unit(*rows: list[float]) -> Floats:
    x = np.array(rows, np.float32)
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


AXES = np.eye(3, dtype=np.float32)


def test_photos_go_to_the_nearest_axis_and_a_missed_face_is_an_error() -> None:
    embeddings = _unit([1, 0.2, 0], [0, 1, 0.9], [0.9, 1, 0], [0, 0, 1], [0, 0, 1])
    embeddings[4] = np.nan
    labels = np.array([0, 1, 0, 2, 2])
    result = closed_set(AXES, embeddings, labels, groups=np.array([7, 8, 7, 9, 3]))
    assert result.predicted.tolist() == [0, 1, 1, 2, -1]
    assert (result.photos.hits, result.photos.count) == (3, 5)
    # Groups: 7 has one photo wrong, 8 and 9 are right, 3 was not found.
    assert (result.distinct.hits, result.distinct.count) == (2, 4)
    assert result.margin[3] == pytest.approx(1.0)
    assert result.margin[2] < 0
    assert np.isnan(result.margin[4])
    with pytest.raises(InputError, match="no photo to test on"):
        closed_set(AXES, embeddings[:0], labels[:0], labels[:0])


def test_centroids_are_unit_means() -> None:
    found = centroids(_unit([1, 1, 0], [1, -1, 0], [0, 0, 1]), np.array([0, 0, 1]), 2)
    assert np.allclose(found, [[1, 0, 0], [0, 0, 1]])


def test_open_set_turns_strangers_away_and_names_the_known() -> None:
    gallery, gallery_labels = AXES, np.array([0, 1, 1])
    known = _unit([1, 0.1, 0], [0, 0.1, 1], [1, 1, 1], [0, 1, 0], [1, 0, 0])
    known[4] = np.nan
    strangers = _unit([1, 1, 1], [1, 0.05, 0])
    result = open_set(gallery, gallery_labels, known, np.array([0, 1, 1, 0, 0]), strangers, threshold=0.9)
    # Right: the first two. The third is below the threshold, the fourth is named as another, the fifth was not found.
    assert (result.known_named.hits, result.known_named.count) == (2, 5)
    assert result.strangers_named is not None
    assert (result.strangers_named.hits, result.strangers_named.count) == (1, 2)
    without = open_set(gallery, gallery_labels, known, np.array([0, 1, 1, 0, 0]), strangers[:0], threshold=0.9)
    assert without.to_dict()["strangers_named"] == "not measured"


def test_threshold_lets_no_more_strangers_in_than_asked() -> None:
    rng = np.random.default_rng(0)
    strangers = rng.normal(size=(500, 3)).astype(np.float32)
    strangers /= np.linalg.norm(strangers, axis=1, keepdims=True)
    threshold = stranger_threshold(AXES, strangers, 0.02)
    named = ((strangers @ AXES.T).max(axis=1) >= threshold).sum()
    assert named == 10
    with pytest.raises(InputError, match="too few"):
        stranger_threshold(AXES, strangers[:50], 0.01)


def test_pairs_are_scored_by_folds() -> None:
    embeddings = _unit([1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.1])
    first, second = np.array([0, 0, 2, 1] * 2), np.array([1, 2, 3, 3] * 2)
    rows = PairRows(first, second, np.array([True, False] * 4), np.repeat([0, 1], 4))
    photos = PairPhotos(tuple(map(Path, "abcd")), rows)
    assert photos.accuracy(embeddings).accuracy.hits == 8
