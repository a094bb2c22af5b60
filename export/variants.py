"""The variants of one model: float, half, eight bits, each judged on faces before it may go into a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from onnx import ModelProto

from edge.errors import InputError
from edge.types import Image
from export.agreement import compare_detections, compare_embeddings, detect_with, embed_with
from export.calibration.bias_correction import bias_correction
from export.calibration.calibrate import CalibrationData, Choose, Judge, calibrate, require_photos, split_held_out
from export.calibration.equalisation import equalisation
from export.calibration.observer import observe
from export.calibration.photos import synthetic_crops
from export.calibration.table import CalibrationTable
from export.graph import parameters_digest
from export.passes import Passes
from export.passes.copy_upsampling import copy_upsampling
from export.passes.equalise import equalise
from export.passes.fp16 import fp16_report, to_fp16
from export.passes.integer_pixels import integer_pixels
from export.passes.pack_pixels import pack_pixels
from export.passes.pair_sums import saturation
from export.passes.qdq import Ranges, Scheme, final_layers, placement, quantise
from export.passes.shift_biases import shift_biases
from export.sources import Source

WORTH_EQUALISING = 0.25
"""Share of what INT8 loses that equalisation has to take away: its factors fit the people of the calibration.

For an embedder that it took a tenth from on held-out photos of them, INT8 lost a half more on crops of others.
"""

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Built:
    """A variant before it is judged: its bytes, and what building it found out."""

    name: str
    precision: str
    engine: str
    data: bytes
    notes: dict[str, Any] = field(default_factory=dict)


def build_variants(
    source: Source,
    precisions: Sequence[str],
    table: CalibrationTable | None,
    passes: Passes,
    targets: Sequence[str] = ("onnx",),
) -> list[Built]:
    """The variants of a model, in the order of PRECISIONS.

    table: needed for INT8; for FP16 its ranges keep a layer that could overflow in float. Raises InputError where it is
    missing or unfit.
    """
    role, model = source.contract.role, source.float_model
    if table is not None and ("int8" in precisions or table.factors):
        table.require_fit(parameters_digest(model), ())
    if table is not None and table.factors:
        # All variants: then tensors of one name hold the same values in each of them.
        factors = table.factors
        model = passes.run(f"{role} equalised", lambda m: equalise(m, factors), model)
    ranges = table.tensors if table is not None else None
    built = list[Built]()
    if "fp32" in precisions:
        built.append(Built(f"{role}-fp32", "fp32", "onnx", model.SerializeToString()))
    if "fp16" in precisions:
        seen = ranges if ranges is not None else _extremes(model)
        half = passes.run(f"{role} FP16", lambda m: to_fp16(m, seen), model)
        built.append(Built(f"{role}-fp16", "fp16", "onnx", half.SerializeToString(), {"fp16": fp16_report(model)}))
    if "int8" in precisions:
        if table is None:
            raise InputError(f"INT8 of the {role} needs a calibration; name photos or a table with --calibration")
        built += _int8_variants(role, model, table, passes, with_tensorrt="tensorrt" in targets)
    return built


def _int8_variants(
    role: str, model: ModelProto, table: CalibrationTable, passes: Passes, *, with_tensorrt: bool
) -> list[Built]:
    """model: with the table's factors, if it has any. Raises InputError where the table has not all of its tensors."""
    keep, ranges = frozenset(table.keep), table.tensors
    in_float = keep | final_layers(model)
    table.require_tensors(placement(model, in_float).tensors)
    notes = {
        "scheme": "int8-cpu",
        "calibration": {
            "method": table.method,
            "count": table.count,
            "judged": dict(table.judged),
            "accuracy": dict(table.accuracy),
        },
        "options": {
            "equalised_tensors": len(table.factors),
            "corrected_biases": len(table.shifts),
            "compared": dict(table.compared),
        },
        "kept_in_float": sorted(in_float),
    }
    shifts = table.shifts  # they make up for weights rounded as int8-cpu rounds them, which TensorRT's are not
    corrected = passes.run(f"{role} biases", lambda m: shift_biases(m, shifts, keep), model) if shifts else model
    whole = passes.run(f"{role} INT8", lambda m: int8_model(m, ranges, "int8-cpu", keep), corrected)
    proven = {**notes, "saturation": saturation(whole).to_dict()}
    built = [Built(f"{role}-int8", "int8", "onnx", whole.SerializeToString(), proven)]
    if with_tensorrt:
        laid_out = passes.run(f"{role} INT8 TensorRT", lambda m: int8_model(m, ranges, "int8-tensorrt", keep), model)
        notes = {**notes, "scheme": "int8-tensorrt"}
        built.append(Built(f"{role}-int8-tensorrt", "int8", "tensorrt", laid_out.SerializeToString(), notes))
    return built


def int8_model(model: ModelProto, ranges: Ranges, scheme: Scheme, keep: frozenset[str] = frozenset()) -> ModelProto:
    """The INT8 graph of a scheme; heads, which feed no other layer, stay in float, and `keep` with them."""
    floating = keep | final_layers(model)
    if scheme == "int8-tensorrt":
        return quantise(model, ranges, scheme, floating)
    return copy_upsampling(pack_pixels(quantise(integer_pixels(model), ranges, scheme, floating)))


def _extremes(model: ModelProto) -> Ranges:
    """Ranges over made-up pictures, where there is no calibration: enough to see a layer that FP16 cannot hold."""
    pictures = synthetic_crops(4)
    height, width = (dim.dim_value or 96 for dim in model.graph.input[0].type.tensor_type.shape.dim[1:3])
    pictures = np.ascontiguousarray(pictures[:, :height, :width])
    histograms = observe(model, placement(model).tensors, lambda: [pictures])
    return {name: (histogram.low, histogram.high) for name, histogram in histograms.items()}


def calibrate_embedder(
    source: Source, crops: Image, digest: str, *, choose: Choose | None = None, quiet: bool = False
) -> CalibrationTable:
    """Ranges over aligned crops; the method whose INT8 embeddings stay closest (mean cosine) on held-out crops.

    choose: has the last word on the method, where people are known by name (export.choosing).
    Raises InputError for fewer crops than MIN_PHOTOS.
    """
    require_photos(len(crops))
    fit, held = split_held_out(len(crops))
    reference = embed_with(source.float_model.SerializeToString(), source.contract, crops[held])

    def judge(data: bytes) -> float:
        return compare_embeddings(embed_with(data, source.contract, crops[held]), reference, "").mean_cosine

    chosen = crops[fit]
    batches = [chosen[i : i + 8] for i in range(0, len(chosen), 8)]
    data = CalibrationData(batches, digest, len(chosen))
    return _calibrated(source, data, judge, quiet, choose)


def calibrate_detector(
    source: Source, pictures: Sequence[Image], digest: str, *, quiet: bool = False
) -> CalibrationTable:
    """Ranges over whole pictures whose sides are multiples of the stride; judged by agreement of the faces found."""
    fit, held = split_held_out(len(pictures))
    judges = [pictures[i] for i in held]
    reference = detect_with(source.float_model.SerializeToString(), source.contract, judges)

    def judge(data: bytes) -> float:
        return compare_detections(detect_with(data, source.contract, judges), reference).figure

    data = CalibrationData([pictures[i][None] for i in fit], digest, len(fit))
    return _calibrated(source, data, judge, quiet)


def equalised_source(source: Source, table: CalibrationTable) -> Source:
    """The source with the model that the ranges of `table` are of."""
    return replace(source, float_model=equalise(source.float_model, table.factors)) if table.factors else source


def _calibrated(
    source: Source, data: CalibrationData, judge: Judge, quiet: bool, choose: Choose | None = None
) -> CalibrationTable:
    """Ranges, and of equalisation and bias correction what makes INT8 do better on held-out pictures."""
    role, model = source.contract.role, source.float_model

    def build(one: ModelProto) -> Callable[[Ranges], bytes]:
        return lambda ranges: bytes(int8_model(one, ranges, "int8-cpu").SerializeToString())

    def corrected(table: CalibrationTable, one: ModelProto) -> tuple[CalibrationTable, float]:
        shifts = bias_correction(one, data.batches)
        figure = round(float(judge(build(shift_biases(one, shifts))(table.tensors))), 6)
        return replace(table, shifts=shifts), figure

    table = calibrate(model, role, data, build(model), judge, choose=choose, quiet=quiet)
    candidates = {"as it is": (table, table.figure), "biases corrected": corrected(table, model)}
    if factors := equalisation(model, data.batches):
        moved = equalise(model, factors)
        other = calibrate(moved, role, data, build(moved), judge, choose=choose, quiet=quiet)
        other = replace(other, parameters=table.parameters, factors=factors)
        candidates |= {"equalised": (other, other.figure), "equalised, biases corrected": corrected(other, moved)}
    figures = {name: figure for name, (_, figure) in candidates.items()}
    return replace(candidates[best_option(figures)][0], compared=figures)


def best_option(figures: Mapping[str, float]) -> str:
    """Of what each option scores, 1 at most: the best, but an equalised one only where that is WORTH_EQUALISING."""
    plain = {name: figure for name, figure in figures.items() if not name.startswith("equalised")}
    least = 1 - (1 - WORTH_EQUALISING) * (1 - max(plain.values()))
    worth = {name: figure for name, figure in figures.items() if name in plain or figure >= least}
    return max(worth, key=lambda name: worth[name])


def held_out(crops: Image) -> Image:
    """The crops that judge: those no range was taken from; all of them where they are few."""
    chosen: Image = crops[split_held_out(len(crops))[1]]
    return chosen if len(chosen) else crops
