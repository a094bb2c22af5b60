"""`bundle.json`, entry by entry. Reading validates; nothing of a bundle is trusted before this and its digests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from edge.contract import ModelContract
from edge.errors import BundleError, ContractError

FORMAT = "arcedge-bundle"
VERSION = 1
PRECISIONS = ("fp32", "fp16", "int8")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Threshold:
    """The cosine similarity from which two faces are one person, fitted at export.

    far: the false accept rate it was fitted at; pairs: impostor pairs it was fitted on (0: carried over, see `source`);
    source: the data it was fitted on, in words.
    """

    similarity: float
    far: float
    pairs: int
    source: str

    def __post_init__(self) -> None:
        numbers = _are_numbers(self.similarity, self.far) and _are_counts(self.pairs)
        if not numbers or not -1.0 <= self.similarity <= 1.0 or not 0.0 < self.far < 1.0:
            raise BundleError(
                f"bundle: threshold {self.similarity} at FAR {self.far} over {self.pairs} pairs is impossible"
            )


@dataclass(frozen=True, slots=True)
class DetectionScore:
    """The score from which a detection of a detector's variant counts as a face, fitted at export.

    score: where the variant finds as many faces as FP32 at `reference`, its working score; the same as `reference`
    where no difference was certain. low, high: 95 % interval of the score at which both find as many, pictures drawn.
    faces: what FP32 finds at `reference` on `pictures` pictures; found: what the variant finds there at that score.
    source: which pictures, in words.
    """

    score: float
    reference: float
    low: float
    high: float
    faces: int
    found: int
    pictures: int
    source: str

    def __post_init__(self) -> None:
        scores = (self.score, self.reference, self.low, self.high)
        numbers = _are_numbers(*scores) and _are_counts(self.faces, self.found, self.pictures)
        if not numbers or not all(0.0 < value <= 1.0 for value in scores) or self.low > self.high:
            raise BundleError(
                f"bundle: detection score {self.score} [{self.low}, {self.high}] for {self.reference} over "
                f"{self.faces} faces is impossible; export it again"
            )


@dataclass(frozen=True, slots=True)
class Variant:
    """One model file of a bundle.

    name: unique, e.g. "embedder-int8"; role and precision as named in the contract and PRECISIONS.
    engine: family the file is made for ("onnx": any engine that reads ONNX).
    file: path inside the bundle, relative, with forward slashes; sha256 (hex) and size (bytes) of it.
    threshold: embedders only; detection_score: detectors only; None where none was fitted.
    measured: figures of the export, JSON-ready, for people and reports.
    """

    name: str
    role: str
    precision: str
    engine: str
    file: str
    sha256: str
    size: int
    contract: ModelContract
    threshold: Threshold | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    detection_score: DetectionScore | None = None

    def __post_init__(self) -> None:
        path = PurePosixPath(self.file)
        if path.is_absolute() or ".." in path.parts or "\\" in self.file or not path.parts:
            raise BundleError(f"bundle: {self.file!r} points outside the bundle; export it again")
        if not _SHA256.fullmatch(self.sha256) or self.size < 1:
            raise BundleError(f"bundle: {self.name} has no valid digest and size; export it again")
        if self.precision not in PRECISIONS:
            raise BundleError(f"bundle: {self.name} has precision {self.precision!r}; known: {', '.join(PRECISIONS)}")
        if self.role != self.contract.role:
            raise BundleError(
                f"bundle: {self.name} is a {self.role}, its contract a {self.contract.role}; export it again"
            )


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole of `bundle.json`. `provenance`: checkpoint and calibration digests, tool versions, command, time.

    `provenance["calibration"][role]`, for "embedder" and "detector", and for "threshold" where it was fitted on photos
    of its own, names every picture seen: `files`, sorted SHA-256 (hex) of the files, and `phash`, in the same order,
    64-bit perceptual hashes (16 hex digits; 8 bits apart or fewer is a near-duplicate). Both are "not recorded" where
    a table of ranges without them took the place of photos. `edge.signatures.calibration_pictures` reads them.
    """

    variants: tuple[Variant, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if not names or len(set(names)) != len(names):
            raise BundleError("bundle: variants are missing or share a name; export it again")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        variants = [_entry(variant) for variant in self.variants]
        return {"format": FORMAT, "version": VERSION, "variants": variants, "provenance": self.provenance}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Manifest:
        """Raises BundleError, in one line, for whatever does not fit."""
        if values.get("format") != FORMAT:
            raise BundleError("bundle: bundle.json is not an arcedge manifest")
        if values.get("version") != VERSION:
            raise BundleError(
                f"bundle: manifest version {values.get('version')!r}, this arcedge reads {VERSION}; export it again"
            )
        try:
            variants = tuple(_variant(entry) for entry in values["variants"])
            return cls(variants, dict(values.get("provenance", {})))
        except (KeyError, TypeError, ValueError, AttributeError, ContractError) as error:
            raise BundleError(f"bundle: bundle.json is damaged ({error}); export it again") from error


def _are_numbers(*values: object) -> bool:
    """JSON's true is none, though Python compares it as 1. NaN is one, and in no range."""
    return all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)


def _are_counts(*values: object) -> bool:
    """Whether each is a whole number from 0 up."""
    return all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in values)


def _entry(variant: Variant) -> dict[str, Any]:
    entry = {**asdict(variant), "contract": variant.contract.to_dict()}
    if variant.detection_score is None:
        del entry["detection_score"]  # so that an arcedge that knows of none opens bundles without one
    return entry


def _variant(entry: Mapping[str, Any]) -> Variant:
    threshold, score = entry.get("threshold"), entry.get("detection_score")
    if threshold is not None:
        threshold = Threshold(**threshold)
    read = {"threshold": threshold, "detection_score": None if score is None else DetectionScore(**score)}
    return Variant(**{**entry, "contract": ModelContract.from_dict(entry["contract"]), **read})
