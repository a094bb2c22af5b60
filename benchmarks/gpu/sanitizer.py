"""NVIDIA's compute-sanitizer over the kernel checks: memory, races, uninitialised memory, barriers.

Checks that have the driver refuse something on purpose are left out, and so are its refusals from what memcheck counts.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.provenance import NOT_MEASURED

TOOLS: dict[str, tuple[str, ...]] = {
    "memcheck": ("--report-api-errors", "no"),
    "racecheck": (),
    "initcheck": (),
    "synccheck": (),
}
"""With the options of each."""
PROGRAM = "compute-sanitizer"
CHECKS = Path(__file__).parents[2] / "tests" / "nvidia" / "kernel_checks.py"
HARMLESS = "--harmless"
"""To the checks: only those that provoke no error of the driver."""
SECONDS = 480.0
"""Of one tool; under some of them a kernel takes a hundred times as long. Each is a part of its own, and machines that
are lent may end a command after ten minutes.
"""
CLEAN = "clean"
_MARK = "========="
_FOUND = 86  # an exit code that the checks themselves do not give


def sanitize(tool: str, backend: str, checks: Path = CHECKS, seconds: float = SECONDS) -> str | dict[str, str]:
    """CLEAN, or what a tool says; why it was not run, where the program or the checks are not there."""
    sanitizer = shutil.which(PROGRAM)
    if sanitizer is None:
        return {"not_measured": f"{PROGRAM} is not here; it comes with the CUDA toolkit"}
    if not checks.is_file():
        return {"not_measured": f"{NOT_MEASURED}: run it in a checkout, the kernels' checks are not installed"}
    command = [sanitizer, "--tool", tool, "--error-exitcode", str(_FOUND), *TOOLS[tool]]
    return _verdict([*command, sys.executable, str(checks), backend, HARMLESS], seconds)


def is_clean(found: Any) -> bool:
    """Whether there is nothing left to run again."""
    return bool(found == CLEAN)


def complaints(found: Mapping[str, Any]) -> str:
    """What tools found, or why they could not look; empty where they found nothing or were not run."""
    said = {tool: what for tool, what in found.items() if isinstance(what, str)}
    return "; ".join(f"{tool}: {what}" for tool, what in said.items() if what != CLEAN)


def _verdict(command: list[str], seconds: float) -> str:
    # A session of its own: what the sanitizer started holds the pipe, and has to end with it.
    running = subprocess.Popen(  # noqa: S603 - fixed arguments
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"not done after {seconds:.0f} s"
    finally:
        if running.poll() is None:  # also where the command is interrupted, which a session of its own does not hear
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
    return CLEAN if running.returncode == 0 else f"exit {running.returncode}: {_shown(said)}"


def _shown(said: str) -> str:
    """The first thing that is complained of, and the last line, which counts them."""
    lines = said.strip().splitlines() or ["silent"]
    of_the_tool = [line[len(_MARK) :].strip() for line in lines if line.startswith(_MARK)]
    first = next((line for line in of_the_tool if line and line != "COMPUTE-SANITIZER"), "")
    return "; ".join(dict.fromkeys(filter(None, (first, lines[-1].removeprefix(_MARK).strip()))))
