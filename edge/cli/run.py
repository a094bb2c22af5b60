"""`edge run`: the camera that knows who is there."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from edge.cli import live_options, options, sink_options
from edge.cli.verb import Verb
from edge.errors import EngineError, InputError, SourceError

if TYPE_CHECKING:
    from edge.analyze import FaceAnalyzer
    from edge.gallery import Snapshot
    from edge.gpu_gallery import GpuGallery
    from edge.pipeline import Stream
    from edge.replay import World
    from edge.sources import Source, SourceName


def configure(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    options.add_gallery(parser)
    options.add_threshold(parser)
    parser.add_argument(
        "--source",
        required=True,
        action="append",
        metavar="[NAME=]SRC",
        help=(
            "camera number, /dev/videoN, video file, picture, folder of pictures, rtsp://, http://, csi://N, "
            "replay://scenario.toml; again for each further one; NAME stands in events and logs"
        ),
    )
    sink_options.add_sinks(parser)
    parser.add_argument("--max-frames", type=options.positive, metavar="N", help="end each source after N frames")
    parser.add_argument(
        "--no-tracking", action="store_true", help="decide on each frame alone, instead of over a person's way through"
    )
    parser.add_argument(
        "--search-every",
        type=options.positive,
        default=1,
        metavar="K",
        help="search every K-th frame only while everybody is decided on and where expected (default: 1)",
    )
    parser.add_argument(
        "--workers", type=options.positive, default=1, metavar="N", help="threads to detect and embed on (default: 1)"
    )
    parser.add_argument("--realtime", action="store_true", help="play a file at its own speed, dropping late frames")
    parser.add_argument("--size", type=options.size, metavar="WxH", help="ask this frame size of a camera")
    parser.add_argument("--fps", type=options.positive_float, metavar="F", help="ask this rate of a camera")
    parser.add_argument("--json-summary", action="store_true", help="print the closing summary as JSON")
    live_options.add_live(parser)


def run(args: argparse.Namespace) -> int:
    # Imported here so that `edge --help` stays quick.
    from edge.gallery import Gallery
    from edge.pipeline import Pipeline
    from edge.sources import SourceOptions, open_sources, parse_names
    from edge.summary import as_text

    logging.basicConfig(format="edge run: %(message)s", level=logging.WARNING, stream=sys.stderr)
    names = parse_names(args.source)
    wanted_page = live_options.page_options(args)
    threshold = options.threshold_of(args)
    with ExitStack() as opened:
        analyzers = [opened.enter_context(options.open_analyzer(args)) for _ in range(args.workers)]
        analyzer = analyzers[0]
        gallery = opened.enter_context(Gallery.open(options.local_gallery(args), options.gallery_key(args)))
        gallery.variant_in(options.open_bundle(args))
        if not gallery.snapshot().names:
            print(f"edge run: {args.gallery} is empty: everybody will be unknown", file=sys.stderr)
        world = _world(args, names)
        on_gpu = None if world is not None else opened.enter_context(_gallery_on_gpu(analyzers, gallery.snapshot()))
        through_gpu = world is None and all(analyzer.gpu_frames is not None for analyzer in analyzers)
        wanted = SourceOptions(realtime=args.realtime, size=args.size, fps=args.fps, nv12=through_gpu)
        sources: Sequence[Source] = world.sources() if world is not None else open_sources(names, wanted)
        for source in sources:
            opened.enter_context(source)
        stop = partial(_stop_all, sources)
        page = live_options.open_page(wanted_page, sources, gallery.snapshot, threshold)
        streams = [_stream(args, source, threshold, alone=len(sources) == 1) for source in sources]
        with _stopping_at_signals(stop):
            read_gallery: Callable[[], Snapshot] = gallery.snapshot if page is None else page.gallery
            if on_gpu is not None:
                read_gallery = on_gpu.reader(read_gallery)
            sinks = [*sink_options.open_sinks(args, stop, sources), *([] if page is None else [page.board])]
            pipeline = Pipeline(analyzers, read_gallery, threshold, sinks, recognise=on_gpu is not None)
            if world is not None:
                pipeline = world.troubled(pipeline)
                streams = [world.troubled_stream(stream) for stream in streams]
            if page is not None:
                opened.enter_context(live_options.serve(args, page, pipeline, analyzer))
            summary = pipeline.run_streams(streams, args.max_frames)
        figures = {
            **summary.to_dict({source.name: source.counts() for source in sources}),
            "source": ", ".join(source.name for source in sources),
            "threshold": threshold,
            "models": {**analyzer.describe(), **({} if on_gpu is None else on_gpu.describe())},
        }
    # Where the events go to standard output, nothing else may.
    out = sys.stderr if str(args.events) == "-" else sys.stdout
    print(json.dumps(figures) if args.json_summary else as_text(figures), file=out)
    return SourceError.exit_code if summary.errors else 0


@contextmanager
def _gallery_on_gpu(analyzers: Sequence[FaceAnalyzer], snapshot: Snapshot) -> Iterator[GpuGallery | None]:
    """The gallery where frames go through the GPU; None where they do not."""
    frames = [analyzer.gpu_frames for analyzer in analyzers if analyzer.gpu_frames is not None]
    if not frames:
        yield None
        return
    from edge.gpu_gallery import GpuGallery

    try:
        opened = GpuGallery(frames[0].device, analyzers[0].embedder.embedding_size)
    except EngineError as error:
        logging.getLogger(__name__).warning("matching on the CPU: %s", error)
        yield None
        return
    with opened as gallery:
        for each in frames:
            each.search_in(gallery)
        gallery.hold(snapshot)
        yield gallery


def _stream(args: argparse.Namespace, source: Source, threshold: float, *, alone: bool) -> Stream:
    """A source with a tracker and sinks of its own."""
    from edge.pipeline import Stream
    from edge.tracking import Tracker, TrackerOptions
    from edge.tracking.evidence import EvidenceOptions

    # Pictures of a folder have nothing to do with each other.
    tracked = source.moving and not args.no_tracking
    tracker = Tracker(TrackerOptions(EvidenceOptions(threshold))) if tracked else None
    return Stream(source, tracker, args.search_every, sink_options.open_sinks_of(args, source, alone=alone))


def _world(args: argparse.Namespace, names: Sequence[SourceName]) -> World | None:
    """The simulated world of replay:// sources; None where there are none. Raises InputError for a mixture."""
    if not any(name.address.startswith("replay://") for name in names):
        return None
    from edge.replay import SCHEME, World, read_scenario

    if not all(name.address.startswith(SCHEME) for name in names):
        raise InputError("replay:// passes in simulated time and cameras do not: run them apart")
    if args.workers > 1:
        raise InputError("replay:// passes in simulated time, on one thread: leave --workers out")
    if told := sink_options.networked(args):
        raise InputError(f"replay:// is simulated: {told[0]} would tell of people who are not there; use --events")
    return World({name.label: read_scenario(Path(name.address.removeprefix(SCHEME))) for name in names})


def _stop_all(sources: Sequence[Source]) -> None:
    for source in sources:
        source.stop()


@contextmanager
def _stopping_at_signals(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the run cleanly; a second one ends it at once."""

    def handle(number: int, _: FrameType | None) -> None:
        signal.signal(number, before[number])
        stop()

    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


VERB = Verb(
    name="run",
    summary="run a bundle on a camera, video, folder or stream and say who is there",
    configure=configure,
    run=run,
    description=(
        "Detects, aligns, embeds and matches every face of one source or several. Live sources give their newest\n"
        "frame, files every frame. Several share the models; one that fails never stops the others, and the run then\n"
        "ends with 2. Ctrl-C ends cleanly: everything written is complete."
    ),
    example=(
        "edge run --bundle arcedge.bundle --gallery people --source 0 --events events.jsonl --video camera.mp4\n"
        "edge run --bundle arcedge.bundle --gallery people --source rtsp://camera.local/stream --events -\n"
        "edge run --bundle arcedge.bundle --gallery people --source door=0 --source yard=rtsp://10.0.0.7/1 --events -"
    ),
)
