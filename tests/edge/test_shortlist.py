"""What another machine's search says leads to the CPU's own answers, however that machine rounds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import matching
from edge.gallery import Snapshot
from edge.matching import NOBODY, Nearest, assign, match, nearest
from edge.shortlist import ROUNDING, Shortlist
from edge.types import Floats
from tests.support.lists import TOP, crowded, search


@given(seed=st.integers(0, 2**31), twins=st.booleans(), threshold=st.floats(-1, 1))
@settings(max_examples=300, deadline=None)
def test_lists_lead_to_the_cpu_s_answers_whatever_the_rounding(seed: int, twins: bool, threshold: float) -> None:
    snapshot, probes = crowded(seed, twins=twins)
    random = np.random.default_rng(seed)

    def off(shape: tuple[int, ...]) -> Floats:
        return random.uniform(-ROUNDING, ROUNDING, shape).astype(np.float32) * np.float32(0.9)

    wanted = match(snapshot, probes, threshold)
    shortlist = search(snapshot, probes, off)
    found = match(snapshot, probes, threshold, shortlist)
    for a, b in zip(found, wanted, strict=True):
        assert a.nearest == b.nearest
        assert a.similarity == pytest.approx(b.similarity, abs=3e-7)
    settled = shortlist.settled(threshold)
    if settled is not None:
        alone = assign(snapshot, Nearest(*settled), threshold)
        assert [(m.identity, m.nearest) for m in alone] == [(m.identity, m.nearest) for m in wanted]
        np.testing.assert_allclose([m.similarity for m in alone], [m.similarity for m in wanted], atol=ROUNDING)


def test_most_answers_need_no_second_look() -> None:
    """Else the property above would hold for a list that never says anything."""
    said, settled = 0, 0
    for seed in range(100):
        snapshot, probes = crowded(seed)
        shortlist = search(snapshot, probes)
        said += sum(shortlist.best(i) is not None for i in range(len(probes)))
        settled += shortlist.settled(0.5) is not None
    assert said > 450
    assert settled > 60


def listed(*entries: tuple[int, float]) -> Shortlist:
    """One probe's list."""
    groups, scores = np.full((1, TOP), -1, np.int32), np.full((1, TOP), -2, np.float32)
    for i, (group, score) in enumerate(entries):
        groups[0, i], scores[0, i] = group, score
    return Shortlist(groups, scores)


@pytest.mark.parametrize(
    ("entries", "best"),
    [
        pytest.param([(4, 0.9), (2, 0.5)], (2, 0.9), id="plain"),
        pytest.param([(5, 0.9), (4, 0.8), (2, 0.5)], (1, 0.5), id="taken back"),
        pytest.param([(4, 0.9), (5, 0.8), (2, 0.5)], (2, 0.9), id="a lesser negative"),
        pytest.param([(5, 0.9), (4, 0.8)], (NOBODY, -1.0), id="everybody taken back"),
        pytest.param([(4, 0.9), (2, 0.9 - ROUNDING)], None, id="two are level"),
        pytest.param([(4, 0.9), (5, 0.9 - ROUNDING)], None, id="own and negative are level"),
        pytest.param([(5, 0.9), (4, 0.9 - ROUNDING)], None, id="negative and own are level"),
        pytest.param([(4, 0.9), (3, 0.9 - ROUNDING), (2, 0.4)], (2, 0.9), id="another's negative is level"),
        pytest.param([(2 * i + 1, 0.9 - i / 100) for i in range(TOP)], None, id="negatives alone, and the list ends"),
        pytest.param([(2 * i, 0.9 - ROUNDING * i / 8) for i in range(TOP)], None, id="level to the end of the list"),
        pytest.param([], None, id="not a number"),
        pytest.param([(4, 0.0)], None, id="no direction"),
    ],
)
def test_a_list_says_who_is_nearest_or_that_it_cannot(
    entries: list[tuple[int, float]], best: tuple[int, float] | None
) -> None:
    found = listed(*entries).best(0)
    assert found is None if best is None else found == (best[0], pytest.approx(best[1]))


def test_what_hangs_on_rounding_is_not_settled() -> None:
    both = Shortlist(*(np.concatenate(parts) for parts in zip(
        (listed((4, 0.9)).groups, listed((4, 0.9)).scores),
        (listed((4, 0.9 - ROUNDING)).groups, listed((4, 0.9 - ROUNDING)).scores), strict=True)))  # fmt: skip
    assert listed((4, 0.9)).settled(0.5) is not None
    assert listed((4, 0.9)).settled(0.9 + ROUNDING / 2) is None, "the threshold is too near"
    assert both.settled(0.5) is None, "which of two faces is the more like one person?"
    (places, cosines) = listed((4, 1.0000001)).settled(0.5) or ((), ())
    assert (places[0], cosines[0]) == (2, 1.0)


@dataclass
class Elsewhere:
    """A finder that counts, and that may be gone."""

    snapshot: Snapshot
    gone: bool = False
    asked: int = 0

    def find(self, probes: Floats) -> Shortlist | None:
        self.asked += 1
        return None if self.gone else search(self.snapshot, probes)


@pytest.mark.parametrize("gone", [False, True])
def test_a_finder_is_asked_once_and_its_absence_changes_nothing(gone: bool) -> None:
    snapshot, probes = crowded(3)
    finder = Elsewhere(snapshot, gone)
    found, wanted = nearest(replace(snapshot, finder=finder), probes), nearest(snapshot, probes)
    assert finder.asked == 1
    np.testing.assert_array_equal(found.places, wanted.places)
    np.testing.assert_allclose(found.similarities, wanted.similarities, atol=3e-7)
    nearest(replace(snapshot, finder=finder), probes, besides=0)
    assert finder.asked == 1, "one is left out that the finder knows nothing of"


def test_one_that_is_unsure_has_the_cpu_search_for_all_and_none_has_it_search_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last digits of a product hang on how many are in it: searched for alone, twins might change places."""
    snapshot, probes = crowded(3)
    shortlist = search(snapshot, probes)
    assert all(shortlist.best(i) is not None for i in range(len(probes)))
    searched: list[int] = []
    plain = matching._search

    def counted(snapshot: Snapshot, embeddings: Floats, besides: int) -> Nearest:
        searched.append(len(embeddings))
        return plain(snapshot, embeddings, besides)

    monkeypatch.setattr(matching, "_search", counted)
    nearest(snapshot, probes, shortlist=shortlist)
    assert searched == []
    shortlist.groups[2] = -1
    found = nearest(snapshot, probes, shortlist=shortlist)
    assert searched == [5]
    np.testing.assert_array_equal(found.places, plain(snapshot, probes, NOBODY).places)
