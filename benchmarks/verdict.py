"""The answer in words: which variant to ship, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from edge.metrics.intervals import Interval

Decision = Literal["ship", "not worth it", "loses too much", "cannot tell", "not measured"]


@dataclass(frozen=True, slots=True)
class Budget:
    """max_loss: points (percent) of accuracy a variant may lose. min_speedup: times faster; less is no gain."""

    max_loss: float = 0.5
    min_speedup: float = 1.1


@dataclass(frozen=True, slots=True)
class Verdict:
    """One variant against the baseline: the decision and the sentence that says why."""

    variant: str
    baseline: str
    decision: Decision
    sentence: str
    speedup: Interval | None
    loss: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `loss` in points."""
        return {
            "variant": self.variant,
            "baseline": self.baseline,
            "decision": self.decision,
            "sentence": self.sentence,
            "speedup": None if self.speedup is None else self.speedup.to_dict(),
            "loss_points": None if self.loss is None else self.loss.to_dict(),
        }


def judge(
    variant: str,
    baseline: str,
    speedup: Interval | None,
    loss: Interval | None,
    budget: Budget | None = None,
    trials: str = "pairs",
) -> Verdict:
    """Weighs speed against accuracy. speedup: baseline's time / variant's time; loss: points of accuracy lost.

    None stands for what was not measured. `trials` names what the accuracy was counted over.
    """
    budget = budget or Budget()
    decision, advice = _decide(speedup, loss, budget, trials)
    parts = [part for part in (_speed(speedup), _loss(loss)) if part]
    said = " and ".join(parts).rstrip(",") if parts else "was not measured"
    return Verdict(variant, baseline, decision, f"{variant} {said}; {advice}", speedup, loss)


def _decide(speedup: Interval | None, loss: Interval | None, budget: Budget, trials: str) -> tuple[Decision, str]:
    if loss is not None and loss.low > budget.max_loss:
        return "loses too much", f"more than the {budget.max_loss:g} points allowed: do not ship it"
    if speedup is not None and speedup.high < budget.min_speedup:
        return "not worth it", "not worth it here"
    if speedup is None or loss is None:
        missing = "speed" if speedup is None else "accuracy"
        return "not measured", f"{missing} was not measured: measure it before shipping"
    if speedup.low < budget.min_speedup:
        return "cannot tell", f"cannot tell whether it is {budget.min_speedup:g} times faster: measure longer"
    if loss.high > budget.max_loss:
        return "cannot tell", f"cannot tell whether it loses more than {budget.max_loss:g} points: too few {trials}"
    return "ship", "ship it"


def _speed(speedup: Interval | None) -> str:
    if speedup is None:
        return ""
    # What says 1.00 on either side is no difference to speak of, however sure it is.
    if speedup.low <= 1.0 <= speedup.high or f"{speedup.value:.2f}" == "1.00":
        return f"is as fast, {_range(speedup.value, speedup.low, speedup.high, 'times')},"
    if speedup.value >= 1.0:
        return f"is {_range(speedup.value, speedup.low, speedup.high, 'times faster')}"
    return f"is {_range(1 / speedup.value, 1 / speedup.high, 1 / speedup.low, 'times slower')}"


def _loss(loss: Interval | None) -> str:
    if loss is None:
        return ""
    if loss.value >= 0:
        return f"loses {_signed(loss.value)} points [{_signed(loss.low)}, {_signed(loss.high)}]"
    return f"gains {_signed(-loss.value)} points [{_signed(-loss.high)}, {_signed(-loss.low)}]"


def certain_loss(what: str, loss: Interval) -> str:
    """A sentence for a loss, as a share, whose interval lies above zero."""
    points = Interval(100 * loss.value, 100 * loss.low, 100 * loss.high, loss.level)
    return f"{what}: it {_loss(points)}"


def _range(value: float, low: float, high: float, what: str) -> str:
    # A ratio near one needs the second digit to show on which side it lies.
    # One digit where the second says nothing; [1.6, 1.6] would look as if it were known exactly.
    digits = 1 if value >= 1.5 and high - low > 0.19 else 2
    return f"{value:.{digits}f} {what} [{low:.{digits}f}, {high:.{digits}f}]"


def _signed(value: float) -> str:
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")
