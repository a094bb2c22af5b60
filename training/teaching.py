"""Teaching one module of a network alone: what both cascades, of the embedder and of the detector, are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.muon import Muon
from training.running import rate_at

STATISTICS = 512
"""Samples BatchNorm's statistics are measured on."""
CHUNK = 32


@dataclass(frozen=True, slots=True)
class Lesson:
    """How one module learns: updates, samples an update, learning rate at the top of its ramp, updates up to there.

    After the ramp the rate falls to zero in a straight line. moving: share of the updates in which BatchNorm takes the
    statistics of the batch; they are measured once then, and held. Small batches of unlike pictures want that early:
    what is taught is a function of one picture, and their statistics are not.
    """

    steps: int
    batch: int
    lr: float = 1e-2
    warmup: int = 15
    moving: float = 1.0


def teach(
    module: nn.Module,
    features: Tensor,
    loss: Callable[[Any, Tensor], Tensor],
    lesson: Lesson,
    rng: np.random.Generator,
) -> float:
    """Teaches a module in place, and leaves it in evaluation mode; the mean loss of its last tenth of updates.

    features: (N, …) float16, what it is fed with. loss: (the module's output, its rows, int64 below N) → the loss.
    """
    optimizer = Muon(module.parameters())
    losses = []
    module.train()
    for step in range(lesson.steps):
        if module.training and step >= lesson.moving * lesson.steps:
            _settle(module, features, rng)
        rows = torch.from_numpy(rng.choice(len(features), min(lesson.batch, len(features)), replace=False))
        error = loss(module(as_float(features[rows])), rows)
        module.zero_grad(set_to_none=True)
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step(rate_at(step, lesson.steps, lesson.lr, lesson.warmup))
        losses.append(float(error.detach()))
    if module.training:
        _settle(module, features, rng)
    module.zero_grad(set_to_none=True)
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))


def _settle(module: nn.Module, features: Tensor, rng: np.random.Generator) -> None:
    rows = torch.from_numpy(rng.permutation(len(features))[:STATISTICS])
    measure_statistics(module, (as_float(features[part]) for part in torch.split(rows, CHUNK)))
    module.eval()


@torch.no_grad()
def measure_statistics(module: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Sets every BatchNorm's running statistics to their mean over batches of inputs, for the weights as they are."""
    norms = [m for m in module.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    momenta = [norm.momentum for norm in norms]
    mode = module.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
    module.train()
    for x in inputs:
        module(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.train(mode)


def as_float(features: Tensor) -> Tensor:
    """Features kept as float16, as a network takes them: float32, channels last."""
    wide = features.float()
    return wide.contiguous(memory_format=torch.channels_last) if wide.ndim == 4 else wide


def rows_like(count: int, example: Tensor, dtype: torch.dtype) -> Tensor:
    """Room for `count` samples of the shape that those of a batch have; nothing is written to it."""
    return torch.empty((count, *example.shape[1:]), dtype=dtype)
