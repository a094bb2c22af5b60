"""What every engine is: one life cycle, guarded and validated here; an engine fills in the `_impl` methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge.errors import EngineError

Array = npt.NDArray[Any]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, numpy dtype name and shape of an input or output; None is a dimension that may vary."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def admits(self, array: Array) -> bool:
        """Whether `array` has this dtype and a shape that fits."""
        return (
            array.dtype == np.dtype(self.dtype)
            and array.ndim == len(self.shape)
            and all(want is None or want == have for want, have in zip(self.shape, array.shape, strict=True))
        )


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """threads: intra-op threads; one an engine is the house rule, pipelines get their cores from workers.

    device: where the model must run. An engine that cannot is an error, never a silent fall back.
    as_written: node by node, nothing fused, so that what the file says is computed in float32; for ONNX Runtime, where
    exact arithmetic is the reference. Other engines always fuse.
    contract: digest of the model's contract, which a server must state as well; None to ask it for none.
    """

    threads: int = 1
    device: Device = "cpu"
    as_written: bool = False
    contract: str | None = None


class Session(ABC):
    """An opened model. Use as a context manager, or call `close`. One thread at a time."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    largest_batch: int | None = None
    """Pictures a run may take at most, where a model leaves it open but what was compiled of it does not."""

    def __init__(self) -> None:
        self._closed = False

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the model on named inputs and gives its named outputs.

        Raises EngineError for a closed session, a missing or unknown input, a wrong dtype or shape, or an engine fault.
        """
        if self._closed:
            raise EngineError("this session is closed; open the model again")
        if batch.keys() != {spec.name for spec in self.inputs}:
            wanted = ", ".join(spec.name for spec in self.inputs)
            raise EngineError(f"the model takes {wanted}; it was given {', '.join(batch) or 'nothing'}")
        for spec in self.inputs:
            array = batch[spec.name]
            if not spec.admits(array):
                raise EngineError(
                    f"input {spec.name} is {spec.dtype} {shape_text(spec.shape)}; "
                    f"it was given {array.dtype} {shape_text(array.shape)}"
                )
        return self._run_impl(batch)

    def close(self) -> None:
        """Frees what the engine holds; calling it again does nothing."""
        if not self._closed:
            self._closed = True
            self._close_impl()

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Engine, version, device and options, for reports."""

    @abstractmethod
    def _run_impl(self, batch: Mapping[str, Array]) -> dict[str, Array]: ...

    def _close_impl(self) -> None:
        return None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Engine(ABC):
    """A way to run models on this machine, registered by name in `edge.engines`."""

    name: str
    extra: str
    """The extra of arcedge that installs it; empty where the base install does."""

    @abstractmethod
    def available(self) -> str | None:
        """None where the engine can run here, else one line that says what is missing and how to get it."""

    @abstractmethod
    def version(self) -> str:
        """Version of the engine's package. Only where `available()` is None."""

    @abstractmethod
    def open(self, model: bytes, options: SessionOptions) -> Session:
        """Opens an ONNX model from its bytes. Raises EngineError."""


def shape_text(shape: tuple[int | None, ...]) -> str:
    """A shape for messages: 1×112×112×3, with ? for a dimension that varies."""
    return "×".join("?" if size is None else str(size) for size in shape) or "scalar"
