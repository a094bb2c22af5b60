"""What a training will take, said before it begins: steps are timed on copies, which are thrown away."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def seconds_of(step: Callable[[], object]) -> float:
    """Of one step, the quicker of two, after one to warm up.

    The random numbers that PyTorch draws next are those it would have drawn.
    """
    times = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(3):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
    return min(times[1:])


def duration(seconds: float) -> str:
    """In words: seconds below 100, else minutes."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
