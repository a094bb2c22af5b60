"""Keeps INT8 exact on x86 CPUs without VNNI.

There, engines multiply uint8 activations with int8 weights by the instruction vpmaddubsw, which adds the products of
two neighbouring channels in a signed 16-bit number that saturates. Two weights of one sign whose sum is beyond 128 can
leave it (129 · 255 = 32,895 > 32,767), and the layer is silently wrong; at 128 or less no activation can make it so.
Neighbours are two input channels of one kernel position; where the channels are odd in number, also the last of one
position and the first of the next (ONNX Runtime flattens the kernel first, OpenVINO fills each position up). Where
they are three, of pixels, any two in a row of the kernel: `pack_pixels` makes groups of four bytes of them.
Depthwise convolutions are computed channel by channel without that instruction, and are left as they are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from onnx import ModelProto

from export.graph import Array, Graph, attribute

LIMIT = 128
"""Largest sum of two neighbouring int8 weights of one sign that no uint8 activations can saturate."""


@dataclass(frozen=True, slots=True)
class Saturation:
    """layers: integer layers the instruction is used for; can_saturate: of them beyond LIMIT; worst_pair_sum: over all.

    With can_saturate 0 the layers' sums are proven exact, for any picture.
    """

    layers: int
    can_saturate: int
    worst_pair_sum: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def largest_pair_sums(weight: Array, axis: int) -> Array:
    """(C,) by output channel, the largest absolute sum of two neighbouring weights of one sign.

    weight: of a convolution (O, I, H, W), or a matrix whose output channels lie along `axis`; float or integer.
    """
    rows = np.moveaxis(weight, axis, 0)
    positions = rows.transpose(0, 2, 3, 1) if rows.ndim == 4 else rows[:, None, None]
    found = [_sums(_even(positions))]
    if positions.shape[3] % 2:  # else these are the same pairs
        found.append(_sums(_even(positions.reshape(len(rows), -1))))
    if positions.shape[3] == 3:
        across = positions.reshape(*positions.shape[:2], -1)
        found += [_sums(_even(across)), _sums(_even(across[..., 1:]))]
    largest: Array = np.max(found, axis=0)
    return largest


def bounded_scales(weight: Array, axis: int) -> Array:
    """(C,) float32, the least int8 scales under which no two neighbours, rounded, are beyond LIMIT; 0 for depthwise.

    Each rounding adds half a step at most, so two weights that sum to LIMIT − 1 steps stay at LIMIT.
    """
    if is_depthwise(weight):
        return np.zeros(weight.shape[axis], np.float32)
    scales: Array = (largest_pair_sums(weight.astype(np.float64), axis) / (LIMIT - 1)).astype(np.float32)
    return np.nextafter(scales, np.float32(np.inf))


def is_depthwise(weight: Array) -> bool:
    """Whether each output channel of a convolution takes one input channel. weight: (out, in / groups, H, W)."""
    return weight.ndim == 4 and weight.shape[1] == 1


def saturation(model: ModelProto) -> Saturation:
    """What the int8 weights of a Q/DQ model allow for, layer by layer."""
    graph = Graph(model)
    producers = graph.producers()
    worst = []
    for node in graph.nodes:
        before = producers.get(node.input[1]) if node.op_type in ("Conv", "Gemm") else None
        weight = graph.array(before.input[0]) if before is not None else None
        if weight is None or weight.dtype != np.int8 or is_depthwise(weight):
            continue
        axis = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1
        worst.append(int(largest_pair_sums(weight.astype(np.int64), axis).max()))
    return Saturation(len(worst), sum(value > LIMIT for value in worst), max(worst, default=0))


def _even(values: Array) -> Array:
    """Values along the last axis in pairs (…, P, 2), with a zero behind an odd one."""
    if values.shape[-1] % 2:
        values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, 1)])
    return values.reshape(*values.shape[:-1], -1, 2)


def _sums(pairs: Array) -> Array:
    one, other = pairs[..., 0], pairs[..., 1]
    up = np.maximum(one, 0) + np.maximum(other, 0)
    down = np.minimum(one, 0) + np.minimum(other, 0)
    each = np.maximum(up, -down)
    largest: Array = each.reshape(len(pairs), -1).max(axis=1)
    return largest
