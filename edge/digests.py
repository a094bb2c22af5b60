"""SHA-256 for what a process reads as it starts, without loading OpenSSL for it.

`hashlib` loads OpenSSL's library, 3.5 MB that stay resident, to hash the few megabytes of a bundle. Python carries an
implementation of its own, which is used where this build has it: the digests are the same, at some 2 ms of processor
time a megabyte more. Where somebody has loaded OpenSSL already, it is used. What hashes more than a bundle takes
`hashlib`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol


class Digest(Protocol):
    """What a hash object offers."""

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""


def _own() -> Callable[[bytes], Digest]:
    for module in ("_sha2", "_sha256", "hashlib"):  # of Python 3.12 and newer; before that; with OpenSSL
        try:
            found: Any = import_module(module).sha256
        except (ImportError, AttributeError):
            continue
        return found  # type: ignore[no-any-return]
    raise AssertionError("hashlib has sha256 in every Python")


_OWN = _own()


def sha256(data: bytes) -> Digest:
    """The SHA-256 of `data`."""
    openssl: Any = sys.modules.get("_hashlib")
    found: Digest = _OWN(data) if openssl is None else openssl.openssl_sha256(data)
    return found
