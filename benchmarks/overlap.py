"""Evaluation pictures that the models have seen make a figure a lie: found by digest and by look, and refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.subjects import name_of
from edge.bundle import Bundle
from edge.errors import BundleError, InputError
from edge.pictures import find_pictures, read_picture
from edge.signatures import NEAR, PictureSignature, calibration_pictures, perceptual_hash, sign_picture

NAMED = 10
"""Pictures an error names before it only counts."""

SURE = 4
"""Bits within which two hashes are one picture, however many are compared."""

MANY = 2_000_000
"""Comparisons beyond which faces that only look alike come within `NEAR` bits: 30 of 7.26 million pairs of LFW do."""

_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture the models were made with, and where: words for a message."""

    signature: PictureSignature
    where: str


@dataclass(frozen=True, slots=True)
class Shared:
    """An evaluation picture that was seen. bits: of 64 that differ; None where the bytes are the same."""

    name: str
    where: str
    bits: int | None

    def __str__(self) -> str:
        how = "the same file" if self.bits is None else f"looks the same, {self.bits} of 64 bits apart"
        return f"{self.name} ({how}, in {self.where})"


def check_overlap(
    bundles: Sequence[Bundle], digests: Mapping[str, str], paths: Mapping[str, Path], not_in: Sequence[Path]
) -> dict[str, Any]:
    """Compares evaluation pictures with those the bundles were calibrated on and those of the folders `not_in`.

    digests, paths: of the evaluation pictures, by name. Raises InputError, naming the pictures, where one of them was
    seen: the same bytes, or a perceptual hash at most `NEAR` bits away, `SURE` where there are more than `MANY`
    comparisons. Those between are counted in the statement.
    """
    if not digests:
        return {"checked": False, "compared": 0, "statement": None}
    seen = [*_calibration(bundles), *_folders(not_in)]
    if not seen:
        return {
            "checked": False,
            "compared": 0,
            "statement": "Overlap of the evaluation pictures with training and calibration was not checked: the "
            "manifest lists no picture digests. Name those folders with --not-in.",
        }
    alike = find_shared(seen, digests, paths)
    limit = NEAR if len(seen) * len(digests) <= MANY else SURE
    if shared := [one for one in alike if one.bits is None or one.bits <= limit]:
        named = "; ".join(str(one) for one in shared[:NAMED])
        more = f"; and {len(shared) - NAMED:,} more" if len(shared) > NAMED else ""
        raise InputError(
            f"{len(shared):,} of {len(digests):,} evaluation pictures were seen in calibration or training: "
            f"{named}{more}. Accuracy on them would be a lie: evaluate on pictures the models have not seen"
        )
    sources = ", ".join(dict.fromkeys(one.where for one in seen))
    return {
        "checked": True,
        "compared": len(seen),
        "statement": f"None of {len(digests):,} evaluation pictures is byte for byte, or within {limit} of 64 bits "
        f"of its perceptual hash, among the {len(seen):,} pictures of {sources}."
        + (f" {len(alike)} within {NEAR} bits were kept: so many comparisons bring some by chance." if alike else ""),
    }


def find_shared(seen: Sequence[Seen], digests: Mapping[str, str], paths: Mapping[str, Path]) -> list[Shared]:
    """The evaluation pictures that are among `seen`, in the order of their names."""
    by_digest = {one.signature.sha256: one.where for one in seen}
    found = {name: Shared(name, by_digest[digest], None) for name, digest in digests.items() if digest in by_digest}
    others = [name for name in digests if name not in found]
    theirs = _signs([int(one.signature.phash, 16) for one in seen])
    for start in range(0, len(others), _BLOCK):
        names = others[start : start + _BLOCK]
        ours = _signs([perceptual_hash(read_picture(paths[name])) for name in names])
        apart = (64 - ours @ theirs.T) / 2
        nearest = apart.argmin(axis=1)
        for row, name in enumerate(names):
            bits = int(apart[row, nearest[row]])
            if bits <= NEAR:
                found[name] = Shared(name, seen[nearest[row]].where, bits)
    return [found[name] for name in sorted(found)]


def _signs(hashes: Sequence[int]) -> npt.NDArray[np.float32]:
    """(N, 64) of −1 and 1: the product of two rows is 64 less twice the bits they differ in."""
    packed = np.array(hashes, np.uint64).astype(">u8").view(np.uint8).reshape(len(hashes), 8)
    signs: npt.NDArray[np.float32] = np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
    return signs


def _calibration(bundles: Sequence[Bundle]) -> Iterator[Seen]:
    for bundle in bundles:
        try:
            roles = calibration_pictures(bundle.manifest.provenance)
        except ValueError as error:
            raise BundleError(f"{bundle.path}: its list of calibration pictures is damaged ({error})") from error
        for role, signatures in roles.items():
            where = f"the {role} calibration of {name_of(bundle.path)}"
            yield from (Seen(signature, where) for signature in signatures)


def _folders(folders: Sequence[Path]) -> Iterator[Seen]:
    for folder in folders:
        for path in find_pictures([folder]):
            yield Seen(sign_picture(path), str(folder))
