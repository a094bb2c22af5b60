"""Rounding as `int8-cpu` rounds, in float: what the forward pass loses, and a gradient that passes through.

Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018
(https://arxiv.org/abs/1712.05877), section 3. The export writes the same grids: int8 weights with one scale an output
channel, wide enough that no two neighbours saturate a 16-bit sum; uint8 activations with one scale for all channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NEIGHBOURS = 127.0
"""Two neighbouring weights of one sign sum to so many steps at most before rounding: export's `pair_sums.LIMIT` − 1."""

SMALLEST_SCALE = 1e-8
MOST_BATCHES = 200
"""Ranges are the mean of the extremes of about so many batches."""


def weight_scales(weight: Tensor) -> Tensor:
    """(O,) float32 scales of a layer's weight, (O, I, H, W) or (O, I), one an output channel."""
    rows = weight.detach().flatten(1)
    scales = rows.abs().amax(dim=1) / 127.0
    if not is_depthwise(weight):
        scales = torch.maximum(scales, _largest_pair_sums(weight.detach()) / NEIGHBOURS)
    return scales.clamp(min=SMALLEST_SCALE)


def is_depthwise(weight: Tensor) -> bool:
    """Whether each output channel of a convolution takes one input channel: it needs no bound."""
    return weight.ndim == 4 and weight.shape[1] == 1


def _largest_pair_sums(weight: Tensor) -> Tensor:
    """(O,) the largest absolute sum of two neighbouring weights of one sign; who neighbours whom, export's `pair_sums`
    says: channels of one kernel position, positions flattened as well, and of three channels any two in a kernel's row.
    """
    positions = weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight[:, None, None]
    found = [_sums(positions), _sums(positions.flatten(1))]
    if positions.shape[3] == 3:
        across = positions.flatten(2)
        found += [_sums(across), _sums(across[..., 1:])]
    return torch.stack(found).amax(dim=0)


def _sums(values: Tensor) -> Tensor:
    pairs = nn.functional.pad(values, (0, values.shape[-1] % 2)).unflatten(-1, (-1, 2))  # type: ignore[no-untyped-call]
    one_sign = torch.maximum(pairs.clamp(min=0).sum(-1), (-pairs).clamp(min=0).sum(-1))
    return one_sign.flatten(1).amax(dim=1)


class FakeWeight(nn.Module):
    """A parametrisation: a layer computes with its weight rounded, and learns the weight itself."""

    def __init__(self) -> None:
        super().__init__()
        self.rounding = True

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as int8 holds it, float32."""
        if not self.rounding:
            return weight
        zeros = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        return torch.fake_quantize_per_channel_affine(weight, weight_scales(weight), zeros, 0, -127, 127)


class FakeActivation(nn.Module):
    """Rounds a tensor to uint8 between the extremes it has shown, 0 among them; values beyond are clipped.

    While `observing`, extremes follow those of the batches, at first their plain mean.
    """

    low: Tensor
    high: Tensor
    batches: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.observing, self.rounding = True, True
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, float32."""
        if self.observing:
            self._observe(x.detach())
        if not self.rounding:
            return x
        scale = ((self.high - self.low) / 255.0).clamp(min=SMALLEST_SCALE)
        zero = (-self.low / scale).round().clamp(0, 255).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)

    def _observe(self, x: Tensor) -> None:
        low, high = torch.aminmax(x)
        self.batches.add_(1).clamp_(max=MOST_BATCHES)
        share = 1.0 / float(self.batches)
        self.low.lerp_(low.clamp(max=0.0), share)
        self.high.lerp_(high.clamp(min=0.0), share)
