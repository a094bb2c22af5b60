"""`edge triton`: a bundle as a Triton model repository."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli import options
from edge.cli.verb import Verb
from edge.errors import InputError
from edge.manifest import PRECISIONS

if TYPE_CHECKING:
    from edge.bundle import Bundle
    from export.triton import TritonOptions

EXAMPLE = """
edge triton --bundle my.bundle --out repository
edge triton --bundle my.bundle --out repository --device gpu --precision fp16 --instances 2 --max-batch 32
edge triton --bundle my.bundle --out repository --device gpu --precision fp16 --max-batch 64 --curve report.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", required=True, type=Path, metavar="DIR", help="bundle made by edge export")
    options.add_require_signed(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="repository, made or added to")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the models (default: the first the device runs)")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--instances", type=options.positive, default=1, metavar="N", help="copies of each model (default: 1)"
    )
    parser.add_argument(
        "--max-batch", type=options.positive, default=16, metavar="N", help="requests put together (default: 16)"
    )
    parser.add_argument(
        "--max-delay-us",
        type=int,
        metavar="US",
        help="how long one waits for others (default: 2000; with --curve: as long as a face alone takes)",
    )
    parser.add_argument(
        "--curve",
        type=Path,
        metavar="REPORT",
        help="report.json of edge bench on the server's machine: the embedder's batches as measured there",
    )
    parser.add_argument("--curve-engine", metavar="ENGINE", help="whose curve, where the report holds several")


def run(args: argparse.Namespace) -> int:
    from export.triton import TritonOptions, write_repository

    delay = 2000 if args.max_delay_us is None else args.max_delay_us
    chosen = TritonOptions(args.precision, args.device, args.instances, args.max_batch, delay)
    bundle = options.open_bundle(args)
    embedder = _measured(args, bundle, chosen)
    for model in write_repository(bundle, args.out, chosen, print, embedder=embedder):
        print(f"{args.out / model.model}: version {model.version}, {model.variant}")
    return 0


def _measured(args: argparse.Namespace, bundle: Bundle, chosen: TritonOptions) -> TritonOptions:
    """The embedder's options: as the user's, with batches as they were measured where a report is named."""
    from export.triton.curve import choose_batching, read_curve
    from export.triton.repository import select_variant

    if args.curve is None:
        if args.curve_engine is not None:
            raise InputError("--curve-engine needs --curve")
        return chosen
    precision = select_variant(bundle, "embedder", chosen).precision
    batching = choose_batching(read_curve(args.curve, precision, args.curve_engine), args.max_batch)
    print(f"{args.curve}: {precision}: {batching.words}")
    delay = batching.delay if args.max_delay_us is None else args.max_delay_us
    return replace(chosen, max_batch=batching.most, max_delay=delay, sizes=batching.preferred)


VERB = Verb(
    name="triton",
    summary="put a bundle into a Triton model repository",
    configure=configure,
    run=run,
    description=(
        "Writes detector, landmarker and embedder, each as the next version where the model is another one, with\n"
        "config.pbtxt: batching, instances, shapes.\n"
        "Decoding of the detector's heads and alignment stay with the client, as they are in edge."
    ),
    example=EXAMPLE,
    requires=("onnxruntime",),
    extra="triton",
)
