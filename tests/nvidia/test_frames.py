"""Frames go through the GPU as `edge run --engine tensorrt` sends them, kernel by kernel in the emulator."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKS = re.findall(
    r"^def check_(\w+)", (Path(__file__).parent / "frame_checks.py").read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.mark.parametrize(
    ("version", "checks"), [("10.3.0", CHECKS), ("8.5.3.1", ["contexts", "up_once", "looked_at_once"])]
)
def test_frames_through_the_gpu(
    on_emulator: Callable[..., str],
    backend: str,
    version: str,
    checks: list[str],
    tmp_path: Path,
    shipped_bundle: Path,
) -> None:
    """Before TensorRT 10 an engine has one context, which the sizes of frames have to share."""
    if backend == "pycuda" and version != "10.3.0":
        pytest.skip("one version shows what another backend changes")
    said = on_emulator("frame_checks.py", version, str(tmp_path / "cache"), str(shipped_bundle), *checks)
    assert re.findall(r"(\w+) holds", said) == checks
