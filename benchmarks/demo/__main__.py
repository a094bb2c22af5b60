"""Runs the main job from end to end and says where to look. Each step is a command a user could type."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.command import command
from benchmarks.demo.video import portraits, write_enrolment, write_video

FRAMES = 200


@command("demo")
def main() -> int:
    """Gives the exit code of the first step that fails, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything the demo makes")
    parser.add_argument(
        "--weights", default="mobilefacenet-512", help="embedder, a name or a file (default: %(default)s)"
    )
    parser.add_argument("--detector", default="edge-detector", help="detector, a name or a file (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=FRAMES, help="length of the video (default: %(default)s)")
    options = parser.parse_args()
    return run(options.out, options.weights, options.detector, options.frames)


def run(out: Path, weights: str, detector: str, frames: int) -> int:
    """Everything, into `out`, which is emptied first."""
    started = time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    people, source = out / "people", out / "source.mp4"
    print("Two people from pictures inside scikit-image and Matplotlib; a video in which both walk through a room.")
    print("The weights are first versions, not yet trained to the end: model_weights/README.md says what they measure.")
    pair = portraits()
    write_enrolment(people, pair)
    write_video(source, pair, frames)
    bundle, gallery, report = out / "arcedge.bundle", out / "gallery", out / "report"
    commands = [
        ["export", "--weights", weights, "--detector", detector, "--out", str(bundle)],
        ["enroll", "--bundle", str(bundle), "--gallery", str(gallery), str(people)],
        [
            *("run", "--bundle", str(bundle), "--gallery", str(gallery), "--source", str(source)),
            *("--events", str(out / "events.jsonl"), "--video", str(out / "camera.mp4")),
        ],
        ["bench", "--bundle", str(bundle), "--video", str(source), "--out", str(report)],
    ]
    for words in commands:
        print(f"\n$ edge {shlex.join(words)}", flush=True)
        done = subprocess.run([sys.executable, "-m", "edge", *words], check=False)  # noqa: S603 - our own command
        if done.returncode != 0:
            return done.returncode
    _say_where_to_look(out, time.monotonic() - started)
    return 0


def _say_where_to_look(out: Path, seconds: float) -> None:
    places = {
        "arcedge.bundle": "FP32, FP16 and INT8 engines with their manifest and digests",
        "gallery": "the two people, as embeddings",
        "camera.mp4": "the video with boxes and names",
        "events.jsonl": "one line a decision",
        "report": "accuracy and latency side by side; open report.html",
    }
    print(f"\nDone in {seconds:.0f} s. Look at:")
    for name, what in places.items():
        print(f"  {out / name!s:32} {what}")


if __name__ == "__main__":
    sys.exit(main())
