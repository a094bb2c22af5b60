"""What it takes to start: CPU and memory of a fresh process, up to its first embedding and for one run of the command.

Processes find bytecode, as those of an installed package do, and begin as the command `edge` begins, with OpenBLAS on
one thread. Memory is the most that was resident, libraries that other processes share included.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from benchmarks.precisions import Precisions
from benchmarks.statistics import spread
from edge.types import Image

BUDGET = {"cpu_seconds": 0.3, "rss_mb": 100.0}

_SPENT = """
import time
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(time.process_time(), int(peak.split()[1]) * 1024 / 1e6)  # what /proc calls kB are 1,024 bytes
"""

_FIRST_EMBEDDING = f"""
import sys
from pathlib import Path
import edge.cli
import cv2
cv2.setNumThreads(1)
from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
options = AnalyzerOptions(precision=sys.argv[3], detector_precision=sys.argv[4] if len(sys.argv) > 4 else None)
analyzer = FaceAnalyzer(Bundle.open(Path(sys.argv[1])), options)
image = cv2.imread(sys.argv[2])
analyzer.embed(analyzer.align(image, analyzer.detect(image)[:1]))
{_SPENT}
"""

_COMMAND = f"""
import sys
from pathlib import Path
from edge.cli.main import main
code = main(sys.argv[1:])
{_SPENT}
sys.exit(code)
"""


def measure_start(bundle: Path, gallery: Path, precisions: Precisions, picture: Image, rounds: int) -> dict[str, Any]:
    """Of processes that take turns: seconds of CPU and peak resident MB, median, least and most of the rounds.

    first_embedding: of `picture` with the bundle's models. command: the whole of `edge run` on it, events into a file.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, events = Path(folder) / "picture.png", Path(folder) / "events.jsonl"
        cv2.imwrite(str(file), picture)
        run = ["run", "--bundle", str(bundle), "--gallery", str(gallery), *precisions.arguments]
        named = [name for name in (precisions.embedder, precisions.detector) if name is not None]
        ways = {
            "first_embedding": [_FIRST_EMBEDDING, str(bundle), str(file), *named],
            "command": [_COMMAND, *run, "--source", str(file), "--events", str(events)],
        }
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, words in ways.items():
                spent = _spent(words, Path(folder) / "bytecode")
                if turn:  # the first one writes the bytecode
                    rows[name].append(spent)
    return {
        name: {"cpu_seconds": spread([r[0] for r in found], 3), "rss_mb": spread([r[1] for r in found], 1)}
        for name, found in rows.items()
    } | {"budget": BUDGET}


def _spent(words: Sequence[str], bytecode: Path) -> tuple[float, float]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(bytecode)
    command = [sys.executable, "-c", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)  # noqa: S603 - our own
    seconds, megabytes = done.stdout.splitlines()[-1].split()
    return float(seconds), float(megabytes)
