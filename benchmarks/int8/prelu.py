"""A network with PReLU: what the exact rewrite and INT8 bring over plain ONNX Runtime, and what they lose.

    python -m benchmarks.int8.prelu --ncnn mobilefacenet_insightface_128.param --calibration photos \\
        --crops faces.zip --out prelu.json

Plain is the network as its author exports it, PRelu nodes and all. Everything takes turns, one thread, processor time.
`--onnx` with `--contract` takes another network.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.command import command
from benchmarks.int8.__main__ import held_out_crops
from benchmarks.int8.ncnn_model import CONTRACT, read_ncnn
from benchmarks.interleave import Plan, Stopwatch, interleave
from benchmarks.provenance import machine, versions
from benchmarks.statistics import speedup
from edge.engines import SessionOptions, get_engine, open_session
from edge.errors import InputError
from edge.types import Floats, Image
from export.agreement import compare_embeddings, embed_with
from export.gate import tar_drop
from export.passes import Passes
from export.photos import Finder, Photos
from export.sources import Source, load_embedder_onnx, network_input
from export.variants import build_variants, calibrate_embedder

RUN, PLAIN = "run", "plain, ONNX Runtime"
ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
TARGETS = {"fp32": (2.0, 0.99999), "int8": (3.5, 0.99)}
"""By precision: times plain FP32, and mean cosine to it."""


def measure(source: Source, plain: bytes, models: dict[str, bytes], crops: Image, plan: Plan) -> dict[str, Any]:
    """Milliseconds and times plain of each model on each engine. plain: the author's graph, fed as `source.stated`."""
    if source.stated is None:
        raise InputError("plain ONNX Runtime is measured on an imported network")
    fed = network_input(crops[:1], source.stated)
    candidates: dict[str, Callable[[int, Stopwatch], None]] = {}
    with ExitStack() as opened:

        def add(label: str, data: bytes, engine: str, given: npt.NDArray[Any]) -> None:
            session = opened.enter_context(open_session(data, engine, SessionOptions(threads=1)))
            feed = {session.inputs[0].name: given}
            candidates[label] = lambda _, watch: watch.time(RUN, lambda: session.run(feed))

        add(PLAIN, plain, "onnxruntime", fed)
        for engine, told in ENGINES.items():
            if get_engine(engine).available() is None:
                for name, data in models.items():
                    add(f"{name}, {told}", data, engine, np.ascontiguousarray(crops[:1]))
        timings = interleave(candidates, plan).timings
    slow = timings[PLAIN].cpu[RUN]
    return {
        label: {
            "milliseconds": round(1e3 * float(np.median(timing.cpu[RUN])), 3),
            "times_plain": speedup(slow, timing.cpu[RUN]).to_dict(),
        }
        for label, timing in timings.items()
    }


def accuracy(
    source: Source, models: dict[str, bytes], crops: Image, labels: npt.NDArray[np.int64], fars: Sequence[float]
) -> dict[str, Any]:
    """Cosine to the author's network, and TAR lost, of each model on each engine."""
    if source.reference is None:
        raise InputError("an embedder is needed")
    reference = source.reference(crops)
    found = {}
    for engine, told in ENGINES.items():
        if get_engine(engine).available() is None:
            for name, data in models.items():
                rows = (
                    _embedded(data, engine, crops)
                    if engine != "onnxruntime"
                    else embed_with(data, source.contract, crops)
                )
                drops = [tar_drop(reference, rows, labels, far) for far in fars]
                agreement = compare_embeddings(rows, reference, f"{len(crops)} crops")
                found[f"{name}, {told}"] = {
                    "cosine": agreement.to_dict(),
                    **{drop.what: drop.to_dict() for drop in drops},
                }
    return found


def _embedded(data: bytes, engine: str, crops: Image) -> Floats:
    with open_session(data, engine, SessionOptions(threads=1)) as session:
        name, output = session.inputs[0].name, session.outputs[0].name
        parts = [session.run({name: crops[i : i + 16]})[output] for i in range(0, len(crops), 16)]
    rows: Floats = np.concatenate(parts).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


@command("prelu")
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line a model and engine, and keeps the figures."""
    args = _arguments(arguments)
    result = _result(args)
    for label, times in result["times"].items():
        ratio = times["times_plain"]
        value, low, high = (ratio[key] for key in ("value", "low", "high"))
        line = f"{label:<24} {times['milliseconds']:7.2f} ms, {value:.2f} [{low:.2f}, {high:.2f}]"
        precision = next((p for p in TARGETS if label.startswith(p)), None)
        if precision is not None:
            cosine = result["accuracy"][label]["cosine"]["mean_cosine"]
            least, near = TARGETS[precision]
            line += f" times plain (target {least}: {_met(value >= least)})"
            line += f", cosine {cosine:.6f} (target {near}: {_met(cosine >= near)})"
        print(line)
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written: {args.out}")
    return 0


def _result(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        onnx, contract = args.onnx, args.contract
        if args.ncnn is not None:
            onnx, contract = Path(folder) / f"{args.ncnn.stem}.onnx", Path(folder) / "contract.toml"
            onnx.write_bytes(read_ncnn(args.ncnn, args.ncnn.with_suffix(".bin")).SerializeToString())
            contract.write_text(CONTRACT, encoding="utf-8")
        if onnx is None or contract is None:
            raise InputError("name a network: --ncnn FILE.param, or --onnx FILE with --contract FILE.toml")
        passes = Passes()
        source, plain = load_embedder_onnx(onnx, contract, passes), onnx.read_bytes()
    faces = Photos(Finder.of(None, None), lambda text: print(text, file=sys.stderr), quiet=True).faces(args.calibration)
    table = calibrate_embedder(source, faces.crops, faces.digest, quiet=True)
    models = {built.precision: built.data for built in build_variants(source, ("fp32", "int8"), table, passes)}
    crops, labels = held_out_crops(args.crops, args.most)
    return {
        "machine": machine(),
        "versions": versions(),
        "network": args.ncnn.name if args.ncnn is not None else args.onnx.name,
        "calibration": {"photos": len(faces.crops), "method": table.method, "options": dict(table.compared)},
        "held_out": f"{len(crops)} crops of {len(np.unique(labels))} people",
        "accuracy": accuracy(source, models, crops, labels, args.far),
        "times": measure(source, plain, models, crops, Plan(seconds=args.seconds)),
    }


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8.prelu", description="A PReLU network against plain ONNX Runtime."
    )
    parser.add_argument(
        "--ncnn", type=Path, metavar="FILE.param", help="InsightFace's MobileFaceNet, its .bin beside it"
    )
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="another network with PReLU, with --contract")
    parser.add_argument("--contract", type=Path, metavar="FILE.toml")
    parser.add_argument("--calibration", type=Path, required=True, metavar="DIR", help="photos")
    parser.add_argument("--crops", type=Path, nargs="+", required=True, metavar="ZIP", help="held-out aligned crops")
    parser.add_argument("--most", type=int, default=400, help="of those crops (default: %(default)s)")
    parser.add_argument("--far", type=float, nargs="+", default=[1e-3, 1e-4])
    parser.add_argument("--seconds", type=float, default=30.0, help="of measuring (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    return parser.parse_args(arguments)


def _met(reached: bool) -> str:
    return "met" if reached else "missed"


if __name__ == "__main__":
    sys.exit(main())
