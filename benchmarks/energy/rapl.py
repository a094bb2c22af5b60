"""RAPL counters of Intel and AMD processors, as Linux shows them: Documentation/power/powercap/powercap.rst."""

from __future__ import annotations

from pathlib import Path

from benchmarks.energy.base import CounterMeter, Meter

ROOT = Path("/sys/class/powercap")
_MICRO = 1e-6


def find_zones(root: Path = ROOT) -> tuple[list[Meter], str | None]:
    """The packages' counters, else why there is none. Parts of a package (cores, memory) are inside it and left out."""
    zones = sorted(path for path in root.glob("*-rapl:*") if path.name.count(":") == 1)
    meters: list[Meter] = []
    for zone in zones:
        try:
            name = (zone / "name").read_text(encoding="ascii").strip()
            span = float((zone / "max_energy_range_uj").read_text(encoding="ascii")) * _MICRO
            _joules(zone)
        except PermissionError:
            return [], f"RAPL: {zone.name}/energy_uj can be read by root alone; allow it with chmod o+r, or run as root"
        except (OSError, ValueError):
            continue
        meters.append(CounterMeter(f"RAPL {name}", lambda zone=zone: _joules(zone), span))  # type: ignore[misc]
    return meters, None if meters else "RAPL: this machine shows no counter (virtual machines hide them)"


def _joules(zone: Path) -> float:
    return float((zone / "energy_uj").read_text(encoding="ascii")) * _MICRO
