"""What can be chosen when an engine is built: the shapes it takes, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.engines.base import Array
from edge.errors import EngineError

Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]
"""Smallest shape, the one kernels are tuned for, largest."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes an engine takes where its model leaves them open, in ranges: each has kernels that were tuned for it.

    batch: images, of models of a fixed size (embedders): the largest number of each range, from 1 on; a range is tuned
    for its largest. frames: the same of models that take any size (detectors), whose height and width in pixels go from
    the first of `side` to its last, tuned for the second. An engine takes up memory for the largest.
    """

    batch: tuple[int, ...] = (1, 8, 64)
    frames: tuple[int, ...] = (1, 8)
    side: tuple[int, int, int] = (32, 640, 640)

    def __post_init__(self) -> None:
        for name in ("batch", "frames"):
            values = getattr(self, name)
            if not values or values[0] < 1 or sorted(set(values)) != list(values):
                raise EngineError(f"an engine's {name} goes from 1 or more up, not {_listed(values)}")
        low, best, high = self.side
        if not 1 <= low <= best <= high:
            raise EngineError(f"an engine's side goes from 1 or more up, not {low}, {best}, {high}")

    def ranges(self, name: str, open_shape: tuple[int | None, ...]) -> tuple[Range, ...]:
        """Smallest, best and largest shape of an input in each range; None is a dimension that may vary.

        The first dimension is the batch. Raises EngineError where something else than batch, height and width varies.
        """
        varies = [place for place, size in enumerate(open_shape) if size is None and place > 0]
        if len(varies) not in (0, 2):
            raise EngineError(f"input {name} varies in a way no profile describes: {open_shape}; export it again")
        found, low = [], 1
        for high in self.frames if varies else self.batch:
            images = (low, high, high)
            found.append(tuple(self._shape(open_shape, images[i], self.side[i]) for i in range(3)))
            low = high + 1
            if open_shape[0] is not None:
                break
        return tuple(found)  # type: ignore[arg-type]

    def whole(self, name: str, open_shape: tuple[int | None, ...]) -> Range:
        """Smallest, best and largest shape as one range, tuned for one image. Raises EngineError as `ranges` does."""
        found = self.ranges(name, open_shape)
        return found[0][0], found[0][1], found[-1][2]

    @staticmethod
    def _shape(open_shape: tuple[int | None, ...], images: int, side: int) -> Shape:
        return tuple(
            size if size is not None else (images if place == 0 else side) for place, size in enumerate(open_shape)
        )

    def __str__(self) -> str:
        batch, frames, side = (_listed(values) for values in (self.batch, self.frames, self.side))
        return f"batch {batch} frames {frames} side {side}"


def _listed(values: tuple[int, ...]) -> str:
    return "/".join(map(str, values))


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
