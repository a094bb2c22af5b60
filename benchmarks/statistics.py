"""What may be concluded from measured samples: quantiles, ratios and differences, each with its interval.

Latencies of neighbouring rounds resemble each other, so rounds are drawn in blocks; pictures of one person resemble
each other, so identities are drawn, never pairs. Variants measured side by side are drawn together: what hits both
cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.metrics.intervals import LEVEL, Interval

Samples = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]

RESAMPLES = 1000
QUANTILES = (0.5, 0.9, 0.95, 0.99)
MIN_IDENTITIES = 20
"""Below it a draw of identities says little about the people who were not measured."""

_AT_ONCE = 4_000_000


def spread(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """Median, least, most and how many, JSON-ready: of few rounds, too few for an interval."""
    return {
        "median": round(float(np.median(values)), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
        "rounds": len(values),
    }


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Quantiles of `count` samples, in the samples' unit. A quantile the samples are too few for is None."""

    count: int
    mean: float
    minimum: float
    values: dict[str, Interval | None]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        values = {name: None if value is None else value.to_dict() for name, value in self.values.items()}
        return {"count": self.count, "mean": self.mean, "minimum": self.minimum, **values}


@dataclass(frozen=True, slots=True)
class McNemar:
    """Exact test of two methods on the same trials: `only_first` right by the first alone, `only_second` by the second.

    p: probability of so uneven a split if both were equally good (McNemar, Psychometrika 12, 1947; binomial form).
    """

    only_first: int
    only_second: int
    p: float

    def to_dict(self) -> dict[str, float]:
        """JSON-ready."""
        return {"only_first": self.only_first, "only_second": self.only_second, "p": self.p}


def quantiles(samples: Samples, seed: int = 0) -> Quantiles:
    """p50, p90, p95, p99 of samples in the order they were measured, with block-bootstrap intervals.

    A quantile q needs 2 / (1 − q) samples: p99 of fewer than 200 would be a handful of outliers and is None.
    """
    _require(samples)
    drawn = resample_rounds(samples[:, None], lambda draws: np.quantile(draws[..., 0], QUANTILES, axis=1).T, seed)
    values: dict[str, Interval | None] = {}
    for i, q in enumerate(QUANTILES):
        enough = len(samples) * (1 - q) >= 2 - 1e-9
        values[f"p{100 * q:.0f}"] = _percentile(float(np.quantile(samples, q)), drawn[:, i]) if enough else None
    return Quantiles(len(samples), float(samples.mean()), float(samples.min()), values)


def speedup(first: Samples, second: Samples, seed: int = 0) -> Interval:
    """How many times faster `second` is: the median of first / second within the rounds both were measured in.

    A round is one frame at one moment, so that neither the frames' unlike content nor a drift widens the interval.
    """
    _require(first)
    if first.shape != second.shape:
        raise ValueError(f"samples of the same rounds are needed, not {first.shape} and {second.shape}")
    ratios = first / second
    return _percentile(float(np.median(ratios)), resample_rounds(ratios[:, None], _median, seed))


def ratio_of_medians(first: Samples, second: Samples, seed: int = 0) -> Interval:
    """median(first) / median(second) of samples of different runs, drawn each for itself."""
    _require(first)
    _require(second)
    drawn = resample_rounds(first[:, None], _median, seed) / resample_rounds(second[:, None], _median, seed + 1)
    return _percentile(float(np.median(first) / np.median(second)), drawn)


def _median(draws: Samples) -> Samples:
    found: Samples = np.median(draws[..., 0], axis=1)
    return found


def resample_rounds(
    rounds: Samples, statistic: Callable[[Samples], Samples], seed: int = 0, resamples: int = RESAMPLES
) -> Samples:
    """A statistic over draws of whole rounds (n, k) in circular blocks of n^(1/3) (Politis and Romano, 1992).

    statistic: (R, n, k) → (R,) or (R, m). Gives (resamples,) or (resamples, m).
    """
    n, k = rounds.shape
    block = max(1, round(n ** (1 / 3)))
    blocks = -(-n // block)
    random = np.random.default_rng(seed)
    at_once = max(1, min(resamples, _AT_ONCE // (n * k)))
    parts = []
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        first = random.integers(0, n, (size, blocks, 1))
        rows = ((first + np.arange(block)) % n).reshape(size, -1)[:, :n]
        parts.append(np.asarray(statistic(rounds[rows])))
    return np.concatenate(parts)


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> McNemar:
    """McNemar's exact two-sided test; first, second: (N,) bool, whether each method got each trial right."""
    if first.shape != second.shape:
        raise ValueError(f"the same trials are needed, not {first.shape} and {second.shape}")
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    return McNemar(b, c, _two_sided_sign(min(b, c), b + c))


def _two_sided_sign(fewer: int, total: int) -> float:
    """P of a split at least as uneven as `fewer` of `total` under a fair coin; exact, by summing logarithms."""
    if total == 0:
        return 1.0
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(fewer + 1)
    ]
    top = max(logs)
    return min(1.0, 2.0 * math.exp(top) * math.fsum(math.exp(value - top) for value in logs))


def identity_weights(identities: int, resamples: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """(resamples, identities) how often each identity was drawn, with replacement."""
    random = np.random.default_rng(seed)
    return random.multinomial(identities, np.full(identities, 1.0 / identities), size=resamples)


def accuracy_difference(
    first: npt.NDArray[np.bool_],
    second: npt.NDArray[np.bool_],
    people: Labels,
    others: Labels | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Accuracy of `first` minus that of `second` on the same N trials, drawn by identity, as a share.

    people: (N,) whom the trial is about; others: (N,) the second person of it, the same for a genuine pair. A trial of
    two people counts as often as both were drawn (the pigeonhole bootstrap of Owen, 2007, which errs on the wide side).
    """
    if not first.shape == second.shape == people.shape:
        raise ValueError("the same trials are needed")
    gain = first.astype(np.float64) - second
    names, inverse = np.unique(np.concatenate([people, people if others is None else others]), return_inverse=True)
    one, two = inverse[: len(people)], inverse[len(people) :]
    drawn = np.empty(resamples)
    at_once = max(1, _AT_ONCE // max(len(people), len(names)))
    weights = identity_weights(len(names), resamples, seed)
    for start in range(0, resamples, at_once):
        part = weights[start : start + at_once]
        trial = np.where(one == two, part[:, one], part[:, one] * part[:, two]).astype(np.float64)
        drawn[start : start + at_once] = (trial @ gain) / np.maximum(trial.sum(axis=1), 1.0)
    return _percentile(float(gain.mean()), drawn)


def _percentile(value: float, drawn: Samples) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def _require(samples: Samples) -> None:
    if samples.ndim != 1 or len(samples) < 2 or not np.isfinite(samples).all():
        raise ValueError(f"two finite samples or more are needed, not an array of shape {samples.shape}")
