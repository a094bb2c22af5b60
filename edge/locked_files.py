"""Temporary files that tell whether their writer lives: each is locked until it is closed, or its process ends."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def new_file(path: Path, suffix: str = "", mode: int = 0o666) -> tuple[BinaryIO, Path]:
    """A locked file beside `path` to write what it is to hold, and its name: hidden, drawn, with `suffix`.

    Drawn, because processes of two containers that share a folder may have one number. Raises OSError.
    """
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{suffix}")
        file = os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), "w+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file, temporary
        file.close()  # taken for left behind before it was locked


def remove_if_left(temporary: Path, erase: Callable[[BinaryIO], object] = lambda file: None) -> None:
    """Removes a file of `new_file` whose writer is gone, after `erase`; others stay. Raises OSError."""
    try:
        with temporary.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            erase(file)
            temporary.unlink(missing_ok=True)
    except (FileNotFoundError, BlockingIOError):
        return
