"""Calibration photos: a folder of identities, found, aligned by the runtime's own code, and accounted for."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from edge.align import align
from edge.detect import Detector, find_main_face
from edge.errors import GateError, InputError
from edge.pictures import find_pictures, read_picture
from edge.probes import SEED
from edge.probes import synthetic_crops as synthetic_crops
from edge.signatures import PictureSignature, sign_picture
from edge.types import Floats, Image

MOSAIC = (320, 320)
"""(height, width) pixels of the pictures a detector is calibrated on."""


@dataclass(frozen=True, slots=True)
class Faces:
    """Aligned faces of a folder.

    crops: (N, 112, 112, 3) uint8 BGR; identities: the sub-folder each came from; paths: where from. faceless,
    unreadable: pictures left out, and listed for the user. digest: SHA-256 (hex) over names and bytes of all pictures.
    signatures: of every picture that could be read, with a face or without.
    """

    crops: Image
    identities: tuple[str, ...]
    paths: tuple[Path, ...]
    faceless: tuple[Path, ...]
    unreadable: tuple[Path, ...]
    digest: str
    signatures: Mapping[Path, PictureSignature]

    @property
    def with_face(self) -> tuple[PictureSignature, ...]:
        """Signatures of the pictures the crops come from."""
        return tuple(self.signatures[path] for path in self.paths)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) identities as integers."""
        return np.unique(np.array(self.identities), return_inverse=True)[1].astype(np.int64)


def list_photos(folder: Path, only: frozenset[str] | None = None) -> tuple[Path, ...]:
    """The pictures under a folder, sorted; with `only`, those whose path below it is in there.

    Raises InputError where there is no folder, no picture in it, or one of `only` is missing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a folder of photos, or a calibration table")
    photos = tuple(find_pictures([folder]))
    if only is None:
        return photos
    if missing := sorted(only - {path.relative_to(folder).as_posix() for path in photos}):
        raise InputError(f"{folder}: {len(missing)} photos of the split are not here, first {missing[0]}")
    return tuple(path for path in photos if path.relative_to(folder).as_posix() in only)


def read_training_part(file: Path) -> frozenset[str]:
    """Paths of the photos a split learns from: the `train` list of a split, or of the card of a training.

    Calibrating on a test photo would let a test measure what it was fitted to. Raises InputError.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        part = values.get("split", values)["train"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file}: holds no split; name the card.json of edge train, or a split with `train`"
        ) from error
    if not isinstance(part, list) or not part or not all(isinstance(name, str) for name in part):
        raise InputError(f"{file}: its `train` is no list of photos")
    return frozenset(part)


def align_photos(folder: Path, detector: Detector, *, only: frozenset[str] | None = None, quiet: bool = False) -> Faces:
    """Finds and aligns the face of every picture under `folder`, or of those in `only`.

    Raises InputError where the folder is unfit, or no picture in it can be read or shows a face; GateError where most
    faces' landmarks are crossed, as those of a detector with another order are.
    """
    photos = list_photos(folder, only)
    crops, kept, faceless, unreadable = list[Image](), list[Path](), list[Path](), list[Path]()
    digest, upright, signatures = hashlib.sha256(), 0, dict[Path, PictureSignature]()
    for path in tqdm(photos, desc=f"faces of {folder.name}", unit="photo", disable=quiet, leave=False):
        digest.update(path.relative_to(folder).as_posix().encode())
        try:
            image = read_picture(path)
        except InputError:
            unreadable.append(path)
            continue
        signatures[path] = sign_picture(path, image)
        digest.update(bytes.fromhex(signatures[path].sha256))
        face = find_main_face(detector, image)
        if face is None:
            faceless.append(path)
        else:
            crops.append(align(image, face.landmarks))
            kept.append(path)
            upright += _upright(face.landmarks)
    if not crops:
        raise InputError(f"{folder}: {_nothing_found(len(photos), len(unreadable))}")
    if 2 * upright < len(crops):
        raise GateError(
            f"the detector's landmarks are in another order than left eye, right eye, nose, left mouth, right mouth: "
            f"{len(crops) - upright} of {len(crops)} faces have them crossed; nothing was written"
        )
    identities = tuple(path.relative_to(folder).parent.as_posix() for path in kept)
    return Faces(
        np.stack(crops), identities, tuple(kept), tuple(faceless), tuple(unreadable), digest.hexdigest(), signatures
    )


def _nothing_found(count: int, unreadable: int) -> str:
    """Why none of `count` pictures gave a face. One that cannot be read says nothing about faces."""
    if unreadable == count:
        return f"none of {count} pictures can be read; are they whole, and may you read them?"
    rest = f" ({unreadable} more cannot be read)" if unreadable else ""
    return f"no face found in any of {count - unreadable} pictures{rest}; are these photos of faces?"


def _upright(landmarks: Floats) -> bool:
    """Whether left lies left of right and the eyes above the mouth, as in any photo that is not upside down."""
    eyes, mouth = landmarks[:2], landmarks[3:]
    across = eyes[0, 0] < eyes[1, 0] and mouth[0, 0] < mouth[1, 0]
    return bool(across and eyes[:, 1].mean() < mouth[:, 1].mean())


def mosaics(photos: Sequence[Path], count: int) -> list[Image]:
    """`count` pictures of MOSAIC size with one to nine of the photos each, at sizes a camera sees, for a detector.

    Tight crops alone would calibrate a detector on faces that fill the frame, which it hardly ever meets. Raises
    InputError where none of the photos can be read.
    """
    generator = np.random.default_rng(SEED)
    readable = _readable(photos)
    if not readable:
        raise InputError(f"{photos[0].parent}: {_nothing_found(len(photos), len(photos))}")
    height, width = MOSAIC
    pictures = []
    for index in range(count):
        across = 1 + index % 3
        canvas = np.full((height, width, 3), generator.integers(0, 256, 3), np.uint8)
        cell_height, cell_width = height // across, width // across
        for row in range(across):
            for column in range(across):
                photo = readable[int(generator.integers(len(readable)))]
                room = generator.uniform(0.5, 1.0) * min(cell_height / photo.shape[0], cell_width / photo.shape[1])
                size = (max(1, int(photo.shape[1] * room)), max(1, int(photo.shape[0] * room)))
                small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if room < 1 else cv2.INTER_LINEAR)
                y = row * cell_height + int(generator.integers(0, cell_height - size[1] + 1))
                x = column * cell_width + int(generator.integers(0, cell_width - size[0] + 1))
                canvas[y : y + size[1], x : x + size[0]] = small
        pictures.append(canvas)
    return pictures


def _readable(photos: Sequence[Path]) -> list[Image]:
    found = []
    for path in photos:
        with contextlib.suppress(InputError):
            found.append(read_picture(path))
    return found
