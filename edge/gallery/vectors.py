"""The gallery's vectors as one memory-mapped matrix: a copy of what SQLite holds, made again whenever it is stale.

File layout, little-endian: a 64-byte header, (N, D) float32 vectors, (N,) int64 identity ids. The header names gallery,
generation and digest, so that a copy of another gallery, of an older state, or a damaged one is never searched.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.types import Floats

MATRIX_NAME = "vectors.f32"
_MAGIC = b"ARCEDGE1"
_HEADER = struct.Struct("<8sQQQ16s16s")
assert _HEADER.size == 64


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A gallery at one moment, for search.

    names: the I identities that have vectors. vectors: (N, D) float32 unit rows, those of one identity together, in the
    order of `names`. starts: (I,) first row of each identity.
    """

    names: tuple[str, ...]
    vectors: Floats
    starts: npt.NDArray[np.intp]
    generation: int

    def of(self, name: str) -> Floats:
        """(K, D) vectors of one identity; (0, D) for one that has none."""
        if name not in self.names:
            return self.vectors[:0]
        place = self.names.index(name)
        end = self.starts[place + 1] if place + 1 < len(self.starts) else len(self.vectors)
        return self.vectors[self.starts[place] : end]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which state of which gallery a matrix is of: generation, gallery's 16 random bytes, rows and columns."""

    gallery: bytes
    generation: int
    rows: int
    columns: int

    @property
    def payload_bytes(self) -> int:
        """Bytes that follow the header."""
        return self.rows * (self.columns * 4 + 8)


def write_matrix(path: Path, stamp: Stamp, rows: Iterable[tuple[int, bytes]]) -> None:
    """Writes (identity id, vector) rows, in one step: a reader sees the old file or the new. Raises OSError."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    identities = []
    digest = hashlib.sha256()
    try:
        with temporary.open("wb") as file:
            file.write(bytes(_HEADER.size))
            for identity, vector in rows:
                identities.append(identity)
                digest.update(vector)
                file.write(vector)
            tail = np.array(identities, "<i8").tobytes()
            digest.update(tail)
            file.write(tail)
            file.seek(0)
            file.write(
                _HEADER.pack(_MAGIC, stamp.rows, stamp.columns, stamp.generation, stamp.gallery, digest.digest()[:16])
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def map_matrix(path: Path, stamp: Stamp) -> tuple[Floats, npt.NDArray[np.int64]] | None:
    """(vectors, identity ids) of the file, memory-mapped; None where it is missing, stale or damaged."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            size = os.fstat(file.fileno()).st_size
            if len(header) != _HEADER.size or size != _HEADER.size + stamp.payload_bytes:
                return None
            magic, rows, columns, generation, gallery, digest = _HEADER.unpack(header)
            if magic != _MAGIC or stamp != Stamp(gallery, generation, rows, columns):
                return None
            if rows == 0:
                return np.zeros((0, columns), np.float32), np.zeros(0, np.int64)
            payload = np.memmap(file, np.uint8, "r", _HEADER.size)
    except OSError:
        return None
    if hashlib.sha256(payload.data).digest()[:16] != digest:
        return None
    vectors = payload[: rows * columns * 4].view("<f4").reshape(rows, columns)
    return vectors, payload[rows * columns * 4 :].view("<i8")


def overwrite(path: Path) -> None:
    """Removes the matrix; its bytes are zeroed first, so that no vector of a forgotten person stays in a freed block.

    A process that still maps the file then sees zeros, which match nobody. Raises OSError.
    """
    try:
        with path.open("r+b") as file:
            left = os.fstat(file.fileno()).st_size
            while left > 0:
                left -= file.write(bytes(min(left, 1 << 20)))
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        return
    path.unlink(missing_ok=True)
