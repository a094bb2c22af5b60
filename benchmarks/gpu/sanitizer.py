"""NVIDIA's compute-sanitizer over every kernel check: memory, races, uninitialised memory, barriers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.provenance import NOT_MEASURED

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
CHECKS = Path(__file__).parents[2] / "tests" / "nvidia" / "kernel_checks.py"
_FOUND = 86  # an exit code that the checks themselves do not give


def sanitize(backend: str, checks: Path = CHECKS, program: str = "compute-sanitizer") -> dict[str, Any]:
    """By tool: "clean", or the last line of what it says; why not, where the program or the checks are not there."""
    sanitizer = shutil.which(program)
    if sanitizer is None:
        return {"not_measured": f"{program} is not here; it comes with the CUDA toolkit"}
    if not checks.is_file():
        return {"not_measured": f"{NOT_MEASURED}: run it in a checkout, the kernels' checks are not installed"}
    found: dict[str, Any] = {}
    for tool in TOOLS:
        command = [sanitizer, "--tool", tool, "--error-exitcode", str(_FOUND), sys.executable, str(checks), backend]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed arguments
        said = (done.stdout + done.stderr).strip().splitlines()
        found[tool] = "clean" if done.returncode == 0 else f"exit {done.returncode}: {said[-1] if said else 'silent'}"
    return found
