"""The search for faces in a frame, on the GPU: letterbox into the detector's input, its heads to faces.

What `Detector` does on the CPU around the model, the kernels of `edge.cuda` do beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge.cuda.graphs import Recorded
from edge.cuda.kernels import CANDIDATES, FIELDS, DetectionMemory, DevicePicture, Kernels
from edge.detect import Detector
from edge.detect.decode import OUTPUTS
from edge.engines.tensorrt.session import Prepared, TensorRtSession
from edge.gpu_buffers import FrameBuffer, Memory, bytes_of
from edge.gpu_proof import require_alike
from edge.gpu_recordings import Recordings
from edge.types import Face, Picture, bgr_of

MOST_SIZES = 4
"""Sizes of frames whose work stays recorded: of as many cameras that share the models."""


class GpuDetector:
    """One detector's searches, one CUDA graph from the second frame of a size on. One thread at a time."""

    def __init__(self, kernels: Kernels, detector: Detector, session: TensorRtSession, frame: FrameBuffer) -> None:
        """detector: the same model's way on the CPU, with the options. frame: where frames lie."""
        self._kernels, self._cpu, self._session, self._frame = kernels, detector, session, frame
        self._device, self._input = session.device, session.inputs[0].name
        self.recordings = Recordings(MOST_SIZES)
        self._pinned = Memory(self._device)
        limit = detector.options.max_faces
        self._memory = DetectionMemory.on(self._device, 1, limit)
        try:
            self._faces = self._pinned.pinned(limit * FIELDS * 4)
            self._kept, self._counts = self._pinned.pinned(4), self._pinned.pinned(4)
        except BaseException:
            self.close()
            raise

    def detect(self, image: Picture) -> list[Face] | None:
        """Faces of a frame that its buffer can hold, best first; None where more cells are above the score than the
        kernels keep. The frame is on the device from then on. Raises EngineError.
        """
        search, stream = self._search_of(image), self._session.stream
        self._frame.put(image, stream)
        search.start()
        stream.synchronize()
        self._frame.settle(stream)
        self._frame.holds = image
        if int(self._counts.array.view(np.int32)[0]) > CANDIDATES:
            return None
        kept = int(self._kept.array.view(np.int32)[0])
        rows = self._faces.array.view(np.float32).reshape(-1, FIELDS)[:kept].copy()
        return [Face(box=row[:4], landmarks=row[4:14].reshape(5, 2), score=float(row[14])) for row in rows]

    def prove(self, kind: str, frame: Picture) -> None:
        """Holds the detector's input of a frame against what the CPU prepares. Raises EngineError where they differ."""
        scaled = self._cpu.scaled_size(*frame.shape[:2])
        size = self._cpu.input_size(*scaled)
        self.detect(frame)
        stream, host = self._session.stream, self._frame.host
        self._device.copy_out(host, self._session.memory_of(self._input), 3 * size[0] * size[1], stream)
        stream.synchronize()
        self._frame.holds = None
        prepared = host.array[: 3 * size[0] * size[1]].reshape(1, *size, 3)
        require_alike(f"letterbox{kind}", prepared, self._cpu.prepare(bgr_of(frame), *scaled))

    def close(self) -> None:
        """Gives everything back; before the session is closed."""
        self.recordings.close()
        self._pinned.free()
        self._memory.free()

    def _search_of(self, image: Picture) -> Recorded:
        """The recorded search of frames like this."""
        picture = self._frame.picture(image)
        scaled = self._cpu.scaled_size(picture.height, picture.width)
        size = self._cpu.input_size(*scaled)
        prepared = self._session.prepare(((1, *size, 3),))

        def make() -> Recorded:
            search = self._search(picture, bytes_of(image).nbytes, scaled, size, prepared)
            return Recorded(self._session.stream, search)

        return self.recordings.find((picture.kind, picture.height, picture.width), [prepared], make)

    def _search(
        self,
        picture: DevicePicture,
        bytes_up: int,
        scaled: tuple[int, int],
        size: tuple[int, int],
        prepared: Prepared,
    ) -> Callable[[], None]:
        """Frame up, letterbox, detector, faces, and these down."""
        session, device, memory, options = self._session, self._device, self._memory, self._cpu.options
        stream = session.stream
        heads = {name: session.memory_of(name).address for name in OUTPUTS}
        back = (picture.width / scaled[1], picture.height / scaled[0])
        there = session.memory_of(self._input).address

        def queue() -> None:
            device.copy_in(self._frame.there, self._frame.host, bytes_up, stream)
            self._kernels.letterbox(picture, there, size, scaled, stream)
            session.enqueue(prepared)
            self._kernels.detect(heads, 1, size, options.score, options.max_iou, back, memory, stream)
            device.copy_out(self._counts, memory.counts, 4, stream)
            device.copy_out(self._kept, memory.kept, 4, stream)
            device.copy_out(self._faces, memory.faces, 4 * FIELDS * memory.limit, stream)

        return queue
