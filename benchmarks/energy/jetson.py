"""Power sensors of Jetson boards, as Linux shows them: INA3221 (hwmon from JetPack 5 on, iio before), Thor's INA238."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.energy.base import Meter, PowerMeter, Read

ROOT = Path("/sys/bus/i2c/drivers")
_MILLI = 1e-3
_MICRO = 1e-6
_TOTALS = ("VDD_IN", "POM_5V_IN", "VIN")
"""Rails that feed the whole module or, Thor's, the whole board; where one of them is there, the others are parts of it.

VIN_SYS_5V0 of an AGX Orin or Thor and SYS5V of an AGX Xavier are none: they feed neither GPU nor CPU.
"""


def find_rails(root: Path = ROOT) -> tuple[list[Meter], str | None]:
    """The rail that feeds the whole board, else all rails; else why there is none."""
    rails = {**dict(_iio(root)), **dict(_hwmon(root)), **dict(_input(root))}
    whole = [rail for rail in rails if rail.partition(" ")[2] in _TOTALS]
    meters: list[Meter] = [PowerMeter(rail, rails[rail]) for rail in whole or rails]
    return meters, None if meters else "Jetson: no INA3221 power sensor"


def _hwmon(root: Path) -> Iterator[tuple[str, Read]]:
    """in<n>_label names the rail, in<n>_input is millivolts, curr<n>_input milliamperes."""
    for label in sorted(root.glob("ina3221/*/hwmon/hwmon*/in*_label")):
        number = label.name.removeprefix("in").removesuffix("_label")
        volts, amperes = label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input")
        if volts.is_file() and amperes.is_file():
            yield f"INA3221 {_text(label)}", lambda volts=volts, amperes=amperes: _number(volts) * _number(amperes)  # type: ignore[misc]


def _iio(root: Path) -> Iterator[tuple[str, Read]]:
    """rail_name_<n> names the rail, in_power<n>_input is milliwatts."""
    for label in sorted(root.glob("ina3221x/*/iio:device*/rail_name_*")):
        power = label.with_name(f"in_power{label.name.removeprefix('rail_name_')}_input")
        if power.is_file():
            yield f"INA3221 {_text(label)}", lambda power=power: _number(power)  # type: ignore[misc]


def _input(root: Path) -> Iterator[tuple[str, Read]]:
    """What feeds a Thor's board has a chip of its own, without a label; power1_input is microwatts."""
    for power in sorted(root.glob("ina238/*/hwmon/hwmon*/power1_input")):
        yield "INA238 VIN", lambda power=power: _number(power, _MICRO)  # type: ignore[misc]


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace").strip()


def _number(path: Path, unit: float = _MILLI) -> float:
    return float(path.read_text(encoding="ascii")) * unit
