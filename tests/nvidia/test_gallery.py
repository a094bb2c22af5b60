"""The gallery on the device: searched where the embeddings lie, kernel by kernel in the emulator."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKS = re.findall(
    r"^def check_(\w+)", (Path(__file__).parent / "gallery_checks.py").read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.mark.parametrize(("version", "checks"), [("10.3.0", CHECKS), ("8.5.3.1", ["identities_come_down"])])
def test_a_gallery_on_the_gpu(
    on_emulator: Callable[..., str], backend: str, version: str, checks: list[str], tmp_path: Path, shipped_bundle: Path
) -> None:
    if backend == "pycuda" and version != "10.3.0":
        pytest.skip("one version shows what another backend changes")
    said = on_emulator("gallery_checks.py", version, str(tmp_path / "cache"), str(shipped_bundle), *checks)
    assert re.findall(r"(\w+) holds", said) == checks
