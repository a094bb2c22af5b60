"""Batches of augmented crops, made by a thread ahead of their use, each a function of the seed and its step alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Queue

import numpy as np
import torch
from torch import Tensor

from training.distill.crops import CropStore, EpochOrder, Image, augment

AHEAD = 6


def to_pixels(images: Image) -> Tensor:
    """(N, 112, 112, 3) uint8 BGR → (N, 3, 112, 112) float32 RGB 0–255, channels last in memory."""
    return torch.from_numpy(images[..., ::-1].copy()).permute(0, 3, 1, 2).float()


def make_batch(crops: CropStore, indices: list[int], rng: np.random.Generator | None, spoil: float = 1.0) -> Tensor:
    """(N, 3, 112, 112) float32 RGB 0–255; augmented where there is an `rng`, see `augment` for `spoil`."""
    images = [crops.image(index) if rng is None else augment(crops.image(index), rng, spoil) for index in indices]
    return to_pixels(np.stack(images))


def batches(
    crops: CropStore,
    order: EpochOrder,
    seed: tuple[int, ...],
    steps: range,
    spoil: Callable[[int], float] = lambda _: 1.0,
) -> Iterator[Tensor]:
    """The batches of `steps`; `spoil` is told the step. Closing the iterator ends the thread; what goes wrong there is
    raised here."""
    queue: Queue[Tensor | Exception | None] = Queue(AHEAD)
    closed = threading.Event()

    def fill() -> None:
        try:
            for step in steps:
                if closed.is_set():
                    return
                queue.put(make_batch(crops, order.step(step), np.random.default_rng([*seed, step]), spoil(step)))
            queue.put(None)
        except Exception as error:
            queue.put(error)

    thread = threading.Thread(target=fill, name="augmentation", daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        closed.set()
        while thread.is_alive():
            while not queue.empty():
                queue.get_nowait()
            thread.join(0.01)
