"""The gallery's vectors as one memory-mapped matrix: a copy of what the store holds, made again whenever it is stale.

File layout, little-endian: an 80-byte header, (N, D) float32 vectors, (N,) int64 identity numbers. The header names
gallery, revision, last embedding and digest, so that a copy of another gallery, one that lacks a change, or a damaged
one is never searched. Embeddings with greater numbers than the last have come since; they are added in memory.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from edge.gallery.files import replacing
from edge.gallery.store import VectorRow
from edge.types import Floats

MATRIX_NAME = "vectors.f32"
_MAGIC = b"ARCEDGE2"
_HEADER = struct.Struct("<8sQQQQ16s16s8x")
assert _HEADER.size == 80


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which gallery a matrix is of, after which change other than additions, and the vectors' length."""

    gallery: bytes
    revision: int
    columns: int


@dataclass(frozen=True, slots=True)
class Head:
    """What a file says of itself: of which gallery and revision it is, rows, last embedding, digest of its content."""

    stamp: Stamp
    rows: int
    last: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Matrix:
    """(N, D) float32 unit rows, (N,) int64 identity numbers in groups, the greatest embedding number among them.

    digest: 16 bytes that name this content; copies made of it carry them.
    """

    vectors: Floats
    owners: npt.NDArray[np.int64]
    last: int
    digest: bytes = b""


def read_rows(rows: Iterable[VectorRow], columns: int) -> Matrix:
    """The matrix in memory, where none may or can stand on disk."""
    table = list(rows)
    joined = b"".join(row.vector for row in table)
    return Matrix(
        np.frombuffer(joined, "<f4").reshape(len(table), columns),
        np.array([row.identity for row in table], np.int64),
        max((row.number for row in table), default=0),
    )


def write_matrix(path: Path, stamp: Stamp, rows: Iterable[VectorRow]) -> None:
    """Writes rows, in one step: a reader sees the old file or the new. Raises OSError."""
    identities = []
    last = 0
    digest = hashlib.sha256()
    with replacing(path) as file:
        file.write(bytes(_HEADER.size))
        for row in rows:
            identities.append(row.identity)
            last = max(last, row.number)
            digest.update(row.vector)
            file.write(row.vector)
        tail = np.array(identities, "<i8").tobytes()
        digest.update(tail)
        file.write(tail)
        file.seek(0)
        file.write(
            _HEADER.pack(
                _MAGIC, len(identities), stamp.columns, stamp.revision, last, stamp.gallery, digest.digest()[:16]
            )
        )


def digest_of(rows: Iterable[VectorRow]) -> bytes:
    """What a matrix of these rows carries."""
    identities = []
    digest = hashlib.sha256()
    for row in rows:
        identities.append(row.identity)
        digest.update(row.vector)
    digest.update(np.array(identities, "<i8").tobytes())
    return digest.digest()[:16]


def read_head(file: BinaryIO) -> Head | None:
    """Of a file, open at its beginning; None where it is no matrix."""
    header = file.read(_HEADER.size)
    if len(header) != _HEADER.size or not header.startswith(_MAGIC):
        return None
    _, rows, columns, revision, last, gallery, digest = _HEADER.unpack(header)
    return Head(Stamp(gallery, revision, columns), rows, last, digest)


def map_matrix(path: Path, stamp: Stamp) -> Matrix | None:
    """The file, memory-mapped; None where it is missing, stale or damaged."""
    try:
        with path.open("rb") as file:
            head = read_head(file)
            if head is None or head.stamp != stamp:
                return None
            rows, columns, last, digest = head.rows, stamp.columns, head.last, head.digest
            if os.fstat(file.fileno()).st_size != _HEADER.size + rows * (columns * 4 + 8):
                return None
            if rows == 0:
                return Matrix(np.zeros((0, columns), np.float32), np.zeros(0, np.int64), last, digest)
            payload = np.memmap(file, np.uint8, "r", _HEADER.size)
    except OSError:
        return None
    if hashlib.sha256(payload.data).digest()[:16] != digest:
        return None
    vectors = payload[: rows * columns * 4].view("<f4").reshape(rows, columns)
    return Matrix(vectors, payload[rows * columns * 4 :].view("<i8"), last, digest)
