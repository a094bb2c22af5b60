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
    meters, reasons = list[Meter](), [] if handles else ["NVML: no NVIDIA GPU"]
    for place, handle in enumerate(handles):
        try:
            meters.append(_meter(module, handle))
        except module.NVMLError as error:  # a Jetson's, whose board has sensors of its own
            reasons.append(f"NVML: GPU {place} tells neither energy nor power ({error})")
    return meters, "; ".join(reasons) or None


def _meter(module: Any, handle: Any) -> Meter:
    """Raises NVMLError where the GPU has neither."""
    name = f"NVML {module.nvmlDeviceGetName(handle)}"
    try:
        module.nvmlDeviceGetTotalEnergyConsumption(handle)
    except module.NVMLError:
        module.nvmlDeviceGetPowerUsage(handle)
        return PowerMeter(name, lambda: float(module.nvmlDeviceGetPowerUsage(handle)) * _MILLI)
    return CounterMeter(name, lambda: float(module.nvmlDeviceGetTotalEnergyConsumption(handle)) * _MILLI)
