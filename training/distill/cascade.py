"""The first phase: the student's blocks taught one after the other, each until it answers as the teacher's does.

A block is fed with what the blocks before it, already taught, make of the crops, and is asked for the teacher's output
at its place: so it learns to mend what they miss, and the blocks fit together from the beginning. Small problems on
features that lie in memory are far quicker than one deep one: nothing flows through the rest of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from training.distill.blocks import BLOCK_NAMES, run_frozen, student_blocks
from training.distill.losses import relational_error, relative_error
from training.mobilefacenet import MobileFaceNet
from training.teaching import CHUNK, Lesson, as_float, rows_like, teach

HEAD = "head"
STEPS: tuple[str, ...] = (*BLOCK_NAMES, HEAD)

BATCHES = {"conv_23": 4, "conv_3": 4, "conv_34": 4, "conv_4": 8, "conv_45": 8, "conv_5": 16, "conv_6_sep": 16}
"""Crops a step, by the group a block belongs to, where its map has many places: each place is a sample, so that four
crops of 28×28 say as much as sixty-four of 7×7. What time there is goes into more steps: the stem comes to a relative
error of 3.4 % in 1,600 steps of 4 crops, and to 7.0 % in 400 of 16, in the same time."""
FEW_PLACES_BATCH = 64
"""Crops a step of the blocks that leave one place of a crop: the global depthwise convolution, and the head."""
STEM_SHARE = 3
"""Times as many steps for the stem: every block after it is fed with what it misses."""
MOVING = 0.2
"""See `Lesson.moving`: the statistics of four crops are noise; held early, the stem's error is half."""


def lesson_of(name: str, steps: int, rate: float) -> Lesson:
    """How block `name` (or `HEAD`) learns, where a block in the middle of the network gets `steps` updates."""
    group = name.partition(".")[0]
    share = STEM_SHARE if name == BLOCK_NAMES[0] else 1
    return Lesson(share * steps, BATCHES.get(group, FEW_PLACES_BATCH), rate, moving=MOVING)


@dataclass(slots=True)
class Bank:
    """Crops and the teacher's answers to them. Features are float16: half the memory, and an error far below theirs.

    inputs: (N, 3, 112, 112) float16 as the student takes them. blocks: name → (N, C, H, W) float16. targets: (N, D)
    float32 of unit length. About a megabyte a crop.
    """

    inputs: Tensor
    blocks: dict[str, Tensor]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)


def learn_block(
    student: MobileFaceNet, name: str, features: Tensor, bank: Bank, lesson: Lesson, rng: np.random.Generator
) -> float:
    """Teaches one block (or `HEAD`) in place; the mean loss of its last tenth of steps.

    features: (N, C, H, W) float16, what the blocks before make of the bank's crops.
    """
    module: nn.Module = _Head(student) if name == HEAD else dict(student_blocks(student))[name]
    error = _head_error if name == HEAD else relative_error
    targets = bank.targets if name == HEAD else bank.blocks[name]
    return teach(module, features, lambda output, rows: error(output, targets[rows].float()), lesson, rng)


@torch.no_grad()
def advance(student: MobileFaceNet, name: str, features: Tensor) -> Tensor:
    """What block `name`, already taught, makes of `features`: float16, chunk by chunk."""
    block = dict(student_blocks(student))[name]
    return torch.cat([run_frozen(block, as_float(chunk)).half() for chunk in torch.split(features, CHUNK)])


def fill_bank(
    count: int, batches: Iterator[Tensor], answer: Callable[[Tensor], tuple[Tensor, dict[str, Tensor], Tensor]]
) -> Bank:
    """A bank of the `count` crops that come in `batches` of pixels.

    answer: pixels → (the student's input, the teacher's blocks, the target). Everything is written to where it stays:
    joining the parts at the end would take twice the memory.
    """
    bank: Bank | None = None
    start = 0
    for pixels in batches:
        inputs, blocks, target = answer(pixels)
        if bank is None:
            places = {name: rows_like(count, blocks[name], torch.float16) for name in BLOCK_NAMES}
            bank = Bank(rows_like(count, inputs, torch.float16), places, rows_like(count, target, torch.float32))
        rows = slice(start, start + len(pixels))
        bank.inputs[rows], bank.targets[rows] = inputs, target
        for name in BLOCK_NAMES:
            bank.blocks[name][rows] = blocks[name]
        start = rows.stop
    if bank is None or start != count:
        raise ValueError(f"{start} crops came, {count} were to come")
    return bank


class _Head(nn.Module):
    """What follows the global depthwise convolution, as a block: (N, 512, 1, 1) → (N, D)."""

    def __init__(self, student: MobileFaceNet) -> None:
        super().__init__()
        self.linear, self.bn = student.linear, student.bn

    def forward(self, pooled: Tensor) -> Tensor:
        return self.bn(self.linear(pooled.flatten(1)))  # type: ignore[no-any-return]


def _head_error(embedding: Tensor, target: Tensor) -> Tensor:
    unit = normalize(embedding, dim=1)
    return 1.0 - (unit * target).sum(dim=1).mean() + 4.0 * relational_error(unit, target)
