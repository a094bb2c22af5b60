"""Watches tensors inside a graph while real pictures go through it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from onnx import ModelProto, helper

from edge.engines import open_session
from edge.errors import InputError
from export.calibration.methods import BINS, Histogram
from export.graph import Array

Batches = Callable[[], Iterable[Array]]
"""Gives the calibration batches, each time it is called: they are gone through twice."""


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
            span = high[name] - low[name]
            factor = BINS / span if span > 0 else 0.0
            bins = np.minimum(
                ((array.reshape(-1) - np.float32(low[name])) * np.float32(factor)).astype(np.int32), BINS - 1
            )
            counts[name] += np.bincount(bins, minlength=BINS)
    return {name: Histogram(low[name], high[name], counts[name]) for name in tensors}


def outputs_of(
    model: ModelProto, tensors: Sequence[str], batches: Iterable[Array]
) -> Iterator[list[tuple[str, Array]]]:
    """What `tensors` of a model hold, batch by batch, by name."""
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
