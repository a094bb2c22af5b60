"""Processor time of models on this machine, measured in turns, so that whatever else runs here hits all alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from edge.auto.choice import this_machine
from edge.engines import SessionOptions, get_engine, open_session
from edge.metrics.intervals import Interval, bootstrap_interval
from edge.types import Image

ROUNDS, WARM_UP = 40, 4
ENGINE = "onnxruntime"

Samples = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Latencies:
    """samples: by model, (rounds,) milliseconds of processor time; row i of every model is of one round."""

    samples: Mapping[str, Samples]

    def median(self, name: str) -> Interval:
        """Milliseconds a run, with the 95 % interval of the median."""
        return _median(self.samples[name])

    def dearer(self, name: str, than: str) -> Interval:
        """Milliseconds more than another model, compared round by round."""
        return _median(self.samples[name] - self.samples[than])


def processor_times(
    models: Mapping[str, bytes], pixels: Image, *, rounds: int = ROUNDS, quiet: bool = False
) -> Latencies:
    """Every model once a round, in an order drawn anew, one thread, ONNX Runtime. pixels: (1, H, W, 3) uint8.

    Processor time of the process, not the clock on the wall: a busy machine lengthens the latter without end.
    """
    random = np.random.default_rng(0)
    found: dict[str, list[float]] = {name: [] for name in models}
    with ExitStack() as opened:
        sessions = {
            name: opened.enter_context(open_session(data, ENGINE, SessionOptions(threads=1)))
            for name, data in models.items()
        }
        feeds = {name: {session.inputs[0].name: pixels} for name, session in sessions.items()}
        names = list(models)
        for _ in tqdm(range(rounds + WARM_UP), desc="processor time", unit="round", disable=quiet, leave=False):
            for i in random.permutation(len(names)):
                name = names[i]
                started = time.process_time_ns()
                sessions[name].run(feeds[name])
                found[name].append((time.process_time_ns() - started) * 1e-6)
    return Latencies({name: np.array(values[WARM_UP:]) for name, values in found.items()})


def measured_on() -> str:
    """Engine and machine that `processor_times` speaks of, in a line."""
    return f"ONNX Runtime {get_engine(ENGINE).version()}, one thread, {this_machine()}"


def _median(samples: Samples) -> Interval:
    return bootstrap_interval(samples, lambda draws: np.median(draws, axis=1), resamples=1000)
