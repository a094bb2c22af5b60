"""Secrets of the receivers: from a file or the environment, never from the command line, which everybody can read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from edge.errors import InputError


def secret_of(file: Path | None, variable: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The content of a file without the line's end, else of an environment variable; None where there is neither.

    Raises InputError for a file that cannot be read, or an empty secret.
    """
    if file is None:
        if variable not in environment:
            return None
        secret, where = environment[variable], f"${variable}"
    else:
        try:
            secret, where = file.read_text(encoding="utf-8").rstrip("\r\n"), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: the secret cannot be read ({error})") from error
    if not secret or not secret.isprintable():
        raise InputError(f"{where}: holds no secret; it is one line of text")
    return secret


def address_of(text: str, option: str, schemes: Mapping[str, int], example: str) -> SplitResult:
    """The parts of a URL with one of `schemes`, which map to their usual ports.

    Raises InputError for another, or one without a host, with one that no name server can be asked for, or with a
    password; what may be secret is not in its message.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port
        (parts.hostname or "").encode("idna")
    except UnicodeError as error:
        raise InputError(f"{option}: {parts.hostname} cannot be the name of a host; write {example}") from error
    except ValueError as error:
        raise InputError(f"{option}: not an address ({error}); write {example}") from error
    if parts.scheme not in schemes or not parts.hostname:
        raise InputError(f"{option}: not an address; write {example}")
    if parts.password is not None:
        raise InputError(
            f"{option}: a password in an address can be read by everybody; see edge run --help for its place"
        )
    return parts
