"""What this machine can run, and why not the rest. Nothing heavy is imported, no GPU is touched beyond its driver."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import cv2

from edge import __version__
from edge.bundle import Bundle, runs_on
from edge.engines import ENGINES, get_engine, open_session
from edge.engines.onnxruntime import provider_names
from edge.errors import how_to_install
from edge.jetson import find_jetson
from edge.selftest import TESTED, run_self_test
from edge.sinks.window import why_no_window
from edge.sources.capture import has_gstreamer


@dataclass(frozen=True, slots=True)
class Extra:
    """What an extra of arcedge brings. modules: all are needed, of "a or b" one. purpose: what for, as it is typed."""

    modules: tuple[str, ...]
    purpose: str


EXTRAS = {
    "openvino": Extra(("openvino",), "--engine openvino"),
    "tensorrt": Extra(("tensorrt", "pycuda or cuda.bindings"), "--engine tensorrt"),
    "triton": Extra(("tritonclient", "grpc"), "--engine triton"),
    "live": Extra(("aiohttp", "prometheus_client"), "edge run --serve"),
    "mqtt": Extra(("paho",), "edge run --mqtt"),
    "nats": Extra(("nats",), "edge run --nats"),
    "crypto": Extra(("cryptography",), "encrypted galleries"),
    "sign": Extra(("cryptography",), "signed bundles"),
    "milvus": Extra(("pymilvus", "milvus_lite"), "--gallery milvus:…"),
    "ray": Extra(("ray",), "edge index --on ray"),
    "train": Extra(("torch", "safetensors", "matplotlib"), "edge train"),
    "export": Extra(("torch", "safetensors", "onnx", "onnxscript", "matplotlib"), "edge export"),
    "report": Extra(("jinja2", "matplotlib", "scipy"), "edge bench"),
    "peers": Extra(("ncnn",), "edge bench --peer"),
    "energy": Extra(("pynvml",), "joules of a GPU in edge bench"),
}
"""All but gpu: whether ONNX Runtime can use CUDA is told with the engines."""

CPU_FLAGS = {
    "avx2": "8-wide FP32",
    "avx512f": "16-wide FP32",
    "avx_vnni": "fast INT8",
    "avx512_vnni": "fast INT8",
    "avx512_bf16": "fast bf16",
    "amx_int8": "matrix INT8",
    "amx_bf16": "matrix bf16",
    "asimddp": "fast INT8",
    "i8mm": "matrix INT8",
    "bf16": "fast bf16",
}
"""Flags of /proc/cpuinfo, x86 and Arm, that decide how fast a precision is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked for: area and name, whether it is there and usable, and what it is or what to do."""

    area: str
    name: str
    usable: bool
    detail: str


def examine() -> list[Finding]:
    """Everything, in the order it is printed."""
    return [*_machine(), *_engines(), *_gpu(), *_opencv(), *_cameras(), *_extras(), *_jetson()]


def examine_bundle(path: Path) -> list[Finding]:
    """Whether this machine's engines compute each model of a bundle as its export did.

    Raises BundleError where `path` is none, EngineError where a model cannot be opened.
    """
    bundle = Bundle.open(path)
    found = []
    for variant in bundle.manifest.variants:
        able = [name for name in TESTED if runs_on(variant.engine, variant.precision, name)] or [variant.engine]
        for engine in (name for name in able if get_engine(name).available() is None):
            with open_session(bundle.load(variant), engine) as session:
                result = run_self_test(session, variant)
            untold = "the bundle stores no self-test; export it again"
            usable, detail = (result.passed, str(result)) if result is not None else (False, untold)
            found.append(Finding("bundle", f"{variant.name}, {engine}", usable, detail))
    return found


def _machine() -> Iterator[Finding]:
    yield Finding(
        "machine", "arcedge", True, f"{__version__} on Python {platform.python_version()}, {platform.platform()}"
    )
    cpuinfo = _text(Path("/proc/cpuinfo"))
    named = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("machine", "cpu", True, f"{named.group(1) if named else platform.machine()}, {cores} cores to use")
    listed = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = set(listed.group(1).split()) if listed else set()
    found = [f"{flag} ({what})" for flag, what in CPU_FLAGS.items() if flag in flags]
    fast = any("INT8" in entry for entry in found)
    detail = ", ".join(found) or "none of those known"
    yield Finding("machine", "cpu flags", fast, detail if fast else f"{detail}; INT8 will gain little on this CPU")


def _engines() -> Iterator[Finding]:
    for name in ENGINES:
        engine = get_engine(name)
        missing = engine.available()
        yield Finding("engine", name, missing is None, missing or engine.version())
    if find_spec("onnxruntime") is not None:
        providers = provider_names()
        cuda = "CUDA" in providers
        detail = f"providers: {', '.join(providers)}"
        hint = "for CUDA: pip uninstall onnxruntime, then pip install 'arcedge[gpu]'"
        yield Finding("engine", "onnxruntime on cuda", cuda, detail if cuda else f"{detail}; {hint}")


def _gpu() -> Iterator[Finding]:
    driver, detail = nvidia_driver()
    yield Finding("gpu", "nvidia driver", driver, detail)
    for module, needed, other in (
        ("tensorrt", "TensorRT plans", None),
        ("pycuda", "GPU memory", "cuda.bindings"),
        ("cuda.bindings", "GPU memory", "pycuda"),
    ):
        package = {"cuda.bindings": "cuda-bindings"}.get(module, module)
        there = _is_there(module)
        missing = f"not installed; for {needed}: {how_to_install('tensorrt')}"
        if other is not None and _is_there(other):
            missing = f"not installed, nor needed beside {other}"
        # Only the metadata: TensorRT without a driver can bring the process down.
        detail = _version(package) if there else missing
        usable = there and driver
        yield Finding("gpu", module, usable, detail if usable or not there else f"{detail}, of no use without a driver")


def nvidia_driver() -> tuple[bool, str]:
    """Whether a driver with a GPU is there, and its version and GPUs or why not; initialises nothing but libcuda."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False, "libcuda.so.1 not found: no NVIDIA GPU, or its driver is not installed"
    if (code := cuda.cuInit(0)) != 0:
        return False, f"the driver is there but finds no GPU (cuInit gives {code})"
    count, number = ctypes.c_int(0), ctypes.c_int(0)
    cuda.cuDeviceGetCount(ctypes.byref(count))
    cuda.cuDriverGetVersion(ctypes.byref(number))
    names = []
    for index in range(count.value):
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(name, len(name), device)
        names.append(name.value.decode(errors="replace"))
    shown = f"{', '.join(names) or 'no GPU'}, CUDA {number.value // 1000}.{number.value % 1000 // 10}"
    return count.value > 0, shown


def _opencv() -> Iterator[Finding]:
    build = cv2.getBuildInformation()
    yield Finding("opencv", "version", True, str(cv2.__version__))
    ffmpeg = re.search(r"FFMPEG:\s+YES", build) is not None
    yield Finding("opencv", "ffmpeg", ffmpeg, "files, rtsp, http" if ffmpeg else "missing; install opencv from PyPI")
    gstreamer = has_gstreamer()
    hint = "not in this OpenCV; needed for csi:// and hardware decoding on a Jetson only"
    yield Finding("opencv", "gstreamer", gstreamer, "csi://, hardware decoding" if gstreamer else hint)
    problem = why_no_window()
    yield Finding("opencv", "windows", problem is None, problem or "edge run --show works")


def _cameras() -> Iterator[Finding]:
    devices = sorted(Path("/dev").glob("video*"), key=lambda path: (len(path.name), path.name))
    if not devices:
        yield Finding("camera", "v4l2", False, "no /dev/video*; connect a camera, or use a file or rtsp://")
    for device in devices:
        name = _text(Path("/sys/class/video4linux") / device.name / "name").strip() or "camera"
        allowed = os.access(device, os.R_OK | os.W_OK)
        yield Finding("camera", str(device), allowed, name if allowed else f"{name}; add this user to the group video")


def _extras() -> Iterator[Finding]:
    for name, extra in EXTRAS.items():
        missing = [either for either in extra.modules if not any(map(_is_there, either.split(" or ")))]
        hint = f"{extra.purpose}: lacks {', '.join(missing)}; {how_to_install(name)}"
        yield Finding("extra", name, not missing, hint if missing else extra.purpose)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a dotted name, where the parent is not there
        return False


def _jetson() -> Iterator[Finding]:
    board = find_jetson()
    if board is None:
        return
    yield Finding("jetson", "model", True, board.model)
    unseen = "not to be seen here; give the container -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro"
    known = f"JetPack {board.jetpack}, Jetson Linux {board.release}"
    old = {"5": "its Python 3.8 is too old, arcedge runs in a container only", "4": "too old for arcedge"}
    why = old.get((board.jetpack or "")[:1])
    detail = f"{known}: {why}" if why else known
    yield Finding("jetson", "jetpack", board.release is not None, unseen if board.release is None else detail)
    mode = board.power_mode
    hint = "not told; run nvpmodel -q as root, or give the container -v /var/lib/nvpmodel:/var/lib/nvpmodel:ro"
    yield Finding("jetson", "power mode", mode is not None, hint if mode is None else mode)
    held = bool(board.clocks) and all(clock.held for clock in board.clocks)
    shown = ", ".join(map(str, board.clocks)) or "not to be seen"
    detail = f"{shown}, held" if held else f"{shown}; they move with the load: sudo jetson_clocks before measuring"
    yield Finding("jetson", "clocks", held, detail)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "version unknown"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def as_text(findings: list[Finding]) -> str:
    """A table for people, one finding a line."""
    lines, area = [], ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            lines.append(area)
        lines.append(f"  {'yes' if finding.usable else 'no ':3}  {finding.name:20} {finding.detail}")
    return "\n".join(lines)
