"""Whether there is an NVIDIA driver and what it drives, asked of the driver's own library and of nothing else.

No package is imported and no context made, so that this is safe to ask anywhere: TensorRT 8.6 ends the process where a
runtime is constructed without a driver.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edge.errors import EngineError

LIBRARY = "libcuda.so.1"
NODES = (Path("/dev/nvmap"), Path("/dev/dri/renderD128"))
"""What a Jetson's driver opens besides: of the group video, and of render, whose number each host chooses."""
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_PROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A GPU: its name, compute capability, memory in bytes, and the CUDA version the driver speaks (12090: 12.9).

    release: the driver's own version, "570.86.15"; empty where the system does not say it. processors: streaming
    multiprocessors.
    """

    index: int
    name: str
    capability: tuple[int, int]
    memory: int
    driver: int
    release: str = ""
    processors: int = 0

    @property
    def module(self) -> str:
        """Tells apart devices of one name and architecture, as a Jetson's modules are: "Orin, 16 SMs, 15 GiB".

        Whole GiB: what the system keeps for itself is not the same after every update.
        """
        return f"{self.name}, {self.processors} SMs, {self.memory / 2**30:.0f} GiB"

    @property
    def driver_name(self) -> str:
        """What is to be the same for what was built with a driver: "12090-570.86.15"."""
        return "-".join(filter(None, (str(self.driver), self.release)))

    @property
    def cuda(self) -> str:
        """The CUDA version the driver speaks, in words: "12.9"."""
        return f"{self.driver // 1000}.{self.driver % 1000 // 10}"

    @property
    def architecture(self) -> str:
        """As nvcc names it: "sm_87"."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


@cache
def library() -> ctypes.CDLL | None:
    """The driver's library; None where there is none."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None


def missing_driver() -> str | None:
    """None where a driver with at least one GPU answers, else one line that says what is missing."""
    driver = library()
    if driver is None:
        return f"no NVIDIA driver: {LIBRARY} is not there; run on a machine with a GPU, or with --engine onnxruntime"
    if status := driver.cuInit(0):
        remedy = closed_nodes(NODES) or "see nvidia-smi, and the container's GPU options"
        return f"the NVIDIA driver does not start (cuInit: {status}); {remedy}"
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
        return "the NVIDIA driver finds no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES"
    return None


def closed_nodes(nodes: Sequence[Path]) -> str:
    """Which of these device files are there but not for this user, and what to do; empty where there is none."""
    closed = [node for node in nodes if node.exists() and not os.access(node, os.R_OK | os.W_OK)]
    if not closed:
        return ""
    groups = [node.stat().st_gid for node in closed]
    named = ", ".join(f"{node} (group {_group(number)})" for node, number in zip(closed, groups, strict=True))
    options = " ".join(f"--group-add {number}" for number in dict.fromkeys(groups))
    return f"this user may not open {named}; join the group, in a container with docker run {options}"


def _group(number: int) -> str:
    """A group's name; its number where nobody here named it, as in a container."""
    import grp

    try:
        return f"{grp.getgrgid(number).gr_name}, {number}"
    except KeyError:
        return str(number)


def device_info(index: int = 0) -> DeviceInfo:
    """Raises EngineError without a driver or with fewer GPUs."""
    if missing := missing_driver():
        raise EngineError(missing)
    driver = library()
    assert driver is not None
    device, value, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    if driver.cuDeviceGet(ctypes.byref(device), index):
        raise EngineError(f"there is no GPU {index}; see nvidia-smi")
    check(driver.cuDeviceGetName(name, len(name), device), "cuDeviceGetName")
    check(driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device), "cuDeviceTotalMem")
    attributes = []
    for attribute in (_MAJOR, _MINOR, _PROCESSORS):
        check(driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
        attributes.append(value.value)
    check(driver.cuDriverGetVersion(ctypes.byref(value)), "cuDriverGetVersion")
    return DeviceInfo(
        index,
        name.value.decode(errors="replace"),
        (attributes[0], attributes[1]),
        memory.value,
        value.value,
        driver_release(),
        attributes[2],
    )


def free_memory() -> int:
    """Bytes of the GPU's memory that nobody has; of a context that is current. Raises EngineError."""
    driver = library()
    assert driver is not None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    check(driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)), "cuMemGetInfo")
    return free.value


def driver_release(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The version of the kernel's NVIDIA module, "570.86.15"; empty where it is not told."""
    try:
        said = file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    found = re.search(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)\b", said)
    return found.group(1) if found else ""


def check(status: Any, call: str) -> None:
    """Raises EngineError where a driver call did not succeed."""
    code = int(status)
    if code == 0:
        return
    driver, text = library(), ctypes.c_char_p()
    if driver is not None:
        driver.cuGetErrorName(code, ctypes.byref(text))
    name = text.value.decode() if text.value else "an unknown error"
    raise EngineError(f"CUDA: {call} failed with {name} ({code}); see edge doctor")
