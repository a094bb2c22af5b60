"""Where a model's time goes on ONNX Runtime, FP32 beside INT8: microseconds by kind of operator.

    python -m benchmarks.int8.operators --bundle face.bundle

Of each node the median of its runs by ONNX Runtime's own profile, in wall time, so that a busy machine shows in single
runs and not in the figure; FP32 and INT8 run one after the other, one thread. Depthwise convolutions stand apart from
others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto

from benchmarks.command import command
from benchmarks.int8.floor import DETECTOR_INPUT
from edge.bundle import Bundle
from edge.errors import InputError
from export.graph import attribute

WARM_UP = 10
CONVOLUTIONS = ("Conv", "QLinearConv")
KERNEL = "_kernel_time"


def profile(data: bytes, shape: Sequence[int], runs: int) -> Counter[str]:
    """Microseconds by kind of operator, of one run on a random picture. shape: (1, H, W, 3)."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        settings.optimized_model_filepath = str(Path(folder) / "fused.onnx")
        session = ort.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
        picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        for _ in range(WARM_UP + runs):
            session.run(None, {session.get_inputs()[0].name: picture})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        fused = {node.name: node for node in onnx.load(folder + "/fused.onnx").graph.node}
    took: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            took[event["name"].removesuffix(KERNEL), event["args"]["op_name"]].append(event["dur"])
    found: Counter[str] = Counter()
    for (name, operator), durations in took.items():
        found[_kind(operator, fused.get(name))] += statistics.median(durations[WARM_UP:])  # type: ignore[assignment]
    return found


def _kind(operator: str, node: NodeProto | None) -> str:
    """node: as ONNX Runtime fused it; None where it bears no name."""
    if operator not in CONVOLUTIONS:
        return operator.removeprefix("QLinear").removeprefix("Nhwc")
    grouped = node is not None and attribute(node, "group", 1) > 1
    return "depthwise convolution" if grouped else "other convolution"


@command("operators")
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table a model."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8.operators", description="Time by kind of operator, FP32 beside INT8."
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="with FP32 and INT8")
    parser.add_argument("--runs", type=int, default=50, help="whose median counts (default: %(default)s)")
    args = parser.parse_args(arguments)
    if args.runs < 1:
        raise InputError("--runs takes 1 or more")
    bundle = Bundle.open(args.bundle)
    for role in ("embedder", "detector"):
        variants = [bundle.select(role, precision) for precision in ("fp32", "int8")]
        size = variants[0].contract.size or DETECTOR_INPUT
        float32, int8 = (profile(bundle.load(variant), (1, *size, 3), args.runs) for variant in variants)
        print(f"{role}, {size[1]}×{size[0]}, microseconds".ljust(44) + "FP32    INT8")
        for kind in sorted(float32 | int8, key=lambda kind: -int8[kind]):
            print(f"  {kind:<38}{float32[kind]:8.0f}{int8[kind]:8.0f}")
        print(f"  {'all':<38}{sum(float32.values()):8.0f}{sum(int8.values()):8.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
