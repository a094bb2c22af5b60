"""What a peer is: another way to find and embed faces, measured beside a bundle's on the same frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from edge.contract import ModelContract
from edge.errors import EngineError, InputError
from edge.types import Face, Floats, Image
from edge.weights.digests import digest_of
from edge.weights.registry import read_registry

Stage = Literal["detect", "embed"]


class PeerMissingError(EngineError):
    """A peer that cannot be measured here; the message says how to install it, or which model file to bring."""


class Peer(Protocol):
    """An opened peer. It runs on one thread of the CPU, as the bundle's variants do.

    stages: what it can do; a peer without "detect" is given the faces of the bundle's detector, one without "embed" is
    measured as a detector alone. working_score: the score from which it takes a detection for a face.
    """

    name: str
    stages: tuple[Stage, ...]
    working_score: float

    def detect(self, image: Image, min_score: float | None = None) -> list[Face]:
        """Faces of an image (H, W, 3) uint8 BGR, in its pixels; min_score: instead of the peer's own threshold."""

    def embed(self, image: Image, faces: Sequence[Face]) -> Floats:
        """(N, D) float32 unit rows of the faces of an image, aligned the peer's own way."""

    def describe(self) -> dict[str, Any]:
        """`version`; `runs`, what is measured, in words; `files`, name, SHA-256 and size of each model."""

    def close(self) -> None:
        """Frees what it holds."""


@dataclass(frozen=True, slots=True)
class PeerModels:
    """The folder the user keeps the peers' models in."""

    folder: Path

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder; --peer-models names one with the peers' model files")

    def find(self, peer: str, what: str, *patterns: str) -> Path:
        """The first file that fits one of the patterns, in their order. Raises PeerMissingError naming them."""
        for pattern in patterns:
            if found := sorted(self.folder.glob(pattern)):
                return found[0]
        raise PeerMissingError(f"{peer}: needs {what} in {self.folder} ({' or '.join(patterns)})")

    def embedder(self, peer: str) -> tuple[Path, ModelContract]:
        """An ONNX embedder that takes float32 NCHW, with the contract of the registry or of a .toml file beside it."""
        known = {entry.digest.value: entry.contract for entry in read_registry().values() if entry.role == "embedder"}
        files = sorted({*self.folder.glob("*mobilefacenet*.onnx"), *self.folder.glob("*mbf*.onnx")})
        for file in files:
            if file.with_suffix(".toml").is_file():
                return file, ModelContract.from_toml(file.with_suffix(".toml"))
            if contract := known.get(digest_of(file)):
                return file, contract
        there = (
            f"the contract of {files[0].name} as {files[0].stem}.toml"
            if files
            else "an embedder, *mobilefacenet*.onnx,"
        )
        raise PeerMissingError(f"{peer}: needs {there} in {self.folder}; see docs/weights.md")


def file_entry(path: Path) -> dict[str, Any]:
    """A model file for the report."""
    return {"name": path.name, "sha256": digest_of(path), "bytes": path.stat().st_size}


def require(peer: str, package: str, install: str) -> Any:
    """The imported package. Raises PeerMissingError with the line that installs it."""
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError as error:
        missing = getattr(error, "name", None) or package
        raise PeerMissingError(f"{peer}: {missing} is not installed; install it with: {install}") from error


def unit_rows(vectors: Sequence[Floats]) -> Floats:
    """(N, D) float32 rows of unit length of N vectors (D,), N ≥ 1."""
    rows = [vector / max(float(np.linalg.norm(vector)), 1e-12) for vector in vectors]
    return np.array(rows, np.float32).reshape(len(rows), -1)
