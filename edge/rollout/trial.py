"""The test a bundle must pass on this device before it is used: both models opened, and their self-test.

It runs in a process of its own, so that an engine that crashes, hangs or eats all memory fails the test, and no more.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 900.0
"""Seconds. TensorRT builds both engines meanwhile."""

Trial = Callable[[Path], str | None]
"""Why the bundle in a folder must not be used, in one line; None where it may be."""


@dataclass(frozen=True, slots=True)
class SelfTestTrial:
    """precision: of the models; None for the bundle's first. engine: a name, or auto. timeout: seconds."""

    precision: str | None = None
    engine: str = "onnxruntime"
    timeout: float = TIMEOUT

    def __call__(self, bundle: Path) -> str | None:
        """Runs the test in a process of its own."""
        command = [sys.executable, "-m", "edge.rollout.trial_process", str(bundle), self.engine, self.precision or ""]
        try:
            done = subprocess.run(  # noqa: S603 - this very program
                command, capture_output=True, text=True, timeout=self.timeout, check=False, errors="replace"
            )
        except subprocess.TimeoutExpired:
            return f"its self-test took more than {self.timeout:g} s"
        if done.returncode == 0:
            return None
        if done.returncode < 0:
            return f"its self-test was ended by signal {-done.returncode}"
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"its self-test ended with {done.returncode}"
