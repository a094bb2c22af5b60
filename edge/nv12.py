"""NV12, as cameras and hardware decoders give frames: half the bytes of BGR, and no conversion before the GPU."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


class Nv12:
    """A frame of even sides: luma, and one chroma pair for each 2×2 pixels, read as ITU-R BT.601 in limited range.

    planes: (3/2·H, W) uint8; H rows of luma, then H/2 rows of U and V in turns.
    """

    __slots__ = ("_bgr", "planes")

    def __init__(self, planes: npt.NDArray[np.uint8]) -> None:
        """Raises ValueError for an array that is no such frame. It is not copied and must not change."""
        if (
            planes.ndim != 2
            or planes.dtype != np.uint8
            or planes.shape[0] % 3
            or planes.shape[1] % 2
            or not planes.size
        ):
            raise ValueError(f"an NV12 frame is (3/2·H, W) uint8 with even sides, not {planes.shape} {planes.dtype}")
        self.planes = planes
        self._bgr: npt.NDArray[np.uint8] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of the image it stands for."""
        rows, width = self.planes.shape
        return rows // 3 * 2, width, 3

    @property
    def bgr(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR; made when first asked for, and kept."""
        if self._bgr is None:
            self._bgr = np.asarray(cv2.cvtColor(self.planes, cv2.COLOR_YUV2BGR_NV12), np.uint8)
        return self._bgr

    def green(self, down: int, across: int) -> npt.NDArray[np.uint8]:
        """(H / down, W / across), sides rounded up: `bgr[::down, ::across, 1]`, without converting the rest."""
        height, width, _ = self.shape
        y, x = np.arange(0, height, down), np.arange(0, width, across)
        chroma = self.planes[height + y // 2].astype(np.int32) - 128
        u, v = chroma[:, x & ~1], chroma[:, x | 1]
        grey = np.maximum(self.planes[y][:, x].astype(np.int32) - 16, 0) * 1220542
        # OpenCV's integers: BT.601's factors times 2²⁰.
        green: npt.NDArray[np.int32] = (grey + (1 << 19) - 852492 * v - 409993 * u) >> 20
        return np.clip(green, 0, 255).astype(np.uint8)
