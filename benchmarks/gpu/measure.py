"""Measures everything that needs an NVIDIA GPU, and writes it down with where it comes from.

    python -m benchmarks.gpu.measure --bundle relu.bundle prelu.bundle --photos photos/ --pairs lfw/pairs.txt \\
        --images lfw/images --out benchmarks/results/gpu.json

Engines are built where the cache has none. The file is written after every part, and what it holds already of the same
GPU, TensorRT, bundles, pictures and options is not measured again: a run that was cut off is started once more. Run it
on an idle GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from benchmarks.command import command
from benchmarks.energy import find_meters
from benchmarks.energy.measure import measure_energy
from benchmarks.gpu.engines import (
    WantedEngine,
    aligned_crops,
    describe_engine,
    engine_for,
    is_whole,
    measure_accuracy,
    measure_batch,
    measure_best,
    random_feeds,
)
from benchmarks.gpu.frame import PEOPLE, frame_precisions, frame_variants, measure_frame
from benchmarks.gpu.goals import as_text, goals
from benchmarks.gpu.kernels import MOST_ROWS, measure_kernels, measure_search, rows_that_fit
from benchmarks.gpu.needs import kernels_digest, require_engines, will_be_missed
from benchmarks.gpu.report import Report, picture_digests
from benchmarks.gpu.sanitizer import TOOLS, complaints, is_clean, sanitize
from benchmarks.gpu.timing import COPY_BYTES, copy_bandwidth
from benchmarks.provenance import NOT_MEASURED
from edge.bundle import Bundle
from edge.cli.options import positive, positive_float, size
from edge.cuda.kernels import Kernels
from edge.device_engines import as_probes, real_pictures, tensorrt_variants
from edge.engines.tensorrt import Profile, TensorRtEngine, TensorRtOptions
from edge.engines.tensorrt.engine import ReadyPlan, device_of
from edge.errors import InputError
from edge.manifest import Variant
from edge.types import Image

BATCHES = (1, 8, 64, 256)
"""Of embedders and landmarkers. The best of them is held against the roofline."""
FRAMES = (1, 8, 64)
"""Of detectors, at 640×640."""

Crops = dict[PurePosixPath, Image]


@command("edge")
def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 2, with one line, where it cannot measure; 1 where a part could not be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--bundle", type=Path, required=True, nargs="+", help="made by edge export --target onnx,tensorrt; several"
    )
    parser.add_argument("--photos", type=Path, help="photos of faces that new engines are proved on (else made up)")
    parser.add_argument("--pairs", type=Path, help="pairs in LFW's format, with --images: accuracy through each engine")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write, or to go on with")
    parser.add_argument("--rounds", type=positive, default=1000, help="samples of each figure (default: %(default)s)")
    parser.add_argument(
        "--rows", type=positive, help=f"gallery of the search (default: {MOST_ROWS}, or what half of the memory holds)"
    )
    parser.add_argument("--people", type=positive, default=PEOPLE, help="gallery of a frame (default: %(default)s)")
    parser.add_argument("--frame", type=size, default=(1920, 1080), help="of the camera (default: 1920x1080)")
    parser.add_argument("--copy-bytes", type=positive, default=COPY_BYTES)
    parser.add_argument(
        "--batches", type=_ascending, default=BATCHES, help="of embedders and landmarkers (default: 1,8,64,256)"
    )
    parser.add_argument("--frames", type=_ascending, default=FRAMES, help="batches of detectors (default: 1,8,64)")
    parser.add_argument("--energy-seconds", type=positive_float, default=1.5, help="of a block (default: %(default)s)")
    parser.add_argument("--backend", help="pycuda or cuda-python (default: the first installed)")
    args = parser.parse_args(arguments)
    report = measure(args)
    print(as_text(report.values["goals"]))
    print(f"wrote {args.out}")
    if report.failed:
        print(f"edge: not measured: {', '.join(report.failed)}; started again it tries these alone", file=sys.stderr)
    return 1 if report.failed else 0


def measure(args: argparse.Namespace) -> Report:
    """All figures, also in args.out after every part. Raises EdgeError."""
    if (args.pairs is None) != (args.images is None):
        raise InputError("--pairs and --images belong together: the list, and the folder its pictures are in")
    bundles = {path.name: Bundle.open(path) for path in args.bundle}
    if len(bundles) != len(args.bundle):
        raise InputError("two bundles have the same name; rename one, results are told apart by it")
    device = device_of(args.backend)
    require_engines()
    image = b"emulated" if device.info.name == "CPU emulator" else None
    subject = {
        "gpu": {
            "name": device.info.name,
            "architecture": device.info.architecture,
            "memory": device.info.memory,
            "driver_cuda": device.info.driver,
            "driver_release": device.info.release,
            "backend": device.backend,
        },
        "tensorrt": TensorRtEngine().version(),
        "bundle_digests": {name: bundle.digest() for name, bundle in bundles.items()},
        "picture_digests": picture_digests(args.pairs, args.images, args.photos),
        "options": {
            name: str(value)
            for name, value in sorted(vars(args).items())
            if name not in ("out", "bundle", "photos", "pairs", "images")
        },
    }
    subjects = [_Subject.read(name, bundle, args.photos) for name, bundle in bundles.items()]
    report = Report(args.out, subject)
    report.of_kernels(kernels_digest(image))
    for missing in will_be_missed(device, image):
        print(f"edge: {missing}", file=sys.stderr)
    report.part("state_before", gpu_state)
    stream = device.stream()
    report.part(
        "copy_bandwidth", lambda: copy_bandwidth(device, stream, min(args.rounds, 100), args.copy_bytes) or NOT_MEASURED
    )
    found = report.values["copy_bandwidth"]
    bandwidth = found if isinstance(found, float) else None
    report.part(
        "kernels",
        lambda: measure_kernels(device, Kernels(device, image), args.frame, args.rounds, bandwidth),
    )
    report.part(
        "search",
        lambda: measure_search(device, Kernels(device, image), args.rows or rows_that_fit(), args.rounds, bandwidth),
    )
    crops: dict[str, Crops] = {}
    for each in subjects:
        _measure_bundle(report, each, bandwidth, crops, args)
    report.part("state_after", gpu_state)
    # Last: it takes longest, and what it says changes no figure.
    tools = report.values.setdefault("sanitizer", {})
    for tool in TOOLS:
        report.part(tool, lambda tool=tool: sanitize(tool, device.backend), tools, "sanitizer", is_clean)  # type: ignore[misc]
    if complained := complaints(tools):
        report.fails("sanitizer", complained)
    report.values["goals"] = goals(report.values)
    report.write()
    return report


@dataclass(frozen=True, slots=True)
class _Subject:
    """A bundle with all that is read of it: what is damaged or missing is told before anything is measured."""

    name: str
    bundle: Bundle
    models: tuple[tuple[Variant, bytes], ...]
    pictures: dict[str, Any]

    @classmethod
    def read(cls, name: str, bundle: Bundle, photos: Path | None) -> _Subject:
        """Raises EdgeError."""
        models = tuple((variant, bundle.load(variant)) for variant in tensorrt_variants(bundle))
        return cls(name, bundle, models, dict(real_pictures(bundle, photos)) if photos is not None else {})


def _measure_bundle(
    report: Report,
    subject: _Subject,
    bandwidth: float | None,
    crops: dict[str, Crops],
    args: argparse.Namespace,
) -> None:
    name, bundle, pictures = subject.name, subject.bundle, subject.pictures
    entries = report.values["bundles"].setdefault(name, {"engines": {}, "accuracy": {}, "frames": {}, "energy": {}})
    profile = Profile(batch=args.batches, frames=args.frames)

    def options(variant: Variant, model: bytes) -> TensorRtOptions:
        feeds = as_probes(model, variant, pictures[variant.role]) if variant.role in pictures else None
        return TensorRtOptions(profile=profile, probes=feeds, backend=args.backend)

    wanted: dict[str, WantedEngine] = {}
    for variant, model in subject.models:
        batches = args.frames if variant.role == "detector" else args.batches

        def load(variant: Variant = variant, model: bytes = model) -> ReadyPlan:
            return engine_for(options(variant, model), model)

        wanted[variant.name] = ready = WantedEngine(load)
        _measure_engine(report, entries["engines"], f"{name}, engine", variant, model, ready, batches, bandwidth, args)

        def accuracy(variant: Variant = variant, ready: WantedEngine = ready) -> Any:
            detector = bundle.select("detector", "fp32").sha256
            if detector not in crops:
                crops[detector] = aligned_crops(bundle, args.pairs, args.images)
            return measure_accuracy(crops[detector], ready(), variant, args.pairs)

        def energy(ready: WantedEngine = ready) -> Any:
            return _energy(ready(), args)

        if variant.role == "embedder":
            if args.pairs is not None:
                report.part(variant.name, accuracy, entries["accuracy"], f"{name}, accuracy")
            report.part(variant.name, energy, entries["energy"], f"{name}, energy", lambda kept: kept["measured"])
    for precision in frame_precisions(bundle):

        def frame(precision: str = precision) -> Any:
            for variant in frame_variants(bundle, precision):
                wanted[variant.name].require_not_failed()
            built = TensorRtOptions(profile=profile, backend=args.backend)
            return measure_frame(bundle, precision, args.frame, args.rounds, args.people, built)

        report.part(precision, frame, entries["frames"], f"{name}, frame")


def _measure_engine(
    report: Report,
    engines: dict[str, Any],
    of: str,
    variant: Variant,
    model: bytes,
    ready: WantedEngine,
    batches: tuple[int, ...],
    bandwidth: float | None,
    args: argparse.Namespace,
) -> None:
    """One engine, each batch a part of its own: what was measured of it stays where it is cut off."""
    report.part(variant.name, lambda: {"role": variant.role, **describe_engine(ready(), model)}, engines, of)
    entry = engines[variant.name]
    if "batches" not in entry:
        return
    for batch in batches:

        def at_batch(batch: int = batch) -> Any:
            return measure_batch(ready(), batch, args.rounds)

        report.part(str(batch), at_batch, entry["batches"], f"{of} {variant.name}, batch")
    if variant.role != "detector":
        report.part(
            "best",
            lambda: measure_best(ready(), model, entry["batches"], bandwidth),
            entry,
            f"{of} {variant.name}",
            settled=lambda kept: is_whole(kept, entry["batches"]),
        )


def _energy(ready: ReadyPlan, args: argparse.Namespace) -> dict[str, Any]:
    """Joules a batch of the smallest and of the largest size takes, above what the machine takes idle."""
    meters, missing = find_meters()
    session = ready.open()
    with session:

        def embedding(batch: int) -> Callable[[int], None]:
            feeds = random_feeds(session, batch)

            def once(_: int) -> None:
                session.run(feeds)

            return once

        work = {f"batch {batch}": embedding(batch) for batch in (args.batches[0], args.batches[-1])}
        return measure_energy(work, meters, missing, seconds=args.energy_seconds)


def _ascending(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, with commas between, each above the one before."""
    values = tuple(positive(part) for part in text.split(","))
    if sorted(set(values)) != list(values):
        raise argparse.ArgumentTypeError(f"{text} does not go up, as 1,8,64 does")
    return values


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
    sys.exit(main())
