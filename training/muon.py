"""Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon): momentum whose update is made orthogonal.

A pointwise convolution is a matrix. Adam scales its entries one by one, and a few strong directions of the gradient
rule the update; Muon gives every direction the same length. Blocks taught alone come a quarter closer to the teacher
with it for the same number of steps (stem and first bottleneck, 400 steps: relative error 5.3 against 7.2 %).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton–Schulz iteration: they drive all singular values to about 1 in five rounds."""
ROUNDS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """(M, N) → nearly U Vᵀ of its singular value decomposition: singular values between about 0.7 and 1.2."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if tall else matrix
    x = x / (torch.linalg.matrix_norm(x) + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


def is_matrix(parameter: Tensor) -> bool:
    """Whether a weight mixes channels: linear layers, and convolutions that are not depthwise."""
    return parameter.ndim > 1 and parameter.shape[1] > 1


class Muon:
    """Muon for the weights that mix channels, AdamW without decay for depthwise ones, scales and shifts.

    One learning rate serves both: Muon's update is scaled to the root mean square that Adam's has (Liu et al., 2025,
    https://arxiv.org/abs/2502.16982: 0.2·√max(M, N)).
    """

    def __init__(self, parameters: Iterable[Tensor], momentum: float = 0.95) -> None:
        parameters = list(parameters)
        self._matrices = [parameter for parameter in parameters if is_matrix(parameter)]
        self._momentum = momentum
        self._averages = [torch.zeros_like(parameter) for parameter in self._matrices]
        others = [parameter for parameter in parameters if not is_matrix(parameter)]
        self._others = torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=0.0, fused=True)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update from the gradients the parameters carry, at learning rate `rate`."""
        for group in self._others.param_groups:
            group["lr"] = rate
        self._others.step()
        for parameter, average in zip(self._matrices, self._averages, strict=True):
            assert parameter.grad is not None
            average.lerp_(parameter.grad, 1.0 - self._momentum)
            ahead = parameter.grad.lerp(average, self._momentum).flatten(1)
            update = orthogonalised(ahead).view_as(parameter)
            parameter.add_(update, alpha=-rate * 0.2 * math.sqrt(max(ahead.shape)))

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {"averages": self._averages, "others": self._others.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self._averages = [average.clone() for average in state["averages"]]
        self._others.load_state_dict(state["others"])
