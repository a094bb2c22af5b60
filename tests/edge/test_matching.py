from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.gallery import Snapshot
from edge.matching import match, similarities
from edge.types import Floats


def rows(*angles: float) -> Floats:
    """Unit vectors in a plane, at angles in degrees: their cosines are known."""
    turned = np.radians(np.array(angles))
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


PEOPLE = Snapshot(("ada", "bob"), rows(0, 20, 90), np.array([0, 2], np.intp), 1)


def test_the_best_vector_of_each_person_counts() -> None:
    found = similarities(PEOPLE, rows(30))
    np.testing.assert_allclose(found, [[np.cos(np.radians(10)), np.cos(np.radians(60))]], atol=1e-6)


def test_the_threshold_itself_is_accepted_and_the_nearest_is_named_either_way() -> None:
    near, far = match(PEOPLE, rows(20, 140), threshold=1.0)[0], match(PEOPLE, rows(140), threshold=0.9)[0]
    assert (near.identity, near.similarity) == ("ada", pytest.approx(1.0))
    assert (far.identity, far.nearest, far.threshold) == (None, "bob", 0.9)
    assert far.similarity == pytest.approx(np.cos(np.radians(50)), abs=1e-6)


def test_of_two_faces_like_one_person_the_better_gets_the_name_and_the_other_none() -> None:
    worse, better, other = match(PEOPLE, rows(35, 21, 88), threshold=0.1)
    assert (worse.identity, worse.nearest) == (None, "ada")
    assert better.identity == "ada"
    assert other.identity == "bob"


def test_an_empty_gallery_knows_nobody() -> None:
    nobody = Snapshot((), np.zeros((0, 2), np.float32), np.zeros(0, np.intp), 0)
    (found,) = match(nobody, rows(3), threshold=-1.0)
    assert (found.identity, found.nearest, found.similarity) == (None, None, -1.0)
    assert match(PEOPLE, rows(), 0.5) == []


@given(seed=st.integers(0, 2**31), faces=st.integers(0, 6), people=st.integers(1, 5), threshold=st.floats(-1, 1))
@settings(max_examples=60, deadline=None)
def test_names_are_one_to_one_and_agree_with_a_plain_search(
    seed: int, faces: int, people: int, threshold: float
) -> None:
    random = np.random.default_rng(seed)
    counts = random.integers(1, 4, people)
    vectors = random.normal(size=(counts.sum(), 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    probes = random.normal(size=(faces, 4)).astype(np.float32)
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp)
    snapshot = Snapshot(tuple(f"p{i}" for i in range(people)), vectors, starts, 1)
    owner = np.repeat(np.arange(people), counts)
    found = match(snapshot, probes, threshold)
    names = [m.identity for m in found if m.identity is not None]
    assert len(names) == len(set(names))
    for m, probe in zip(found, probes, strict=True):
        cosines = vectors @ probe
        assert m.nearest == f"p{owner[cosines.argmax()]}"
        assert m.similarity == pytest.approx(float(cosines.max()), abs=1e-5)
        if m.identity is not None:
            assert m.similarity >= threshold
        elif m.similarity >= threshold + 1e-5:
            assert m.nearest in names
