"""The landmarker's look at each face of a frame that lies on the device: crops, model and points never leave it.

What `edge.detect.landmarker` does on the CPU around the model, two kernels of `edge.cuda` do beside it: `align` cuts
the wider crops into its input, `place` takes what it gave back to the frame's pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from edge.align import ARCFACE_112, WIDE_96, WIDE_96_EYES, WIDE_96_SIZE, align_wide
from edge.contract import ModelContract
from edge.cuda.kernels import LANDMARKERS, DevicePicture, Kernels
from edge.cuda.protocol import DeviceMemory, PinnedMemory, Stream
from edge.detect.landmarker import MAX_MOVE, placed, views_of
from edge.engines import Array, Session
from edge.engines.tensorrt.session import Prepared, TensorRtSession
from edge.errors import EngineError
from edge.gpu_buffers import POINTS
from edge.gpu_proof import REMEDY, require_alike
from edge.types import Face, Floats, Image

NEAR = 0.01
"""Pixels between a landmark that the GPU placed and the CPU's, at most, of one and the same answer of the model."""


def looks_there(contract: ModelContract, session: Session) -> bool:
    """Whether a landmarker can look on the device: TensorRT runs it, for any number of faces, and it takes and gives
    what the kernels do.
    """
    if not isinstance(session, TensorRtSession) or len(session.inputs) != 1 or len(session.outputs) != 1:
        return False
    pixels, offsets = session.inputs[0], session.outputs[0]
    return (
        (contract.color, contract.layout, contract.dtype) == ("bgr", "nhwc", "uint8")
        and (pixels.dtype, pixels.shape) == ("uint8", (None, WIDE_96_SIZE, WIDE_96_SIZE, 3))
        and (offsets.dtype, offsets.shape[1:]) == ("float32", (10,))
    )


class GpuLandmarker:
    """One landmarker's looks. One thread at a time; `close` gives the memory back."""

    def __init__(self, kernels: Kernels, session: TensorRtSession) -> None:
        self._kernels, self._session, self._device = kernels, session, session.device
        self._input, self._output = (session.memory_of(s.name) for s in (*session.inputs, *session.outputs))
        self.most_faces = session.range_of(session.inputs[0])[1][0]
        with ExitStack() as undo:
            self._cut = self._device.event()
            undo.callback(self._cut.close)
            self._seen = self._device.event()
            undo.pop_all()

    def prepare(self, count: int) -> Prepared:
        """The model set up for `count` faces, which a recording of `queue` cannot hold. Raises EngineError."""
        return self._session.prepare(((count, WIDE_96_SIZE, WIDE_96_SIZE, 3),))

    def queue(
        self, picture: DevicePicture, points: DeviceMemory, prepared: Prepared, count: int, stream: Stream
    ) -> None:
        """Queues on `stream` that the landmarks of `count` faces, which the model is prepared for, are placed anew,
        where they are.

        points: (count, 5, 2) float32 pixels of the frame, behind them (count,) int32 that are not 0 where a face's stay
        as they are. The model works on its session's own stream, and each of the two waits for the other on the device.
        Raises EngineError.
        """
        self._kernels.align(picture, points.address, count, self._input.address, stream, LANDMARKERS)
        self._cut.record(stream)
        self._session.stream.wait(self._cut)
        self._session.enqueue(prepared)
        self._seen.record(self._session.stream)
        stream.wait(self._seen)
        self._place(points, count, stream)

    def _place(self, points: DeviceMemory, count: int, stream: Stream) -> None:
        self._kernels.place(self._output.address, points.address + POINTS * count, count, points.address, stream)

    def prove(self, kind: str, picture: DevicePicture, image: Image, stream: Stream) -> None:
        """Holds the kernels against the CPU's code on a frame, (H, W, 3) BGR and on the device.

        On offsets that are made up: of faces that move, that would move too far, and that have been looked at before.
        Raises EngineError where they differ.
        """
        faces, offsets = made_up_faces(min(5, self.most_faces))
        size = 3 * WIDE_96_SIZE * WIDE_96_SIZE
        with ExitStack() as held:
            there = self._device.alloc((POINTS + 4) * len(faces))
            held.callback(there.free)
            host = self._device.alloc_pinned(size)
            held.callback(host.free)
            self._up(points_of(faces), host, there, stream)
            self._kernels.align(picture, there.address, 1, self._input.address, stream, LANDMARKERS)
            self._device.copy_out(host, self._input, size, stream)
            stream.synchronize()
            crop = host.array.reshape(WIDE_96_SIZE, WIDE_96_SIZE, 3)
            require_alike(f"a landmarker's view{kind}", crop, align_wide(image, faces[0].landmarks))
            self._up(offsets.view(np.uint8).reshape(-1), host, self._output, stream)
            self._place(there, len(faces), stream)
            self._device.copy_out(host, there, POINTS * len(faces), stream)
            stream.synchronize()
            found = host.array[: POINTS * len(faces)].view(np.float32).reshape(-1, 5, 2).copy()
        rough = {number: view for number, view in views_of(faces).items() if not faces[number].refined}
        given = (offsets[list(rough)].reshape(-1, 5, 2) + WIDE_96).astype(np.float32)
        wanted = np.stack([face.landmarks for face in placed(faces, rough, given)])
        apart = float(np.abs(found - wanted).max())
        if not apart <= NEAR:
            raise EngineError(f"landmarks{kind} are placed {apart:.2f} pixels from the CPU's on the GPU; {REMEDY}")

    def _up(self, raw: Array, host: PinnedMemory, there: DeviceMemory, stream: Stream) -> None:
        """Brings bytes up, and waits until they are there."""
        host.array[: raw.size] = raw
        self._device.copy_in(there, host, raw.size, stream)
        stream.synchronize()

    def close(self) -> None:
        """Gives everything back; before the session is closed."""
        self._cut.close()
        self._seen.close()


def points_of(faces: Sequence[Face]) -> Array:
    """(44·N,) uint8, as `GpuLandmarker.queue` takes it: landmarks, and behind them which of them stay."""
    points = np.array([face.landmarks for face in faces], np.float32)
    done = np.array([face.refined for face in faces], np.int32)
    return np.concatenate([points.reshape(-1).view(np.uint8), done.view(np.uint8)])


def require_numbers(points: Floats) -> Floats:
    """The landmarks that came down. Raises EngineError where the landmarker gave what is none, as on the CPU."""
    if not np.isfinite(points).all():
        raise EngineError(
            "the landmarker gave something else than finite numbers; the model is damaged or its contract wrong"
        )
    return points


def made_up_faces(count: int) -> tuple[list[Face], Floats]:
    """Faces of `drawn_frame`, and what a landmarker might say of them, (N, 10).

    Of each five one would move too far, and one has been looked at.
    """
    rng = np.random.default_rng(5)
    faces, box = [], np.array([90, 60, 250, 220], np.float32)
    offsets = rng.normal(0, 3, (count, 10)).astype(np.float32)
    for number in range(count):
        turn, scale = 0.3 * (number - 2), 0.7 + 0.3 * number
        matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        points = ((ARCFACE_112 - 55.5) @ matrix.T + (180, 150) + rng.normal(0, 2, (5, 2))).astype(np.float32)
        faces.append(Face(box=box, landmarks=points, score=1.0, refined=number % 5 == 3))
        if number % 5 == 2:
            offsets[number] += np.float32(2 * MAX_MOVE * WIDE_96_EYES)
    return faces, offsets
