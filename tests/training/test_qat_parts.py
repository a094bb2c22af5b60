"""Rounding in training is the export's, stands where the export's stands, and costs the float model nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import fx, nn

from edge.errors import InputError
from export.graph import Graph
from export.passes.qdq import asymmetric, bounded_channel_scales, rounded_weight
from training.detector.network import EdgeDetector
from training.qat.equalise import buses, equalise
from training.qat.fake import FakeActivation, FakeWeight, weight_scales
from training.qat.folding import unfold
from training.qat.prepare import in_float, observe, prepare, release

SHAPES = st.tuples(st.integers(1, 5), st.sampled_from([1, 2, 3, 8, 9]), st.sampled_from([1, 3]))
VALUES = st.floats(-4, 4, width=32).filter(lambda value: value == 0 or abs(value) > 1e-3)


@st.composite
def weights(draw: st.DrawFn) -> np.ndarray:
    out, into, kernel = draw(SHAPES)
    return draw(arrays.arrays(np.float32, (out, into, kernel, kernel), elements=VALUES))


@settings(max_examples=60, deadline=None)
@given(weights())
def test_a_weight_is_rounded_as_the_export_rounds_it(weight: np.ndarray) -> None:
    scales = bounded_channel_scales(weight, 0)
    np.testing.assert_allclose(weight_scales(torch.from_numpy(weight)).numpy(), scales, rtol=1e-5)
    own = FakeWeight()(torch.from_numpy(weight)).numpy()
    # A weight half-way between two steps may go either way; nothing may be further off than that.
    step = scales.reshape(-1, 1, 1, 1)
    assert (np.abs(own - rounded_weight(weight)) <= 1.001 * step).all()
    assert (np.abs(own - weight) <= 0.501 * step).all()


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, (2, 3, 4), elements=st.floats(-100, 100, width=32)))
def test_an_activation_lands_on_the_grid_of_its_extremes(values: np.ndarray) -> None:
    fake = FakeActivation()
    rounded = fake(torch.from_numpy(values)).numpy()
    scale, zero = asymmetric(float(values.min()), float(values.max()))
    steps = rounded / scale + float(zero)
    np.testing.assert_allclose(steps, np.rint(steps), atol=2e-2)
    assert steps.min() > -0.5
    assert steps.max() < 255.5
    assert np.abs(rounded - values).max() <= 1.01 * scale  # half a step, and what rounding the zero point costs
    assert not fake(torch.zeros(3)).any()  # zero is exact: padding stays padding


def test_what_is_clipped_teaches_nothing_and_ranges_stay_when_they_are_told_to() -> None:
    fake = FakeActivation()
    fake(torch.tensor([-1.0, 3.0]))
    fake.observing = False
    x = torch.tensor([-2.0, 0.5, 10.0], requires_grad=True)
    y = fake(x)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 0.0]
    assert y.tolist() == pytest.approx([-1.0, 0.5, 3.0], abs=0.02)
    assert (float(fake.low), float(fake.high)) == (-1.0, 3.0)


def _network(seed: int = 0) -> EdgeDetector:
    """A folded detector with weights and statistics such as training leaves: nothing is silent, nothing the same."""
    torch.manual_seed(seed)
    network = EdgeDetector()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, 0, 0.2)
    for head in network.heads:
        nn.init.normal_(head.depthwise.weight, 0, 0.3)  # type: ignore[union-attr, arg-type]
    return network.fold()


def _pixels(count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (count, 3, 64, 96)).astype(np.float32))


def test_rounding_stands_where_the_export_places_it() -> None:
    from export.calibration.observer import observe as watch
    from export.graph import Graph
    from export.passes.qdq import CARRIERS, final_layers, placement
    from export.to_onnx import detector_to_onnx
    from training.detector.network import HEADS

    network = _network()
    model = detector_to_onnx(network, _pixels().numpy(), HEADS)
    producers = Graph(model).producers()
    chosen = placement(model, final_layers(model))
    own = [name for name in chosen.tensors if name in producers and producers[name].op_type not in CARRIERS]
    prepared = prepare(copy.deepcopy(network), "predictions")
    with in_float(prepared):
        prepared(_pixels())
    fakes = [module for module in prepared.modules() if isinstance(module, FakeActivation)]
    ranges = {(round(float(fake.low), 3), round(float(fake.high), 3)) for fake in fakes}
    seen = watch(model, own, lambda: [_pixels().numpy()]).values()
    assert ranges == {(round(min(h.low, 0.0), 3), round(max(h.high, 0.0), 3)) for h in seen}
    assert len(ranges) == len(own)


def test_training_rounds_what_the_export_rounds() -> None:
    """Given the file's values before it, each layer of the prepared network gives the INT8 file's values behind it.

    One after another, so that no step is compared twice: where float sums lie on the edge between two steps either is
    right, and over 25 layers of random weights those few spread to most values (measured: of the first layer's values
    0.02 % differ, fed with one another's results half of the last ones do, by a step of the grid).
    """
    from export.calibration.observer import observe as watch
    from export.calibration.observer import outputs_of
    from export.graph import Graph
    from export.passes.embed_preprocessing import embed_preprocessing
    from export.passes.qdq import placement
    from export.sources import DETECTOR_CONTRACT
    from export.to_onnx import detector_to_onnx
    from export.variants import int8_model
    from training.detector.network import HEADS

    network = _network()
    pixels = _pixels(1).round()
    model = embed_preprocessing(detector_to_onnx(network, _pixels().numpy(), HEADS), DETECTOR_CONTRACT)
    picture = np.ascontiguousarray(pixels.numpy().transpose(0, 2, 3, 1).astype(np.uint8))
    ranges = {name: (h.low, h.high) for name, h in watch(model, placement(model).tensors, lambda: [picture]).items()}
    int8 = int8_model(model, ranges, "int8-cpu")
    graph = Graph(int8)
    scales = {node.output[0]: float(graph.arrays[node.input[1]].flat[0]) for node in graph.nodes if _gives(node, graph)}
    ((*pairs,),) = outputs_of(int8, list(scales), [picture])
    stored = dict(pairs)
    prepared = prepare(copy.deepcopy(network), "predictions")
    with in_float(prepared):
        prepared(pixels)
    observe(prepared, False)
    compared = _Forced(prepared, stored, scales)
    with torch.no_grad():
        answers = compared.run(pixels)
    assert len(compared.steps) == sum(isinstance(m, FakeActivation) for m in prepared.modules())
    for name, steps in compared.steps.items():
        assert steps.max() <= 1.01, name
        assert (steps > 0.5).mean() < 0.01, name
    (last,) = outputs_of(int8, [f"bbox_{stride}" for stride in (8, 16, 32)], [picture])
    for level, (name, wanted) in enumerate(last):
        own = answers[level].permute(0, 2, 3, 1).flatten(1, 2)[..., 2:6].numpy()
        np.testing.assert_allclose(own, wanted, atol=1e-4, err_msg=name)


def _gives(node: onnx.NodeProto, graph: Graph) -> bool:
    """Whether a node gives back an activation that was rounded."""
    before = graph.producers().get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    return before is not None and before.op_type == "QuantizeLinear"


class _Forced(fx.Interpreter):
    """Runs a prepared network; behind each rounding it goes on with the file's values of the same range and shape.

    steps: how many steps of the grid its own values were away from those, by rounding.
    """

    def __init__(self, prepared: fx.GraphModule, stored: Mapping[str, np.ndarray], scales: Mapping[str, float]) -> None:
        super().__init__(prepared)
        self._stored, self._scales = stored, scales
        self.steps: dict[str, np.ndarray] = {}

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        own = super().call_module(target, args, kwargs)
        module = self.module.get_submodule(target)
        if not isinstance(module, FakeActivation):
            return own
        scale = float(module.high - module.low) / 255
        (name,) = (
            name
            for name, wanted in self._scales.items()
            if wanted == pytest.approx(scale, rel=1e-5) and self._stored[name].shape == tuple(own.shape)
        )
        self.steps[target] = np.abs(own.numpy() - self._stored[name]) / scale
        return torch.from_numpy(self._stored[name].copy())


def test_a_network_with_prelu_is_refused() -> None:
    with pytest.raises(InputError, match="PReLU network is exported as it is"):
        prepare(nn.Sequential(nn.Conv2d(3, 4, 1), nn.PReLU(4)), "forward")


def test_equalising_keeps_what_the_network_computes_and_brings_channels_nearer() -> None:
    network = _network()
    plain = copy.deepcopy(network)
    uneven = torch.exp(torch.linspace(-3, 3, 64))
    with torch.no_grad():  # a channel of one activation made loud, and undone behind it
        network.necks[0].depthwise.weight.mul_(uneven.view(-1, 1, 1, 1))  # type: ignore[union-attr, operator]
        network.necks[0].depthwise.bias.mul_(uneven)  # type: ignore[union-attr, operator]
        network.heads[0].pointwise.weight.div_(uneven.view(1, -1, 1, 1))  # type: ignore[union-attr, operator]
    equalise(network, [_pixels(seed=1)])
    with torch.no_grad():
        for own, wanted in zip(network.predictions(_pixels()), plain.predictions(_pixels()), strict=True):
            torch.testing.assert_close(own, wanted, rtol=1e-3, atol=1e-3)
        neck = network.merge(0, *_neck_inputs(network)).amax(dim=(0, 2, 3))
    alive = neck[neck > 0]
    assert float(alive.max() / alive.median()) < float(uneven.max() / uneven.median()) / 3


def _neck_inputs(network: EdgeDetector) -> tuple[torch.Tensor, torch.Tensor]:
    fine, middle, coarse = network.backbone(_pixels())
    return fine, network.merge(1, middle, network.merge(2, coarse, None))


def test_every_channel_of_the_detector_belongs_to_one_bus() -> None:
    layers = {name for name, module in EdgeDetector().named_modules() if isinstance(module, nn.Conv2d)}
    givers = [name for bus in buses() for name in bus.givers]
    takers = [name for bus in buses() for name in bus.takers]
    assert len(givers) == len(set(givers))
    assert len(takers) == len(set(takers))
    assert set(givers) == layers - {f"heads.{i}.depthwise" for i in range(3)}
    assert set(takers) == layers - {"stem.conv"}


def test_weights_go_back_into_a_network_with_batchnorm() -> None:
    network = _network()
    prepared = prepare(network, "predictions")
    release(prepared)
    fresh = EdgeDetector()
    unfold(network, fresh)
    with torch.no_grad():
        for own, wanted in zip(fresh.eval().predictions(_pixels()), network.predictions(_pixels()), strict=True):
            torch.testing.assert_close(own, wanted, rtol=1e-5, atol=1e-4)
