"""Observe, try every method, keep the one whose INT8 model does best on pictures it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto
from tqdm import tqdm

from edge.errors import InputError
from export.calibration.methods import METHODS
from export.calibration.observer import observe
from export.calibration.table import CalibrationTable, as_written
from export.graph import Array, parameters_digest
from export.passes.qdq import Ranges, placement

HELD_OUT = 4
"""One picture in so many judges the methods, and is not calibrated on."""

MIN_PICTURES = 8
"""The least to take ranges from."""

MIN_PHOTOS = MIN_PICTURES + (MIN_PICTURES - 1) // (HELD_OUT - 1)
"""The least photos with a face, so that MIN_PICTURES are left of them when some are held out."""


@dataclass(frozen=True, slots=True)
class CalibrationData:
    """Batches for a model's one input to observe. digest: SHA-256 over the pictures; count: pictures."""

    batches: Sequence[Array]
    digest: str
    count: int


Build = Callable[[Ranges], bytes]
"""Makes the INT8 model from ranges."""

Judge = Callable[[bytes], float]
"""How well a model does on held-out pictures; higher is better."""

Choose = Callable[[Mapping[str, bytes], str, Mapping[str, float]], dict[str, Any]]
"""From the INT8 models by method, the method `Judge` likes best and its figures: what to record, and under `taken` the
method to take. See `export.choosing`."""


def calibrate(
    model: ModelProto,
    role: str,
    data: CalibrationData,
    build: Build,
    judge: Judge,
    *,
    choose: Choose | None = None,
    quiet: bool = False,
) -> CalibrationTable:
    """The ranges of the tensors that quantisation needs, by the method that `judge` likes best.

    model: the float graph. choose: has the last word on the method, where it is there.
    Raises InputError for fewer than MIN_PICTURES pictures.
    """
    if data.count < MIN_PICTURES:
        raise InputError(f"{data.count} calibration pictures with a face are too few; {MIN_PICTURES} is the least")
    tensors = placement(model).tensors
    histograms = observe(model, tensors, lambda: data.batches)
    judged, models = dict[str, float](), dict[str, bytes]()
    candidates = {name: {t: _kept(method(h)) for t, h in histograms.items()} for name, method in METHODS.items()}
    for name in tqdm(candidates, desc=f"calibrating the {role}", unit="method", disable=quiet, leave=False):
        models[name] = build(candidates[name])
        judged[name] = judge(models[name])
    # Equal to six digits is equal: then the first, which clips least, is taken.
    best = max(judged, key=lambda name: round(judged[name], 6) if np.isfinite(judged[name]) else -np.inf)
    scores = {name: round(float(value), 6) for name, value in judged.items()}
    accuracy = choose(models, best, judged) if choose is not None else {}
    best = accuracy.get("taken", best)
    return CalibrationTable(
        role,
        parameters_digest(model),
        best,
        candidates[best],
        data.digest,
        data.count,
        scores,
        accuracy=accuracy,
    )


def _kept(limits: tuple[float, float]) -> tuple[float, float]:
    """A range as a table keeps it, so that an export from the table gives the very scales that were measured."""
    low, high = limits
    return as_written(low), as_written(high)


def require_photos(count: int) -> None:
    """Raises InputError where `count` photos with a face are too few to calibrate on and to judge by."""
    if count < MIN_PHOTOS:
        raise InputError(
            f"{count} calibration photos with a face are too few; {MIN_PHOTOS} is the least, as one in {HELD_OUT} is "
            "held out; add photos, or leave --calibration out"
        )


def split_held_out(count: int) -> tuple[Array, Array]:
    """Indices below `count` to calibrate on and to judge on, both (…,) int64; every HELD_OUT-th is held out."""
    index = np.arange(count)
    held = index % HELD_OUT == HELD_OUT - 1
    return index[~held], index[held]
