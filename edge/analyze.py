"""Detection, alignment and embedding of whole pictures: what enrolment, verification, benchmarks and camera share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from edge.align import CROP_SIZE, align
from edge.bundle import Bundle
from edge.detect import Detector, DetectorOptions, Landmarker, find_main_face
from edge.embed import Embedder
from edge.engines import Session, SessionOptions, open_session
from edge.errors import EdgeError
from edge.manifest import Threshold, Variant
from edge.memory import release_unused
from edge.quality import measure, quality_of
from edge.recognition import Recognised
from edge.selftest import require_faithful
from edge.types import Face, Floats, Image, Picture, bgr_of

if TYPE_CHECKING:
    from edge.gpu_frames import GpuFrames

Preprocess = Literal["auto", "gpu", "cpu"]


@dataclass(frozen=True, slots=True)
class AnalyzerOptions:
    """precision, engine: of the embedder, and of the others unless `detector_precision`, `detector_engine` say else.

    The landmarker goes with the detector. A precision of None stands for the first that the bundle lists. self_test:
    whether a model is opened only where this machine computes it as its export did; see `edge.selftest`. preprocess:
    where frames are scaled, faces decoded and crops cut: "cpu"; "gpu", which needs TensorRT for all models and the CUDA
    kernels; "auto" is the GPU where both are there, and `FaceAnalyzer.describe` says which it was.
    """

    precision: str | None = None
    detector_precision: str | None = None
    engine: str = "onnxruntime"
    detector_engine: str | None = None
    session: SessionOptions = field(default_factory=SessionOptions)
    detector: DetectorOptions = field(default_factory=DetectorOptions)
    self_test: bool = True
    preprocess: Preprocess = "auto"


class Analyzer(Protocol):
    """What a camera needs of a set of models; the methods are those of `FaceAnalyzer`."""

    def detect(self, image: Picture) -> list[Face]:
        """Faces of a frame, best first."""

    def align(self, image: Picture, faces: Sequence[Face]) -> Image:
        """(N, 112, 112, 3) uint8 BGR crops of the faces."""

    def embed(self, crops: Image) -> Floats:
        """(N, 112, 112, 3) uint8 BGR → (N, D) float32 unit rows."""


class Recogniser(Analyzer, Protocol):
    """A set of models that looks for faces in a gallery as well."""

    def recognise(self, image: Picture, faces: Sequence[Face], threshold: float | None) -> Recognised:
        """Aligned, embedded and looked for, N faces, N ≥ 1; see `FaceAnalyzer.recognise`."""


class FaceAnalyzer:
    """A bundle's detector, embedder and, if it has one, landmarker, opened. A context manager; one thread at a time."""

    def __init__(self, bundle: Bundle, options: AnalyzerOptions | None = None) -> None:
        self.options = options or AnalyzerOptions()
        self.embedder_variant = bundle.select("embedder", self.options.precision, self.options.engine)
        self.detector_variant = _detector_variant(bundle, self.options)
        self.landmarker_variant = bundle.landmarker(self.detector_variant.precision, self._finding_engine)
        self._sessions: list[Session] = []
        self._gpu: GpuFrames | None = None
        self._preprocessed: dict[str, str] = {}
        try:
            for variant, engine in (
                (self.detector_variant, self._finding_engine),
                (self.embedder_variant, self.options.engine),
                (self.landmarker_variant, self._finding_engine),
            ):
                if variant is None:
                    continue
                session = replace(self.options.session, contract=variant.contract.digest())
                self._sessions.append(open_session(bundle.load(variant), engine, session))
                if self.options.self_test:
                    require_faithful(self._sessions[-1], variant, engine)
        except EdgeError:
            self.close()
            raise
        release_unused()
        finding = self.options.detector.for_variant(self.detector_variant)
        landmarker = None
        if self.landmarker_variant is not None:
            landmarker = Landmarker(self._sessions[2], self.landmarker_variant.contract)
        self.detector = Detector(self._sessions[0], self.detector_variant.contract, finding, landmarker)
        self.embedder = Embedder(self._sessions[1], self.embedder_variant.contract)
        try:
            self._gpu = self._open_gpu()
        except EdgeError:
            self.close()
            raise

    @property
    def threshold(self) -> Threshold | None:
        """The threshold the bundle states for this embedder, if it was fitted."""
        return self.embedder_variant.threshold

    def detect(self, image: Picture) -> list[Face]:
        """Faces of a frame, best first, with the detector's own landmarks; see `refine`."""
        found = self._gpu.detect(image) if self._gpu is not None else None
        return self.detector.find(bgr_of(image)) if found is None else found

    def refine(self, image: Picture, faces: Sequence[Face]) -> list[Face]:
        """The same faces with their landmarks placed by the landmarker, where the bundle has one.

        `align` does it by itself: a face that is only followed from frame to frame does not need it.
        """
        if self.detector.landmarker is None or all(face.refined for face in faces):
            return list(faces)
        return self.detector.refine(bgr_of(image), faces)

    def main_face(self, image: Image) -> Face | None:
        """The face a photo is about, with the policy for tight crops; None where there is none."""
        return find_main_face(self.detector, image)

    def align(self, image: Picture, faces: Sequence[Face]) -> Image:
        """(N, 112, 112, 3) uint8 BGR crops of the faces."""
        if not faces:
            return np.zeros((0, CROP_SIZE, CROP_SIZE, 3), np.uint8)
        if self._gpu is not None:
            faces = self._before_gpu(image, faces)
            if (crops := self._gpu.align(image, faces)) is not None:
                return crops
        return np.stack([align(bgr_of(image), face.landmarks) for face in self.refine(image, faces)])

    def embed(self, crops: Image) -> Floats:
        """(N, 112, 112, 3) uint8 BGR → (N, D) float32 unit rows."""
        if self._gpu is not None and (answers := self._gpu.embed(crops)) is not None:
            return self.embedder.checked(answers)
        return self.embedder.embed(crops)

    def recognise(self, image: Picture, faces: Sequence[Face], threshold: float | None) -> Recognised:
        """N faces of a frame, N ≥ 1, aligned, embedded, and looked for in the gallery that `gpu_frames` was given.

        threshold: of names that are given frame by frame; None for a tracker, which wants embeddings and qualities:
        by the landmarks the faces came with, as where they are aligned and embedded one step after the other.
        """
        found = None
        if self._gpu is not None:
            found = self._gpu.recognise(image, self._before_gpu(image, faces), threshold)
        if found is not None:
            vectors = None if found.vectors is None else self.embedder.checked(found.vectors)
            sharp = zip(faces, found.sharpness, strict=True) if found.sharpness else ()
            return Recognised(vectors, [quality_of(face, sharpness) for face, sharpness in sharp], found.sought)
        crops = self.align(image, faces)
        seen = zip(faces, crops, strict=True) if threshold is None else ()
        return Recognised(self.embed(crops), [measure(face, crop) for face, crop in seen], None)

    @property
    def gpu_frames(self) -> GpuFrames | None:
        """The way of frames through the GPU; None where they stay on the CPU."""
        return self._gpu

    def describe(self) -> dict[str, str]:
        """Models and engine in use, for logs and reports."""
        return {
            "detector": self.detector_variant.name,
            **({} if self.landmarker_variant is None else {"landmarker": self.landmarker_variant.name}),
            "embedder": self.embedder_variant.name,
            **self._sessions[1].describe(),
            **self._preprocessed,
        }

    @property
    def _finding_engine(self) -> str:
        """Runs detector and landmarker."""
        return self.options.detector_engine or self.options.engine

    def _before_gpu(self, image: Picture, faces: Sequence[Face]) -> Sequence[Face]:
        """The faces as the way through the GPU takes them: rough where it has the landmarker look at them itself."""
        return faces if self._gpu is not None and self._gpu.places_landmarks else self.refine(image, faces)

    def _open_gpu(self) -> GpuFrames | None:
        """The way of frames through the GPU, where it was asked for, or is there. Raises EngineError."""
        both = {self.options.engine, self._finding_engine}
        wanted = self.options.preprocess
        if wanted == "cpu" or (wanted == "auto" and both != {"tensorrt"}):
            return None
        from edge.cuda.kernels import kernels_path

        if wanted == "auto" and not kernels_path().is_file():
            self._preprocessed = {"preprocess": "cpu: the CUDA kernels are not built, see docs/nvidia.md"}
            return None
        from edge.gpu_frames import open_gpu_frames

        variants = self.detector_variant, self.embedder_variant, self.landmarker_variant
        contracts = [variant.contract for variant in variants if variant is not None]
        frames = open_gpu_frames(self.detector, contracts, self._sessions)
        self._preprocessed = {"preprocess": "gpu"}
        return frames

    def close(self) -> None:
        """Closes the sessions."""
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None
        for session in self._sessions:
            session.close()

    def __enter__(self) -> FaceAnalyzer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _detector_variant(bundle: Bundle, options: AnalyzerOptions) -> Variant:
    engine = options.detector_engine or options.engine
    if options.detector_precision is not None:
        return bundle.select("detector", options.detector_precision, engine)
    there = {variant.precision for variant in bundle.variants("detector")}
    return bundle.select("detector", options.precision if options.precision in there else None, engine)
