"""Watches tensors inside a graph while real pictures go through it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, helper

from edge.engines import open_session
from edge.errors import InputError
from export.calibration.methods import BINS, Histogram
from export.graph import Array

Batches = Callable[[], Iterable[Array]]
"""Gives the calibration batches, each time it is called: they are gone through twice."""

_PART = 1 << 15
"""Values that are sorted into bins at once."""


def observe(model: ModelProto, tensors: Sequence[str], batches: Batches) -> dict[str, Histogram]:
    """A histogram of each of `tensors` over all batches: first the extremes, then the counts between them.

    batches: arrays for the model's one input. Raises InputError where there are none, or a value is not finite.
    """
    low = dict.fromkeys(tensors, np.inf)
    high = dict.fromkeys(tensors, -np.inf)
    for values in outputs_of(model, tensors, batches()):
        for name, array in values:
            low[name] = min(low[name], float(array.min()))
            high[name] = max(high[name], float(array.max()))
    for name in tensors:
        if not np.isfinite(low[name]) or not np.isfinite(high[name]):
            raise InputError(
                f"calibration gave {low[name]} to {high[name]} at {name}; are the photos and the weights sound?"
            )
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    for values in outputs_of(model, tensors, batches()):
        for name, array in values:
            counts[name] += _counted(array.reshape(-1), low[name], high[name])
    return {name: Histogram(low[name], high[name], counts[name]) for name in tensors}


def _counted(values: Array, low: float, high: float) -> npt.NDArray[np.int64]:
    """(BINS,) how many of `values` (N,) lie in each bin; a part at a time, which the processor's cache holds."""
    span = high - low
    factor, start = np.float32(BINS / span if span > 0 else 0.0), np.float32(low)
    counts = np.zeros(BINS, np.int64)
    for at in range(0, len(values), _PART):
        scaled = values[at : at + _PART] - start
        scaled *= factor
        bins = scaled.astype(np.intp)
        np.minimum(bins, BINS - 1, out=bins)
        counts += np.bincount(bins, minlength=BINS)
    return counts


def outputs_of(
    model: ModelProto, tensors: Sequence[str], batches: Iterable[Array]
) -> Iterator[list[tuple[str, Array]]]:
    """What `tensors` of a model hold, batch by batch, by name. batches: arrays for the model's one input."""
    inputs = {value.name for value in model.graph.input}
    watched = ModelProto()
    watched.CopyFrom(model)
    already = {value.name for value in watched.graph.output}
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, 1, None) for name in tensors if name not in already | inputs
    )
    with open_session(watched.SerializeToString()) as session:
        name = session.inputs[0].name
        for batch in batches:
            outputs = session.run({name: batch})
            yield [(tensor, outputs[tensor]) for tensor in tensors if tensor in outputs]
