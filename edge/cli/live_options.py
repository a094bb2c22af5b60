"""Arguments of the live page, and what they open."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli import options
from edge.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from edge.analyze import FaceAnalyzer
    from edge.gallery import Gallery, Snapshot
    from edge.live.page import LivePage, PageOptions
    from edge.live.server import LiveServer
    from edge.pipeline import Pipeline
    from edge.sources import Source


def add_live(parser: argparse.ArgumentParser) -> None:
    """--serve and what belongs to it."""
    page = parser.add_argument_group("live page", "video, people, enrolment and metrics in a browser; see docs/live.md")
    page.add_argument(
        "--serve",
        metavar="[HOST:]PORT",
        help="serve the live page, /metrics and /healthz; this machine alone where no host is given",
    )
    page.add_argument(
        "--serve-token-file",
        type=Path,
        metavar="FILE",
        help="whoever looks needs this token, 16 or more characters (default: $ARCEDGE_SERVE_TOKEN, else none); "
        "a host that other machines reach is refused without",
    )
    page.add_argument(
        "--serve-name",
        action="append",
        default=[],
        metavar="NAME",
        help="a further host name the page is reached by, as behind a proxy; again for each",
    )
    page.add_argument(
        "--stale-after",
        type=options.positive_float,
        metavar="SECONDS",
        help="/healthz says 503 once a live source gave no result for so long (default: 60)",
    )


def page_options(args: argparse.Namespace) -> PageOptions | None:
    """What the user asked for; None where it is no page. Raises InputError, and MissingExtraError without aiohttp."""
    if args.serve is None:
        for name in ("serve_token_file", "serve_name", "stale_after"):
            if getattr(args, name):
                raise InputError(f"--{name.replace('_', '-')} is for the live page: add --serve PORT")
        return None
    for package in ("aiohttp", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "live")
    from edge.live.address import parse_address
    from edge.live.page import PageOptions
    from edge.live.token import required_token
    from edge.live.watched import STALE_AFTER

    address = parse_address(args.serve)
    token = required_token(address, args.serve_token_file)
    return PageOptions(address, token, args.serve_name, args.stale_after or STALE_AFTER)


def open_page(
    wanted: PageOptions | None, sources: Sequence[Source], read_gallery: Callable[[], Snapshot], threshold: float
) -> LivePage | None:
    """The page, its port taken; None where none is wanted. Raises InputError."""
    if wanted is None:
        return None
    from edge.live.page import LivePage

    return LivePage(wanted, sources, read_gallery, threshold)


def serve(args: argparse.Namespace, page: LivePage, pipeline: Pipeline, analyzer: FaceAnalyzer) -> LiveServer:
    """The server of a run, to be entered; says on standard error where it is."""
    from edge.analyze import AnalyzerOptions, FaceAnalyzer
    from edge.detect import DetectorOptions
    from edge.gallery import Gallery
    from edge.live.page import Opening
    from edge.live.watched import Models

    bundle = options.open_bundle(args)

    def open_gallery() -> Gallery:
        return Gallery.open(options.local_gallery(args), options.gallery_key(args))

    def open_analyzer() -> FaceAnalyzer:
        # More vectors for a gallery come from the variant that made those it holds.
        with open_gallery() as gallery:
            precision = gallery.variant_in(bundle).precision
        engines = AnalyzerOptions(
            precision=precision,
            engine=args.engine,
            detector_engine=args.detector_engine,
            detector_precision=args.detector_precision,
            detector=DetectorOptions(min_score=args.detection_score),
            preprocess=args.preprocess,
        )
        return FaceAnalyzer(bundle, engines)

    models = Models(bundle.digest(), analyzer.describe(), pipeline.threshold)
    server = page.of(pipeline, models, Opening(open_analyzer, open_gallery))
    needed = "" if page.options.token is None else " (asks for the token)"
    print(f"edge run: live page at {page.address.url}{needed}", file=sys.stderr, flush=True)
    return server
