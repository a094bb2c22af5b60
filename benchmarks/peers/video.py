"""A whole video through `edge run` and through InsightFace's FaceAnalysis: `python -m benchmarks.peers.video`.

Processor time a frame beyond decoding, on the same frames at the same size. FaceAnalysis has no notion of a video: it
detects in every frame and embeds every face. `edge run` does the same with --no-tracking. As it is, it embeds a face
again only where that adds evidence; with --search-every it searches fewer frames. Each way is a process of its own,
several times in turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import provenance
from benchmarks.command import command
from benchmarks.demo.video import portraits, write_enrolment
from benchmarks.frames import load_frames
from benchmarks.precisions import Precisions
from benchmarks.statistics import resample_rounds
from edge.errors import InputError

FORMAT = "arcedge-video"
DECODE = "decode"
SIMILARITY = 0.4


@dataclass(frozen=True, slots=True)
class Way:
    """One way through the video. arguments: of the interpreter. about: in words."""

    name: str
    about: str
    arguments: tuple[str, ...]


def ways(
    bundle: Path,
    gallery: Path,
    video: Path,
    models: Path,
    peers: tuple[str, ...],
    precisions: tuple[Precisions, ...] = (),
) -> list[Way]:
    """Decoding alone, `edge run` in three ways at each precision (none: as the bundle lists first), and each peer."""
    run = ("-m", "edge", "run", "--bundle", str(bundle), "--gallery", str(gallery), "--source", str(video))
    own = (
        ("edge run", "as it is: tracked, embedded again where that adds evidence", ()),
        (
            "edge run --search-every 3",
            "searched every third frame while everybody is decided on",
            ("--search-every", "3"),
        ),
        ("edge run --no-tracking", "every face of every frame detected and embedded", ("--no-tracking",)),
    )
    chosen_precisions = [precision.arguments for precision in precisions] or [()]
    child = ("-m", "benchmarks.peers.video", "--child")
    return [
        Way(DECODE, "reading the video's frames and nothing else", (*child, DECODE, "--video", str(video))),
        *(
            Way(" ".join((name, *chosen)), about, (*run, *more, *chosen, "--json-summary"))
            for chosen in chosen_precisions
            for name, about, more in own
        ),
        *(
            Way(peer, "every face of every frame", (*child, peer, "--video", str(video), "--peer-models", str(models)))
            for peer in peers
        ),
    ]


def measure(chosen: list[Way], turns: int, seed: int = 0) -> dict[str, Any]:
    """Milliseconds of processor time a frame beyond decoding: the median of the turns, and its bootstrap interval."""
    random = np.random.default_rng(seed)
    found: dict[str, list[dict[str, float]]] = {way.name: [] for way in chosen}
    for _ in range(turns):
        for i in random.permutation(len(chosen)):
            found[chosen[i].name].append(_run(chosen[i]))
    decode = np.median([one["cpu_ms_a_frame"] for one in found[DECODE]])
    return {
        way.name: {
            "about": way.about,
            "frames": int(found[way.name][0]["frames"]),
            "faces": int(found[way.name][0]["faces"]),
            "cpu_ms_a_frame": _interval([one["cpu_ms_a_frame"] - decode for one in found[way.name]], seed),
        }
        for way in chosen
        if way.name != DECODE
    } | {DECODE: {"about": chosen[0].about, "cpu_ms_a_frame": round(float(decode), 3)}}


def _interval(values: list[float], seed: int) -> dict[str, float]:
    samples = np.array(values)
    low, high = np.quantile(
        resample_rounds(samples[:, None], lambda draws: np.median(draws[..., 0], axis=1), seed), [0.025, 0.975]
    )
    return {"value": round(float(np.median(samples)), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def _run(way: Way) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-W", "ignore", *way.arguments], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise InputError(f"{way.name} could not be measured: {said}")
    start = done.stdout.index("{")
    found: dict[str, float] = json.loads(done.stdout[start:])
    return found


def child(way: str, video: Path, models: Path | None) -> dict[str, float]:
    """In a process of its own: the video through a peer, or only decoded. A match of five names is part of a frame."""
    from contextlib import ExitStack

    from benchmarks.peers.opening import open_peers

    cv2.setNumThreads(1)
    with ExitStack() as stack:
        peer = None
        if way != DECODE:
            opened, missing = stack.enter_context(open_peers([way], models))
            if missing:
                raise InputError(missing[0])
            peer = opened[way]
        capture = cv2.VideoCapture(str(video))
        stack.callback(capture.release)
        frames = faces = 0
        begun = time.process_time()
        while True:
            good, image = capture.read()
            if not good:
                break
            frames += 1
            if peer is not None:
                found = peer.detect(image)
                vectors = peer.embed(image, found)
                named = vectors @ vectors[:5].T >= SIMILARITY
                faces += len(named)
        spent = time.process_time() - begun
    return {"cpu_ms_a_frame": 1000 * spent / max(1, frames), "frames": frames, "faces": faces}


def scaled_copy(video: Path, height: int, target: Path, count: int = 10**6) -> None:
    """The first `count` frames of a video at a height, as MPEG-4, which every way then decodes."""
    frames = load_frames(video, [], 10**6, height).images[:count]
    size = frames[0].shape[1], frames[0].shape[0]
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, size)
    for frame in frames:
        writer.write(frame)
    writer.release()


def report(
    bundle: Path,
    video: Path,
    models: Path,
    peers: tuple[str, ...],
    size: tuple[int, int],
    turns: int,
    precisions: tuple[Precisions, ...] = (),
) -> dict[str, Any]:
    """JSON-ready, with where it was measured. size: lines, and the most frames."""
    from edge.bundle import Bundle

    height, count = size
    before = provenance.Load.now()
    with tempfile.TemporaryDirectory() as folder:
        copy, gallery, people = (Path(folder) / name for name in ("video.mp4", "gallery", "people"))
        scaled_copy(video, height, copy, count)
        _enrol(bundle, gallery, people)
        figures = measure(ways(bundle, gallery, copy, models, peers, precisions), turns)
    return {
        "format": FORMAT,
        "version": 1,
        "time": provenance.now(),
        "video": f"{video.name}, scaled to {height} lines",
        "turns": turns,
        "ways": figures,
        "machine": provenance.machine(),
        "load": provenance.load_between(before, provenance.Load.now()),
        "versions": provenance.versions(),
        "bundle": Bundle.open(bundle).digest(),
    }


def _enrol(bundle: Path, gallery: Path, people: Path) -> None:
    """The two portraits that come inside dependencies: people who are not in the video, so that all are searched."""
    write_enrolment(people, portraits())
    arguments = ["enroll", "--bundle", str(bundle), "--gallery", str(gallery), str(people)]
    done = subprocess.run([sys.executable, "-m", "edge", *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise InputError(f"enrolment failed: {(done.stderr.strip().splitlines() or [''])[-1]}")


def lines(found: Mapping[str, Any]) -> list[str]:
    """For people: a line a way, with how many times the processor time of the first `edge run` it takes."""
    first = next(name for name in found["ways"] if name.startswith("edge run"))
    own = found["ways"][first]["cpu_ms_a_frame"]["value"]
    said = []
    for name, way in found["ways"].items():
        if name == DECODE:
            continue
        cpu = way["cpu_ms_a_frame"]
        said.append(
            f"{name}: {cpu['value']:.2f} ms CPU a frame beyond decoding [{cpu['low']:.2f}, {cpu['high']:.2f}], "
            f"{way['faces']} faces in {way['frames']} frames, {cpu['value'] / own:.2f} times {first}'s; {way['about']}"
        )
    return said


@command("video")
def main() -> int:
    """`python -m benchmarks.peers.video`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.video", description=__doc__)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--peer-models", type=Path, help="folder with the peers' model files")
    parser.add_argument("--peer", nargs="+", default=["insightface", "insightface-wide"])
    parser.add_argument(
        "--precision",
        nargs="+",
        type=Precisions.parse,
        default=[],
        metavar="P[/DETECTOR]",
        help="of edge run, as int8/fp32 with FP32 for the detector (default: the bundle's first)",
    )
    parser.add_argument("--height", type=int, default=720, help="of the frames (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=105, help="the most to take (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="how often each way is measured (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.video, options.peer_models)))
        return 0
    if options.bundle is None or options.peer_models is None:
        raise InputError("--bundle and --peer-models are needed")
    found = report(
        options.bundle,
        options.video,
        options.peer_models,
        tuple(options.peer),
        (options.height, options.frames),
        options.turns,
        tuple(options.precision),
    )
    print("\n".join(lines(found)))
    if options.out:
        options.out.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
