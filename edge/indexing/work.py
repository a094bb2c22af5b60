"""The work itself, the same in every engine: pictures in, embeddings or what is wrong with them out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.analyze import AnalyzerOptions, FaceAnalyzer, Preprocess
from edge.bundle import Bundle
from edge.detect import DetectorOptions
from edge.enrolment import Shot, look, to_png
from edge.errors import InputError
from edge.indexing.jobs import Job
from edge.pictures import decode_picture
from edge.types import Floats


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """What a worker opens, on whichever machine: the bundle's path, precision and engines of its models.

    detection_score: from which a detection counts as a face; None for what the detector's variant states.
    """

    bundle: Path
    precision: str | None = None
    engine: str = "onnxruntime"
    keep_crops: bool = False
    detector_engine: str | None = None
    preprocess: Preprocess = "auto"
    detector_precision: str | None = None
    detection_score: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a picture gave: SHA-256 of the file, (D,) unit vector, kept crop; or in `problem` why nothing.

    digest: None where the file could not be read.
    """

    job: Job
    digest: bytes | None = None
    vector: Floats | None = None
    crop: bytes | None = None
    problem: str | None = None


class Worker:
    """A worker's models, opened once. One process or actor has one."""

    def __init__(self, options: WorkOptions) -> None:
        cv2.setNumThreads(1)
        self._options = options
        analyzer = AnalyzerOptions(
            precision=options.precision,
            engine=options.engine,
            detector_engine=options.detector_engine,
            detector_precision=options.detector_precision,
            detector=DetectorOptions(min_score=options.detection_score),
            preprocess=options.preprocess,
        )
        self._analyzer = FaceAnalyzer(Bundle.open(options.bundle), analyzer)

    def __call__(self, jobs: Sequence[Job]) -> list[Result]:
        """A result for each job, in their order; a bad picture is one result, never an error."""
        return [self._embed(job) for job in jobs]

    def _embed(self, job: Job) -> Result:
        try:
            data = job.path.read_bytes()
        except OSError as error:
            return Result(job, problem=f"cannot be read ({error.strerror})")
        digest = hashlib.sha256(data).digest()
        try:
            found = look(self._analyzer, decode_picture(np.frombuffer(data, np.uint8), job.path), str(job.path))
        except InputError as error:
            return Result(job, digest, problem=str(error).removeprefix(f"{job.path}: "))
        if not isinstance(found, Shot):
            return Result(job, digest, problem=found.text)
        crop = to_png(found.crop) if self._options.keep_crops else None
        return Result(job, digest, found.vector, crop)
