"""Decisions over tracks, on videos with known people: `python -m benchmarks.tracks --bundle DIR --data DIR --out FILE`.

Three ways side by side: each frame alone, tracked, tracked with frames left out. The videos are built in memory from
photographs and never written: people pass before a plain wall on crossing paths, each as a series of their own photos,
growing and shrinking, turned, lit and blurred differently from frame to frame, with sensor noise. Known people are the
five Avengers, enrolled with three photos each and shown with others (never a near-duplicate of one enrolled); strangers
are people of LFW. Truth is where each was drawn. Nothing is chosen or fitted on these figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.command import command
from benchmarks.provenance import machine, now, versions
from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
from edge.errors import InputError
from edge.gallery import Binding, Gallery, Snapshot
from edge.metrics.intervals import clopper_pearson
from edge.pictures import read_picture
from edge.pipeline import Pipeline
from edge.sources import Source, SourceCounts, open_source
from edge.tracking import Tracker, TrackerOptions
from edge.tracking.evidence import EvidenceOptions
from edge.types import Decision, Frame, FrameResult, Image

WIDTH, HEIGHT, FPS = 640, 360, 25
SECONDS_A_PHOTO = 1.2
ENROLLED = 3
WAYS = {"alone": None, "tracked": 1, "tracked, search every 3": 3}


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody in a clip: name (None for a stranger), their photos, and what moves them."""

    name: str | None
    photos: tuple[Image, ...]
    seed: int
    place: int


@dataclass(slots=True)
class Clip(Source):
    """A video drawn as it is read; `truth` holds where each actor is in each frame, the front one last."""

    actors: tuple[Actor, ...]
    length: int
    seed: int
    name: str = "clip"
    truth: list[list[tuple[int, Any]]] = field(default_factory=list)
    live = False
    fps = float(FPS)

    def read(self) -> Frame | None:
        i = len(self.truth)
        if i == self.length:
            return None
        noise = np.random.default_rng((self.seed, i))
        frame = np.full((HEIGHT, WIDTH, 3), 105, np.float32)
        frame[int(0.8 * HEIGHT) :] = 80
        places = [(n, _draw(frame, actor, i)) for n, actor in enumerate(self.actors)]
        self.truth.append(places)
        frame += noise.normal(0, 4, frame.shape).astype(np.float32)
        return Frame(np.clip(frame, 0, 255).astype(np.uint8), i, i / FPS, self.name)

    def stop(self) -> None:
        self.length = len(self.truth)

    def counts(self) -> SourceCounts:
        return SourceCounts(len(self.truth))

    def close(self) -> None:
        return


def _draw(frame: Any, actor: Actor, i: int) -> tuple[int, int, int, int]:
    """Puts the actor's photo of this moment into the frame; gives x1 y1 x2 y2."""
    draw = np.random.default_rng(actor.seed)
    phase, speed, grow = draw.uniform(0, 2 * np.pi), draw.uniform(0.5, 1.0), draw.uniform(0.25, 0.4)
    t = i / FPS
    photo = actor.photos[int(t / SECONDS_A_PHOTO) % len(actor.photos)]
    side = round(HEIGHT * (grow + 0.08 * np.sin(0.9 * t + phase)))
    matrix = cv2.getRotationMatrix2D((photo.shape[1] / 2, photo.shape[0] / 2), 8 * np.sin(1.3 * t + phase), 1.0)
    turned = cv2.warpAffine(photo, matrix, photo.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
    small = cv2.resize(turned, (side, side), interpolation=cv2.INTER_AREA)
    blur = max(0.0, 1.4 * np.sin(0.7 * t + 2 * phase))
    if blur > 0.3:
        small = cv2.GaussianBlur(small, (0, 0), blur)
    lit = small.astype(np.float32) * (0.85 + 0.25 * np.sin(0.5 * t + phase))
    x = WIDTH * (0.5 + 0.38 * np.sin(speed * 0.8 * t + phase + actor.place * np.pi / 2))
    y = HEIGHT * (0.3 + 0.35 * (actor.place % 2)) + 12 * np.sin(2 * t + phase)
    left, top = round(x - side / 2), round(y - side / 2)
    x1, y1, x2, y2 = max(0, left), max(0, top), min(WIDTH, left + side), min(HEIGHT, top + side)
    frame[y1:y2, x1:x2] = lit[y1 - top : y2 - top, x1 - left : x2 - left]
    return x1, y1, x2, y2


@dataclass(slots=True)
class Cast:
    """Photos by name: of the known people, enrolled and to be shown, and of strangers."""

    enrolled: dict[str, list[Image]]
    shown: dict[str, list[Image]]
    strangers: list[list[Image]]


def read_cast(data: Path, strangers: int) -> Cast:
    """Raises InputError where a folder is missing."""
    home, lfw = data / "avengers" / "cropped_images", data / "lfw" / "images"
    for folder in (home, lfw):
        if not folder.is_dir():
            raise InputError(f"{folder}: not there; --data names the folder described in CONTRIBUTING.md")
    groups = json.loads((data / "avengers" / "near_duplicate_groups.json").read_text())["groups"]
    twins = {name: place for place, group in enumerate(groups) for name in group}
    cast = Cast({}, {}, [])
    for folder in sorted(path for path in home.iterdir() if path.is_dir()):
        distinct: dict[Any, Path] = {}
        for path in sorted(folder.glob("*.png")):
            distinct.setdefault(twins.get(f"{folder.name}/{path.name}", path.name), path)
        photos = [_padded(read_picture(path)) for path in distinct.values()]
        cast.enrolled[folder.name], cast.shown[folder.name] = photos[:ENROLLED], photos[ENROLLED:]
    known = {name.replace("_", "") for name in cast.enrolled}
    others = [path for path in sorted(lfw.iterdir()) if path.name.lower().replace("_", "") not in known]
    step = max(1, len(others) // strangers)
    for folder in others[::step][:strangers]:
        cast.strangers.append([read_picture(path)[45:205, 45:205] for path in sorted(folder.glob("*.jpg"))[:6]])
    return cast


def _padded(crop: Image) -> Image:
    """A tight crop with a margin, square, 224 pixels."""
    height, width = crop.shape[:2]
    side = round(1.3 * max(height, width))
    top, left = (side - height) // 2, (side - width) // 2
    padded = cv2.copyMakeBorder(
        crop, top, side - height - top, left, side - width - left, cv2.BORDER_CONSTANT, value=(105, 105, 105)
    )
    square: Image = cv2.resize(padded, (224, 224), interpolation=cv2.INTER_AREA)
    return square


def clips(cast: Cast, seconds: float) -> Iterator[Clip]:
    """Two strangers and two known people a clip, until the strangers are used up; the same in every run."""
    names = sorted(cast.shown)
    for place in range(len(cast.strangers) // 2):
        draw = np.random.default_rng(place)
        actors = []
        for n, name in enumerate((names[place % 5], names[(place + 1 + place // 5) % 5])):
            order = draw.permutation(len(cast.shown[name]))[:6]
            actors.append(Actor(name, tuple(cast.shown[name][k] for k in order), 1000 * place + n, 2 * n))
        for n in range(2):
            photos = tuple(cast.strangers[2 * place + n])
            actors.append(Actor(None, photos, 1000 * place + 10 + n, 2 * n + 1))
        pair = {actor.name for actor in actors[:2]}
        yield Clip(tuple(actors if len(pair) == 2 else actors[1:]), round(seconds * FPS), place)


@dataclass(slots=True)
class Passage:
    """What was said of one person in one clip, frame by frame."""

    name: str | None
    frames: int = 0
    numbers: list[int] = field(default_factory=list)
    said: list[str | None] = field(default_factory=list)
    decided_at: float | None = None
    named_at: float | None = None

    def take(self, decision: Decision) -> None:
        """One decision about a face that is this person's."""
        pending = decision.track is not None and decision.track.state == "pending"
        if decision.track is not None:
            self.numbers.append(decision.track.number)
        if pending:
            return
        said = decision.match.identity
        self.said.append(said)
        if self.decided_at is None:
            self.decided_at = decision.time
        if self.named_at is None and self.name is not None and said == self.name:
            self.named_at = decision.time


class Truth:
    """A sink that gives each decision to the person whose place holds the face's middle."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self.passages = [Passage(actor.name) for actor in clip.actors]
        self.elsewhere = 0

    def write(self, result: FrameResult) -> None:
        places = self._clip.truth[result.frame.index]
        taken: set[int] = set()
        for n, _ in places:
            self.passages[n].frames += 1
        for decision in result.decisions:
            x, y = (float(decision.face.box[k] + decision.face.box[k + 2]) / 2 for k in (0, 1))
            owner = next((n for n, (x1, y1, x2, y2) in reversed(places) if x1 <= x < x2 and y1 <= y < y2), None)
            if owner is None or owner in taken:
                self.elsewhere += 1
            else:
                taken.add(owner)
                self.passages[owner].take(decision)

    def close(self) -> None:
        return


def changes(values: Sequence[Any]) -> int:
    """How often a value differs from the one before."""
    return sum(a != b for a, b in pairwise(values))


def rate(hits: int, count: int) -> dict[str, Any]:
    """A share in percent with its 95 % Clopper–Pearson interval."""
    low, high = clopper_pearson(hits, count)
    share = 100 * hits / max(1, count)
    return {
        "hits": hits,
        "of": count,
        "percent": round(share, 1),
        "interval": [round(100 * low, 1), round(100 * high, 1)],
    }


def figures(passages: Sequence[Passage], elsewhere: int) -> dict[str, Any]:
    """Of all passages of one way."""
    known = [p for p in passages if p.name is not None]
    strangers = [p for p in passages if p.name is None]
    minutes = sum(p.frames for p in passages) / FPS / 60
    decided = [p.decided_at for p in passages if p.decided_at is not None]
    named = [p.named_at for p in known if p.named_at is not None]
    right = sum(said == p.name for p in known for said in p.said)
    return {
        "passages": {"known": len(known), "strangers": len(strangers), "minutes": round(minutes, 2)},
        "identity_switches": sum(changes(p.numbers) for p in passages),
        "identity_switches_a_minute": round(sum(changes(p.numbers) for p in passages) / minutes, 2),
        "name_changes_a_minute": round(sum(changes(p.said) for p in passages) / minutes, 2),
        "seconds_to_first_decision": _times(decided, len(passages)),
        "seconds_to_right_name": _times(named, len(known)),
        "strangers_named": rate(sum(any(p.said) for p in strangers), len(strangers)),
        "strangers_named_frames": rate(
            sum(s is not None for p in strangers for s in p.said), sum(len(p.said) for p in strangers)
        ),
        "known_missed": rate(sum(p.named_at is None for p in known), len(known)),
        "known_named_wrongly": rate(sum(any(s not in (None, p.name) for s in p.said) for p in known), len(known)),
        "known_frames_named_rightly": rate(right, sum(p.frames for p in known)),
        "faces_elsewhere": elsewhere,
    }


def _times(values: Sequence[float], of: int) -> dict[str, Any]:
    if not values:
        return {"count": 0, "of": of}
    quartiles = [round(float(q), 2) for q in np.quantile(values, (0.25, 0.75))]
    return {
        "median": round(median(values), 2),
        "quartiles": quartiles,
        "most": round(max(values), 2),
        "count": len(values),
        "of": of,
    }


@dataclass(frozen=True, slots=True)
class Line:
    """The models and who is known."""

    analyzer: FaceAnalyzer
    gallery: Snapshot
    threshold: float

    def run(self, source: Source, every: int | None, sink: Any) -> None:
        """every: None decides on each frame alone."""
        tracker = None if every is None else Tracker(TrackerOptions(EvidenceOptions(self.threshold)))
        Pipeline([self.analyzer], lambda: self.gallery, self.threshold, [sink], tracker, every or 1).run(source)


def enrol(analyzer: FaceAnalyzer, people: Mapping[str, Sequence[Image]], folder: Path) -> Snapshot:
    """Each picture's main face. Raises InputError where one shows none."""
    gallery = Gallery.create(folder, Binding.of(analyzer.embedder_variant))
    for name, photos in people.items():
        for photo in photos:
            face = analyzer.main_face(photo)
            if face is None:
                raise InputError(f"a photo of {name} to be enrolled shows no face")
            gallery.add(name, analyzer.embed(analyzer.align(photo, [face])), ["photo"])
    return gallery.snapshot()


def measure_clips(line: Line, cast: Cast, seconds: float) -> dict[str, Any]:
    """The constructed videos, every way."""
    report = {}
    for way, every in WAYS.items():
        passages: list[Passage] = []
        elsewhere = 0
        for clip in tqdm([*clips(cast, seconds)], desc=way, unit="clip", disable=None, leave=False):
            truth = Truth(clip)
            line.run(clip, every, truth)
            passages += truth.passages
            elsewhere += truth.elsewhere
        report[way] = figures(passages, elsewhere)
    return report


class Stage:
    """Of the concert: the singer is alone on stage in frames 82 to 210; 22 to 81 and later ones show the audience."""

    def __init__(self) -> None:
        self.singer: list[str | None] = []
        self.numbers: list[int] = []
        self.audience_named = 0
        self.audience = 0

    def write(self, result: FrameResult) -> None:
        largest = max(result.decisions, key=lambda decision: decision.face.width, default=None)
        if 82 <= result.frame.index <= 210:
            if largest is not None and (largest.track is None or largest.track.state != "pending"):
                self.singer.append(largest.match.identity)
            if largest is not None and largest.track is not None:
                self.numbers.append(largest.track.number)
        elif result.frame.index >= 22:
            self.audience += 1
            self.audience_named += any(decision.match.identity for decision in result.decisions)

    def close(self) -> None:
        return


def measure_concert(line: Line, video: Path) -> dict[str, Any]:
    """hamilton_360p.mp4 with the two people of gallery_hamilton enrolled. One video: no interval can be given."""
    report: dict[str, Any] = {}
    for way, every in WAYS.items():
        stage = Stage()
        with open_source(str(video)) as source:
            line.run(source, every, stage)
        report[way] = {
            "singer_frames": 129,
            "singer_named_rightly": stage.singer.count("lin-manuel-miranda"),
            "singer_name_changes": changes(stage.singer),
            "singer_identity_switches": changes(stage.numbers),
            "audience_frames": stage.audience,
            "audience_frames_with_a_name": stage.audience_named,
        }
    return report


@command("tracks")
def main() -> int:
    """Measures and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracks", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="with avengers/, lfw/, video/")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--strangers", type=int, default=40, help="half as many clips (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="a clip (default: %(default)s)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    cast = read_cast(args.data, args.strangers)
    options = AnalyzerOptions(precision=args.precision)
    with tempfile.TemporaryDirectory() as folder, FaceAnalyzer(Bundle.open(args.bundle), options) as analyzer:
        if analyzer.threshold is None:
            raise InputError(f"{args.bundle}: states no threshold")
        threshold = analyzer.threshold.similarity
        line = Line(analyzer, enrol(analyzer, cast.enrolled, Path(folder) / "g"), threshold)
        report: dict[str, Any] = {
            "time": now(),
            "machine": machine(),
            "versions": versions(),
            "models": analyzer.describe(),
            "threshold": threshold,
            "clips": measure_clips(line, cast, args.seconds),
        }
        photos = sorted((args.data / "gallery_hamilton").glob("*.png"))
        people = {path.stem: [read_picture(path)] for path in photos}
        singer = Line(analyzer, enrol(analyzer, people, Path(folder) / "h"), threshold)
        report["concert"] = measure_concert(singer, args.data / "video" / "hamilton_360p.mp4")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({"clips": report["clips"], "concert": report["concert"]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
