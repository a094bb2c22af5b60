"""Which way each weight is rounded, learned layer by layer by gradient (AdaRound).

Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, 2020 (https://arxiv.org/abs/2004.10568),
section 3: between the two nearest integers each weight gets a soft variable h(V) in [0, 1], a stretched sigmoid; the
layer learns to give the FP32 layer's output, behind its ReLU, from the inputs the quantised network really has; and a
regulariser Σ 1 − |2h − 1|^β, whose β falls, drives every h to 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from onnx import ModelProto, NodeProto
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.int8.rounding import windows_of
from export.calibration.observer import outputs_of
from export.graph import Array, Graph, attribute
from export.passes.qdq import behind_activation

STRETCH_LOW, STRETCH_HIGH = -0.1, 1.1
"""The sigmoid reaches beyond [0, 1] and is cut there, so that its ends can be reached (eq. 23)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """steps: of Adam a layer. positions: outputs a picture that are learned from. warm_up: share without regulariser.

    weight: of the regulariser. beta: from, to. The paper takes 10,000 steps or more at a tenth of the learning rate.
    """

    steps: int = 1000
    batch: int = 256
    positions: int = 64
    learning_rate: float = 1e-2
    warm_up: float = 0.2
    weight: float = 0.01
    beta: tuple[float, float] = (20.0, 2.0)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Layer:
    node: NodeProto
    int8: str
    scale: str
    weight: Array
    bias: Array
    output: str
    relu: bool


_Picked = tuple[Array, Array, Array]
"""Of one picture: (P,) rows, (P,) columns, (P, C) values."""


@dataclass(frozen=True, slots=True)
class _Samples:
    """inputs: (P, G, K) what meets one output, by group (one but for depthwise); targets: (P, C) of FP32."""

    inputs: Tensor
    targets: Tensor


def learned_rounding(
    quantised: ModelProto, floats: ModelProto, batches: Sequence[Array], recipe: Recipe | None = None
) -> ModelProto:
    """An int8-cpu model with its convolutions' weights rounded as learned, first layer first, scales and biases kept.

    floats: the model it was made from, whose weights and tensors have the same names. batches: for the model's one
    input. A layer keeps its nearest rounding where the learned one does no better on outputs it was not learned from.
    No neighbours can leave the bound of `export.passes.pair_sums`: its scales leave room for either way.
    """
    plan = recipe or Recipe()
    random = np.random.default_rng(plan.seed)
    torch.manual_seed(plan.seed)
    graph = Graph(quantised)
    layers = _layers(graph, Graph(floats))
    targets = _targets(floats, layers, batches, plan, random)
    for layer in tqdm(layers, desc="AdaRound", unit="layer"):
        samples = _samples(graph.close(), layer, batches, targets[layer.output])
        scales = graph.arrays[layer.scale].astype(np.float64)
        graph.arrays[layer.int8] = _learned(layer, scales, samples, graph.arrays[layer.int8], plan)
    return graph.close()


def corrected_after(rounded: ModelProto, floats: ModelProto, batches: Sequence[Array]) -> ModelProto:
    """An int8-cpu model whose biases take off what each layer's output is off by on average, first layer first.

    The bias correction of the product asks what nearest rounding adds; here the weights are given, and what the layers
    before them add is in it too.
    """
    graph = Graph(rounded)
    producers = graph.producers()
    for layer in _layers(graph, Graph(floats)):
        if len(layer.node.input) < 3:
            continue
        stored, scale = producers[layer.node.input[2]].input[:2]
        means = []
        for model in (graph.close(), floats):
            sums = [values.mean(axis=(0, 2, 3)) for ((_, values),) in outputs_of(model, [layer.output], batches)]
            means.append(np.average(sums, axis=0, weights=[len(batch) for batch in batches]))
        shift = np.rint((means[1] - means[0]) / graph.arrays[scale]).astype(np.int64)
        graph.arrays[stored] = np.clip(graph.arrays[stored] + shift, -(2**31) + 1, 2**31 - 1).astype(np.int32)
    return graph.close()


def _layers(graph: Graph, floats: Graph) -> list[_Layer]:
    producers, consumers = graph.producers(), floats.consumers()
    known = {node.output[0]: node for node in floats.nodes}
    found = []
    for node in graph.nodes:
        before = producers.get(node.input[1]) if node.op_type == "Conv" else None
        if before is None or before.op_type != "DequantizeLinear":
            continue
        weight = floats.arrays[before.input[0].removesuffix(".int8")].astype(np.float64)
        plain = known[node.output[0]]
        bias = floats.arrays[plain.input[2]] if len(plain.input) > 2 else np.zeros(len(weight))
        output = behind_activation(node.output[0], consumers)
        relu = output != node.output[0] and floats.producers()[output].op_type == "Relu"
        found.append(_Layer(node, before.input[0], before.input[1], weight, bias, node.output[0], relu))
    return found


def _targets(
    floats: ModelProto, layers: Sequence[_Layer], batches: Sequence[Array], plan: Recipe, random: np.random.Generator
) -> dict[str, list[_Picked]]:
    """By layer, picture by picture, some positions of the FP32 layer's output and what stands there."""
    found: dict[str, list[_Picked]] = {layer.output: [] for layer in layers}
    for values in outputs_of(floats, list(found), batches):
        for name, wanted in values:
            height, width = wanted.shape[2:]
            for picture in wanted:
                at = random.choice(height * width, min(plan.positions, height * width), replace=False)
                found[name].append((at // width, at % width, picture[:, at // width, at % width].T))
    return found


def _samples(quantised: ModelProto, layer: _Layer, batches: Sequence[Array], targets: Sequence[_Picked]) -> _Samples:
    inputs = list[Array]()
    for ((_, values),) in outputs_of(quantised, [layer.node.input[0]], batches):
        for windows in windows_of(values, layer.node, layer.weight.shape[2:]):
            rows, columns, _ = targets[len(inputs)]
            met = windows[:, rows, columns].swapaxes(0, 1)
            inputs.append(met.reshape(len(rows), *_shape(layer)))
    return _Samples(
        torch.from_numpy(np.concatenate(inputs).astype(np.float32)),
        torch.from_numpy(np.concatenate([wanted for _, _, wanted in targets]).astype(np.float32)),
    )


def _shape(layer: _Layer) -> tuple[int, int]:
    """Groups, and inputs a group, of what meets one output."""
    group = attribute(layer.node, "group", 1)
    return group, layer.weight[0].size


def _learned(layer: _Layer, scales: Array, samples: _Samples, nearest: Array, plan: Recipe) -> Array:
    rows = torch.from_numpy((layer.weight.reshape(len(scales), -1) / scales[:, None]).astype(np.float32))
    step = torch.from_numpy(scales.astype(np.float32))[:, None]
    bias = torch.from_numpy(layer.bias.astype(np.float32))
    low = torch.floor(rows)
    share = ((rows - low - STRETCH_LOW) / (STRETCH_HIGH - STRETCH_LOW)).clamp(1e-4, 1 - 1e-4)
    soft = torch.log(share / (1 - share)).requires_grad_()
    kept = torch.arange(len(samples.inputs)) % 4 == 3
    held = _Samples(samples.inputs[kept], samples.targets[kept])
    seen = _Samples(samples.inputs[~kept], samples.targets[~kept])
    optimiser = torch.optim.Adam([soft], plan.learning_rate)
    begun = int(plan.warm_up * plan.steps)
    for i in range(plan.steps):
        drawn = torch.randint(len(seen.inputs), (plan.batch,))
        up = (torch.sigmoid(soft) * (STRETCH_HIGH - STRETCH_LOW) + STRETCH_LOW).clamp(0, 1)
        weight = (low + up).clamp(-127, 127) * step
        lost = _error(weight, bias, seen.inputs[drawn], seen.targets[drawn], layer.relu)
        if i >= begun:
            past = (i - begun) / max(1, plan.steps - begun)
            beta = plan.beta[1] + (plan.beta[0] - plan.beta[1]) * (1 - past)
            lost = lost + plan.weight * (1 - (2 * up - 1).abs().pow(beta)).sum()
        optimiser.zero_grad()
        lost.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        found = (low + (soft > 0)).clamp(-127, 127)
        plain = torch.from_numpy(nearest.reshape(len(scales), -1).astype(np.float32))
        errors = [_error(w * step, bias, held.inputs, held.targets, layer.relu) for w in (found, plain)]
    if not errors[0] < errors[1]:
        return nearest
    return found.numpy().reshape(layer.weight.shape).astype(np.int8)


def _error(weight: Tensor, bias: Tensor, inputs: Tensor, targets: Tensor, relu: bool) -> Tensor:
    """Squared error of a layer's output, summed over channels, mean over positions. weight: (C, K)."""
    outputs = (inputs[:, 0] @ weight.T if inputs.shape[1] == 1 else (inputs * weight).sum(dim=2)) + bias
    if relu:
        outputs, targets = F.relu(outputs), F.relu(targets)
    return (outputs - targets).square().sum(dim=1).mean()
