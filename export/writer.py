"""Writes a bundle whole or not at all: a killed export leaves the old bundle, or none."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.bundle import MANIFEST_NAME, Bundle
from edge.contract import ModelContract
from edge.errors import BundleError
from edge.manifest import DetectionScore, Manifest, Threshold, Variant
from edge.signing import SIGNATURE_NAME, SigningKey

_AT_FDCWD = -100


@dataclass(frozen=True, slots=True)
class Artefact:
    """A model that is ready to go into a bundle: its bytes and what the manifest says of it."""

    name: str
    precision: str
    contract: ModelContract
    data: bytes
    engine: str = "onnx"
    threshold: Threshold | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)
    detection_score: DetectionScore | None = None

    def variant(self) -> Variant:
        """The manifest's entry."""
        return Variant(
            name=self.name,
            role=self.contract.role,
            precision=self.precision,
            engine=self.engine,
            file=f"{self.name}.onnx",
            sha256=hashlib.sha256(self.data).hexdigest(),
            size=len(self.data),
            contract=self.contract,
            threshold=self.threshold,
            measured=dict(self.measured),
            detection_score=self.detection_score,
        )


def require_writable(path: Path) -> None:
    """Raises BundleError where writing a bundle at `path` would destroy something that is none."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise BundleError(f"{path}: there is a file or link; name another folder for the bundle")
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST_NAME).is_file():
        raise BundleError(f"{path}: the folder holds something that is no bundle; name another one")


def write_bundle(
    path: Path,
    artefacts: Sequence[Artefact],
    provenance: Mapping[str, Any],
    extras: Mapping[str, bytes] | None = None,
    key: SigningKey | None = None,
) -> Bundle:
    """Writes models, manifest and `extras` (file name → bytes) beside `path`, checks them, and moves them into place.

    key: signs the manifest.

    Raises BundleError where `path` is something else, or cannot be written.
    """
    require_writable(path)
    manifest = Manifest(tuple(artefact.variant() for artefact in artefacts), dict(provenance))
    parent = path.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=parent))
    except OSError as error:
        raise BundleError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        for artefact in artefacts:
            write_through(work / f"{artefact.name}.onnx", artefact.data)
        for name, data in (extras or {}).items():
            write_through(work / name, data)
        text = json.dumps(manifest.to_dict(), indent=2, allow_nan=False)
        data = (text + "\n").encode()
        write_through(work / MANIFEST_NAME, data)
        if key is not None:
            write_through(work / SIGNATURE_NAME, key.sign(data).to_bytes())
        work.chmod(0o755)
        written = Bundle.open(work)
        for variant in written.manifest.variants:
            written.load(variant)
        _move(work, path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Bundle.open(path)


def write_through(file: Path, data: bytes) -> None:
    """Writes a file and waits until it is on the disk, so that a rename never names half of one. Raises OSError."""
    with file.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _move(work: Path, path: Path) -> None:
    """Puts `work` where `path` is, in one step where the system can: the old bundle is then where `work` was."""
    if not path.exists():
        work.rename(path)
    elif not _exchange(work, path):
        _step_aside(work, path)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two directories in one step (renameat2, Linux 3.15); False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one.absolute()), _AT_FDCWD, os.fsencode(other.absolute()), 2) == 0)


def _step_aside(work: Path, path: Path) -> None:
    """In two steps: the old bundle steps aside first, and comes back should the second step fail."""
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.absolute().parent))
    path.rename(aside / "bundle")
    try:
        work.rename(path)
    except OSError:
        (aside / "bundle").rename(path)
        raise
    finally:
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
