"""What every long training shares: pictures, rate and update of a step, a running average, a state to go on from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge.types import Image
from training.muon import Muon

LONGEST_GRADIENT = 10.0


def to_tensor(images: Sequence[Image]) -> Tensor:
    """N images (H, W, 3) uint8 as a network that reads BGR takes them: (N, 3, H, W) float32, 0–255, channels last."""
    pixels = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)
    return torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)


def rate_at(step: int, steps: int, highest: float, warm_up: int) -> float:
    """The learning rate of a step: a short linear rise, then a straight line to zero."""
    return highest * min(1.0, (step + 1) / warm_up) * (1.0 - step / steps)


def learn(network: nn.Module, optimiser: Muon, loss: Tensor, rate: float) -> None:
    """One update of a network from a loss, at learning rate `rate`; a gradient that is too long is cut."""
    network.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), LONGEST_GRADIENT)
    optimiser.step(rate)


@torch.no_grad()
def follow(averaged: nn.Module, network: nn.Module, share: float, step: int) -> None:
    """Moves the running average to the network after step `step`; `share` of it is kept, less in the first steps."""
    keep = min(share, (1 + step) / (10 + step))
    for own, new in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if own.is_floating_point():
            own.lerp_(new, 1 - keep)
        else:
            own.copy_(new)


def write_state(state: dict[str, Any], path: Path) -> None:
    """Writes a state file; a kill or a power cut at any moment leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
