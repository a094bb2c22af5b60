"""NVIDIA's compute-sanitizer over the kernel checks: memory, races, uninitialised memory, barriers.

Checks that have the driver refuse something on purpose are left out, and so are its refusals from what memcheck counts.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
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
SECONDS = 900.0
"""Of one tool; under some of them a kernel takes a hundred times as long."""
CLEAN = "clean"
_FOUND = 86  # an exit code that the checks themselves do not give


def sanitize(backend: str, checks: Path = CHECKS, seconds: float = SECONDS) -> dict[str, Any]:
    """By tool: CLEAN, or the last line of what it says; why not, where the program or the checks are not there."""
    sanitizer = shutil.which(PROGRAM)
    if sanitizer is None:
        return {"not_measured": f"{PROGRAM} is not here; it comes with the CUDA toolkit"}
    if not checks.is_file():
        return {"not_measured": f"{NOT_MEASURED}: run it in a checkout, the kernels' checks are not installed"}
    found: dict[str, Any] = {}
    for tool, options in TOOLS.items():
        command = [sanitizer, "--tool", tool, "--error-exitcode", str(_FOUND), *options]
        found[tool] = _verdict([*command, sys.executable, str(checks), backend, HARMLESS], seconds)
    return found


def is_clean(found: Any) -> bool:
    """Whether there is nothing left to run again."""
    return isinstance(found, dict) and set(found.values()) == {CLEAN}


def complaints(found: Any) -> str:
    """What tools found, or why they could not look; empty where they found nothing or were not run."""
    tools = found if isinstance(found, dict) and "not_measured" not in found else {}
    return "; ".join(f"{tool}: {said}" for tool, said in tools.items() if said != CLEAN)


def _verdict(command: list[str], seconds: float) -> str:
    # A session of its own: what the sanitizer started holds the pipe, and has to end with it.
    running = subprocess.Popen(  # noqa: S603 - fixed arguments
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        return f"not done after {seconds:.0f} s"
    lines = said.strip().splitlines()
    return CLEAN if running.returncode == 0 else f"exit {running.returncode}: {lines[-1] if lines else 'silent'}"
