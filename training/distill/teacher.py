"""The teacher: foamliu's MobileFaceNet (https://github.com/foamliu/MobileFaceNet, Apache-2.0), and what it answers.

128-d, ReLU6 inverted residuals. Its blocks have the shapes of ours, so that every one of ours can be shown what the
teacher's does. Nothing of it is shipped: the weights are an argument of the command.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from edge.errors import InputError
from training.distill.blocks import BLOCK_NAMES

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
EMBEDDING_SIZE = 128


class Answer(NamedTuple):
    """What a teacher says of N crops."""

    blocks: dict[str, Tensor]
    """Output of each of the teacher's blocks under the name of the student's block of the same place and shape."""
    embedding: Tensor
    """(N, 128) float32, of any length."""


def _conv_bn_relu6(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class _InvertedResidual(nn.Module):
    """MobileNetV2's block; the input is added where width and size stay the same."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            _conv_bn_relu6(inputs, hidden, 1),
            _conv_bn_relu6(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


class _SeparableConv(nn.Module):
    """Depthwise 3×3 and pointwise 1×1, each with BatchNorm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.depthwise(x)))
        return torch.relu(self.bn2(self.pointwise(x)))


class _GlobalDepthwise(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.depthwise(x))  # type: ignore[no-any-return]


class Teacher(nn.Module):
    """(N, 3, 112, 112) float32 RGB 0–255 → `Answer`. Layer names are those of the published weights."""

    mean: Tensor
    std: Tensor

    # (inputs, outputs, stride, expansion) of the fifteen inverted residuals
    LAYOUT = (
        (64, 64, 2, 2),
        *((64, 64, 1, 2) for _ in range(4)),
        (64, 128, 2, 4),
        *((128, 128, 1, 2) for _ in range(6)),
        (128, 128, 2, 4),
        *((128, 128, 1, 2) for _ in range(2)),
    )

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv_bn_relu6(3, 64, 3, 2)
        self.dw_conv = _SeparableConv(64)
        self.features = nn.Sequential(*(_InvertedResidual(*row) for row in self.LAYOUT))
        self.conv2 = _conv_bn_relu6(128, 512, 1)
        self.gdconv = _GlobalDepthwise(512)
        self.conv3 = nn.Conv2d(512, EMBEDDING_SIZE, 1)
        self.bn = nn.BatchNorm1d(EMBEDDING_SIZE)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Answer:
        x = self.dw_conv(self.conv1((x - self.mean) / self.std))
        outputs = []
        for block in self.features:
            x = block(x)
            outputs.append(x)
        x = self.conv2(x)
        pooled = self.gdconv(x)
        outputs += [x, pooled]
        embedding = self.bn(self.conv3(pooled).flatten(1))
        return Answer(dict(zip(BLOCK_NAMES, outputs, strict=True)), embedding)


class BothWays:
    """A teacher asked about every crop and its mirror image: its embedding is the mean of the two, of unit length each.

    The two answers differ (their cosine is 0.93), and what differs is error. Over the pairs of 1,050 Pins crops the
    mean's TAR is 73.7 instead of 72.2 % at FAR 1e-3, and 60.8 instead of 58.3 % at 1e-4.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    def __call__(self, pixels: Tensor) -> Answer:
        answer = self._teacher(pixels)
        mirrored = self._teacher(pixels.flip(3)).embedding
        return Answer(answer.blocks, normalize(answer.embedding, dim=1) + normalize(mirrored, dim=1))


def load_teacher(path: Path) -> Teacher:
    """The teacher with the weights of a PyTorch state dict at `path`, ready to answer (no gradients, BatchNorm fixed).

    Raises `InputError` where the file is none of this network.
    """
    teacher = Teacher()
    try:
        teacher.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (
        OSError,
        EOFError,
        RuntimeError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        pickle.UnpicklingError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"teacher {path}: not the weights of foamliu's MobileFaceNet ({reason}); "
            "`edge weights list` names where they come from"
        ) from error
    return fuse_batchnorm(teacher).requires_grad_(False).eval()


def fuse_batchnorm(teacher: Teacher) -> Teacher:
    """The same teacher with every BatchNorm but the last folded into the convolution before it: a third cheaper."""
    fuse = torch.nn.utils.fusion.fuse_conv_bn_eval
    teacher.eval()
    for module in list(teacher.modules()):
        if isinstance(module, nn.Sequential):
            for index in range(len(module) - 1):
                conv, bn = module[index], module[index + 1]
                if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
                    module[index], module[index + 1] = fuse(conv, bn), nn.Identity()
        elif isinstance(module, _SeparableConv):
            module.depthwise, module.bn1 = fuse(module.depthwise, module.bn1), nn.Identity()  # type: ignore[assignment]
            module.pointwise, module.bn2 = fuse(module.pointwise, module.bn2), nn.Identity()  # type: ignore[assignment]
        elif isinstance(module, _GlobalDepthwise):
            module.depthwise, module.bn = fuse(module.depthwise, module.bn), nn.Identity()  # type: ignore[assignment]
    return teacher
