"""How far a measured figure can be trusted: exact intervals for rates, bootstrap intervals for anything else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating[Any]]

LEVEL = 0.95
_RESAMPLE_BYTES = 64 << 20
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the range that covers the truth with probability `level`."""

    value: float
    low: float
    high: float
    level: float = LEVEL

    def to_dict(self) -> dict[str, float]:
        """JSON-ready."""
        return {"value": self.value, "low": self.low, "high": self.high, "level": self.level}


@dataclass(frozen=True, slots=True)
class Rate:
    """`hits` of `count` trials, as a share with its Clopper–Pearson interval."""

    hits: int
    count: int
    low: float
    high: float
    level: float = LEVEL

    @classmethod
    def of(cls, hits: int, count: int, level: float = LEVEL) -> Rate:
        """The rate and its interval. Raises ValueError unless 0 ≤ hits ≤ count and count ≥ 1."""
        low, high = clopper_pearson(hits, count, level)
        return cls(int(hits), int(count), low, high, level)

    @property
    def value(self) -> float:
        """hits / count."""
        return self.hits / self.count

    def to_dict(self) -> dict[str, float | int]:
        """JSON-ready, shares in [0, 1]."""
        return {
            "value": self.value,
            "hits": self.hits,
            "count": self.count,
            "low": self.low,
            "high": self.high,
            "level": self.level,
        }

    def percent(self, digits: int = 2) -> str:
        """For people: "99.40 % [99.05, 99.64] (2982 of 3000)"."""
        low, high = (f"{100 * bound:.{digits}f}" for bound in (self.low, self.high))
        return f"{100 * self.value:.{digits}f} % [{low}, {high}] ({self.hits} of {self.count})"


def clopper_pearson(hits: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact two-sided interval of a binomial share (Clopper and Pearson, Biometrika 26, 1934).

    Its bounds are quantiles of beta distributions: B(α/2; k, n−k+1) and B(1−α/2; k+1, n−k).
    Raises ValueError unless 0 ≤ hits ≤ count, count ≥ 1 and 0 < level < 1.
    """
    if count < 1 or not 0 <= hits <= count or not 0.0 < level < 1.0:
        raise ValueError(f"no interval for {hits} of {count} at level {level}")
    tail = (1.0 - level) / 2.0
    low = 0.0 if hits == 0 else beta_quantile(tail, hits, count - hits + 1)
    # The upper bound by symmetry: the same left tail, so that a bound near 1 keeps its digits.
    high = 1.0 if hits == count else 1.0 - beta_quantile(tail, count - hits, hits + 1)
    return low, high


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), for a, b > 0 and x in [0, 1].

    Continued fraction DLMF 8.17.22 by the modified Lentz method; O(√max(a, b)) steps, tested to a + b = 10⁷.
    """
    if not (a > 0 and b > 0 and 0.0 <= x <= 1.0):
        raise ValueError(f"I_x(a, b) is not defined for x={x}, a={a}, b={b}")
    if x in (0.0, 1.0):
        return x
    # The fraction converges quickly left of the mean; I_x(a, b) = 1 − I_{1−x}(b, a) takes the right there.
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _left_of_mean(1.0 - x, b, a)
    return _left_of_mean(x, a, b)


def _left_of_mean(x: float, a: float, b: float) -> float:
    return math.exp(_log_density(x, a, b) + math.log(x) + math.log1p(-x)) / a * _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, 200_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + step * d
            c = 1.0 + step / c
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            return value
    raise ArithmeticError(f"the incomplete beta function did not converge for x={x}, a={a}, b={b}")


def _log_density(x: float, a: float, b: float) -> float:
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return (a - 1.0) * math.log(x) + (b - 1.0) * math.log1p(-x) - log_beta


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x in [0, 1] with I_x(a, b) = p: Newton's method, kept inside a bracket by bisection."""
    if not 0.0 < p < 1.0:
        raise ValueError(f"a quantile is asked at p in (0, 1), not {p}")
    low, high = 0.0, 1.0
    x = a / (a + b)
    for _ in range(200):
        error = incomplete_beta(x, a, b) - p
        if error > 0:
            high = x
        else:
            low = x
        density = math.exp(_log_density(x, a, b))
        new = x - error / density if density > _TINY else -1.0
        if not low < new < high:
            # Far in a tail the bracket spans decades: its geometric middle gets there, the arithmetic one does not.
            new = math.sqrt(low * high) if low > 0 and high > 4 * low else (low + high) / 2
        if new == 1.0:
            return x  # no number lies between it and 1, where there is no density
        if abs(new - x) <= 1e-13 * min(new, 1.0 - new):  # near 1 it is what is left to 1 that has to be right
            return new
        x = new
    return x


def bootstrap_interval(
    values: Values,
    statistic: Callable[[Values], Values],
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap (Efron and Tibshirani, 1993, ch. 13) of a statistic of independent samples.

    values: (n, …); rows are drawn. statistic: takes (R, n, …) and gives (R,), so that it runs on many draws at once;
    for a median, `lambda draws: np.median(draws, axis=1)`. The same seed gives the same interval.
    Raises ValueError for fewer than two samples.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"a bootstrap needs two samples or more, not {n}")
    random = np.random.default_rng(seed)
    at_once = max(1, min(resamples, _RESAMPLE_BYTES // max(1, values.nbytes + 8 * n)))
    results = np.empty(resamples)
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        results[start : start + size] = statistic(values[random.integers(0, n, (size, n))])
    low, high = np.quantile(results, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0])
    return Interval(float(statistic(values[None])[0]), float(low), float(high))
