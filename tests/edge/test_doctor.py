from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from edge import doctor
from edge.doctor import as_text, examine, nvidia_driver


def test_everything_is_looked_for_and_what_is_missing_says_what_to_do() -> None:
    findings = examine()
    assert {"machine", "engine", "gpu", "opencv", "camera", "extra"} <= {finding.area for finding in findings}
    by_name = {(finding.area, finding.name): finding for finding in findings}
    assert by_name["opencv", "version"].detail == cv2.__version__
    assert by_name["engine", "onnxruntime"].usable
    for finding in findings:
        assert finding.detail
        assert "\n" not in finding.detail
    lines = as_text(findings).splitlines()
    assert len(lines) == len(findings) + len({finding.area for finding in findings})


def test_an_extra_that_lacks_a_module_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"whole": ("json",), "broken": ("json", "no_such_module_here")})
    whole, broken = (finding for finding in examine() if finding.area == "extra")
    assert whole.usable
    assert not broken.usable
    assert broken.detail == "lacks no_such_module_here: pip install 'arcedge[broken]'"


def test_a_jetson_is_named_by_its_release_and_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.0, GCID: 1\n",
        "/proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
    }
    monkeypatch.setattr(doctor, "_text", lambda path: files.get(str(path), ""))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = next(finding for finding in examine() if finding.area == "jetson")
    assert found.detail == "NVIDIA Jetson Orin Nano; R36 (release), REVISION: 4.0, GCID: 1"


def test_without_a_driver_gpu_packages_are_of_no_use() -> None:
    driver, detail = nvidia_driver()
    assert detail
    if not driver:
        assert not any(finding.usable for finding in examine() if finding.area == "gpu")


def test_looking_imports_no_heavy_package() -> None:
    code = (
        "import sys; from edge.doctor import examine; examine()\n"
        "print(*sorted({'torch', 'onnx', 'tensorrt', 'pycuda', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
