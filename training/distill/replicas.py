"""Copies of one network for threads that share a batch, and the statistics of its BatchNorm layers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from training.mobilefacenet import MobileFaceNet


def replicate(student: MobileFaceNet, count: int) -> list[MobileFaceNet]:
    """The student and `count - 1` copies with gradients and statistics of their own, over the very same parameters.

    Two threads with a copy each, one core a thread, are a third faster on a CPU than one network on two cores, and
    suffer less where other programs want the cores: they wait for each other once a step and not at every layer.
    """
    replicas = [student]
    for _ in range(count - 1):
        replica = copy.deepcopy(student)
        for mine, shared in zip(replica.parameters(), student.parameters(), strict=True):
            mine.data = shared.data
        replicas.append(replica)
    return replicas


@torch.no_grad()
def gather_gradients(replicas: list[MobileFaceNet]) -> None:
    """Leaves the mean of all replicas' gradients in the first, always added in the same order."""
    mine = _gradients(replicas[0])
    for replica in replicas[1:]:
        torch._foreach_add_(mine, _gradients(replica))
    torch._foreach_div_(mine, len(replicas))


@torch.no_grad()
def copy_statistics(replicas: list[MobileFaceNet]) -> None:
    """Gives all replicas the running statistics of the first."""
    for replica in replicas[1:]:
        torch._foreach_copy_(_statistics(replica), _statistics(replicas[0]))


def _gradients(student: MobileFaceNet) -> list[Tensor]:
    return [parameter.grad for parameter in student.parameters() if parameter.grad is not None]


def _statistics(student: MobileFaceNet) -> list[Tensor]:
    return [buffer for buffer in student.buffers() if buffer.is_floating_point()]
