"""How Triton is to run the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge.errors import InputError

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """precision: of the models, None for the bundle's first that the device runs. instances: copies of each model.

    max_batch: requests that are put together at most; 1 turns dynamic batching off. max_delay: microseconds a request
    waits for others. sizes: batches worth waiting for, as measured; None for powers of two.
    """

    precision: str | None = None
    device: Device = "cpu"
    instances: int = 1
    max_batch: int = 16
    max_delay: int = 2000
    sizes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.instances < 1 or self.max_batch < 1:
            raise InputError(f"triton: {self.instances} instances, batch {self.max_batch}: 1 is the least of each")
        if self.max_delay < 0:
            raise InputError(f"triton: a request cannot wait {self.max_delay} µs for others; 0 is not to wait at all")
        if self.device == "gpu" and self.precision == "int8":
            raise InputError("triton: the INT8 graphs of a bundle are for CPUs; take --precision fp16 on a GPU")

    @property
    def preferred(self) -> tuple[int, ...]:
        """Batch sizes worth waiting for: those measured, else powers of two up to the largest batch."""
        if self.sizes is not None:
            return self.sizes
        sizes = [2**power for power in range(1, 12) if 2**power <= self.max_batch]
        return tuple(sizes[-3:])
