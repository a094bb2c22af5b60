"""Files that say who was where: what is made is for its owner's eyes, as a gallery is."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def make_private(path: Path, before: Path | None = None) -> None:
    """Makes an empty file where there is none, readable by its owner only, or by whom the file `before` it was for.

    So whoever lets a group read the first of many files lets it read all. Raises OSError.
    """
    mode = 0o600
    if before is not None and before.is_file():
        mode = stat.S_IMODE(before.stat().st_mode) & 0o666
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return
    try:
        os.fchmod(made, mode)  # what the umask took
    finally:
        os.close(made)
