"""The files of `model_weights/`, which lies beside the packages in a checkout and in an install."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "model_weights"
SUFFIXES = (".safetensors", ".onnx", ".pth", ".pt", ".path")
MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of weights. role: "embedder", "detector", "landmarker", or "" where the file does not say."""

    name: str
    path: Path
    role: str


def list_weights(folder: Path = FOLDER) -> tuple[Weights, ...]:
    """What `model_weights/` holds, by name."""
    if not folder.is_dir():
        return ()
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    return tuple(Weights(path.stem, path, _role(path)) for path in files)


def find_beside(weights: Path, suffix: str) -> Path | None:
    """The file that belongs to `weights`, as `NAME.calibration.json` does to `NAME.safetensors`; None without one."""
    candidate = weights.with_name(weights.stem + suffix)
    return candidate if candidate.is_file() else None


def read_header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file: its JSON header alone, no tensor. Empty for any other file."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if path.suffix != ".safetensors" or not 2 <= size <= MAX_HEADER_BYTES:
                return {}
            header = json.loads(file.read(size))
    except (OSError, ValueError):
        return {}
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


def _role(path: Path) -> str:
    header = read_header(path)
    if "role" in header:
        return header["role"]
    return "embedder" if "embedding_size" in header else ""
