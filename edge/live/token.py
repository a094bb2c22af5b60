"""The secret that opens the page to other machines."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.errors import InputError
from edge.live.address import Address

VARIABLE = "ARCEDGE_SERVE_TOKEN"
"""Environment variable that holds a token, where no file is named."""

MIN_LENGTH = 16
"""Characters: 64 bits, if they are drawn at random from hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Token:
    """A secret that is compared in a time that tells nothing of it, and never printed."""

    _secret: bytes = field(repr=False)

    @classmethod
    def of(cls, text: str, where: str) -> Token:
        """Raises InputError, which names `where` it came from, for one that is short or holds blanks."""
        secret = text.strip()
        if len(secret) < MIN_LENGTH or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise InputError(
                f"{where}: a token has {MIN_LENGTH} or more letters, digits or signs; make one: openssl rand -hex 16"
            )
        return cls(secret.encode())

    @classmethod
    def read(cls, file: Path) -> Token:
        """The content of a file. Raises InputError."""
        try:
            return cls.of(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: the token cannot be read ({error})") from error

    def is_(self, offered: str) -> bool:
        """Whether somebody has the token."""
        return hmac.compare_digest(self._secret, offered.encode(errors="replace"))

    @property
    def cookie(self) -> str:
        """What a browser keeps in its place: from it the token cannot be had."""
        return hmac.new(self._secret, b"arcedge live page", hashlib.sha256).hexdigest()

    def made(self, cookie: str) -> bool:
        """Whether a cookie is this token's."""
        return hmac.compare_digest(self.cookie.encode(), cookie.encode(errors="replace"))


def required_token(address: Address, file: Path | None, environment: Mapping[str, str] = os.environ) -> Token | None:
    """The user's token; None where there is none and none is needed.

    Raises InputError for an address that other machines reach where there is none.
    """
    if file is not None:
        return Token.read(file)
    if VARIABLE in environment:
        return Token.of(environment[VARIABLE], f"${VARIABLE}")
    if not address.loopback:
        raise InputError(
            f"--serve {address.host}: other machines could see the page; give a token (--serve-token-file FILE or "
            f"${VARIABLE}), or leave the host out"
        )
    return None
