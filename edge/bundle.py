"""A bundle on disk: a directory of models with a manifest. Digests are checked before a byte is parsed."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from edge.digests import sha256
from edge.errors import BundleError
from edge.manifest import Manifest, Variant
from edge.signing import MAX_SIGNATURE_BYTES, SIGNATURE_NAME, PublicKey, Signature, SigningKey, required_key, verify

MANIFEST_NAME = "bundle.json"
MAX_MANIFEST_BYTES = 64 << 20
"""A hundred thousand calibration pictures, named twice, are 20 MB."""
MAX_MODEL_BYTES = 2 << 30
"""ONNX itself ends at 2 GiB a file."""

_READS_TENSORRT = ("tensorrt", "onnxruntime-tensorrt")
_GPU_ENGINES = (*_READS_TENSORRT, "onnxruntime-cuda")


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: its directory, its validated manifest, and the SHA-256 (hex) of that as it lies on disk."""

    path: Path
    manifest: Manifest
    manifest_sha256: str

    @classmethod
    def open(cls, path: Path, signed_by: PublicKey | None = None) -> Bundle:
        """Reads and validates the manifest; models are read, and their digests checked, by `load`.

        signed_by: the key it must be signed with; None for the one the environment requires, if it does. The signature
        is checked before the manifest is parsed. Raises BundleError where `path` is no bundle, its manifest does not
        fit, or it is not signed as required.
        """
        file = path / MANIFEST_NAME
        if not file.exists() and not file.is_symlink():
            raise BundleError(f"{path}: no bundle here ({MANIFEST_NAME} is missing); make one with: edge export")
        data = _read_inside(file, MAX_MANIFEST_BYTES)
        if (key := signed_by or required_key()) is not None:
            beside = path / SIGNATURE_NAME
            there = beside.exists() or beside.is_symlink()
            verify(data, _read_inside(beside, MAX_SIGNATURE_BYTES) if there else None, key, path)
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{file}: cannot be read ({error}); export it again") from error
        if not isinstance(values, dict):
            raise BundleError(f"{file}: not an arcedge manifest")
        return cls(path, Manifest.from_dict(values), sha256(data).hexdigest())

    def variants(self, role: str) -> tuple[Variant, ...]:
        """The variants of one role, in the manifest's order."""
        return tuple(variant for variant in self.manifest.variants if variant.role == role)

    def select(self, role: str, precision: str | None = None, engine: str = "onnxruntime") -> Variant:
        """The variant of a role at a precision; without one, at the first that the manifest lists for the role.

        engine: who is to run it. Files made for that engine are preferred, files made for another one never given.
        Raises BundleError naming what there is instead.
        """
        every = self.variants(role)
        variants = [variant for variant in every if runs_on(variant.engine, variant.precision, engine)]
        if not every:
            raise BundleError(f"{self.path}: holds no {role}; export it again with one")
        wanted = precision or next((variant.precision for variant in variants), None)
        fitting = [variant for variant in variants if variant.precision == wanted]
        if not fitting:
            there = ", ".join(dict.fromkeys(variant.precision for variant in variants)) or "none"
            what = f"{precision} {role}" if precision else role
            if engine in _READS_TENSORRT:
                what, there = f"{what} for {engine}", f"{there}; export it with --target onnx,tensorrt"
            raise BundleError(f"{self.path}: no {what}; there is {there}")
        # What was made for the engine before what any engine reads.
        return min(fitting, key=lambda variant: variant.engine == "onnx")

    def landmarker(self, precision: str | None, engine: str = "onnxruntime") -> Variant | None:
        """The landmarker that goes with a detector at a precision; None where the bundle has none.

        There is none in INT8: the first that the manifest lists takes its place. Raises BundleError as `select` does.
        """
        there = [variant.precision for variant in self.variants("landmarker")]
        if not there:
            return None
        return self.select("landmarker", precision if precision in there else None, engine)

    def load(self, variant: Variant) -> bytes:
        """The model's bytes, once size and SHA-256 agree with the manifest. Raises BundleError where they do not."""
        file = self.path / variant.file
        if not file.resolve().is_relative_to(self.path.resolve()):
            raise BundleError(f"{file}: is a link or lies outside the bundle; export it again")
        if variant.size > MAX_MODEL_BYTES:
            raise BundleError(f"{file}: larger than a model may be, as the manifest says; export it again")
        data = _read_inside(file, variant.size)
        if len(data) != variant.size:
            raise BundleError(f"{file}: not {variant.size} bytes, as the manifest says; export it again")
        if sha256(data).hexdigest() != variant.sha256:
            raise BundleError(f"{file}: digest differs from the manifest's; it was changed or damaged, export it again")
        return data

    def signature(self) -> Signature | None:
        """The signature beside the manifest, unchecked; None where there is none. Raises BundleError for a bad one."""
        file = self.path / SIGNATURE_NAME
        if not file.exists() and not file.is_symlink():
            return None
        try:
            return Signature.from_bytes(_read_inside(file, MAX_SIGNATURE_BYTES))
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{file}: is no signature ({error}); sign it again: edge bundle sign") from error

    def digest(self) -> str:
        """SHA-256 (hex) of the manifest as it was read, which holds every model's digest: it names the bundle."""
        return self.manifest_sha256


def sign_bundle(bundle: Bundle, key: SigningKey) -> Signature:
    """Puts a signature beside the manifest, in one step. Raises BundleError where it cannot or should not."""
    data = _read_inside(bundle.path / MANIFEST_NAME, MAX_MANIFEST_BYTES)
    if sha256(data).hexdigest() != bundle.manifest_sha256:
        raise BundleError(f"{bundle.path}: its manifest changed while it was read; sign it again")
    signature = key.sign(data)
    part = bundle.path / f".{SIGNATURE_NAME}.part"
    try:
        part.write_bytes(signature.to_bytes())
        part.replace(bundle.path / SIGNATURE_NAME)
    except OSError as error:
        raise BundleError(f"{bundle.path}: cannot be signed ({error.strerror})") from error
    return signature


def _read_inside(file: Path, most: int) -> bytes:
    """The bytes of a plain file that is no link and at most `most` long, through one handle. Raises BundleError."""
    # A pipe put in the place of a file would be waited for without end.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if file.is_symlink():
        raise BundleError(f"{file}: is a link or lies outside the bundle; export it again")
    try:
        with os.fdopen(os.open(file, flags), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise BundleError(f"{file}: is no plain file; export it again")
            data = opened.read(most + 1)
    except OSError as error:
        raise BundleError(f"{file}: cannot be read ({error.strerror}); export it again") from error
    if len(data) > most:
        raise BundleError(f"{file}: larger than {most:,} bytes; export it again")
    return data


def runs_on(family: str, precision: str, engine: str) -> bool:
    """Whether an engine can run a variant of this family: one made for it, or ONNX, whose INT8 is for CPUs alone."""
    if family == "onnx":
        return engine not in _GPU_ENGINES or precision != "int8"
    return family == ("tensorrt" if engine in _READS_TENSORRT else engine)
