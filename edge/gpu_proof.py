"""On what kernels are held against the CPU's code when models are opened: drawn frames, and how near is near."""

from __future__ import annotations

import numpy as np

from edge.cuda.kernels import FAT_BINARY
from edge.engines import Array
from edge.errors import EngineError
from edge.nv12 import Nv12
from edge.types import Image

GREY_LEVELS = 1.001
"""Between a pixel of the GPU and the CPU's: OpenCV rounds in fixed point."""

REMEDY = f"build {FAT_BINARY} again, and run with --preprocess cpu meanwhile"


def drawn_frame() -> Image:
    """(360, 480, 3) uint8 BGR: waves and edges, the same everywhere."""
    y, x = np.mgrid[:360, :480].astype(np.float32)
    waves = [128 + 100 * np.sin(x / step + y / (2 * step)) for step in (9.0, 17.0, 31.0)]
    frame = np.stack(waves, axis=-1).astype(np.uint8)
    frame[100:180, 140:260] = (20, 200, 90)
    return frame


def drawn_nv12() -> Nv12:
    """The same, its three channels taken for luma and chroma."""
    frame = drawn_frame()
    return Nv12(np.concatenate([frame[..., 0], frame[::2, ::2, 1:].reshape(frame.shape[0] // 2, -1)]))


def require_alike(what: str, found: Array, wanted: Array) -> None:
    """Raises EngineError where pictures are further apart than GREY_LEVELS."""
    apart = float(np.abs(found.astype(np.int16) - wanted.astype(np.int16)).max())
    if apart > GREY_LEVELS:
        raise EngineError(f"{what} on the GPU is {apart:.0f} grey levels from the CPU's; {REMEDY}")
