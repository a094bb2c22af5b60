"""Writes a bundle whole or not at all: a killed export leaves the old bundle, or none."""

from __future__ import annotations

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
from edge.manifest import Manifest, Threshold, Variant


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
        )


def require_writable(path: Path) -> None:
    """Raises BundleError where writing a bundle at `path` would destroy something that is none."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise BundleError(f"{path}: there is a file or link; name another folder for the bundle")
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST_NAME).is_file():
        raise BundleError(f"{path}: the folder holds something that is no bundle; name another one")


def write_bundle(
    path: Path, artefacts: Sequence[Artefact], provenance: Mapping[str, Any], extras: Mapping[str, bytes] | None = None
) -> Bundle:
    """Writes models, manifest and `extras` (file name → bytes) beside `path`, checks them, and moves them into place.

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
            _write(work / f"{artefact.name}.onnx", artefact.data)
        for name, data in (extras or {}).items():
            _write(work / name, data)
        text = json.dumps(manifest.to_dict(), indent=2, allow_nan=False)
        _write(work / MANIFEST_NAME, (text + "\n").encode())
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


def _write(file: Path, data: bytes) -> None:
    with file.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _move(work: Path, path: Path) -> None:
    """Puts `work` where `path` is. An old bundle steps aside first, and comes back should the second step fail."""
    if not path.exists():
        work.rename(path)
        return
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
