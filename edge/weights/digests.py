"""What identifies a file of weights: SHA-256, or the id git gives a blob."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge.errors import InputError

Algorithm = Literal["sha256", "git-blob-sha1"]
ALGORITHMS: dict[str, int] = {"sha256": 64, "git-blob-sha1": 40}
"""Algorithm → hexadecimal digits."""

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest in lower-case hexadecimal. git-blob-sha1 is what `git hash-object FILE` prints."""

    algorithm: Algorithm
    value: str

    def __post_init__(self) -> None:
        digits = ALGORITHMS.get(self.algorithm)
        if digits is None:
            raise InputError(f"digest: {self.algorithm!r} is not known; use {' or '.join(ALGORITHMS)}")
        if not re.fullmatch(f"[0-9a-f]{{{digits}}}", self.value):
            raise InputError(f"digest: {self.value!r} is no {self.algorithm}, which has {digits} lower-case hex digits")

    def matches(self, path: Path) -> bool:
        """Whether the file has this digest."""
        return digest_of(path, self.algorithm) == self.value

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


def digest_of(path: Path, algorithm: Algorithm = "sha256") -> str:
    """The digest of a file, in hexadecimal, read block by block."""
    if algorithm == "sha256":
        sha = hashlib.sha256()
    else:
        # git's object: the word blob, the length in decimal, a zero byte, then the bytes.
        sha = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()
