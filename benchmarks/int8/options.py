"""Each way to make INT8 lose less, alone and together, from one float model and the pictures it is calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto
from tqdm import tqdm

from benchmarks.int8.adaround import corrected_after, learned_rounding
from benchmarks.int8.rounding import rounded_by_output
from edge.errors import InputError
from export.calibration import METHODS, observe
from export.calibration.bias_correction import bias_correction
from export.calibration.equalisation import equalisation
from export.graph import Array
from export.passes import pair_sums, qdq
from export.passes.equalise import equalise
from export.passes.integer_pixels import integer_pixels
from export.passes.pack_pixels import pack_pixels
from export.passes.shift_biases import shift_biases
from export.variants import int8_model

Ranges = dict[str, tuple[float, float]]


def int8_variants(model: ModelProto, batches: Sequence[Array], only: Sequence[str] = ()) -> dict[str, bytes]:
    """INT8 models by what was done. batches: for the model's one input; ranges are by squared error but where named.

    only: the names to make; all, where there are none. Raises InputError for a name that is none of them.
    """
    ranges = ranges_by(model, batches, "mse")
    moved = equalise(model, equalisation(model, batches))
    moved_ranges = ranges_by(moved, batches, "mse")

    @cache
    def learned() -> ModelProto:
        return learned_rounding(_unpacked(model, ranges), integer_pixels(model), batches)

    made: dict[str, Callable[[], ModelProto]] = {
        "full range": lambda: _within(lambda scales: scales * 0, model, ranges),
        "neighbours within 128": lambda: _int8(model, ranges),
        **{
            method: lambda method=method: _int8(model, ranges_by(model, batches, method))  # type: ignore[misc]
            for method in METHODS
            if method != "mse"
        },
        "7 bits": lambda: _within(lambda scales: scales * 127.0 / 64.0, model, ranges, of_largest=True),
        "bias correction": lambda: _int8(_corrected(model, batches), ranges),
        "equalisation": lambda: _int8(moved, moved_ranges),
        "equalisation, bias correction": lambda: _int8(_corrected(moved, batches), moved_ranges),
        "rounding by output": lambda: pack_pixels(
            rounded_by_output(_unpacked(model, ranges), integer_pixels(model), batches)
        ),
        "AdaRound": lambda: pack_pixels(learned()),
        "AdaRound, biases corrected after": lambda: pack_pixels(
            corrected_after(learned(), integer_pixels(model), batches)
        ),
    }
    if unknown := [name for name in only if name not in made]:
        raise InputError(f"--only {unknown[0]}: choose of {'; '.join(made)}")
    chosen = {name: make for name, make in made.items() if name in only or not only}
    return {name: bytes(make().SerializeToString()) for name, make in tqdm(chosen.items(), desc="INT8", unit="variant")}


def ranges_by(model: ModelProto, batches: Sequence[Array], method: str) -> Ranges:
    """Ranges of the tensors that quantisation needs."""
    seen = observe(model, qdq.placement(model).tensors, lambda: batches)
    return {name: METHODS[method](histogram) for name, histogram in seen.items()}


@contextmanager
def weights_within(change: Callable[[Any], Any], *, of_largest: bool = False) -> Iterator[None]:
    """Within it, `change` makes the least scales of weights that are not depthwise, of the bound's or the largest's."""
    bound = pair_sums.bounded_scales

    def changed(weight: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
        scales = bound(weight, axis)
        largest = qdq.channel_scales(weight, axis)
        return np.asarray(change(np.where(scales > 0, largest, 0) if of_largest else scales), np.float32)

    pair_sums.bounded_scales = changed
    try:
        yield
    finally:
        pair_sums.bounded_scales = bound


def _int8(model: ModelProto, ranges: Ranges) -> ModelProto:
    return int8_model(model, ranges, "int8-cpu")


def _unpacked(model: ModelProto, ranges: Ranges) -> ModelProto:
    """INT8 whose first layer still has the float one's weights one by one, so that their rounding can be chosen."""
    return qdq.quantise(integer_pixels(model), ranges, "int8-cpu", qdq.final_layers(model))


def _within(change: Callable[[Any], Any], model: ModelProto, ranges: Ranges, *, of_largest: bool = False) -> ModelProto:
    with weights_within(change, of_largest=of_largest):
        return _int8(model, ranges)


def _corrected(model: ModelProto, batches: Sequence[Array]) -> ModelProto:
    return shift_biases(model, bias_correction(model, batches))
