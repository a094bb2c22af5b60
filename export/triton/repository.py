"""Writes the repository: a folder a model, a numbered folder a version, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.bundle import Bundle
from edge.engines import open_session
from edge.errors import BundleError, InputError
from edge.manifest import Variant
from export.triton.config import Identity, config_text, require_valid, schema
from export.triton.options import TritonOptions
from export.writer import write_through

CONFIG = "config.pbtxt"
PREFIX = "arcedge_"


@dataclass(frozen=True, slots=True)
class Written:
    """One model of the repository."""

    model: str
    version: int
    variant: str


def write_repository(
    bundle: Bundle,
    folder: Path,
    options: TritonOptions,
    tell: Callable[[str], None] = lambda _: None,
    *,
    embedder: TritonOptions | None = None,
) -> tuple[Written, ...]:
    """Puts detector, landmarker and embedder of a bundle into a Triton model repository, as the next version of each.

    A model that is the newest version already stays it: clients hold a version, and only its configuration is new.

    embedder: options of the embedder, where they are others than the detector's.

    Everything is built and checked before anything is put in its place. Raises BundleError where the bundle lacks a
    variant, InputError where the folder cannot take it, GateError where a configuration does not fit Triton's schema.
    """
    module = schema()
    if module is None:
        tell("config.pbtxt was not validated: pip install 'arcedge[triton]' brings Triton's schema")
    require_repository(folder)
    detector = select_variant(bundle, "detector", options)
    landmarker = bundle.landmarker(detector.precision)
    chosen = [detector, *([landmarker] if landmarker is not None else []), select_variant(bundle, "embedder", options)]
    left = folder / f"{PREFIX}landmarker"
    if landmarker is None and left.exists():
        tell(f"{left}: stays as it is, this bundle has no landmarker; remove it when no client asks for it any more")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=folder))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    try:
        for variant in chosen:
            data, name = bundle.load(variant), model_name(variant)
            identity = Identity(name, _version_of(folder / name, data), variant)
            with open_session(data) as session:
                own = embedder or options if variant.role == "embedder" else options
                text = config_text(identity, session.inputs, session.outputs, own)
            if module is not None:
                require_valid(text, module)
            (work / name).mkdir()
            write_through(work / name / "model.onnx", data)
            write_through(work / name / CONFIG, text.encode())
        return tuple(_install(work / model_name(variant), folder / model_name(variant), variant) for variant in chosen)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def model_name(variant: Variant) -> str:
    """What clients call the model; it does not change with precision."""
    return PREFIX + variant.role


def select_variant(bundle: Bundle, role: str, options: TritonOptions) -> Variant:
    """What is served of a role. Raises BundleError where the bundle has nothing that fits."""
    precision = options.precision
    if precision is None and options.device == "gpu":
        there = [variant.precision for variant in bundle.variants(role) if variant.precision != "int8"]
        if not there:
            raise BundleError(f"{bundle.path}: has INT8 alone for the {role}, which is for CPUs; export FP16 as well")
        precision = there[0]
    return bundle.select(role, precision)


def require_repository(folder: Path) -> None:
    """Raises InputError where `folder` holds something that is no Triton model."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder}: there is a file or link; name another folder for the repository")
    strangers = [path.name for path in folder.iterdir() if not _belongs(path)] if folder.is_dir() else []
    if strangers:
        raise InputError(f"{folder}: holds {strangers[0]}, which is no Triton model; name another folder")


def _belongs(path: Path) -> bool:
    return path.name.startswith(".") or (path / CONFIG).is_file()


def _version_of(model: Path, data: bytes) -> int:
    """The newest version where it is these bytes, else the next one."""
    numbers = [int(path.name) for path in model.iterdir() if path.name.isdecimal()] if model.is_dir() else []
    newest = max(numbers, default=0)
    there = model / str(newest) / "model.onnx"
    return newest if there.is_file() and there.read_bytes() == data else newest + 1


def _install(built: Path, model: Path, variant: Variant) -> Written:
    """Moves one model in: the version's folder in one step, then the configuration that goes with it."""
    model.mkdir(exist_ok=True)
    version = _version_of(model, (built / "model.onnx").read_bytes())
    if not (model / str(version)).exists():
        staged = model / f".{version}.part"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        (built / "model.onnx").replace(staged / "model.onnx")
        staged.rename(model / str(version))
    (built / CONFIG).replace(model / CONFIG)
    return Written(model.name, version, variant.name)
