"""Which factors bring the channels of each activation to like ranges, from what calibration pictures make of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from onnx import ModelProto

from export.calibration.observer import outputs_of
from export.graph import Array
from export.passes.equalise import Bus, buses, taken
from export.passes.qdq import placement

QUIETEST = 1e-2
"""A channel's range counts as this share of the largest at least: a silent one is not blown up."""

Factors = dict[str, tuple[float, ...]]


def equalisation(model: ModelProto, batches: Iterable[Array]) -> Factors:
    """Factors for `export.passes.equalise`, by bus. batches: arrays for the model's one input.

    What a layer with one scale for all its inputs reads is brought half the way: factor √(weight ÷ range), as the
    paper's eq. 11 does; what only depthwise layers read, the whole way. The largest value of a bus stays what it was.
    """
    quantised = set(placement(model).tensors)
    found = [bus for bus in buses(model) if quantised & set(bus.tensors)]
    extremes = _extremes(model, [name for bus in found for name in bus.tensors if name in quantised], batches)
    return {bus.name: _factors(bus, taken(model, bus), extremes) for bus in found}


def _factors(bus: Bus, weight: Array | None, extremes: Mapping[str, tuple[Array, Array]]) -> tuple[float, ...]:
    seen = [extremes[name] for name in bus.tensors if name in extremes]
    reach = np.maximum(np.maximum.reduce([_shares(np.maximum(-low, high)) for low, high in seen]), QUIETEST)
    factor = 1.0 / reach if weight is None else np.sqrt(np.maximum(weight, QUIETEST) / reach)
    factor /= (factor * reach).max()
    if bus.signed:
        # All channels lean to one side: the range is then little wider than one channel's.
        low, high = seen[0]
        factor = np.where(-low > high, -factor, factor)
    return tuple(float(f"{value:.6g}") for value in factor)


def _shares(values: Array) -> Array:
    shares: Array = values / max(float(values.max()), np.finfo(np.float32).tiny)
    return shares


def _extremes(model: ModelProto, tensors: list[str], batches: Iterable[Array]) -> dict[str, tuple[Array, Array]]:
    """(C,) least and largest value of each channel."""
    found: dict[str, tuple[Array, Array]] = {}
    for values in outputs_of(model, tensors, batches):
        for name, array in values:
            beside = tuple(axis for axis in range(array.ndim) if axis != 1)
            low, high = array.min(axis=beside), array.max(axis=beside)
            if name in found:
                low, high = np.minimum(low, found[name][0]), np.maximum(high, found[name][1])
            found[name] = low, high
    return found
