"""The student seen as a chain of blocks, each of which has a block of the teacher beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from training.mobilefacenet import ConvBlock, DepthWise, LinearBlock, MobileFaceNet

BLOCK_NAMES: tuple[str, ...] = (
    "conv_23",
    *(f"conv_3.{index}" for index in range(4)),
    "conv_34",
    *(f"conv_4.{index}" for index in range(6)),
    "conv_45",
    *(f"conv_5.{index}" for index in range(2)),
    "conv_6_sep",
    "conv_6_dw",
)
"""Blocks in order. The first is the stem with the first bottleneck, because the teacher's stem has one pointwise
convolution more than ours: what lies between cannot be compared."""

STAGE_ENDS = ("conv_3.3", "conv_4.5", "conv_5.1", "conv_6_sep", "conv_6_dw")
"""The last block of each stage: 64 at 28×28, 128 at 14×14, 128 at 7×7, 512 at 7×7, 512 after the global depthwise."""

RunBlock = Callable[[nn.Module, Tensor], Tensor]


def run_plainly(module: nn.Module, x: Tensor) -> Tensor:
    """The module's own forward pass; its BatchNorm takes the statistics of the batch while in training mode."""
    return module(x)  # type: ignore[no-any-return]


def run_frozen(module: nn.Module, x: Tensor) -> Tensor:
    """The forward pass with BatchNorm held at its running statistics and multiplied into the convolution before it.

    The same function, parameters and gradients as evaluation mode, without a pass over the activations for BatchNorm:
    that pass and its gradient are 45 % of the time of a training step on a CPU.
    """
    if isinstance(module, ConvBlock):
        return module.prelu(_convolve(module.conv, module.bn, x))  # type: ignore[no-any-return]
    if isinstance(module, LinearBlock):
        return _convolve(module.conv, module.bn, x)
    if isinstance(module, DepthWise):
        y = run_frozen(module.project, run_frozen(module.conv_dw, run_frozen(module.conv, x)))
        return x + y if module.residual else y
    if isinstance(module, nn.Sequential):
        for child in module:
            x = run_frozen(child, x)
        return x
    raise TypeError(f"no frozen form of {type(module).__name__}")


def _convolve(conv: nn.Conv2d, bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
    assert bn.running_mean is not None
    assert bn.running_var is not None
    scale = bn.weight * (bn.running_var + bn.eps).rsqrt()
    bias = bn.bias - bn.running_mean * scale
    weight = conv.weight * scale.view(-1, 1, 1, 1)
    # In bfloat16 the gradient of a depthwise convolution that strides takes a kernel of oneDNN's ten times slower than
    # that of stride 1. All places are computed there, and those between left out: the same values.
    leaves_out = conv.groups > 1 and conv.stride != (1, 1) and torch.is_autocast_enabled("cpu") and x.requires_grad
    y = nn.functional.conv2d(
        x, weight, bias, (1, 1) if leaves_out else conv.stride, conv.padding, conv.dilation, conv.groups
    )
    if not leaves_out:
        return y
    down, right = conv.stride
    return y[:, :, ::down, ::right].contiguous(memory_format=torch.channels_last)


def student_blocks(student: MobileFaceNet) -> Iterator[tuple[str, nn.Module]]:
    """The student's blocks under `BLOCK_NAMES`, in order; the head that follows is `embed_pooled`."""
    yield "conv_23", nn.Sequential(student.conv1, student.conv2_dw, student.conv_23)
    for name in BLOCK_NAMES[1:]:
        group, _, index = name.partition(".")
        yield name, student.get_submodule(f"{group}.model.{index}" if index else group)


def chain_features(student: MobileFaceNet, x: Tensor, run: RunBlock = run_plainly) -> tuple[dict[str, Tensor], Tensor]:
    """Each block fed with the one before: what the network computes.

    (N, 3, 112, 112) in [-1, 1] → every block's output, and the (N, D) embedding before the length is taken out.
    """
    outputs: dict[str, Tensor] = {}
    for name, block in student_blocks(student):
        x = run(block, x)
        outputs[name] = x
    return outputs, embed_pooled(student, x)


def embed_pooled(student: MobileFaceNet, pooled: Tensor) -> Tensor:
    """The head: (N, 512, 1, 1) after the global depthwise convolution → (N, D)."""
    return student.bn(student.linear(pooled.flatten(1)))  # type: ignore[no-any-return]
