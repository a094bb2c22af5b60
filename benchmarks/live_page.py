"""What the live page costs the camera: `python -m benchmarks.live_page --bundle DIR --out FILE.json`.

`edge run` plays a 1280×720 video of five people at its own speed, 25 frames a second, without the page, with the page
and nobody who looks, and with viewers. A viewer does what the page in a browser does: it listens to the events and asks
for a frame, 960 pixels wide, as soon as it has the last. Viewers are in another process, whose time is not counted.
Runs take turns, round by round; a figure is the median of the rounds, with the least and the most.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2

from benchmarks.camera import FPS, HEIGHT, WIDTH, enrolled, scene
from benchmarks.command import command
from benchmarks.provenance import Load, load_between, machine, now, versions
from benchmarks.statistics import spread
from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle

NO_PAGE = "no page"
FACES = 5
_ADDRESS = re.compile(r"live page at (\S+)")


class Viewer:
    """Looks at the page until the camera ends. frames: pictures it was sent so far."""

    def __init__(self, address: str) -> None:
        self.frames = 0
        self._host = urlsplit(address).netloc
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._watch, self._listen)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Waits until the camera has said goodbye."""
        for thread in self._threads:
            thread.join(timeout=10)

    def _watch(self) -> None:
        version = 0
        connection = http.client.HTTPConnection(self._host, timeout=10)
        try:
            while True:
                connection.request("GET", f"/api/sources/0/frame?after={version}&width=960")
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    version = int(answer.headers["X-Version"])
                    self.frames += 1
        except (OSError, http.client.HTTPException):
            return  # the run is over

    def _listen(self) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=10)
        try:
            connection.request("GET", "/api/events")
            answer = connection.getresponse()
            while answer.read1(1 << 16):
                pass
        except (OSError, http.client.HTTPException):
            return


def write_video(path: Path, seconds: int) -> None:
    """The people of `benchmarks.camera`, who sway, as MPEG-4."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), float(FPS), (WIDTH, HEIGHT))
    for frame in scene(FACES, FPS * seconds):
        writer.write(frame)
    writer.release()


def run_camera(arguments: list[str], viewers: int | None) -> dict[str, float]:
    """One run: frames decided on, ms of the camera's CPU a frame, pictures a second that a viewer was sent.

    viewers: None serves no page.
    """
    serving = [] if viewers is None else ["--serve", "0"]
    command = [sys.executable, "-m", "edge", "run", *arguments, *serving, "--realtime", "--json-summary"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as camera:  # noqa: S603
        assert camera.stderr is not None
        looking: list[Viewer] = []
        if viewers is not None:
            said = next((found[1] for line in camera.stderr if (found := _ADDRESS.search(line))), None)
            if said is None:
                raise SystemExit("the camera ended before it served its page")
            looking = [Viewer(said) for _ in range(viewers)]
        out, errors = camera.communicate()
        for viewer in looking:
            viewer.join()
    if camera.returncode != 0:
        raise SystemExit(f"edge run ended with {camera.returncode}: {errors.strip()}")
    summary = json.loads(out[out.index("{") :])
    sent = sum(viewer.frames for viewer in looking) / max(1, len(looking)) / summary["seconds"]
    return {"frames": summary["frames"], "cpu_ms_a_frame": summary["cpu_ms_a_frame"], "sent_a_second": sent}


def measure(arguments: list[str], viewers: list[int], rounds: int) -> dict[str, Any]:
    """Each way in turns, and what it takes more than no page, round by round."""
    ways: dict[str, int | None] = {NO_PAGE: None} | {f"{count} viewers": count for count in viewers}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, count in ways.items():
            found[name].append(run_camera(arguments, count))
    without = [run["cpu_ms_a_frame"] for run in found[NO_PAGE]]
    return {
        name: {key: spread([run[key] for run in runs]) for key in ("cpu_ms_a_frame", "frames", "sent_a_second")}
        | {"more_than_no_page": spread([a["cpu_ms_a_frame"] - b for a, b in zip(runs, without, strict=True)])}
        for name, runs in found.items()
    }


@command("live_page")
def main() -> int:
    """Measures and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_page", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--precision", default="int8", metavar="P", help="(default: %(default)s)")
    parser.add_argument("--viewers", type=int, nargs="+", default=[0, 1, 4], metavar="N", help="(default: 0 1 4)")
    parser.add_argument("--seconds", type=int, default=12, help="of a run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    args = parser.parse_args()
    before = Load.now()
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        options = AnalyzerOptions(precision=args.precision)
        with FaceAnalyzer(Bundle.open(args.bundle), options) as analyzer, enrolled(analyzer, folder):
            write_video(folder / "people.mp4", args.seconds)
        arguments = ["--bundle", str(args.bundle), "--precision", args.precision]
        arguments += ["--gallery", str(folder / "gallery"), "--source", str(folder / "people.mp4")]
        ways = measure(arguments, args.viewers, args.rounds)
    report = {"time": now(), "machine": machine(), "versions": versions(), "precision": args.precision, "ways": ways}
    report["load"] = load_between(before, Load.now())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"ways": ways, "load": report["load"]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
