"""Enrolment: pictures of a person become vectors of the gallery, and what is wrong with them is said."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import cv2
import numpy as np

from edge.analyze import FaceAnalyzer
from edge.detect import same_face
from edge.errors import InputError, SourceError
from edge.gallery import Gallery, Snapshot
from edge.gallery.gallery import checked_name
from edge.likeness import Kinship, kinships
from edge.matching import NOBODY, nearest
from edge.pictures import as_text, decode_picture, find_pictures, is_picture, read_bytes
from edge.quality import BLURRED, SMALL_FACE, Quality, measure
from edge.sources import Source
from edge.types import Face, Floats, Image

RIVAL_AREA = 0.5
"""A second face of at least this share of the main one's area leaves open whom a picture shows."""


UNLIKE_SHARE = 0.75
"""Share of the threshold: a picture less like the person's others is doubted, not every hard one."""


class Problem(Enum):
    """What a notice is about. Pictures with one of the first three are never enrolled, others only not when strict."""

    UNREADABLE = "unreadable"
    NO_FACE = "no face"
    SEVERAL_FACES = "several faces"
    SMALL = "small"
    BLURRED = "blurred"
    UNLIKE_OTHERS = "unlike the others"
    KNOWN_AS_OTHER = "known under another name"


@dataclass(frozen=True, slots=True)
class Notice:
    """One remark on one picture, in words."""

    problem: Problem
    source: str
    text: str


@dataclass(frozen=True, slots=True)
class EnrolmentOptions:
    """strict: leave out every picture that has a notice. keep_crops: store the aligned crops, so that the gallery can
    move to another model. threshold: cosine from which two faces are one person; None leaves the comparisons out.
    """

    strict: bool = False
    keep_crops: bool = False
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """A name and where its pictures are."""

    name: str
    pictures: tuple[Path, ...]


@dataclass(slots=True)
class Report:
    """What became of one person's pictures: how many there were, were fit to be enrolled, and are new; the notices."""

    name: str
    pictures: int = 0
    fit: int = 0
    added: int = 0
    notices: list[Notice] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Shot:
    """A face fit to be enrolled: where from, (112, 112, 3) crop, (D,) vector, quality; SHA-256 of a picture's file."""

    source: str
    crop: Image
    vector: Floats
    quality: Quality
    content: bytes | None = None


def find_people(folder: Path) -> list[Person]:
    """A folder for each person; a picture that lies beside the folders is of the person its name says.

    Raises InputError where there is nobody.
    """
    if folder.is_file():
        raise InputError(f"{folder}: whom does it show? say it with --name, or give a folder of pictures by name")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with a folder for each person")
    people = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            people.append(Person(checked_name(path.name), tuple(find_pictures([path]))))
        elif is_picture(path):
            people.append(Person(checked_name(path.stem), (path,)))
    if not people:
        raise InputError(f"{folder}: nobody to enrol; it needs a folder for each person, or pictures named after them")
    return people


def person_of(name: str, paths: Sequence[Path]) -> Person:
    """Somebody whose pictures are named, or lie in folders that hold nobody else's. Raises InputError."""
    for path in paths:
        if path.is_dir() and any(inside.is_dir() and not inside.name.startswith(".") for inside in path.iterdir()):
            raise InputError(f"{path}: holds folders, as of several people; leave --name out, or give those of {name}")
    return Person(checked_name(name), tuple(find_pictures(paths)))


def enrol(
    analyzer: FaceAnalyzer,
    gallery: Gallery,
    person: Person,
    options: EnrolmentOptions,
    progress: Callable[[], object] = lambda: None,
) -> Report:
    """Adds one person's pictures to the gallery. `progress` is called after each."""
    report = Report(person.name, len(person.pictures))
    return add(gallery, _look_at(analyzer, person, report, progress), options, report)


def reject(
    analyzer: FaceAnalyzer,
    gallery: Gallery,
    person: Person,
    progress: Callable[[], object] = lambda: None,
    *,
    keep_crops: bool = False,
) -> Report:
    """Stores the faces of the pictures as not being this person. `progress` is called after each.

    Raises GalleryError where the person is not in the gallery.
    """
    report = Report(person.name, len(person.pictures))
    shots = _look_at(analyzer, person, report, progress)
    if shots:
        report.added = gallery.reject(
            person.name,
            np.stack([shot.vector for shot in shots]),
            [shot.source for shot in shots],
            [to_png(shot.crop) if keep_crops else None for shot in shots],
            [shot.content for shot in shots],
        )
    return report


def _look_at(analyzer: FaceAnalyzer, person: Person, report: Report, progress: Callable[[], object]) -> list[Shot]:
    """The faces of the person's pictures; what is wrong with the others goes into the report."""
    shots = []
    for path in person.pictures:
        try:
            data = read_bytes(path)
            found = look(analyzer, decode_picture(np.frombuffer(data, np.uint8), path), as_text(path))
            if isinstance(found, Shot):
                found = replace(found, content=hashlib.sha256(data).digest())
        except InputError as error:
            found = Notice(Problem.UNREADABLE, as_text(path), str(error).removeprefix(f"{path}: "))
        if isinstance(found, Shot):
            shots.append(found)
        else:
            report.notices.append(found)
        progress()
    return shots


def look(analyzer: FaceAnalyzer, image: Image, source: str) -> Shot | Notice:
    """The face a picture is about, or why there is none to enrol."""
    face = analyzer.main_face(image)
    if face is None:
        return Notice(Problem.NO_FACE, source, "no face found")
    rivals = [other for other in analyzer.detect(image) if _rivals(other, face)]
    if rivals:
        return Notice(Problem.SEVERAL_FACES, source, f"{len(rivals) + 1} faces of like size; cut out the one meant")
    crops = analyzer.align(image, [face])
    return Shot(source, crops[0], analyzer.embed(crops)[0], measure(face, crops[0]))


def add(gallery: Gallery, shots: Sequence[Shot], options: EnrolmentOptions, report: Report) -> Report:
    """Judges a person's shots against each other and the gallery, and adds those that stay."""
    kept = []
    snapshot = gallery.snapshot()
    known = snapshot.of(report.name)
    vectors = np.array([shot.vector for shot in shots], np.float32).reshape(-1, known.shape[1])
    least = UNLIKE_SHARE * (options.threshold or 0.0)
    for shot, kin in zip(shots, kinships(vectors, known, least), strict=True):
        notices = _judge(shot, kin, snapshot, report.name, options.threshold)
        report.notices += notices
        if not (options.strict and notices):
            kept.append(shot)
    report.fit = len(kept)
    if kept:
        report.added = gallery.add(
            report.name,
            np.stack([shot.vector for shot in kept]),
            [shot.source for shot in kept],
            [to_png(shot.crop) if options.keep_crops else None for shot in kept],
            [shot.content for shot in kept],
        )
    return report


def best_shots(
    analyzer: FaceAnalyzer,
    source: Source,
    count: int,
    seconds: float,
    progress: Callable[[float], object] = lambda done: None,
) -> list[Shot]:
    """Watches a source for a while and gives the best shot of each of `count` equal spans of it.

    Only frames with exactly one face count: nobody else may slip in. `progress` gets the share done, 0 to 1.
    Raises SourceError where no frame shows one face.
    """
    best: dict[int, tuple[Face, Image, Quality, str]] = {}
    started: float | None = None
    for frame in source:
        # A file is read faster than it plays: its own times say how much was seen.
        moment = time.monotonic() if source.live else frame.time
        started = moment if started is None else started
        share = (moment - started) / seconds
        if share >= 1.0:
            break
        progress(share)
        faces = analyzer.detect(frame.image)
        if len(faces) != 1:
            continue
        crop = analyzer.align(frame.image, faces)[0]
        quality = measure(faces[0], crop)
        span = int(share * count)
        if span not in best or quality.rank > best[span][2].rank:
            best[span] = (faces[0], crop, quality, f"{source.name} at {frame.time:.2f} s")
    if not best:
        raise SourceError(f"{source.name}: no frame with exactly one face in {seconds:g} s; stand alone before it")
    crops = np.stack([crop for _, crop, _, _ in best.values()])
    vectors = analyzer.embed(crops)
    return [
        Shot(where, crop, vector, quality)
        for (_, crop, quality, where), vector in zip(best.values(), vectors, strict=True)
    ]


def _judge(shot: Shot, kin: Kinship, snapshot: Snapshot, name: str, threshold: float | None) -> list[Notice]:
    notices = []
    if shot.quality.size < SMALL_FACE:
        notices.append(Notice(Problem.SMALL, shot.source, f"small: the face is {shot.quality.size:.0f} pixels wide"))
    elif shot.quality.sharpness < BLURRED:
        notices.append(
            Notice(Problem.BLURRED, shot.source, f"blurred: sharpness {shot.quality.sharpness:.0f} of {BLURRED:.0f}")
        )
    if threshold is None:
        return notices
    if kin.stray and kin.nearest is not None:
        text = f"unlike the other pictures of {name}: similarity {kin.nearest:.2f} at most; is it somebody else?"
        notices.append(Notice(Problem.UNLIKE_OTHERS, shot.source, text))
    itself = snapshot.place_of(name)
    found = nearest(snapshot, shot.vector[None], NOBODY if itself is None else itself)
    place, score = int(found.places[0]), float(found.similarities[0])
    # Among many pictures of two people some pair is always alike; it counts where the person's own are less so.
    if place != NOBODY and score >= threshold and (kin.nearest is None or score > kin.nearest):
        text = f"known as {snapshot.names[place]} already (similarity {score:.2f}); one person? edge gallery merge"
        notices.append(Notice(Problem.KNOWN_AS_OTHER, shot.source, text))
    return notices


def _rivals(other: Face, main: Face) -> bool:
    """Whether `other` is a second face of like size, not the main one seen again."""
    return not same_face(other, main) and other.width * other.height >= RIVAL_AREA * main.width * main.height


def to_png(crop: Image) -> bytes:
    """A (H, W, 3) crop as it is kept in a gallery."""
    done, data = cv2.imencode(".png", crop)
    assert done, "OpenCV encodes any 8-bit picture as PNG"
    return bytes(data.tobytes())


def pictures_in(people: Iterable[Person]) -> int:
    """How many there are in all."""
    return sum(len(person.pictures) for person in people)
