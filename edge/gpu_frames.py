"""A frame's way through the GPU: it goes up once, and faces and who they are come down.

What `Detector`, `align` and `Embedder` do on the CPU around the models, the kernels of `edge.cuda` do beside them: the
search for faces (`edge.gpu_detection`), the landmarker's look at each (`edge.gpu_landmarks`), aligned crops into the
embedder's input, its answers to the search of a gallery that lies on the device (`edge.gpu_gallery`). Only for models
that TensorRT runs, and only what is proved at opening: a frame that is drawn must look the same to both.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from edge.align import ARCFACE_112, CROP_SIZE, align, require_apart
from edge.contract import ModelContract
from edge.cuda.graphs import Recorded
from edge.cuda.kernels import DevicePicture, Kernels
from edge.cuda.protocol import CudaDevice
from edge.detect import Detector
from edge.engines import Array, Session
from edge.engines.tensorrt.session import Prepared, TensorRtSession
from edge.errors import EngineError
from edge.gallery import Snapshot
from edge.gpu_buffers import FaceBuffers, FrameBuffer, Memory, bytes_of
from edge.gpu_detection import GpuDetector
from edge.gpu_gallery import GpuGallery, SearchLane
from edge.gpu_landmarks import GpuLandmarker, looks_there, points_of, require_numbers
from edge.gpu_proof import REMEDY, drawn_frame, drawn_nv12, require_alike
from edge.gpu_recordings import Recordings
from edge.quality import sharpness
from edge.recognition import Sought
from edge.types import Face, Floats, Image, Picture, bgr_of

MOST_PIXELS = 3840 * 2160
"""Of a frame: memory for so many is set aside when the models are opened, so that nothing is allocated later."""
MOST_NUMBERS = 16
"""Numbers of faces, with all that their work depends on, whose work stays recorded."""
PLAIN_RUNS = 8
"""Frames with as many faces until their work is recorded. To record it takes as long as several of them, and before
TensorRT 10 the next number of faces drops it.
"""


class GpuFrames:
    """The way of frames through a detector, an embedder and, where TensorRT runs it, a landmarker.

    One thread at a time; `close` gives the memory back.
    """

    def __init__(
        self,
        detector: Detector,
        detection: TensorRtSession,
        embedding: TensorRtSession,
        landmarking: TensorRtSession | None = None,
    ) -> None:
        """detector: the same models' way on the CPU, with the options. Raises EngineError where the two ways differ.

        landmarking: None where faces come with the landmarks they are to be cut by.
        """
        self._cpu, self._detection, self._embedding = detector, detection, embedding
        self._device = detection.device
        self._crop_input, self._answers = embedding.inputs[0].name, embedding.outputs[0].name
        self._gallery: GpuGallery | None = None
        self._lane: SearchLane | None = None
        self._recognitions = Recordings(MOST_NUMBERS)
        self._cut: Image | None = None
        self._looked = False
        self._held = ExitStack()
        with ExitStack() as undo:
            undo.callback(self.close)
            self._device.activate()
            self._kernels = Kernels(self._device)
            self._landmarker = self._looker(landmarking)
            most = min(detector.options.max_faces, embedding.range_of(embedding.inputs[0])[1][0])
            self._most_faces = most if self._landmarker is None else min(most, self._landmarker.most_faces)
            memory = Memory(self._device)
            self._held.callback(memory.free)
            self._frame = FrameBuffer(memory, 3 * MOST_PIXELS)
            self._faces = FaceBuffers(memory, self._most_faces, _row_bytes(embedding), embedding.stream)
            self._detector = GpuDetector(self._kernels, detector, detection, self._frame)
            self._held.callback(self._detector.close)
            self._prove()
            undo.pop_all()

    def detect(self, image: Picture) -> list[Face] | None:
        """Faces of a frame, (H, W, 3) uint8 BGR or NV12, best first; None for a frame the CPU must look at: larger than
        `MOST_PIXELS`, or with more cells above the score than the kernels keep.
        """
        if not self._takes(image):
            return None
        self._device.activate()
        self._cut = None
        return self._detector.detect(image)

    def align(self, image: Picture, faces: Sequence[Face]) -> Image | None:
        """(N, 112, 112, 3) uint8 BGR crops of a frame's faces, which stay in the embedder's input as well; None where
        the CPU must cut them. Raises ValueError where a face's landmarks coincide, EngineError where the landmarker
        gives what is no landmarks.

        A frame that was just searched is on the device already: what is on its way through a pipeline does not change.
        Faces that no landmarker has looked at are looked at first, where it `places_landmarks`.
        """
        count = len(faces)
        if not self._bring(image, faces):
            return None
        looking = self._looking(count)
        self._queue_crops(self._frame.picture(image), count, looking)
        self._faces.crops_down(self._embedding.memory_of(self._crop_input), count)
        if looking:
            self._faces.points_down(count)
        self._wait()
        self._require_numbers(count)
        self._cut = self._faces.crops(count)
        return self._cut

    def search_in(self, gallery: GpuGallery) -> None:
        """`recognise` looks for faces there, until it is closed. In the thread that opened both."""
        self._gallery, self._lane = gallery, gallery.lane(self._embedding.stream, self._most_faces)

    def recognise(self, image: Picture, faces: Sequence[Face], threshold: float | None) -> Answers | None:
        """Crops, embeddings and who is nearest, queued as one; None where the CPU must cut the crops.

        threshold: what decides who faces are, frame by frame; then embeddings come down only where the lists do not
        settle it. None: for a tracker, which gathers embeddings, and how sharp each face is. Crops never come down.
        Raises ValueError and EngineError as `align` does.
        """
        count = len(faces)
        if not self._bring(image, faces):
            return None
        tracked = threshold is None
        prepared = self._embedding.prepare(((count, CROP_SIZE, CROP_SIZE, 3),))
        self._recognition_of(image, count, prepared, tracked).start()
        searched = self._search_down(count)
        if searched is None and not tracked:
            self._vectors_down(prepared)
        self._wait()
        self._require_numbers(count)
        sought = None if searched is None or self._lane is None else Sought(searched, self._lane.shortlist(count))
        if sought is not None and threshold is not None:
            if sought.shortlist.settled(threshold) is not None:
                return Answers(None, [], sought)
            self._vectors_down(prepared)  # of unit length by now
            self._wait()
        return Answers(self._vectors(prepared), self._faces.sharpness(count) if tracked else [], sought)

    def embed(self, crops: Image) -> Array | None:
        """What the embedder says, (N, D), of the very crops that `align` gave last; None for others."""
        if crops is not self._cut:
            self._cut = None  # others go through the same input
            return None
        session = self._embedding
        self._device.activate()
        prepared = session.prepare((crops.shape,))
        session.enqueue(prepared)
        self._vectors_down(prepared)
        self._wait()
        return self._vectors(prepared)

    @property
    def device(self) -> CudaDevice:
        """The GPU."""
        return self._device

    @property
    def places_landmarks(self) -> bool:
        """Whether faces may come as the detector gave them, because the landmarker looks at them here."""
        return self._landmarker is not None

    def describe(self) -> dict[str, str]:
        """How much of the work is recorded, and why other work is not."""
        kinds = self._detector.recordings, self._recognitions
        without = sorted({why for kind in kinds for why in kind.graphless})
        graphs = str(sum(kind.graphs for kind in kinds))
        return {"graphs": graphs, **({"without graph": "; ".join(without)} if without else {})}

    def close(self) -> None:
        """Gives everything back; before the sessions are closed."""
        self._device.activate()
        self._recognitions.close()
        self._held.close()

    def _bring(self, image: Picture, faces: Sequence[Face]) -> bool:
        """Brings a frame and its faces' landmarks to where the work finds them; False where the CPU must do it.

        What the landmarker places does not coincide: MAX_MOVE is too little to bring the template's points together.
        """
        if not 0 < len(faces) <= self._most_faces or not self._takes(image):
            return False
        require_apart(np.array([face.landmarks for face in faces]))  # the kernel would give a black crop
        self._device.activate()
        frame, stream = self._frame, self._embedding.stream
        self._cut = None
        if image is not frame.holds:
            frame.put(image, stream)
            self._device.copy_in(frame.there, frame.host, bytes_of(image).nbytes, stream)
            frame.holds = image
        self._looked = self._landmarker is not None and not all(face.refined for face in faces)
        self._faces.put_points(points_of(faces))
        return True

    def _wait(self) -> None:
        """For everything that is queued behind the embedder."""
        self._embedding.stream.synchronize()
        self._frame.settle(self._embedding.stream)

    def _looking(self, count: int) -> list[Prepared]:
        """The landmarker set up for so many faces; empty where nobody is looked at."""
        return [self._landmarker.prepare(count)] if self._landmarker is not None and self._looked else []

    def _queue_crops(self, picture: DevicePicture, count: int, looking: Sequence[Prepared]) -> None:
        """Queues landmarks on their way up, the landmarker's look where it is set up, and crops into the embedder."""
        stream, points = self._embedding.stream, self._faces.points
        self._faces.points_up(count, marks=bool(looking))
        for prepared in looking:
            assert self._landmarker is not None
            self._landmarker.queue(picture, points, prepared, count, stream)
        crops = self._embedding.memory_of(self._crop_input)
        self._kernels.align(picture, points.address, count, crops.address, stream)

    def _recognition_of(self, image: Picture, count: int, prepared: Prepared, tracked: bool) -> Recorded:
        """The recorded work on so many faces of frames like this, up to the embedder's answers.

        Not the search for them: where the gallery lies and how large it is changes, and nobody can wait for a mark that
        is set in a graph, as who changes the gallery waits.
        """
        picture, looking = self._frame.picture(image), self._looking(count)
        like = picture.kind, picture.height, picture.width, count, bool(looking), tracked

        def queue() -> None:
            self._queue_crops(picture, count, looking)
            if looking:
                self._faces.points_down(count)
            if tracked:
                self._sharpness_down(count)
            self._embedding.enqueue(prepared)
            if tracked:
                self._vectors_down(prepared)

        def make() -> Recorded:
            return Recorded(self._embedding.stream, queue, PLAIN_RUNS)

        return self._recognitions.find(like, [prepared, *looking], make)

    def _points(self, count: int) -> Floats:
        """The landmarks that the crops were cut by, (N, 5, 2)."""
        return self._faces.placed(count).copy()

    def _require_numbers(self, count: int) -> None:
        """Raises EngineError where a landmarker has placed landmarks, and gave none."""
        if self._looked:
            require_numbers(self._faces.placed(count))

    def _search_down(self, count: int) -> Snapshot | None:
        """Queues the search for the embedder's answers, and its way down; gives what is searched, None for nothing."""
        if self._gallery is None or self._lane is None:
            return None
        answers = self._embedding.memory_of(self._answers)
        return self._gallery.queue(self._lane, answers.address, count)

    def _sharpness_down(self, count: int) -> None:
        """Queues how sharp the crops are, and its way down."""
        crops = self._embedding.memory_of(self._crop_input)
        self._kernels.sharpness(crops.address, count, self._faces.sums, self._embedding.stream)
        self._faces.sums_down(count)

    def _vectors_down(self, prepared: Prepared) -> None:
        """Queues the embedder's answers' way down."""
        (shape,) = prepared.outputs
        self._faces.vectors_down(self._embedding.memory_of(self._answers), shape)

    def _vectors(self, prepared: Prepared) -> Array:
        """The answers that came down, (N, D)."""
        (shape,) = prepared.outputs
        return self._faces.vectors(shape)

    def _takes(self, image: Picture) -> bool:
        return bool(image.shape[0] * image.shape[1] <= MOST_PIXELS)

    def _prove(self) -> None:
        """Holds the kernels against the CPU on frames that are drawn. Raises EngineError where they differ."""
        frame = drawn_frame()
        points = (ARCFACE_112 * 1.4 + (90, 60)).astype(np.float32)
        self._prove_with("", frame, points)
        self._prove_with(" of NV12", drawn_nv12(), points)

    def _prove_with(self, kind: str, frame: Picture, points: Floats) -> None:
        self._detector.prove(kind, frame)
        face = Face(box=np.array([90, 60, 250, 220], np.float32), landmarks=points, score=1.0, refined=True)
        crops = self.align(frame, [face])
        assert crops is not None
        require_alike(f"alignment{kind}", crops[0], align(bgr_of(frame), points))
        # The embedder's input still holds this very crop.
        self._sharpness_down(1)
        self._wait()
        (found,), wanted = self._faces.sharpness(1), sharpness(crops[0])
        if not np.isclose(found, wanted, rtol=1e-6):
            raise EngineError(f"sharpness{kind} on the GPU is {found:.3f}, on the CPU {wanted:.3f}; {REMEDY}")
        if self._landmarker is not None:
            self._landmarker.prove(kind, self._frame.picture(frame), bgr_of(frame), self._embedding.stream)

    def _looker(self, session: TensorRtSession | None) -> GpuLandmarker | None:
        if session is None:
            return None
        landmarker = GpuLandmarker(self._kernels, session)
        self._held.callback(landmarker.close)
        return landmarker


@dataclass(frozen=True, slots=True)
class Answers:
    """What `GpuFrames.recognise` brought down of N faces: what the embedder said, (N, D), sharpness, and lists."""

    vectors: Array | None
    sharpness: list[float]
    sought: Sought | None


def open_gpu_frames(detector: Detector, contracts: Sequence[ModelContract], sessions: Sequence[Session]) -> GpuFrames:
    """The way through the GPU of a detector, an embedder and perhaps a landmarker (contracts, sessions in this order).

    A landmarker that cannot look there stays with the CPU, see `GpuFrames.places_landmarks`. Raises EngineError, in one
    line, where the other models cannot take it or the kernels are not there or not right.
    """
    detection, embedding = sessions[:2]
    if not isinstance(detection, TensorRtSession) or not isinstance(embedding, TensorRtSession):
        raise EngineError("frames go through the GPU where TensorRT runs detector and embedder")
    for contract, session in zip(contracts[:2], sessions[:2], strict=True):
        if (contract.color, contract.layout, contract.dtype) != ("bgr", "nhwc", "uint8"):
            raise EngineError(f"frames go through the GPU to models of BGR pixels; this {contract.role} takes others")
        if any(spec.dtype != "float32" for spec in session.outputs):
            raise EngineError(f"frames go through the GPU to models that give float32; this {contract.role} does not")
    landmarking = None
    if len(sessions) > 2 and looks_there(contracts[2], sessions[2]):
        assert isinstance(sessions[2], TensorRtSession)
        landmarking = sessions[2]
    return GpuFrames(detector, detection, embedding, landmarking)


def _row_bytes(session: TensorRtSession) -> int:
    """Of one embedding."""
    (spec,) = session.outputs
    return int(np.prod([size or 1 for size in spec.shape[1:]])) * np.dtype(spec.dtype).itemsize
