"""What names a picture once the picture is gone: its digest, and a hash that pictures that look alike share.

A bundle's manifest carries them for its calibration pictures, so that nobody measures on what a model was fitted to.
They are of the whole picture, not of the face: no face can be recognised from them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.errors import InputError
from edge.pictures import read_picture
from edge.types import Image

NEAR = 8
"""Bits of 64 that hashes of one picture, encoded again or resized, may differ in."""

NOT_RECORDED = "not recorded"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PHASH = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, order=True)
class PictureSignature:
    """One picture. sha256: of the file's bytes, 64 hex digits; phash: `perceptual_hash`, 16 hex digits."""

    sha256: str
    phash: str

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256) or not _PHASH.fullmatch(self.phash):
            raise ValueError(f"no signature of a picture: {self.sha256[:80]!r}, {self.phash[:80]!r}")

    def near(self, other: PictureSignature) -> bool:
        """Whether both show the same picture, as far as `perceptual_hash` can tell."""
        return hamming(int(self.phash, 16), int(other.phash, 16)) <= NEAR


def perceptual_hash(image: Image) -> int:
    """64-bit pHash of a (H, W, 3) uint8 BGR picture: signs about their median of the 8×8 lowest frequencies.

    Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010; sizes as in ImageHash.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def hamming(first: int, second: int) -> int:
    """Bits in which two hashes differ."""
    return (first ^ second).bit_count()


def sign_picture(path: Path, image: Image | None = None) -> PictureSignature:
    """The signature of a picture file; `image` saves decoding it again. Raises InputError where it is no picture."""
    image = read_picture(path) if image is None else image
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return PictureSignature(hashlib.sha256(data).hexdigest(), f"{perceptual_hash(image):016x}")


def to_entry(signatures: Iterable[PictureSignature]) -> dict[str, Any]:
    """{"files": [sha256, …], "phash": [hash, …]}, sorted by digest, the n-th of each of one picture; JSON-ready.

    Without a signature both are "not recorded": unknown is another thing than none.
    """
    ordered = sorted(set(signatures))
    if not ordered:
        return {"files": NOT_RECORDED, "phash": NOT_RECORDED}
    return {"files": [one.sha256 for one in ordered], "phash": [one.phash for one in ordered]}


def from_entry(entry: Mapping[str, Any]) -> tuple[PictureSignature, ...]:
    """What `to_entry` made; empty where nothing was recorded. Raises ValueError for anything else."""
    files, hashes = entry.get("files", NOT_RECORDED), entry.get("phash", NOT_RECORDED)
    if files == NOT_RECORDED:
        return ()
    if not isinstance(files, Sequence) or not isinstance(hashes, Sequence) or len(files) != len(hashes):
        raise ValueError("digests and hashes of pictures do not belong together")
    return tuple(PictureSignature(str(sha256), str(phash)) for sha256, phash in zip(files, hashes, strict=True))


def calibration_pictures(provenance: Mapping[str, Any]) -> dict[str, tuple[PictureSignature, ...]]:
    """The pictures of a manifest's `provenance.calibration`, by role; a role that recorded none is left out.

    Raises ValueError where an entry is damaged.
    """
    calibration = provenance.get("calibration")
    entries = calibration.items() if isinstance(calibration, Mapping) else ()
    found = {role: from_entry(entry) for role, entry in entries if isinstance(entry, Mapping)}
    return {role: pictures for role, pictures in found.items() if pictures}
