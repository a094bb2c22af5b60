"""Labels by a teacher: boxes where a picture has none, and landmarks, which no picture has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from edge.boxes import iou
from edge.contract import ModelContract
from edge.detect import Detector, DetectorOptions
from edge.engines import open_session
from edge.types import Floats, Image
from edge.weights.digests import digest_of
from training.detector.data import (
    VALIDATION_EVERY,
    Picture,
    Pools,
    count_pictures,
    mirror,
    read_scenes,
    read_zip,
    unknown_landmarks,
    without_faces,
)
from training.detector.mesh import FaceMesh

MIN_LANDMARK_FACE = 16.0
"""Pixels of a face's longer side, in the view the teacher has of it, below which its landmarks are no label."""

SCENE_ZOOMS = (1.0, 1.6)
CROP_ZOOMS = (0.7, 1.0, 1.4)
"""Enlargements at which the teacher looks at a picture for landmarks, each also mirrored."""

PORTRAIT_FACES = (100.0, 120.0, 140.0, 170.0, 200.0, 240.0)
"""Pixels of the largest face's longer side at which the teacher looks at a photo of one person, each also mirrored. Its
landmarks are the better the larger it sees a face, up to about here: on 699 CelebA photos the mean of these twelve
views is 5.9 % of the eye distance from SCRFD-2.5G's in the median; one view of the photo as it is, 7.3 %. Larger still,
turned upright, twice as many views, or some of them YuNet-s's: 5.6 to 5.9 %, within what 140 photos can tell."""

MIN_MESH_FACE = 24.0
"""Pixels of a face's longer side from which the face mesh places its landmarks. In 60 CelebA photos scaled down to
faces of 24 pixels they are 5.3 % off SCRFD-2.5G's in the photo as it is, of 32: 4.3, of 48 and 96: 3.4; of 16: 7.6
(by a script that is not kept)."""


class LandmarkTeacher:
    """YuNet-n, which finds faces, and where there is one the face mesh, which places their landmarks."""

    def __init__(self, yunet: Path, mesh: Path | None = None) -> None:
        self.detector = open_teacher(yunet)
        self.mesh = FaceMesh(mesh) if mesh else None
        files = [yunet] if mesh is None else [yunet, mesh]
        self.digest = "-".join(digest_of(file)[:16] for file in files)

    @property
    def name(self) -> str:
        """Who places the landmarks, in words for a card."""
        if self.mesh is None:
            return "YuNet-n (Apache-2.0), the mean of many views"
        return "MediaPipe's face mesh (Apache-2.0), the mean of eight views"

    @property
    def places(self) -> bool:
        """Whether a face mesh places the landmarks, so that a few views of YuNet-n are enough."""
        return self.mesh is not None

    def landmarks(self, image: Image, boxes: Floats, zooms: tuple[float, ...]) -> Floats:
        """The faces' landmarks (K, 5, 2): the mesh's, or the mean of YuNet-n's views; NaN where there is no label."""
        marks = mean_landmarks(image, boxes, self.detector, zooms)
        if self.mesh is None:
            return marks
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
        for row in np.flatnonzero((sides >= MIN_MESH_FACE) & np.isfinite(marks).all(axis=(1, 2))):
            placed = self.mesh.landmarks(image, boxes[row], marks[row])
            marks[row] = marks[row] if placed is None else placed
        return marks


def open_teacher(path: Path) -> Detector:
    """A YuNet for labels. Raises InputError or EngineError."""
    contract = ModelContract(role="detector", size=None, layout="nchw", dtype="float32")
    return Detector(open_session(path), contract, DetectorOptions(long_side=960, min_score=0.5, max_iou=0.45))


def label_scene(picture: Picture, teacher: LandmarkTeacher) -> Picture:
    """A picture with true boxes, and the teacher's landmarks for those of its faces that it finds."""
    return Picture(picture.image, picture.boxes, teacher.landmarks(picture.image, picture.boxes, SCENE_ZOOMS))


def label_portrait(picture: Picture, teacher: LandmarkTeacher, zooms: tuple[float, ...] | None = None) -> Picture:
    """A photo with the faces the teacher finds in it.

    Without `zooms` YuNet-n sees the largest as `PORTRAIT_FACES` say, unless a face mesh places the landmarks.
    """
    image = picture.image
    boxes = np.array([face.box for face in teacher.detector.detect(image)], np.float32).reshape(-1, 4)
    if zooms is None:
        largest = float((boxes[:, 2:] - boxes[:, :2]).max(initial=1.0))
        zooms = SCENE_ZOOMS if teacher.places else tuple(face / largest for face in PORTRAIT_FACES)
    return Picture(image, boxes, teacher.landmarks(image, boxes, zooms))


def label_crop(picture: Picture, teacher: LandmarkTeacher) -> Picture:
    """An aligned crop with the best face the teacher finds, seeing it inside a grey frame; small ones do not count."""
    margin = picture.image.shape[0] // 2
    framed = cv2.copyMakeBorder(
        picture.image, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(110, 110, 110)
    )
    found = label_portrait(without_faces(framed), teacher, CROP_ZOOMS)
    large = (found.boxes[:, 2:] - found.boxes[:, :2]).max(axis=1, initial=0) >= 0.4 * picture.image.shape[0]
    best = np.flatnonzero(large)[:1]  # faces come best first
    return Picture(picture.image, found.boxes[best] - margin, found.landmarks[best] - margin)


def mean_landmarks(image: Image, boxes: Floats, teacher: Detector, zooms: tuple[float, ...]) -> Floats:
    """The teacher's landmarks of the faces in `boxes` (K, 4): (K, 5, 2), NaN where fewer than two views find the face.

    YuNet's landmarks scatter by some percent of the eye distance when the picture is enlarged or mirrored. The mean
    over such views is a better label than any one of them.
    """
    if not len(boxes):
        return unknown_landmarks(0)
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
            overlap = iou(boxes, found / zoom)
            best = overlap.argmax(axis=1)
            sure = large & (overlap[np.arange(len(boxes)), best] >= 0.5)
            total[sure] += ((points + 0.5) / zoom - 0.5)[best[sure]]
            views[sure] += 1
    known = views >= 2
    landmarks = unknown_landmarks(len(boxes))
    landmarks[known] = total[known] / views[known, None, None]
    return landmarks


class Labels:
    """Labels made once, kept in a file by the digests of teacher and picture, so that a resumed run starts at once."""

    def __init__(self, path: Path, teacher: str) -> None:
        self._path, self._teacher = path, teacher
        self._known: dict[str, Floats] = {}
        if path.exists():
            with np.load(path) as known:
                self._known = dict(known)

    def label(self, kind: str, picture: Picture, make: Callable[[], Picture]) -> Picture:
        """What `make` gives for a picture, from the file where it is there. `kind` names the way of labelling."""
        digest = hashlib.blake2b(picture.image.tobytes() + picture.boxes.tobytes(), digest_size=12).hexdigest()
        key = f"{self._teacher}-{kind}-{digest}"
        if key not in self._known:
            made = make()
            # A face is a row: its box, then its landmarks.
            self._known[key] = np.concatenate([made.boxes, made.landmarks.reshape(-1, 10)], axis=1)
        rows = self._known[key]
        return Picture(picture.image, rows[:, :4].copy(), rows[:, 4:].reshape(-1, 5, 2).copy())

    def save(self) -> None:
        """Writes the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        written = self._path.with_suffix(".partial.npz")
        np.savez(written, **self._known)  # type: ignore[arg-type]
        written.replace(self._path)


def read_pools(data: Path, teacher: LandmarkTeacher, crops_of_each: int, file: Path) -> Pools:
    """Reads and labels everything under `data`: `wider/train`, `scenes/celeba.zip`, `train/faces112-*.zip`.

    crops_of_each: at most about so many crops of each archive, spread over it. file: where labels are kept for the next
    time. The pictures stay in memory. Raises InputError where something is missing.
    """
    labels = Labels(file, teacher.digest)

    def labelled(kind: str, pictures: Iterable[Picture], make: Callable[[Picture], Picture]) -> list[Picture]:
        return [labels.label(kind, picture, partial(make, picture)) for picture in pictures]

    scenes = read_scenes(data / "wider" / "train")
    taught = [picture for i, picture in enumerate(scenes) if i % VALIDATION_EVERY]
    portraits = read_zip(data / "scenes" / "celeba.zip")
    crops = chain.from_iterable(
        read_zip(archive, max(1, count_pictures(archive) // crops_of_each))
        for archive in sorted((data / "train").glob("faces112-*.zip"))
    )
    views = "portrait" if teacher.places else "portrait at twelve views"
    known = labelled(views, portraits, lambda picture: label_portrait(picture, teacher))
    known = with_faces(known)
    pools = Pools(
        scenes=labelled("scene", taught, lambda picture: label_scene(picture, teacher)),
        portraits=[picture for i, picture in enumerate(known) if i % VALIDATION_EVERY],
        crops=with_faces(labelled("crop", crops, lambda picture: label_crop(picture, teacher))),
        held_out=scenes[::VALIDATION_EVERY],
        held_portraits=known[::VALIDATION_EVERY],
    )
    labels.save()
    return pools


def with_faces(pictures: list[Picture]) -> list[Picture]:
    """Those in which the teacher found somebody."""
    return [picture for picture in pictures if len(picture.boxes)]
