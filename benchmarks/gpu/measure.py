"""Measures everything that needs an NVIDIA GPU, and writes it down with where it comes from.

    python -m benchmarks.gpu.measure --bundle my.bundle --photos photos/ --pairs lfw/pairs.txt --images lfw/images \\
        --out benchmarks/results/gpu.json

Engines are built where the cache has none. Nothing is measured twice over; run it on an otherwise idle GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.gpu.engines import engine_for, measure_accuracy, measure_engine, tensorrt_variants
from benchmarks.gpu.frame import measure_frames
from benchmarks.gpu.kernels import measure_kernels
from benchmarks.gpu.timing import COPY_BYTES, copy_bandwidth
from benchmarks.provenance import NOT_MEASURED, machine, now, versions
from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
from edge.cli.options import positive, size
from edge.cuda.kernels import Kernels
from edge.engines.base import Array, SessionOptions
from edge.engines.onnxruntime import OnnxRuntimeEngine
from edge.engines.tensorrt import Profile, TensorRtOptions
from edge.engines.tensorrt.engine import device_of
from edge.errors import EdgeError
from edge.manifest import Variant
from edge.pictures import is_picture

PROBES = 32


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 2, with one line, where it cannot measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", type=Path, required=True, help="made by edge export --target onnx,tensorrt")
    parser.add_argument("--photos", type=Path, help="photos of faces that new engines are proved on (else made up)")
    parser.add_argument("--pairs", type=Path, help="pairs in LFW's format, with --images: accuracy through each engine")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--rounds", type=positive, default=1000, help="samples of each figure (default: %(default)s)")
    parser.add_argument("--rows", type=positive, default=1_000_000, help="gallery of the search (default: %(default)s)")
    parser.add_argument("--frame", type=size, default=(1920, 1080), help="of the camera (default: 1920x1080)")
    parser.add_argument("--copy-bytes", type=positive, default=COPY_BYTES)
    parser.add_argument("--frames", type=positive, default=8, help="largest batch of the detector (default: 8)")
    parser.add_argument("--backend", help="pycuda or cuda-python (default: the first installed)")
    args = parser.parse_args(arguments)
    try:
        result = measure(args)
    except EdgeError as error:
        print(f"edge: {error}", file=sys.stderr)
        return error.exit_code
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {args.out}")
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures, JSON-ready. Raises EdgeError."""
    bundle = Bundle.open(args.bundle)
    device = device_of(args.backend)
    stream = device.stream()
    bandwidth = copy_bandwidth(device, stream, min(args.rounds, 100), args.copy_bytes)
    image = b"emulated" if device.info.name == "CPU emulator" else None
    result: dict[str, Any] = {
        "time": now(),
        "machine": machine(),
        "gpu": {
            "name": device.info.name,
            "architecture": device.info.architecture,
            "memory": device.info.memory,
            "driver_cuda": device.info.driver,
            "backend": device.backend,
            "state": gpu_state(),
        },
        "versions": versions(),
        "bundle": bundle.digest(),
        "copy_bandwidth": bandwidth or NOT_MEASURED,
        "kernels": measure_kernels(device, Kernels(device, image), args.frame, args.rows, args.rounds, bandwidth),
        "engines": {},
        "frame": {},
    }
    probes = photo_probes(bundle, args.photos) if args.photos is not None else {}
    for variant in tensorrt_variants(bundle):
        profile = Profile(frames=tuple(sorted({1, args.frames})))
        model = bundle.load(variant)
        feeds = named(model, probes[variant.role]) if variant.role in probes else None
        options = TensorRtOptions(profile=profile, probes=feeds, backend=args.backend)
        result["engines"][variant.name] = _engine(bundle, variant, model, options, args)
    result["frame"] = measure_frames(bundle, args.frame, args.rounds)
    return result


def _engine(
    bundle: Bundle, variant: Variant, model: bytes, options: TensorRtOptions, args: argparse.Namespace
) -> dict[str, Any]:
    """One variant's figures, or why there are none: one that cannot be built must not cost the others theirs."""
    try:
        ready = engine_for(options, model)
        found = measure_engine(ready, (1, 8, 64), args.rounds)
        if variant.role == "embedder" and args.pairs is not None and args.images is not None:
            found["verification"] = measure_accuracy(bundle, ready, variant, args.pairs, args.images)
    except EdgeError as error:
        return {"not_measured": str(error)}
    return found


def photo_probes(bundle: Bundle, folder: Path) -> dict[str, Array]:
    """Pictures by role: aligned faces for embedders, whole photos at 320×320 for detectors."""
    paths = [path for path in sorted(folder.rglob("*")) if is_picture(path)][:PROBES]
    images = [image for path in paths if (image := cv2.imread(str(path))) is not None]
    with FaceAnalyzer(bundle, AnalyzerOptions(precision="fp32")) as analyzer:
        found = [(image, analyzer.main_face(image)) for image in images]
        crops = [analyzer.align(image, [face])[0] for image, face in found if face is not None]
    if not crops:
        return {}
    whole = [cv2.resize(image, (320, 320), interpolation=cv2.INTER_AREA) for image in images[:8]]
    return {"embedder": np.stack(crops), "detector": np.stack(whole)}


def named(model: bytes, pictures: Array) -> dict[str, Array]:
    """The pictures under the name of the model's input."""
    with OnnxRuntimeEngine().open(model, SessionOptions()) as session:
        return {session.inputs[0].name: pictures}


def gpu_state() -> str:
    """Clocks and power as nvidia-smi says; a figure without them is not one that can be repeated."""
    query = "--query-gpu=clocks.sm,clocks.mem,power.draw,power.limit,temperature.gpu,utilization.gpu"
    try:
        command = ["nvidia-smi", query, "--format=csv"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - a fixed command
    except (OSError, subprocess.CalledProcessError):
        return NOT_MEASURED
    return done.stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
