"""One number for what a gallery holds, whatever the order: a copy that has it holds the same.

It is the sum of the records' SHA-256 modulo 2^256, so that a change costs no more than the records it touches
(M. Bellare and D. Micciancio, "A New Paradigm for Collision-Free Hashing: Incrementality at Reduced Cost", EUROCRYPT
1997). It finds what was lost, doubled or damaged on its way; it does not stand in for a signature.
"""

from __future__ import annotations

import hashlib
import struct

_MODULUS = 1 << 256
_EMBEDDING = struct.Struct("<cqq?dI")
_IDENTITY = struct.Struct("<cqdI")


def embedding_digest(number: int, identity: int, vector: bytes, source: str, created: float, negative: bool) -> int:
    """Of an embedding or negative; its crop does not count: copies do not carry it. vector: little-endian float32."""
    text = source.encode()
    head = _EMBEDDING.pack(b"e", number, identity, negative, created, len(text))
    return _number(head + text + vector)


def identity_digest(number: int, site: str, name: str, created: float) -> int:
    """Of a person: number, where they belong, name, seconds since the epoch."""
    text = site.encode()
    return _number(_IDENTITY.pack(b"i", number, created, len(text)) + text + name.encode())


def combined(total: int, added: int = 0, removed: int = 0) -> int:
    """The digest after records with these sums of digests have come and gone."""
    return (total + added - removed) % _MODULUS


def as_text(digest: int) -> str:
    """64 hexadecimal digits."""
    return f"{digest:064x}"


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest(), "big")
