"""Cross-layer equalisation of the detector (Nagel et al., 2019, https://arxiv.org/abs/1906.04721, section 4.1).

What a layer's channel is multiplied by, the layers that read it can be divided by, and the network computes the same.
An activation has one scale for all of its channels: channels of unlike range waste its 256 steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from edge.detect.decode import STRIDES
from training.detector.network import EdgeDetector

QUIETEST = 1e-2
"""A channel's range counts as this share of the largest at least: a silent one is not blown up."""


@dataclass(frozen=True, slots=True)
class Bus:
    """Convolutions that share channels, by name: `givers` make them, `takers` read them.

    linear: nothing between them but the values themselves, so that a factor may be negative.
    """

    givers: tuple[str, ...]
    takers: tuple[str, ...]
    linear: bool = False


def buses() -> tuple[Bus, ...]:
    """Every set of channels of EdgeDetector: ReLU, pooling, resizing and sums let a factor through."""
    levels = range(len(STRIDES))
    rows = [["stem.unit", *(f"narrow.{i}" for i in range(4)), "stages.0.0", "stages.0.1"]]
    rows += [[f"stages.{level}.0", f"stages.{level}.1"] for level in levels[1:]]
    inside = [unit for row in rows for unit in row] + [f"{kind}.{i}" for kind in ("necks", "heads") for i in levels]
    found = [Bus((f"{unit}.pointwise",), (f"{unit}.depthwise",), linear=True) for unit in inside]
    found.append(Bus(("stem.conv",), ("stem.unit.pointwise",)))
    for row in rows:
        found += [Bus((f"{one}.depthwise",), (f"{next_}.pointwise",)) for one, next_ in pairwise(row)]
    # A level's own features, the coarser neck's and their sum have the same channels.
    for level in levels:
        givers, takers = [f"stages.{level}.1.depthwise"], [f"necks.{level}.pointwise"]
        if level + 1 in levels:
            givers.append(f"necks.{level + 1}.depthwise")
            takers += [f"stages.{level + 1}.0.pointwise", f"heads.{level + 1}.pointwise"]
        found.append(Bus(tuple(givers), tuple(takers)))
    found.append(Bus(("necks.0.depthwise",), ("heads.0.pointwise",)))
    return tuple(found)


@torch.no_grad()
def equalise(network: EdgeDetector, inputs: Iterable[Tensor]) -> None:
    """Brings the channels of each bus to like ranges, in place; the function stays. BatchNorm is folded.

    inputs: batches (N, 3, H, W) of pixels, on which ranges are measured. What only depthwise layers read goes the whole
    way, for they have a scale a channel; else half the way, √(weight ÷ range), as the paper's eq. 11 does.
    """
    extremes = _extremes(network, [giver for bus in buses() for giver in bus.givers], inputs)
    for bus in buses():
        reach = torch.stack([_reach(*extremes[name], linear=bus.linear) for name in bus.givers]).amax(dim=0)
        takers = [_convolution(network, name) for name in bus.takers]
        factor = 1.0 / reach
        if not all(taker.groups > 1 for taker in takers):
            weights = torch.stack([_by_input(taker.weight) for taker in takers]).amax(dim=0)
            factor = (weights.clamp(min=QUIETEST) / reach).sqrt()
        factor /= (factor * reach).max()
        if bus.linear:
            # All channels lean to one side: the range is then little wider than one channel's.
            low, high = extremes[bus.givers[0]]
            factor = torch.where(-low > high, -factor, factor)
        for giver in (_convolution(network, name) for name in bus.givers):
            giver.weight.mul_(factor.view(-1, 1, 1, 1))
            if giver.bias is not None:
                giver.bias.mul_(factor)
        for taker in takers:
            taker.weight.div_(factor.view((-1, 1, 1, 1) if taker.groups > 1 else (1, -1, 1, 1)))


def _reach(low: Tensor, high: Tensor, *, linear: bool) -> Tensor:
    """(C,) in shares of the widest channel's; of a convolution before a ReLU only what is above zero counts."""
    most = torch.maximum(-low, high) if linear else high.clamp(min=0.0)
    return (most / most.max().clamp(min=1e-12)).clamp(min=QUIETEST)


def _by_input(weight: Tensor) -> Tensor:
    """(C,): the largest weight that each input channel meets, in shares of the layer's largest."""
    most = weight.abs().amax(dim=(0, 2, 3))
    return most / most.max()


def _extremes(network: EdgeDetector, names: list[str], inputs: Iterable[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """(C,) least and largest value of each channel that a layer gives."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def note(_: nn.Module, __: object, output: Tensor) -> None:
            low, high = output.amin(dim=(0, 2, 3)), output.amax(dim=(0, 2, 3))
            if name in found:
                low, high = torch.minimum(low, found[name][0]), torch.maximum(high, found[name][1])
            found[name] = low, high

        return note

    handles = [_convolution(network, name).register_forward_hook(watch(name)) for name in dict.fromkeys(names)]
    for x in inputs:
        network.predictions(x)
    for handle in handles:
        handle.remove()
    return found


def _convolution(network: EdgeDetector, name: str) -> nn.Conv2d:
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Conv2d)
    return layer
