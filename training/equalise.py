"""Cross-layer equalisation (Nagel et al., 2019, https://arxiv.org/abs/1906.04721) of a trained MobileFaceNet.

ReLU lets a factor through: what one layer's channel is multiplied by, the next layer's weights can be divided by, and
the network computes the same. An INT8 engine has one scale for all channels of an activation, so channels of unlike
range waste its 256 steps. Nothing in training keeps them alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from edge.errors import InputError
from training.mobilefacenet import ConvBlock, DepthWise, LinearBlock, MobileFaceNet

Producer = ConvBlock | LinearBlock
Consumer = nn.Conv2d | nn.Linear

QUIETEST = 1e-3
"""A channel's range is taken as this share of the layer's largest at least: a quiet one is not blown up."""
SILENT = 1e-6
"""A channel whose range is below this share of the layer's largest says nothing: its scale follows from its weights."""


def equalise(network: MobileFaceNet, inputs: Iterable[Tensor]) -> None:
    """Rescales channels in place so that those of one activation have ranges alike; the function stays.

    inputs: batches (N, 3, 112, 112) in [-1, 1], on which ranges are measured. A channel that is silent on them gets
    weights as long as those of the others: by its range it would be blown up each time anew, until the one picture in a
    thousand on which it speaks overflows FP16. Raises InputError for a PReLU network, whose slopes it does not know how
    to keep.
    """
    if network.activation != "relu":
        raise InputError("equalisation needs ReLU; a PReLU network is exported as it is")
    links = list(_links(network))
    ranges = _ranges(network, [producer for producer, _ in links], inputs)
    with torch.no_grad():
        for (producer, consumer), reach in zip(links, ranges, strict=True):
            silent = reach < SILENT * reach.max()
            reach = reach.clamp_min(QUIETEST * float(reach.max()))
            depthwise = isinstance(consumer, nn.Conv2d) and consumer.groups > 1
            if depthwise:
                factor = 1.0 / reach  # each of its channels has a scale of its own, which takes it all
            else:
                weight = _by_channel(consumer)
                factor = (weight.clamp_min(QUIETEST * float(weight.max())) / reach).sqrt()
            factor = factor / factor[~silent].log().mean().exp()
            factor = torch.where(silent, usual_scale(producer, factor, ~silent), factor)
            producer.bn.weight.mul_(factor)
            producer.bn.bias.mul_(factor)
            channels = 0 if depthwise else 1
            consumer.weight.div_(factor.view([-1 if axis == channels else 1 for axis in range(consumer.weight.ndim)]))


def usual_scale(producer: Producer, factor: Tensor, heard: Tensor) -> Tensor:
    """(C,): what each channel is to be multiplied by to have weights as long as the median of those `heard`.

    factor: (C,), what these are multiplied by; heard: (C,) bool. 1 for a channel without weights, and for all where
    none is heard.
    """
    assert producer.bn.running_var is not None
    scale = producer.bn.weight.detach() * torch.rsqrt(producer.bn.running_var + producer.bn.eps)
    lengths = producer.conv.weight.detach().flatten(1).norm(dim=1) * scale.abs()
    if not heard.any():
        return torch.ones_like(lengths)
    median = (lengths * factor)[heard].median()
    return torch.where(lengths > 0, median / lengths, torch.ones_like(lengths))


def _links(network: MobileFaceNet) -> Iterator[tuple[Producer, Consumer]]:
    """Layers whose output goes to one other layer and nowhere else, each with that layer."""
    yield network.conv1, network.conv2_dw.conv
    yield network.conv2_dw, network.conv_23.conv.conv
    for block in network.modules():
        if isinstance(block, DepthWise):
            yield block.conv, block.conv_dw.conv
            yield block.conv_dw, block.project.conv
    yield network.conv_6_sep, network.conv_6_dw.conv
    yield network.conv_6_dw, network.linear


@torch.no_grad()
def _ranges(network: MobileFaceNet, producers: list[Producer], inputs: Iterable[Tensor]) -> list[Tensor]:
    """The largest absolute value of each channel of each producer's output: (C,) each."""
    found = [torch.zeros(producer.bn.num_features) for producer in producers]

    def watch(place: int) -> torch.utils.hooks.RemovableHandle:
        def note(_: nn.Module, __: object, output: Tensor) -> None:
            found[place] = torch.maximum(found[place], output.abs().amax(dim=(0, 2, 3)))

        return producers[place].register_forward_hook(note)

    handles = [watch(place) for place in range(len(producers))]
    network.eval()
    for x in inputs:
        network(x)
    for handle in handles:
        handle.remove()
    return found


def _by_channel(consumer: Consumer) -> Tensor:
    """(C,): the largest weight that each input channel of a dense layer meets."""
    weight = consumer.weight.detach().abs()
    return weight.amax(dim=(0, *range(2, weight.ndim)))
