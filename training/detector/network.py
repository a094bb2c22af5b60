"""The detector's network, read from top to bottom: a YuNet-family pyramid of depthwise-separable units.

After YuNet (Wu et al., 2023, https://doi.org/10.1007/s11633-023-1423-y): anchor-free, strides 8, 16 and 32, one class,
box and five landmarks a cell. The units have the sizes of YuNet-s, so that it can teach each of them alone. The four
predictions of a level come out of one 16-channel head instead of four narrow ones: it computes the same, fills a vector
register, and a layer of one channel costs nearly as much as one of sixteen.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edge.detect.decode import OUTPUTS, STRIDES
from training.weights_file import load_into, save_network

ROLE, ARCH = "detector", "edge-detector-2"
OUTPUT_NAMES = OUTPUTS
"""Names of what `forward` gives, in its order: cls, obj, bbox, kps, each at strides 8, 16, 32."""

HEADS = (1, 1, 4, 10)
"""Channels of cls, obj, bbox and kps in a level's prediction."""

WIDTH = 64


class Unit(nn.Module):
    """Pointwise convolution, depthwise 3×3, BatchNorm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)
        self.depthwise = nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.depthwise(self.pointwise(x))))


class Stem(nn.Module):
    """(N, 3, H, W) pixels 0–255 → (N, 16, H/4, W/4). BatchNorm takes care of the pixels' scale."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(16)
        self.unit = Unit(16, 16)

    def first(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 16, H/2, W/2)."""
        return F.relu(self.bn(self.conv(x)))

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.unit(self.first(x)), 2)


class Head(nn.Module):
    """One level's feature (N, 64, h, w) → its predictions (N, 16, h, w): cls and obj as logits, bbox, kps."""

    def __init__(self) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(WIDTH, sum(HEADS), 1)
        self.depthwise = nn.Conv2d(sum(HEADS), sum(HEADS), 3, padding=1, groups=sum(HEADS))
        with torch.no_grad():
            # The depthwise part begins as the identity, and every cell as "no face" with probability 0.99.
            self.depthwise.weight.zero_()
            self.depthwise.weight[:, :, 1, 1] = 1.0
            self.depthwise.bias.zero_()  # type: ignore[union-attr]
            self.pointwise.bias.zero_()  # type: ignore[union-attr]
            self.depthwise.bias[:2] = -4.6  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        return self.depthwise(self.pointwise(x))  # type: ignore[no-any-return]


class EdgeDetector(nn.Module):
    """(N, 3, H, W) float32 BGR pixels 0–255, H and W multiples of 32 → the twelve tensors of `OUTPUT_NAMES`.

    Each output is (N, H/s·W/s, C), rows before columns; cls and obj are probabilities. `edge.detect.decode` reads them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.narrow = nn.Sequential(Unit(16, 16), Unit(16, 32), Unit(32, 32), Unit(32, WIDTH))
        self.stages = nn.ModuleList(nn.Sequential(Unit(WIDTH, WIDTH), Unit(WIDTH, WIDTH)) for _ in STRIDES)
        self.necks = nn.ModuleList(Unit(WIDTH, WIDTH) for _ in STRIDES)
        self.heads = nn.ModuleList(Head() for _ in STRIDES)

    def widen(self, x: Tensor) -> Tensor:
        """Stride 4, (N, 16, ·, ·) → stride 8, (N, 64, ·, ·)."""
        return F.max_pool2d(self.narrow(x), 2)

    def merge(self, level: int, own: Tensor, coarser: Tensor | None) -> Tensor:
        """The neck's feature of a level, from the backbone's and, where there is one, the coarser neck's."""
        if coarser is not None:
            own = own + F.interpolate(coarser, scale_factor=2.0, mode="nearest")
        return self.necks[level](own)  # type: ignore[no-any-return]

    def predictions(self, x: Tensor) -> list[Tensor]:
        """Raw predictions (N, 16, H/s, W/s) of strides 8, 16 and 32."""
        return self.predictions_from(self.backbone(x))

    def backbone(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) → features (N, 64, H/s, W/s) of strides 8, 16 and 32."""
        x = self.widen(self.stem(x))
        features = []
        for level, stage in enumerate(self.stages):
            x = stage(F.max_pool2d(x, 2) if level else x)
            features.append(x)
        return features

    def predictions_from(self, backbone: list[Tensor]) -> list[Tensor]:
        """What the necks and heads make of the backbone's features."""
        neck: Tensor | None = None
        raw = []
        for level in reversed(range(len(STRIDES))):
            neck = self.merge(level, backbone[level], neck)
            raw.append(self.heads[level](neck))
        return raw[::-1]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        levels = [
            raw.permute(0, 2, 3, 1).flatten(1, 2).split(HEADS, dim=-1)  # type: ignore[no-untyped-call]
            for raw in self.predictions(x)
        ]
        cls = tuple(level[0].sigmoid() for level in levels)
        obj = tuple(level[1].sigmoid() for level in levels)
        return (*cls, *obj, *(level[2] for level in levels), *(level[3] for level in levels))

    def fold(self) -> EdgeDetector:
        """Folds every BatchNorm into the convolution before it, in place; for inference only."""
        self.eval()
        for module in self.modules():
            if isinstance(module, Unit):
                module.depthwise = fuse_conv_bn_eval(module.depthwise, module.bn)  # type: ignore[arg-type]
                module.bn = nn.Identity()
            elif isinstance(module, Stem):
                module.conv = fuse_conv_bn_eval(module.conv, module.bn)  # type: ignore[arg-type]
                module.bn = nn.Identity()
        return self


def save(network: EdgeDetector, path: Path, *, steps: int, seed: int) -> None:
    """Writes the weights, see `training.weights_file`."""
    save_network(network, path, role=ROLE, arch=ARCH, steps=steps, seed=seed)


def load(path: Path) -> EdgeDetector:
    """The network of a weights file in inference mode, BatchNorm folded, for export. Raises as `load_unfolded`."""
    return load_unfolded(path).fold()


def load_unfolded(path: Path) -> EdgeDetector:
    """The network of a weights file as it was trained, in inference mode.

    Raises InputError for an unreadable file, ContractError where it holds another network.
    """
    network = EdgeDetector()
    load_into(network, path, role=ROLE, arch=ARCH)
    return network.eval()
