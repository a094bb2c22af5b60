"""`edge triton`: a bundle as a Triton model repository."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge.cli import options
from edge.cli.verb import Verb
from edge.manifest import PRECISIONS

EXAMPLE = """
edge triton --bundle my.bundle --out repository
edge triton --bundle my.bundle --out repository --device gpu --precision fp16 --instances 2 --max-batch 32
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
        "--max-delay-us", type=int, default=2000, metavar="US", help="how long one waits for others (default: 2000)"
    )


def run(args: argparse.Namespace) -> int:
    from export.triton import TritonOptions, write_repository

    chosen = TritonOptions(args.precision, args.device, args.instances, args.max_batch, args.max_delay_us)
    for model in write_repository(options.open_bundle(args), args.out, chosen, print):
        print(f"{args.out / model.model}: version {model.version}, {model.variant}")
    return 0


VERB = Verb(
    name="triton",
    summary="put a bundle into a Triton model repository",
    configure=configure,
    run=run,
    description=(
        "Writes detector and embedder as the next version of each, with config.pbtxt: batching, instances, shapes.\n"
        "Decoding of the detector's heads and alignment stay with the client, as they are in edge."
    ),
    example=EXAMPLE,
    requires=("onnxruntime",),
    extra="triton",
)
