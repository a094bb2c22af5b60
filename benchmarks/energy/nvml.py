"""NVIDIA GPUs through NVML: the energy counter from Volta on, else power readings."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.energy.base import CounterMeter, Meter, PowerMeter

INSTALL = "pip install 'arcedge[energy]'"
_MILLI = 1e-3


def find_gpus(module: Any = None) -> tuple[list[Meter], str | None]:
    """A meter for each GPU, else why there is none. module: nvidia-ml-py's `pynvml`, imported where it is None."""
    if module is None:
        try:
            module = import_module("pynvml")
        except ImportError:
            return [], f"NVML: nvidia-ml-py is not installed; install it with: {INSTALL}"
    try:
        module.nvmlInit()
        handles = [module.nvmlDeviceGetHandleByIndex(i) for i in range(module.nvmlDeviceGetCount())]
    except module.NVMLError as error:
        return [], f"NVML: {error}"
    found = [_meter(module, place, handle) for place, handle in enumerate(handles)]
    reasons = [each for each in found if isinstance(each, str)] if found else ["NVML: no NVIDIA GPU"]
    return [each for each in found if not isinstance(each, str)], "; ".join(reasons) or None


def _meter(module: Any, place: int, handle: Any) -> Meter | str:
    """Of a GPU; why there is none where it has neither counter nor sensor, as a Jetson's, whose board has its own."""
    name = f"NVML {module.nvmlDeviceGetName(handle)}"
    try:
        module.nvmlDeviceGetTotalEnergyConsumption(handle)
    except module.NVMLError:
        try:
            module.nvmlDeviceGetPowerUsage(handle)
        except module.NVMLError as error:
            return f"NVML: GPU {place} tells neither energy nor power ({error})"
        return PowerMeter(name, lambda: float(module.nvmlDeviceGetPowerUsage(handle)) * _MILLI)
    return CounterMeter(name, lambda: float(module.nvmlDeviceGetTotalEnergyConsumption(handle)) * _MILLI)
