"""The landmarker's network: one upright face in, five points out.

Residual 3×3 convolutions of few channels, which every engine computes at full speed, where depthwise ones wait for
memory. The map of its last feature is kept as a map up to the linear layer: where something is, is what is asked.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edge.align import WIDE_96_SIZE
from edge.contract import LANDMARKER_SIZE, ModelContract
from training.weights_file import load_into, save_network

ARCH = "edge-landmarker-1"

CONTRACT = ModelContract(
    role="landmarker", size=LANDMARKER_SIZE, layout="nchw", dtype="float32", template="arcface-wide-96"
)
"""BGR pixels 0-255 as float32."""

POINTS = 5

WIDTHS = (16, 32, 48, 64)
"""Channels at strides 2, 4, 8 and 16."""
SQUEEZED = 32
"""Channels of the map that the linear layer reads."""


class Conv(nn.Module):
    """3×3 or 1×1 convolution and BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, side: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, side, stride, side // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))  # type: ignore[no-any-return]


class EdgeLandmarker(nn.Module):
    """(N, 3, 96, 96) float32 BGR pixels 0–255, faces on the template WIDE_96 → (N, 10): x, y of five points.

    In pixels from where the template has them: near 0, so that half precision rounds little.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = WIDTHS
        self.stem = Conv(3, first, stride=2)
        self.down4 = Conv(first, second, stride=2)
        self.same4 = Conv(second, second)
        self.down8 = Conv(second, third, stride=2)
        self.same8 = Conv(third, third)
        self.down16 = Conv(third, fourth, stride=2)
        self.squeeze = Conv(fourth, SQUEEZED, side=1)
        self.points = nn.Linear(SQUEEZED * (WIDE_96_SIZE // 16) ** 2, 2 * POINTS)
        with torch.no_grad():
            # It begins with the template: no face is placed worse than it came.
            self.points.weight.mul_(0.1)
            self.points.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.down4(x))
        x = F.relu(x + self.same4(x))
        x = F.relu(self.down8(x))
        x = F.relu(x + self.same8(x))
        x = F.relu(self.squeeze(F.relu(self.down16(x))))
        return self.points(x.flatten(1))  # type: ignore[no-any-return]

    def fold(self) -> EdgeLandmarker:
        """Folds every BatchNorm into the convolution before it, in place; for inference only."""
        self.eval()
        for module in self.modules():
            if isinstance(module, Conv):
                module.conv = fuse_conv_bn_eval(module.conv, module.bn)  # type: ignore[arg-type]
                module.bn = nn.Identity()
        return self


def save(network: EdgeLandmarker, path: Path, *, steps: int, seed: int) -> None:
    """Writes the weights, see `training.weights_file`."""
    save_network(network, path, role=CONTRACT.role, arch=ARCH, steps=steps, seed=seed)


def load(path: Path) -> EdgeLandmarker:
    """The network of a weights file in inference mode, BatchNorm folded.

    Raises InputError for an unreadable file, ContractError where it holds another network.
    """
    network = EdgeLandmarker()
    load_into(network, path, role=CONTRACT.role, arch=ARCH)
    return network.fold()
