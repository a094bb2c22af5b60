"""Where the results of `edge run` go: arguments, and the sinks they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli import options

if TYPE_CHECKING:
    from edge.sinks import Sink
    from edge.sources import Source


def add_sinks(parser: argparse.ArgumentParser) -> None:
    """--events, --events-max-mb, --video, --show."""
    parser.add_argument("--events", type=Path, metavar="FILE", help="append one JSON line a decision; - is stdout")
    parser.add_argument(
        "--events-max-mb", type=options.positive_float, metavar="MB", help="begin a new file beyond, keep five old ones"
    )
    parser.add_argument(
        "--video", type=Path, metavar="FILE", help="write the annotated video (.mp4); one file a source"
    )
    parser.add_argument("--show", action="store_true", help="show a window; q ends")


def open_sinks(args: argparse.Namespace, stop: Callable[[], None]) -> list[Sink]:
    """What takes the results of all sources; `stop` ends the run. Raises InputError."""
    from edge.sinks import JsonLines, Window

    sinks: list[Sink] = []
    if args.show:
        sinks.append(Window(stop))
    if args.events is not None:
        sinks.append(JsonLines(args.events, max_bytes=round((args.events_max_mb or 0) * 1e6)))
    return sinks


def open_sinks_of(args: argparse.Namespace, source: Source, *, alone: bool) -> list[Sink]:
    """What takes the results of one source only; `alone` where there is no other. Raises InputError."""
    from edge.sinks import Progress, VideoFileSink
    from edge.sources import file_of

    sinks: list[Sink] = []
    if args.video is not None:
        sinks.append(VideoFileSink(args.video if alone else file_of(args.video, source.name), source.fps))
    if source.length is not None:
        sinks.append(Progress(min(source.length, args.max_frames or source.length)))
    return sinks
