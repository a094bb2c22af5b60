"""What the landmarker learns from: faces with landmarks that a face mesh placed, each cut out upright."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from edge.align import ARCFACE_112, CROP_SIZE, align, similarity_transform
from edge.errors import InputError
from edge.types import Floats, Image
from training.detector.data import VALIDATION_EVERY, Picture, count_pictures, read_scenes, read_zip, without_faces
from training.detector.labels import Labels, LandmarkTeacher, label_portrait, label_scene

PATCH_SIZE = 208
"""Pixels of a cut-out face's side, at the scale of an aligned crop: with room to shift, turn and scale the view."""

PATCH_TEMPLATE = ARCFACE_112 + (PATCH_SIZE - CROP_SIZE) / 2

MIN_EYES = 12.0
"""Pixels between the eyes from which a face is learned from; the mesh's own error grows below."""

ARCHIVES = ("faces112-celeba.zip", "faces112-celeba10k.zip", "faces112-glint.zip")
"""Aligned crops to learn from. Not Pins: thresholds are fitted on those people."""

CROP_BOX = np.array([8, 4, 104, 110], np.float32)
"""Where a face is in an aligned crop, as a detector would draw it."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A face upright in the middle of image (208, 208, 3) uint8 BGR with its landmarks (5, 2) there, pixels.

    Where the picture ends it is black.
    """

    image: Image
    landmarks: Floats


@dataclass(frozen=True, slots=True)
class Faces:
    """taught: to learn from; held_out: of held-out photos, for choices."""

    taught: list[Patch]
    held_out: list[Patch]


def cut(image: Image, landmarks: Floats) -> Patch:
    """A face of `image` with its landmarks (5, 2), cut out upright. Raises ValueError where they coincide."""
    matrix = similarity_transform(landmarks, PATCH_TEMPLATE)
    patch = align(image, landmarks, PATCH_TEMPLATE, PATCH_SIZE)
    return Patch(patch, (landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32))


def label_aligned(picture: Picture, teacher: LandmarkTeacher) -> Picture:
    """An aligned crop with the landmarks the mesh places in it, seeing it inside a grey frame."""
    mesh = teacher.mesh
    assert mesh is not None
    margin = picture.image.shape[0] // 2
    framed = cv2.copyMakeBorder(
        picture.image, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(110, 110, 110)
    )
    rough = (ARCFACE_112 + margin).astype(np.float32)
    placed = mesh.landmarks(framed, CROP_BOX + margin, rough)
    if placed is None:
        return without_faces(picture.image)
    return Picture(picture.image, CROP_BOX[None].copy(), placed[None] - margin)


def read_faces(data: Path, teacher: LandmarkTeacher, crops_of_each: int, file: Path) -> Faces:
    """Reads and labels `wider/train`, `scenes/celeba.zip` and `train/faces112-*.zip` under `data`.

    crops_of_each: at most about so many crops of each archive, spread over it. file: where labels are kept for the next
    time. Raises InputError where something is missing.
    """
    labels = Labels(file, teacher.digest)
    scenes = read_scenes(data / "wider" / "train")
    taught: list[Patch] = []
    for picture in tqdm([s for i, s in enumerate(scenes) if i % VALIDATION_EVERY], "scenes", leave=False):
        taught += _patches(labels.label("scene", picture, partial(label_scene, picture, teacher)))
    labels.save()
    held_out: list[Patch] = []
    portraits = list(read_zip(data / "scenes" / "celeba.zip"))
    for number, picture in enumerate(tqdm(portraits, "portraits", leave=False)):
        known = labels.label("portrait", picture, partial(label_portrait, picture, teacher))
        if number % VALIDATION_EVERY:
            taught += _patches(known)
        else:
            held_out += _patches(known)
    labels.save()
    for archive in (data / "train" / name for name in ARCHIVES):
        every = max(1, count_pictures(archive) // crops_of_each)
        for picture in tqdm(read_zip(archive, every), archive.stem, leave=False):
            taught += _patches(labels.label("aligned crop", picture, partial(label_aligned, picture, teacher)))
        labels.save()
    if not taught or not held_out:
        raise InputError(f"{data}: no face that the mesh places landmarks in")
    return Faces(taught, held_out)


def _patches(picture: Picture) -> Iterator[Patch]:
    for landmarks in picture.landmarks:
        if np.isfinite(landmarks).all() and np.linalg.norm(landmarks[1] - landmarks[0]) >= MIN_EYES:
            yield cut(picture.image, landmarks)
