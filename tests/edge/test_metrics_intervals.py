from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from edge.metrics.intervals import Rate, beta_quantile, bootstrap_interval, clopper_pearson, incomplete_beta

special = pytest.importorskip("scipy.special", reason="needs scipy: pip install 'arcedge[report]'")
stats = pytest.importorskip("scipy.stats")


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    count = draw(st.one_of(st.integers(1, 50), st.integers(1, 10_000), st.integers(1, 10_000_000)))
    return draw(st.integers(0, count)), count


@given(counts(), st.sampled_from([0.8, 0.95, 0.99]))
def test_clopper_pearson_is_scipys(trial: tuple[int, int], level: float) -> None:
    hits, count = trial
    low, high = clopper_pearson(hits, count, level)
    tail = (1 - level) / 2
    expected_low = stats.beta.ppf(tail, hits, count - hits + 1) if hits else 0.0
    expected_miss = stats.beta.ppf(tail, count - hits, hits + 1) if hits < count else 0.0
    assert low == pytest.approx(expected_low, rel=1e-6, abs=1e-12)
    assert 1 - high == pytest.approx(expected_miss, rel=1e-6, abs=1e-12)
    assert low <= hits / count <= high


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.05, 1e6), st.floats(0.05, 1e6))
def test_incomplete_beta_is_scipys(x: float, a: float, b: float) -> None:
    assert incomplete_beta(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-6, abs=1e-9)


@example(0.99999, 1951.0, 0.5)  # 3e-14 below 1
@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.5, 1e5), st.floats(0.5, 1e5))
def test_quantile_inverts(p: float, a: float, b: float) -> None:
    # Nearer to 1 than that, floats lie too far apart for an inverse.
    assume(special.betaincinv(b, a, 1 - p) > 1e-14)
    assert special.betainc(a, b, beta_quantile(p, a, b)) == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize("a", [7075.0, 28298.0, 1e5])
def test_a_quantile_nearer_to_one_than_any_number_is_the_largest_below(a: float) -> None:
    assert 1 - 4e-16 < beta_quantile(0.999999, a, 0.5) < 1


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [
        (14, 14, 0.7683642, 1.0),  # (α/2)^(1/n): the original pipeline's "100 %"
        (0, 14, 0.0, 0.2316358),
        (1, 2, 0.0125791, 0.9874209),
        (5_000_000, 10_000_000, 0.49969006, 0.50030994),
        (3, 10_000_000, 6.186721e-8, 8.767269e-7),
    ],
)
def test_known_intervals(hits: int, count: int, low: float, high: float) -> None:
    assert clopper_pearson(hits, count) == pytest.approx((low, high), rel=1e-5)


@pytest.mark.parametrize(("hits", "count", "level"), [(-1, 5, 0.95), (6, 5, 0.95), (0, 0, 0.95), (1, 5, 1.0)])
def test_impossible_trials_are_refused(hits: int, count: int, level: float) -> None:
    with pytest.raises(ValueError, match="no interval"):
        clopper_pearson(hits, count, level)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    random, truth = np.random.default_rng(1), 0.97
    drawn = random.binomial(300, truth, 4000)
    bounds = {hits: clopper_pearson(int(hits), 300) for hits in np.unique(drawn)}
    covered = np.mean([bounds[hits][0] <= truth <= bounds[hits][1] for hits in drawn])
    assert covered >= 0.95


def test_a_rate_says_its_count_and_interval() -> None:
    assert Rate.of(2982, 3000).percent() == "99.40 % [99.05, 99.64] (2982 of 3000)"


def test_bootstrap_of_a_mean_has_the_width_of_theory_and_covers() -> None:
    random = np.random.default_rng(5)
    covered, widths = 0, []
    for seed in range(100):
        interval = bootstrap_interval(random.normal(3.0, 2.0, 200), lambda d: d.mean(axis=1), resamples=400, seed=seed)
        covered += interval.low <= 3.0 <= interval.high
        widths.append(interval.high - interval.low)
    assert 88 <= covered <= 99
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 2.0 / math.sqrt(200), rel=0.06)


def test_bootstrap_repeats_and_gives_the_statistic_itself() -> None:
    values = np.arange(10.0)
    first = bootstrap_interval(values, lambda d: np.median(d, axis=1), seed=3)
    assert first == bootstrap_interval(values, lambda d: np.median(d, axis=1), seed=3)
    assert first.value == 4.5
    with pytest.raises(ValueError, match="two samples"):
        bootstrap_interval(values[:1], lambda d: d.mean(axis=1))
