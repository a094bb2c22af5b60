"""What a variant takes besides time: memory, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.provenance import NOT_MEASURED
from benchmarks.subjects import Subject
from edge.errors import EngineError

_FRAMES = 5


def measure_memory(subjects: Sequence[Subject]) -> dict[str, Any]:
    """MiB of resident memory with both models open, and at the peak of five 640×480 frames of one face each.

    `models` is what opening added to a process that had the engine's package loaded.
    """
    return {subject.label: _of_child(subject) for subject in subjects}


def _of_child(subject: Subject) -> dict[str, Any] | str:
    session = subject.options.session
    arguments = [str(subject.bundle.path), subject.precision, subject.engine, str(session.threads)]
    done = subprocess.run(  # noqa: S603 - our own module with checked arguments
        [sys.executable, "-m", "benchmarks.resources", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return f"{NOT_MEASURED}: {(done.stderr.strip().splitlines() or ['it ended without a word'])[-1]}"
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def _status(name: str) -> float:
    """MiB of VmRSS (now) or VmHWM (the most so far). getrusage's maximum would start at the parent's."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise EngineError(f"this system does not state {name} of a process")


def _measure(bundle: str, precision: str, engine: str, threads: str) -> dict[str, float]:
    import numpy as np

    from edge.analyze import AnalyzerOptions, FaceAnalyzer
    from edge.bundle import Bundle
    from edge.engines import SessionOptions, get_engine

    get_engine(engine).version()
    opened = Bundle.open(Path(bundle))
    before = _status("VmRSS")
    options = AnalyzerOptions(precision, engine=engine, session=SessionOptions(threads=int(threads)))
    with FaceAnalyzer(opened, options) as analyzer:
        loaded = _status("VmRSS")
        frame, crop = np.zeros((480, 640, 3), np.uint8), np.zeros((1, 112, 112, 3), np.uint8)
        for _ in range(_FRAMES):
            analyzer.detect(frame)
            analyzer.embed(crop)
        peak = _status("VmHWM")
    return {"process": round(before, 1), "models": round(loaded - before, 1), "peak": round(peak, 1)}


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:5])))
