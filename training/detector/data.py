"""Pictures and labels the detector learns from: true boxes where there are some, the teacher's answers elsewhere."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.contract import ModelContract
from edge.detect import Detector, DetectorOptions
from edge.engines import open_session
from edge.errors import InputError
from edge.types import Floats, Image

MIN_LANDMARK_FACE = 16.0
"""Pixels of a face's longer side, in the view the teacher has of it, below which its landmarks are no label."""

SCENE_ZOOMS = (1.0, 1.5, 2.0)
PORTRAIT_ZOOMS = (0.6, 0.8, 1.0, 1.3, 1.6)
"""Enlargements at which the teacher looks at a picture for landmarks, each also mirrored."""

MIRRORED = (1, 0, 2, 4, 3)
"""Order of the landmarks in a mirrored picture."""

VALIDATION_EVERY = 10
"""Every tenth picture with true boxes is held out, for choices; training never sees it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image with its faces: boxes (K, 4) x1 y1 x2 y2, landmarks (K, 5, 2), NaN where unknown; pixels, float32."""

    image: Image
    boxes: Floats
    landmarks: Floats


@dataclass(frozen=True, slots=True)
class Pools:
    """What training draws from. scenes: photos with true boxes; portraits: photos the teacher labelled.

    crops: aligned 112×112 face crops; held_out: photos with true boxes for validation.
    """

    scenes: list[Picture]
    portraits: list[Picture]
    crops: list[Picture]
    held_out: list[Picture]


def open_teacher(path: Path) -> Detector:
    """A YuNet for labels. Raises InputError or EngineError."""
    contract = ModelContract(role="detector", size=None, layout="nchw", dtype="float32")
    return Detector(open_session(path), contract, DetectorOptions(long_side=960, min_score=0.5, max_iou=0.45))


def read_labels(path: Path) -> list[tuple[str, Floats]]:
    """Pictures' names and boxes (K, 4) of a file of `# name width height` lines, each followed by `x1 y1 x2 y2` lines.

    Raises InputError where it cannot be read or does not look so.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); it holds the boxes of the pictures beside it"
        ) from error
    found: list[tuple[str, list[list[float]]]] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            found.append((line[1:].strip().rsplit(" ", 2)[0], []))
            continue
        values = line.split()
        if not found or len(values) != 4:
            raise InputError(f"{path}:{number}: neither '# name width height' nor 'x1 y1 x2 y2'")
        found[-1][1].append([float(value) for value in values])
    return [(name, np.array(boxes, np.float32).reshape(-1, 4)) for name, boxes in found]


def read_scenes(folder: Path) -> list[Picture]:
    """The pictures of a folder with `labels.txt`; their landmarks are unknown. Raises InputError."""
    return [
        Picture(_read(folder / name), boxes, _unknown(len(boxes))) for name, boxes in read_labels(folder / "labels.txt")
    ]


def _read(path: Path) -> Image:
    image: Image | None = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path}: not an image that can be read")
    return image


def _unknown(count: int) -> Floats:
    return np.full((count, 5, 2), np.nan, np.float32)


def read_zip(path: Path, every: int = 1) -> Iterator[Image]:
    """The JPEG pictures of a zip archive, or each `every`-th of them, in the archive's order. Raises InputError."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in [name for name in archive.namelist() if name.lower().endswith(".jpg")][::every]:
                image = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
                if image is not None:
                    yield image
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a zip archive that can be read ({error})") from error


def label_scene(picture: Picture, teacher: Detector) -> Picture:
    """A picture with true boxes, and the teacher's landmarks for those of its faces that it finds."""
    return Picture(picture.image, picture.boxes, _landmarks(picture.image, picture.boxes, teacher, SCENE_ZOOMS))


def label_portrait(image: Image, teacher: Detector) -> Picture | None:
    """A photo labelled by the teacher alone; None where it finds nobody."""
    boxes = np.array([face.box for face in teacher.detect(image)], np.float32).reshape(-1, 4)
    return Picture(image, boxes, _landmarks(image, boxes, teacher, PORTRAIT_ZOOMS)) if len(boxes) else None


def label_crop(image: Image, teacher: Detector) -> Picture | None:
    """An aligned crop labelled by the teacher, which sees it inside a grey frame; None where it finds no face there."""
    margin = image.shape[0] // 2
    framed = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(110, 110, 110))
    found = label_portrait(framed, teacher)
    if found is None:
        return None
    best = slice(0, 1)  # faces come best first
    if (found.boxes[0, 2:] - found.boxes[0, :2]).max() < 0.4 * image.shape[0]:
        return None
    return Picture(image, found.boxes[best] - margin, found.landmarks[best] - margin)


def _landmarks(image: Image, boxes: Floats, teacher: Detector, zooms: tuple[float, ...]) -> Floats:
    """The teacher's landmarks of the faces in `boxes` (K, 4): (K, 5, 2), NaN where fewer than two views find the face.

    YuNet's landmarks scatter by some percent of the eye distance when the picture is enlarged or mirrored. The mean
    over such views is a better label than any one of them.
    """
    if not len(boxes):
        return _unknown(0)
    total, views = np.zeros((len(boxes), 5, 2), np.float32), np.zeros(len(boxes), np.float32)
    for zoom in zooms:
        seen = cv2.resize(
            image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR if zoom > 0.7 else cv2.INTER_AREA
        )
        large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) * zoom >= MIN_LANDMARK_FACE
        for mirrored in (False, True):
            faces = teacher.detect(np.ascontiguousarray(seen[:, ::-1]) if mirrored else seen)
            found = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
            points = np.array([face.landmarks for face in faces], np.float32).reshape(-1, 5, 2)
            if not len(found):
                continue
            if mirrored:
                found, points = mirror(found, points, seen.shape[1])
            overlap = iou_matrix(boxes, found / zoom)
            best = overlap.argmax(axis=1)
            sure = large & (overlap[np.arange(len(boxes)), best] >= 0.5)
            total[sure] += ((points + 0.5) / zoom - 0.5)[best[sure]]
            views[sure] += 1
    known = views >= 2
    landmarks = _unknown(len(boxes))
    landmarks[known] = total[known] / views[known, None, None]
    return landmarks


def mirror(boxes: Floats, landmarks: Floats, width: int) -> tuple[Floats, Floats]:
    """Boxes and landmarks of the mirror image of a picture `width` pixels wide; left stays what is seen on the left."""
    flipped = boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32) + np.array([width, 0, width, 0], np.float32)
    points = landmarks[:, MIRRORED] * np.array([-1, 1], np.float32) + np.array([width - 1, 0], np.float32)
    return flipped, points


def iou_matrix(a: Floats, b: Floats) -> Floats:
    """Intersection over union of every box of `a` (K, 4) with every box of `b` (M, 4): (K, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    area_a, area_b = np.prod(a[:, 2:] - a[:, :2], axis=1), np.prod(b[:, 2:] - b[:, :2], axis=1)
    overlap: Floats = shared / np.maximum(area_a[:, None] + area_b[None] - shared, 1e-6)
    return overlap


def read_pools(data: Path, teacher_path: Path, crops_of_each: int) -> Pools:
    """Reads and labels everything under `data`: `wider/train`, `scenes/celeba.zip`, `train/faces112-*.zip`.

    crops_of_each: at most about so many crops of each archive, spread over it. All of it stays in memory.
    Raises InputError where something is missing.
    """
    teacher = open_teacher(teacher_path)
    scenes = read_scenes(data / "wider" / "train")
    held_out = scenes[::VALIDATION_EVERY]
    taught = [label_scene(picture, teacher) for i, picture in enumerate(scenes) if i % VALIDATION_EVERY]
    portraits = [label_portrait(image, teacher) for image in read_zip(data / "scenes" / "celeba.zip")]
    crops: list[Picture | None] = []
    for archive in sorted((data / "train").glob("faces112-*.zip")):
        with zipfile.ZipFile(archive) as listing:
            every = max(1, len(listing.namelist()) // crops_of_each)
        crops += [label_crop(image, teacher) for image in read_zip(archive, every)]
    return Pools(
        scenes=taught,
        portraits=[picture for picture in portraits if picture is not None],
        crops=[picture for picture in crops if picture is not None],
        held_out=held_out,
    )
