"""Joules a frame takes, from the meters a machine offers: RAPL, NVML, the sensors of a Jetson board."""

from __future__ import annotations

from benchmarks.energy.base import CounterMeter, Meter, PowerMeter
from benchmarks.energy.jetson import find_rails
from benchmarks.energy.nvml import find_gpus
from benchmarks.energy.rapl import find_zones

__all__ = ["CounterMeter", "Meter", "PowerMeter", "find_meters"]


def find_meters() -> tuple[list[Meter], list[str]]:
    """Every meter that can be read here, and why each other kind cannot."""
    meters: list[Meter] = []
    missing = []
    for find in (find_zones, find_gpus, find_rails):
        found, reason = find()
        meters += found
        if reason:
            missing.append(reason)
    return meters, missing
