"""What can be chosen when an engine is built: the shapes it takes, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.engines.base import Array
from edge.errors import EngineError

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes an engine takes where its model leaves them open: smallest, the one it is tuned for, largest.

    batch: images, of models of a fixed size (embedders). frames: images, of models that take any size (detectors), and
    side: their height and width in pixels. An engine takes up memory for the largest.
    """

    batch: tuple[int, int, int] = (1, 1, 64)
    frames: tuple[int, int, int] = (1, 1, 8)
    side: tuple[int, int, int] = (32, 640, 640)

    def __post_init__(self) -> None:
        for name in ("batch", "frames", "side"):
            low, best, high = getattr(self, name)
            if not 1 <= low <= best <= high:
                raise EngineError(f"an engine's {name} goes from 1 or more up, not {low}, {best}, {high}")

    def shapes(self, name: str, open_shape: tuple[int | None, ...]) -> tuple[Shape, Shape, Shape]:
        """Smallest, best and largest shape of an input; None is a dimension that may vary, the first is the batch.

        Raises EngineError where something else than batch, height and width varies.
        """
        varies = [place for place, size in enumerate(open_shape) if size is None and place > 0]
        if len(varies) not in (0, 2):
            raise EngineError(f"input {name} varies in a way no profile describes: {open_shape}; export it again")
        images = self.frames if varies else self.batch
        low, best, high = (
            tuple(
                size if size is not None else (images[i] if place == 0 else self.side[i])
                for place, size in enumerate(open_shape)
            )
            for i in range(3)
        )
        return low, best, high

    def __str__(self) -> str:
        batch, frames, side = ("/".join(map(str, values)) for values in (self.batch, self.frames, self.side))
        return f"batch {batch} frames {frames} side {side}"


@dataclass(frozen=True, slots=True)
class TensorRtOptions:
    """How engines are built and kept.

    cache: folder of engines; None for the user's. workspace: bytes the builder may try kernels with.
    probes: real inputs by name, on which a new engine is held against ONNX Runtime; None for pictures made up.
    backend: of edge.cuda; None for the first installed. quiet: no progress.
    """

    profile: Profile = field(default_factory=Profile)
    cache: Path | None = None
    workspace: int = 1 << 30
    probes: Mapping[str, Array] | None = None
    backend: str | None = None
    quiet: bool = False
