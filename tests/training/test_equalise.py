"""Equalisation leaves the function alone and brings the channels' ranges together."""

from __future__ import annotations

import pytest
import torch

from edge.errors import InputError
from training.equalise import _links, _ranges, equalise
from training.mobilefacenet import MobileFaceNet
from training.teaching import measure_statistics


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    torch.set_num_threads(1)
    return torch.rand(8, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _uneven(inputs: torch.Tensor) -> MobileFaceNet:
    """A network whose channels differ in range by a factor of a thousand and more."""
    torch.manual_seed(1)
    network = MobileFaceNet(32)
    measure_statistics(network, [inputs])
    with torch.no_grad():
        for producer, _ in _links(network):
            producer.bn.weight.mul_(torch.logspace(-1.5, 1.5, producer.bn.num_features))
    measure_statistics(network, [inputs])
    return network.eval()


def _spread(network: MobileFaceNet, inputs: torch.Tensor) -> list[float]:
    ranges = _ranges(network, [producer for producer, _ in _links(network)], [inputs])
    return [float(reach.max() / reach.median()) for reach in ranges]


@torch.no_grad()
def test_the_function_stays_and_ranges_come_together(inputs: torch.Tensor) -> None:
    network = _uneven(inputs)
    before, spread = network.features(inputs), _spread(network, inputs)
    equalise(network, [inputs])
    assert torch.allclose(network.features(inputs), before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))
    after = _spread(network, inputs)
    assert min(spread) > 5
    assert max(after) < 12
    assert all(new < 0.6 * old for new, old in zip(after, spread, strict=True))
    assert sum(new < 1.01 for new in after) >= 16, "what a depthwise layer takes is evened out wholly"


def test_every_link_is_a_layer_that_feeds_one_other(inputs: torch.Tensor) -> None:
    network = _uneven(inputs)
    producers = [producer for producer, _ in _links(network)]
    assert len(producers) == len({id(producer) for producer in producers}) == 34
    assert not any(
        producer is block.project for block in network.modules() if hasattr(block, "project") for producer in producers
    ), "what is added to a block's input stays as it is"


def test_slopes_are_refused(inputs: torch.Tensor) -> None:
    with pytest.raises(InputError, match="PReLU"):
        equalise(MobileFaceNet(32, "prelu"), [inputs])


@torch.no_grad()
def test_a_silent_channel_has_weights_as_long_as_the_others_however_often(inputs: torch.Tensor) -> None:
    """By its range it would be a thousand times as long after each time, and one picture would overflow."""
    network = _uneven(inputs)
    producer = network.conv_6_sep
    producer.bn.bias[3:6] = -1e3 * producer.bn.weight[3:6].abs()
    before = network.features(inputs)
    for _ in range(3):
        equalise(network, [inputs])
    assert torch.allclose(network.features(inputs), before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))
    scale = producer.bn.weight * (producer.bn.running_var + producer.bn.eps).rsqrt()
    lengths = producer.conv.weight.flatten(1).norm(dim=1) * scale.abs()
    assert lengths[3:6].tolist() == pytest.approx([float(lengths.median())] * 3, rel=0.05)
    for layer, _ in _links(network):
        assert torch.isfinite(layer.bn.weight).all()
