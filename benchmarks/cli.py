"""`edge bench`: which engine to ship, and what it costs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS
from edge.cli.options import add_triton, positive, positive_float, settle_triton
from edge.cli.verb import Verb
from edge.errors import InputError
from edge.manifest import PRECISIONS


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle",
        type=Path,
        action="append",
        metavar="DIR",
        help="bundle made by edge export; given several times, all stand in one report, compared with the first",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="PATH", help="folder for report.html, .md and .json; file of --trend"
    )
    parser.add_argument(
        "--trend",
        type=Path,
        metavar="DIR",
        help="measure nothing: draw the runs whose report JSON lies in DIR to --out",
    )
    data = parser.add_argument_group("what to measure on")
    data.add_argument("--pairs", type=Path, metavar="FILE", help="LFW-style pairs.txt; needs --images")
    data.add_argument("--images", type=Path, metavar="DIR", help="pictures of the pairs, Name/Name_0001.jpg")
    data.add_argument("--identities", type=Path, metavar="DIR", help="a folder with one folder a person")
    data.add_argument(
        "--faces", type=Path, metavar="DIR", help="pictures with true boxes and labels.txt: AP and recall"
    )
    data.add_argument(
        "--landmarks", type=Path, metavar="SCRFD", help="ONNX whose landmarks are the yardstick (default: the baseline)"
    )
    data.add_argument("--video", type=Path, metavar="FILE", help="frames for latency")
    data.add_argument("--pictures", type=Path, nargs="+", default=[], metavar="PATH", help="frames for latency")
    data.add_argument(
        "--not-in",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="training or calibration pictures; evaluation pictures found among them are refused",
    )
    peers = parser.add_argument_group("peers: the same frames and pictures, in turns")
    peers.add_argument(
        "--peer",
        type=_names,
        action="extend",
        default=[],
        metavar="P,P",
        help=f"of {', '.join(PEERS)}; all for every one",
    )
    peers.add_argument("--peer-models", type=Path, metavar="DIR", help="folder with the peers' model files")
    how = parser.add_argument_group("how")
    how.add_argument("--precision", type=_precisions, metavar="P,P", help="default: all in the bundle")
    how.add_argument(
        "--engine", type=_names, default=("onnxruntime",), metavar="E,E", help="or all (default: onnxruntime)"
    )
    add_triton(how)
    how.add_argument("--threads", type=positive, default=1, help="of a model (default: %(default)s)")
    how.add_argument("--seconds", type=positive_float, default=20.0, help="for frames (default: %(default)s)")
    how.add_argument("--frames", type=positive, default=32, help="frames to take (default: %(default)s)")
    how.add_argument("--height", type=positive, metavar="LINES", help="scale frames down to this height, as 720")
    how.add_argument("--long-side", type=_long_side, default=640, help="of the detector's input (default: %(default)s)")
    how.add_argument("--no-batches", action="store_true", help="skip the batch sweep")
    how.add_argument("--no-sweeps", action="store_true", help="skip threads, streams and energy")
    how.add_argument(
        "--own-detector", action="store_true", help="accuracy with each variant's own detector, not FP32's crops"
    )
    how.add_argument("--seed", type=int, default=0, help="of draws and orders (default: %(default)s)")
    budget = parser.add_argument_group("verdict")
    budget.add_argument("--max-loss", type=positive_float, default=0.5, help="points allowed (default: %(default)s)")
    budget.add_argument("--min-speedup", type=positive_float, default=1.1, help="worth it from (default: %(default)s)")
    budget.add_argument("--compare", type=Path, metavar="FILE", help="report.json of an earlier run: 4 if worse now")
    budget.add_argument(
        "--import", type=Path, dest="imported", metavar="FILE", help="JSON of make bench, to stand in the report"
    )
    parser.add_argument("--json", action="store_true", help="print verdicts and comparison as JSON")


def run(args: argparse.Namespace) -> int:
    if args.trend is not None:
        return _trend(args)
    from benchmarks.compare import REGRESSION_EXIT, compare, read_report
    from benchmarks.microbenchmarks import read_microbenchmarks
    from benchmarks.report import write_report
    from benchmarks.suite import measure

    settle_triton(args)
    if not args.bundle:
        raise InputError("--bundle is missing: the folder edge export wrote")
    if (args.pairs is None) != (args.images is None):
        raise InputError("--pairs and --images go together: the list, and the folder of its pictures")
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"{args.out}: is a file; --out names a folder")
    old = read_report(args.compare) if args.compare else None
    imported = read_microbenchmarks(args.imported) if args.imported else None
    with _progress(args.json) as announce:
        report = measure(_inputs(args), _settings(args), announce)
    report["microbenchmarks"] = imported
    comparison = compare(report, old) if old is not None else None
    report["comparison"] = comparison.to_dict() if comparison else None
    files = write_report(report, args.out)
    if args.json:
        print(json.dumps(_summary(report, files), ensure_ascii=False))
    else:
        _print(report, args.out)
    return REGRESSION_EXIT if comparison and comparison.regressed else 0


def _trend(args: argparse.Namespace) -> int:
    from benchmarks.trend import write_trend

    trend = write_trend(args.trend, args.out)
    if args.json:
        print(json.dumps(trend.summary(), ensure_ascii=False))
    else:
        for line in trend.lines():
            print(line)
        print(f"\n{args.out}")
    return 0


def _inputs(args: argparse.Namespace) -> Any:
    from benchmarks.scene import Inputs

    return Inputs(
        bundles=tuple(args.bundle),
        pairs=args.pairs,
        images=args.images,
        identities=args.identities,
        faces=args.faces,
        landmarks=args.landmarks,
        video=args.video,
        pictures=tuple(args.pictures),
        not_in=tuple(args.not_in),
        peers=_peers(args.peer),
        peer_models=args.peer_models,
    )


def _settings(args: argparse.Namespace) -> Any:
    from benchmarks.interleave import Plan
    from benchmarks.scene import BATCHES, Settings
    from benchmarks.subjects import Choice
    from benchmarks.verdict import Budget

    return Settings(
        choice=Choice(args.precision, args.engine, args.threads, args.long_side),
        plan=Plan(seconds=args.seconds, seed=args.seed),
        frames=args.frames,
        height=args.height,
        batches=() if args.no_batches else BATCHES,
        sweeps=not args.no_sweeps,
        own_detector=args.own_detector,
        budget=Budget(args.max_loss, args.min_speedup),
    )


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], Callable[[float], None]]]:
    """One bar at a time, on the error output, only where somebody watches."""
    from tqdm import tqdm

    bars: list[Any] = []

    def announce(name: str) -> Callable[[float], None]:
        for bar in bars:
            bar.close()
        form = "{desc}: {percentage:3.0f}% |{bar}| {elapsed} < {remaining}"
        bar = tqdm(total=1000, desc=name, bar_format=form, disable=True if quiet else None, leave=False)
        bars.append(bar)

        def progress(share: float) -> None:
            bar.update(max(0, round(1000 * share) - bar.n))

        return progress

    try:
        yield announce
    finally:
        for bar in bars:
            bar.close()


def _summary(report: Mapping[str, Any], files: list[Path]) -> dict[str, Any]:
    return {
        "verdicts": report["verdicts"],
        "warnings": report["warnings"],
        "comparison": report["comparison"],
        "files": [str(file) for file in files],
    }


def _print(report: Mapping[str, Any], out: Path) -> None:
    from benchmarks.report.console import table_lines, verdict_lines

    print("\n".join([*table_lines(report), "", *verdict_lines(report)]))
    for warning in report["warnings"]:
        print(f"edge bench: {warning}", file=sys.stderr)
    if report["comparison"]:
        for kind, lines in (("worse", "regressions"), ("better", "improvements"), ("skipped", "skipped")):
            for line in report["comparison"][lines]:
                print(f"{kind}: {line}")
        if not report["comparison"]["regressed"]:
            print("Nothing became significantly worse.")
    print(f"\n{out / 'report.html'}")


def _precisions(text: str) -> tuple[str, ...]:
    names = _names(text)
    if unknown := [name for name in names if name not in PRECISIONS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is not one of {', '.join(PRECISIONS)}")
    return names


def _long_side(text: str) -> int:
    if (pixels := int(text)) < 32:
        raise argparse.ArgumentTypeError(f"{text} pixels are too few: the least is 32, one stride of the detector")
    return pixels


def _peers(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(PEERS) if "all" in names else tuple(dict.fromkeys(names))


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))


VERB = Verb(
    name="bench",
    summary="measure FP32, FP16 and INT8 side by side and say which to ship",
    configure=configure,
    run=run,
    description=(
        "Measures every variant of one bundle or several, and peers beside them: latency of each stage, interleaved;\n"
        "batches, threads, streams, energy; accuracy on pairs and identities; detection; drift; size, memory, cold\n"
        "start. What varies has a count and an interval. Ends with 4 where --compare finds a significant regression."
    ),
    example=(
        "edge bench --bundle arcedge.bundle --pairs lfw/pairs.txt --images lfw/images --identities lfw/images \\\n"
        "    --video camera.mp4 --not-in avengers/cropped_images --out report"
    ),
    requires=("jinja2", "matplotlib"),
    extra="report",
)
