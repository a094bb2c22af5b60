"""The first phase: the network's units taught one after the other, each until it answers as YuNet-s's does.

A unit is fed with what the units before it, already taught, make of the samples, so that it learns to mend what they
miss. Features lie in memory, and nothing flows through the rest of the network.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge.detect.decode import STRIDES
from training.detector.augment import Sample
from training.detector.losses import Answers, distillation_loss, head_error
from training.detector.network import OUTPUT_NAMES, EdgeDetector
from training.detector.teacher import TAPS, Teacher
from training.teaching import Lesson, as_float, rows_like, teach

CHUNK = 8
"""Samples that features are computed for at once."""

PLACES = 6400
FEWEST, MOST = 2, 32
"""An update sees about so many places of a unit's map, in so many samples at least and at most: many small updates of
the wide maps near the picture, whose neighbouring places say much the same, bring more than few large ones."""

MOVING = 0.2

UNITS: tuple[str, ...] = (*TAPS, "heads")
"""What is taught, in this order."""


@dataclass(slots=True)
class Bank:
    """Samples and the teacher's answers to them.

    images: (N, 3, S, S) float16 pixels 0–255. features: what its units give, by the names of `TAPS`, float16. heads:
    its outputs by `OUTPUT_NAMES`, float32.
    """

    images: Tensor
    features: dict[str, Tensor]
    heads: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.images)


def fill_bank(samples: Iterable[Sample], count: int, teacher: Teacher) -> Bank:
    """A bank of `count` samples with the answers of `teacher`, which is YuNet-s with its units tapped."""
    bank: Bank | None = None
    row = 0
    for sample in samples:
        pixels = sample.image.transpose(2, 0, 1)[None].astype(np.float32)
        taught = {name: torch.from_numpy(value) for name, value in teacher(pixels).items()}
        image = torch.from_numpy(pixels)
        if bank is None:
            features = {name: rows_like(count, taught[name], torch.float16) for name in TAPS}
            heads = {name: rows_like(count, taught[name], torch.float32) for name in OUTPUT_NAMES}
            bank = Bank(rows_like(count, image, torch.float16), features, heads)
        bank.images[row] = image[0]
        for store in (bank.features, bank.heads):
            for name in store:
                store[name][row] = taught[name][0]
        row += 1
    if bank is None or row != count:
        raise ValueError(f"{row} samples came, {count} were to come")
    return bank


class Cascade:
    """The first phase over one bank.

    steps, lr: updates of each unit, and the highest learning rate. done: units that were taught in an earlier run; they
    stay as they are.
    """

    def __init__(
        self, network: EdgeDetector, bank: Bank, cells: Tensor, steps: int, lr: float, *, seed: int, done: int
    ) -> None:
        self.network, self.bank, self.cells = network, bank, cells
        self._steps, self._lr = steps, lr
        self._seed, self._done, self._number = seed, done, 0

    def run(self) -> Iterator[tuple[str, float]]:
        """Teaches what is left; the name and the error of each unit when it is taught."""
        network = self.network
        network.eval()
        first = nn.Sequential(network.stem.conv, network.stem.bn, nn.ReLU())
        x = yield from self._unit("first", first, self.bank.images)
        x = yield from self._unit("stem", network.stem.unit, x)
        x = F.max_pool2d(x, 2)
        for i, unit in enumerate(network.narrow):
            x = yield from self._unit(f"narrow_{i}", unit, x)
        backbone: list[Tensor] = []
        for level, stride in enumerate(STRIDES):
            x = F.max_pool2d(x, 2)
            for i, unit in enumerate(network.stages[level]):  # type: ignore[arg-type]
                x = yield from self._unit(f"stage_{stride}_{i}", unit, x)
            backbone.append(x)
        necks: list[Tensor] = []
        for level in reversed(range(len(STRIDES))):
            own = backbone[level]
            if necks:
                own = own + F.interpolate(necks[0], scale_factor=2.0, mode="nearest")
            neck = yield from self._unit(f"neck_{STRIDES[level]}", network.necks[level], own)
            necks.insert(0, neck)
        yield from self._heads(necks)

    def _unit(self, name: str, unit: nn.Module, x: Tensor) -> Generator[tuple[str, float], None, Tensor]:
        """Teaches a unit on features x (N, C, h, w) float16; gives what it then makes of them."""
        target = self.bank.features.pop(name)
        if self._next():
            mean = float(target.float().square().mean()) + 1e-6

            def loss(output: Tensor, rows: Tensor) -> Tensor:
                error: Tensor = (output - target[rows].float()).square().mean() / mean
                return error

            error = teach(unit, x, loss, self._lesson(target), self._rng())
            yield name, error
        with torch.no_grad():
            return torch.cat([unit(as_float(chunk)).half() for chunk in torch.split(x, CHUNK)])

    def _heads(self, necks: list[Tensor]) -> Iterator[tuple[str, float]]:
        """Teaches the heads of all levels together, for a face shows in the cells of several."""
        if not self._next():
            return
        flat = torch.cat([neck.flatten(2) for neck in necks], dim=2)
        heads = _Heads(self.network.heads, [(neck.shape[2], neck.shape[3]) for neck in necks])

        def loss(raw: list[Tensor], rows: Tensor) -> Tensor:
            own = Answers.of_levels(raw)
            wanted = Answers.of_heads({name: value[rows] for name, value in self.bank.heads.items()})
            return head_error(own, wanted) + distillation_loss(own, wanted, self.cells)

        yield "heads", teach(heads, flat, loss, self._lesson(necks[0]), self._rng())

    def _lesson(self, features: Tensor) -> Lesson:
        batch = PLACES // (features.shape[2] * features.shape[3])
        return Lesson(self._steps, min(max(batch, FEWEST), MOST), self._lr, moving=MOVING)

    def _next(self) -> bool:
        """Whether the next unit is still to be taught."""
        self._number += 1
        return self._number > self._done

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng([self._seed, 1, self._number])


class _Heads(nn.Module):
    """The heads of all levels over their features side by side: (N, 64, all places) → raw predictions of each level."""

    def __init__(self, heads: nn.ModuleList, maps: list[tuple[int, int]]) -> None:
        super().__init__()
        self.heads, self._maps = heads, maps

    def forward(self, flat: Tensor) -> list[Tensor]:
        levels = torch.split(flat, [height * width for height, width in self._maps], dim=2)
        return [head(torch.unflatten(x, 2, m)) for head, x, m in zip(self.heads, levels, self._maps, strict=True)]
