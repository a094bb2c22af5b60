"""A bundle on disk: a directory of models with a manifest. Digests are checked before a byte is parsed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from edge.errors import BundleError
from edge.manifest import Manifest, Variant

MANIFEST_NAME = "bundle.json"
MAX_MANIFEST_BYTES = 64 << 20
"""A hundred thousand calibration pictures, named twice, are 20 MB."""
MAX_MODEL_BYTES = 2 << 30
"""ONNX itself ends at 2 GiB a file."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: its directory and its validated manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Reads and validates the manifest; models are read, and their digests checked, by `load`.

        Raises BundleError where `path` is no bundle or its manifest does not fit.
        """
        file = path / MANIFEST_NAME
        if not file.is_file():
            raise BundleError(f"{path}: no bundle here ({MANIFEST_NAME} is missing); make one with: edge export")
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{file}: too large for a manifest; export it again")
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BundleError(f"{file}: cannot be read ({error}); export it again") from error
        if not isinstance(values, dict):
            raise BundleError(f"{file}: not an arcedge manifest")
        return cls(path, Manifest.from_dict(values))

    def variants(self, role: str) -> tuple[Variant, ...]:
        """The variants of one role, in the manifest's order."""
        return tuple(variant for variant in self.manifest.variants if variant.role == role)

    def select(self, role: str, precision: str | None = None, engine: str = "onnxruntime") -> Variant:
        """The variant of a role at a precision; without one, at the first that the manifest lists for the role.

        engine: who is to run it. Files made for that engine are preferred, files made for another one never given.
        Raises BundleError naming what there is instead.
        """
        every = self.variants(role)
        variants = [variant for variant in every if _runs_on(variant, engine)]
        if not every:
            raise BundleError(f"{self.path}: holds no {role}; export it again with one")
        wanted = precision or next((variant.precision for variant in variants), None)
        fitting = [variant for variant in variants if variant.precision == wanted]
        if not fitting:
            there = ", ".join(dict.fromkeys(variant.precision for variant in variants)) or "none"
            what = f"{precision} {role}" if precision else role
            if engine == "tensorrt":
                what, there = f"{what} for tensorrt", f"{there}; export it with --target onnx,tensorrt"
            raise BundleError(f"{self.path}: no {what}; there is {there}")
        return min(fitting, key=lambda variant: variant.engine != engine)

    def load(self, variant: Variant) -> bytes:
        """The model's bytes, once size and SHA-256 agree with the manifest. Raises BundleError where they do not."""
        file = self.path / variant.file
        inside = self.path.resolve()
        if file.is_symlink() or not file.resolve().is_relative_to(inside):
            raise BundleError(f"{file}: is a link or lies outside the bundle; export it again")
        try:
            if not file.is_file() or file.stat().st_size != variant.size or variant.size > MAX_MODEL_BYTES:
                raise BundleError(f"{file}: missing or not {variant.size} bytes, as the manifest says; export it again")
            data = file.read_bytes()
        except OSError as error:
            raise BundleError(f"{file}: cannot be read ({error.strerror})") from error
        if hashlib.sha256(data).hexdigest() != variant.sha256:
            raise BundleError(f"{file}: digest differs from the manifest's; it was changed or damaged, export it again")
        return data

    def digest(self) -> str:
        """SHA-256 (hex) of the manifest, which holds every model's digest: it names the bundle as a whole."""
        return hashlib.sha256((self.path / MANIFEST_NAME).read_bytes()).hexdigest()


def _runs_on(variant: Variant, engine: str) -> bool:
    """Whether an engine can run a variant: one made for it, or ONNX, whose INT8 TensorRT cannot read."""
    if variant.engine == "onnx":
        return engine != "tensorrt" or variant.precision != "int8"
    return variant.engine == engine
