"""Ed25519 signatures of bundles (RFC 8032): who made it, and that nothing of it was changed since.

What is signed is the manifest, byte for byte as it lies on disk: it carries the digest of every model, so the signature
covers them all. The signature stands beside it in `bundle.sig`, with the identity of the key it was made with.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.digests import sha256
from edge.errors import BundleError, InputError, MissingExtraError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_NAME = "bundle.sig"
FORMAT = "arcedge-signature"
VERSION = 1
MAX_SIGNATURE_BYTES = 4096
MAX_KEY_BYTES = 64 << 10

ENVIRONMENT = "ARCEDGE_REQUIRE_SIGNED"
"""Names a public key file; every bundle that is opened must then be signed with its private key."""

_DOMAIN = b"arcedge bundle manifest v1\0"
"""Before what is signed, so that a signature of something else made with the same key is none of a bundle."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key and the file it was read from. identity: the first 16 hex digits of the SHA-256 of its 32 bytes."""

    raw: bytes
    file: Path

    @property
    def identity(self) -> str:
        """Names the key in messages and in signatures."""
        return identity_of(self.raw)

    @classmethod
    def read(cls, file: Path) -> PublicKey:
        """Raises InputError where the file holds no Ed25519 public key, MissingExtraError without `cryptography`."""
        require_cryptography()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        data = _read_key(file)
        if b"PRIVATE KEY" in data:
            raise InputError(f"{file}: is a private key; keep it secret and name the public one, KEY.pub")
        try:
            key = load_pem_public_key(data)
        except Exception as error:  # the package raises several classes for what is no key
            raise InputError(f"{file}: no public key in PEM; make a pair with: edge bundle keygen") from error
        if not isinstance(key, Ed25519PublicKey):
            raise InputError(f"{file}: a key of another kind; Ed25519 is needed: edge bundle keygen")
        return cls(_raw(key), file)


@dataclass(frozen=True, slots=True)
class Signature:
    """What `bundle.sig` holds. key: identity of the public key; value: 64 bytes."""

    key: str
    value: bytes

    def to_bytes(self) -> bytes:
        """The file's content."""
        values = {
            "format": FORMAT,
            "version": VERSION,
            "algorithm": "ed25519",
            "key": self.key,
            "signature": base64.b64encode(self.value).decode(),
        }
        return (json.dumps(values, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Signature:
        """Raises ValueError for what is none."""
        values: Any = json.loads(data)
        if not isinstance(values, dict) or (values.get("format"), values.get("version")) != (FORMAT, VERSION):
            raise ValueError("of another format or version")
        if values.get("algorithm") != "ed25519":
            raise ValueError("made by another algorithm")
        value = base64.b64decode(str(values.get("signature")), validate=True)
        if len(value) != 64:
            raise ValueError("of another length")
        return cls(str(values.get("key")), value)


class SigningKey:
    """A private key, read once."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = _raw(key.public_key())

    @classmethod
    def read(cls, file: Path) -> SigningKey:
        """Raises InputError where the file holds no Ed25519 private key, or others may read it."""
        require_cryptography()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        data = _read_key(file)
        if data.lstrip().startswith(b"-----BEGIN PUBLIC KEY"):
            raise InputError(f"{file}: is the public key; signing needs the private one beside it, without .pub")
        if os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise InputError(f"{file}: others may read this private key; chmod 600 it")
        try:
            key = load_pem_private_key(data, password=None)
        except Exception as error:  # the package raises several classes for what is no key
            raise InputError(
                f"{file}: no private key in PEM without a password; make one: edge bundle keygen"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InputError(f"{file}: a key of another kind; Ed25519 is needed: edge bundle keygen")
        return cls(key)

    def sign(self, manifest: bytes) -> Signature:
        """Signs the bytes of a manifest."""
        return Signature(identity_of(self.public), self._key.sign(_DOMAIN + manifest))


def verify(manifest: bytes, signature: bytes | None, key: PublicKey, bundle: Path) -> None:
    """Raises BundleError, in one line, unless `signature` is one of these very bytes by `key`.

    signature: content of `bundle.sig`, None where there is none.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if signature is None:
        raise BundleError(f"{bundle}: is not signed, and {key.file} is required; sign it: edge bundle sign")
    try:
        found = Signature.from_bytes(signature)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{bundle}: its signature is damaged ({error}); sign it again: edge bundle sign") from error
    if found.key != key.identity:
        raise BundleError(
            f"{bundle}: signed with key {found.key}, not with that of {key.file} ({key.identity}); "
            "it comes from somebody else, or the key was changed"
        )
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(found.value, _DOMAIN + manifest)
    except InvalidSignature:
        raise BundleError(
            f"{bundle}: the signature is not of this manifest; it was changed after signing, do not use it"
        ) from None


def required_key() -> PublicKey | None:
    """The key that the environment requires of every bundle; None where it requires none. Raises InputError."""
    named = os.environ.get(ENVIRONMENT)
    return PublicKey.read(Path(named)) if named else None


def generate(file: Path) -> str:
    """Writes a new private key to `file` (readable by its owner alone) and its public key to `file`.pub.

    Gives the key's identity. Raises InputError where one of them is there already, or cannot be written.
    """
    require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    public = file.with_name(f"{file.name}.pub")
    if public.exists():
        raise InputError(f"{public}: is there already; name another file")
    _write_new(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write_new(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    return identity_of(_raw(key.public_key()))


def identity_of(raw: bytes) -> str:
    """The identity of a public key."""
    return sha256(raw).hexdigest()[:16]


def require_cryptography() -> None:
    """Raises MissingExtraError where the package is not installed."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("cryptography, which signs and verifies bundles,", "sign") from error


def _raw(key: Ed25519PublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return bytes(key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _read_key(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_KEY_BYTES:
            raise InputError(f"{file}: too large for a key")
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); name a key made by edge bundle keygen") from error


def _write_new(file: Path, data: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(data)
    except FileExistsError as error:
        raise InputError(f"{file}: is there already; name another file") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror})") from error
