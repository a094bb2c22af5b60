"""What decides a distillation, besides the crops and the teacher, and what it says of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from training.distill.losses import LossWeights

FIXED = ("seed", "batch", "workers", "bank", "hold_out", "bf16", "start")
"""The parts of a recipe that a run cannot change on the way."""
GENTLY = 0.25
"""How often a crop loses something of what is to be seen, as a share of how often it does elsewhere (`augment`)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what comes out, besides the crops and the teacher."""

    seed: int = 0
    batch: int = 32
    workers: int = 2
    """Threads that share a batch, each with a copy of the network; part of the recipe, for it splits the batch."""
    bank: int = 4096
    """Augmented crops the blocks learn from in the first phase; a megabyte of memory each."""
    block_steps: int = 2500
    """Steps of each block in the first phase; the stem gets three times as many."""
    block_lr: float = 1e-2
    steps: int = 10_000
    """Steps of the second phase: the learning rate falls to zero over them."""
    gentle: float = 0.0
    """Share of the second phase, its last, in which crops are spoilt `GENTLY`. What it brings was not measured."""
    lr: float = 1.2e-3
    warmup: int = 200
    clip: float = 5.0
    """Longest gradient an update is made from."""
    ema: float = 0.998
    """Share of the averaged weights that stays at each step."""
    hold_out: int = 64
    """One identity in so many is never trained on, and shows how well the student agrees with the teacher."""
    bf16: bool = False
    """Whether the second phase multiplies in bfloat16; weights, their updates and the loss stay float32."""
    start: str = ""
    """SHA-256 of the weights the second phase began from, without a first; empty for random ones."""
    weights: LossWeights = field(default_factory=LossWeights)

    def learning_rate(self, step: int) -> float:
        """Of the second phase: linear warm-up, then half a cosine down to zero after the last step."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    def spoil(self, step: int) -> float:
        """How often crops of a step of the second phase are spoilt; see `augment`."""
        return GENTLY if step >= (1.0 - self.gentle) * self.steps else 1.0
