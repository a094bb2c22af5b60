"""Encryption of a gallery's fields, before they reach SQLite: AES-256-GCM of the `cryptography` package.

Each field has a random nonce and is bound to its gallery and its kind, so that one cannot be put in the place of
another. Names and vectors are found again by a keyed digest (HMAC-SHA256), which says nothing without the key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edge.errors import GalleryError, InputError, MissingExtraError

KEY_BYTES = 32
NONCE_BYTES = 12
KEY_VARIABLE = "ARCEDGE_GALLERY_KEY"
KEY_FILE_VARIABLE = "ARCEDGE_GALLERY_KEY_FILE"


@dataclass(frozen=True, slots=True)
class Key:
    """A secret of 32 bytes; it is never printed."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise GalleryError(f"a gallery's key has {KEY_BYTES} bytes, not {len(self.secret)}")

    @classmethod
    def random(cls) -> Key:
        """A new one."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def parse(cls, text: str, where: str) -> Key:
        """From base64, as `write` puts it; `where` is for the message. Raises GalleryError."""
        try:
            return cls(base64.b64decode(text.strip().encode(), validate=True))
        except (binascii.Error, UnicodeEncodeError, GalleryError) as error:
            raise GalleryError(
                f"{where}: no key of a gallery ({KEY_BYTES} bytes in base64); make one with: edge gallery key FILE"
            ) from error

    @classmethod
    def read(cls, path: Path) -> Key:
        """Raises InputError where the file cannot be read, GalleryError where it holds no key."""
        try:
            text = path.read_text(encoding="ascii")
        except OSError as error:
            raise InputError(f"{path}: the key cannot be read ({error.strerror})") from error
        except UnicodeDecodeError:
            text = ""
        return cls.parse(text, str(path))

    @classmethod
    def from_environment(cls) -> Key | None:
        """Of ARCEDGE_GALLERY_KEY or the file ARCEDGE_GALLERY_KEY_FILE names; None where neither is set."""
        if text := os.environ.get(KEY_VARIABLE):
            return cls.parse(text, KEY_VARIABLE)
        if path := os.environ.get(KEY_FILE_VARIABLE):
            return cls.read(Path(path))
        return None

    def write(self, path: Path) -> None:
        """To a new file that only its owner may read. Raises InputError, also where the file exists."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64encode(self.secret) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"{path}: the key cannot be written ({error.strerror})") from error


class Cipher(Protocol):
    """How fields are stored."""

    private: bool

    def seal(self, data: bytes, kind: str) -> bytes:
        """What is stored for a field of a kind ("name", "vector", …)."""

    def open(self, data: bytes, kind: str) -> bytes:
        """The field again. Raises GalleryError where it is not of this key, gallery and kind."""

    def token(self, data: bytes, kind: str) -> bytes:
        """32 bytes, the same for the same field, by which it is found."""


class Plain:
    """Fields as they are."""

    private = False

    def seal(self, data: bytes, kind: str) -> bytes:
        return data

    def open(self, data: bytes, kind: str) -> bytes:
        return data

    def token(self, data: bytes, kind: str) -> bytes:
        return hashlib.sha256(data).digest()


class Sealed:
    """Fields encrypted with one key, for the gallery of these 16 random bytes. Raises MissingExtraError."""

    private = True

    def __init__(self, key: Key, gallery: bytes) -> None:
        self._gallery = gallery
        self._token_key = _derived(key, b"arcedge gallery token", gallery)
        self._aead: Any = aes_gcm()(_derived(key, b"arcedge gallery field", gallery))

    def seal(self, data: bytes, kind: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + bytes(self._aead.encrypt(nonce, data, kind.encode()))

    def open(self, data: bytes, kind: str) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return bytes(self._aead.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], kind.encode()))
        except (InvalidTag, ValueError) as error:
            raise GalleryError(
                f"a {kind} cannot be decrypted: the gallery's key is another one, or the record is damaged"
            ) from error

    def token(self, data: bytes, kind: str) -> bytes:
        return hmac.digest(self._token_key, kind.encode() + b"\0" + data, "sha256")


def aes_gcm() -> Any:
    """The class AESGCM. Raises MissingExtraError."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise MissingExtraError("cryptography", "crypto") from error
    return AESGCM


def _derived(key: Key, purpose: bytes, gallery: bytes) -> bytes:
    """A key for one purpose and one gallery: the galleries of one secret share no nonces and no tokens."""
    return hmac.digest(key.secret, purpose + b"\0" + gallery, "sha256")
