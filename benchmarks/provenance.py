"""Where the figures come from: machine, load, versions, digests, command. What cannot be read says so."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edge.weights.digests import digest_of

NOT_MEASURED = "not measured"

SIMD_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_bf16", "amx_int8", "asimd", "asimddp", "fphp", "i8mm", "bf16", "sve"),
)
"""Processor flags that decide how fast a convolution is, in each precision."""

PACKAGES = ("arcedge", "numpy", "opencv-python-headless", "opencv-python", "onnxruntime", "onnxruntime-gpu", "openvino")
PEER_PACKAGES = ("insightface", "ncnn")
_CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True, slots=True)
class Load:
    """Processor time of the whole machine since it started, in seconds, and the one-minute load average."""

    average: float | None
    busy: float | None
    total: float | None
    stolen: float | None
    own: float

    @classmethod
    def now(cls) -> Load:
        """Reads /proc/stat; None where there is none."""
        average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        try:
            first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
        except OSError:
            return cls(average, None, None, None, own)
        # user nice system idle iowait irq softirq steal guest guest_nice; guest time is inside user's.
        ticks = [int(value) / os.sysconf("SC_CLK_TCK") for value in first[:8]]
        idle = ticks[3] + ticks[4]
        return cls(average, sum(ticks) - idle, sum(ticks), ticks[7], own)


def load_between(before: Load, after: Load) -> dict[str, Any]:
    """Load averages, and the share of the machine that other processes took in between (stolen time included)."""
    report: dict[str, Any] = {
        "cores": os.cpu_count(),
        "load_before": before.average,
        "load_after": after.average,
        "others_share": None,
        "stolen_share": None,
    }
    if before.busy is not None and after.busy is not None and after.total and before.total:
        total = after.total - before.total
        if total > 0:
            others = (after.busy - before.busy) - (after.own - before.own)
            report["others_share"] = round(min(1.0, max(0.0, others / total)), 4)
            report["stolen_share"] = round(((after.stolen or 0.0) - (before.stolen or 0.0)) / total, 4)
    return report


def load_warning(load: dict[str, Any], limit: float = 0.15) -> str | None:
    """A sentence where other work took more than `limit` of the machine while it was measured."""
    share = load["others_share"]
    if share is None or share <= limit:
        return None
    return (
        f"Busy machine: other processes took {100 * share:.0f} % of its {load['cores']} cores during the measurement "
        f"(load {load['load_before']:.1f} before, {load['load_after']:.1f} after). Milliseconds are too high; "
        "ratios suffer less, as variants took turns, and processor times least. Measure again on an idle machine."
    )


def machine() -> dict[str, Any]:
    """Processor, cores, flags, governor, memory, system. No host name, no user, no path."""
    info = _cpuinfo()
    flags = set(info.get("flags", info.get("Features", "")).split())
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": [flag for flag in SIMD_FLAGS if flag in flags],
        "virtual": "hypervisor" in flags or None,
        "governor": _read(_CPU) or NOT_MEASURED,
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "device": _read(Path("/proc/device-tree/model")),
    }


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Of the packages that have a hand in the figures, and of `more`."""
    return {package: there for package in (*PACKAGES, *PEER_PACKAGES, *more) if (there := _version(package))}


def digest_of_files(files: Iterable[tuple[str, Path]]) -> tuple[str, dict[str, str]]:
    """SHA-256 over the names and digests of files, in sorted order, and each file's own by name."""
    each = {name: digest_of(path) for name, path in sorted(files)}
    lines = "".join(f"{digest}  {name}\n" for name, digest in each.items())
    return hashlib.sha256(lines.encode()).hexdigest(), each


def command_line() -> str:
    """As it was typed, without the interpreter and the folders in front of `edge`."""
    return shlex.join(["edge", *sys.argv[1:]])


def now() -> str:
    """UTC, to the second, ISO 8601."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpuinfo() -> dict[str, str]:
    entries: dict[str, str] = {}
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip():
            entries.setdefault(name.strip(), value.strip())
    return entries


def _memory_gib() -> float | str:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return NOT_MEASURED


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return None
