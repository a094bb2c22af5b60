"""What the camera costs: `python -m benchmarks.camera --bundle DIR --out FILE.json`.

CPU milliseconds a frame beyond decoding at 1280×720 with one and five faces: each frame alone, tracked, tracked with
frames left out; faces embedded together or one by one; two workers against one; the start of a process. Frames are
photographs from scikit-image and Matplotlib that move over a plain ground, ready in memory. Ways take turns, round by
round; a figure is the median of the rounds, with the least and the most.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.command import command
from benchmarks.demo.video import portraits
from benchmarks.precisions import Precisions
from benchmarks.provenance import Load, load_between, machine, now, versions
from benchmarks.start import measure_start
from benchmarks.statistics import spread
from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
from edge.gallery import Binding, Gallery
from edge.pipeline import Pipeline
from edge.sources import Source, SourceCounts
from edge.tracking import Tracker, TrackerOptions
from edge.tracking.evidence import EvidenceOptions
from edge.types import Frame, Image

WIDTH, HEIGHT, FPS = 1280, 720, 25
BUDGETS = {"1 face": {"alone": 9.0, "tracked": 5.0}, "5 faces": {"alone": 20.0, "tracked": 8.0}}
SEARCH_EVERY = 3


class Memory(Source):
    """Frames that are there already, as those of a file 25 a second."""

    live = False
    fps = float(FPS)

    def __init__(self, frames: Sequence[Image]) -> None:
        self.name = "memory"
        self.length = len(frames)
        self._frames = frames
        self._next = 0

    def read(self) -> Frame | None:
        if self._next == len(self._frames):
            return None
        self._next += 1
        return Frame(self._frames[self._next - 1], self._next - 1, (self._next - 1) / FPS, self.name)

    def stop(self) -> None:
        self._next = len(self._frames)

    def counts(self) -> SourceCounts:
        return SourceCounts(self._next)

    def close(self) -> None:
        return


def scene(faces: int, frames: int) -> list[Image]:
    """(720, 1280, 3) frames with `faces` people side by side, each swaying on a path of their own."""
    people = [portrait.image for portrait in portraits()]
    result = []
    for i in range(frames):
        frame = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
        for place in range(faces):
            picture = people[place % 2]
            side = 0.6 if faces == 1 else 0.28
            small = cv2.resize(picture, None, fx=side * HEIGHT / picture.shape[0], fy=side * HEIGHT / picture.shape[0])
            x = (place + 0.5) / faces * WIDTH + 20 * np.sin(0.08 * i + place) - small.shape[1] / 2
            y = HEIGHT / 2 + 60 * np.sin(0.05 * i + 2 * place) - small.shape[0] / 2
            left, top = max(0, round(x)), max(0, round(y))
            part = small[: HEIGHT - top, : WIDTH - left]
            frame[top : top + part.shape[0], left : left + part.shape[1]] = part
        result.append(frame)
    return result


def take_turns(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each way gives in each round; the first round only warms up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            value = way()
            if turn:
                found[name].append(value)
    return found


def enrolled(analyzer: FaceAnalyzer, folder: Path) -> Gallery:
    """A gallery with the first of the two people; the other is a stranger."""
    gallery = Gallery.create(folder / "gallery", Binding.of(analyzer.embedder_variant))
    portrait = portraits()[0]
    crops = analyzer.align(portrait.image, analyzer.detect(portrait.image)[:1])
    gallery.add(portrait.name, analyzer.embed(crops), ["portrait"])
    return gallery


def measure_budget(analyzer: FaceAnalyzer, gallery: Gallery, frames: int, rounds: int) -> dict[str, Any]:
    """CPU ms a frame of the whole process while it runs, by number of faces and way."""
    threshold = analyzer.threshold.similarity if analyzer.threshold else 0.4

    def run(images: Sequence[Image], tracked: bool, every: int) -> float:
        tracker = Tracker(TrackerOptions(EvidenceOptions(threshold))) if tracked else None
        started = time.process_time()
        Pipeline([analyzer], gallery.snapshot, threshold, (), tracker, every).run(Memory(images))
        return 1000 * (time.process_time() - started) / len(images)

    report: dict[str, Any] = {}
    for faces, name in ((1, "1 face"), (5, "5 faces")):
        images = scene(faces, frames)
        seen = [len(analyzer.detect(image)) for image in images[:: max(1, frames // 5)]]
        ways: dict[str, Callable[[], float]] = {
            "alone": lambda images=images: run(images, False, 1),  # type: ignore[misc]
            "tracked_every_frame": lambda images=images: run(images, True, 1),  # type: ignore[misc]
            "tracked": lambda images=images: run(images, True, SEARCH_EVERY),  # type: ignore[misc]
        }
        found = take_turns(ways, rounds)
        report[name] = {"faces_found": seen} | {
            way: spread(values) | {"budget": BUDGETS[name].get(way)} for way, values in found.items()
        }
    return report


def measure_batches(analyzer: FaceAnalyzer, rounds: int) -> dict[str, Any]:
    """CPU ms a face, embedded one by one and together."""
    portrait = portraits()[0]
    crop = analyzer.align(portrait.image, analyzer.detect(portrait.image)[:1])

    def cost(size: int) -> float:
        batch = np.repeat(crop, size, axis=0)
        started = time.process_time()
        for _ in range(16 // size):
            analyzer.embed(batch)
        return 1000 * (time.process_time() - started) / (16 // size * size)

    found = take_turns({str(size): (lambda size=size: cost(size)) for size in (1, 2, 4, 8)}, rounds)  # type: ignore[misc]
    return {size: spread(values) for size, values in found.items()}


def measure_workers(bundle: Bundle, options: AnalyzerOptions, gallery: Gallery, frames: int, rounds: int) -> Any:
    """Frames a second on one worker and on two, and their ratio round by round. Wall time: needs an idle machine."""
    images = scene(5, frames)
    with ExitStack() as opened:
        analyzers = [opened.enter_context(FaceAnalyzer(bundle, options)) for _ in range(2)]
        threshold = analyzers[0].threshold.similarity if analyzers[0].threshold else 0.4

        def rate(count: int) -> float:
            started = time.perf_counter()
            Pipeline(analyzers[:count], gallery.snapshot, threshold).run(Memory(images))
            return len(images) / (time.perf_counter() - started)

        found = take_turns({"1": lambda: rate(1), "2": lambda: rate(2)}, rounds)
    ratios = [two / one for one, two in zip(found["1"], found["2"], strict=True)]
    return {"frames_a_second": {k: spread(v) for k, v in found.items()}, "ratio": spread(ratios), "goal": 1.8}


@command("camera")
def main() -> int:
    """Measures and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.camera", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="figures are added to it")
    parser.add_argument(
        "--precision",
        nargs="+",
        type=Precisions.parse,
        default=[Precisions("fp32"), Precisions("int8"), Precisions("int8", "fp32")],
        metavar="P[/DETECTOR]",
        help="as int8/fp32, with FP32 for the detector (default: fp32 int8 int8/fp32)",
    )
    parser.add_argument("--frames", type=int, default=60, help="a scene (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--parts", nargs="+", default=["budget", "batches", "workers", "start"], metavar="PART")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    bundle, before = Bundle.open(args.bundle), Load.now()
    report: dict[str, Any] = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    report |= {"time": now(), "machine": machine(), "versions": versions()}
    for precision in args.precision:
        figures, options = report.setdefault(str(precision), {}), precision.options
        with ExitStack() as opened:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            analyzer = opened.enter_context(FaceAnalyzer(bundle, options))
            gallery = opened.enter_context(enrolled(analyzer, folder))
            if "budget" in args.parts:
                figures["cpu_ms_a_frame"] = measure_budget(analyzer, gallery, args.frames, args.rounds)
            if "batches" in args.parts:
                figures["embedding_cpu_ms_a_face_by_batch"] = measure_batches(analyzer, 3 * args.rounds)
            if "workers" in args.parts:
                figures["workers"] = measure_workers(bundle, options, gallery, args.frames, args.rounds)
            if "start" in args.parts:
                picture = cv2.resize(scene(1, 1)[0], (640, 480))
                figures["start"] = measure_start(args.bundle, folder / "gallery", precision, picture, args.rounds)
    names = [str(precision) for precision in args.precision]
    load = {"parts": args.parts, "precision": names, **load_between(before, Load.now())}
    report.setdefault("loads", []).append(load)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: report[key] for key in (*names, "loads")}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
