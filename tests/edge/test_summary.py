from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.sources import SourceCounts
from edge.statistics import Latencies
from edge.summary import Summary, as_text
from edge.types import Decision, Face, Frame, FrameResult, Match

FACE = Face(np.array([0, 0, 9, 9], np.float32), np.zeros((5, 2), np.float32), 0.9)


def result(index: int, moment: float, *names: str | None) -> FrameResult:
    frame = Frame(np.zeros((4, 4, 3), np.uint8), index, moment, "cam")
    decisions = tuple(Decision(index, moment, "cam", FACE, Match(n, 0.5 + index / 100, 0.4, "ada")) for n in names)
    return FrameResult(frame, decisions, {"detect": 2.0, "embed": 4.0})


def test_who_was_seen_how_long_leaves_absences_out() -> None:
    summary = Summary()
    for index, moment in enumerate([0.0, 0.5, 1.0, 5.0, 5.5]):
        summary.add(result(index, moment, "ada", None))
    summary.add(result(5, 6.0, "bob"))
    figures = summary.to_dict({"cam": SourceCounts(9, 3, 1, 2)})
    assert figures["people"]["ada"] == {
        "frames": 5,
        "seconds": 1.5,
        "first": 0.0,
        "last": 5.5,
        "best_similarity": 0.54,
    }
    assert (figures["frames"], figures["faces"], figures["unknown_faces"]) == (6, 11, 5)
    assert (figures["captured"], figures["dropped"], figures["corrupt"], figures["reconnects"]) == (9, 3, 1, 2)
    assert figures["stages_ms"]["embed"]["count"] == 6
    assert figures["stages_ms"]["embed"]["p95"] == pytest.approx(4.0, rel=0.011)
    text = as_text(figures)
    assert "ada: 1.5 s in 5 frames" in text
    assert "dropped 3" in text


def test_several_sources_are_told_apart_and_people_counted_over_all() -> None:
    summary = Summary()
    for index, moment in enumerate([10.0, 10.5, 11.0]):
        summary.add(result(index, moment, "ada"), "door")
    for index, moment in enumerate([30.0, 30.5]):
        summary.add(result(index, moment, "ada", "bob"), "yard")
    summary.of("yard").error = "yard: unplugged"
    summary.of("yard").late = 2
    figures = summary.to_dict({"door": SourceCounts(5, 2), "yard": SourceCounts(7, 3, 0, 1)})
    assert (figures["frames"], figures["captured"], figures["dropped"], figures["late"]) == (5, 12, 5, 2)
    assert figures["people"]["ada"] == {
        "frames": 5,
        "seconds": 1.5,
        "first": 10.0,
        "last": 30.5,
        "best_similarity": 0.52,
    }
    assert figures["sources"]["door"]["people"] == ["ada"]
    assert figures["sources"]["yard"]["people"] == ["ada", "bob"]
    assert summary.errors == {"yard": "yard: unplugged"}
    text = as_text(figures)
    assert "door: 3 frames, 3 faces (ada); dropped 2, corrupt 0, reconnects 0\n" in text
    assert "2 too late; ended early: yard: unplugged" in text


def test_an_empty_run_has_a_summary_too() -> None:
    figures = Summary().to_dict({"cam": SourceCounts()})
    assert figures["frames"] == 0
    assert "nobody known was seen" in as_text(figures)


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=300), st.floats(0.01, 1))
def test_quantiles_are_within_a_bin_of_the_true_ones(values: list[float], share: float) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    expected = float(np.quantile(values, share, method="inverted_cdf"))
    assert latencies.quantile(share) == pytest.approx(expected, rel=0.0105)
    assert latencies.total == pytest.approx(sum(values))


def test_latencies_outside_the_range_are_kept_at_its_ends() -> None:
    latencies = Latencies()
    assert latencies.quantile(0.5) == 0.0
    latencies.add(0.0)
    latencies.add(1e12)
    assert latencies.quantile(0.1) < 0.0011
    assert latencies.quantile(1.0) > 9e5
