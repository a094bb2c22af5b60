"""What a Jetson says of itself in files: board, JetPack, power mode and clocks. Nothing is run but nvpmodel.

A container sees /sys, and of the rest what it is given; docs/nvidia.md has the mounts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

JETPACKS = {
    "35.3": "5.1.1", "35.4": "5.1.2", "35.5": "5.1.3", "35.6": "5.1.4",
    "36.3": "6.0", "36.4.0": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1",
    "38.2": "7.0", "38.4": "7.1",
}  # fmt: skip
"""Jetson Linux → the JetPack that brought it; the longest that fits counts."""

_MAJORS = {34: "5", 35: "5", 36: "6"}  # older releases are of JetPack 4 and before, newer ones of 7 and after
_RELEASE = re.compile(r"R(\d+) \(release\), REVISION: ([\d.]+)")
_GPU = re.compile(r"gpu|gv11b|ga10b|gb10b")


@dataclass(frozen=True, slots=True)
class Clock:
    """A processor's clock in MHz: now, the least it may fall to, and the most that the power mode allows it."""

    name: str
    now: float
    least: float
    most: float

    @property
    def held(self) -> bool:
        """Whether it cannot fall, as jetson_clocks has it."""
        return self.least >= self.most

    def __str__(self) -> str:
        return f"{self.name} {self.now:.0f} of {self.most:.0f} MHz"


@dataclass(frozen=True, slots=True)
class Jetson:
    """release: of Jetson Linux, "36.4.3"; None where its file is not to be seen. power_mode: None where untold."""

    model: str
    release: str | None
    power_mode: str | None
    clocks: tuple[Clock, ...]

    @property
    def jetpack(self) -> str | None:
        """ "6.2"; "6" of a release that is not known, "4 or older", "7 or newer"; None without one."""
        if self.release is None:
            return None
        fitting = [known for known in JETPACKS if f"{self.release}.".startswith(f"{known}.")]
        if fitting:
            return JETPACKS[max(fitting, key=len)]
        major = int(self.release.split(".")[0])
        return _MAJORS.get(major, "4 or older" if major < min(_MAJORS) else "7 or newer")


def is_jetson(root: Path = Path("/")) -> bool:
    """Whether this is one. A container has the release only where it is given it, and /sys always."""
    return bool(_text(root / "etc/nv_tegra_release")) or "tegra" in _text(root / "sys/devices/soc0/family").lower()


def find_jetson(root: Path = Path("/")) -> Jetson | None:
    """The board this runs on; None elsewhere. root: where the system's files are."""
    if not is_jetson(root):
        return None
    found = _RELEASE.search(_text(root / "etc/nv_tegra_release"))
    model = _text(root / "proc/device-tree/model").strip("\0 \n") or _text(root / "sys/devices/soc0/machine").strip()
    release = f"{found.group(1)}.{found.group(2)}" if found else None
    return Jetson(model or "unknown board", release, _power_mode(root), tuple(_clocks(root)))


def _power_mode(root: Path) -> str | None:
    """Of nvpmodel, or of the files it reads and writes: a container has these at most."""
    import shutil  # only here: every run asks whether this is a Jetson
    import subprocess

    if shutil.which("nvpmodel") is not None:
        command = ["nvpmodel", "-q"]
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603
        except (OSError, subprocess.TimeoutExpired):
            said = ""  # the files may tell
        if mode := re.search(r"NV Power Mode:\s*(\S+)", said):
            return mode.group(1)
    chosen = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status"))
    if chosen is None:
        return None
    number = int(chosen.group(1))
    names = dict(re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", _text(root / "etc/nvpmodel.conf")))
    return str(names.get(str(number), f"number {number}"))


def _clocks(root: Path) -> Iterator[Clock]:
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if _GPU.search(folder.name):
            yield from _clock("GPU", [folder], "cur_freq", "min_freq", "max_freq", 1e-6)
            break
    cores = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    yield from _clock("CPU", cores, "scaling_cur_freq", "scaling_min_freq", "scaling_max_freq", 1e-3)


def _clock(name: str, folders: list[Path], now: str, least: str, most: str, to_mhz: float) -> Iterator[Clock]:
    """One clock for several cores: the slowest of each."""
    texts = [[_text(folder / file).strip() for file in (now, least, most)] for folder in folders]
    rows = [[int(text) * to_mhz for text in row] for row in texts if all(text.isdigit() for text in row)]
    if rows:
        yield Clock(name, *(min(column) for column in zip(*rows, strict=True)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
