from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from images import extras

from edge import doctor
from edge.doctor import Extra, as_text, examine, nvidia_driver
from edge.errors import MissingExtraError
from edge.jetson import Clock, Jetson


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
    whole, broken = Extra(("json",), "edge cook"), Extra(("json", "no_such_module_here"), "edge bake")
    monkeypatch.setattr(doctor, "EXTRAS", {"whole": whole, "broken": broken})
    there, lacking = (finding for finding in examine() if finding.area == "extra")
    assert there.usable
    assert there.detail == "edge cook"
    assert not lacking.usable
    assert lacking.detail == "edge bake: lacks no_such_module_here; pip install 'arcedge[broken]'"


def test_a_jetson_is_sent_to_its_image_and_never_to_pypis_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its image has cuda-bindings in the place of pycuda: with TensorRT beside it there is nothing to install."""
    there = {"cuda.bindings"}
    monkeypatch.setattr(doctor, "_is_there", lambda module: module in there)
    monkeypatch.setattr("edge.jetson.is_jetson", lambda *root: True)

    def said() -> dict[tuple[str, str], tuple[bool, str]]:
        return {(f.area, f.name): (f.usable, f.detail) for f in examine() if f.area in ("gpu", "extra")}

    image = "docker build -f Dockerfile.jetson, which has NVIDIA's"
    assert said()["extra", "tensorrt"] == (False, f"--engine tensorrt: lacks tensorrt; {image}")
    assert said()["gpu", "tensorrt"] == (False, f"not installed; for TensorRT plans: {image}")
    assert said()["gpu", "pycuda"] == (False, "not installed, nor needed beside cuda.bindings")
    assert str(MissingExtraError("tensorrt", "tensorrt")).endswith(image)
    there.add("tensorrt")
    assert said()["extra", "tensorrt"] == (True, "--engine tensorrt")


def test_every_extra_that_a_user_may_install_is_looked_for(repository: Path) -> None:
    """gpu is told of with the engines; dev is for those who work on arcedge."""
    listed = {finding.name for finding in examine() if finding.area == "extra"}
    assert listed == extras(repository).keys() - {"dev", "gpu"}
    assert {"live", "mqtt", "nats", "crypto"} <= listed


def test_a_jetson_is_known_by_jetpack_power_mode_and_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = (Clock("GPU", 306, 306, 1300.5), Clock("CPU", 729.6, 729.6, 1984))
    board = Jetson("NVIDIA Jetson AGX Orin", "36.4.3", "MAXN", clocks)

    def said(found: Jetson) -> dict[str, tuple[bool, str]]:
        monkeypatch.setattr(doctor, "find_jetson", lambda: found)
        return {f.name: (f.usable, f.detail) for f in examine() if f.area == "jetson"}

    assert said(board) == {
        "model": (True, "NVIDIA Jetson AGX Orin"),
        "jetpack": (True, "JetPack 6.2, Jetson Linux 36.4.3"),
        "power mode": (True, "MAXN"),
        "clocks": (
            False,
            "GPU 306 of 1300 MHz, CPU 730 of 1984 MHz; they move with the load: sudo jetson_clocks before measuring",
        ),
    }
    held = said(Jetson("Thor", None, None, (Clock("GPU", 1575, 1575, 1575),)))
    assert held["clocks"] == (True, "GPU 1575 of 1575 MHz, held")
    assert not held["jetpack"][0]
    assert "-v /etc/nv_tegra_release" in held["jetpack"][1]
    assert not held["power mode"][0]
    assert "too old" in said(Jetson("Xavier", "35.4.1", "15W", ()))["jetpack"][1]
    assert not said(Jetson("Xavier", "35.4.1", "15W", ()))["clocks"][0]
    assert "JetPack 4 or older" in said(Jetson("Nano", "32.7.1", "MAXN", ()))["jetpack"][1]
    assert "too old" in said(Jetson("Nano", "32.7.1", "MAXN", ()))["jetpack"][1]


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
