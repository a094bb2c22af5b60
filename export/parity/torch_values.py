"""What a torch network computes on the way, by the names the exported graph gives those tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from export.graph import Array

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def torch_values(network: nn.Module, images: Array) -> dict[str, Array]:
    """Outputs of the network's layers. images: (N, 3, 112, 112) float32 as the network takes them.

    A BatchNorm is folded into the convolution before it, so its output is what the graph calls NAME.conv; the last one
    gives what the graph calls features.
    """
    values: dict[str, Array] = {}
    hooks = [
        module.register_forward_hook(_keep(values, _tensor(name)))
        for name, module in network.named_modules()
        if isinstance(module, NORMS)
    ]
    try:
        with torch.inference_mode():
            network(torch.from_numpy(images))
    finally:
        for hook in hooks:
            hook.remove()
    return values


def _tensor(name: str) -> str:
    parent, _, last = name.rpartition(".")
    return f"{parent}.conv" if parent and last == "bn" else "features"


def _keep(values: dict[str, Array], name: str) -> Callable[..., None]:
    def hook(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        values[name] = np.array(output.numpy())

    return hook
