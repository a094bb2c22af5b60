"""What every long training keeps beside its network: a running average of the weights, and a state to go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn


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
    """Writes a state file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    partial.replace(path)
