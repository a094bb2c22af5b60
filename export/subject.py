"""A model whose INT8 is looked into: how it is built with some layers in float, and how it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.errors import InputError
from edge.types import Image
from export.agreement import compare_detections, compare_embeddings, detect_with, embed_with
from export.calibration.calibrate import split_held_out
from export.calibration.table import CalibrationTable
from export.gate import tar_drop
from export.labelled import LabelledFaces
from export.passes.shift_biases import shift_biases
from export.photos import Photos
from export.request import ExportRequest
from export.sensitivity import Judge, Scores
from export.sources import Source
from export.thresholds import DEFAULT_FAR
from export.variants import equalised_source, int8_model

DETECTOR_SIZE = (480, 640)
"""(height, width) of the picture a detector's time is measured on."""

MOST_FACES = 1000
"""Faces of known people that each of a hundred models embeds."""


@dataclass(frozen=True, slots=True)
class Subject:
    """source: with the float model that the table's ranges are of (equalised, where the table says so).

    judge: on pictures no range was taken from. figure: what it gives first, in words; on: which pictures, in words.
    pixels: (1, H, W, 3) uint8, a picture to measure time on. note: what is to be said of the faces it judges TAR on.
    """

    source: Source
    table: CalibrationTable
    judge: Judge
    figure: str
    on: str
    pixels: Image
    note: str = ""

    @property
    def role(self) -> str:
        """embedder or detector."""
        return self.source.contract.role

    def build(self, keep: frozenset[str]) -> bytes:
        """The bytes of the INT8 model as it is exported, with the layers of `keep` in float."""
        corrected = shift_biases(self.source.float_model, self.table.shifts, keep)
        return bytes(int8_model(corrected, self.table.tensors, "int8-cpu", keep).SerializeToString())

    def float_bytes(self) -> bytes:
        """The bytes of the FP32 model."""
        return bytes(self.source.float_model.SerializeToString())


def subject_of(source: Source, table: CalibrationTable, request: ExportRequest, photos: Photos) -> Subject:
    """A model judged on photos no range was taken from. Raises InputError where the request names no photos.

    Those are the calibration's that were held out; where the calibration is a table, the identities of --pairs-from.
    TAR is judged on the pairs of --evaluate, else on --pairs-from, else on the held-out photos.
    """
    held = request.calibration is not None and request.calibration.is_dir()
    folder = request.calibration if held else request.pairs_from
    if folder is None:
        raise InputError("--report judges INT8 on photos: name a folder with --calibration, or --pairs-from")
    if source.contract.role == "embedder":
        faces = photos.faces(folder)
        rows = split_held_out(len(faces.crops))[1] if held else np.arange(len(faces.crops))
        on = f"{len(rows)} held-out calibration crops" if held else f"{len(rows)} crops of {folder.name}"
        own = LabelledFaces(faces.crops[rows], faces.labels[rows], on)
        far = request.far or DEFAULT_FAR
        return embedder_subject(source, table, own.crops, on, _known(request, photos, own), far)
    pictures = photos.pictures(folder)
    rows = split_held_out(len(pictures))[1] if held else np.arange(len(pictures))
    on = f"{len(rows)} pictures made of {'held-out ' if held else ''}photos"
    return detector_subject(source, table, [pictures[i] for i in rows], on)


def _known(request: ExportRequest, photos: Photos, own: LabelledFaces) -> LabelledFaces:
    """The faces of known people that TAR is measured on, as many as can be embedded twice a layer."""
    if request.evaluate is not None and request.images is not None:
        pairs = photos.pairs(request.evaluate, request.images)
        every = LabelledFaces(
            pairs.crops, pairs.identities, f"{len(pairs.crops):,} pictures of {request.evaluate.name}"
        )
        return every.at_most(MOST_FACES)
    if request.pairs_from is not None:
        faces = photos.faces(request.pairs_from)
        every = LabelledFaces(faces.crops, faces.labels, f"{len(faces.crops):,} crops of {request.pairs_from.name}")
        return every.at_most(MOST_FACES)
    return own


def embedder_subject(
    source: Source, table: CalibrationTable, crops: Image, on: str, labelled: LabelledFaces | None, far: float
) -> Subject:
    """crops: (N, H, W, 3) uint8 BGR no range was taken from. labelled: faces of known people, for TAR at `far`.

    Where the labelled faces are too few for `far`, TAR is measured at the lowest FAR that they can show.
    """
    moved = equalised_source(source, table)
    model = moved.float_model.SerializeToString()
    reference = embed_with(model, source.contract, crops)
    if labelled is not None and not labelled.comparable:
        labelled = None
    wanted, note = None, ""
    if labelled is not None:
        doubt = labelled.doubt(far)
        note = f"TAR is measured on {labelled.on}" + (f"; {doubt}" if doubt else "")
        far = labelled.readable_far(far)
        wanted = reference if labelled.crops is crops else embed_with(model, source.contract, labelled.crops)

    def judge(data: bytes) -> Scores:
        rows = embed_with(data, source.contract, crops)
        figure = compare_embeddings(rows, reference, "").mean_cosine
        if labelled is None or wanted is None:
            return Scores(figure)
        faces = rows if labelled.crops is crops else embed_with(data, source.contract, labelled.crops)
        return Scores(figure, tar_drop(wanted, faces, labelled.labels, far))

    return Subject(moved, table, judge, "mean cosine", on, np.ascontiguousarray(crops[:1]), note)


def detector_subject(source: Source, table: CalibrationTable, pictures: Sequence[Image], on: str) -> Subject:
    """pictures: (H, W, 3) uint8 BGR no range was taken from, sides multiples of the stride."""
    moved = equalised_source(source, table)
    reference = detect_with(moved.float_model.SerializeToString(), source.contract, pictures)

    def judge(data: bytes) -> Scores:
        return Scores(compare_detections(detect_with(data, source.contract, pictures), reference).figure)

    height, width = DETECTOR_SIZE
    tiles = np.tile(pictures[0], (-(-height // pictures[0].shape[0]), -(-width // pictures[0].shape[1]), 1))
    return Subject(moved, table, judge, "agreement", on, np.ascontiguousarray(tiles[None, :height, :width]))
