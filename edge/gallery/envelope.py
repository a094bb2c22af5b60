"""An encrypted file: a mark, 16 random bytes, then sealed chunks, each after its length.

Each chunk is bound to its place and to whether it is the last, so that none can be left out, moved or cut off.
"""

from __future__ import annotations

import secrets
import struct
from pathlib import Path
from typing import BinaryIO

from edge.errors import GalleryError, InputError
from edge.gallery.cipher import Key, Sealed

_MARK = b"ARCEDGX1"
_SALT_BYTES = 16
_LENGTH = struct.Struct("<I")
CHUNK = 16 << 20


def is_sealed(data: bytes) -> bool:
    """Whether a file's content was made by `seal`."""
    return data.startswith(_MARK)


def seal(data: memoryview, file: BinaryIO, key: Key) -> None:
    """Writes `data` encrypted. Raises OSError."""
    salt = secrets.token_bytes(_SALT_BYTES)
    cipher = Sealed(key, salt)
    file.write(_MARK + salt)
    starts = range(0, max(1, len(data)), CHUNK)
    for place, start in enumerate(starts):
        sealed = cipher.seal(bytes(data[start : start + CHUNK]), _kind(place, last=place + 1 == len(starts)))
        file.write(_LENGTH.pack(len(sealed)))
        file.write(sealed)


def unseal(data: bytes, path: Path, key: Key | None) -> bytes:
    """The content of a sealed file; `path` is for the message. Raises GalleryError without the right key, InputError
    where the file is damaged.
    """
    if key is None:
        raise GalleryError(f"{path}: is encrypted; name its key with --file-key")
    head = len(_MARK) + _SALT_BYTES
    cipher = Sealed(key, data[len(_MARK) : head])
    chunks: list[bytes] = []
    while head < len(data):
        (length,) = _LENGTH.unpack(data[head : head + _LENGTH.size].ljust(_LENGTH.size, b"\0"))
        start, head = head + _LENGTH.size, head + _LENGTH.size + length
        try:
            chunks.append(cipher.open(data[start:head], _kind(len(chunks), last=head >= len(data))))
        except GalleryError as error:
            raise InputError(f"{path}: cannot be decrypted: damaged, or another key's") from error
    if not chunks:
        raise InputError(f"{path}: damaged; export it again")
    return b"".join(chunks)


def _kind(place: int, *, last: bool) -> str:
    return f"export {place}{' last' if last else ''}"
