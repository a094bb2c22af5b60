"""CUDA memory, streams, graphs and kernels, behind one small protocol with two implementations."""

from __future__ import annotations

from edge.cuda.device import BACKENDS, open_device
from edge.cuda.protocol import CudaDevice, DeviceMemory, Event, PinnedMemory, Stream

__all__ = ["BACKENDS", "CudaDevice", "DeviceMemory", "Event", "PinnedMemory", "Stream", "open_device"]
