"""MobileFaceNet (Chen et al., 2018, https://arxiv.org/abs/1804.07573), read from top to bottom.

Layer names are those of TreB1eN/InsightFace_Pytorch, so that checkpoints of that project, and of the many built on it,
load unchanged. The activation is chosen: PReLU as in the paper, or ReLU, which integer engines fuse into convolutions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "prelu"]

INPUT_SIZE = 112


def _activation(kind: Activation, channels: int) -> nn.Module:
    return nn.PReLU(channels) if kind == "prelu" else nn.ReLU(inplace=True)


class ConvBlock(nn.Module):
    """Convolution, BatchNorm, activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.prelu = _activation(activation, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class LinearBlock(nn.Module):
    """Convolution and BatchNorm: the linear bottleneck of MobileNetV2, without activation."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))  # type: ignore[no-any-return]


class DepthWise(nn.Module):
    """Inverted residual: expand 1×1, depthwise 3×3, project 1×1; the input is added where `residual`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expansion: int,
        stride: int = 1,
        residual: bool = False,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.conv = ConvBlock(in_channels, expansion, 1, activation=activation)
        self.conv_dw = ConvBlock(
            expansion, expansion, 3, stride=stride, padding=1, groups=expansion, activation=activation
        )
        self.project = LinearBlock(expansion, out_channels, 1)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.residual else y


class Residual(nn.Module):
    """`blocks` inverted residuals of one width, one after the other."""

    def __init__(self, channels: int, *, blocks: int, expansion: int, activation: Activation) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *(
                DepthWise(channels, channels, expansion=expansion, residual=True, activation=activation)
                for _ in range(blocks)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]


class MobileFaceNet(nn.Module):
    """Face embedder: (N, 3, 112, 112) float in [-1, 1] → (N, `embedding_size`) of unit length.

    The global depthwise convolution (`conv_6_dw`) takes the place of average pooling: each of the 7×7 places of the
    face gets a weight of its own. The colour order is that of the training data; arcedge's own weights take RGB.
    """

    def __init__(self, embedding_size: int = 512, activation: Activation = "relu") -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.activation: Activation = activation
        act: Activation = activation
        self.conv1 = ConvBlock(3, 64, 3, stride=2, padding=1, activation=act)
        self.conv2_dw = ConvBlock(64, 64, 3, padding=1, groups=64, activation=act)
        self.conv_23 = DepthWise(64, 64, expansion=128, stride=2, activation=act)
        self.conv_3 = Residual(64, blocks=4, expansion=128, activation=act)
        self.conv_34 = DepthWise(64, 128, expansion=256, stride=2, activation=act)
        self.conv_4 = Residual(128, blocks=6, expansion=256, activation=act)
        self.conv_45 = DepthWise(128, 128, expansion=512, stride=2, activation=act)
        self.conv_5 = Residual(128, blocks=2, expansion=256, activation=act)
        self.conv_6_sep = ConvBlock(128, 512, 1, activation=act)
        self.conv_6_dw = LinearBlock(512, 512, 7, groups=512)
        self.linear = nn.Linear(512, embedding_size, bias=False)
        self.bn = nn.BatchNorm1d(embedding_size)

    def features(self, x: Tensor) -> Tensor:
        """(N, 3, 112, 112) → (N, `embedding_size`), before the length is taken out."""
        x = self.conv2_dw(self.conv1(x))
        x = self.conv_3(self.conv_23(x))
        x = self.conv_4(self.conv_34(x))
        x = self.conv_5(self.conv_45(x))
        x = self.conv_6_dw(self.conv_6_sep(x))
        return self.bn(self.linear(x.flatten(1)))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self.features(x), dim=1)
