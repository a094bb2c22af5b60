"""Finished weights as the beginning of another second phase.

Shipped weights are equalised (`training/equalise.py`): channels of the stages the teacher is compared at have lost the
teacher's scale, though the function is the same. And they are centred (`training/centring.py`): their mean embedding is
not the teacher's. A run that began there would spend its steps on undoing both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from training.distill.blocks import chain_features, run_frozen
from training.equalise import usual_scale
from training.mobilefacenet import ConvBlock, LinearBlock, MobileFaceNet

REACH = 32.0
"""Largest factor, either way, that a channel's scale is changed by."""
SILENT = 1e-9
"""A channel whose energy is below this share of the mean one says nothing."""


class _Answered(Protocol):
    @property
    def blocks(self) -> Mapping[str, Tensor]: ...


@torch.no_grad()
def fit_mean(student: MobileFaceNet, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Gives the student the teacher's mean embedding, in place, by the bias of its last layer.

    batches: what the student takes, (N, 3, 112, 112) in [-1, 1], and the embeddings it is asked for, (N, D) of unit
    length. The student's own length is kept: the bias b and the factor s that leave least of Σ ‖e + b − s·t‖².
    """
    pairs = [(student.features(x), target) for x, target in batches]
    own, asked = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    mean, goal = own.mean(dim=0), asked.mean(dim=0)
    spread = asked - goal
    scale = ((own - mean) * spread).sum() / spread.square().sum().clamp_min(1e-12)
    student.bn.bias.add_(scale * goal - mean)


@torch.no_grad()
def fit_stage_scales(student: MobileFaceNet, batches: Iterable[tuple[Tensor, _Answered]]) -> None:
    """Gives the channels of the last two stages the scale of the teacher's, in place.

    The function stays, but for what channels say that had been blown up, see below.

    batches: what the student takes, (N, 3, 112, 112) in [-1, 1], and what the teacher says of it. The factor of a
    channel is the least-squares one, Σ s·t / Σ s². A channel keeps its scale where that is not within `REACH`: they
    contradict each other, or one of them is silent there, and the next layer's weights would have to be huge. But where
    its own weights are then more than `REACH` times as long as those of the other channels they are brought to their
    length, and the next layer stays: such a channel speaks on one crop in a thousand, and its error there drowned the
    gradient of all others. Earlier stages end in residual sums, whose scale equalisation does not touch.
    """
    links: dict[str, tuple[ConvBlock | LinearBlock, Tensor, int]] = {
        "conv_6_sep": (student.conv_6_sep, student.conv_6_dw.conv.weight, 0),
        "conv_6_dw": (student.conv_6_dw, student.linear.weight, 1),
    }
    across = {name: torch.zeros(producer.bn.num_features) for name, (producer, _, _) in links.items()}
    own = {name: torch.zeros_like(sums) for name, sums in across.items()}
    for x, answer in batches:
        outputs, _ = chain_features(student, x, run_frozen)
        for name in links:
            across[name] += (outputs[name] * answer.blocks[name]).sum(dim=(0, 2, 3))
            own[name] += outputs[name].square().sum(dim=(0, 2, 3))
    for name, (producer, taking, axis) in links.items():
        factor = across[name] / own[name]
        silent = own[name] <= SILENT * own[name].mean()
        fitted = (factor > 1 / REACH) & (factor < REACH) & ~silent
        factor = torch.where(fitted, factor, torch.ones_like(factor))
        usual = usual_scale(producer, factor, fitted)
        cut = torch.where(~fitted & (usual < 1 / REACH), usual, factor)
        producer.bn.weight.mul_(cut)
        producer.bn.bias.mul_(cut)
        taking.div_(factor.view([-1 if at == axis else 1 for at in range(taking.ndim)]))
