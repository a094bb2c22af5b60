"""Centring takes out the mean embedding and leaves what lies between faces."""

from __future__ import annotations

import torch

from training.centring import centre
from training.mobilefacenet import MobileFaceNet


@torch.no_grad()
def test_the_mean_goes_and_differences_stay() -> None:
    torch.manual_seed(3)
    torch.set_num_threads(1)
    network = MobileFaceNet(16).eval()
    inputs = torch.rand(6, 3, 112, 112) * 2 - 1
    before = network.features(inputs)
    centre(network, inputs.split(4))
    after = network.features(inputs)
    torch.testing.assert_close(after.mean(dim=0), torch.zeros(16), rtol=0, atol=1e-5 * float(before.abs().max()) + 1e-6)
    torch.testing.assert_close(after - after[:1], before - before[:1], rtol=1e-3, atol=1e-5)
    centre(network, [])
    assert torch.equal(network.features(inputs), after), "no picture, no mean"
