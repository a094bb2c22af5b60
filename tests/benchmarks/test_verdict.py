from __future__ import annotations

import pytest

from benchmarks.verdict import Budget, judge
from edge.metrics.intervals import Interval

FASTER = Interval(2.4, 2.3, 2.5)


@pytest.mark.parametrize(
    ("speedup", "loss", "decision", "sentence"),
    [
        (
            FASTER,
            Interval(0.10, -0.05, 0.25),
            "ship",
            "INT8 is 2.4 times faster [2.3, 2.5] and loses 0.10 points [−0.05, 0.25]; ship it",
        ),
        (
            FASTER,
            Interval(-0.10, -0.30, 0.10),
            "ship",
            "INT8 is 2.4 times faster [2.3, 2.5] and gains 0.10 points [−0.10, 0.30]; ship it",
        ),
        (
            Interval(1.63, 1.61, 1.64),
            Interval(0.07, -0.07, 0.33),
            "ship",
            "INT8 is 1.63 times faster [1.61, 1.64] and loses 0.07 points [−0.07, 0.33]; ship it",
        ),
        (
            Interval(0.5, 0.4, 0.625),
            Interval(0.0, 0.0, 0.0),
            "not worth it",
            "INT8 is 2.0 times slower [1.6, 2.5] and loses 0.00 points [0.00, 0.00]; not worth it here",
        ),
        (
            Interval(1.0, 0.98, 1.03),
            Interval(0.0, -0.1, 0.1),
            "not worth it",
            "INT8 is as fast, 1.00 times [0.98, 1.03], and loses 0.00 points [−0.10, 0.10]; not worth it here",
        ),
        (
            Interval(0.997, 0.994, 0.999),
            Interval(0.0, -0.1, 0.1),
            "not worth it",
            "INT8 is as fast, 1.00 times [0.99, 1.00], and loses 0.00 points [−0.10, 0.10]; not worth it here",
        ),
        (
            FASTER,
            Interval(0.3, -0.4, 1.2),
            "cannot tell",
            "INT8 is 2.4 times faster [2.3, 2.5] and loses 0.30 points [−0.40, 1.20]; "
            "cannot tell whether it loses more than 0.5 points: too few pairs",
        ),
        (
            FASTER,
            Interval(1.5, 0.9, 2.0),
            "loses too much",
            "INT8 is 2.4 times faster [2.3, 2.5] and loses 1.50 points [0.90, 2.00]; "
            "more than the 0.5 points allowed: do not ship it",
        ),
        (
            Interval(1.2, 1.02, 1.4),
            Interval(0.0, 0.0, 0.1),
            "cannot tell",
            "INT8 is 1.20 times faster [1.02, 1.40] and loses 0.00 points [0.00, 0.10]; "
            "cannot tell whether it is 1.1 times faster: measure longer",
        ),
        (
            FASTER,
            None,
            "not measured",
            "INT8 is 2.4 times faster [2.3, 2.5]; accuracy was not measured: measure it before shipping",
        ),
    ],
)
def test_the_sentence(speedup: Interval, loss: Interval | None, decision: str, sentence: str) -> None:
    verdict = judge("INT8", "FP32", speedup, loss)
    assert verdict.decision == decision
    assert verdict.sentence == sentence


def test_the_budget_decides() -> None:
    loss = Interval(1.0, 0.8, 1.2)
    assert judge("INT8", "FP32", FASTER, loss).decision == "loses too much"
    assert judge("INT8", "FP32", FASTER, loss, Budget(max_loss=2.0)).decision == "ship"
    assert judge("INT8", "FP32", FASTER, loss, Budget(max_loss=2.0, min_speedup=3.0)).decision == "not worth it"
