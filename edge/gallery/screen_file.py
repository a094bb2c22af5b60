"""The INT8 screen of a matrix as a memory-mapped file beside it.

Layout, little-endian: a 96-byte header, (d, D) float32 axes, (N,) float32 scales, (N,) float32 offsets, zeros up to
a multiple of 64 bytes, (B, d, R) int8 blocks. The header carries the digest of the matrix it was made of, and its
own.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edge.gallery.files import replacing
from edge.gallery.screen import Screen, block_shape
from edge.gallery.vectors import Matrix

SCREEN_NAME = "vectors.i8"
_MAGIC = b"ARCEDGI1"
_HEADER = struct.Struct("<8sQQQQdd16s16s8x")
assert _HEADER.size == 96


def write_screen(path: Path, screen: Screen, matrix: Matrix) -> None:
    """In one step: a reader sees the old file or the new. Raises OSError."""
    width, columns = screen.axes.shape
    front = b"".join(part.astype("<f4").tobytes() for part in (screen.axes, screen.scale, screen.offset))
    front += bytes(-len(front) % 64)
    digest = hashlib.sha256(front)
    digest.update(screen.blocks.data)
    with replacing(path) as file:
        file.write(
            _HEADER.pack(
                _MAGIC,
                len(screen.scale),
                columns,
                width,
                screen.blocks.shape[2],
                screen.rounding,
                screen.left_out,
                matrix.digest,
                digest.digest()[:16],
            )
        )
        file.write(front)
        file.write(screen.blocks.data)


def matrix_of(file: BinaryIO) -> bytes | None:
    """Digest of the matrix that a screen, open at its beginning, was made of; None where it is none."""
    header = file.read(_HEADER.size)
    return _HEADER.unpack(header)[7] if len(header) == _HEADER.size and header.startswith(_MAGIC) else None


def read_screen(path: Path, matrix: Matrix) -> Screen | None:
    """The screen of this matrix, memory-mapped; None where it is missing, of another matrix, or damaged."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            if len(header) != _HEADER.size:
                return None
            magic, count, columns, width, length, rounding, left_out, source, digest = _HEADER.unpack(header)
            if magic != _MAGIC or source != matrix.digest or (count, columns) != matrix.vectors.shape or count == 0:
                return None
            blocks, expected = block_shape(count)
            if length != expected:  # one of another version
                return None
            front = width * columns * 4 + count * 8
            front += -front % 64
            if os.fstat(file.fileno()).st_size != _HEADER.size + front + blocks * width * length:
                return None
            payload = np.memmap(file, np.uint8, "r", _HEADER.size)
    except OSError:
        return None
    if hashlib.sha256(payload.data).digest()[:16] != digest:
        return None
    cuts = [width * columns, width * columns + count]
    axes, scale, offset = np.split(payload[:front].view("<f4")[: width * columns + 2 * count], cuts)
    return Screen(
        axes.reshape(width, columns),
        payload[front:].view(np.int8).reshape(blocks, width, length),
        scale,
        offset,
        rounding,
        left_out,
    )
