"""How near INT8 comes to what the core can multiply at all: time of each model against multiply-adds over peak.

    python -m benchmarks.int8.floor --bundle face.bundle --out floor.json

The peak is what this machine's own engine reaches on one large product of matrices, uint8 × int8 and float32, in which
nothing but multiplying takes time. All models and both products take turns, one thread, one process.

In its turn each runs twice. The first run finds in the caches what the others left there; the second finds its own
weights and buffers, as a batch, a gallery that is indexed, or the next face of a frame does. Targets are judged by the
second, and the first stands beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from benchmarks.command import command
from benchmarks.interleave import Plan, Stopwatch, Timings, interleave
from benchmarks.provenance import machine
from benchmarks.statistics import ratio_of_medians, speedup
from edge.bundle import Bundle
from edge.engines import SessionOptions, get_engine, open_session
from edge.errors import InputError
from edge.manifest import Variant

SIDE = 768
"""Rows and columns of the products that the peak is read from."""

DETECTOR_INPUT = (480, 640)
ENGINES = ("onnxruntime", "openvino")
FIRST, AGAIN = "first", "again"
"""The two runs of a turn."""

TARGET_SPEEDUP, TARGET_FLOOR = 2.3, 2.0


def multiply_adds(model: ModelProto, shape: Sequence[int]) -> int:
    """Of all convolutions and matrix products for one input of `shape`; the bias is not counted."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    for dim, size in zip(fixed.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = size
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.graph.value_info}
    shapes |= {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.graph.output}
    weights = {w.name: list(w.dims) for w in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            outputs, weight = shapes.get(node.output[0], []), weights[node.input[1]]
            if not outputs or 0 in outputs:
                raise InputError(f"the shape of {node.output[0]} is not known; export the bundle again")
            # Each output value takes one multiply-add for each weight of its channel.
            channel = int(np.prod(weight[1:])) if node.op_type == "Conv" else int(np.prod(weight)) // outputs[-1]
            total += int(np.prod(outputs)) * channel
    return total


def product(integer: bool) -> bytes:
    """A model of one product, (SIDE, SIDE) times constant (SIDE, SIDE): uint8 × int8 to int32, or float32."""
    random = np.random.default_rng(0)
    # Within ±64, so that no CPU's 16-bit sums saturate: the bound that every exported weight keeps.
    values = random.integers(-64, 65, (SIDE, SIDE)) if integer else random.normal(size=(SIDE, SIDE))
    weight = numpy_helper.from_array(values.astype(np.int8 if integer else np.float32), "w")
    kind, result = (TensorProto.UINT8, TensorProto.INT32) if integer else (TensorProto.FLOAT, TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger" if integer else "MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", kind, [SIDE, SIDE])],
        [helper.make_tensor_value_info("y", result, [SIDE, SIDE])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def measure_floor(bundle: Bundle, plan: Plan) -> dict[str, Any]:
    """Milliseconds of the peak products and of FP32 and INT8 of both models on each engine, with what follows."""
    random = np.random.default_rng(0)
    candidates: dict[str, Callable[[int, Stopwatch], None]] = {}
    work: dict[str, int] = {}
    with ExitStack() as opened:

        def add(label: str, data: bytes, engine: str, given: np.ndarray[Any, Any]) -> None:
            session = opened.enter_context(open_session(data, engine, SessionOptions(threads=1)))
            feed = {session.inputs[0].name: given}

            def turn(_: int, watch: Stopwatch) -> None:
                for run in (FIRST, AGAIN):
                    watch.time(run, lambda: session.run(feed))

            candidates[label] = turn

        for name, integer in (("float32", False), ("int8", True)):
            given = random.integers(0, 255, (SIDE, SIDE)).astype(np.uint8 if integer else np.float32)
            add(f"peak {name}", product(integer), "onnxruntime", given)
        for variant in _variants(bundle):
            size = variant.contract.size or DETECTOR_INPUT
            picture = random.integers(0, 256, (1, *size, 3)).astype(np.uint8)
            if variant.precision == "fp32":
                work[variant.role] = multiply_adds(onnx.load_from_string(bundle.load(variant)), picture.shape)
            for engine in ENGINES:
                if get_engine(engine).available() is None:
                    add(f"{variant.name} {engine}", bundle.load(variant), engine, picture)
        timings = interleave(candidates, plan).timings
    return _figures(timings, work)


def _variants(bundle: Bundle) -> list[Variant]:
    found = [v for v in bundle.manifest.variants if v.precision in ("fp32", "int8") and v.engine == "onnx"]
    if {(v.role, v.precision) for v in found} < {(r, p) for r in ("embedder", "detector") for p in ("fp32", "int8")}:
        raise InputError("the bundle lacks FP32 or INT8 of one of its models; export it with both")
    return found


def _figures(timings: Mapping[str, Timings], work: Mapping[str, int]) -> dict[str, Any]:
    first, milliseconds = (
        {label: 1e3 * timing.cpu[run] for label, timing in timings.items()} for run in (FIRST, AGAIN)
    )
    peak = {kind: SIDE**3 / (1e-3 * float(np.median(milliseconds[f"peak {kind}"]))) for kind in ("float32", "int8")}
    models = {}
    for label, samples in milliseconds.items():
        if "-int8 " in label:
            role, engine = label.split("-")[0], label.split()[1]
            plain = milliseconds[f"{role}-fp32 {engine}"]
            least = milliseconds["peak int8"] * work[role] / SIDE**3
            floors = {kind: 1e3 * work[role] / value for kind, value in peak.items()}
            models[f"{role} {engine}"] = {
                "fp32_ms": round(float(np.median(plain)), 3),
                "int8_ms": round(float(np.median(samples)), 3),
                "times_faster": speedup(plain, samples).to_dict(),
                "after_others": {
                    "fp32_ms": round(float(np.median(first[f"{role}-fp32 {engine}"])), 3),
                    "int8_ms": round(float(np.median(first[label])), 3),
                    "times_faster": speedup(first[f"{role}-fp32 {engine}"], first[label]).to_dict(),
                },
                "floor_ms": round(floors["int8"], 3),
                "times_the_floor": ratio_of_medians(samples, least).to_dict(),
                "fp32_times_its_floor": round(float(np.median(plain)) / floors["float32"], 2),
            }
    giga = {kind: round(value / 1e9, 1) for kind, value in peak.items()}
    return {"giga_multiply_adds_a_second": giga, "multiply_adds": dict(work), "models": models}


@command("floor")
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line a model and engine, and keeps the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8.floor", description="INT8 against what the core can multiply at all."
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="with FP32 and INT8 of both models")
    parser.add_argument("--seconds", type=float, default=30.0, help="of measuring (default %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the figures, with the machine, as JSON")
    args = parser.parse_args(arguments)
    bundle = Bundle.open(args.bundle)
    found = measure_floor(bundle, Plan(seconds=args.seconds))
    if args.out is not None:
        kept = {"machine": machine(), "bundle": bundle.digest(), **found}
        args.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(f"peak, billion multiply-adds a second: {found['giga_multiply_adds_a_second']}")
    for name, figures in found["models"].items():
        faster, near = (figures[key]["value"] for key in ("times_faster", "times_the_floor"))
        others = figures["after_others"]
        print(
            f"{name}: INT8 {figures['int8_ms']} ms, {faster:.2f} times FP32 (target {TARGET_SPEEDUP}: "
            f"{_met(faster >= TARGET_SPEEDUP)}), {near:.2f} times the floor of {figures['floor_ms']} ms "
            f"(target {TARGET_FLOOR}: {_met(near <= TARGET_FLOOR)}); right after the others "
            f"{others['int8_ms']} ms, {others['times_faster']['value']:.2f} times FP32"
        )
    return 0


def _met(reached: bool) -> str:
    return "met" if reached else "missed"


if __name__ == "__main__":
    sys.exit(main())
