"""Teaching one module of a network alone: what both cascades, of the embedder and of the detector, are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.muon import Muon


@dataclass(frozen=True, slots=True)
class Lesson:
    """How one module learns: updates, samples an update, learning rate at the top of its ramp, updates up to there.

    After the ramp the rate falls to zero in a straight line.
    """

    steps: int
    batch: int
    lr: float = 1e-2
    warmup: int = 15


def teach(
    module: nn.Module, loss: Callable[[Tensor], Tensor], count: int, lesson: Lesson, rng: np.random.Generator
) -> float:
    """Teaches a module in place; the mean loss of its last tenth of updates.

    loss: rows, int64 below `count`, → the loss over these samples, with BatchNorm on the statistics of the batch.
    """
    optimizer = Muon(module.parameters())
    losses = []
    module.train()
    for step in range(lesson.steps):
        rows = torch.from_numpy(rng.choice(count, min(lesson.batch, count), replace=False))
        error = loss(rows)
        module.zero_grad(set_to_none=True)
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step(lesson.lr * min(1.0, (step + 1) / lesson.warmup) * (1.0 - step / lesson.steps))
        losses.append(float(error.detach()))
    module.eval()
    module.zero_grad(set_to_none=True)
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))


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
    return features.float().contiguous(memory_format=torch.channels_last)
