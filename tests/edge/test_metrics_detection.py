from __future__ import annotations

import numpy as np
import pytest

from edge.metrics.detection import Outcome, average_precision, found_at, match

LARGE = [0, 0, 40, 40]
SMALL = [100, 100, 110, 110]


def outcome(found: list[tuple[list[int], float]], truth: list[list[int]]):  # type: ignore[no-untyped-def]
    boxes = np.array([box for box, _ in found], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in found], np.float32)
    return match(boxes, scores, np.array(truth, np.float32).reshape(-1, 4), 20.0)


@pytest.mark.parametrize(
    ("found", "truth", "hits", "faces"),
    [
        ([(LARGE, 0.9)], [LARGE], [True], 1),
        ([([0, 0, 40, 19], 0.9)], [LARGE], [False], 1),  # IoU below a half
        ([(LARGE, 0.9), ([1, 0, 41, 40], 0.8)], [LARGE], [True, False], 1),  # the second finds nobody new
        ([([1, 0, 41, 40], 0.8), (LARGE, 0.9)], [LARGE], [True, False], 1),  # in whatever order they come
        ([(SMALL, 0.9)], [LARGE, SMALL], [], 1),  # what finds a small face is dropped
        ([([99, 99, 120, 120], 0.9)], [[99, 99, 118, 118]], [], 0),  # also where its own box is larger
        ([([0, 0, 19, 19], 0.9)], [[0, 0, 19, 19], [0, 0, 20, 20]], [True], 1),  # of two faces the one that counts
        ([(SMALL, 0.9)], [LARGE], [], 1),  # small detections of nothing are dropped
        ([([200, 0, 240, 40], 0.9)], [], [False], 0),
        ([], [LARGE, [60, 0, 100, 40]], [], 2),
    ],
)
def test_matching_counts_what_it_should(
    found: list[tuple[list[int], float]], truth: list[list[int]], hits: list[bool], faces: int
) -> None:
    result = outcome(found, truth)
    assert result.hits.tolist() == hits
    assert result.faces == faces


def test_average_precision_by_hand() -> None:
    """Of 3 faces, hits at ranks 1 and 3 of 4: precision 1 up to recall 1/3, then 2/3 up to 2/3, then nothing."""
    first = outcome([(LARGE, 0.9), ([200, 0, 240, 40], 0.8)], [LARGE])
    second = outcome([(LARGE, 0.7), ([200, 0, 240, 40], 0.1)], [LARGE, [60, 0, 100, 40]])
    result = average_precision([first, second])
    assert result.average == pytest.approx((1 + 2 / 3) / 3)
    assert (result.faces, result.detections, result.images) == (3, 4, 2)


def test_precision_is_made_monotone() -> None:
    """A false detection before two hits: precision at the first hit counts as that at the second."""
    result = average_precision(
        [outcome([([200, 0, 240, 40], 0.9), (LARGE, 0.8), ([60, 0, 100, 40], 0.7)], [LARGE, [60, 0, 100, 40]])]
    )
    assert result.average == pytest.approx(2 / 3)


def test_perfect_and_useless_detectors() -> None:
    assert average_precision([outcome([(LARGE, 0.9)], [LARGE])] * 5).average == 1.0
    assert average_precision([outcome([], [LARGE])] * 5).average == 0.0
    assert np.isnan(average_precision([outcome([(LARGE, 0.9)], [])]).average)


def test_what_is_found_at_so_many_false_alarms_by_hand() -> None:
    """Of 3 faces, hits at ranks 1 and 3 of 4; false alarms at 2 and 4, the second as sure as a third hit."""
    far = [200, 0, 240, 40]
    first = outcome([(LARGE, 0.9), (far, 0.8)], [LARGE])
    second = outcome([(LARGE, 0.7), (far, 0.1), ([60, 0, 100, 40], 0.1)], [LARGE, [60, 0, 100, 40]])
    shares = [found_at([first, second], alarms) for alarms in (0, 0.49, 0.5, 0.99, 1, 5)]
    assert shares == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1])
    assert found_at([outcome([], [LARGE])], 1) == 0.0
    alarms = Outcome(np.linspace(0.9, 0.6, 30, dtype=np.float32), np.zeros(30, bool), 0)
    hit = Outcome(np.array([0.605], np.float32), np.ones(1, bool), 1)
    # 29 false alarms are allowed, though 0.29 · 100 is 28.999… in binary.
    assert found_at([alarms, hit, *[outcome([], [])] * 98], 0.29) == 1.0
    assert np.isnan(found_at([outcome([(LARGE, 0.9)], [])], 1))
