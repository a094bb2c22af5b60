from __future__ import annotations

import time

import numpy as np
import pytest
from clock import Clock

from benchmarks.interleave import Plan, Stopwatch, find_warm_up, interleave
from edge.errors import InputError


def sleeper(seconds: float, log: list[str], name: str):
    def run(_: int, watch: Stopwatch) -> None:
        log.append(name)
        watch.time("work", lambda: time.sleep(seconds))

    return run


def test_every_round_runs_each_candidate_once_in_changing_order() -> None:
    log: list[str] = []
    candidates = {name: sleeper(0.0, log, name) for name in "abc"}
    result = interleave(candidates, Plan(seconds=0, min_rounds=60))
    rounds = ["".join(log[i : i + 3]) for i in range(0, len(log), 3)]
    assert len(rounds) == 60
    assert {"".join(sorted(order)) for order in rounds} == {"abc"}
    assert len(set(rounds)) == 6
    assert result.rounds + result.warm_up == 60
    assert all(len(result.timings[name].wall["work"]) == result.rounds for name in "abc")


def test_wall_time_and_processor_time_are_told_apart() -> None:
    def spin(_: int, watch: Stopwatch) -> None:
        watch.time("sleep", lambda: time.sleep(0.01))
        watch.time("spin", lambda: sum(range(200_000)))

    timing = interleave({"a": spin}, Plan(seconds=0, min_rounds=10)).timings["a"]
    assert np.median(timing.wall["sleep"]) >= 0.01
    assert np.median(timing.cpu["sleep"]) < 0.005
    assert np.median(timing.cpu["spin"]) > 0.5 * timing.wall["spin"].min()


def test_time_ends_the_run_and_progress_reaches_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("benchmarks.interleave.time", clock)
    told: list[float] = []
    work = {"a": lambda _, watch: watch.time("work", lambda: clock.sleep(0.005))}
    result = interleave(work, Plan(seconds=0.3, min_rounds=10), told.append)
    assert result.rounds + result.warm_up in (60, 61), "the last one begins before the time is over"
    assert result.seconds == pytest.approx(0.3, abs=0.006)
    assert told == sorted(told)
    assert told[-1] > 0.9
    few = interleave({"a": lambda _, watch: watch.time("work", lambda: clock.sleep(0.2))}, Plan(0.3, min_rounds=10))
    assert few.rounds + few.warm_up == 10, "time is up after two, and fewer than ten tell nothing"


def test_a_start_that_is_quicker_than_the_rest_is_no_warm_up() -> None:
    random = np.random.default_rng(1)
    samples = np.concatenate([np.full(20, 0.8), np.full(180, 1.0)]) * random.normal(1, 0.01, 200)
    assert find_warm_up(samples) == (0, True)


@pytest.mark.parametrize("warm", [0, 7, 40])
def test_warm_up_is_found_where_it_ends(warm: int) -> None:
    random = np.random.default_rng(warm)
    samples = random.normal(1.0, 0.03, 300)
    samples[:warm] *= np.linspace(3.0, 1.3, warm)
    samples[random.integers(60, 300, 6)] *= 5  # hiccups later on are no warm-up
    cut, settled = find_warm_up(samples)
    assert settled
    assert abs(cut - warm) <= 2


def test_what_never_settles_says_so() -> None:
    _, settled = find_warm_up(np.linspace(3.0, 1.0, 300))
    assert not settled


def test_a_candidate_must_time_the_same_parts_each_round() -> None:
    def moody(i: int, watch: Stopwatch) -> None:
        watch.time("odd" if i % 2 else "even", lambda: None)

    with pytest.raises(ValueError, match="same parts"):
        interleave({"a": moody}, Plan(seconds=0, min_rounds=10))


def test_an_impossible_plan_is_refused() -> None:
    with pytest.raises(InputError):
        Plan(min_rounds=5)
