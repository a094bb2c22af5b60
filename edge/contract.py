"""The model contract: everything a caller must know of a model to feed it and to read its output.

It is written at export, travels in the bundle, and is the only place where a model's constants stand.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from edge.digests import sha256
from edge.errors import ContractError, InputError

Role = Literal["embedder", "detector", "landmarker"]
Color = Literal["bgr", "rgb"]
Layout = Literal["nhwc", "nchw"]
Dtype = Literal["uint8", "float32"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "role": ("embedder", "detector", "landmarker"),
    "color": ("bgr", "rgb"),
    "layout": ("nhwc", "nchw"),
    "dtype": ("uint8", "float32"),
}
TEMPLATES = {"embedder": ("arcface-112",), "landmarker": ("arcface-wide-96",)}
"""Landmark templates by role, see `edge.align`."""
LANDMARKER_SIZE = (96, 96)
"""Of its template."""
NO_LANDMARKER = "none"
"""What stands for it where a landmarker may be named."""


@dataclass(frozen=True, slots=True)
class ModelContract:
    """What a model takes and gives.

    role: "embedder", "detector" or "landmarker".
    size: (height, width) of the input in pixels; None where any multiple of `stride` is taken (detectors).
    color, layout, dtype: of the tensor the model takes. The models of a bundle take BGR, NHWC, uint8.
    mean, std: normalisation (x - mean) / std per channel on the 0-255 scale, in the order of `color`. Where `dtype` is
        uint8 it stands inside the graph and is written here for the record; where float32, the caller applies it.
    template: landmark template the faces are aligned to; embedders and landmarkers only.
    embedding_size: length of the embedding; embedders only.
    normalised: whether the embedding comes out at unit length.
    stride: a detector's input height and width are multiples of it.
    """

    role: Role
    size: tuple[int, int] | None
    color: Color = "bgr"
    layout: Layout = "nhwc"
    dtype: Dtype = "uint8"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    template: str | None = None
    embedding_size: int | None = None
    normalised: bool = False
    stride: int = 32

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ContractError(
                    f"contract: {name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}"
                )
        if self.size is not None and (len(self.size) != 2 or not all(_is_whole(side) for side in self.size)):
            raise ContractError(f"contract: size is (height, width) in pixels, not {self.size!r}")
        numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (*self.mean, *self.std))
        if len(self.mean) != 3 or len(self.std) != 3 or not numbers or min(self.std) <= 0:
            raise ContractError("contract: mean and std have three values each, std above 0")
        if not _is_whole(self.stride):
            raise ContractError(f"contract: stride is 1 or more pixels, not {self.stride!r}")
        if self.role == "embedder" and (self.size is None or not self.embedding_size or self.embedding_size < 1):
            raise ContractError("contract: an embedder states size and embedding_size")
        if self.role == "landmarker" and self.size != LANDMARKER_SIZE:
            raise ContractError(f"contract: size is {self.size}; a landmarker takes {LANDMARKER_SIZE}")
        known = TEMPLATES.get(self.role)
        if known is not None and self.template not in known:
            raise ContractError(f"contract: template is {self.template!r}; known: {', '.join(known)}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with lists for tuples."""
        return cast(dict[str, Any], json.loads(json.dumps(asdict(self))))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelContract:
        """Raises ContractError for a missing, unknown or unfit entry."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ContractError(f"contract: unknown entry {unknown[0]!r}; known: {', '.join(sorted(known))}")
        if "role" not in values:
            raise ContractError("contract: role is missing")
        entries: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        entries.setdefault("size", None)
        try:
            return cls(**entries)
        except TypeError as error:
            raise ContractError(f"contract: an entry has the wrong type ({error})") from error

    @classmethod
    def from_toml(cls, path: Path) -> ModelContract:
        """Reads a contract file a user wrote for a third-party model; what is not said is nchw float32 BGR.

        Raises InputError where the file cannot be read, ContractError where it does not make sense.
        """
        if sys.version_info >= (3, 11):
            import tomllib
        else:  # the standard library has no TOML reader before 3.11
            import tomli as tomllib
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); name a contract file") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a TOML file ({error})") from error
        try:
            return cls.from_dict({"layout": "nchw", "dtype": "float32", **values})
        except ContractError as error:
            raise ContractError(f"{path}: {error}") from error

    def digest(self) -> str:
        """SHA-256 (hex) over the canonical JSON: two models with one digest are fed and read alike."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return sha256(text.encode()).hexdigest()


def _is_whole(value: object) -> bool:
    """Whether it is a whole number of 1 or more, whatever a file gave."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
