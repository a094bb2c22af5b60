"""What decides how fine-tuning goes, and what it reports of each epoch. Without torch, so that `--help` can show it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edge.errors import InputError

MarginKind = Literal["arcface", "cosface"]

LAYERS = (
    "conv1", "conv2_dw", "conv_23", "conv_3", "conv_34", "conv_4", "conv_45", "conv_5", "conv_6_sep", "conv_6_dw",
    "linear", "bn",
)  # fmt: skip
TRAIN_FROM = (*LAYERS[:-1], "head")
"""Where training may begin: a layer, with all that follow it, or the head alone."""

BatchNormPolicy = Literal["frozen", "running"]


@dataclass(frozen=True, slots=True)
class FinetuneOptions:
    """learning_rate: of the head; the network's is `body_rate` times it. margin: radians (ArcFace) or cosine (CosFace).

    distill, rehearse: weight of 1 − cosine to the base's embedding, on photos and on rehearsal crops. patience: epochs
    without a better validation after which training stops.
    """

    epochs: int = 12
    learning_rate: float = 1e-3
    body_rate: float = 0.1
    batch: int = 32
    seed: int = 0
    head: MarginKind = "arcface"
    margin: float = 0.3
    scale: float = 32.0
    train_from: str = "conv_6_sep"
    batchnorm: BatchNormPolicy = "frozen"
    distill: float = 2.0
    rehearse: float = 20.0
    weight_decay: float = 1e-4
    patience: int = 8

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or self.patience < 1:
            raise InputError("epochs and patience are 1 or more, and a batch holds 2 photos or more")
        if self.learning_rate <= 0 or self.body_rate < 0 or min(self.distill, self.rehearse, self.weight_decay) < 0:
            raise InputError("a learning rate lies above 0, and no rate or weight below it")
        if not 0 <= self.margin < math.pi / 2 or not self.scale > 0:
            raise InputError(f"a margin lies in [0, π/2) and a scale above 0, not {self.margin:g} and {self.scale:g}")
        if self.train_from not in TRAIN_FROM:
            raise InputError(f"no layer is called {self.train_from!r}; training begins at {', '.join(TRAIN_FROM)}")


@dataclass(frozen=True, slots=True)
class EpochRow:
    """A line of `history.csv`. Epoch 0 is the base with a head of class means, before any update.

    loss: mean over the epoch's updates, of all parts; margin: its margin loss; distill, rehearse: mean 1 − cosine to
    the base. valid_accuracy: share of validation photos; valid_gap: mean cosine to the right axis less the best wrong.
    """

    epoch: int
    learning_rate: float
    loss: float
    margin: float
    distill: float
    rehearse: float
    valid_accuracy: float
    valid_gap: float

    @property
    def worth(self) -> tuple[float, float]:
        """What the best epoch is chosen by; with no validation photo every epoch is better than the one before."""
        return (self.valid_accuracy, self.valid_gap) if self.valid_accuracy >= 0 else (float(self.epoch), 0.0)
