from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.gallery import Loose, Snapshot
from edge.matching import NOBODY, match, nearest, similarity_to
from edge.tracking.evidence import Evidence, EvidenceOptions
from edge.types import Floats


def rows(*angles: float) -> Floats:
    """Unit vectors in a plane, at angles in degrees: their cosines are known."""
    turned = np.radians(np.array(angles))
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


PEOPLE = Snapshot(("ada", "bob"), rows(0, 20, 90), np.array([0, 2], np.intp), 1)


def test_the_best_vector_of_each_person_counts() -> None:
    found = nearest(PEOPLE, rows(30, 80))
    assert found.places.tolist() == [0, 1]
    np.testing.assert_allclose(found.similarities, np.cos(np.radians([10, 10])), atol=1e-6)
    assert similarity_to(PEOPLE, 1, rows(30)[0]) == pytest.approx(np.cos(np.radians(60)), abs=1e-6)
    other = nearest(PEOPLE, rows(30), besides=0)
    assert (other.places[0], other.similarities[0]) == (1, pytest.approx(0.5, abs=1e-6))


def test_vectors_that_came_late_count_as_much() -> None:
    late = Loose(rows(60, 180), np.array([0, 2], np.intp))
    snapshot = Snapshot(("ada", "bob", "eve"), PEOPLE.vectors, PEOPLE.starts, 2, late)
    found = nearest(snapshot, rows(58, 95, 170))
    assert [snapshot.names[place] for place in found.places] == ["ada", "bob", "eve"]
    np.testing.assert_allclose(found.similarities, np.cos(np.radians([2, 5, 10])), atol=1e-6)
    np.testing.assert_array_equal(snapshot.of("ada"), rows(0, 20, 60))
    np.testing.assert_array_equal(snapshot.of("eve"), rows(180))
    assert nearest(snapshot, rows(170), besides=2).places[0] == 1


class TestNegatives:
    """Somebody at 40 degrees is like ada, who is at 20 at most, and is not her."""

    snapshot = Snapshot(
        ("ada", "bob"), PEOPLE.vectors, PEOPLE.starts, 1, negatives=Loose(rows(42), np.array([0], np.intp))
    )

    def test_who_is_more_like_the_negative_is_not_given_the_name_but_may_be_another(self) -> None:
        before, after = match(PEOPLE, rows(40), 0.6)[0], match(self.snapshot, rows(40), 0.6)[0]
        assert (before.identity, before.similarity) == ("ada", pytest.approx(np.cos(np.radians(20))))
        assert (after.identity, after.nearest) == ("bob", "bob")
        assert match(self.snapshot, rows(40), 0.9)[0].identity is None
        assert similarity_to(self.snapshot, 0, rows(40)[0]) == -1.0

    def test_who_is_more_like_the_person_keeps_the_name_though_the_negative_is_near(self) -> None:
        found = match(self.snapshot, rows(30), 0.9)[0]
        assert (found.identity, found.similarity) == ("ada", pytest.approx(np.cos(np.radians(10))))

    def test_it_speaks_of_nobody_else(self) -> None:
        assert match(self.snapshot, rows(75), 0.9)[0].identity == "bob"

    def test_with_everybody_taken_back_the_nearest_is_nobody(self) -> None:
        both = Loose(rows(50, 60), np.array([0, 1], np.intp))
        snapshot = Snapshot(("ada", "bob"), PEOPLE.vectors, PEOPLE.starts, 1, negatives=both)
        assert nearest(snapshot, rows(55)).places[0] == NOBODY
        (found,) = match(snapshot, rows(55), -1.0)
        assert (found.identity, found.nearest, found.similarity) == (None, None, -1.0)

    def test_a_tracked_stranger_loses_the_name_too(self) -> None:
        evidence = Evidence(EvidenceOptions(threshold=0.8))
        for _ in range(4):
            evidence.add(rows(40)[0], 1.0)
        evidence.judge(PEOPLE)
        assert (evidence.state, evidence.match.identity) == ("known", "ada")
        evidence.judge(self.snapshot)
        assert (evidence.state, evidence.match.identity) == ("unknown", None)


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
