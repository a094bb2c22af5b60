"""Memory of a frame and of its faces, on the host and on the device: taken once, when the models are opened."""

from __future__ import annotations

import math
from contextlib import ExitStack

import numpy as np

from edge.align import CROP_SIZE
from edge.cuda.kernels import DevicePicture
from edge.cuda.protocol import CudaDevice, DeviceMemory, PinnedMemory, Stream
from edge.engines import Array
from edge.nv12 import Nv12
from edge.quality import sharpness_of
from edge.types import Floats, Image, Picture

POINTS = 5 * 2 * 4
"""Bytes of a face's landmarks."""


class Memory:
    """What is taken of a device, and given back together by `free`."""

    def __init__(self, device: CudaDevice) -> None:
        self.device = device
        self._held = ExitStack()

    def pinned(self, size: int) -> PinnedMemory:
        """Of the host."""
        memory = self.device.alloc_pinned(size)
        self._held.callback(memory.free)
        return memory

    def pair(self, size: int) -> tuple[PinnedMemory, DeviceMemory]:
        """Of the host and of the device, for the same bytes."""
        there = self.device.alloc(size)
        self._held.callback(there.free)
        return self.pinned(size), there

    def free(self) -> None:
        """Gives everything back; calling it again does nothing."""
        self._held.close()


class FrameBuffer:
    """A frame's memory, where one frame lies at a time, and whoever looks for faces or at them reads it."""

    def __init__(self, memory: Memory, size: int) -> None:
        """size: bytes of the largest frame."""
        self.host, self.there = memory.pair(size)
        self.holds: Picture | None = None
        """The frame that is on the device, or is on its way there on the stream that reads it next."""
        self._reader: Stream | None = None

    def put(self, image: Picture, reader: Stream) -> None:
        """Into pinned memory, from where `reader` takes it; until `settle` there is none on the device to rely on.

        Work that failed halfway may have left a copy on its way, on another stream than this frame's: it is waited for.
        """
        if self._reader is not None:
            self._reader.synchronize()
        self.holds, self._reader = None, reader
        raw = bytes_of(image)
        np.copyto(self.host.array[: raw.nbytes].reshape(raw.shape), raw)

    def settle(self, reader: Stream) -> None:
        """Says that a stream has been waited for."""
        if self._reader is reader:
            self._reader = None

    def picture(self, image: Picture) -> DevicePicture:
        """A frame as kernels take it once it is there."""
        (height, width), there = image.shape[:2], self.there.address
        if isinstance(image, Nv12):
            return DevicePicture(there, width, width, height, there + width * height, width)
        return DevicePicture(there, 3 * width, width, height)


class FaceBuffers:
    """Memory for what goes up and comes down of the faces of a frame, on one stream."""

    def __init__(self, memory: Memory, most: int, row: int, stream: Stream) -> None:
        """most: faces. row: bytes of an embedding."""
        self._device, self._stream = memory.device, stream
        self._points_host, self.points = memory.pair(most * (POINTS + 4))
        self._sums_host, self._sums = memory.pair(most * 2 * 8)
        self._crops_host = memory.pinned(most * 3 * CROP_SIZE * CROP_SIZE)
        self._vectors_host = memory.pinned(most * row)

    def put_points(self, raw: Array) -> None:
        """Landmarks, as `edge.gpu_landmarks.points_of` gives them, into pinned memory."""
        self._points_host.array[: raw.size] = raw

    def points_up(self, count: int, *, marks: bool) -> None:
        """Queues landmarks' way up, and behind them the marks of those that stay."""
        self._device.copy_in(self.points, self._points_host, (POINTS + 4 if marks else POINTS) * count, self._stream)

    def points_down(self, count: int) -> None:
        """Queues the way down of the landmarks as they are there."""
        self._device.copy_out(self._points_host, self.points, POINTS * count, self._stream)

    def placed(self, count: int) -> Floats:
        """(N, 5, 2) float32 landmarks that came down, or else went up; in pinned memory."""
        points: Floats = self._points_host.array[: POINTS * count].view(np.float32).reshape(count, 5, 2)
        return points

    def crops_down(self, crops: DeviceMemory, count: int) -> None:
        """Queues the way down of crops."""
        self._device.copy_out(self._crops_host, crops, count * 3 * CROP_SIZE * CROP_SIZE, self._stream)

    def crops(self, count: int) -> Image:
        """(N, 112, 112, 3) uint8 BGR that came down."""
        size = count * 3 * CROP_SIZE * CROP_SIZE
        return self._crops_host.array[:size].reshape(count, CROP_SIZE, CROP_SIZE, 3).copy()

    @property
    def sums(self) -> int:
        """Address of what sharpness is made of, two int64 a face."""
        return self._sums.address

    def sums_down(self, count: int) -> None:
        """Queues its way down."""
        self._device.copy_out(self._sums_host, self._sums, 16 * count, self._stream)

    def sharpness(self, count: int) -> list[float]:
        """Of the faces whose sums came down."""
        sums = self._sums_host.array[: 16 * count].view(np.int64).reshape(count, 2)
        return [sharpness_of(total, squares) for total, squares in sums.tolist()]

    def vectors_down(self, vectors: DeviceMemory, shape: tuple[int, ...]) -> None:
        """Queues the way down of float32 embeddings of a shape."""
        self._device.copy_out(self._vectors_host, vectors, 4 * math.prod(shape), self._stream)

    def vectors(self, shape: tuple[int, ...]) -> Array:
        """(N, D) float32 that came down."""
        raw = self._vectors_host.array[: 4 * math.prod(shape)]
        answers: Array = raw.view(np.float32).reshape(shape[0], -1).copy()
        return answers


def bytes_of(picture: Picture) -> Image:
    """What goes up of a frame."""
    return picture.planes if isinstance(picture, Nv12) else picture
