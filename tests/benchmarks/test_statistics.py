from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.statistics import (
    accuracy_difference,
    mcnemar,
    quantiles,
    ratio_of_medians,
    speedup,
)


def test_quantiles_of_a_known_distribution_lie_in_their_intervals() -> None:
    random = np.random.default_rng(0)
    covered = {"p50": 0, "p90": 0, "p95": 0}
    for seed in range(60):
        found = quantiles(random.exponential(1.0, 400), seed)
        for name in covered:
            interval = found.values[name]
            assert interval is not None
            covered[name] += interval.low <= -np.log(1 - int(name[1:]) / 100) <= interval.high
    assert all(count >= 50 for count in covered.values()), covered


def test_a_quantile_without_enough_samples_is_not_given() -> None:
    assert quantiles(np.arange(199.0)).values["p99"] is None
    enough = quantiles(np.arange(200.0)).values["p99"]
    assert enough is not None
    assert enough.value == pytest.approx(197.01)
    few = quantiles(np.arange(10.0))
    assert few.values["p90"] is None
    assert few.count == 10
    assert few.minimum == 0.0


def test_a_drift_that_hits_both_leaves_their_ratio_alone() -> None:
    random = np.random.default_rng(1)
    drift = np.linspace(1.0, 3.0, 300)
    slow, fast = 2.4 * drift * random.normal(1, 0.02, 300), drift * random.normal(1, 0.02, 300)
    together, apart = speedup(slow, fast), ratio_of_medians(slow, fast)
    assert together.low < 2.4 < together.high
    assert together.high - together.low < 0.2 < apart.high - apart.low


def test_frames_of_unlike_content_leave_their_ratio_alone() -> None:
    random = np.random.default_rng(8)
    faces = np.tile([1.0, 1.0, 6.0, 12.0], 50)
    slow, fast = 2.4 * faces * random.normal(1, 0.02, 200), faces * random.normal(1, 0.02, 200)
    found = speedup(slow, fast)
    assert found.low < 2.4 < found.high
    assert found.high - found.low < 0.05


def test_blocks_widen_the_interval_of_samples_that_resemble_their_neighbours() -> None:
    random = np.random.default_rng(2)
    noise, wave = random.normal(size=500), np.empty(500)
    wave[0] = noise[0]
    for i in range(1, 500):
        wave[i] = 0.9 * wave[i - 1] + noise[i] * np.sqrt(1 - 0.81)
    correlated, shuffled = quantiles(wave).values["p50"], quantiles(random.permutation(wave)).values["p50"]
    assert correlated is not None
    assert shuffled is not None
    assert correlated.high - correlated.low > 1.5 * (shuffled.high - shuffled.low)


def test_a_known_regression_is_found_and_a_null_one_is_not() -> None:
    random = np.random.default_rng(3)
    null_found = real_found = 0
    for seed in range(40):
        old, same, slower = random.lognormal(0, 0.1, (3, 200))
        null = ratio_of_medians(same, old, seed)
        real = ratio_of_medians(1.1 * slower, old, seed)
        null_found += null.low > 1.0 or null.high < 1.0
        real_found += real.low > 1.0
    assert null_found <= 6
    assert real_found == 40


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5))
def test_mcnemar_is_scipys_binomial_test(b: int, c: int, both: int) -> None:
    first = np.array([True] * b + [False] * c + [True] * both, dtype=bool)
    second = np.array([False] * b + [True] * c + [True] * both, dtype=bool)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (b, c)
    assert found.p == pytest.approx(stats.binomtest(b, b + c).pvalue if b + c else 1.0, rel=1e-9)


def test_mcnemar_of_many_trials_does_not_underflow() -> None:
    first = np.zeros(20_000, bool)
    first[:10_400] = True
    assert mcnemar(first, ~first).p == pytest.approx(stats.binomtest(9_600, 20_000).pvalue, rel=1e-6)


def simulated_trials(loss: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    people = np.repeat(np.arange(150), 10)
    first = random.random(1500) < 0.97
    second = first & (random.random(1500) >= loss)
    return first, second, people


def test_a_loss_of_accuracy_is_found_and_covered() -> None:
    random = np.random.default_rng(4)
    covered = 0
    for seed in range(50):
        first, second, people = simulated_trials(0.03, random)
        found = accuracy_difference(first, second, people, seed=seed, resamples=500)
        assert found.low > 0
        assert found.value == pytest.approx(first.mean() - second.mean())
        covered += found.low <= 0.97 * 0.03 <= found.high
    assert 43 <= covered <= 50


def test_no_loss_is_not_found() -> None:
    random = np.random.default_rng(5)
    found = 0
    for seed in range(60):
        people = np.repeat(np.arange(150), 10)
        first, second = random.random((2, 1500)) < 0.97
        gain = accuracy_difference(first, second, people, seed=seed, resamples=500)
        found += not gain.low <= 0 <= gain.high
    assert found <= 8
    same = accuracy_difference(first, first, people)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_errors_of_one_person_weigh_less_than_errors_of_many() -> None:
    # 40 trials lost: all of one person's, or spread over forty people. Only the second generalises.
    people = np.repeat(np.arange(100), 40)
    right = np.ones(4000, bool)
    one_person, spread = right.copy(), right.copy()
    one_person[:40] = False
    spread[::100] = False
    clustered = accuracy_difference(right, one_person, people)
    independent = accuracy_difference(right, spread, people)
    assert clustered.value == independent.value == pytest.approx(0.01)
    assert clustered.low == 0.0
    assert independent.low > 0.005


def test_pairs_of_two_people_count_as_often_as_both_were_drawn() -> None:
    people, others = np.array([0, 1, 2, 0]), np.array([0, 1, 2, 1])
    first, second = np.array([True] * 4), np.array([True, True, True, False])
    found = accuracy_difference(first, second, people, others, resamples=4000)
    assert found.value == 0.25
    # Without both people 0 and 1 in a draw the lost pair is not there; with 0 twice and 1 once it counts 2 of 5.
    assert found.low == 0.0
    assert found.high == pytest.approx(2 / 5)
