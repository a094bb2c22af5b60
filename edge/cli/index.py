"""`edge index`: a great many pictures into a gallery."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli import options
from edge.cli.verb import Verb
from edge.errors import InputError

if TYPE_CHECKING:
    from edge.indexing import Engine, Summary, WorkOptions

SHOWN = 20
"""Bad pictures named on the terminal; all of them go into --bad."""


def configure(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    options.add_gallery(parser)
    parser.add_argument("pictures", type=Path, metavar="FOLDER_OR_LIST", help="a folder a person, or a list of paths")
    parser.add_argument(
        "--on", choices=("local", "ray"), default="local", help="worker processes here, or a Ray cluster (extra: ray)"
    )
    parser.add_argument(
        "--address",
        help="of the Ray cluster: HOST:PORT, or auto for one started on this machine (default: that one, else its own)",
    )
    parser.add_argument("--workers", type=options.positive, metavar="N", help="workers (default: a core each)")
    parser.add_argument("--keep-crops", action="store_true", help="store the 112x112 crops too, to change models later")
    parser.add_argument(
        "--bad", type=Path, metavar="FILE", help="write all bad pictures given, old and new, as JSON lines"
    )
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from edge.gallery import Binding, Gallery
    from edge.indexing import WorkOptions, index, read_jobs

    jobs = read_jobs(args.pictures)
    if args.bad is not None:
        _check_writable(args.bad)
    bundle, key, precision = options.open_bundle(args), options.gallery_key(args), args.precision
    if precision is None and Gallery.exists(args.gallery):
        with Gallery.open(args.gallery, key) as there:
            there.require_writable()
            precision = there.variant_in(bundle).precision
    options.settle_engine(args, bundle, precision)
    variant = bundle.select("embedder", precision, args.engine)
    work = WorkOptions(
        args.bundle.resolve(),
        variant.precision,
        args.engine,
        args.keep_crops,
        args.detector_engine,
        args.preprocess,
        args.detector_precision,
        args.detection_score,
    )
    started = time.monotonic()
    with (
        Gallery.open_or_create(args.gallery, Binding.of(variant), key) as gallery,
        tqdm(total=len(jobs), unit="picture", disable=None, leave=False) as bar,
    ):
        summary = index(gallery, jobs, _engine(args, work), bar.update)
    _report(args, summary, time.monotonic() - started)
    bad = len(summary.problems) + len(summary.problems_before)
    return 2 if bad == summary.pictures else 0


def _check_writable(path: Path) -> None:
    """Before hours of work, not after. Raises InputError."""
    try:
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise InputError(f"--bad {path}: cannot be written ({error.strerror})") from error


def _engine(args: argparse.Namespace, work: WorkOptions) -> Engine:
    if args.on == "ray":
        from edge.indexing.ray_engine import RayEngine

        return RayEngine(work, args.workers, args.address)
    if args.address is not None:
        raise InputError("--address is of a Ray cluster; give --on ray, too")
    from edge.indexing.local import LocalEngine

    return LocalEngine(work, args.workers or len(os.sched_getaffinity(0)))


def _report(args: argparse.Namespace, summary: Summary, seconds: float) -> None:
    if args.bad is not None:
        problems = [*summary.problems_before, *summary.problems]
        lines = [json.dumps({"path": path, "problem": problem}) + "\n" for path, problem in problems]
        args.bad.write_text("".join(lines), encoding="utf-8")
    counts = {
        "pictures": summary.pictures,
        "seen_before": summary.seen,
        "added": summary.added,
        "known": summary.known,
        "duplicates": summary.duplicates,
        "bad": len(summary.problems),
        "bad_before": len(summary.problems_before),
        "seconds": round(seconds, 3),
    }
    if args.json:
        print(json.dumps({**counts, "gallery": str(args.gallery)}))
        return
    for path, problem in summary.problems[:SHOWN]:
        print(f"  bad: {path}: {problem}", file=sys.stderr)
    if len(summary.problems) > SHOWN:
        rest = f"in {args.bad}" if args.bad is not None else "run it again with --bad FILE, which lists all"
        print(f"  and {len(summary.problems) - SHOWN} more, {rest}", file=sys.stderr)
    rate = (summary.pictures - summary.seen) / max(seconds, 1e-9)
    before = f"{summary.seen} indexed before"
    if summary.problems_before:
        before += f" ({len(summary.problems_before)} of them bad)"
    print(
        f"{args.gallery}: {summary.added} faces added of {summary.pictures} pictures; {before}, "
        f"{summary.duplicates + summary.known} duplicates, {len(summary.problems)} bad; {rate:.1f} a second"
    )


VERB = Verb(
    name="index",
    summary="embed a great many pictures into a gallery, on all cores or a Ray cluster",
    configure=configure,
    run=run,
    description=(
        "Adds the faces of FOLDER (a folder for each person) or LIST (a line a picture: a path, or name, tab, path).\n"
        "Run it again after a stop or with new pictures: what was indexed before is left alone. Bad pictures are\n"
        "listed and left out; equal pictures count once. It does not compare pictures as edge enroll does.\n"
        "Ends with 0 where some pictures are bad, and with 2 where all of them are."
    ),
    example=(
        "edge index --bundle arcedge.bundle --gallery everybody photos/\n"
        "edge index --bundle arcedge.bundle --gallery everybody list.txt --on ray --address auto"
    ),
)
